//! `from:` of a route: what it reads, of one upstream or of several. Checks that it fits the kind of each upstream and the
//! parameters of the path.

mod choice;
mod list;
mod more;
mod source;
mod start;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::exchange;
use super::fields::Fields;
use super::keys;
use super::model::{Also, Digest, Source, Start};
use super::suggest;
use super::table;
use super::tree::{Node, Value};
use super::upstreams::{Kind, Upstreams};
use super::walk::Walk;

pub(super) use self::start::SINCE;

/// What `from` says, or one entry of it.
pub(super) struct From {
    /// The name of an upstream that exists.
    pub upstream: Option<Arc<str>>,
    /// Its kind, where that is known.
    pub kind: Option<Kind>,
    /// What is read from it.
    pub source: Option<Source>,
    /// Where a client without an id begins.
    pub start: Start,
}

impl From {
    /// Whether each client sees one key of it.
    pub fn is_keyed(&self) -> bool {
        matches!(self.source, Some(Source::Keyed { .. }))
    }

    /// As it is served, where nothing is wrong with it.
    pub fn sound(self, digest: Digest) -> Option<Also> {
        Some(Also {
            upstream: self.upstream?,
            source: self.source?,
            start: self.start,
            digest: digest.into(),
        })
    }
}

/// Reads `from`: one source, or a list of them. `params` are those of the path, missing where the path itself is in doubt.
/// Nothing where there is none to speak of.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    params: Option<&[String]>,
    upstreams: &Upstreams,
) -> Vec<From> {
    match &node.value {
        Value::List(nodes) => list::read(walk, node, nodes, params, upstreams),
        _ => read_one(walk, node, params, upstreams).into_iter().collect(),
    }
}

fn read_one(walk: &Walk<'_>, node: &Node, params: Option<&[String]>, upstreams: &Upstreams) -> Option<From> {
    let fields = Fields::open(walk, node, keys::FROM)?;
    let upstream = fields
        .required("upstream", "name one of `upstreams`")
        .and_then(|node| read_upstream(walk, node, upstreams));
    let (upstream, kind) = upstream.map_or((None, None), |(name, kind)| (Some(name), kind));
    let named = choice::named(&fields);
    choice::check(walk, &fields, kind, &named);
    // Those that do not fit as well: their templates may have problems of their own.
    let read: Vec<_> = named
        .iter()
        .filter_map(|entry| match entry.key.text.as_str() {
            "table" => table::read(walk, &fields, params),
            "exchange" => exchange::read(walk, &fields, params),
            _ => source::read(walk, fields.node(&entry.key.text)?, entry, params, kind),
        })
        .collect();
    let source = read.into_iter().next().or_else(|| kind?.only_source());
    let source = more::read(walk, &fields, params, source);
    let start = start::read(walk, &fields, kind, &named, source.as_ref());
    Some(From { upstream, kind, source, start })
}

fn read_upstream(walk: &Walk<'_>, node: &Node, upstreams: &Upstreams) -> Option<(Arc<str>, Option<Kind>)> {
    let scalar = walk.scalar(node, "the name of an upstream")?;
    let known = upstreams.known.iter().find(|(name, _)| **name == *scalar.text);
    // Without any, `upstreams` itself has been reported.
    if known.is_none() && !upstreams.known.is_empty() {
        let names = upstreams.known.iter().map(|(name, _)| &**name);
        let hint = if scalar.is_indirect() {
            String::new()
        } else {
            suggest::hint(&scalar.text, names, "known are")
        };
        walk.problem(scalar.span(), format!("no upstream is called {}{hint}", scalar.shown()));
    }
    known.cloned()
}

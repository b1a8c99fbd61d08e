//! `data:` of a route: what its events carry. A field of a stream's entry, some fields of a payload in JSON, all but some,
//! or what an expression makes of it.

use std::sync::Arc;

use super::expression;
use super::fields::Fields;
use super::keys;
use super::model::{Binary, Branch, Paths, Projection};
use super::place::Span;
use super::records::{AllRecords, Records};
use super::template::{Field, Part};
use super::templates;
use super::tree::{Entry, Node, Value};
use super::walk::{Scalar, Walk};

/// What `data` says.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// The field of an entry.
    pub field: Option<Arc<str>>,
    /// What of a payload in JSON.
    pub projection: Option<Projection>,
}

/// Reads `data`, which is `entry`; `params` are those of the path, missing where the path itself is in doubt.
pub(super) fn read(
    walk: &Walk<'_>,
    entry: &Entry,
    node: &Node,
    records: &AllRecords,
    params: Option<&[String]>,
) -> Data {
    if !matches!(node.value, Value::Map(_)) {
        check_field(walk, entry.key.span, records, "`data`");
        return Data { field: read_template(walk, node), projection: None };
    }
    let Some(fields) = Fields::open(walk, node, keys::DATA) else { return Data::default() };
    if fields.is_empty() {
        walk.problem(fields.span(), "`data` says nothing; write keep, drop or map");
    }
    let field = fields.node("field").and_then(|node| read_field(walk, node));
    if let Some(entry) = fields.entry("field") {
        check_field(walk, entry.key.span, records, "`field`");
    }
    let mut chosen: Option<&Entry> = None;
    for entry in fields.present().filter(|entry| entry.key.text != "field") {
        if let Some(first) = chosen {
            let text =
                format!("`data` is made in one way, this has `{}` already; keep one of them", first.key.text);
            walk.conflict(entry.key.span, text, first.key.span, "the other one");
        }
        chosen = chosen.or(Some(entry));
    }
    let keep = fields.node("keep").and_then(|node| read_paths(walk, node)).map(Projection::Keep);
    let dropped = fields.node("drop").and_then(|node| read_paths(walk, node)).map(Projection::Drop);
    let expected = "an expression such as `{'id': event.id}`, in quotes";
    let read = |node| expression::read(walk, node, expected, records, params, None);
    let map = fields.node("map").and_then(read);
    Data { field, projection: keep.or(dropped).or(map.map(Projection::Map)) }
}

/// Base64 is sent of payloads that nobody looks into.
pub(super) fn check_binary(walk: &Walk<'_>, at: Option<Span>, data: &Data, binary: Binary) {
    if let (Some(at), Some(_), Binary::Base64) = (at, &data.projection, binary) {
        let text = "`data` is made of payloads in JSON, and `binary: base64` sends them as bytes; leave out one of these";
        walk.problem(at, text);
    }
}

fn check_field(walk: &Walk<'_>, key: Span, records: &AllRecords, called: &str) {
    if let Some(records) = records.instead_of(Records::Stream) {
        let text = format!("only entries of a stream have fields to send, not {records}; remove {called}");
        walk.problem(key, text);
    }
}

/// The name of a field in its template.
fn read_template(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let scalar = walk.text(node, "one field of an entry, such as `{field.payload}`")?;
    let template = templates::read(walk, &scalar, None, |_| None)?;
    if let [Part::Field(Field::Entry(name))] = template.parts() {
        return Some(Arc::clone(name));
    }
    let text =
        format!("`data` is one field of an entry, not {}; write it as `{{field.NAME}}`", scalar.shown());
    walk.problem(scalar.span(), text);
    None
}

fn read_field(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let scalar = walk.text(node, "the name of a field of an entry")?;
    if scalar.text.is_empty() {
        walk.problem(scalar.span(), "`field` is empty; name a field of the entries");
        return None;
    }
    Some((&*scalar.text).into())
}

fn read_paths(walk: &Walk<'_>, node: &Node) -> Option<Paths> {
    let expected = "the path of a field, such as `customer.name`";
    let mut paths = Paths { texts: Vec::new(), tree: Vec::new() };
    for node in walk.one_or_more(node, expected)? {
        let Some(scalar) = walk.text(node, expected) else { continue };
        if scalar.text.split('.').any(str::is_empty) {
            walk.problem(scalar.span(), format!("{} is not {expected}", scalar.shown()));
        } else if scalar.text.split('.').count() > DEEPEST {
            walk.problem(scalar.span(), format!("{} has more than {DEEPEST} names", scalar.shown()));
        } else {
            add(walk, &scalar, &mut paths);
        }
    }
    Some(paths)
}

/// As deep as JSON is read.
const DEEPEST: usize = 128;

fn add(walk: &Walk<'_>, scalar: &Scalar<'_>, paths: &mut Paths) {
    if Branch::add(&mut paths.tree, &scalar.text) {
        let text = format!("{} is meant by another one already; remove one of them", scalar.shown());
        walk.problem(scalar.span(), text);
    }
    paths.texts.push((&*scalar.text).into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, expect_route, sound};

    fn route(from: &str, data: &str) -> String {
        format!("{{ path: '/{{p}}', from: {{ upstream: {from} }}, data: {data} }}")
    }

    fn read(from: &str, data: &str) -> (Option<Arc<str>>, Option<Projection>) {
        let route = sound(&format!("{HEAD}  - {}\n", route(from, data))).routes.remove(0);
        (route.data, route.projection)
    }

    #[test]
    fn what_is_sent() {
        assert_eq!(read("r, stream: xy", "'{field.pay.load}'"), (Some("pay.load".into()), None));
        let (field, keep) = read("r, stream: xy", "{ field: payload, keep: [a, b.c, b.d.e] }");
        let branch = |name: &str, below: Vec<Branch>| Branch { name: name.into(), below };
        let tree = vec![
            branch("a", vec![]),
            branch("b", vec![branch("c", vec![]), branch("d", vec![branch("e", vec![])])]),
        ];
        let texts = ["a", "b.c", "b.d.e"].map(Arc::from).to_vec();
        assert_eq!(
            (field.as_deref(), keep),
            (Some("payload"), Some(Projection::Keep(Paths { texts, tree })))
        );
        let Some(Projection::Drop(paths)) = read("r, channel: x", "{ drop: secret }").1 else { panic!() };
        assert_eq!(paths.tree, [branch("secret", vec![])]);
        let Some(Projection::Map(map)) = read("k, topic: x", "{ map: \"{'k': key, 'p': params.p}\" }").1
        else {
            panic!()
        };
        assert_eq!(map.shown(), "{'k': key, 'p': params.p}");
    }

    #[test]
    fn what_is_wrong() {
        // The value of `data` begins in column 62, its key in 56.
        for (from, data, column, text) in [
            (
                "r, channel: x",
                "'{field.a}'",
                56,
                "only entries of a stream have fields to send, not the messages of a Redis channel; remove `data`",
            ),
            ("k, topic: xyz", "'{field.a}'", 56, "not the records of a `kafka` upstream; remove `data`"),
            (
                "r, stream: xy",
                "'{p}'",
                62,
                "`data` is one field of an entry, not `{p}`; write it as `{field.NAME}`",
            ),
            ("r, stream: xy", "'{field.a} '", 62, "`data` is one field of an entry"),
            ("r, stream: xy", "a", 62, "`data` is one field of an entry, not `a`"),
            ("r, stream: xy", "''", 62, "`data` is one field of an entry"),
            ("r, stream: xy", "'{field.a'", 63, "`{` has no `}`"),
            ("r, stream: xy", "[a]", 62, "one field of an entry, such as `{field.payload}`, found a list"),
            ("r, stream: xy", "'${HIDDEN}'", 62, "`data` is one field of an entry, not this value"),
            (
                "r, channel: x",
                "{ field: a, keep: b }",
                64,
                "not the messages of a Redis channel; remove `field`",
            ),
            ("r, stream: xy", "{ field: '' }", 71, "`field` is empty"),
            ("k, topic: xyz", "{}", 62, "`data` says nothing; write keep, drop or map"),
            ("k, topic: xyz", "{ keep: a, map: event }", 73, "this has `keep` already; keep one of them"),
            ("k, topic: xyz", "{ keep: [] }", 70, "this list is empty; it needs the path of a field"),
            ("k, topic: xyz", "{ drop: [a..b] }", 71, "`a..b` is not the path of a field"),
            ("k, topic: xyz", "{ keep: [a.b, a] }", 76, "`a` is meant by another one already"),
            ("k, topic: xyz", "{ keep: [a, a.b] }", 74, "`a.b` is meant by another one already"),
            ("k, topic: xyz", "{ kep: a }", 64, "unknown key `kep` in `data`; did you mean `keep`?"),
            ("k, topic: xyz", "{ map: \"{'a': evnt}\" }", 76, "an expression knows nothing called `evnt`"),
            ("k, topic: xyz", "{ keep: a }, binary: base64", 56, "`binary: base64` sends them as bytes"),
        ] {
            expect_route(&route(from, data), column, text);
        }
    }
}

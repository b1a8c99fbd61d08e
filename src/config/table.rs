//! `table:` of a route's `from`: a table of Postgres to which applications add rows (an outbox), and what its columns mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys;
use super::mask;
use super::model::Source;
use super::templates;
use super::tree::Node;
use super::walk::{Scalar, Walk};

/// A table, and how it is read. Names are as Postgres has them: nothing of them is quoted yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// `table`: its schema, if one is written, and its name.
    pub name: (Option<Arc<str>>, Arc<str>),
    /// `columns.id`: whole numbers that a sequence gives. Default `id`.
    pub id: Arc<str>,
    /// `columns.data`: what is sent. Default `payload`.
    pub data: Arc<str>,
    /// `columns.event`: the names of events, which go before the route's.
    pub event: Option<Arc<str>>,
    /// `columns.key`: what a row is about.
    pub key: Option<Arc<str>>,
    /// `columns.time`: when it was added.
    pub time: Option<Arc<str>>,
    /// The columns that `where` names, in its order.
    pub filtered: Vec<Arc<str>>,
    /// `notify`: a channel on which is told that rows were added.
    pub notify: Option<Arc<str>>,
    /// `every`: how often it is looked at without being told. Default 1 s, 10 ms to 1 h.
    pub every: Duration,
}

/// As the file writes it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.name.0 {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name.1)
    }
}

/// Keys of `from` that say more of a table.
pub(super) const COMPANIONS: [&str; 4] = ["columns", "where", "notify", "every"];

pub(super) const EVERY: Bounds<Duration> = Bounds {
    default: Duration::from_secs(1),
    min: Duration::from_millis(10),
    max: Duration::from_secs(3_600),
};

/// The most bytes of an identifier: Postgres cuts off what is longer, and reads something else then.
pub(super) const IDENTIFIER: usize = 63;

/// Reads `table` and its companions; `params` are those of the path.
pub(super) fn read(walk: &Walk<'_>, from: &Fields<'_>, params: Option<&[String]>) -> Option<Source> {
    let name = from.node("table").and_then(|node| read_name(walk, node));
    let columns = from.node("columns").and_then(|node| Fields::open(walk, node, keys::COLUMNS));
    let column = |key: &str| read_identifier(walk, columns.as_ref()?.node(key)?);
    let (id, data) = (column("id"), column("data"));
    let (event, key, time) = (column("event"), column("key"), column("time"));
    let notify = from.node("notify").and_then(|node| read_identifier(walk, node));
    let every = from.duration("every", &EVERY).unwrap_or(EVERY.default);
    let (mut filtered, mut values) = (Vec::new(), Vec::new());
    let entries = from.node("where").and_then(|node| walk.entries(node, "a mapping of columns to values"));
    for entry in entries.unwrap_or_default() {
        if let Err(what) = check(&entry.key.text) {
            walk.problem(entry.key.span, format!("{} {what}", mask::quotable(&entry.key.text)));
        }
        let value = walk.text(&entry.value, "a value, as text");
        filtered.push(entry.key.text.as_str().into());
        values.extend(
            value.and_then(|value| templates::read(walk, &value, params, |_| Some(NO_RECORD.into()))),
        );
    }
    let table = Table {
        name: name?,
        id: id.unwrap_or_else(|| ID.into()),
        data: data.unwrap_or_else(|| DATA.into()),
        event,
        key,
        time,
        filtered,
        notify,
        every,
    };
    (values.len() == table.filtered.len()).then(|| Source::Table { table: Arc::new(table), values })
}

pub(super) const ID: &str = "id";
pub(super) const DATA: &str = "payload";

const NO_RECORD: &str =
    "comes with a row, and it is asked here which rows are meant; use a parameter of the path";

/// `NAME`, or `SCHEMA.NAME`.
fn read_name(walk: &Walk<'_>, node: &Node) -> Option<(Option<Arc<str>>, Arc<str>)> {
    let scalar = walk.text(node, "the name of a table")?;
    let (schema, name) = match scalar.text.split_once('.') {
        Some((schema, name)) => (Some(schema), name),
        None => (None, &*scalar.text),
    };
    schema.into_iter().try_for_each(|schema| checked(walk, &scalar, schema))?;
    checked(walk, &scalar, name)?;
    Some((schema.map(Into::into), name.into()))
}

fn read_identifier(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let scalar = walk.text(node, "a name")?;
    checked(walk, &scalar, &scalar.text)?;
    Some(scalar.text.into())
}

fn checked(walk: &Walk<'_>, scalar: &Scalar<'_>, name: &str) -> Option<()> {
    check(name).map_err(|what| walk.problem(scalar.span(), format!("{} {what}", scalar.shown()))).ok()
}

/// Whether Postgres has such a name, whatever is in it.
pub(super) fn check(name: &str) -> Result<(), &'static str> {
    match name.len() {
        0 => Err("is no name in Postgres: it is empty; write one"),
        _ if name.contains('\0') => Err("is no name in Postgres: it holds a NUL; remove it"),
        1..=IDENTIFIER => Ok(()),
        _ => Err(
            "is longer than the 63 bytes that Postgres has for a name, and would be cut off; choose a shorter one",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{expect, sound};

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams: {{ db: {{ postgres: {{ url: 'postgres://me@h' }} }} }}\nroutes: [{{ path: '/x/{{p}}', from: {{ upstream: db, {keys} }} }}]\n"
        )
    }

    fn one(keys: &str) -> (Table, Vec<String>) {
        match sound(&with(keys)).routes.remove(0).source {
            Source::Table { table, values } => {
                (Table::clone(&table), values.iter().map(ToString::to_string).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn its_columns() {
        let (table, values) = one("table: outbox");
        assert_eq!((table.to_string().as_str(), &*table.id, &*table.data), ("outbox", "id", "payload"));
        assert_eq!(
            (table.event, table.key, table.time, table.notify, values.len()),
            (None, None, None, None, 0)
        );
        assert_eq!(table.every, Duration::from_secs(1));
        let columns = "{ id: seq, data: 'da\"ta', event: type, key: who, time: at }";
        let rest = "where: { room: 'r-{p}', 'a b': x }, notify: news, every: 10ms, start: { since: 1h }";
        let (table, values) = one(&format!("table: app.outbox, columns: {columns}, {rest}"));
        assert_eq!((table.to_string().as_str(), &*table.id, &*table.data), ("app.outbox", "seq", "da\"ta"));
        assert_eq!((table.event.as_deref(), table.key.as_deref()), (Some("type"), Some("who")));
        assert_eq!((table.time.as_deref(), table.notify.as_deref()), (Some("at"), Some("news")));
        assert_eq!(
            (table.filtered, values),
            (vec!["room".into(), "a b".into()], vec!["r-{p}".into(), "x".into()])
        );
    }

    #[test]
    fn what_is_wrong() {
        // What follows the upstream begins in column 50.
        let long = "x".repeat(64);
        for (keys, column, text) in [
            ("table: ''", 57, "it is empty"),
            ("table: a.", 57, "it is empty"),
            (&format!("table: {long}"), 57, "longer than the 63 bytes"),
            ("table: a, columns: { idd: x }", 71, "unknown key `idd` in `columns`"),
            ("table: a, columns: { id: '' }", 75, "it is empty"),
            ("table: a, where: { '': x }", 69, "it is empty"),
            ("table: a, where: { room: '{q}' }", 76, "the path has no parameter `q`"),
            ("table: a, where: { room: '{key}' }", 76, "comes with a row"),
            ("table: a, where: x", 67, "expected a mapping of columns to values"),
            ("table: a, every: 1ms", 67, "it must be from 10ms to 1h"),
            ("table: a, channel: b", 60, "this one has `table` already"),
            ("table: a, start: { since: 1h }", 60, "`start` needs `columns.time`"),
            ("channel: a, where: { x: y }", 62, "`where` says more of a `table`"),
            (&format!("channel: {long}"), 59, "longer than the 63 bytes"),
            ("topic: a", 50, "a `postgres` upstream has no `topic`; it takes `channel` or `table`"),
            ("channel: a, start: earliest", 62, "a `channel` has no `start`"),
        ] {
            expect(&with(keys), &[(3, column, text)]);
        }
    }
}

//! `from.start`: where a client without an id begins, of what has a past to begin in.

use std::time::Duration;

use super::super::fields::{Bounds, Fields};
use super::super::keys;
use super::super::model::{Source, Start};
use super::super::suggest;
use super::super::tree::{Entry, Value};
use super::super::upstreams::Kind;
use super::super::walk::Walk;

pub(in super::super) const SINCE: Bounds<Duration> =
    Bounds { default: Duration::ZERO, min: Duration::ZERO, max: Duration::from_secs(365 * 86_400) };

/// Reads `start` of a source, which `named` are the entries for.
pub(super) fn read(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    kind: Option<Kind>,
    named: &[&Entry],
    source: Option<&Source>,
) -> Start {
    let start = read_start(walk, fields, without_history(kind, named)).unwrap_or(Start::Latest);
    if let (Some(Source::Lines), Start::Since(_), Some(node)) = (source, start, fields.node("start")) {
        walk.problem(node.span, "lines do not say when they were written; write `latest` or `earliest`");
    }
    check_time(walk, fields, source, start);
    start
}

/// What a route reads, if that has no past to begin in.
fn without_history(kind: Option<Kind>, sources: &[&Entry]) -> Option<String> {
    match kind? {
        Kind::Kafka | Kind::File | Kind::Stdin => None,
        Kind::Redis if sources.iter().any(|entry| entry.key.text == "stream") => None,
        Kind::Redis => sources.first().map(|entry| format!("a `{}`", entry.key.text)),
        kind @ (Kind::Push | Kind::Ticker | Kind::Sse | Kind::Http | Kind::Mqtt) => {
            Some(format!("a `{}` upstream", kind.name()))
        }
        Kind::Postgres if sources.iter().any(|entry| entry.key.text == "table") => None,
        Kind::Amqp if sources.iter().any(|entry| entry.key.text == "stream") => None,
        Kind::Postgres | Kind::Amqp => sources.first().map(|entry| suggest::one(&entry.key.text)),
        Kind::Nats if sources.iter().any(|entry| entry.key.text == "jetstream") => None,
        Kind::Nats => Some("a `subject` without `jetstream`".to_owned()),
    }
}

/// Reads `start`; `lacking` is what can have none.
fn read_start(walk: &Walk<'_>, fields: &Fields<'_>, lacking: Option<String>) -> Option<Start> {
    let entry = fields.entry("start")?;
    if let Some(lacking) = lacking {
        let text = format!("{lacking} has no `start`, {HAVE_ONE} have; remove it");
        walk.problem(entry.key.span, text);
    }
    let node = fields.node("start")?;
    if matches!(node.value, Value::Map(_)) {
        let fields = Fields::open(walk, node, keys::START)?;
        fields.required("since", "write it as `{ since: 1h }`")?;
        return fields.duration("since", &SINCE).map(Start::Since);
    }
    let words = "`latest`, `earliest` or `{ since: 1h }`";
    let scalar = walk.scalar(node, words)?;
    match &*scalar.text {
        "latest" => Some(Start::Latest),
        "earliest" => Some(Start::Earliest),
        _ => {
            walk.problem(scalar.span(), format!("`start` cannot be {}; write {words}", scalar.shown()));
            None
        }
    }
}

const HAVE_ONE: &str =
    "only topics of Kafka, streams of Redis, RabbitMQ and JetStream, tables, files and standard input";

/// Who begins some time back has to know when rows were added.
fn check_time(walk: &Walk<'_>, fields: &Fields<'_>, source: Option<&Source>, start: Start) {
    if let (Some(Source::Table { table, .. }), Start::Since(_), Some(entry)) =
        (source, start, fields.entry("start"))
        && table.time.is_none()
    {
        let text = "this `start` needs `columns.time`, the column that tells when a row was added; add it";
        walk.problem(entry.key.span, text);
    }
}

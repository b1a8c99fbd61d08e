//! What says more of a source: the key of a topic, a part of a stream, how surely it is handed over.

use super::super::exchange;
use super::super::fields::Fields;
use super::super::model::{Partitioner, Qos, Source};
use super::super::suggest;
use super::super::table;
use super::super::templates;
use super::super::walk::Walk;
use super::source::{self, UNKNOWN_YET};

/// Reads what `from` says more of `source`.
pub(super) fn read(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    params: Option<&[String]>,
    source: Option<Source>,
) -> Option<Source> {
    check_companions(walk, fields);
    let source = read_key(walk, fields, params, source);
    let source = read_part(walk, fields, params, source);
    read_qos(walk, fields, source)
}

/// What says more of a table or an exchange is of no use without one.
fn check_companions(walk: &Walk<'_>, fields: &Fields<'_>) {
    for (key, companions) in [("table", &table::COMPANIONS[..]), ("exchange", &exchange::COMPANIONS[..])] {
        if fields.entry(key).is_some() {
            continue;
        }
        for entry in companions.iter().filter_map(|companion| fields.entry(companion)) {
            let name = &entry.key.text;
            let text = format!("`{name}` says more of {}; add `{key}`, or remove it", suggest::one(key));
            walk.problem(entry.key.span, text);
        }
    }
}

/// Makes a topic of which clients see all one of which they see a key, where `from` has one.
fn read_key(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    params: Option<&[String]>,
    source: Option<Source>,
) -> Option<Source> {
    let partitioners =
        [("murmur2", Partitioner::Murmur2), ("crc32", Partitioner::Crc32), ("any", Partitioner::Any)];
    let partitioner = fields.entry("partitioner").and_then(|_| fields.choice("partitioner", &partitioners));
    if let (Some(entry), None) = (fields.entry("partitioner"), fields.entry("key")) {
        walk.problem(entry.key.span, "`partitioner` says where a `key` is; add `key`, or remove it");
    }
    let Some(entry) = fields.entry("key") else { return source };
    if fields.entry("topic").is_none() {
        walk.problem(entry.key.span, "a `key` is one of a `topic`; add `topic`, or remove it");
    }
    let scalar = walk.text(fields.node("key")?, "a key, as text")?;
    let key = templates::read(walk, &scalar, params, |_| Some(UNKNOWN_YET.to_owned()))?;
    if scalar.text.is_empty() {
        walk.problem(scalar.span(), "`key` is empty; name the key, such as `{id}`");
    }
    let partitioner = partitioner.unwrap_or(Partitioner::Murmur2);
    match source? {
        Source::Topic(topic) => Some(Source::Keyed { topic, key, partitioner }),
        other => Some(other),
    }
}

/// Makes a stream of JetStream a part of it, where `from` has a `subject` as well.
fn read_part(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    params: Option<&[String]>,
    source: Option<Source>,
) -> Option<Source> {
    let Some(entry) = fields.entry("jetstream").and(fields.entry("subject")) else { return source };
    let part = source::read(walk, fields.node("subject")?, entry, params, None)?;
    match (source?, part) {
        (Source::Jetstream { stream, .. }, Source::Subject(subject)) => {
            Some(Source::Jetstream { stream, subject: Some(subject) })
        }
        (other, _) => Some(other),
    }
}

fn read_qos(walk: &Walk<'_>, fields: &Fields<'_>, source: Option<Source>) -> Option<Source> {
    let Some(entry) = fields.entry("qos") else { return source };
    let qos = fields.choice("qos", &[("0", Qos::AtMostOnce), ("1", Qos::AtLeastOnce)]);
    match source? {
        Source::Filter { topic, .. } => Some(Source::Filter { topic, qos: qos? }),
        other => {
            walk.problem(entry.key.span, "`qos` is of the `topic` of an `mqtt` upstream; remove it");
            Some(other)
        }
    }
}

//! `tombstone:` of a route: what becomes of Kafka's records without a payload, by which a compacted topic says that
//! a key is gone. They are skipped, or become events with a name of their own.

use super::event;
use super::fields::Fields;
use super::from::From;
use super::keys;
use super::records::{AllRecords, Records};
use super::template::{Field, Template};
use super::tree::{Entry, Value};
use super::upstreams::Kind;
use super::walk::Walk;

/// Reads `tombstone`, an entry of the route that `fields` is; nothing for `skip`. The rest is as for an event's name.
pub(super) fn read(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    entry: &Entry,
    from: &[From],
    params: Option<&[String]>,
    prefix: &str,
) -> Option<Template> {
    let is_other = |from: &From| from.kind.is_some_and(|kind| kind != Kind::Kafka);
    if let Some(kind) = from.first().and_then(|first| first.kind).filter(|_| from.iter().all(is_other)) {
        let text = format!("a `{}` upstream has no tombstones, only topics have; remove it", kind.name());
        walk.problem(entry.key.span, text);
    }
    let node = fields.node("tombstone")?;
    if let Value::Map(_) = &node.value {
        let tombstone = Fields::open(walk, node, keys::TOMBSTONE)?;
        let name =
            tombstone.required("event", "it names the events that tombstones become, such as `delete`")?;
        let records = AllRecords::only(Records::Of(Kind::Kafka));
        let template = event::name(walk, name, &records, params, prefix, "write one, such as `delete`")?;
        if template.fields().any(|field| matches!(field, Field::Event(_))) {
            walk.problem(
                name.span,
                "a tombstone has no payload to take its name from; use `{key}` or a header",
            );
        }
        return Some(template);
    }
    let scalar = walk.scalar(node, "`skip` or a mapping such as `{ event: delete }`")?;
    if scalar.text != "skip" {
        let text = format!("`tombstone` cannot be {}; write `skip` or `{{ event: NAME }}`", scalar.shown());
        walk.problem(scalar.span(), text);
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{HEAD, expect_route, sound};

    fn tombstone(value: &str) -> Option<String> {
        let keys = if value.is_empty() { String::new() } else { format!(", tombstone: {value}") };
        let text = format!("{HEAD}  - {{ path: '/x/{{p}}', from: {{ upstream: k, topic: x }}{keys} }}\n");
        sound(&text).routes.remove(0).tombstone.map(|name| name.to_string())
    }

    #[test]
    fn skipped_or_named() {
        assert_eq!(tombstone(""), None);
        assert_eq!(tombstone("skip"), None);
        assert_eq!(tombstone("{ event: delete }").as_deref(), Some("delete"));
        let name = "{topic}:{key}:{header.a}:{p}";
        assert_eq!(tombstone(&format!("{{ event: '{name}' }}")).as_deref(), Some(name));
    }

    #[test]
    fn what_is_wrong() {
        // `tombstone` begins in column 56.
        for (upstream, value, column, text) in [
            ("k, topic: xyz", "keep", 67, "`tombstone` cannot be `keep`; write `skip` or `{ event: NAME }`"),
            (
                "k, topic: xyz",
                "[skip]",
                67,
                "expected `skip` or a mapping such as `{ event: delete }`, found a list",
            ),
            ("k, topic: xyz", "", 56, "`tombstone` has no value"),
            ("k, topic: xyz", "{}", 67, "`tombstone` lacks `event`; it names the events"),
            (
                "k, topic: xyz",
                "{ event: '' }",
                76,
                "an event name cannot be empty; write one, such as `delete`",
            ),
            ("k, topic: xyz", "{ event: stream.x }", 76, "names that start with `stream.` belong to"),
            (
                "k, topic: xyz",
                "{ event: '{channel}' }",
                77,
                "`{channel}` is not in the records of a `kafka` upstream",
            ),
            (
                "k, topic: xyz",
                "{ event: '{event.a}' }",
                76,
                "a tombstone has no payload to take its name from",
            ),
            ("k, topic: xyz", "{ event: '{q}' }", 77, "the path has no parameter `q`"),
            (
                "r, channel: x",
                "skip",
                56,
                "a `redis` upstream has no tombstones, only topics have; remove it",
            ),
            ("p, channel: x", "{ event: x }", 56, "a `push` upstream has no tombstones"),
        ] {
            let route = format!("{{ path: '/{{p}}', from: {{ upstream: {upstream} }}, tombstone: {value} }}");
            expect_route(&route, column, text);
        }
    }
}

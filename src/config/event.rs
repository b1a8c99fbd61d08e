//! `event:` of a route: what its events are called. Checks that the name can stand on an `event:` line, is not one of
//! ssegate's own, and names only what the records of the source have.

use super::records::AllRecords;
use super::template::{Part, Template};
use super::templates;
use super::tree::Node;
use super::walk::Walk;

/// Reads `event`; `params` are those of the path, missing where the path itself is in doubt, and
/// `prefix` belongs to the control events.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    records: &AllRecords,
    params: Option<&[String]>,
    prefix: &str,
) -> Option<Template> {
    name(walk, node, records, params, prefix, "remove `event` for events without a name")
}

/// The same for the name of any event; `empty` is what to do where it is empty.
pub(super) fn name(
    walk: &Walk<'_>,
    node: &Node,
    records: &AllRecords,
    params: Option<&[String]>,
    prefix: &str,
    empty: &str,
) -> Option<Template> {
    let scalar = walk.text(node, "the name of an event, as text")?;
    let template = templates::read(walk, &scalar, params, |field| records.refusal(field))?;
    let span = scalar.span();
    if scalar.text.is_empty() {
        walk.problem(span, format!("an event name cannot be empty; {empty}"));
    }
    if scalar.text.contains(['\r', '\n', '\0']) {
        walk.problem(span, "an event name cannot hold a line break or a NUL; remove it");
    }
    if matches!(template.parts().first(), Some(Part::Literal(text)) if text.starts_with(prefix)) {
        let text = format!(
            "names that start with `{prefix}` belong to ssegate's own events; choose another, or change `server.control_prefix`"
        );
        walk.problem(span, text);
    }
    Some(template)
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{HEAD, expect, expect_route, sound};

    #[test]
    fn events() {
        let event = |upstream: &str, event: &str| {
            let text =
                format!("{HEAD}  - {{ path: '/x/{{p}}', from: {{ {upstream} }}, event: '{event}' }}\n");
            sound(&text).routes.remove(0).event.unwrap().to_string()
        };
        assert_eq!(event("upstream: r, channel: x", "{channel}/{p}"), "{channel}/{p}");
        assert_eq!(event("upstream: p, channel: x", "{channel}"), "{channel}");
        assert_eq!(event("upstream: k, topic: x", "{topic}{key}{header.a}"), "{topic}{key}{header.a}");
        assert_eq!(event("upstream: r, stream: x", "{stream}/{field.a}{p}"), "{stream}/{field.a}{p}");
        assert_eq!(event("upstream: t", "{p} {{x}}"), "{p} {{x}}");
        assert_eq!(event("upstream: t", "streams"), "streams");
    }

    #[test]
    fn events_that_are_wrong() {
        // The value of `event` begins in column 63.
        for (upstream, event, column, text) in [
            (
                "r, channel: x",
                "'{key}'",
                64,
                "`{key}` is not in the messages of a Redis channel; these have `{channel}`",
            ),
            ("r, channel: x", "'{field.a}'", 64, "`{field.a}` is not in the messages of a Redis channel"),
            ("k, topic: xyz", "'{stream}'", 64, "`{stream}` is not in the records of a `kafka` upstream"),
            (
                "r, stream: xy",
                "'a{channel}'",
                65,
                "`{channel}` is not in the entries of a stream; these have `{stream}` and `{field.NAME}`",
            ),
            ("p, channel: x", "'{topic}'", 64, "`{topic}` is not in the records of a `push` upstream"),
            ("k, topic: xyz", "'{channel}'", 64, "these have `{topic}`, `{key}` and `{header.NAME}`"),
            (
                "t            ",
                "'a{header.b}'",
                65,
                "`{header.b}` is not in the records of a `ticker` upstream; use parameters",
            ),
            ("r, channel: x", "'{q}'", 64, "the path has no parameter `q`"),
            ("r, channel: x", "'a}b'", 65, "`}` has no `{`"),
            ("r, channel: x", "''", 63, "an event name cannot be empty; remove `event`"),
            ("r, channel: x", "\"a\\nb\"", 63, "an event name cannot hold a line break or a NUL"),
            ("r, channel: x", "\"a\\0b\"", 63, "an event name cannot hold a line break or a NUL"),
            (
                "r, channel: x",
                "stream.x",
                63,
                "names that start with `stream.` belong to ssegate's own events",
            ),
            ("r, channel: x", "'stream.{p}'", 63, "names that start with `stream.`"),
            ("r, channel: x", "true", 63, "expected the name of an event, as text, found `true`"),
        ] {
            expect_route(
                &format!("{{ path: '/{{p}}', from: {{ upstream: {upstream} }}, event: {event} }}"),
                column,
                text,
            );
        }
    }

    #[test]
    fn a_changed_prefix_is_the_one_that_is_reserved() {
        let with = |event: &str| {
            let head = HEAD.replace("tls: none", "tls: none, control_prefix: my-");
            format!("{head}  - {{ path: /x, from: {{ upstream: t }}, event: {event} }}\n")
        };
        sound(&with("stream.x"));
        expect(&with("my-x"), &[(8, 47, "names that start with `my-`")]);
    }
}

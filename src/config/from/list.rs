//! `from:` as a list: several sources, which a route gives as one feed with one id.

use super::super::composite::{self, LONGEST};
use super::super::longest::OF_SERVER;
use super::super::model::Source;
use super::super::place::Span;
use super::super::tree::Node;
use super::super::upstreams::Upstreams;
use super::super::walk::Walk;
use super::{From, read_one};

/// How many sources a route may have.
const MOST: usize = 16;

/// Reads `nodes`, which are those of the list `node`; `params` are those of the path.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    nodes: &[Node],
    params: Option<&[String]>,
    upstreams: &Upstreams,
) -> Vec<From> {
    if nodes.is_empty() {
        walk.problem(node.span, "`from` is an empty list; it needs one source, and takes up to 16");
    }
    if let Some(beyond) = nodes.get(MOST) {
        let text = "a route reads 16 sources at most; give what is beyond a route of its own";
        walk.problem(beyond.span, text);
    }
    let (mut all, mut places) = (Vec::<From>::new(), Vec::<Span>::new());
    for node in nodes {
        let Some(from) = read_one(walk, node, params, upstreams) else { continue };
        if let Some(at) = all.iter().position(|other| are_one(other, &from)) {
            let text = "the list has this source already; remove one of them";
            walk.conflict(node.span, text, places[at], "the first one");
        }
        all.push(from);
        places.push(node.span);
    }
    check_ids(walk, node.span, &all);
    all
}

/// Whether both are the same to clients: how it is read makes no other source of it.
fn are_one(one: &From, other: &From) -> bool {
    let (Some(source), Some(its)) = (&one.source, &other.source) else { return false };
    one.upstream.is_some()
        && one.upstream == other.upstream
        && match (source, its) {
            (Source::Filter { topic, .. }, Source::Filter { topic: its, .. }) => topic == its,
            (Source::Keyed { topic, key, .. }, Source::Keyed { topic: its, key: its_key, .. }) => {
                (topic, key) == (its, its_key)
            }
            (Source::Table { table, values }, Source::Table { table: its, values: others }) => {
                (&table.name, &table.filtered, values) == (&its.name, &its.filtered, others)
            }
            (source, its) => source == its,
        }
}

/// What clients bring back has to fit into a header field.
fn check_ids(walk: &Walk<'_>, at: Span, all: &[From]) {
    let lengths = all.iter().map(|from| from.kind.zip(from.source.as_ref()));
    let lengths = lengths.map(|known| known.map_or(0, |(kind, source)| source.longest_id(kind)));
    let longest = composite::longest(lengths);
    if all.len() > 1 && longest > LONGEST {
        // It takes several of these.
        let text = format!(
            "the event ids of these sources may come to {longest} bytes, with {OF_SERVER} for an id of a server, and more than {LONGEST} are not sure to get back through servers and proxies; read fewer of them"
        );
        walk.problem(at, text);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{HEAD, expect, expect_route, sound};
    use crate::config::{Start, summary};

    /// A route on line 8; the value of `from` begins in column 31.
    fn route(from: &str) -> String {
        format!("{{ path: '/xyz/{{p}}', from: {from} }}")
    }

    #[test]
    fn each_source_has_an_upstream_and_a_start_of_its_own() {
        let from = "[{ upstream: k, topic: 'o-{p}', start: earliest }, { upstream: r, channel: '{p}' }, { upstream: t }]";
        let route = sound(&format!("{HEAD}  - {}\n", route(from))).routes.remove(0);
        let all: Vec<_> = route.sources().map(|own| (&**own.upstream, own.start)).collect();
        assert_eq!(all, [("k", Start::Earliest), ("r", Start::Latest), ("t", Start::Latest)]);
        assert_eq!(route.also.len(), 2);
    }

    #[test]
    fn a_list_of_one_is_that_one() {
        let of = |from: &str| sound(&format!("{HEAD}  - {}\n", route(from)));
        let one = "{ upstream: k, topic: o, start: { since: 1h } }";
        let (list, alone) = (of(&format!("[{one}]")), of(one));
        assert_eq!(list.routes, alone.routes);
        assert_eq!(summary(&list), summary(&alone));
    }

    #[test]
    fn what_is_wrong_with_a_list() {
        for (from, column, text) in [
            ("[]", 31, "`from` is an empty list; it needs one source, and takes up to 16"),
            ("[r]", 32, "expected a mapping, found `r`"),
            ("[[{ upstream: t }]]", 32, "expected a mapping, found a list"),
            ("[{ upstream: k, topic: o }, { upstream: k }]", 59, "`from` does not say what to read"),
            (
                "[{ upstream: t }, { upstream: r, channel: '{q}' }]",
                74,
                "the path has no parameter `q`; it has `p`",
            ),
            (
                "[{ upstream: t }, { upstream: t }]",
                49,
                "the list has this source already; remove one of them",
            ),
            (
                "[{ upstream: k, topic: o, key: a }, { upstream: k, topic: o, key: a, partitioner: any }]",
                67,
                "the list has this source already",
            ),
            (
                "[{ upstream: t }, { upstream: r, channel: a, start: latest }]",
                76,
                "a `channel` has no `start`",
            ),
        ] {
            expect_route(&route(from), column, text);
        }
        // The same name is another source in another upstream, by another key, or of another kind.
        let others = "[{ upstream: r, channel: a }, { upstream: p, channel: a }, { upstream: r, stream: a }, { upstream: k, topic: a }, { upstream: k, topic: a, key: b }, { upstream: k, topic: a, key: c }]";
        sound(&format!("{HEAD}  - {}\n", route(others)));
    }

    #[test]
    fn there_are_so_many_sources_and_ids_are_so_long() {
        let list = |upstream: &str, count: usize| {
            let each: Vec<_> = (0..count).map(|n| format!("{{ upstream: {upstream}{n} }}")).collect();
            format!("[{}]", each.join(", "))
        };
        sound(&format!("{HEAD}  - {}\n", route(&list("k, topic: o", 16))));
        let beyond = 31 + list("k, topic: o", 16).len() + 1;
        expect_route(&route(&list("k, topic: o", 17)), beyond, "a route reads 16 sources at most");
        let head = HEAD.replace("ticker: {}", "sse: { url: 'http://app.internal' }");
        let text = |count| format!("{head}  - {}\n", route(&list("t, path: /", count)));
        sound(&text(7));
        let told = "may come to 4202 bytes, with 512 for an id of a server, and more than 4096 are not sure to get back";
        expect(&text(8), &[(8, 31, told)]);
    }

    #[test]
    fn what_is_said_of_events_has_to_fit_each_source() {
        let from = "[{ upstream: k, topic: o }, { upstream: r, stream: s }, { upstream: r, pattern: 'x.*' }]";
        let with = |keys: &str| format!("{{ path: /x, from: {from}, {keys} }}");
        // What follows the list begins in column 113.
        for (keys, column, text) in [
            ("event: '{topic}'", 121, "`{topic}` is not in the entries of a stream"),
            ("event: '{stream}'", 121, "`{stream}` is not in the records of a `kafka` upstream"),
            (
                "filter: key == 'a'",
                121,
                "`key` is not in the entries of a stream; these have `event`, `channel`",
            ),
            ("decode: json", 113, "an entry of a stream has many fields"),
            (
                "conflate: { by: key, every: 1s }",
                129,
                "no key of their own; name something that all of them have",
            ),
            (
                "snapshot: { by: '{event.id}' }",
                113,
                "each of these sources would send its own; give each a route",
            ),
        ] {
            expect_route(&with(keys), column, text);
        }
        expect_route(&with("compress: gzip"), 113, "those of several sources are each sent their own");
        // What one of them has is for that one.
        for keys in [
            "data: '{field.a}'",
            "data: { field: a, keep: [b] }, decode: json",
            "tombstone: { event: gone }",
            "conflate: { by: '{event.id}', every: 1s }",
            "wrap: envelope",
        ] {
            sound(&format!("{HEAD}  - {}\n", with(keys)));
        }
        let none =
            "{ path: /x, from: [{ upstream: r, channel: a }, { upstream: t }], tombstone: { event: gone } }";
        expect_route(none, 71, "a `redis` upstream has no tombstones");
        let none = "{ path: /x, from: [{ upstream: r, channel: a }, { upstream: t }], data: '{field.a}' }";
        expect_route(
            none,
            71,
            "only entries of a stream have fields to send, not the messages of a Redis channel",
        );
    }

    #[test]
    fn the_key_of_a_record_is_what_its_source_calls_so() {
        let from = "[{ upstream: k, topic: o }, { upstream: r, pattern: 'x.*' }]";
        let text = format!("{HEAD}  - {{ path: /x, from: {from}, conflate: {{ by: key, every: 1s }} }}\n");
        let route = sound(&text).routes.remove(0);
        let by = route.sources().map(|own| own.digest.conflate.as_ref().unwrap().by.to_string());
        assert_eq!(by.collect::<Vec<_>>(), ["{key}", "{channel}"]);
    }

    #[test]
    fn the_keys_of_a_topic_stay_each_clients_own() {
        let from = "[{ upstream: k, topic: o, key: '{p}' }, { upstream: r, channel: '{p}' }]";
        let with = |keys: &str| format!("{{ path: '/{{p}}', from: {from}, {keys} }}");
        for keys in ["event: order", "rate: { events: 1, every: 1s }"] {
            sound(&format!("{HEAD}  - {}\n", with(keys)));
        }
        expect_route(&with("event: '{p}'"), 108, "the routes of a topic's keys share its events");
    }
}

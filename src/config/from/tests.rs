//! What `from` says of one source, and what is wrong with it.

use std::time::Duration;

use super::super::model::{Partitioner, Route, Source, Start};
use super::super::template::Template;
use super::super::testing::{HEAD, expect, expect_route, sound};

/// A route to `from` on line 8; `from` begins in column 23.
fn route(from: &str) -> String {
    format!("{{ path: '/x/{{p}}', from: {from} }}")
}

fn source(from: &str) -> Source {
    sound(&format!("{HEAD}  - {}\n", route(from))).routes.remove(0).source
}

#[test]
fn sources() {
    let template = |text: &str| Template::parse(text).unwrap();
    assert_eq!(source("{ upstream: r, channel: 'a:{p}' }"), Source::Channel(template("a:{p}")));
    assert_eq!(source("{ upstream: r, pattern: 'a.*' }"), Source::Pattern(template("a.*")));
    assert_eq!(source("{ upstream: r, shard_channel: 'a:{p}' }"), Source::ShardChannel(template("a:{p}")));
    assert_eq!(source("{ upstream: p, channel: 7 }"), Source::Channel(template("7")));
    assert_eq!(source("{ upstream: k, topic: 'o-{p}', start: latest }"), Source::Topic(template("o-{p}")));
    assert_eq!(source("{ upstream: r, stream: 'a:{p} b' }"), Source::Stream(template("a:{p} b")));
    assert_eq!(source("{ upstream: t }"), Source::Ticker);
    let lines = |kind: &str, from: &str| {
        HEAD.replace("ticker: {}", kind) + &format!("  - {{ path: /x, from: {from} }}\n")
    };
    for kind in ["file: { path: /x }", "stdin: {}"] {
        let route = sound(&lines(kind, "{ upstream: t, start: earliest }")).routes.remove(0);
        assert_eq!((route.source, route.start), (Source::Lines, Start::Earliest));
    }
    let since = lines("stdin: {}", "{ upstream: t, start: { since: 1h } }");
    expect(&since, &[(8, 45, "lines do not say when they were written")]);
}

#[test]
fn starts() {
    for (text, start) in [
        ("latest", Start::Latest),
        ("earliest", Start::Earliest),
        ("{ since: 1h }", Start::Since(Duration::from_secs(3_600))),
    ] {
        for from in ["upstream: k, topic: x", "upstream: r, stream: x"] {
            let text = format!("{HEAD}  - {}\n", route(&format!("{{ {from}, start: {text} }}")));
            assert_eq!(sound(&text).routes[0].start, start);
        }
    }
    assert_eq!(sound(&format!("{HEAD}  - {}\n", route("{ upstream: t }"))).routes[0].start, Start::Latest);
}

#[test]
fn keys() {
    let template = |text: &str| Template::parse(text).unwrap();
    let keyed = |partitioner| Source::Keyed { topic: template("o"), key: template("{p}"), partitioner };
    assert_eq!(source("{ upstream: k, topic: o, key: '{p}' }"), keyed(Partitioner::Murmur2));
    let crc32 = "{ upstream: k, topic: o, key: '{p}', partitioner: crc32 }";
    assert_eq!(source(crc32), keyed(Partitioner::Crc32));
    for (from, column, text) in [
        ("{ upstream: k, topic: o, key: '{q}' }", 60, "the path has no parameter `q`; it has `p`"),
        ("{ upstream: k, topic: o, key: '' }", 59, "`key` is empty"),
        ("{ upstream: k, topic: o, partitioner: any }", 54, "`partitioner` says where a `key` is; add `key`"),
        (
            "{ upstream: k, topic: o, key: a, partitioner: sticky }",
            75,
            "`partitioner` cannot be `sticky`; write `murmur2`, `crc32` or `any`",
        ),
        ("{ upstream: r, channel: o, key: a }", 56, "a `key` is one of a `topic`"),
    ] {
        expect_route(&route(from), column, text);
    }
}

#[test]
fn upstreams_that_are_not_there() {
    for (from, column, text) in [
        ("{ channel: x }", 29, "`from` lacks `upstream`; name one of `upstreams`"),
        ("{ upstream: x, channel: x }", 41, "no upstream is called `x`; known are `r`, `k`, `t` and `p`"),
        ("{ upstream: '${HIDDEN}', channel: x }", 41, "no upstream is called this value"),
        ("{ upstream: [r], channel: x }", 41, "expected the name of an upstream, found a list"),
        ("r", 29, "expected a mapping, found `r`"),
    ] {
        expect_route(&route(from), column, text);
    }
    expect_route("{ path: /x }", 5, "a route lacks `from`; it says what to read");
    let text = HEAD.replace("  r:", "  cache:") + "  - { path: /x, from: { upstream: cahce, channel: x } }\n";
    expect(&text, &[(8, 35, "no upstream is called `cahce`; did you mean `cache`?")]);
}

#[test]
fn an_upstream_with_problems_of_its_own_is_there() {
    let text =
        HEAD.replace("redis://localhost", "x") + "  - { path: /x, from: { upstream: r, channel: x } }\n";
    expect(&text, &[(3, 22, "Redis URL")]);
    let text = HEAD.replace("ticker: {}", "tick: {}") + "  - { path: /x, from: { upstream: t } }\n";
    expect(&text, &[(5, 8, "unknown key `tick` in an upstream")]);
}

#[test]
fn sources_that_do_not_fit() {
    for (from, column, text) in [
        (
            "{ upstream: r, topic: x }",
            44,
            "a `redis` upstream has no `topic`; it takes `channel`, `pattern`, `shard_channel` or `stream`",
        ),
        ("{ upstream: k, channel: x }", 44, "a `kafka` upstream has no `channel`; it takes `topic`"),
        ("{ upstream: p, shard_channel: x }", 44, "a `push` upstream has no `shard_channel`"),
        ("{ upstream: p, pattern: x }", 44, "a `push` upstream has no `pattern`; it takes `channel`"),
        (
            "{ upstream: t, channel: x }",
            44,
            "a `ticker` upstream has no `channel`; it takes nothing but `upstream`",
        ),
        (
            "{ upstream: r, channel: x, pattern: y }",
            56,
            "a route reads one source, this one has `channel` already",
        ),
        (
            "{ upstream: r }",
            29,
            "`from` does not say what to read; it takes `channel`, `pattern`, `shard_channel` or `stream`",
        ),
        ("{ upstream: k }", 29, "`from` does not say what to read; it takes `topic`"),
        (
            "{ upstream: r, chanel: x, channel: y }",
            44,
            "unknown key `chanel` in `from`; did you mean `channel`?",
        ),
        (
            "{ upstream: k, topic: x, start: first }",
            61,
            "`start` cannot be `first`; write `latest`, `earliest` or `{ since: 1h }`",
        ),
        (
            "{ upstream: r, channel: x, start: latest }",
            56,
            "a `channel` has no `start`, only topics of Kafka, streams of Redis, RabbitMQ and JetStream, tables, files and standard input have; remove it",
        ),
        ("{ upstream: p, channel: x, start: latest }", 56, "a `push` upstream has no `start`"),
        ("{ upstream: r, stream: x, start: first }", 62, "`start` cannot be `first`"),
        (
            "{ upstream: r, stream: x, channel: y }",
            55,
            "a route reads one source, this one has `stream` already",
        ),
        ("{ upstream: k, stream: x }", 44, "a `kafka` upstream has no `stream`; it takes `topic`"),
        ("{ upstream: r, stream: '{field.a}' }", 53, "`{field.a}` comes with a record"),
        ("{ upstream: r, stream: '' }", 52, "`stream` is empty; name what to read"),
        ("{ upstream: k, topic: x, start: {} }", 61, "`start` lacks `since`; write it as `{ since: 1h }`"),
        ("{ upstream: k, topic: x, start: { since: 366d } }", 70, "from 0 to 365d"),
        ("{ upstream: k, topic: x, start: [a] }", 61, "found a list"),
        ("{ upstream: r, channel: }", 44, "`channel` has no value"),
        ("{ upstream: r, channel: '' }", 53, "`channel` is empty; name what to read"),
        (
            "{ upstream: r, channel: [a] }",
            53,
            "as text, found a list; text that begins with `[` goes in quotes",
        ),
        ("{ upstream: r, channel: false }", 53, "found `false`; put it in quotes if it is text"),
        ("{ upstream: k, topic: 'a b' }", 51, "`a b` cannot name a topic"),
        ("{ upstream: k, topic: '..' }", 51, "cannot name a topic"),
    ] {
        expect_route(&route(from), column, text);
    }
}

#[test]
fn paths_of_servers() {
    let head = HEAD.replace("ticker: {}", "sse: { url: 'http://app.internal' }");
    let text = |from: &str| format!("{head}  - {}\n", route(from));
    let path = |path: &str| match sound(&text(&format!("{{ upstream: t, path: '{path}' }}"))).routes.remove(0)
    {
        Route { source: Source::Path(path), .. } => path.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(path("/a/{p}?b={p}&c=%20"), "/a/{p}?b={p}&c=%20");
    for (from, column, what) in [
        ("{ upstream: t, path: x }", 50, "`x` is not the path of a server; it begins with `/`"),
        ("{ upstream: t, path: '/a#b' }", 50, "leave out what begins with `#`"),
        ("{ upstream: t, path: '/a/../b' }", 50, "without `.` and `..`"),
        ("{ upstream: t, path: '/a b' }", 50, "percent-encode what no URL holds"),
        ("{ upstream: t, path: '/{q}' }", 52, "no parameter `q`"),
        ("{ upstream: t, channel: x }", 44, "a `sse` upstream has no `channel`; it takes `path`"),
        ("{ upstream: t, path: /x, start: latest }", 54, "a `sse` upstream has no `start`"),
    ] {
        expect(&text(from), &[(8, column, what)]);
    }
}

#[test]
fn templates_of_sources() {
    for (from, column, text) in [
        ("{ upstream: r, channel: 'a{q}' }", 55, "the path has no parameter `q`; it has `p`"),
        ("{ upstream: r, channel: '{channel}' }", 54, "`{channel}` comes with a record"),
        ("{ upstream: k, topic: 'x{header.a}' }", 53, "`{header.a}` comes with a record"),
        ("{ upstream: r, channel: 'a{p' }", 55, "`{` has no `}`; write `{{` for a brace"),
        ("{ upstream: r, channel: '${HIDDEN}{' }", 53, "this value is not a template"),
        ("{ upstream: r, channel: '${HIDDEN}{q}' }", 53, "this value uses a parameter that the path lacks"),
    ] {
        expect_route(&route(from), column, text);
    }
    expect_route(
        "{ path: /x, from: { upstream: r, channel: '{q}' } }",
        48,
        "no parameter `q`; add `{q}` to the path",
    );
    let both = [(8, 44, "has no `topic`"), (8, 52, "no parameter `q`")];
    expect(&format!("{HEAD}  - {}\n", route("{ upstream: r, topic: '{q}' }")), &both);
    // A path that is wrong itself says nothing about its parameters.
    expect_route("{ path: 'x/{q}', from: { upstream: r, channel: '{q}' } }", 13, "must start with `/`");
}

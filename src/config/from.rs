//! `from:` of a route: what it reads. Checks that it fits the kind of the upstream and the parameters
//! of the path.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::exchange;
use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Partitioner, Qos, Source, Start};
use super::subject;
use super::suggest;
use super::table;
use super::template::{Part, Template};
use super::templates;
use super::tree::{Entry, Node, Value};
use super::upstreams::{Kind, Upstreams};
use super::walk::{Scalar, Walk};

/// What `from` says.
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

impl Kind {
    /// The keys that name a source of this kind.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["channel", "pattern", "shard_channel", "stream"],
            Self::Kafka => &["topic"],
            Self::Push => &["channel"],
            Self::Ticker | Self::File | Self::Stdin => &[],
            Self::Postgres => &["channel", "table"],
            Self::Amqp => &["exchange", "stream"],
            Self::Sse | Self::Http => &["path"],
            Self::Nats => &["subject", "jetstream"],
            Self::Mqtt => &["topic"],
        }
    }

    /// What there is to read without naming it.
    fn only_source(self) -> Option<Source> {
        match self {
            Self::Ticker => Some(Source::Ticker),
            Self::File | Self::Stdin => Some(Source::Lines),
            _ => None,
        }
    }
}

/// Reads `from`; `params` are those of the path, missing where the path itself is in doubt.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    params: Option<&[String]>,
    upstreams: &Upstreams,
) -> Option<From> {
    let fields = Fields::open(walk, node, keys::FROM)?;
    let upstream = fields
        .required("upstream", "name one of `upstreams`")
        .and_then(|node| read_upstream(walk, node, upstreams));
    let (upstream, kind) = upstream.map_or((None, None), |(name, kind)| (Some(name), kind));
    // Beside `jetstream`, `subject` says which part of it.
    let part = fields.entry("jetstream").and(fields.entry("subject"));
    let sources: Vec<&Entry> = fields
        .present()
        .filter(|entry| SOURCES.contains(&entry.key.text.as_str()))
        .filter(|entry| part.is_none_or(|part| part.key.text != entry.key.text))
        .collect();
    choose(walk, &fields, kind, &sources);
    // Those that do not fit as well: their templates may have problems of their own.
    let read: Vec<_> = sources
        .iter()
        .filter_map(|entry| match entry.key.text.as_str() {
            "table" => table::read(walk, &fields, params),
            "exchange" => exchange::read(walk, &fields, params),
            _ => read_source(walk, fields.node(&entry.key.text)?, entry, params, kind),
        })
        .collect();
    check_companions(walk, &fields);
    let source = read.into_iter().next().or_else(|| kind?.only_source());
    let source = read_key(walk, &fields, params, source);
    let source = read_part(walk, &fields, params, source);
    let source = read_qos(walk, &fields, source);
    let start = read_start(walk, &fields, without_history(kind, &sources)).unwrap_or(Start::Latest);
    if let (Some(Source::Lines), Start::Since(_), Some(node)) = (&source, start, fields.node("start")) {
        walk.problem(node.span, "lines do not say when they were written; write `latest` or `earliest`");
    }
    check_time(walk, &fields, source.as_ref(), start);
    Some(From { upstream, kind, source, start })
}

const SOURCES: [&str; 10] = [
    "channel",
    "pattern",
    "shard_channel",
    "topic",
    "stream",
    "table",
    "exchange",
    "path",
    "subject",
    "jetstream",
];

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

/// Reports sources that do not fit the upstream, several of them, and none.
fn choose(walk: &Walk<'_>, fields: &Fields<'_>, kind: Option<Kind>, sources: &[&Entry]) {
    let takes = takes(kind);
    let fits = |entry: &Entry| kind.is_none_or(|kind| kind.sources().contains(&entry.key.text.as_str()));
    for misfit in sources.iter().filter(|entry| !fits(entry)) {
        let (key, kind) = (&misfit.key, kind.map_or("", Kind::name));
        walk.problem(key.span, format!("{} upstream has no `{}`; {takes}", suggest::one(kind), key.text));
    }
    let mut fitting = sources.iter().copied().filter(|entry| fits(entry));
    if let Some(chosen) = fitting.next() {
        for other in fitting {
            let text = format!(
                "a route reads one source, this one has `{}` already; keep one of them",
                chosen.key.text
            );
            walk.conflict(other.key.span, text, chosen.key.span, "the other source");
        }
    } else if sources.is_empty() && kind.is_some_and(|kind| kind.only_source().is_none()) {
        walk.problem(fields.span(), format!("`from` does not say what to read; {takes}"));
    }
}

fn takes(kind: Option<Kind>) -> String {
    match kind {
        Some(kind) if !kind.sources().is_empty() => {
            format!("it takes {}", suggest::list(kind.sources(), "or"))
        }
        _ => "it takes nothing but `upstream`".to_owned(),
    }
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
        let text = format!("{lacking} has no `start`, only topics, streams and tables have; remove it");
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

pub(super) const SINCE: Bounds<Duration> =
    Bounds { default: Duration::ZERO, min: Duration::ZERO, max: Duration::from_secs(365 * 86_400) };

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

fn read_source(
    walk: &Walk<'_>,
    node: &Node,
    entry: &Entry,
    params: Option<&[String]>,
    kind: Option<Kind>,
) -> Option<Source> {
    if entry.key.text == "jetstream" {
        let scalar = walk.text(node, "the name of a stream, as text")?;
        subject::check_stream(walk, &scalar);
        return Some(Source::Jetstream { stream: (&*scalar.text).into(), subject: None });
    }
    let scalar = walk.text(node, "the name of what to read, as text")?;
    let template = templates::read(walk, &scalar, params, |_| Some(UNKNOWN_YET.to_owned()))?;
    if scalar.text.is_empty() {
        walk.problem(scalar.span(), format!("`{}` is empty; name what to read", entry.key.text));
    }
    match entry.key.text.as_str() {
        "channel" => {
            if kind == Some(Kind::Postgres) {
                check_channel(walk, &scalar, &template);
            }
            Some(Source::Channel(template))
        }
        "pattern" => Some(Source::Pattern(template)),
        "shard_channel" => Some(Source::ShardChannel(template)),
        "stream" => Some(Source::Stream(template)),
        "path" => {
            check_path(walk, &scalar, &template);
            Some(Source::Path(template))
        }
        "subject" => {
            if !scalar.text.is_empty() {
                subject::check_subject(walk, &scalar, &template);
            }
            Some(Source::Subject(template))
        }
        _ if kind == Some(Kind::Mqtt) => {
            subject::check_filter(walk, &scalar, &template);
            Some(Source::Filter { topic: template, qos: Qos::AtMostOnce })
        }
        _ => {
            check_topic(walk, &scalar, &template);
            Some(Source::Topic(template))
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
    let part = read_source(walk, fields.node("subject")?, entry, params, None)?;
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

const UNKNOWN_YET: &str =
    "comes with a record, which is not there yet when the source is chosen; use a parameter of the path";

/// A channel of Postgres is an identifier, of which parameters of the path may make one that is too long: then there is no
/// such channel.
fn check_channel(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let literals = template.parts().iter().map(|part| match part {
        Part::Literal(text) => text.len(),
        Part::Field(_) => 0,
    });
    if literals.sum::<usize>() > table::IDENTIFIER {
        let text = "is longer than the 63 bytes that Postgres has for a name, and would be cut off; choose a shorter one";
        walk.problem(scalar.span(), format!("{} {text}", scalar.shown()));
    }
}

/// Kafka's own rule for the names of topics, as far as it can be checked without the parameters.
fn check_topic(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let literals = template.parts().iter().filter_map(|part| match part {
        Part::Literal(text) => Some(text),
        Part::Field(_) => None,
    });
    if literals.into_iter().any(|text| text.len() > 249 || !text.chars().all(legal))
        || matches!(&*scalar.text, "." | "..")
    {
        let text = format!(
            "{} cannot name a topic; Kafka allows up to 249 letters, digits, `.`, `_` and `-`",
            scalar.shown()
        );
        walk.problem(scalar.span(), text);
    }
}

/// What an HTTP request can ask for, whatever the parameters are.
fn check_path(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let filled = template.fill(|_| Some("x".into()));
    let advice = match filled.parse::<PathAndQuery>() {
        _ if scalar.text.is_empty() => return,
        _ if !filled.starts_with('/') => "it begins with `/`",
        _ if filled.contains('#') => "leave out what begins with `#`, which no server sees",
        Ok(path) if path.path().split('/').any(|part| matches!(part, "." | "..")) => {
            "write it without `.` and `..`"
        }
        Ok(_) => return,
        Err(_) => "percent-encode what no URL holds",
    };
    walk.problem(scalar.span(), format!("{} is not the path of a server; {advice}", scalar.shown()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Route;
    use crate::config::testing::{HEAD, expect, expect_route, sound};

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
        assert_eq!(
            source("{ upstream: r, shard_channel: 'a:{p}' }"),
            Source::ShardChannel(template("a:{p}"))
        );
        assert_eq!(source("{ upstream: p, channel: 7 }"), Source::Channel(template("7")));
        assert_eq!(
            source("{ upstream: k, topic: 'o-{p}', start: latest }"),
            Source::Topic(template("o-{p}"))
        );
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
        assert_eq!(
            sound(&format!("{HEAD}  - {}\n", route("{ upstream: t }"))).routes[0].start,
            Start::Latest
        );
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
            (
                "{ upstream: k, topic: o, partitioner: any }",
                54,
                "`partitioner` says where a `key` is; add `key`",
            ),
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
        let text =
            HEAD.replace("  r:", "  cache:") + "  - { path: /x, from: { upstream: cahce, channel: x } }\n";
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
                "a `channel` has no `start`, only topics, streams and tables have; remove it",
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
            (
                "{ upstream: k, topic: x, start: {} }",
                61,
                "`start` lacks `since`; write it as `{ since: 1h }`",
            ),
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
        let path =
            |path: &str| match sound(&text(&format!("{{ upstream: t, path: '{path}' }}"))).routes.remove(0) {
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
            (
                "{ upstream: r, channel: '${HIDDEN}{q}' }",
                53,
                "this value uses a parameter that the path lacks",
            ),
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
}

//! `conflate:`, `snapshot:`, `sample:` and `rate:` of a route: what of its records is kept. The newest of each key within a
//! window, the newest of each key for whoever comes, one in so many, and for each client so many at a time.

use std::fmt;
use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::from::From;
use super::keys;
use super::model::{Source, Start};
use super::records::{AllRecords, Records};
use super::template::{Field, Part, Template};
use super::templates;
use super::tree::{Entry, Node, Value};
use super::upstreams::Kind;
use super::walk::Walk;

/// What of a feed's records is kept. Part of what tells two feeds apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Digest {
    /// `conflate`
    pub conflate: Option<Conflate>,
    /// `snapshot`
    pub snapshot: Option<Snapshot>,
    /// `sample`
    pub sample: Option<Sample>,
}

/// `conflate:`, the newest record of each key in each window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conflate {
    /// `by`: what the key of a record is. One that lacks a field of it has no key.
    pub by: Template,
    /// `every`: how long a window is. 1 ms to 1 min.
    pub every: Duration,
}

/// `snapshot:`, the newest record of each key for clients that come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// `by`: what the key of a record is. One that lacks a field of it has no key, and is in no snapshot.
    pub by: Template,
    /// `max_keys`: default 100,000, 1 to 10,000,000.
    pub max_keys: usize,
    /// `max_bytes`: default 64 MiB, 1 MiB to 64 GiB; bookkeeping included.
    pub max_bytes: usize,
}

/// `sample:`, one record in so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sample {
    /// How many of a thousand millions are kept; 1 at least.
    pub of_billion: u32,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.of_billion) / f64::from(BILLION / 100))
    }
}

/// `rate:`, how many events one client is sent at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRate {
    /// `events`: 1 to 1,000,000.
    pub events: u64,
    /// `every`: in which time. 100 ms to 1 h.
    pub every: Duration,
}

/// Reads `rate`, an entry of the route.
pub(super) fn read_rate(walk: &Walk<'_>, route: &Fields<'_>) -> Option<EventRate> {
    let fields = Fields::open(walk, route.node("rate")?, keys::EVENT_RATE)?;
    fields.required("events", "it says how many a client is sent at most, such as `50`");
    fields.required("every", "it says in which time, such as `1s`");
    let events = fields.count("events", &EVENTS);
    let every = fields.duration("every", &RATE_EVERY);
    Some(EventRate { events: events? as u64, every: every? })
}

/// Reads what of the records of each source is kept.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>, from: &[From], records: &AllRecords) -> Vec<Digest> {
    let given = Given { walk, from, records };
    let snapshot = fields.entry("snapshot").and_then(|entry| read_snapshot(&given, fields, entry));
    let sample = fields.node("sample").and_then(|node| read_sample(walk, node));
    if let (Some(entry), Some(_), Some(_)) = (fields.entry("sample"), &snapshot, sample) {
        let text =
            "a snapshot is of what is newest, and `sample` leaves some of that out; remove one of them";
        walk.problem(entry.key.span, text);
    }
    let conflate = fields.node("conflate").and_then(|node| read_conflate(&given, node));
    let of = |at: usize| Digest {
        conflate: conflate.as_ref().and_then(|each| each.get(at)).cloned(),
        snapshot: snapshot.as_ref().and_then(|each| each.get(at)).cloned(),
        sample,
    };
    (0..from.len()).map(of).collect()
}

/// What the keys are read against.
struct Given<'g> {
    walk: &'g Walk<'g>,
    from: &'g [From],
    records: &'g AllRecords,
}

/// What is said of each source.
fn read_conflate(given: &Given<'_>, node: &Node) -> Option<Vec<Conflate>> {
    let fields = Fields::open(given.walk, node, keys::CONFLATE)?;
    let by = fields.required("by", "it says what the key of a record is, such as `key`");
    let by = by.and_then(|node| read_by(given, node));
    fields.required("every", "it says how long a window is, such as `250ms`");
    let every = fields.duration("every", &EVERY)?;
    Some(by?.into_iter().map(|by| Conflate { by, every }).collect())
}

/// Reads `snapshot`, an entry of the route that `route` is: `true`, which stands for the keys that the source has as such,
/// or a mapping.
fn read_snapshot(given: &Given<'_>, route: &Fields<'_>, entry: &Entry) -> Option<Vec<Snapshot>> {
    let walk = given.walk;
    let node = route.node("snapshot")?;
    let (mut max_keys, mut max_bytes) = (MAX_KEYS.default, MAX_BYTES.default);
    let by = if matches!(node.value, Value::Map(_)) {
        let fields = Fields::open(walk, node, keys::SNAPSHOT)?;
        max_keys = fields.count("max_keys", &MAX_KEYS).unwrap_or(max_keys);
        max_bytes = fields.size("max_bytes", &MAX_BYTES).unwrap_or(max_bytes);
        match fields.entry("by") {
            Some(_) => read_by(given, fields.node("by")?)?,
            None => read_own(given, node)?,
        }
    } else if route.flag("snapshot")? {
        read_own(given, node)?
    } else {
        return None;
    };
    let is_other = |(from, by): (&From, &Template)| from.is_keyed() && own_key(from).as_ref() != Some(by);
    if given.from.iter().zip(&by).any(is_other) {
        let text =
            "clients of this route see one key of the topic, and a snapshot is of that; leave `by` out";
        walk.problem(entry.value.span, text);
    }
    if given.from.iter().any(|from| from.start != Start::Latest) {
        let text = "a client begins with the snapshot, and so not where `start` says; remove one of them";
        walk.problem(entry.key.span, text);
    }
    if given.from.len() > 1 {
        let text = "`stream.snapshot-start` tells a client to forget what it has, and each of these sources would send its own; give each a route of its own";
        walk.problem(entry.key.span, text);
    }
    Some(by.into_iter().map(|by| Snapshot { by, max_keys, max_bytes }).collect())
}

/// Reads `sample`: a percentage, or a mapping.
fn read_sample(walk: &Walk<'_>, node: &Node) -> Option<Sample> {
    if matches!(node.value, Value::Map(_)) {
        let fields = Fields::open(walk, node, keys::SAMPLE)?;
        fields.required("every", "write it as `{ every: 10 }`")?;
        let every = fields.count("every", &ONE_IN)?;
        return Some(Sample { of_billion: BILLION / every as u32 });
    }
    let scalar = walk.text(node, "a percentage such as `10%`, or `{ every: 10 }`")?;
    let percent = scalar.text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    let of_billion = percent.map(|percent| percent * f64::from(BILLION / 100));
    match of_billion.filter(|kept| (1.0..=f64::from(BILLION)).contains(kept)) {
        Some(kept) => Some(Sample { of_billion: kept as u32 }),
        None => {
            let text = format!(
                "{} is no part of the events; write a percentage up to `100%`, such as `10%`, or `{{ every: 10 }}`",
                scalar.shown()
            );
            walk.problem(scalar.span(), text);
            None
        }
    }
}

/// The key that each source has as such, or a problem at `node`.
fn read_own(given: &Given<'_>, node: &Node) -> Option<Vec<Template>> {
    given.own_keys(node, |given, records| {
        format!("a snapshot is of keys, and these records have none of their own; {}", given.advice(records))
    })
}

/// What the key of a record of each source is: `key`, which stands for what the source calls so, or a template.
fn read_by(given: &Given<'_>, node: &Node) -> Option<Vec<Template>> {
    let walk = given.walk;
    if let Value::Scalar { text, .. } = &node.value
        && text == "key"
    {
        return given.own_keys(node, |given, records| {
            format!("these records have no key of their own; {}", given.example(records))
        });
    }
    let scalar = walk.text(node, "`key`, or a field in braces")?;
    let template = templates::read(walk, &scalar, None, |field| given.records.refusal(field))?;
    if !template.fields().any(|field| !matches!(field, Field::Param(_))) {
        let example = given.example(given.records.at(0));
        walk.problem(scalar.span(), format!("{} is the same for all records; {example}", scalar.shown()));
        return None;
    }
    if template.has_params() {
        let text = "`by` is of a record alone, and cannot hold parameters of the path; leave them out";
        walk.problem(scalar.span(), text);
        return None;
    }
    Some(vec![template; given.from.len()])
}

/// The key that records of a source have as such.
fn own_key(from: &From) -> Option<Template> {
    let field = match (from.kind?, from.source.as_ref()?) {
        (Kind::Kafka, _) => Field::Key,
        (_, Source::Pattern(_)) => Field::Channel,
        (_, Source::Table { table, .. }) if table.key.is_some() => Field::Key,
        (_, Source::Jetstream { subject: None, .. }) => Field::Subject,
        (_, Source::Subject(subject) | Source::Jetstream { subject: Some(subject), .. })
            if has_wildcard(subject, ["*", ">"]) =>
        {
            Field::Subject
        }
        (_, Source::Filter { topic, .. }) if has_wildcard(topic, ["+", "#"]) => Field::Topic,
        _ => return None,
    };
    Some(Template::of(field))
}

/// Whether a name has one of these, so that what comes on it has names of its own.
fn has_wildcard(name: &Template, wildcards: [&str; 2]) -> bool {
    let is_any =
        |part: &Part| matches!(part, Part::Literal(text) if wildcards.iter().any(|any| text.contains(any)));
    name.parts().iter().any(is_any)
}

impl Given<'_> {
    /// The keys that the sources have as such; where one has none, `lacks` says so of its records, unless they are not known.
    fn own_keys(
        &self,
        node: &Node,
        lacks: impl Fn(&Self, Option<Records>) -> String,
    ) -> Option<Vec<Template>> {
        let own: Vec<_> = self.from.iter().map(own_key).collect();
        let lacking = own.iter().enumerate().filter(|(_, key)| key.is_none());
        let records = lacking.map(|(at, _)| self.records.at(at)).find(Option::is_some);
        if let Some(records) = records {
            self.walk.problem(node.span, lacks(self, records));
        }
        own.into_iter().collect()
    }

    fn advice(&self, records: Option<Records>) -> &'static str {
        match records {
            Some(Records::Stream) => "name a field of them, such as `snapshot: { by: \"{field.id}\" }`",
            Some(Records::Channel) => self.example(records),
            _ => "name something in them, such as `snapshot: { by: \"{event.id}\" }`",
        }
    }

    fn example(&self, records: Option<Records>) -> &'static str {
        match records {
            _ if self.from.len() > 1 => "name something that all of them have, such as `{event.id}`",
            Some(Records::Stream) => "name a field of them, such as `{field.id}`",
            Some(Records::Of(Kind::Kafka)) => "write `key`, or name something in them, such as `{event.id}`",
            Some(Records::Channel) => {
                "read a `pattern`, whose channels are keys, or name something in them, such as `{event.id}`"
            }
            _ => "name something in them, such as `{event.id}`",
        }
    }
}

/// What a [`Sample`] is a part of.
pub const BILLION: u32 = 1_000_000_000;

pub(super) const ONE_IN: Bounds<usize> = Bounds { default: 1, min: 1, max: 1_000_000 };
pub(super) const EVENTS: Bounds<usize> = Bounds { default: 1, min: 1, max: 1_000_000 };
pub(super) const RATE_EVERY: Bounds<Duration> = Bounds {
    default: Duration::from_secs(1),
    min: Duration::from_millis(100),
    max: Duration::from_secs(3_600),
};

pub(super) const MAX_KEYS: Bounds<usize> = Bounds { default: 100_000, min: 1, max: 10_000_000 };
pub(super) const MAX_BYTES: Bounds<usize> = Bounds { default: 64 << 20, min: 1 << 20, max: 64 << 30 };

pub(super) const EVERY: Bounds<Duration> = Bounds {
    default: Duration::from_millis(250),
    min: Duration::from_millis(1),
    max: Duration::from_secs(60),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, expect_route, sound};

    fn conflate(from: &str, conflate: &str) -> Conflate {
        let text = format!("{HEAD}  - {{ path: '/x/{{p}}', from: {{ {from} }}, conflate: {conflate} }}\n");
        sound(&text).routes[0].digest.conflate.clone().unwrap()
    }

    #[test]
    fn a_key_is_the_sources_own_or_made_of_fields() {
        for (from, by, expected) in [
            ("upstream: k, topic: x", "key", "{key}"),
            ("upstream: k, topic: x, key: '{p}'", "key", "{key}"),
            ("upstream: k, topic: x", "'{header.a}/{key}'", "{header.a}/{key}"),
            ("upstream: r, pattern: 'x.*'", "key", "{channel}"),
            ("upstream: r, pattern: 'x.*'", "'{channel}'", "{channel}"),
            ("upstream: r, stream: x", "'{field.id}'", "{field.id}"),
        ] {
            let conflate = conflate(from, &format!("{{ by: {by}, every: 100ms }}"));
            assert_eq!((conflate.by.to_string().as_str(), conflate.every.as_millis()), (expected, 100));
        }
    }

    #[test]
    fn what_each_kind_of_upstream_calls_a_key() {
        let of = |upstream: &str, from: &str, by: &str| {
            format!(
                "server: {{ tls: none }}\nupstreams: {{ u: {{ {upstream} }} }}\nroutes: [ {{ path: /x, from: {{ upstream: u, {from} }}, snapshot: {by} }} ]\n"
            )
        };
        let (nats, mqtt, amqp) =
            ("nats: { servers: 'nats://h' }", "mqtt: { url: 'mqtt://h' }", "amqp: { url: 'amqp://u:p@h' }");
        let (postgres, sse) = ("postgres: { url: 'postgres://u:p@h/d' }", "sse: { url: 'https://h' }");
        for (upstream, from, by, expected) in [
            (nats, "subject: 'a.*'", "true", "{subject}"),
            (nats, "jetstream: S", "true", "{subject}"),
            (nats, "jetstream: S, subject: 'a.>'", "true", "{subject}"),
            (nats, "subject: a", "{ by: '{header.id}' }", "{header.id}"),
            (mqtt, "topic: 'a/+/b'", "true", "{topic}"),
            (amqp, "exchange: e, routing_key: '#'", "{ by: '{routing_key}' }", "{routing_key}"),
            (amqp, "stream: s", "{ by: '{header.id}{event.id}' }", "{header.id}{event.id}"),
            (postgres, "table: t, columns: { key: k }", "true", "{key}"),
            (sse, "path: /e", "{ by: '{event.id}' }", "{event.id}"),
        ] {
            let config = sound(&of(upstream, from, by));
            let snapshot = config.routes[0].digest.snapshot.as_ref().unwrap();
            assert_eq!(snapshot.by.to_string(), expected, "{from}");
        }
        for (upstream, from, by, column, text) in [
            (
                nats,
                "subject: a  ",
                "true",
                70,
                "these records have none of their own; name something in them",
            ),
            (mqtt, "topic: 'a/b'", "true", 70, "such as `snapshot: { by: \"{event.id}\" }`"),
            (amqp, "stream: s   ", "true", 70, "these records have none of their own"),
            (postgres, "table: t    ", "true", 70, "these records have none of their own"),
            (sse, "path: /e    ", "{ by: '{key}' }", 77, "`{key}` is not in the records of a `sse` upstream"),
        ] {
            crate::config::testing::expect(&of(upstream, from, by), &[(3, column, text)]);
        }
    }

    #[test]
    fn what_cannot_be_conflated() {
        // `conflate` begins in column 59, its value in 69.
        for (from, conflate, column, text) in [
            (
                "r, channel: x   ",
                "{ by: key, every: 1s }",
                75,
                "these records have no key of their own; read a `pattern`",
            ),
            ("r, stream: xyz  ", "{ by: key, every: 1s }", 75, "name a field of them, such as `{field.id}`"),
            ("t               ", "{ by: key, every: 1s }", 75, "these records have no key of their own"),
            (
                "k, topic: x     ",
                "{ by: '{channel}', every: 1s }",
                76,
                "`{channel}` is not in the records of a `kafka`",
            ),
            ("k, topic: x     ", "{ by: x, every: 1s }", 75, "`x` is the same for all records; write `key`"),
            ("k, topic: x     ", "{ by: '{p}{key}', every: 1s }", 75, "cannot hold parameters of the path"),
            ("k, topic: x     ", "{ every: 1s }", 69, "`conflate` lacks `by`"),
            ("k, topic: x     ", "{ by: key }", 69, "`conflate` lacks `every`; it says how long a window is"),
            ("k, topic: x     ", "{ by: key, every: 61s }", 87, "from 1ms to 1m"),
            ("k, topic: x     ", "key", 69, "expected a mapping, found `key`"),
        ] {
            let route = format!("{{ path: '/{{p}}', from: {{ upstream: {from} }}, conflate: {conflate} }}");
            expect_route(&route, column, text);
        }
    }

    #[test]
    fn a_snapshot_is_of_keys() {
        let snapshot = |from: &str, snapshot: &str| {
            let text =
                format!("{HEAD}  - {{ path: '/x/{{p}}', from: {{ {from} }}, snapshot: {snapshot} }}\n");
            sound(&text).routes[0].digest.snapshot.clone()
        };
        let of = |by: &str, max_keys, max_bytes| {
            Some(Snapshot { by: Template::parse(by).unwrap(), max_keys, max_bytes })
        };
        assert_eq!(snapshot("upstream: k, topic: x", "true"), of("{key}", 100_000, 64 << 20));
        assert_eq!(snapshot("upstream: k, topic: x, key: '{p}'", "true"), of("{key}", 100_000, 64 << 20));
        assert_eq!(snapshot("upstream: k, topic: x", "false"), None);
        assert_eq!(snapshot("upstream: k, topic: x", "{ max_keys: 7 }"), of("{key}", 7, 64 << 20));
        assert_eq!(
            snapshot("upstream: r, pattern: 'x.*'", "{ max_bytes: 2MiB }"),
            of("{channel}", 100_000, 2 << 20)
        );
        assert_eq!(
            snapshot("upstream: r, stream: x", "{ by: '{field.id}' }"),
            of("{field.id}", 100_000, 64 << 20)
        );
        // `snapshot` begins in column 59, its value in 69.
        for (from, snapshot, column, text) in [
            (
                "r, channel: x   ",
                "true",
                69,
                "a snapshot is of keys, and these records have none of their own; read a `pattern`",
            ),
            ("r, stream: xyz  ", "true", 69, "name a field of them, such as `snapshot: { by: "),
            ("r, stream: xyz  ", "{ max_keys: 1 }", 69, "name a field of them"),
            ("t               ", "true", 69, "these records have none of their own"),
            ("k, topic: x     ", "{ max_keys: 0 }", 81, "from 1 to 10000000"),
            ("k, topic: x     ", "yes", 69, "`yes` is neither `true` nor `false`"),
            ("k, topic: x, start: earliest", "true", 71, "not where `start` says; remove one of them"),
            ("k, topic: x, key: a", "{ by: '{topic}{key}' }", 72, "a snapshot is of that; leave `by` out"),
        ] {
            let route = format!("{{ path: '/{{p}}', from: {{ upstream: {from} }}, snapshot: {snapshot} }}");
            expect_route(&route, column, text);
        }
    }

    #[test]
    fn a_sample_is_a_part() {
        let sample = |sample: &str| {
            let text = format!("{HEAD}  - {{ path: /x, from: {{ upstream: t }}, sample: {sample} }}\n");
            sound(&text).routes[0].digest.sample.unwrap()
        };
        for (text, of_billion, shown) in [
            ("10%", 100_000_000, "10%"),
            ("0.5%", 5_000_000, "0.5%"),
            ("'12.5 %'", 125_000_000, "12.5%"),
            ("100%", 1_000_000_000, "100%"),
            ("{ every: 4 }", 250_000_000, "25%"),
        ] {
            assert_eq!((sample(text).of_billion, &*sample(text).to_string()), (of_billion, shown), "{text}");
        }
        for (text, column, problem) in [
            ("10", 48, "`10` is no part of the events; write a percentage up to `100%`"),
            ("0%", 48, "`0%` is no part of the events"),
            ("101%", 48, "`101%` is no part of the events"),
            ("x%", 48, "`x%` is no part of the events"),
            ("{ every: 0 }", 57, "from 1 to 1000000"),
            ("{}", 48, "`sample` lacks `every`; write it as `{ every: 10 }`"),
        ] {
            expect_route(
                &format!("{{ path: /x, from: {{ upstream: t }}, sample: {text} }}"),
                column,
                problem,
            );
        }
        let both = "{ path: /x, from: { upstream: k, topic: x }, sample: 1%, snapshot: true }";
        expect_route(both, 50, "`sample` leaves some of that out; remove one of them");
    }

    #[test]
    fn a_rate_is_so_many_in_a_time() {
        let text =
            format!("{HEAD}  - {{ path: /x, from: {{ upstream: t }}, rate: {{ events: 50, every: 1s }} }}\n");
        let rate = sound(&text).routes.remove(0).rate;
        assert_eq!(rate, Some(EventRate { events: 50, every: Duration::from_secs(1) }));
        for (rate, column, text) in [
            ("{ every: 1s }", 46, "`rate` lacks `events`"),
            ("{ events: 1 }", 46, "`rate` lacks `every`; it says in which time"),
            ("{ events: 0, every: 1s }", 56, "from 1 to 1000000"),
            ("{ events: 1, every: 1ms }", 66, "from 100ms to 1h"),
        ] {
            expect_route(&format!("{{ path: /x, from: {{ upstream: t }}, rate: {rate} }}"), column, text);
        }
        let of_keys = "{ path: /x, from: { upstream: k, topic: x, key: a }, rate: { events: 1, every: 1s } }";
        assert!(sound(&format!("{HEAD}  - {of_keys}\n")).routes[0].rate.is_some());
    }
}

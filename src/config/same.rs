//! What a configuration has in common with the one before it: which upstream is still the same, and which route goes on
//! as another one. What decides on that is what a client reads, and not what the file calls it.

use std::sync::Arc;

use super::auth::Deny;
use super::client_auth::ClientAuth;
use super::endpoint::Endpoint;
use super::model::{
    Certificate, Config, Deployment, NatsServer, OneSource, Route, Source, Upstream, UpstreamKind,
};
use super::template::{Field, Part, Template};
use super::tickets::Tickets;

/// How an upstream follows that of its name in the configuration before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Nothing has changed.
    Same,
    /// It is to be entered in another way, and is the same system: its sources are what they were.
    Anew,
    /// It is another system. What was read of the one before says nothing of it.
    Other,
}

impl Upstream {
    /// How it follows `before`, which has the same name.
    pub fn follows(&self, before: &Self) -> Follows {
        if self.kind == before.kind {
            return Follows::Same;
        }
        let is_there = match (&before.kind, &self.kind) {
            (UpstreamKind::Redis(before), UpstreamKind::Redis(now)) => {
                is_same_place(&before.deployment, &now.deployment)
            }
            (UpstreamKind::Kafka(before), UpstreamKind::Kafka(now)) => {
                before.brokers.iter().any(|broker| now.brokers.contains(broker))
            }
            (UpstreamKind::Ticker(_), UpstreamKind::Ticker(_)) => true,
            (UpstreamKind::Postgres(before), UpstreamKind::Postgres(now)) => {
                (&before.server, &before.database) == (&now.server, &now.database)
            }
            (UpstreamKind::Amqp(before), UpstreamKind::Amqp(now)) => {
                (&before.host, before.port, &before.vhost) == (&now.host, now.port, &now.vhost)
            }
            (UpstreamKind::Http(before), UpstreamKind::Http(now)) => {
                before.server.url == now.server.url && before.stream == now.stream
            }
            // Ids are taken as they were.
            (UpstreamKind::Sse(before), UpstreamKind::Sse(now)) => {
                before.server.url == now.server.url
                    && (before.resume, &before.relay) == (now.resume, &now.relay)
            }
            (UpstreamKind::Nats(before), UpstreamKind::Nats(now)) => {
                let address = |server: &NatsServer| (server.host.clone(), server.port);
                let is_among =
                    |one: &NatsServer| now.servers.iter().any(|other| address(one) == address(other));
                before.servers.iter().any(is_among)
            }
            (UpstreamKind::Mqtt(before), UpstreamKind::Mqtt(now)) => before.address() == now.address(),
            _ => false,
        };
        if is_there { Follows::Anew } else { Follows::Other }
    }
}

/// A single server is known by its address, a group by any member that it still has.
fn is_same_place(before: &Deployment, now: &Deployment) -> bool {
    let address = |endpoint: &Endpoint| (endpoint.host.clone(), endpoint.port);
    let share = |some: &[Endpoint], others: &[Endpoint]| {
        some.iter().any(|one| others.iter().any(|other| address(one) == address(other)))
    };
    match (before, now) {
        (Deployment::Single(before), Deployment::Single(now)) => {
            address(before) == address(now) && before.database == now.database
        }
        (
            Deployment::Sentinel { master: before, sentinels: some },
            Deployment::Sentinel { master: now, sentinels: others },
        ) => before.host == now.host && before.database == now.database && share(some, others),
        (Deployment::Cluster(before), Deployment::Cluster(now)) => share(before, now),
        _ => false,
    }
}

/// For each route of `now`, in the order of the file, the place of that in `before` which goes on as it: it reads the same,
/// and has the same path if there is one that has. One that gives the feeds of others does where all of these go on.
pub fn continued(before: &Config, now: &Config) -> Vec<Option<usize>> {
    let mut left: Vec<Option<&Route>> = before.routes.iter().map(Some).collect();
    for route in &mut left {
        *route = route.filter(|route| route.sources().all(|own| goes_on(before, now, own.upstream)));
    }
    let mut found = vec![None; now.routes.len()];
    match_up(&mut found, &mut left, now, reads_the_same);
    let of = found.clone();
    match_up(&mut found, &mut left, now, |other, route| gives_the_same((before, now, &of), other, route));
    found
}

/// Finds for each route of `now` that has none yet one of those that are left which it goes on as.
fn match_up(
    found: &mut [Option<usize>],
    left: &mut [Option<&Route>],
    now: &Config,
    goes_on: impl Fn(&Route, &Route) -> bool,
) {
    for same_path in [true, false] {
        for (route, found) in now.routes.iter().zip(&mut *found).filter(|(_, found)| found.is_none()) {
            let is_it = |other: &Route| {
                let named = (&other.host, &other.path) == (&route.host, &route.path);
                (named || !same_path) && goes_on(other, route)
            };
            *found = left.iter().position(|other| other.is_some_and(is_it));
            found.iter().for_each(|at| left[*at] = None);
        }
    }
}

/// Whether `route` gives the feeds of all routes that go on as those whose feeds `other` gave before, and tells them in the same
/// way. `of` says which route goes on as which.
fn gives_the_same(
    (before, now, of): (&Config, &Config, &[Option<usize>]),
    other: &Route,
    route: &Route,
) -> bool {
    let (Some(was), Some(is)) = (&other.multi, &route.multi) else { return false };
    let goes_on = |name: &Arc<str>| {
        let mut from =
            now.routes.iter().zip(of).filter_map(|(one, from)| Some((one, &before.routes[(*from)?])));
        from.any(|(one, from)| from.name() == **name && is.of.contains(&one.name().into()))
    };
    was.tell == is.tell && was.of.iter().all(goes_on)
}

/// Whether the upstream of this name is what it was.
fn goes_on(before: &Config, now: &Config, name: &str) -> bool {
    let of = |config: &Config| config.upstreams.iter().find(|upstream| &*upstream.name == name).cloned();
    of(before).zip(of(now)).is_some_and(|(before, now)| now.follows(&before) != Follows::Other)
}

/// Whether both open the same feeds, whatever they call the parameters of their paths. What gives the feeds of others opens none.
pub(super) fn reads_the_same(one: &Route, other: &Route) -> bool {
    if one.multi.is_some() || other.multi.is_some() {
        return false;
    }
    let renamed = Renamed(params(&one.path), params(&other.path));
    let names = |route: &Route| [route.event.clone(), route.tombstone.clone()];
    let shaped = names(one).iter().zip(&names(other)).all(|(one, other)| match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => renamed.are_same(one, other),
        _ => false,
    });
    // Parameters within expressions are the same by name alone.
    let data = one.data == other.data && one.projection == other.projection && one.filter == other.filter;
    let sent = one.wrap == other.wrap && one.binary == other.binary && one.max_event == other.max_event;
    // A list may name its sources in any order.
    let sources = one.sources().count() == other.sources().count()
        && one.sources().all(|own| other.sources().any(|its| renamed.are_one(own, its)));
    sources && shaped && data && sent && one.decode == other.decode
}

/// Of two routes that read the same: whether clients without an id begin at the same place in each source.
pub(super) fn begin_the_same(one: &Route, other: &Route) -> bool {
    let renamed = Renamed(params(&one.path), params(&other.path));
    one.sources().all(|own| other.sources().any(|its| own.start == its.start && renamed.are_one(own, its)))
}

/// The parameters of two paths, each in order.
struct Renamed(Vec<String>, Vec<String>);

impl Renamed {
    /// Whether two routes have the same feeds of these.
    fn are_one(&self, one: OneSource<'_>, other: OneSource<'_>) -> bool {
        one.upstream == other.upstream
            && one.digest == other.digest
            && self.read_the_same(one.source, other.source)
    }

    fn read_the_same(&self, one: &Source, other: &Source) -> bool {
        match (one, other) {
            (Source::Channel(one), Source::Channel(other))
            | (Source::Pattern(one), Source::Pattern(other))
            | (Source::Topic(one), Source::Topic(other))
            | (Source::ShardChannel(one), Source::ShardChannel(other))
            | (Source::Path(one), Source::Path(other))
            | (Source::Stream(one), Source::Stream(other)) => self.are_same(one, other),
            (
                Source::Keyed { topic: one, key: one_key, partitioner: one_partitioner },
                Source::Keyed { topic: other, key: other_key, partitioner: other_partitioner },
            ) => {
                one_partitioner == other_partitioner
                    && self.are_same(one, other)
                    && self.are_same(one_key, other_key)
            }
            (Source::Ticker, Source::Ticker) | (Source::Lines, Source::Lines) => true,
            (Source::Table { table: one, values: some }, Source::Table { table: other, values: others }) => {
                one == other && some.iter().zip(others).all(|(one, other)| self.are_same(one, other))
            }
            (
                Source::Exchange { exchange: one, routing_key: one_key, arguments: some },
                Source::Exchange { exchange: other, routing_key: other_key, arguments: others },
            ) => {
                let is_same = |((one, value), (other, other_value)): (&(_, _), &(_, _))| {
                    one == other && self.are_same(value, other_value)
                };
                self.are_same(one, other)
                    && self.are_same(one_key, other_key)
                    && some.len() == others.len()
                    && some.iter().zip(others).all(is_same)
            }
            (Source::Subject(one), Source::Subject(other)) => self.are_same(one, other),
            (
                Source::Jetstream { stream: one, subject: one_subject },
                Source::Jetstream { stream: other, subject: other_subject },
            ) => {
                one == other
                    && match (one_subject, other_subject) {
                        (None, None) => true,
                        (Some(one), Some(other)) => self.are_same(one, other),
                        _ => false,
                    }
            }
            (Source::Filter { topic: one, qos }, Source::Filter { topic: other, qos: other_qos }) => {
                qos == other_qos && self.are_same(one, other)
            }
            _ => false,
        }
    }

    /// Whether two templates are the same by the names of their parameters, or by the places that these have in the paths.
    fn are_same(&self, one: &Template, other: &Template) -> bool {
        let (some, others) = (one.parts(), other.parts());
        let place = |params: &[String], name: &Arc<str>| params.iter().position(|param| **param == **name);
        let same = |(one, other): (&Part, &Part)| match (one, other) {
            (Part::Field(Field::Param(one)), Part::Field(Field::Param(other))) => {
                let places = (place(&self.0, one), place(&self.1, other));
                matches!(places, (Some(one), Some(other)) if one == other)
            }
            (one, other) => one == other,
        };
        one == other
            || (self.0.len() == self.1.len()
                && some.len() == others.len()
                && some.iter().zip(others).all(same))
    }
}

/// The names of a path's parameters, in order.
fn params(path: &str) -> Vec<String> {
    let segments = path.split('{').skip(1);
    segments.filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())).collect()
}

// What files hold is read again whenever they change: which files they are is all that tells one from another.

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl PartialEq for Tickets {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

impl PartialEq for ClientAuth {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.required == other.required && self.passthrough == other.passthrough
    }
}

impl PartialEq for Deny {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::sound;

    fn config(upstreams: &str, routes: &str) -> Config {
        sound(&format!("server: {{ tls: none }}\nupstreams:\n{upstreams}routes:\n{routes}"))
    }

    const TWO: &str = "  c: { redis: { url: 'redis://h' } }\n  k: { kafka: { brokers: ['a:1', 'b:1'] } }\n";

    fn follows(before: &str, now: &str) -> Follows {
        let of = |upstream: &str| {
            let route = match upstream.contains("kafka") {
                true => "{ path: /a, from: { upstream: u, topic: t } }",
                false if ["ticker", "file", "stdin"].iter().any(|kind| upstream.starts_with(kind)) => {
                    "{ path: /a, from: { upstream: u } }"
                }
                false if upstream.contains("http://") => "{ path: /a, from: { upstream: u, path: /t } }",
                false if upstream.contains("nats") => "{ path: /a, from: { upstream: u, subject: t } }",
                false if upstream.contains("mqtt") => "{ path: /a, from: { upstream: u, topic: t } }",
                false => "{ path: /a, from: { upstream: u, channel: t } }",
            };
            config(&format!("  u: {{ {upstream} }}\n"), &format!("  - {route}\n")).upstreams.remove(0)
        };
        of(now).follows(&of(before))
    }

    #[test]
    fn an_upstream_is_known_by_where_it_is() {
        use Follows::{Anew, Other, Same};
        let kafka = |brokers: &str| format!("kafka: {{ brokers: [{brokers}] }}");
        for (before, now, expected) in [
            ("redis: { url: 'redis://h' }", "redis: { url: 'redis://h:6379/0' }", Same),
            ("redis: { url: 'redis://h' }", "redis: { url: 'redis://u:p@h' }", Anew),
            ("redis: { url: 'redis://h' }", "redis: { url: 'rediss://h' }", Anew),
            ("redis: { url: 'redis://h' }", "redis: { url: 'redis://h', timeout: 1s }", Anew),
            ("redis: { url: 'redis://h' }", "redis: { url: 'redis://g' }", Other),
            ("redis: { url: 'redis://h' }", "redis: { url: 'redis://h/1' }", Other),
            ("redis: { url: 'redis://h' }", "push: {}", Other),
            (
                "redis: { url: 'redis://m', sentinels: ['redis://a', 'redis://b'] }",
                "redis: { url: 'redis://m', sentinels: ['redis://b', 'redis://c'] }",
                Anew,
            ),
            (
                "redis: { url: 'redis://m', sentinels: ['redis://a'] }",
                "redis: { url: 'redis://m', sentinels: ['redis://b'] }",
                Other,
            ),
            ("ticker: {}", "ticker: { data: x }", Anew),
            ("file: { path: /a }", "file: { path: /a }", Same),
            ("file: { path: /a }", "file: { path: /b }", Other),
            ("stdin: {}", "stdin:", Same),
            ("sse: { url: 'http://h' }", "sse: { url: 'http://h/', bearer: x, idle: 1m }", Anew),
            ("sse: { url: 'http://h' }", "sse: { url: 'http://h', relay: true }", Other),
            ("sse: { url: 'http://h' }", "sse: { url: 'http://h/v2' }", Other),
            ("http: { url: 'http://h' }", "http: { url: 'http://h', every: 1s }", Anew),
            ("http: { url: 'http://h' }", "http: { url: 'http://h', stream: true }", Other),
            (
                "nats: { servers: ['nats://a', 'nats://b'] }",
                "nats: { servers: ['tls://b', 'nats://c'] }",
                Anew,
            ),
            ("nats: { servers: 'nats://a' }", "nats: { servers: 'nats://a:4223' }", Other),
            ("mqtt: { url: 'mqtt://a' }", "mqtt: { url: 'mqtt://u:p@a', version: 3.1.1 }", Anew),
            ("mqtt: { url: 'mqtt://a' }", "mqtt: { url: 'mqtts://a' }", Other),
        ] {
            assert_eq!(follows(before, now), expected, "{before} {now}");
        }
        assert_eq!(follows(&kafka("'a:1', 'b:1'"), &kafka("'b:1', 'c:1'")), Anew);
        assert_eq!(follows(&kafka("'a:1'"), &kafka("'b:1'")), Other);
    }

    #[test]
    fn a_route_goes_on_as_what_reads_the_same() {
        let of = |before: &str, now: &str| continued(&config(TWO, before), &config(TWO, now));
        let a = "  - { path: /a, from: { upstream: c, channel: a } }\n";
        let b = "  - { path: /b, from: { upstream: c, channel: b } }\n";
        let both = format!("{a}{b}");
        assert_eq!(of(&both, &format!("{b}{a}")), [Some(1), Some(0)], "the order means nothing");
        assert_eq!(of(&both, &both.replace("channel: a", "channel: x")), [None, Some(1)]);
        assert_eq!(of(&both, &both.replace("path: /a", "path: /x")), [Some(0), Some(1)], "renamed");
        assert_eq!(of(&both, &both.replace("from", "keepalive: 1s, from")), [Some(0), Some(1)], "a policy");
        assert_eq!(of(&both, &both.replace("from", "event: x, from")), [None, None], "its events look else");
        let fewer = both.replace("channel: a }", "pattern: a }, conflate: { by: key, every: 1s }");
        assert_eq!(of(&fewer, &fewer.replace("1s", "2s")), [None, Some(1)], "others are left out");
        for key in [
            "filter: 'event.a > 1'",
            "data: { keep: a }",
            "data: { map: event.a }",
            "wrap: envelope",
            "max_event: 1KiB",
        ] {
            let shaped = both.replace("from", &format!("{key}, from"));
            assert_eq!(of(&both, &shaped), [None, None], "{key}");
            assert_eq!(of(&shaped, &shaped), [Some(0), Some(1)], "{key}");
        }
        // Each takes the path of the other, and goes on where its events are.
        let swapped = both.replace("path: /a", "path: /x").replace("path: /b", "path: /a");
        assert_eq!(of(&both, &swapped.replace("path: /x", "path: /b")), [Some(0), Some(1)]);
        // Of two that read the same the one of the path is meant.
        let aliases = a.to_owned() + &a.replace("/a", "/alias");
        assert_eq!(of(&aliases, &a.replace("/a", "/alias")), [Some(1)]);
        let rooms =
            "  - { path: '/r/{room}/{x}', from: { upstream: c, channel: '{x}:{room}' }, event: '{x}' }\n";
        let ids = "  - { path: '/s/{id}/{y}', from: { upstream: c, channel: '{y}:{id}' }, event: '{y}' }\n";
        assert_eq!(of(rooms, ids), [Some(0)], "parameters may be called anything");
        assert_eq!(of(rooms, &ids.replace("'{y}:{id}'", "'{id}:{y}'")), [None]);
        let keyed = "  - { path: '/o/{id}', from: { upstream: k, topic: o, key: '{id}' } }\n";
        assert_eq!(of(keyed, &keyed.replace("'{id}' }", "'x{id}' }")), [None]);
    }

    #[test]
    fn what_gives_the_feeds_of_others_goes_on_where_all_of_them_do() {
        let routes = "  - { path: /all, multi: { of: ['/a/{x}', /b], max: 5 } }
  - { path: '/a/{x}', from: { upstream: c, channel: 'a:{x}' } }
  - { path: /b, from: { upstream: c, channel: b } }
  - { path: /c, from: { upstream: c, channel: c } }
";
        let of = |edits: &[(&str, &str)]| {
            let now = edits.iter().fold(routes.to_owned(), |now, (from, to)| {
                assert!(now.contains(from), "{from}");
                now.replace(from, to)
            });
            continued(&config(TWO, routes), &config(TWO, &now))[0]
        };
        for edits in [
            &[][..],
            &[("/all", "/every")],
            &[("max: 5", "max: 6"), ("of: [", "of: [/c, ")],
            &[("/a/{x}", "/a/{y}"), ("a:{x}", "a:{y}")],
            &[("/b", "/renamed")],
            &[("channel: c", "channel: d")],
        ] {
            assert_eq!(of(edits), Some(0), "{edits:?}");
        }
        for edits in [
            &[("channel: b", "channel: d")][..],
            &[("'/a/{x}', /b", "/b")],
            &[("'/a/{x}', /b", "'/a/{x}', /c")],
            &[("  - { path: /b, from: { upstream: c, channel: b } }\n", ""), (", /b]", "]")],
        ] {
            assert_eq!(of(edits), None, "{edits:?}");
        }
        let wrapped = routes.replace("from:", "wrap: envelope, from:");
        let told = config(TWO, &wrapped.replace("max: 5", "tell: envelope"));
        assert_eq!(continued(&config(TWO, &wrapped), &told)[..2], [None, Some(1)], "events look else");
        let multi =
            "  - { path: /all, multi: { of: /b } }\n  - { path: /b, from: { upstream: c, channel: b } }\n";
        let plain = "  - { path: /all, from: { upstream: c, channel: b } }\n";
        assert_eq!(
            continued(&config(TWO, multi), &config(TWO, plain)),
            [Some(1)],
            "the one that reads itself"
        );
    }

    #[test]
    fn a_list_is_what_it_has_in_any_order() {
        let list = |sources: &[&str]| format!("  - {{ path: '/a/{{p}}', from: [{}] }}\n", sources.join(", "));
        let of = |before: &str, now: &str| continued(&config(TWO, before), &config(TWO, now));
        let (channel, topic) = ("{ upstream: c, channel: 'a:{p}' }", "{ upstream: k, topic: o }");
        let both = list(&[channel, topic]);
        assert_eq!(of(&both, &list(&[topic, channel])), [Some(0)]);
        assert_eq!(of(&both, &list(&[topic, &channel.replace("a:", "b:")])), [None]);
        assert_eq!((of(&both, &list(&[topic])), of(&list(&[topic]), &both)), (vec![None], vec![None]));
        let before = config(TWO, &both);
        let now = config(&TWO.replace("['a:1', 'b:1']", "['c:1']"), &both);
        assert_eq!(continued(&before, &now), [None], "one of its upstreams is another system");

        let begins = |one: &str, other: &str| {
            let route = |text: &str| config(TWO, text).routes.remove(0);
            begin_the_same(&route(one), &route(other))
        };
        let earliest = topic.replace(" }", ", start: earliest }");
        assert!(begins(&both, &list(&[topic, channel])));
        assert!(!begins(&both, &list(&[&earliest, channel])));
    }

    #[test]
    fn of_another_system_no_route_goes_on() {
        let routes = "  - { path: /a, from: { upstream: c, channel: a } }\n";
        let before = config(TWO, routes);
        let now = config(&TWO.replace("redis://h", "redis://g"), routes);
        assert_eq!(continued(&before, &now), [None]);
        assert_eq!(continued(&before, &config(&TWO.replace("//h", "//:p@h"), routes)), [Some(0)]);
    }
}

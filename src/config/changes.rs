//! What a reload would do: the differences of two configurations, one line each. Shows no secret: it tells which key
//! differs, and no value but names of the file, paths and addresses.

use std::fmt;

use super::model::{Config, Proxy, Route, Upstream};
use super::same::{Follows, begin_the_same, continued};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    what: String,
    effect: String,
    /// Whether it is left as it is until the process starts anew.
    pub takes_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.effect)
    }
}

impl Change {
    /// What differs: a key of the file, or something that it names.
    pub fn what(&self) -> &str {
        &self.what
    }

    fn new(what: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { what: what.into(), effect: effect.into(), takes_restart: false }
    }

    fn at_restart(key: &str) -> Self {
        Self { takes_restart: true, ..Self::new(key, "changed, which takes a restart") }
    }
}

/// What a reload from `before` to `now` does, in the order of the file.
pub fn changes(before: &Config, now: &Config) -> Vec<Change> {
    let mut found = Vec::new();
    listeners(before, now, &mut found);
    policies(before, now, &mut found);
    restarts(before, now, &mut found);
    named(
        "auth",
        &before.auth,
        &now.auth,
        |provider| provider.name.to_string(),
        |one, other| {
            (one != other)
                .then(|| "changed; streams end that a key or secret let in which is gone".to_owned())
        },
        &mut found,
    );
    upstreams(before, now, &mut found);
    named(
        "schema registry",
        &before.schema_registries,
        &now.schema_registries,
        |registry| registry.name.to_string(),
        |now, before| {
            (now != before).then(|| "changed, for schemas that are asked for from now on".to_owned())
        },
        &mut found,
    );
    routes(before, now, &mut found);
    named(
        "route",
        &before.proxies,
        &now.proxies,
        |proxy: &Proxy| name(proxy.host.as_deref(), &proxy.path),
        |one, other| (one != other).then(|| "changed, for new requests".to_owned()),
        &mut found,
    );
    found
}

/// `now` as a running process takes it over: what takes a restart is as it was.
pub fn applied(now: Config, before: &Config) -> Config {
    let mut applied = now;
    applied.admin = before.admin.clone();
    applied.log.format = before.log.format;
    applied.log.level = before.log.level;
    applied.limits.memory = before.limits.memory;
    applied.limits.max_event = before.limits.max_event;
    applied.server.control_prefix = before.server.control_prefix.clone();
    applied.traces = before.traces.clone();
    applied.replay_concurrency = before.replay_concurrency;
    applied
}

fn restarts(before: &Config, now: &Config, found: &mut Vec<Change>) {
    for (key, changed) in [
        ("server.control_prefix", before.server.control_prefix != now.server.control_prefix),
        ("admin.listen", before.admin.listen != now.admin.listen),
        ("admin.token", before.admin.token != now.admin.token),
        ("log.format", before.log.format != now.log.format),
        ("log.level", before.log.level != now.log.level),
        ("limits.memory", before.limits.memory != now.limits.memory),
        ("limits.max_event", before.limits.max_event != now.limits.max_event),
        ("traces", before.traces != now.traces),
        ("defaults.replay.concurrency", before.replay_concurrency != now.replay_concurrency),
    ] {
        found.extend(changed.then(|| Change::at_restart(key)));
    }
}

fn listeners(before: &Config, now: &Config, found: &mut Vec<Change>) {
    let (before, now) = (&before.server.listen, &now.server.listen);
    for addr in before.iter().filter(|addr| !now.contains(addr)) {
        let effect = "removed; what is open there goes on";
        found.push(Change::new(format!("listen {addr}"), effect));
    }
    for addr in now.iter().filter(|addr| !before.contains(addr)) {
        found.push(Change::new(format!("listen {addr}"), "added"));
    }
}

/// What holds for all of the process and is replaced.
fn policies(before: &Config, now: &Config, found: &mut Vec<Change>) {
    let (server, limits, log) = (&before.server, &before.limits, &before.log);
    let for_requests = [
        ("server.hsts", server.hsts != now.server.hsts),
        ("server.proxy_protocol", server.proxies.protocol != now.server.proxies.protocol),
        ("server.trusted_proxies", server.proxies.trusted != now.server.proxies.trusted),
        ("server.real_ip_header", server.proxies.header != now.server.proxies.header),
        ("log.access", log.access != now.log.access),
        ("log.redact", log.redact != now.log.redact),
        ("limits.connections", limits.connections != now.limits.connections),
        ("limits.connections_per_client", limits.connections_per_client != now.limits.connections_per_client),
        (
            "limits.connection_rate_per_client",
            limits.connection_rate_per_client != now.limits.connection_rate_per_client,
        ),
        ("limits.handshake_timeout", limits.handshake_timeout != now.limits.handshake_timeout),
        ("limits.head", limits.head != now.limits.head),
        ("limits.head_timeout", limits.head_timeout != now.limits.head_timeout),
        ("limits.streams_per_connection", limits.streams_per_connection != now.limits.streams_per_connection),
        ("limits.idle_connection", limits.idle_connection != now.limits.idle_connection),
        ("limits.shed", limits.shed != now.limits.shed),
    ];
    for (key, changed) in for_requests {
        found.extend(changed.then(|| Change::new(key, "changed, for what comes from now on")));
    }
    for (key, changed, effect) in [
        ("server.tls", server.tls != now.server.tls, "changed, for handshakes from now on"),
        ("server.drain", server.drain != now.server.drain, "changed"),
        ("limits.write_stall", limits.write_stall != now.limits.write_stall, "changed"),
        ("deny", before.deny != now.deny, "changed; streams of those whom it names end"),
    ] {
        found.extend(changed.then(|| Change::new(key, effect)));
    }
}

fn upstreams(before: &Config, now: &Config, found: &mut Vec<Change>) {
    let effect = |now: &Upstream, before: &Upstream| match now.follows(before) {
        Follows::Same => None,
        Follows::Anew => Some("connects anew; its streams stay".to_owned()),
        Follows::Other => Some("is another system; its streams end, and come back".to_owned()),
    };
    named(
        "upstream",
        &before.upstreams,
        &now.upstreams,
        |upstream| upstream.name.to_string(),
        |now, before| effect(now, before),
        found,
    );
}

fn routes(before: &Config, now: &Config, found: &mut Vec<Change>) {
    let of = |route: &Route| name(route.host.as_deref(), &route.path);
    let continued = continued(before, now);
    let is_gone = |at: &usize| !continued.contains(&Some(*at));
    for (_, route) in before.routes.iter().enumerate().filter(|(at, _)| is_gone(at)) {
        let stays = now.routes.iter().any(|other| of(other) == of(route));
        let effect = if stays { "reads something else; its streams end" } else { "removed; its streams end" };
        found.push(Change::new(format!("route {}", of(route)), effect));
    }
    for (route, from) in now.routes.iter().zip(&continued) {
        let Some(from) = from.map(|from| &before.routes[from]) else {
            if !before.routes.iter().any(|other| of(other) == of(route)) {
                found.push(Change::new(format!("route {}", of(route)), "added"));
            }
            continue;
        };
        let mut effects = Vec::new();
        if of(from) != of(route) {
            effects.push(format!("was {}; its streams stay", of(from)));
        }
        let changed = changed_policies(from, route);
        let (of_feed, others): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| OF_FEEDS.contains(key));
        for (keys, whom) in [(others, ", for new requests"), (of_feed, "")] {
            if !keys.is_empty() {
                effects.push(format!("{} changed{whom}", keys.join(", ")));
            }
        }
        if !effects.is_empty() {
            found.push(Change::new(format!("route {}", of(route)), effects.join("; ")));
        }
    }
}

/// What feeds that are there are kept by as well.
const OF_FEEDS: [&str; 4] = ["linger", "buffer", "history", "idle_timeout"];

/// The keys in which two routes that read the same differ.
fn changed_policies(before: &Route, now: &Route) -> Vec<&'static str> {
    let keys = [
        ("from.start", now.multi.is_none() && !begin_the_same(before, now)),
        ("multi", before.multi != now.multi),
        ("params", before.params != now.params && !before.params.values().eq(now.params.values())),
        ("cors", before.cors != now.cors),
        ("compress", before.compress != now.compress),
        ("auth", before.auth != now.auth),
        ("allow", before.allow != now.allow),
        ("expiring", before.expiring != now.expiring),
        ("max_age", before.max_age != now.max_age),
        ("ended", before.ended != now.ended),
        ("keepalive", before.keepalive != now.keepalive),
        ("retry", before.retry != now.retry),
        ("linger", before.linger != now.linger),
        ("buffer", before.buffer != now.buffer),
        ("history", before.history != now.history),
        ("replay", before.replay != now.replay),
        ("idle_timeout", before.idle_timeout != now.idle_timeout),
        ("on_lag", before.on_lag != now.on_lag),
        ("limits", before.limits != now.limits),
        ("rate", before.rate != now.rate),
    ];
    keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// The differences of two lists whose members have names.
fn named<T>(
    kind: &str,
    before: &[T],
    now: &[T],
    name: impl Fn(&T) -> String,
    differ: impl Fn(&T, &T) -> Option<String>,
    found: &mut Vec<Change>,
) {
    let find = |list: &'_ [T], wanted: &T| list.iter().position(|one| name(one) == name(wanted));
    for gone in before.iter().filter(|one| find(now, one).is_none()) {
        found.push(Change::new(format!("{kind} {}", name(gone)), "removed"));
    }
    for one in now {
        let effect = match find(before, one) {
            None => Some("added".to_owned()),
            Some(at) => differ(one, &before[at]),
        };
        found.extend(effect.map(|effect| Change::new(format!("{kind} {}", name(one)), effect)));
    }
}

fn name(host: Option<&str>, path: &str) -> String {
    format!("{}{path}", host.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::sound;

    const BEFORE: &str = "\
server: { listen: ['127.0.0.1:1', '127.0.0.1:2'], tls: none }
admin: { listen: '127.0.0.1:9', token: '0123456789abcdef' }
auth: { users: { jwt: { secret: '0123456789abcdef0123456789abcdef', audience: a } } }
upstreams:
  c: { redis: { url: 'redis://:hunter2@h' } }
  t: { ticker: {} }
routes:
  - { path: /a, from: { upstream: c, channel: a } }
  - { path: /b, host: h.example, from: { upstream: c, channel: b }, auth: users }
  - { path: /t, from: { upstream: t } }
  - { path: /all, multi: { of: /a, max: 3 } }
  - { path: '/{*rest}', proxy: 'http://127.0.0.1:3000' }
";

    fn told(edits: &[(&str, &str)]) -> Vec<String> {
        let mut text = BEFORE.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        changes(&sound(BEFORE), &sound(&text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_change_has_a_line_and_no_line_a_secret() {
        assert_eq!(told(&[]), Vec::<String>::new());
        for (edits, expected) in [
            (
                &[("'127.0.0.1:2'", "'127.0.0.1:3'")][..],
                &["listen 127.0.0.1:2: removed; what is open there goes on", "listen 127.0.0.1:3: added"][..],
            ),
            (&[("hunter2", "hunter3")], &["upstream c: connects anew; its streams stay"]),
            (
                &[("hunter2@h", "hunter2@g")],
                &[
                    "upstream c: is another system; its streams end, and come back",
                    "route /a: reads something else; its streams end",
                    "route h.example/b: reads something else; its streams end",
                    "route /all: reads something else; its streams end",
                ],
            ),
            (
                &[("path: /a,", "path: /x,"), ("of: /a", "of: /x")],
                &["route /x: was /a; its streams stay", "route /all: multi changed, for new requests"],
            ),
            (
                &[("channel: b }", "channel: b }, keepalive: 1s, cors: { origins: '*' }")],
                &["route h.example/b: cors, keepalive changed, for new requests"],
            ),
            (
                &[("channel: b }", "channel: b }, retry: 1s, history: { events: 7 }")],
                &["route h.example/b: retry changed, for new requests; history changed"],
            ),
            (
                &[("channel: a }", "channel: x }")],
                &[
                    "route /a: reads something else; its streams end",
                    "route /all: reads something else; its streams end",
                ],
            ),
            (&[("of: /a,", "of: [/a, /t],")], &["route /all: multi changed, for new requests"]),
            (
                &[("  - { path: /t, from: { upstream: t } }\n", ""), ("  t: { ticker: {} }\n", "")],
                &["upstream t: removed", "route /t: removed; its streams end"],
            ),
            (
                &[("audience: a", "audience: b"), ("3000", "3001")],
                &[
                    "auth users: changed; streams end that a key or secret let in which is gone",
                    "route /{*rest}: changed, for new requests",
                ],
            ),
            (
                &[("'0123456789abcdef' }", "'fedcba9876543210' }")],
                &["admin.token: changed, which takes a restart"],
            ),
        ] {
            let told = told(edits);
            assert_eq!(told, expected, "{edits:?}");
            assert!(!told.iter().any(|line| line.contains("hunter") || line.contains("fedcba")));
        }
    }

    #[test]
    fn what_takes_a_restart_is_left_as_it_was() {
        let before = sound(BEFORE);
        let restart = "limits: { memory: 1GiB, max_event: 2MiB, head: 16KiB }\nlog: { format: json, level: warn, access: true }\ndefaults: { replay: { concurrency: 7 } }\n";
        let text = BEFORE
            .replace("tls: none", "tls: none, control_prefix: own.")
            .replace("127.0.0.1:9", "127.0.0.1:8");
        let now = sound(&format!("{text}{restart}"));
        let found = changes(&before, &now);
        let (restarts, others): (Vec<_>, Vec<_>) = found.iter().partition(|change| change.takes_restart);
        let key = |change: &&Change| change.what.clone();
        assert_eq!(
            restarts.iter().map(key).collect::<Vec<_>>(),
            [
                "server.control_prefix",
                "admin.listen",
                "log.format",
                "log.level",
                "limits.memory",
                "limits.max_event",
                "defaults.replay.concurrency"
            ]
        );
        assert_eq!(others.iter().map(key).collect::<Vec<_>>(), ["log.access", "limits.head"]);
        let applied = applied(now.clone(), &before);
        let left = changes(&before, &applied);
        assert_eq!(left.iter().collect::<Vec<_>>(), others, "the others are taken over");
        assert_eq!(changes(&applied, &now).len(), restarts.len(), "and these still wait");
    }
}

//! What `defaults:` sets and each route may override: timings, room, replay, `binary`, `cors`, `compress`, `limits`,
//! `auth` and how long a stream lasts.

use std::sync::Arc;
use std::time::Duration;

use super::auth::{self, Providers};
use super::compress;
use super::cors;
use super::fields::{Bounds, Fields};
use super::keys::{self, Section};
use super::limits;
use super::model::{Binary, Compress, Cors, History, OnLag, Replay, RouteLimits};
use super::tree::Node;
use super::units;
use super::walk::Walk;

/// One complete set of policies.
#[derive(Debug, Clone)]
pub(super) struct Policies {
    pub keepalive: Duration,
    pub retry: Duration,
    pub linger: Duration,
    pub buffer: usize,
    pub history: History,
    pub replay: Replay,
    /// Said in `defaults` alone: it is the upstream's.
    pub replay_concurrency: usize,
    pub idle_timeout: Duration,
    pub on_lag: OnLag,
    pub binary: Binary,
    pub cors: Option<Cors>,
    pub compress: Option<Compress>,
    pub limits: RouteLimits,
    pub auth: Vec<Arc<str>>,
    pub expiring: Duration,
    pub max_age: Option<Duration>,
    pub max_event: Option<usize>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            keepalive: KEEPALIVE.default,
            retry: RETRY.default,
            linger: LINGER.default,
            buffer: BUFFER.default,
            history: History { events: EVENTS.default, bytes: BYTES.default, age: AGE.default },
            replay: Replay {
                max_events: MAX_EVENTS.default,
                max_age: MAX_AGE.default,
                max_bytes: MAX_BYTES.default,
                timeout: TIMEOUT.default,
            },
            replay_concurrency: CONCURRENCY.default,
            idle_timeout: IDLE_TIMEOUT.default,
            on_lag: OnLag::Replay,
            binary: Binary::Gap,
            cors: None,
            compress: None,
            limits: RouteLimits::default(),
            auth: Vec::new(),
            expiring: EXPIRING.default,
            max_age: None,
            max_event: None,
        }
    }
}

/// Reads `defaults`; `max_event` is that of the process.
pub(super) fn read_defaults(
    walk: &Walk<'_>,
    node: Option<&Node>,
    providers: &Providers,
    max_event: usize,
) -> Policies {
    let built_in = Policies::default();
    let Some(fields) = node.and_then(|node| Fields::open(walk, node, keys::DEFAULTS)) else {
        return built_in;
    };
    let policies = read(walk, &fields, (&built_in, providers), keys::DEFAULT_REPLAY);
    check_max_event(walk, &fields, &policies, max_event);
    policies
}

/// Holds `max_event`, where a section says it, against that of the process.
pub(super) fn check_max_event(walk: &Walk<'_>, fields: &Fields<'_>, policies: &Policies, most: usize) {
    if let (Some(entry), Some(own)) = (fields.entry("max_event"), policies.max_event)
        && own > most
    {
        let most = units::show_size(most);
        let text =
            format!("this is more than `limits.max_event`, which is {most}; raise that, or lower this");
        walk.problem(entry.value.span, text);
    }
}

/// Reads the policies of a section, which holds other keys perhaps; `base` gives what it leaves out, and `auth` names
/// some of the providers. What `replay` holds is not the same in both.
pub(super) fn read(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    (base, providers): (&Policies, &Providers),
    replay: &'static Section,
) -> Policies {
    let on_lag = [("replay", OnLag::Replay), ("gap", OnLag::Gap), ("disconnect", OnLag::Disconnect)];
    let binary = [("gap", Binary::Gap), ("base64", Binary::Base64)];
    let cors = fields.node("cors").and_then(|node| cors::read(walk, node));
    let compress = fields.node("compress").and_then(|node| compress::read(walk, node));
    let max_age = fields.node("max_age").and_then(|node| read_max_age(walk, fields, node));
    let (replay, concurrency) = read_replay(walk, fields.node("replay"), base, replay);
    Policies {
        keepalive: fields.duration("keepalive", &KEEPALIVE).unwrap_or(base.keepalive),
        retry: fields.duration("retry", &RETRY).unwrap_or(base.retry),
        linger: fields.duration("linger", &LINGER).unwrap_or(base.linger),
        buffer: fields.size("buffer", &BUFFER).unwrap_or(base.buffer),
        history: read_history(walk, fields.node("history"), base.history),
        replay,
        replay_concurrency: concurrency,
        idle_timeout: fields.duration("idle_timeout", &IDLE_TIMEOUT).unwrap_or(base.idle_timeout),
        on_lag: fields.choice("on_lag", &on_lag).unwrap_or(base.on_lag),
        binary: fields.choice("binary", &binary).unwrap_or(base.binary),
        cors: cors.unwrap_or_else(|| base.cors.clone()),
        compress: compress.unwrap_or_else(|| base.compress.clone()),
        limits: limits::read_route(walk, fields.node("limits"), base.limits),
        auth: read_auth(walk, fields, (base, providers)),
        expiring: fields.duration("expiring", &EXPIRING).unwrap_or(base.expiring),
        max_age: max_age.unwrap_or(base.max_age),
        max_event: fields.size("max_event", &limits::MAX_EVENT).or(base.max_event),
    }
}

/// `auth`: of routes that are no event streams, too.
pub(super) fn read_auth(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    (base, providers): (&Policies, &Providers),
) -> Vec<Arc<str>> {
    let names = fields.node("auth").and_then(|node| auth::read_names(walk, node, providers));
    names.map_or_else(|| base.auth.clone(), Option::unwrap_or_default)
}

/// `max_age`; `Some(None)` is `none`, which takes a default back.
fn read_max_age(walk: &Walk<'_>, fields: &Fields<'_>, node: &Node) -> Option<Option<Duration>> {
    match walk.scalar(node, "a duration such as `1h`, or `none`")? {
        scalar if &*scalar.text == "none" => Some(None),
        _ => fields.duration("max_age", &MAX_STREAM_AGE).map(Some),
    }
}

fn read_history(walk: &Walk<'_>, node: Option<&Node>, base: History) -> History {
    let Some(fields) = node.and_then(|node| Fields::open(walk, node, keys::HISTORY)) else { return base };
    History {
        events: fields.count("events", &EVENTS).unwrap_or(base.events),
        bytes: fields.size("bytes", &BYTES).unwrap_or(base.bytes),
        age: fields.duration("age", &AGE).unwrap_or(base.age),
    }
}

fn read_replay(
    walk: &Walk<'_>,
    node: Option<&Node>,
    base: &Policies,
    section: &'static Section,
) -> (Replay, usize) {
    let open = node.and_then(|node| Fields::open(walk, node, section));
    let Some(fields) = open else { return (base.replay, base.replay_concurrency) };
    let replay = Replay {
        max_events: fields.count("max_events", &MAX_EVENTS).unwrap_or(base.replay.max_events),
        max_age: fields.duration("max_age", &MAX_AGE).unwrap_or(base.replay.max_age),
        max_bytes: fields.size("max_bytes", &MAX_BYTES).unwrap_or(base.replay.max_bytes),
        timeout: fields.duration("timeout", &TIMEOUT).unwrap_or(base.replay.timeout),
    };
    let own =
        section.keys().any(|key| key == "concurrency").then(|| fields.count("concurrency", &CONCURRENCY));
    (replay, own.flatten().unwrap_or(base.replay_concurrency))
}

const fn seconds(default: u64, min: u64, max: u64) -> Bounds<Duration> {
    Bounds {
        default: Duration::from_secs(default),
        min: Duration::from_secs(min),
        max: Duration::from_secs(max),
    }
}

const DAY: u64 = 86_400;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

pub(super) const KEEPALIVE: Bounds<Duration> = seconds(15, 1, 600);
pub(super) const RETRY: Bounds<Duration> = Bounds { min: Duration::from_millis(100), ..seconds(3, 0, 600) };
pub(super) const LINGER: Bounds<Duration> = Bounds { default: Duration::from_millis(10), ..seconds(0, 0, 1) };
pub(super) const BUFFER: Bounds<usize> = Bounds { default: 8 * MIB, min: 64 << 10, max: GIB };
pub(super) const EVENTS: Bounds<usize> = Bounds { default: 1_000, min: 0, max: 10_000_000 };
pub(super) const BYTES: Bounds<usize> = Bounds { default: 8 * MIB, min: 0, max: 64 * GIB };
pub(super) const AGE: Bounds<Duration> = seconds(600, 0, 365 * DAY);
pub(super) const MAX_EVENTS: Bounds<usize> = Bounds { default: 100_000, min: 0, max: 1_000_000_000 };
pub(super) const MAX_AGE: Bounds<Duration> = seconds(7 * DAY, 0, 365 * DAY);
pub(super) const MAX_BYTES: Bounds<usize> = Bounds { default: GIB, min: 64 << 10, max: GIB << 10 };
pub(super) const TIMEOUT: Bounds<Duration> = seconds(30, 1, 3_600);
pub(super) const CONCURRENCY: Bounds<usize> = Bounds { default: 4, min: 1, max: 64 };
pub(super) const EXPIRING: Bounds<Duration> = seconds(30, 0, 3_600);
pub(super) const MAX_STREAM_AGE: Bounds<Duration> = seconds(3_600, 1, 365 * DAY);
pub(super) const IDLE_TIMEOUT: Bounds<Duration> = seconds(60, 0, DAY);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Origins, Route};
    use crate::config::testing::{HEAD, expect, expect_route, sound};

    fn route(defaults: &str, keys: &str) -> Route {
        let text = format!(
            "defaults: {{ {defaults} }}\n{HEAD}  - {{ path: /x, from: {{ upstream: t }}, {keys} }}\n"
        );
        sound(&text).routes.remove(0)
    }

    #[test]
    fn built_in_values() {
        let route = route("", "");
        assert_eq!(route.keepalive.as_secs(), 15);
        assert_eq!(route.retry.as_secs(), 3);
        assert_eq!(route.linger.as_millis(), 10);
        assert_eq!(route.buffer, 8 * MIB);
        assert_eq!(route.history, History { events: 1000, bytes: 8 * MIB, age: Duration::from_secs(600) });
        let (max_age, timeout) = (Duration::from_secs(7 * DAY), Duration::from_secs(30));
        assert_eq!(route.replay, Replay { max_events: 100_000, max_age, max_bytes: GIB, timeout });
        assert_eq!(route.idle_timeout.as_secs(), 60);
        assert_eq!((route.on_lag, route.binary), (OnLag::Replay, Binary::Gap));
        assert!(route.cors.is_none() && route.compress.is_none());
        assert!(route.auth.is_empty() && route.allow.is_none() && route.max_age.is_none() && !route.ended);
        assert_eq!(route.expiring.as_secs(), 30);
    }

    #[test]
    fn a_route_overrides_defaults_key_by_key() {
        let defaults = "keepalive: 1m, retry: 1s, on_lag: disconnect, history: { events: 5, age: 1h }, replay: { max_age: 0, max_bytes: 1MiB, timeout: 1m }";
        let route = route(defaults, "retry: 2s, history: { events: 7 }, replay: { max_events: 9 }");
        assert_eq!(
            (route.keepalive.as_secs(), route.retry.as_secs(), route.on_lag),
            (60, 2, OnLag::Disconnect)
        );
        assert_eq!(route.history, History { events: 7, bytes: 8 * MIB, age: Duration::from_secs(3600) });
        let timeout = Duration::from_secs(60);
        let (max_age, max_bytes) = (Duration::ZERO, 1 << 20);
        assert_eq!(route.replay, Replay { max_events: 9, max_age, max_bytes, timeout });
    }

    #[test]
    fn concurrency_is_the_upstreams_and_not_a_routes() {
        let text = format!(
            "defaults: {{ replay: {{ concurrency: 7 }} }}\n{HEAD}  - {{ path: /x, from: {{ upstream: t }} }}\n"
        );
        assert_eq!(sound(&text).replay_concurrency, 7);
        expect(&text.replace('7', "65"), &[(1, 36, "from 1 to 64")]);
        expect_route(
            "{ path: /x, from: { upstream: t }, replay: { concurrency: 1 } }",
            50,
            "unknown key `concurrency` in `replay`",
        );
    }

    #[test]
    fn cors_is_replaced_as_a_whole() {
        let defaults = "cors: { origins: https://a, credentials: true }";
        let origins = |route: &Route| match &route.cors.as_ref().unwrap().origins {
            Origins::Any => vec!["*".to_owned()],
            Origins::List(list) => list.iter().map(ToString::to_string).collect(),
        };
        let inherited = route(defaults, "");
        assert_eq!(
            (origins(&inherited), inherited.cors.unwrap().credentials),
            (vec!["https://a".to_owned()], true)
        );
        let own = route(defaults, "cors: { origins: '*' }");
        assert_eq!((origins(&own), own.cors.unwrap().credentials), (vec!["*".to_owned()], false));
        assert!(route(defaults, "cors: none").cors.is_none());
    }

    #[test]
    fn bounds() {
        for (key, text) in [
            ("keepalive: 999ms", "from 1s to 10m"),
            ("keepalive: 601s", "from 1s to 10m"),
            ("retry: 99ms", "from 100ms to 10m"),
            ("linger: 1001ms", "from 0 to 1s"),
            ("buffer: 63KiB", "from 64KiB to 1GiB"),
            ("idle_timeout: 25h", "from 0 to 1d"),
            ("expiring: 61m", "from 0 to 1h"),
            ("max_age: 999ms", "from 1s to 365d"),
            ("history: { events: 10000001 }", "from 0 to 10000000"),
            ("history: { bytes: 65GiB }", "from 0 to 64GiB"),
            ("history: { age: 366d }", "from 0 to 365d"),
            ("replay: { max_events: 1000000001 }", "from 0 to 1000000000"),
            ("replay: { max_age: 366d }", "from 0 to 365d"),
            ("replay: { timeout: 61m }", "from 1s to 1h"),
        ] {
            let column = 38 + key.rfind(": ").unwrap() + 4;
            expect_route(
                &format!("{{ path: /x, from: {{ upstream: t }}, {key} }}"),
                column,
                &format!("is out of bounds; it must be {text}"),
            );
            let column = 13 + key.rfind(": ").unwrap() + 2;
            let text = format!("defaults: {{ {key} }}\n{HEAD}  - {{ path: /x, from: {{ upstream: t }} }}\n");
            expect(&text, &[(1, column, "is out of bounds")]);
        }
    }

    #[test]
    fn max_event_is_no_more_than_the_processs() {
        assert_eq!(route("", "").max_event, None);
        assert_eq!(route("max_event: 2KiB", "").max_event, Some(2 << 10));
        assert_eq!(route("max_event: 2KiB", "max_event: 1MiB").max_event, Some(MIB));
        let text = "this is more than `limits.max_event`, which is 1MiB; raise that, or lower this";
        expect_route("{ path: /x, from: { upstream: t }, max_event: 2MiB }", 51, text);
        let defaults =
            format!("defaults: {{ max_event: 2MiB }}\n{HEAD}  - {{ path: /x, from: {{ upstream: t }} }}\n");
        expect(&defaults, &[(1, 24, text)]);
        sound(&format!("limits: {{ max_event: 2MiB }}\n{defaults}"));
    }

    #[test]
    fn words_and_numbers() {
        for (key, text) in [
            ("on_lag: wait", "`on_lag` cannot be `wait`; write `replay`, `gap` or `disconnect`"),
            ("binary: text", "`binary` cannot be `text`; write `gap` or `base64`"),
            ("history: { events: 1.5 }", "`1.5` is not a whole number; write digits alone"),
            ("history: { events: -1 }", "`-1` is not a whole number"),
            ("history: { events: +1 }", "`+1` is not a whole number"),
            ("history: { events: 99999999999999999999 }", "is too large a number"),
            ("history: { events: '${HIDDEN}' }", "this value is not a whole number"),
            ("history: { age: '${HIDDEN}' }", "this value is not a duration such as `15s`"),
            ("history: 100", "expected a mapping, found `100`"),
            ("linger: [1ms]", "expected a duration such as `15s`, found a list"),
        ] {
            let column = 40 + key.rfind(": ").unwrap() + 2;
            expect_route(&format!("{{ path: /x, from: {{ upstream: t }}, {key} }}"), column, text);
        }
        expect_route(
            "{ path: /x, from: { upstream: t }, history: { bites: 1 } }",
            51,
            "unknown key `bites` in `history`; did you mean `bytes`?",
        );
        expect_route(
            "{ path: /x, from: { upstream: t }, history: { events: } }",
            51,
            "`events` has no value",
        );
    }
}

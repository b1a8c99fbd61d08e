//! What `defaults:` sets and each route may override: timings, room, replay, `binary`, `cors` and `compress`.

use std::time::Duration;

use super::compress;
use super::cors;
use super::fields::{Bounds, Fields};
use super::keys::{self, Section};
use super::model::{Binary, Compress, Cors, History, OnLag, Replay};
use super::tree::Node;
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
}

/// The sections in which policies keep sections of their own.
pub(super) struct Nested {
    history: &'static Section,
    replay: &'static Section,
    cors: &'static Section,
    compress: &'static Section,
}

/// Those of `defaults`.
const IN_DEFAULTS: Nested = Nested {
    history: keys::DEFAULT_HISTORY,
    replay: keys::DEFAULT_REPLAY,
    cors: keys::DEFAULT_CORS,
    compress: keys::DEFAULT_COMPRESS,
};

/// Those of a route.
pub(super) const IN_ROUTE: Nested =
    Nested { history: keys::HISTORY, replay: keys::REPLAY, cors: keys::CORS, compress: keys::COMPRESS };

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
                timeout: TIMEOUT.default,
            },
            replay_concurrency: CONCURRENCY.default,
            idle_timeout: IDLE_TIMEOUT.default,
            on_lag: OnLag::Replay,
            binary: Binary::Gap,
            cors: None,
            compress: None,
        }
    }
}

/// Reads `defaults`.
pub(super) fn read_defaults(walk: &Walk<'_>, node: Option<&Node>) -> Policies {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::DEFAULTS));
    let built_in = Policies::default();
    fields.map_or(built_in.clone(), |fields| read(walk, &fields, &built_in, &IN_DEFAULTS))
}

/// Reads the policies of a section, which holds other keys perhaps; `base` gives what it leaves out.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>, base: &Policies, nested: &Nested) -> Policies {
    let on_lag = [("replay", OnLag::Replay), ("gap", OnLag::Gap), ("disconnect", OnLag::Disconnect)];
    let binary = [("gap", Binary::Gap), ("base64", Binary::Base64)];
    let cors = fields.node("cors").and_then(|node| cors::read(walk, node, nested.cors));
    let compress = fields.node("compress").and_then(|node| compress::read(walk, node, nested.compress));
    let (replay, concurrency) = read_replay(walk, fields.node("replay"), base, nested.replay);
    Policies {
        keepalive: fields.duration("keepalive", &KEEPALIVE).unwrap_or(base.keepalive),
        retry: fields.duration("retry", &RETRY).unwrap_or(base.retry),
        linger: fields.duration("linger", &LINGER).unwrap_or(base.linger),
        buffer: fields.size("buffer", &BUFFER).unwrap_or(base.buffer),
        history: read_history(walk, fields.node("history"), base.history, nested.history),
        replay,
        replay_concurrency: concurrency,
        idle_timeout: fields.duration("idle_timeout", &IDLE_TIMEOUT).unwrap_or(base.idle_timeout),
        on_lag: fields.choice("on_lag", &on_lag).unwrap_or(base.on_lag),
        binary: fields.choice("binary", &binary).unwrap_or(base.binary),
        cors: cors.unwrap_or_else(|| base.cors.clone()),
        compress: compress.unwrap_or_else(|| base.compress.clone()),
    }
}

fn read_history(walk: &Walk<'_>, node: Option<&Node>, base: History, section: &'static Section) -> History {
    let Some(fields) = node.and_then(|node| Fields::open(walk, node, section)) else { return base };
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

const KEEPALIVE: Bounds<Duration> = seconds(15, 1, 600);
const RETRY: Bounds<Duration> = Bounds { min: Duration::from_millis(100), ..seconds(3, 0, 600) };
const LINGER: Bounds<Duration> = Bounds { default: Duration::from_millis(10), ..seconds(0, 0, 1) };
const BUFFER: Bounds<usize> = Bounds { default: 8 * MIB, min: 64 << 10, max: GIB };
const EVENTS: Bounds<usize> = Bounds { default: 1_000, min: 0, max: 10_000_000 };
const BYTES: Bounds<usize> = Bounds { default: 8 * MIB, min: 0, max: 64 * GIB };
const AGE: Bounds<Duration> = seconds(600, 0, 365 * DAY);
const MAX_EVENTS: Bounds<usize> = Bounds { default: 100_000, min: 0, max: 1_000_000_000 };
const MAX_AGE: Bounds<Duration> = seconds(7 * DAY, 0, 365 * DAY);
const TIMEOUT: Bounds<Duration> = seconds(30, 1, 3_600);
const CONCURRENCY: Bounds<usize> = Bounds { default: 4, min: 1, max: 64 };
const IDLE_TIMEOUT: Bounds<Duration> = seconds(60, 0, DAY);

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
        assert_eq!(route.replay, Replay { max_events: 100_000, max_age, timeout });
        assert_eq!(route.idle_timeout.as_secs(), 60);
        assert_eq!((route.on_lag, route.binary), (OnLag::Replay, Binary::Gap));
        assert!(route.cors.is_none() && route.compress.is_none());
    }

    #[test]
    fn a_route_overrides_defaults_key_by_key() {
        let defaults = "keepalive: 1m, retry: 1s, on_lag: disconnect, history: { events: 5, age: 1h }, replay: { max_age: 0, timeout: 1m }";
        let route = route(defaults, "retry: 2s, history: { events: 7 }, replay: { max_events: 9 }");
        assert_eq!(
            (route.keepalive.as_secs(), route.retry.as_secs(), route.on_lag),
            (60, 2, OnLag::Disconnect)
        );
        assert_eq!(route.history, History { events: 7, bytes: 8 * MIB, age: Duration::from_secs(3600) });
        let timeout = Duration::from_secs(60);
        assert_eq!(route.replay, Replay { max_events: 9, max_age: Duration::ZERO, timeout });
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
            Origins::List(list) => list.clone(),
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

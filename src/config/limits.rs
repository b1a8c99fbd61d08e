//! `limits:`: what one client, or all of them together, may take. In the file's own section for the whole process, and in
//! `defaults` and routes for each route.

use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Limits, Rate, RouteLimits, Shed};
use super::tree::Node;
use super::walk::Walk;

/// Reads the section for the whole process.
pub(super) fn read(walk: &Walk<'_>, node: Option<&Node>) -> Limits {
    let mut limits = Limits::default();
    let Some(fields) = node.and_then(|node| Fields::open(walk, node, keys::LIMITS)) else { return limits };
    let size = |key, into: &mut usize, bounds| *into = fields.size(key, bounds).unwrap_or(*into);
    size("memory", &mut limits.memory, &MEMORY);
    size("max_event", &mut limits.max_event, &MAX_EVENT);
    size("head", &mut limits.head, &HEAD);
    let time = |key, into: &mut Duration, bounds| *into = fields.duration(key, bounds).unwrap_or(*into);
    time("write_stall", &mut limits.write_stall, &WRITE_STALL);
    time("head_timeout", &mut limits.head_timeout, &TIMEOUT);
    time("handshake_timeout", &mut limits.handshake_timeout, &TIMEOUT);
    time("idle_connection", &mut limits.idle_connection, &IDLE_CONNECTION);
    limits.connections = fields.count("connections", &CONNECTIONS);
    limits.connections_per_client = fields.count_or_none("connections_per_client", &COUNT).flatten();
    limits.connection_rate_per_client =
        fields.node("connection_rate_per_client").and_then(|node| read_rate(walk, node));
    let streams = fields.count("streams_per_connection", &STREAMS_PER_CONNECTION);
    limits.streams_per_connection = streams.unwrap_or(limits.streams_per_connection);
    let shed = [("retry", Shed::Retry), ("reject", Shed::Reject)];
    limits.shed = fields.choice("shed", &shed).unwrap_or(limits.shed);
    limits
}

fn read_rate(walk: &Walk<'_>, node: &Node) -> Option<Rate> {
    let fields = Fields::open(walk, node, keys::CONNECTION_RATE)?;
    fields.required("rate", "it is the number of new connections a second, such as `10`")?;
    let rate = fields.count("rate", &RATE)?;
    Some(Rate { rate, burst: fields.count("burst", &RATE).unwrap_or(rate.saturating_mul(2)) })
}

/// Reads the limits of a route; `base` gives what it leaves out.
pub(super) fn read_route(walk: &Walk<'_>, node: Option<&Node>, base: RouteLimits) -> RouteLimits {
    let Some(fields) = node.and_then(|node| Fields::open(walk, node, keys::ROUTE_LIMITS)) else {
        return base;
    };
    RouteLimits {
        streams: fields.count_or_none("streams", &COUNT).unwrap_or(base.streams),
        streams_per_client: fields
            .count_or_none("streams_per_client", &COUNT)
            .unwrap_or(base.streams_per_client),
        feeds: fields.count("feeds", &FEEDS).unwrap_or(base.feeds),
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: MEMORY.default,
            write_stall: WRITE_STALL.default,
            max_event: MAX_EVENT.default,
            connections: None,
            connections_per_client: None,
            connection_rate_per_client: None,
            handshake_timeout: TIMEOUT.default,
            head: HEAD.default,
            head_timeout: TIMEOUT.default,
            streams_per_connection: STREAMS_PER_CONNECTION.default,
            idle_connection: IDLE_CONNECTION.default,
            shed: Shed::Retry,
        }
    }
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self { streams: None, streams_per_client: None, feeds: FEEDS.default }
    }
}

const fn seconds(default: u64, min: u64, max: u64) -> Bounds<Duration> {
    Bounds {
        default: Duration::from_secs(default),
        min: Duration::from_secs(min),
        max: Duration::from_secs(max),
    }
}

const MIB: usize = 1 << 20;

pub(super) const MEMORY: Bounds<usize> = Bounds { default: 512 * MIB, min: 16 * MIB, max: MIB << 20 };
pub(super) const WRITE_STALL: Bounds<Duration> = seconds(30, 1, 600);
pub(super) const MAX_EVENT: Bounds<usize> = Bounds { default: MIB, min: 1 << 10, max: 64 * MIB };
/// Of limits that have no default.
pub(super) const COUNT: Bounds<usize> = Bounds { default: usize::MAX, min: 1, max: 10_000_000 };
pub(super) const CONNECTIONS: Bounds<usize> = Bounds { min: 10, ..COUNT };
pub(super) const RATE: Bounds<usize> = Bounds { max: 1_000_000, ..COUNT };
pub(super) const TIMEOUT: Bounds<Duration> = seconds(10, 1, 300);
/// Room for an id of 64 KiB, since an error status would end an EventSource for good. hyper reads into no less than 8 KiB.
pub(super) const HEAD: Bounds<usize> = Bounds { default: 72 << 10, min: 8 << 10, max: MIB };
pub(super) const STREAMS_PER_CONNECTION: Bounds<usize> = Bounds { default: 250, min: 1, max: 10_000 };
pub(super) const IDLE_CONNECTION: Bounds<Duration> = seconds(60, 1, 3_600);
pub(super) const FEEDS: Bounds<usize> = Bounds { default: 10_000, ..COUNT };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD as TICKER, TAIL, expect, expect_route, sound};

    fn with(limits: &str) -> String {
        format!("server: {{ tls: none }}\nlimits: {{ {limits} }}\n{TAIL}")
    }

    #[test]
    fn defaults_and_values() {
        let limits = sound(&with("")).limits;
        assert_eq!((limits.memory, limits.max_event, limits.head), (512 * MIB, MIB, 72 << 10));
        assert_eq!((limits.write_stall.as_secs(), limits.handshake_timeout.as_secs()), (30, 10));
        assert_eq!((limits.head_timeout.as_secs(), limits.idle_connection.as_secs()), (10, 60));
        assert_eq!((limits.connections, limits.connections_per_client), (None, None));
        assert_eq!((limits.connection_rate_per_client, limits.streams_per_connection), (None, 250));
        assert_eq!(limits.shed, Shed::Retry);
        let limits = sound(&with(
            "memory: 1GiB, write_stall: 1m, max_event: 1024, connections: 5000, connections_per_client: 40, \
             connection_rate_per_client: { rate: 10, burst: 30 }, head: 8KiB, head_timeout: 5s, \
             handshake_timeout: 1s, streams_per_connection: 7, idle_connection: 1h, shed: reject",
        ))
        .limits;
        assert_eq!((limits.memory, limits.max_event, limits.head), (1024 * MIB, 1024, 8 << 10));
        assert_eq!((limits.write_stall.as_secs(), limits.handshake_timeout.as_secs()), (60, 1));
        assert_eq!((limits.head_timeout.as_secs(), limits.idle_connection.as_secs()), (5, 3_600));
        assert_eq!((limits.connections, limits.connections_per_client), (Some(5_000), Some(40)));
        assert_eq!(limits.connection_rate_per_client, Some(Rate { rate: 10, burst: 30 }));
        assert_eq!((limits.streams_per_connection, limits.shed), (7, Shed::Reject));
        let rate = sound(&with("connection_rate_per_client: { rate: 3 }")).limits.connection_rate_per_client;
        assert_eq!(rate, Some(Rate { rate: 3, burst: 6 }));
        assert_eq!(sound(&with("connections_per_client: none")).limits.connections_per_client, None);
    }

    #[test]
    fn problems() {
        for (limits, column, text) in [
            ("memory: 15MiB", 19, "`15MiB` is out of bounds; it must be from 16MiB to 1TiB"),
            ("memory: 512M", 19, "`512M` has an unknown unit `M`; units are `B`, `KiB`"),
            ("memory: '${HIDDEN}'", 19, "this value is not a size such as `8MiB`"),
            ("write_stall: 500ms", 24, "`500ms` is out of bounds; it must be from 1s to 10m"),
            ("max_event: 65MiB", 22, "it must be from 1KiB to 64MiB"),
            ("max_event: [1]", 22, "expected a size such as `8MiB`, found a list"),
            ("max_event: ", 11, "`max_event` has no value"),
            ("connections: 9", 24, "it must be from 10 to 10000000"),
            ("connections: none", 24, "`none` is not a whole number"),
            ("connections_per_client: 0", 35, "it must be from 1 to 10000000"),
            ("connections_per_client: all", 35, "`all` is not a whole number; write digits alone"),
            ("connection_rate_per_client: 10", 39, "expected a mapping, found `10`"),
            ("connection_rate_per_client: { burst: 3 }", 39, "lacks `rate`; it is the number of new"),
            ("connection_rate_per_client: { rate: 0 }", 47, "it must be from 1 to 1000000"),
            ("head: 4KiB", 17, "it must be from 8KiB to 1MiB"),
            ("head_timeout: 10m", 25, "it must be from 1s to 5m"),
            ("handshake_timeout: 10", 30, "`10` has no unit"),
            ("streams_per_connection: 0", 35, "it must be from 1 to 10000"),
            ("idle_connection: 0", 28, "it must be from 1s to 1h"),
            ("shed: drop", 17, "`shed` cannot be `drop`; write `retry` or `reject`"),
        ] {
            expect(&with(limits), &[(2, column, text)]);
        }
    }

    fn route(defaults: &str, keys: &str) -> RouteLimits {
        let text = format!(
            "defaults: {{ {defaults} }}\n{TICKER}  - {{ path: /x, from: {{ upstream: t }}, {keys} }}\n"
        );
        sound(&text).routes.remove(0).limits
    }

    #[test]
    fn of_routes() {
        assert_eq!(route("", ""), RouteLimits { streams: None, streams_per_client: None, feeds: 10_000 });
        let limits = route(
            "limits: { streams: 9, streams_per_client: 8, feeds: 7 }",
            "limits: { streams: none, feeds: 6 }",
        );
        assert_eq!(limits, RouteLimits { streams: None, streams_per_client: Some(8), feeds: 6 });
        for (limits, column, text) in [
            ("{ streams: 0 }", 59, "it must be from 1 to 10000000"),
            ("{ feeds: none }", 57, "`none` is not a whole number"),
            ("{ stream: 1 }", 50, "unknown key `stream` in `limits`; did you mean `streams`?"),
            ("none", 48, "expected a mapping, found `none`"),
        ] {
            expect_route(&format!("{{ path: /x, from: {{ upstream: t }}, limits: {limits} }}"), column, text);
        }
    }
}

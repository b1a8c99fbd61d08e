//! The process's metrics, in Prometheus terms. Counted where things happen, with handles made once per
//! upstream and route; labelled by those two, never by client. `admin` encodes them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::hub::Reason;

/// Labels of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfUpstream {
    upstream: String,
}

/// Labels of a gap that happened to a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceGap {
    upstream: String,
    reason: &'static str,
}

/// Labels of a route: its host, if it has one, and its path as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRoute {
    route: String,
}

/// Labels of a gap that one client was told, and of a stream's end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteReason {
    route: String,
    reason: &'static str,
}

/// Labels of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProtocol {
    protocol: &'static str,
}

/// Every metric.
pub struct Metrics {
    registry: Registry,
    connections: Family<OfProtocol, Gauge>,
    /// Connections accepted, those that never finished a handshake included.
    pub accepted: Counter,
    /// Connections that ended before HTTP began: TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    subscribers: Family<OfRoute, Gauge>,
    events_out: Family<OfRoute, Counter>,
    bytes_out: Family<OfRoute, Counter>,
    plain_out: Family<OfRoute, Counter>,
    client_gaps: Family<RouteReason, Counter>,
    streams_ended: Family<RouteReason, Counter>,
    events_in: Family<OfUpstream, Counter>,
    source_gaps: Family<SourceGap, Counter>,
    up: Family<OfUpstream, Gauge>,
    reconnects: Family<OfUpstream, Counter>,
    memory_used: Gauge,
    memory_limit: Gauge,
    feeds: Gauge,
}

/// The handles of one upstream.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    /// Events appended to logs.
    pub events_in: Counter,
    /// 1 while the link is up.
    pub up: Gauge,
    /// Links that followed a lost one, or that were tried in vain.
    pub reconnects: Counter,
    name: String,
    gaps: Family<SourceGap, Counter>,
}

/// The handles of one route.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    /// Open streams.
    pub subscribers: Gauge,
    /// Events handed to streams.
    pub events_out: Counter,
    /// Bytes handed to streams, everything included.
    pub bytes_out: Counter,
    /// The same before compression.
    pub plain_out: Counter,
    name: String,
    gaps: Family<RouteReason, Counter>,
    ended: Family<RouteReason, Counter>,
}

impl UpstreamMetrics {
    /// Counts a gap that happened to a source of this upstream.
    pub fn gap(&self, reason: Reason) {
        let labels = SourceGap { upstream: self.name.clone(), reason: reason.as_str() };
        self.gaps.get_or_create(&labels).inc();
    }
}

impl RouteMetrics {
    /// Counts a gap that one client was told.
    pub fn gap(&self, reason: Reason) {
        self.gaps.get_or_create(&RouteReason { route: self.name.clone(), reason: reason.as_str() }).inc();
    }

    /// Counts a stream that ended, by why.
    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&RouteReason { route: self.name.clone(), reason }).inc();
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("ssegate");
        macro_rules! metric {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                register(&mut registry, $name, $help, &metric);
                metric
            }};
        }
        let build = Family::<Version, Gauge>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version that runs", build);
        let (memory_used, memory_limit) = (Gauge::default(), Gauge::default());
        let (used, limit) = (memory_used.clone(), memory_limit.clone());
        registry.register_with_unit("memory_used", "Held by all logs", Unit::Bytes, used);
        registry.register_with_unit("memory_limit", "What all logs together may hold", Unit::Bytes, limit);
        let bytes_out = Family::<OfRoute, Counter>::default();
        registry.register_with_unit("sent", "Handed to streams", Unit::Bytes, bytes_out.clone());
        let plain_out = Family::<OfRoute, Counter>::default();
        let help = "Handed to streams, as it is before it is compressed";
        registry.register_with_unit("sent_plain", help, Unit::Bytes, plain_out.clone());
        Arc::new(Self {
            connections: metric!("connections", "Open connections"),
            accepted: metric!("connections_accepted", "Connections accepted"),
            handshakes_failed: metric!("handshakes_failed", "Connections that ended before HTTP began"),
            subscribers: metric!("subscribers", "Open streams"),
            events_out: metric!("events_out", "Events handed to streams"),
            client_gaps: metric!("client_gaps", "Gaps that one client was told"),
            streams_ended: metric!("streams_ended", "Streams that ended"),
            events_in: metric!("events_in", "Events taken in from an upstream, once for each feed"),
            source_gaps: metric!("source_gaps", "Gaps that happened to a source"),
            up: metric!("upstream_up", "1 while the link to the upstream is up"),
            reconnects: metric!("upstream_reconnects", "Attempts to link up again"),
            feeds: metric!("feeds", "Feeds that are kept"),
            bytes_out,
            plain_out,
            memory_used,
            memory_limit,
            registry,
        })
    }

    /// The handles of an upstream. The commonest reasons for gaps begin at 0, so that their growth is seen.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let labels = OfUpstream { upstream: name.to_owned() };
        for reason in [Reason::UpstreamLost, Reason::Undecodable, Reason::TooLarge] {
            let labels = SourceGap { upstream: name.to_owned(), reason: reason.as_str() };
            drop(self.source_gaps.get_or_create(&labels));
        }
        UpstreamMetrics {
            events_in: self.events_in.get_or_create_owned(&labels),
            up: self.up.get_or_create_owned(&labels),
            reconnects: self.reconnects.get_or_create_owned(&labels),
            name: name.to_owned(),
            gaps: self.source_gaps.clone(),
        }
    }

    /// The handles of a route.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let labels = OfRoute { route: name.to_owned() };
        RouteMetrics {
            subscribers: self.subscribers.get_or_create_owned(&labels),
            events_out: self.events_out.get_or_create_owned(&labels),
            bytes_out: self.bytes_out.get_or_create_owned(&labels),
            plain_out: self.plain_out.get_or_create_owned(&labels),
            name: name.to_owned(),
            gaps: self.client_gaps.clone(),
            ended: self.streams_ended.clone(),
        }
    }

    /// The open connections of a protocol: `http/1.1` or `h2`.
    pub fn connections(&self, protocol: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&OfProtocol { protocol })
    }

    /// The text that Prometheus scrapes (OpenMetrics text format 1.0), with these figures of the hub.
    pub fn encode(&self, memory_used: usize, memory_limit: usize, feeds: usize) -> String {
        let gauge = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory_used.set(gauge(memory_used));
        self.memory_limit.set(gauge(memory_limit));
        self.feeds.set(gauge(feeds));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory cannot fail");
        text
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: &M)
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
}

/// Labels of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

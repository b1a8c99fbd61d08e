//! The process's metrics, in Prometheus terms. Counted where things happen, with handles made once per
//! upstream and route; labelled by those two, never by client. What changes all the time is looked up when somebody
//! asks: [`Figures`]. `admin` encodes them.

mod auth;
mod config;
mod labels;
mod process;
mod recent;
mod route;
mod scrape;
mod shown;
mod text;
mod tls;
mod traces;
mod upstream;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use auth::{ForwardMetrics, JwksMetrics};
pub use config::ConfigMetrics;
pub use recent::{Recent, Trouble, Whom};
pub use route::{ApplicationMetrics, RouteMetrics};
pub use scrape::{Figures, Lag, Part};
pub use text::Format;
pub use tls::TlsMetrics;
pub use traces::TraceMetrics;
pub use upstream::{HistoryMetrics, UpstreamMetrics};

use auth::AuthMetrics;
use labels::{OfProtocol, OfReason, Version};
use scrape::Gauges;
use shown::Handles;

/// Every metric.
pub struct Metrics {
    registry: Registry,
    connections: Family<OfProtocol, Gauge>,
    /// Connections accepted, those that never finished a handshake included.
    pub accepted: Counter,
    /// Connections that ended before HTTP began: TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Connections that may be open.
    pub connections_limit: Gauge,
    connections_shed: Family<OfReason, Counter>,
    accept_pauses: Family<OfReason, Counter>,
    /// HTTP/2 connections that were ended for sending more control frames than a client needs.
    pub floods: Counter,
    upstreams: upstream::Families,
    routes: route::Families,
    tls: tls::Families,
    auth: AuthMetrics,
    /// What became of the configuration.
    pub config: ConfigMetrics,
    handles: Arc<Handles>,
    traces: traces::Families,
    /// The gaps and errors of late.
    pub recent: Arc<Recent>,
    /// One answer at a time sets them and shows them.
    gauges: Mutex<Gauges>,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Arc<Self> {
        let mut whole = Registry::default();
        whole.sub_registry_with_prefix("process").register_collector(Box::new(process::Process::starts()));
        let registry = whole.sub_registry_with_prefix("ssegate");
        macro_rules! metric {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                register(registry, $name, $help, &metric);
                metric
            }};
        }
        let build = Family::<Version, Gauge>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version that runs", build);
        let connections_shed: Family<OfReason, Counter> =
            metric!("connections_shed", "Connections for which there was no room");
        let accept_pauses: Family<OfReason, Counter> =
            metric!("accept_pauses", "Times at which no connection was accepted for a while");
        SHED.iter().for_each(|reason| drop(connections_shed.get_or_create(&OfReason { reason })));
        PAUSED.iter().for_each(|reason| drop(accept_pauses.get_or_create(&OfReason { reason })));
        let connections: Family<OfProtocol, Gauge> = metric!("connections", "Open connections");
        PROTOCOLS.iter().for_each(|protocol| drop(connections.get_or_create(&OfProtocol { protocol })));
        Arc::new(Self {
            connections,
            accepted: metric!("connections_accepted", "Connections accepted"),
            handshakes_failed: metric!("handshakes_failed", "Connections that ended before HTTP began"),
            connections_limit: metric!("connections_limit", "Connections that may be open"),
            connections_shed,
            accept_pauses,
            floods: metric!(
                "http2_floods",
                "HTTP/2 connections ended for more frames that lead to nothing than a client needs"
            ),
            upstreams: upstream::Families::new(registry),
            routes: route::Families::new(registry),
            tls: tls::Families::new(registry),
            auth: AuthMetrics::new(registry),
            config: ConfigMetrics::new(registry),
            handles: Arc::default(),
            traces: traces::Families::new(registry),
            gauges: Mutex::new(Gauges::new(registry)),
            recent: Arc::default(),
            registry: whole,
        })
    }

    /// Counts a connection for which there was no room, by why.
    pub fn connection_shed(&self, reason: &'static str) {
        self.connections_shed.get_or_create(&OfReason { reason }).inc();
    }

    /// Counts a time at which accepting had to wait, by why.
    pub fn accept_paused(&self, reason: &'static str) {
        self.accept_pauses.get_or_create(&OfReason { reason }).inc();
    }

    /// The open connections of a protocol: `http/1.1` or `h2`.
    pub fn connections(&self, protocol: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&OfProtocol { protocol })
    }

    /// The text that is scraped, with these figures. Reads `/proc`: not for a thread that must not wait.
    pub fn encode(&self, figures: &Figures, format: Format) -> String {
        let gauges = self.gauges.lock();
        gauges.set(figures);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory cannot fail");
        drop(gauges);
        format.of(text)
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: &M)
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
}

const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];
/// Why connections are shed, and why none is accepted for a while.
const SHED: [&str; 4] = ["connections", "client_connections", "client_rate", "proxy_protocol"];
const PAUSED: [&str; 2] = ["connections", "error"];

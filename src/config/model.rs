//! The validated configuration: types that cannot be wrong. Built by [`super::load`] alone; every
//! other module reads them and none of them ever sees YAML.

mod multi;
mod policies;
mod process;
mod shape;
mod source;
mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::multi::{Multi, Tell};
pub use self::policies::{Binary, Coding, Compress, Cors, History, OnLag, Origin, Origins, Replay};
pub use self::process::{
    Admin, AdminListen, Certificate, Hsts, Limits, LogFormat, LogLevel, Logging, Proxies, ProxyProtocol,
    Rate, RealIpHeader, RouteLimits, Server, ServerTls, Shed, Tls,
};
pub use self::shape::{Branch, Brought, Paths, Projection, Variable, Wrap};
pub use self::source::{Also, OneSource, Partitioner, Qos, Source, Start};
pub use self::upstream::{
    ClientTls, Deployment, Kafka, Mqtt, MqttVersion, Nats, NatsAuth, NatsServer, Redis, Ticker, Upstream,
    UpstreamKind,
};
pub use super::acme::Acme;
pub use super::amqp::Amqp;
use super::auth::{AuthProvider, Deny, Rule};
pub use super::client_auth::ClientAuth;
pub use super::client_tls::Roots;
use super::decode::Decode;
pub use super::digest::{BILLION, Conflate, Digest, EventRate, Sample, Snapshot};
pub use super::endpoint::Endpoint;
pub use super::http_server::{Http, HttpServer, Split, Sse};
pub use super::identity::{CertificateFiles, Identity, Unfit, WatchedFile, read_roots};
pub use super::network::Network;
pub use super::nkey::Nkey;
pub use super::postgres::{Postgres, PostgresServer};
use super::registries::SchemaRegistry;
pub use super::table::Table;
use super::template::Template;
pub use super::tickets::{TicketKeys, Tickets};
pub use super::traces::{TraceParent, Traces};
use crate::expression::Expression;

/// One whole configuration file.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listeners.
    pub server: Server,
    /// The listener for health, metrics, status and publishing.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Logging,
    /// Bounds that hold for the whole process.
    pub limits: Limits,
    /// `traces`: where traces are sent to; without it there are none.
    pub traces: Option<Traces>,
    /// `auth`: every provider, in the order of the file.
    pub auth: Vec<AuthProvider>,
    /// `deny`: the file that lists whom no credential lets in.
    pub deny: Option<Deny>,
    /// Every upstream, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// `defaults.replay.concurrency`: how many reads of history each upstream serves at a time. Default 4, 1 to 64.
    pub replay_concurrency: usize,
    /// Every route that is an event stream, in the order of the file.
    pub routes: Vec<Route>,
    /// Every route with `proxy`, in the order of the file.
    pub proxies: Vec<Proxy>,
    /// `schema_registries`: every one, in the order of the file.
    pub schema_registries: Vec<SchemaRegistry>,
}

impl Config {
    /// How many connections all applications together are to have at most.
    pub fn connections_to_applications(&self) -> usize {
        self.proxies.iter().map(|proxy| proxy.to.connections).sum()
    }
}

/// One entry of `routes:`, with `defaults:` already applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `host`: lower-case, without a port; `None` serves every host that no other route of this path names.
    pub host: Option<Arc<str>>,
    /// `path`: `/rooms/{room}`, in `matchit`'s syntax.
    pub path: Arc<str>,
    /// `from.upstream`: the name of an upstream that exists.
    pub upstream: Arc<str>,
    /// What is read from it.
    pub source: Source,
    /// `from.start`: where a client without an id begins. Default `latest`.
    pub start: Start,
    /// The others of a `from` that is a list, of which the first is told by `upstream`, `source`, `start` and `digest`.
    pub also: Vec<Also>,
    /// `params`: what a path parameter must match in whole; only parameters that the path has.
    pub params: BTreeMap<Arc<str>, Pattern>,
    /// `event`: the event name; without it there is no `event:` line and `onmessage` fires.
    pub event: Option<Template>,
    /// `tombstone`: what the events of records without a payload are called; `None`, or `skip`, makes none of them.
    pub tombstone: Option<Template>,
    /// `filter`: what must hold for a record to make an event; without it all do. Where it names `query` or `claims`, whether it
    /// is an event for a client.
    pub filter: Option<Expression>,
    /// `data: "{field.NAME}"` or `data.field`, of a `stream` alone: the field that is sent; without it all are, as JSON.
    pub data: Option<Arc<str>>,
    /// `data.keep`, `data.drop` or `data.map`: what of a payload in JSON is sent; without them all of it.
    pub projection: Option<Projection>,
    /// `wrap`: what is put around that; nothing for `none`.
    pub wrap: Option<Wrap>,
    /// `max_event`: as [`Limits::max_event`], and no more than that; without it, that.
    pub max_event: Option<usize>,
    /// `binary`: what becomes of a payload that is not UTF-8.
    pub binary: Binary,
    /// `cors`: which pages of other origins may read it; without it, or with `none`, none.
    pub cors: Option<Cors>,
    /// `compress`: which codings clients may choose; without it, or with `none`, none. Never of a [`Source::Keyed`], nor of
    /// several sources.
    pub compress: Option<Compress>,
    /// `auth`: the providers of which one must know the client, tried in order; empty where anybody may come.
    pub auth: Vec<Arc<str>>,
    /// `allow`: what must hold besides; without it whoever is known is let in.
    pub allow: Option<Rule>,
    /// `expiring`: how long before its end a stream is told so. Default 30 s, 0 to 1 h; 0 tells nothing.
    pub expiring: Duration,
    /// `max_age`: when a stream ends at the latest, a quarter more or less. Default none, 1 s to 365 days.
    pub max_age: Option<Duration>,
    /// `ended`: its clients are told to stop coming back. Default false.
    pub ended: bool,
    /// `keepalive`: silence after which a comment is sent. Default 15 s, 1 s to 10 min.
    pub keepalive: Duration,
    /// `retry`: the middle of the jittered reconnection time. Default 3 s, 100 ms to 10 min.
    pub retry: Duration,
    /// `linger`: how long wakes are gathered. Default 10 ms, 0 to 1 s.
    pub linger: Duration,
    /// `buffer`: bytes of lag room. Default 8 MiB, 64 KiB to 1 GiB.
    pub buffer: usize,
    /// `history`: the room kept for resuming.
    pub history: History,
    /// `replay`: how far back an id is honoured.
    pub replay: Replay,
    /// `idle_timeout`: how long a feed with parameters outlives its last client. Default 60 s, 0 to 1 day.
    pub idle_timeout: Duration,
    /// `on_lag`: what becomes of a client that fell behind the log.
    pub on_lag: OnLag,
    /// `limits`: how many may listen, and to how much.
    pub limits: RouteLimits,
    /// `decode`: what payloads are. Default `text`.
    pub decode: Decode,
    /// `conflate`, `snapshot` and `sample`: what of its records is kept.
    pub digest: Arc<Digest>,
    /// `rate`: how many events one client is sent at a time; without it as many as there are.
    pub rate: Option<EventRate>,
    /// `multi`: whose feeds it gives, where it reads nothing of its own. What it reads is all that these do then, and nothing is
    /// said of what becomes of records.
    pub multi: Option<Multi>,
}

/// One entry of `routes:` whose requests an application answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// `host`, as in [`Route`].
    pub host: Option<Arc<str>>,
    /// `path`: as in [`Route`]; its last segment may be `{*name}`, which stands for any rest, an empty one too.
    pub path: Arc<str>,
    /// `proxy`
    pub to: ProxyTo,
    /// `auth`, as in [`Route`].
    pub auth: Vec<Arc<str>>,
    /// `allow`, as in [`Route`].
    pub allow: Option<Rule>,
}

/// `proxy:`, the application.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyTo {
    /// `to`: host and, if it is not 80, port; plain HTTP/1.1.
    pub to: http::uri::Authority,
    /// `connections`: requests that it may be answering at a time, tunnels included. Default 1,000, 1 to 100,000.
    pub connections: usize,
    /// `connect_timeout`: also for one of these connections. Default 5 s, 100 ms to 5 min.
    pub connect_timeout: Duration,
    /// `timeout`: how long the head of an answer may take after what the client has sent last. Default 1 min, 100 ms to 1 h.
    pub timeout: Duration,
    /// `tunnel_timeout`: how long a connection that has switched protocols may be silent. Default 1 h, 1 s to 1 d.
    pub tunnel_timeout: Duration,
}

/// A regular expression that a whole value must match.
#[derive(Debug, Clone)]
pub struct Pattern(pub(super) regex::Regex);

impl Pattern {
    /// Whether `value` matches from its first to its last character.
    pub fn matches(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// A string that is never printed, logged or shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value read from the configuration.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that must use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

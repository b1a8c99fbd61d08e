//! The validated configuration: types that cannot be wrong. Built by [`super::load`] alone; every
//! other module reads them and none of them ever sees YAML.

mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

pub use self::process::{
    Admin, AdminListen, Certificate, Hsts, Limits, LogFormat, LogLevel, Logging, Proxies, ProxyProtocol,
    Rate, RealIpHeader, RouteLimits, Server, ServerTls, Shed, Tls,
};
pub use super::acme::Acme;
use super::auth::{AuthProvider, Deny, Rule};
pub use super::client_auth::ClientAuth;
pub use super::client_tls::Roots;
pub use super::digest::{BILLION, Conflate, Digest, EventRate, Sample, Snapshot};
pub use super::endpoint::Endpoint;
pub use super::identity::{CertificateFiles, Identity, Unfit, WatchedFile, read_roots};
pub use super::network::Network;
use super::template::Template;
pub use super::tickets::{TicketKeys, Tickets};
pub use super::traces::{TraceParent, Traces};

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
}

impl Config {
    /// How many connections all applications together are to have at most.
    pub fn connections_to_applications(&self) -> usize {
        self.proxies.iter().map(|proxy| proxy.to.connections).sum()
    }
}

/// One entry of `upstreams:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its key in the file; `[A-Za-z0-9_-]{1,64}`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: UpstreamKind,
}

/// The kind of an upstream, named in YAML by its only key.
#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamKind {
    /// `redis: { url, sentinels, cluster, tls, ping_interval, timeout }`
    Redis(Redis),
    /// `kafka: { brokers, properties }`
    Kafka(Kafka),
    /// `ticker: { every, data }`
    Ticker(Ticker),
    /// `push: {}`: fed by `POST /publish/<channel>` on the admin listener. One a file at most.
    Push,
}

impl UpstreamKind {
    /// Its key.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Kafka(_) => "kafka",
            Self::Ticker(_) => "ticker",
            Self::Push => "push",
        }
    }
}

/// A Redis server, one that sentinels name, or a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// `url`, `sentinels` and `cluster`: where it is.
    pub deployment: Deployment,
    /// `tls`: whom to trust and what to show, where that is not the usual.
    pub tls: Option<ClientTls>,
    /// `ping_interval`: how often the subscribed link is tried. Default 5 s, 100 ms to 5 min.
    pub ping_interval: Duration,
    /// `timeout`: for connecting and for an answer to a ping. Default 5 s, 100 ms to 5 min.
    pub timeout: Duration,
}

/// How Redis is run.
#[derive(Debug, Clone, PartialEq)]
pub enum Deployment {
    /// One server.
    Single(Endpoint),
    /// The master that sentinels know under the name that stands as `master`'s host.
    Sentinel {
        /// Its name, and as whom to enter.
        master: Endpoint,
        /// `sentinels`: at least one.
        sentinels: Vec<Endpoint>,
    },
    /// Some nodes of a cluster, at least one, from which the others are learned. They differ in host and port only.
    Cluster(Vec<Endpoint>),
}

impl Deployment {
    /// Every endpoint that the configuration names.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let (one, list): (Option<&Endpoint>, &[Endpoint]) = match self {
            Self::Single(endpoint) => (Some(endpoint), &[]),
            Self::Sentinel { master, sentinels } => (Some(master), sentinels),
            Self::Cluster(nodes) => (None, nodes),
        };
        one.into_iter().chain(list)
    }
}

/// TLS as a client, `tls:` of a Redis upstream.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// `ca`: whom to trust instead of the system's authorities.
    pub roots: Option<Roots>,
    /// `cert` and `key`: what to show to a server that asks.
    pub certificate: Option<Arc<CertifiedKey>>,
}

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Kafka {
    /// `brokers`: `host:port`, at least one.
    pub brokers: Vec<String>,
    /// `properties`: any librdkafka property but those that would break resuming.
    pub properties: BTreeMap<String, Secret>,
}

/// The built-in source of a steady event.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticker {
    /// `every`: default 1 s, 1 ms to 1 day.
    pub every: Duration,
    /// `data`: the payload of each event. Default `tick`.
    pub data: Arc<str>,
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
    /// `params`: what a path parameter must match in whole; only parameters that the path has.
    pub params: BTreeMap<Arc<str>, Pattern>,
    /// `event`: the event name; without it there is no `event:` line and `onmessage` fires.
    pub event: Option<Template>,
    /// `tombstone`: what the events of records without a payload are called; `None`, or `skip`, makes none of them.
    pub tombstone: Option<Template>,
    /// `data: "{field.NAME}"`, of a `stream` alone: the field that is sent; without it all are, as JSON.
    pub data: Option<Arc<str>>,
    /// `binary`: what becomes of a payload that is not UTF-8.
    pub binary: Binary,
    /// `cors`: which pages of other origins may read it; without it, or with `none`, none.
    pub cors: Option<Cors>,
    /// `compress`: which codings clients may choose; without it, or with `none`, none. Never of a [`Source::Keyed`].
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
    /// `conflate`, `snapshot` and `sample`: what of its records is kept.
    pub digest: Arc<Digest>,
    /// `rate`: how many events one client is sent at a time; without it as many as there are.
    pub rate: Option<EventRate>,
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

/// What a route reads: `from:` without the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `channel`: of a `redis` or `push` upstream; may hold path parameters.
    Channel(Template),
    /// `pattern`: of a `redis` upstream, as for PSUBSCRIBE; parameters have their glob characters escaped.
    Pattern(Template),
    /// `topic`: of a `kafka` upstream; may hold path parameters.
    Topic(Template),
    /// `shard_channel`: of a `redis` upstream, as for SSUBSCRIBE; may hold path parameters.
    ShardChannel(Template),
    /// `topic` and `key`: of a `kafka` upstream; both may hold path parameters. Each client sees the records of one
    /// key.
    Keyed {
        /// The topic.
        topic: Template,
        /// The key.
        key: Template,
        /// `partitioner`: which partition holds it.
        partitioner: Partitioner,
    },
    /// `stream`: of a `redis` upstream; may hold path parameters.
    Stream(Template),
    /// Nothing to name: a `ticker` upstream.
    Ticker,
}

/// `from.partitioner:`, what the topic's producers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partitioner {
    /// `murmur2`: what Kafka's own clients do by default, librdkafka's `murmur2` and `murmur2_random` too.
    Murmur2,
    /// `crc32`: librdkafka's `consistent` and `consistent_random`, its default.
    Crc32,
    /// `any`: a key may be in any partition.
    Any,
}

/// `from.start:`, of sources whose upstream keeps history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `latest`: with what comes next.
    Latest,
    /// `earliest`: with the oldest that the upstream still holds.
    Earliest,
    /// `{ since: 1h }`: with what is not older than this when the client comes. At most 365 days.
    Since(Duration),
}

/// `binary:`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    /// Told as a gap `undecodable`.
    Gap,
    /// Every payload of the route is sent as base64 (RFC 4648 section 4).
    Base64,
}

/// `cors:`
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// `origins`: who may read.
    pub origins: Origins,
    /// `credentials`: whether cookies may come along; never with [`Origins::Any`].
    pub credentials: bool,
}

/// `cors.origins:`
#[derive(Debug, Clone, PartialEq)]
pub enum Origins {
    /// `"*"`
    Any,
    /// Those that one of these stands for.
    List(Vec<Origin>),
}

impl Origins {
    /// Whether this origin, as a browser sends it, is one of them.
    pub fn allow(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.iter().any(|allowed| allowed.matches(origin)),
        }
    }
}

/// One entry of `cors.origins:`
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// `https://shop.example.com`: this one, lower-case.
    Exact(String),
    /// `https://*.example.com`: every name below that of the host, at any depth, but not the host itself.
    Below {
        /// `https://`
        scheme: String,
        /// `.example.com`, with the port if there is one.
        host: String,
    },
    /// `{ regex: … }`: all that match it in whole.
    Regex(Pattern),
}

impl Origin {
    /// Whether it stands for this origin, as a browser sends it.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == origin,
            Self::Below { scheme, host } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_suffix(host.as_str()))
                .is_some_and(|name| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                }),
            Self::Regex(pattern) => pattern.matches(origin),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Below { scheme, host } => write!(f, "{scheme}*{host}"),
            Self::Regex(pattern) => write!(f, "/{}/", pattern.0.as_str()),
        }
    }
}

/// `compress:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// `codings`: at least one, each once; the first goes first where a client likes several as much.
    pub codings: Vec<Coding>,
    /// `level`: 1 is the fastest, 9 makes the fewest bytes. Default 3.
    pub level: u32,
    /// `min_length`: events that are sent together, and have fewer bytes, are sent as they are. Default 128, at most 1 MiB.
    pub min_length: usize,
}

/// A content coding of `compress.codings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl Coding {
    /// Its name in HTTP and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// `history:`; the first bound that is reached counts. An entry is one event with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// `events`: default 1000, at most 10,000,000; 0 keeps none.
    pub events: usize,
    /// `bytes`: default 8 MiB, ids included, at most 64 GiB.
    pub bytes: usize,
    /// `age`: default 10 min, at most 365 days.
    pub age: Duration,
}

/// `replay:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// `max_events`: default 100,000, at most 1,000,000,000.
    pub max_events: usize,
    /// `max_age`: default 7 days, at most 365 days.
    pub max_age: Duration,
    /// `max_bytes`: how much of the upstream's history one stream is given at a stretch. Default 1 GiB, 64 KiB to 1 TiB.
    pub max_bytes: usize,
    /// `timeout`: how long reading from the upstream's history may take, until the stream is live. Default
    /// 30 s, 1 s to 1 h.
    pub timeout: Duration,
}

/// `on_lag:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLag {
    /// What was missed is read from the upstream's history; as [`OnLag::Gap`] where it keeps none. The default.
    Replay,
    /// Told as a gap `lagged`; the stream goes on with the oldest event left.
    Gap,
    /// The stream ends with a `retry:`; the client comes back with its id.
    Disconnect,
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

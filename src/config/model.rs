//! The validated configuration: types that cannot be wrong. Built by [`super::load`] alone; every
//! other module reads them and none of them ever sees YAML.

mod multi;
mod process;
mod shape;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

pub use self::multi::{Multi, Tell};
pub use self::process::{
    Admin, AdminListen, Certificate, Hsts, Limits, LogFormat, LogLevel, Logging, Proxies, ProxyProtocol,
    Rate, RealIpHeader, RouteLimits, Server, ServerTls, Shed, Tls,
};
pub use self::shape::{Branch, Brought, Paths, Projection, Variable, Wrap};
pub use self::source::{Also, OneSource, Partitioner, Qos, Source, Start};
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
    /// `file: { path }`: the lines that are appended to a file, which need not be there yet.
    File(PathBuf),
    /// `stdin: {}`: the lines of standard input. One a file at most.
    Stdin,
    /// `postgres: { url, password, tls, ping_interval, timeout }`
    Postgres(Postgres),
    /// `amqp: { url, tls, ping_interval, timeout }`
    Amqp(Amqp),
    /// `sse: { url, headers, bearer, tls, connections, timeout, idle, resume, relay, control_prefix }`
    Sse(Sse),
    /// `http: { url, headers, bearer, tls, connections, timeout, idle, stream, every, split }`
    Http(Http),
    /// `nats: { servers, user, password, token, nkey, credentials, tls, ping_interval, timeout }`
    Nats(Nats),
    /// `mqtt: { url, client_id, version, keep_alive, timeout, tls }`
    Mqtt(Mqtt),
}

impl UpstreamKind {
    /// Its key.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Kafka(_) => "kafka",
            Self::Ticker(_) => "ticker",
            Self::Push => "push",
            Self::File(_) => "file",
            Self::Stdin => "stdin",
            Self::Postgres(_) => "postgres",
            Self::Amqp(_) => "amqp",
            Self::Sse(_) => "sse",
            Self::Http(_) => "http",
            Self::Nats(_) => "nats",
            Self::Mqtt(_) => "mqtt",
        }
    }

    /// The most bytes that what a route reads of it may have in its name.
    pub fn longest_name(&self) -> Option<usize> {
        match self {
            Self::Postgres(_) => Some(super::table::IDENTIFIER),
            Self::Amqp(_) => Some(super::amqp::SHORT_STRING),
            _ => None,
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

/// TLS as a client, `tls:` of an upstream.
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

/// A NATS server, or several of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Nats {
    /// `servers`: at least one. All are tried.
    pub servers: Vec<NatsServer>,
    /// As whom to enter.
    pub auth: NatsAuth,
    /// `tls`: whom to trust and what to show, where that is not the usual.
    pub tls: Option<ClientTls>,
    /// `ping_interval`: how often the link is tried. Default 5 s, 100 ms to 5 min.
    pub ping_interval: Duration,
    /// `timeout`: for connecting and for answers. Default 5 s, 100 ms to 5 min.
    pub timeout: Duration,
}

/// One of `nats.servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// Whether TLS is a must: `tls://`. A server that asks for it gets it in any case.
    pub tls: bool,
    /// A host name or address, IPv6 without its brackets.
    pub host: String,
    /// Default 4222.
    pub port: u16,
}

impl NatsServer {
    /// `host:port`, as messages name it.
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }
}

impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "tls" } else { "nats" }, self.address())
    }
}

/// How one enters NATS.
#[derive(Debug, Clone, PartialEq)]
pub enum NatsAuth {
    /// As nobody.
    None,
    /// `user` and `password`
    User {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `token`
    Token(Secret),
    /// `nkey`: a seed.
    Nkey(Nkey),
    /// `credentials`: a file as `nsc` writes it.
    Credentials {
        /// What an account says of the user.
        jwt: Secret,
        /// The user's key.
        key: Nkey,
    },
}

/// An MQTT broker. What it displays is neither user nor password.
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// Whether to speak TLS: `mqtts://`.
    pub secure: bool,
    /// A host name or address, IPv6 without its brackets.
    pub host: String,
    /// Default 1883, with TLS 8883.
    pub port: u16,
    /// The user, if there is one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// `client_id`: 1 to 128 bytes. Default: one is made for each connection.
    pub client_id: Option<String>,
    /// `version`: default 5.
    pub version: MqttVersion,
    /// `keep_alive`: how often the link is tried while it is quiet. Default 15 s, 1 s to 30 min.
    pub keep_alive: Duration,
    /// `timeout`: for connecting and for answers. Default 5 s, 100 ms to 5 min.
    pub timeout: Duration,
    /// `tls`: whom to trust and what to show, where that is not the usual.
    pub tls: Option<ClientTls>,
}

impl Mqtt {
    /// `host:port`, as messages name it.
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }
}

impl fmt::Display for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "mqtts" } else { "mqtt" }, self.address())
    }
}

/// `mqtt.version:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttVersion {
    /// `5`
    V5,
    /// `3.1.1`
    V3,
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
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

//! `upstreams:`: what each kind of system is, where it is, and how one enters it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use super::{Amqp, Endpoint, Http, Nkey, Postgres, Roots, Secret, Sse};
use crate::config::{amqp, table};

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
            Self::Postgres(_) => Some(table::IDENTIFIER),
            Self::Amqp(_) => Some(amqp::SHORT_STRING),
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

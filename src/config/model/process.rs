//! What holds for the whole process: `server:`, `admin:`, `log:` and `limits:`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Acme, CertificateFiles, ClientAuth, Identity, Network, Secret, Tickets};

/// `server:`, what faces the clients.
#[derive(Debug, Clone)]
pub struct Server {
    /// Addresses to listen on, at least one; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// How connections are secured.
    pub tls: Tls,
    /// `drain`: the window in which streams end at random moments at shutdown. Default 20 s, at most 5 min.
    pub drain: Duration,
    /// `control_prefix`: what the names of control events begin with. Default `stream.`.
    pub control_prefix: Arc<str>,
    /// `hsts`: what browsers are told of later visits; without it nothing. Never with [`Tls::None`].
    pub hsts: Option<Hsts>,
    /// Who may speak for clients, and how.
    pub proxies: Proxies,
}

/// `proxy_protocol`, `trusted_proxies` and `real_ip_header` of `server:`. Nobody is trusted by default.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxies {
    /// `proxy_protocol`: what connections of trusted proxies begin with.
    pub protocol: Option<ProxyProtocol>,
    /// `trusted_proxies`: who is believed.
    pub trusted: Vec<Network>,
    /// `real_ip_header`: where the requests of trusted proxies name the client; `none` is nowhere. Default
    /// `x-forwarded-for`.
    pub header: Option<RealIpHeader>,
}

impl Proxies {
    /// Whether what comes from `address` may speak for others.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// `server.proxy_protocol:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
    /// Either.
    Any,
}

/// `server.real_ip_header:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealIpHeader {
    /// `x-forwarded-for`.
    XForwardedFor,
    /// `forwarded` (RFC 7239).
    Forwarded,
}

/// `server.hsts:` (RFC 6797 section 6.1)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// `max_age`: for how long browsers are to come by HTTPS alone. Whole seconds, at most 2 years.
    pub max_age: Duration,
    /// `subdomains`: whether that holds for all names below this one. Default false.
    pub subdomains: bool,
    /// `preload`: whether browsers may have it built in. Default false.
    pub preload: bool,
}

/// `server.tls:`
#[derive(Debug, Clone, PartialEq)]
pub enum Tls {
    /// `none`: plain HTTP/1.1 and HTTP/2 (prior knowledge is not served), behind another terminator.
    None,
    /// `self_signed`: a certificate for `localhost` and the listen addresses, made at start.
    SelfSigned,
    /// A mapping: certificates of files or of an authority, and what belongs to them.
    Certificates(Box<ServerTls>),
}

/// `server.tls: { … }`; at least one certificate, or `acme`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    /// `cert` with `key`, and `certificates`: each for the names that it holds, the first for all others.
    pub certificates: Vec<Certificate>,
    /// `acme`: certificates that are had from an authority.
    pub acme: Option<Acme>,
    /// `client`: which certificates clients may show. Without it they are not asked for any.
    pub client: Option<ClientAuth>,
    /// `tickets`: keys shared by replicas. Without it each process makes its own.
    pub tickets: Option<Tickets>,
}

/// A certificate that is read from files.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where it stands.
    pub files: CertificateFiles,
    /// What was found there.
    pub identity: Identity,
}

/// `admin:`
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where it listens; `listen: none` switches it off. Default `127.0.0.1:9090`.
    pub listen: Option<AdminListen>,
    /// `token`: what all must show who want more than health, at least 16 characters. Always there where others than this
    /// machine can reach the listener.
    pub token: Option<Secret>,
}

/// `admin.listen:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminListen {
    /// An address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:PATH`: a socket of this machine, for its owner and its group.
    Unix(PathBuf),
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `log:`
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// `format`: default `text`.
    pub format: LogFormat,
    /// `level`: default `info`; the environment's `RUST_LOG` wins.
    pub level: LogLevel,
    /// `access`: whether each request has a line, whatever the level; default `false`.
    pub access: bool,
    /// `redact`: parameters of the query whose values these lines leave out, besides those in which credentials come.
    pub redact: Vec<String>,
}

/// `log.format:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an entry, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a person now.
    Error,
    /// Also what may need one soon.
    Warn,
    /// Also one line a stream.
    Info,
    /// Also each connection.
    Debug,
    /// Everything.
    Trace,
}

/// `limits:`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// `memory`: bytes that all logs together may hold. Default 512 MiB, 16 MiB to 1 TiB.
    pub memory: usize,
    /// `write_stall`: a client that takes nothing, or sends nothing of a body, for this long is ended. Default 30 s, 1 s to 10 min.
    pub write_stall: Duration,
    /// `max_event`: bytes of payload and event name above which a record becomes a gap `too_large`. Default 1 MiB, 1 KiB to 64 MiB.
    pub max_event: usize,
    /// `connections`: how many may be open, 10 to 10,000,000. Default: what the descriptor limit leaves room for.
    pub connections: Option<usize>,
    /// `connections_per_client`: how many one IPv4 address, or IPv6 /64, may have open. Default none.
    pub connections_per_client: Option<usize>,
    /// `connection_rate_per_client`: how fast such a client may open them. Default none.
    pub connection_rate_per_client: Option<Rate>,
    /// `handshake_timeout`: for a proxy's header and the TLS handshake. Default 10 s, 1 s to 5 min.
    pub handshake_timeout: Duration,
    /// `head`: bytes of a request's head; longer ones are answered with 431. Default 72 KiB, 8 KiB to 1 MiB.
    pub head: usize,
    /// `head_timeout`: for a request's head, and on HTTP/2 for the first. Default 10 s, 1 s to 5 min.
    pub head_timeout: Duration,
    /// `streams_per_connection`: of an HTTP/2 connection at a time. Default 250, 1 to 10,000.
    pub streams_per_connection: usize,
    /// `idle_connection`: how long an HTTP/2 connection stays open without a stream. Default 60 s, 1 s to 1 h.
    pub idle_connection: Duration,
    /// `shed`: what those are told for whom there is no room.
    pub shed: Shed,
}

/// `connection_rate_per_client:`, a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// `rate`: tokens a second, 1 to 1,000,000.
    pub rate: usize,
    /// `burst`: tokens that it holds. Default twice `rate`.
    pub burst: usize,
}

/// `limits.shed:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// A stream that ends at once and says when to come back; after an error status EventSource never does. The default.
    Retry,
    /// 429 or 503, with `retry-after`.
    Reject,
}

/// `limits:` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLimits {
    /// `streams`: how many may be open. Default none.
    pub streams: Option<usize>,
    /// `streams_per_client`: how many one IPv4 address, or IPv6 /64, may have open. Default none.
    pub streams_per_client: Option<usize>,
    /// `feeds`: how many may be kept where they depend on the path. Default 10,000, at most 10,000,000.
    pub feeds: usize,
}

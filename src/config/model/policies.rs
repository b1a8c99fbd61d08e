//! How a route serves its clients, whatever it reads: which pages may, in which coding, how far back, and what becomes of those
//! that fall behind.

use std::fmt;
use std::time::Duration;

use super::Pattern;

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

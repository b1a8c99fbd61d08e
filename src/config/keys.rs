//! Every key that a configuration may hold, section by section. The walk accepts what stands here
//! and nothing else, and a test demands that the example shows all of it.

/// A mapping with a fixed set of keys.
#[derive(Debug)]
pub(super) struct Section {
    /// What messages call it.
    pub name: &'static str,
    /// Its keys, in groups that sections share.
    keys: &'static [&'static [&'static str]],
}

impl Section {
    /// Its keys, in the order in which they are told.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.keys.iter().flat_map(|group| group.iter().copied())
    }
}

/// Declares the sections, and for the tests `ALL` of them with where they stand: `*` is any key
/// and `[]` any entry of a list.
macro_rules! sections {
    ($($name:ident = $shown:literal at $path:literal: [$($keys:expr),* $(,)?];)*) => {
        $(pub(super) const $name: &Section = &Section { name: $shown, keys: &[$($keys),*] };)*
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &Section)] = &[$(($path, $name)),*];
    };
}

/// What `defaults` and each route can set.
const POLICIES: &[&str] = &[
    "keepalive",
    "retry",
    "linger",
    "buffer",
    "history",
    "replay",
    "idle_timeout",
    "on_lag",
    "binary",
    "cors",
    "compress",
];

sections! {
    ROOT = "the file" at "": [&["server", "admin", "log", "limits", "upstreams", "defaults", "routes"]];
    SERVER = "`server`" at "server": [&["listen", "tls", "drain", "control_prefix"]];
    TLS = "`tls`" at "server.tls": [&["cert", "key"]];
    ADMIN = "`admin`" at "admin": [&["listen"]];
    LOG = "`log`" at "log": [&["format", "level"]];
    LIMITS = "`limits`" at "limits": [&["memory", "write_stall", "max_event"]];
    KINDS = "an upstream" at "upstreams.*": [&["redis", "kafka", "ticker", "push"]];
    REDIS = "`redis`" at "upstreams.*.redis": [&["url", "sentinels", "cluster", "tls", "ping_interval", "timeout"]];
    REDIS_TLS = "`tls`" at "upstreams.*.redis.tls": [&["ca", "cert", "key"]];
    KAFKA = "`kafka`" at "upstreams.*.kafka": [&["brokers", "properties"]];
    TICKER = "`ticker`" at "upstreams.*.ticker": [&["every", "data"]];
    PUSH = "`push`" at "upstreams.*.push": [];
    DEFAULTS = "`defaults`" at "defaults": [POLICIES];
    ROUTE = "a route" at "routes.[]": [&["path", "host", "from", "params", "event", "data", "tombstone"], POLICIES];
    TOMBSTONE = "`tombstone`" at "routes.[].tombstone": [&["event"]];
    FROM = "`from`" at "routes.[].from": [
        &["upstream", "channel", "pattern", "shard_channel", "stream", "topic", "key", "partitioner", "start"],
    ];
    START = "`start`" at "routes.[].from.start": [&["since"]];
    DEFAULT_HISTORY = "`history`" at "defaults.history": [HISTORY_KEYS];
    HISTORY = "`history`" at "routes.[].history": [HISTORY_KEYS];
    DEFAULT_REPLAY = "`replay`" at "defaults.replay": [REPLAY_KEYS, &["concurrency"]];
    REPLAY = "`replay`" at "routes.[].replay": [REPLAY_KEYS];
    DEFAULT_CORS = "`cors`" at "defaults.cors": [CORS_KEYS];
    CORS = "`cors`" at "routes.[].cors": [CORS_KEYS];
    DEFAULT_COMPRESS = "`compress`" at "defaults.compress": [COMPRESS_KEYS];
    COMPRESS = "`compress`" at "routes.[].compress": [COMPRESS_KEYS];
}

const HISTORY_KEYS: &[&str] = &["events", "bytes", "age"];
const REPLAY_KEYS: &[&str] = &["max_events", "max_age", "timeout"];
const CORS_KEYS: &[&str] = &["origins", "credentials"];
const COMPRESS_KEYS: &[&str] = &["codings", "level", "min_length"];

//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::publish::Pace;
use crate::scenario::attack::attacker::Order;
use crate::scenario::attack::kind::Kind;
use crate::simulate::Simulate;

/// Holds many SSE clients against a server on this machine and reports what that costs it.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How.
    #[command(flatten)]
    pub options: Options,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Many clients, few events: 5,000 clients, 10 events/s, 20 s.
    Sparse,
    /// Few clients, many events: 200 clients, 1,000 events/s, 15 s, linger 20 ms.
    Dense,
    /// Many feeds: 2,000 rooms of 5 clients each, 2,000 events/s over all of them, 15 s.
    Rooms,
    /// Clients without events: 15,000 of them, memory and CPU for each.
    Idle,
    /// Memory of one more stream on an HTTP/2 connection: 150 connections with 1 stream each, then with 100.
    Streams,
    /// Handshake, request and first byte, 2,000 times.
    Connect,
    /// 5,000 clients lose their connections and come back at once, each with the id it read last, while 10 events/s
    /// go on.
    Return,
    /// Of 200 clients at 1,000 events/s every tenth stops reading: what that holds, and what the others notice.
    Slow,
    /// 200 clients at 100 events/s, in peace and then under attack, by each of a dozen: half-open handshakes, slow heads,
    /// clients that read nothing, floods of HTTP/2 frames.
    Attack(Attacks),
    /// From a record's sending to Kafka to 200 clients, 1,000 records/s, beside a plain consumer of the same records.
    Delay,
    /// All that 1 core, and then 2 cores, can send to 200 clients.
    Workers,
    /// The least that sparse and dense can cost: one thread, one send() of a shared buffer a plain socket.
    Floor,
    /// Clients that come back within what memory holds: 20 of them, 200,000 events each, of a push route.
    Resume,
    /// A client that reads a topic of Kafka from its first record, beyond memory, through one fetch slot: 1,000,000
    /// events.
    History,
    /// The return of many to Kafka: 1,000 clients with an id each, all over the 10,000 records of a topic, beyond
    /// memory, at once, while 50 others are live.
    Herd,
    /// A topic of which each stream sees one key: 100,000 keys, 5,000 records/s, 30 s; then the server is killed and
    /// all come back. For HTTP/2 with --h2 --streams-per-connection 100.
    Keyed,
    /// One feed of which each client asks for another part: 1,000 clients, each with a `?symbol=` of its own, 1,000 events/s
    /// of all of these symbols in turn, 20 s.
    Filters,
    /// 1,000 clients come at once, and each is given a snapshot of 10,000 keys (--events).
    Snapshots,
    /// Whether costs grow in a straight line: 1,000 to 15,000 clients of one server, 45,000 of three, 100,000 streams of
    /// HTTP/2, 10,000 feeds.
    Scale(Parts),
    /// What 32 cores and 1,000,000 clients would come to, by what was measured: no server is started.
    Simulate(Simulate),
    /// Everything that ssegate is to reach, peers beside it, in one run that ends by itself.
    Suite(Suite),
    /// A server and its clients, beside others; started by the tool.
    #[command(hide = true)]
    ScalePart,
    /// The attacker, beside those who measure; started by the tool.
    #[command(hide = true)]
    AttackPart(Order),
    /// The floor's own server; started by the tool.
    #[command(hide = true)]
    FloorServe(Plan),
}

/// The size of a load.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Plan {
    /// Clients that are held at a time.
    #[arg(long)]
    pub clients: usize,
    /// Events published a second.
    #[arg(long)]
    pub rate: u32,
    /// For how long, in seconds.
    #[arg(long)]
    pub seconds: u32,
    /// How long the server gathers events, in milliseconds.
    #[arg(long)]
    pub linger: u32,
    /// Bytes of an event's payload.
    #[arg(long)]
    pub payload: usize,
    /// Channels that clients and events are spread over.
    #[arg(long, default_value_t = 1)]
    pub feeds: u64,
}

impl Plan {
    /// What is published.
    pub fn pace(&self) -> Pace {
        let events = u64::from(self.rate) * u64::from(self.seconds);
        Pace { rate: self.rate, first: 0, events, feeds: self.feeds, payload: self.payload }
    }
}

/// What of the attack scenario is run.
#[derive(Debug, Clone, ClapArgs)]
pub struct Attacks {
    /// These alone; several with commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub kinds: Vec<Kind>,
}

/// What of the scale scenario is run.
#[derive(Debug, Clone, ClapArgs)]
pub struct Parts {
    /// These alone.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "clients,servers,streams,feeds")]
    pub parts: Vec<Part>,
}

/// What grows in the scale scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Clients of one server.
    Clients,
    /// Servers, each with as many clients as a process has descriptors for.
    Servers,
    /// Streams on HTTP/2 connections of 100 each.
    Streams,
    /// Feeds of one client each.
    Feeds,
}

/// How the suite is run.
#[derive(Debug, Clone, ClapArgs)]
pub struct Suite {
    /// Every scenario, but small: to see that all of it works, not for figures.
    #[arg(long)]
    pub quick: bool,
    /// Where table.md, figures.json and bench.svg go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub out: PathBuf,
    /// Only steps whose names contain one of these.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub only: Vec<String>,
    /// Goes on with a run that was ended: only steps of which it has no rows, which are kept.
    #[arg(long)]
    pub go_on: bool,
}

/// How to do it.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Options")]
pub struct Options {
    /// The ssegate binary: started for each run, with a configuration made for it.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "url")]
    pub server: Option<PathBuf>,
    /// A server that runs already, on this machine: its stream, as https://HOST:PORT/PATH or http://…
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Also measures other servers the same way, right after ours; several with commas.
    #[arg(long, global = true, value_enum, value_delimiter = ',')]
    pub peer: Vec<Peer>,
    /// Where the peers are that are built from their Go modules; scripts/need.sh bench leaves them there.
    #[arg(long, global = true, value_name = "DIR", default_value = "target/peers")]
    pub peers_dir: PathBuf,
    /// With --url: the server's process, to read its CPU time and memory.
    #[arg(long, global = true)]
    pub pid: Option<u32>,
    /// With --url: where to POST events, as http://HOST:PORT/PATH.
    #[arg(long, global = true, value_name = "URL")]
    pub publish_url: Option<String>,
    /// With --url: the server sends no `stream.position`; a stream counts as open once it is answered.
    #[arg(long, global = true)]
    pub silent: bool,
    /// Which way events reach the server; several are measured one after the other.
    #[arg(long, global = true, value_delimiter = ',', default_value = "push")]
    pub via: Vec<Via>,
    /// A Kafka that runs already, in place of one started for the run: its only broker.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub kafka: Option<SocketAddr>,
    /// The class path that Kafka is started with. The tests of Kafka leave one in target/kafka.
    #[arg(long, global = true, value_name = "FILE", default_value = "target/kafka/cp.txt")]
    pub kafka_classpath: PathBuf,
    /// Partitions of the topic; for keyed 4, elsewhere 1.
    #[arg(long, global = true)]
    pub partitions: Option<u32>,
    /// Events that are there to be replayed, or keys of a snapshot, in place of the scenario's number.
    #[arg(long, global = true)]
    pub events: Option<u64>,
    /// Reads of history that the server does at a time (replay.concurrency).
    #[arg(long, global = true, default_value_t = 1)]
    pub slots: u32,
    /// A Redis that runs already, in place of one started for the run.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub redis: Option<SocketAddr>,
    /// Clients held at a time, in place of the scenario's number.
    #[arg(long, global = true)]
    pub clients: Option<usize>,
    /// Events a second, in place of the scenario's number.
    #[arg(long, global = true)]
    pub rate: Option<u32>,
    /// Seconds of publishing, in place of the scenario's number; for idle, of holding still.
    #[arg(long, global = true)]
    pub seconds: Option<u32>,
    /// The route's linger in milliseconds, in place of the scenario's number.
    #[arg(long, global = true)]
    pub linger: Option<u32>,
    /// Bytes of a payload: a JSON record with values that change. With gzip, level 6, events of 200 bytes become 76 %
    /// of their size each alone, 42 % by fives, 30 % by twenties, and 22 % by the thousand.
    #[arg(long, global = true, default_value_t = 200)]
    pub payload: usize,
    /// The coding that clients accept, for sparse, dense and rooms; servers are set up to compress.
    #[arg(long, global = true, value_enum, default_value_t = Coding::Identity)]
    pub coding: Coding,
    /// With --coding: the level, in place of the server's default, which is 3 with ssegate and 1 with nginx.
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub level: Option<u8>,
    /// Connections that the connect scenario makes.
    #[arg(long, global = true, default_value_t = 2_000)]
    pub connects: usize,
    /// Handshakes that are under way at a time.
    #[arg(long, global = true, default_value_t = 32)]
    pub concurrency: usize,
    /// How often the clients of the idle scenario come, to see what stays behind.
    #[arg(long, global = true, default_value_t = 3)]
    pub rounds: u32,
    /// How often each scenario is run.
    #[arg(long, global = true, default_value_t = 1)]
    pub runs: u32,
    /// Key exchange that clients offer; hybrid is X25519MLKEM768, which today's browsers prefer.
    #[arg(long, global = true, value_enum, default_value_t = KeyExchange::Hybrid)]
    pub kx: KeyExchange,
    /// Key of the servers' certificates.
    #[arg(long, global = true, value_enum, default_value_t = Cert::Ecdsa)]
    pub cert: Cert,
    /// Resume TLS sessions in the connect scenario; then at most 8 handshakes are under way.
    #[arg(long, global = true)]
    pub resume: bool,
    /// No TLS.
    #[arg(long, global = true)]
    pub plain: bool,
    /// HTTP/2 instead of HTTP/1.1.
    #[arg(long, global = true, conflicts_with = "plain")]
    pub h2: bool,
    /// With --h2: how many of the clients share a connection.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=250))]
    pub streams_per_connection: u16,
    /// The cores that the server gets; several with commas.
    #[arg(long, global = true, value_delimiter = ',', default_value = "0")]
    pub server_core: Vec<usize>,
    /// The core that clients, publisher and Redis share.
    #[arg(long, global = true, default_value_t = 1)]
    pub load_core: usize,
    /// Leaves the placing of processes to the system.
    #[arg(long, global = true)]
    pub no_pin: bool,
    /// Also writes the figures here, as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// The cores that the server is kept on; none for all.
    pub fn server_cores(&self) -> &[usize] {
        if self.no_pin { &[] } else { &self.server_core }
    }

    /// The core that everything else is kept on; none for all.
    pub fn load_cores(&self) -> &[usize] {
        if self.no_pin { &[] } else { std::slice::from_ref(&self.load_core) }
    }

    /// The ssegate binary.
    ///
    /// # Errors
    /// Where none is named.
    pub fn server(&self) -> anyhow::Result<&Path> {
        self.server.as_deref().context("name a server: --server target/release/ssegate")
    }
}

/// Which way events reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// `POST /publish/<channel>` on the admin listener.
    Push,
    /// `PUBLISH` at a Redis.
    Redis,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// None: bytes as they are.
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Coding {
    /// Its name in HTTP; of what need not be named, none.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Another server to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// nginx with nchan: Debian's packages nginx and libnginx-mod-nchan.
    Nchan,
    /// Pushpin: Debian's package pushpin.
    Pushpin,
    /// Mercure: its Go module, served by a small main.
    Mercure,
    /// Centrifugo: its Go module.
    Centrifugo,
    /// nginx with gzip, before an ssegate that does not compress; only nginx is measured. For --coding gzip.
    Nginx,
}

/// The key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cert {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA of 2048 bits.
    Rsa,
}

/// What clients offer for the key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyExchange {
    /// X25519MLKEM768.
    Hybrid,
    /// X25519.
    X25519,
}

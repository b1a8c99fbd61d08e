//! Starts an ssegate for one run: writes its configuration, waits until it is ready, and reads from its log where
//! it listens.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::{Options, Via};
use crate::child::Child;
use crate::publish::{Road, probe};
use crate::scratch::LOG;

/// A running ssegate.
pub struct Ssegate {
    /// Its process.
    pub server: Child,
    /// The Redis that was started for it.
    pub redis: Option<Child>,
    /// Where clients connect.
    pub public: SocketAddr,
    /// How events reach it.
    pub road: Road,
}

impl Ssegate {
    /// Starts the binary `server`, with its files in `folder` and a route of this linger.
    ///
    /// # Errors
    /// Where it, or its Redis, does not start.
    pub fn start(
        server: &Path,
        options: &Options,
        via: Via,
        linger: u32,
        folder: &str,
    ) -> anyhow::Result<Self> {
        let (redis, at) = match (via, options.redis) {
            (Via::Push, _) => (None, None),
            (Via::Redis, Some(addr)) => (None, Some(addr)),
            (Via::Redis, None) => {
                let (redis, addr) = start_redis(options, folder)?;
                (Some(redis), Some(addr))
            }
        };
        let Serving { server, public, admin } =
            Serving::start(server, options, folder, &configuration(at, linger))?;
        let road = match at {
            None => Road::Post { addr: admin, path: format!("/publish/{CHANNEL}") },
            Some(addr) => Road::Redis { addr, channel: CHANNEL.to_owned() },
        };
        Ok(Self { server, redis, public, road })
    }
}

/// A process that serves what a configuration says.
pub struct Serving {
    /// The process.
    pub server: Child,
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where it is administered.
    pub admin: SocketAddr,
}

impl Serving {
    /// Starts the binary `server`, with its files in `folder`. `rest` is the configuration but for its listeners.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(server: &Path, options: &Options, folder: &str, rest: &str) -> anyhow::Result<Self> {
        let (config, log) = (format!("{folder}/config.yaml"), format!("{folder}/{LOG}"));
        let tls = if options.plain { "none" } else { "self_signed" };
        fs::write(
            &config,
            format!(
                "server: {{ listen: \"127.0.0.1:0\", tls: {tls}, drain: 100ms }}
admin: {{ listen: \"127.0.0.1:0\" }}
log: {{ format: json }}
{rest}"
            ),
        )?;
        let server = server.to_str().context("the path of the server is not UTF-8")?;
        let output = File::create(&log)?;
        let arguments = [server, "serve", "--config", &config];
        let mut server = Child::start(&arguments, options.server_core(), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output)
        })?;
        let (public, admin) = listening(&mut server, &log)?;
        Ok(Self { server, public, admin })
    }
}

fn configuration(redis: Option<SocketAddr>, linger: u32) -> String {
    let upstream = match redis {
        None => "push: {}".to_owned(),
        Some(addr) => format!("redis: {{ url: \"redis://{addr}\" }}"),
    };
    format!(
        "upstreams:
  source: {{ {upstream} }}
routes:
  - path: {PATH}
    from: {{ upstream: source, channel: {CHANNEL} }}
    linger: {linger}ms
"
    )
}

/// The public and the admin address that a server logs, once it is ready.
fn listening(server: &mut Child, log: &str) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let deadline = Instant::now() + START;
    loop {
        let lines = fs::read_to_string(log)?;
        let addr = |name: &str| {
            let events =
                lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let mut bound = events.filter(|event| event["message"] == "listening" && event["name"] == name);
            bound.find_map(|event| event["addr"].as_str()?.parse::<SocketAddr>().ok())
        };
        if let (Some(public), Some(admin)) = (addr("server"), addr("admin"))
            && probe(admin, "/readyz").is_ok()
        {
            return Ok((public, admin));
        }
        if let Some(status) = server.ended()? {
            bail!("the server ended at once ({status}):\n{lines}");
        }
        if Instant::now() > deadline {
            bail!("the server is not ready after {START:?}:\n{lines}");
        }
        sleep(PAUSE);
    }
}

/// A Redis of our own, on the core of the load.
fn start_redis(options: &Options, folder: &str) -> anyhow::Result<(Child, SocketAddr)> {
    let addr = free_address()?;
    let port = addr.port().to_string();
    let arguments = ["redis-server", "--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir", folder];
    let mut redis = Child::start(&arguments, options.load_core(), |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null())
    })?;
    wait_for(&mut redis, addr)?;
    Ok((redis, addr))
}

/// An address that was free a moment ago, for servers that cannot be asked to take any.
///
/// # Errors
/// Where there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until `server` listens at `addr`.
///
/// # Errors
/// Where it ends before, or takes too long.
pub fn wait_for(server: &mut Child, addr: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(addr).is_err() {
        if let Some(status) = server.ended()? {
            bail!("{} ended at once ({status})", server.name());
        }
        if Instant::now() > deadline {
            bail!("{} does not listen after {START:?}", server.name());
        }
        sleep(PAUSE);
    }
    Ok(())
}

/// The route that clients ask for.
pub const PATH: &str = "/load";

/// The channel that events are published to.
pub const CHANNEL: &str = "load";

/// How long a server may take until it is ready.
pub const START: Duration = Duration::from_secs(15);

/// Between two looks whether it is.
pub const PAUSE: Duration = Duration::from_millis(20);

//! Starts an ssegate for one run: writes its configuration, waits until it is ready, and reads from its log where
//! it listens.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::args::{Coding, Options, Via};
use crate::publish::probe;
use crate::publish::road::Road;
use crate::server::cert::Certificate;
use crate::server::child::Child;
use crate::server::scratch::LOG;
use crate::server::start::{CHANNEL, PAUSE, START, Started, free_address, wait_for};

/// Starts one with its files in `folder`, fed as asked for, with a route of this linger: for [`CHANNEL`], and one for
/// every other.
///
/// # Errors
/// Where it, or its Redis, does not start.
pub fn start(options: &Options, via: Via, linger: u32, folder: &str) -> anyhow::Result<Started> {
    let (redis, at) = match (via, options.redis) {
        (Via::Push, _) => (None, None),
        (Via::Redis, Some(addr)) => (None, Some(addr)),
        (Via::Redis, None) => {
            let (redis, addr) = start_redis(options, folder)?;
            (Some(redis), Some(addr))
        }
    };
    let Serving { server, public, admin } =
        Serving::start(options, folder, &configuration(options, at, linger))?;
    let road = match at {
        None => Road::Post { addr: admin, path: "/publish/{}".to_owned() },
        Some(addr) => Road::Redis { addr },
    };
    Ok(Started { children: vec![server], beside: redis.into_iter().collect(), public, path, road })
}

fn path(channel: &str) -> String {
    if channel == CHANNEL { PATH.to_owned() } else { format!("/rooms/{channel}") }
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
    /// Starts one with its files in `folder`. `rest` is the configuration but for its listeners.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(options: &Options, folder: &str, rest: &str) -> anyhow::Result<Self> {
        let (config, log) = (format!("{folder}/config.yaml"), format!("{folder}/{LOG}"));
        let tls = match Certificate::make(options, folder)? {
            None => "none".to_owned(),
            Some(Certificate { cert, key }) => format!("{{ cert: {cert}, key: {key} }}"),
        };
        fs::write(
            &config,
            format!(
                "server: {{ listen: \"127.0.0.1:0\", tls: {tls}, drain: 100ms }}
admin: {{ listen: \"127.0.0.1:0\" }}
log: {{ format: json }}
{rest}"
            ),
        )?;
        let server = options.server()?.to_str().context("the path of the server is not UTF-8")?;
        let output = File::create(&log)?;
        let arguments = [server, "serve", "--config", &config];
        let mut server = Child::start(&arguments, options.server_cores(), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output)
        })?;
        let (public, admin) = listening(&mut server, &log)?;
        Ok(Self { server, public, admin })
    }
}

fn configuration(options: &Options, redis: Option<SocketAddr>, linger: u32) -> String {
    let upstream = match redis {
        None => "push: {}".to_owned(),
        Some(addr) => format!("redis: {{ url: \"redis://{addr}\" }}"),
    };
    let compress = match (options.coding, options.level) {
        (Coding::Identity, _) => String::new(),
        (coding, None) => format!(", compress: {}", coding.name()),
        (coding, Some(level)) => format!(", compress: {{ codings: {}, level: {level} }}", coding.name()),
    };
    format!(
        "upstreams: {{ source: {{ {upstream} }} }}
defaults: {{ linger: {linger}ms{compress} }}
routes:
  - {{ path: {PATH}, from: {{ upstream: source, channel: {CHANNEL} }} }}
  - {{ path: \"/rooms/{{room}}\", from: {{ upstream: source, channel: \"{{room}}\" }} }}
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
    let mut redis = Child::start(&arguments, options.load_cores(), |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null())
    })?;
    wait_for(&mut redis, addr)?;
    Ok((redis, addr))
}

/// The route that clients ask for.
pub const PATH: &str = "/load";

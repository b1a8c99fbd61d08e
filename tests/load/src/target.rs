//! The server under load: an ssegate started for one run, one that runs already, or the floor; and where its
//! events come from.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::{Options, Peer, Plan, Via};
use crate::child::Child;
use crate::dial::Dial;
use crate::peer::Nchan;
use crate::publish::{Published, Road, probe};

/// A server, ended with what belongs to it when dropped.
pub struct Target {
    /// Its name in the report.
    pub name: String,
    /// How events reach it, in the report.
    pub via: &'static str,
    /// How clients reach it.
    pub dial: Dial,
    /// Its process.
    pub pid: u32,
    source: Option<Source>,
    /// Dropped in this order: the server before the Redis that it would try to reach again.
    _children: Vec<Child>,
    _scratch: Option<Scratch>,
}

/// Where events come from.
pub enum Source {
    /// This tool publishes them.
    Road(Road),
    /// The server makes them itself, once it is told to.
    Floor(ChildStdin, BufReader<ChildStdout>),
}

impl Source {
    /// Publishes what the plan says; returns when all is sent.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub fn publish(self, plan: &Plan) -> anyhow::Result<Published> {
        match self {
            Self::Road(road) => road.publish(plan),
            Self::Floor(mut stdin, mut stdout) => {
                writeln!(stdin, "go")?;
                let mut line = String::new();
                stdout.read_line(&mut line)?;
                let (late, took) =
                    line.trim().split_once(' ').context("the floor does not tell its times")?;
                let (late, took) =
                    (Duration::from_micros(late.parse()?), Duration::from_micros(took.parse()?));
                Ok(Published { events: plan.events(), late, took })
            }
        }
    }
}

impl Target {
    /// The server that the options name, with a route of this linger.
    ///
    /// # Errors
    /// Where it does not start, or there is none.
    pub fn new(options: &Options, via: Via, linger: u32) -> anyhow::Result<Self> {
        match (&options.server, &options.url) {
            (Some(server), _) => Self::start(server, options, via, linger),
            (None, Some(url)) => Self::running(url, options),
            (None, None) => bail!("name a server: --server target/release/ssegate, or --url with --pid"),
        }
    }

    /// The floor, ready for the plan's clients.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn floor(options: &Options, plan: &Plan) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let own = own.to_str().context("the tool's own path is not UTF-8")?;
        let numbers = [plan.clients as u64, plan.rate.into(), plan.seconds.into(), plan.linger.into()];
        let [clients, rate, seconds, linger] = numbers.map(|number| number.to_string());
        let payload = plan.payload.to_string();
        let arguments = [
            own,
            "floor-serve",
            "--clients",
            &clients,
            "--rate",
            &rate,
            "--seconds",
            &seconds,
            "--linger",
            &linger,
            "--payload",
            &payload,
        ];
        let mut server = Child::start(&arguments, core(options), |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped())
        })?;
        let stdin = server.process().stdin.take().context("no stdin")?;
        let mut stdout = BufReader::new(server.process().stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let addr = line.trim().parse().context("the floor does not tell its address")?;
        let mut dial = Dial::new(addr, "/", &Options { plain: true, h2: false, ..options.clone() })?;
        dial.announces = false;
        Ok(Self {
            name: "floor".to_owned(),
            via: "itself",
            dial,
            pid: server.pid(),
            source: Some(Source::Floor(stdin, stdout)),
            _children: vec![server],
            _scratch: None,
        })
    }

    /// The peer.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn peer(options: &Options, peer: Peer) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let Peer::Nchan = peer;
        let nchan = Nchan::start(options, &scratch.0)?;
        let mut dial = Dial::new(nchan.public, "/load", options)?;
        dial.announces = false;
        Ok(Self {
            name: "nginx+nchan".to_owned(),
            via: "POST",
            dial,
            pid: nchan.worker,
            source: Some(Source::Road(Road::Post { addr: nchan.publisher, path: "/publish".to_owned() })),
            _children: vec![nchan.master],
            _scratch: Some(scratch),
        })
    }

    /// Where events come from; asked once.
    ///
    /// # Errors
    /// For a server that runs already where no --publish-url or --redis was given.
    pub fn source(&mut self) -> anyhow::Result<Source> {
        self.source.take().context("say how events reach the server: --publish-url or --redis")
    }

    fn start(server: &Path, options: &Options, via: Via, linger: u32) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let (redis, addr) = match (via, options.redis) {
            (Via::Push, _) => (None, None),
            (Via::Redis, Some(addr)) => (None, Some(addr)),
            (Via::Redis, None) => {
                let (redis, addr) = start_redis(options, &scratch)?;
                (Some(redis), Some(addr))
            }
        };
        let config = scratch.0.join("config.yaml");
        fs::write(&config, configuration(options, addr, linger))?;
        let log = scratch.0.join("log");
        let arguments = [text(server)?, "serve", "--config", text(&config)?];
        let output = File::create(&log)?;
        let mut child = Child::start(&arguments, core(options), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output)
        })?;
        let (public, admin) = listening(&mut child, &log)?;
        let (via, road) = match addr {
            None => ("push", Road::Post { addr: admin, path: "/publish/load".to_owned() }),
            Some(addr) => ("redis", Road::Redis { addr, channel: "load".to_owned() }),
        };
        Ok(Self {
            name: "ssegate".to_owned(),
            via,
            dial: Dial::new(public, "/load", options)?,
            pid: child.pid(),
            source: Some(Source::Road(road)),
            _children: [Some(child), redis].into_iter().flatten().collect(),
            _scratch: Some(scratch),
        })
    }

    fn running(url: &str, options: &Options) -> anyhow::Result<Self> {
        let (plain, addr, path) = parse_url(url)?;
        let road = match (&options.publish_url, options.redis) {
            (Some(url), _) => {
                let (_, addr, path) = parse_url(url)?;
                Some(Road::Post { addr, path })
            }
            (None, Some(addr)) => Some(Road::Redis { addr, channel: "load".to_owned() }),
            (None, None) => None,
        };
        Ok(Self {
            name: url.to_owned(),
            via: match road {
                Some(Road::Redis { .. }) => "redis",
                _ => "POST",
            },
            dial: Dial {
                announces: !options.silent,
                ..Dial::new(addr, &path, &Options { plain, ..options.clone() })?
            },
            pid: options.pid.context("--url needs --pid: the server's process")?,
            source: road.map(Source::Road),
            _children: Vec::new(),
            _scratch: None,
        })
    }
}

fn configuration(options: &Options, redis: Option<SocketAddr>, linger: u32) -> String {
    let tls = if options.plain { "none" } else { "self_signed" };
    let upstream = match redis {
        None => "push: {}".to_owned(),
        Some(addr) => format!("redis: {{ url: \"redis://{addr}\" }}"),
    };
    format!(
        "server: {{ listen: \"127.0.0.1:0\", tls: {tls}, drain: 100ms }}\n\
         admin: {{ listen: \"127.0.0.1:0\" }}\n\
         log: {{ format: json }}\n\
         upstreams:\n  source: {{ {upstream} }}\n\
         routes:\n  - path: /load\n    from: {{ upstream: source, channel: load }}\n    linger: {linger}ms\n"
    )
}

/// The public and the admin address that a server logs, once it is ready.
fn listening(server: &mut Child, log: &Path) -> anyhow::Result<(SocketAddr, SocketAddr)> {
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
        sleep(Duration::from_millis(20));
    }
}

/// A Redis of our own, on the core of the load.
fn start_redis(options: &Options, scratch: &Scratch) -> anyhow::Result<(Child, SocketAddr)> {
    let addr = free_address()?;
    let port = addr.port().to_string();
    let arguments =
        ["redis-server", "--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir", text(&scratch.0)?];
    let mut redis = Child::start(&arguments, (!options.no_pin).then_some(options.load_core), |command| {
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
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether it is plain, where, and the path.
fn parse_url(url: &str) -> anyhow::Result<(bool, SocketAddr, String)> {
    let (scheme, rest) = url.split_once("://").context("a URL begins with http:// or https://")?;
    let (addr, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addr =
        addr.replace("localhost", "127.0.0.1").parse().context("a URL has an IP address and a port")?;
    Ok((scheme == "http", addr, format!("/{path}")))
}

fn core(options: &Options) -> Option<usize> {
    (!options.no_pin).then_some(options.server_core)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A folder for one run's files.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let name = format!("ssegate-load-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let log = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        let news = log.lines().filter(|line| line.contains(r#""WARN""#) || line.contains(r#""ERROR""#));
        news.take(SHOWN).for_each(|line| eprintln!("the server's log: {line}"));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How long a server may take until it is ready.
const START: Duration = Duration::from_secs(15);

/// Lines of trouble that are shown of a server's log.
const SHOWN: usize = 5;

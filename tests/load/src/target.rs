//! The server under load: an ssegate started for one run, one that runs already, or the floor; and where its
//! events come from.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::args::{Options, Peer, Plan, Via};
use crate::child::Child;
use crate::dial::Dial;
use crate::peer::Nchan;
use crate::publish::{Published, Road};
use crate::scratch::Scratch;
use crate::ssegate::{CHANNEL, PATH, Ssegate};

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
            (Some(server), _) => Self::ours(server, options, via, linger),
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
        let mut server = Child::start(&arguments, options.server_core(), |command| {
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
        let nchan = Nchan::start(options, scratch.path()?)?;
        let mut dial = Dial::new(nchan.public, PATH, options)?;
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

    fn ours(server: &Path, options: &Options, via: Via, linger: u32) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let ssegate = Ssegate::start(server, options, via, linger, scratch.path()?)?;
        Ok(Self {
            name: "ssegate".to_owned(),
            via: match via {
                Via::Push => "push",
                Via::Redis => "redis",
            },
            dial: Dial::new(ssegate.public, PATH, options)?,
            pid: ssegate.server.pid(),
            source: Some(Source::Road(ssegate.road)),
            _children: [Some(ssegate.server), ssegate.redis].into_iter().flatten().collect(),
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
            (None, Some(addr)) => Some(Road::Redis { addr, channel: CHANNEL.to_owned() }),
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

/// Whether it is plain, where, and the path.
fn parse_url(url: &str) -> anyhow::Result<(bool, SocketAddr, String)> {
    let (scheme, rest) = url.split_once("://").context("a URL begins with http:// or https://")?;
    let (addr, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addr =
        addr.replace("localhost", "127.0.0.1").parse().context("a URL has an IP address and a port")?;
    Ok((scheme == "http", addr, format!("/{path}")))
}

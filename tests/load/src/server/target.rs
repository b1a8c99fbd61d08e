//! The server under load: one started for one run, ours or a peer, one that runs already, or the floor; and where its
//! events come from.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::args::{Options, Peer, Plan, Via};
use crate::dial::Dial;
use crate::peer::Need;
use crate::publish::road::Road;
use crate::publish::{Pace, Published, Publisher};
use crate::server::child::Child;
use crate::server::scratch::Scratch;
use crate::server::ssegate;
use crate::server::start::{CHANNEL, Started};
use crate::server::usage::Processes;

/// A server, ended with what belongs to it when dropped.
pub struct Target {
    /// Its name in the report.
    pub name: String,
    /// How events reach it, in the report.
    pub via: &'static str,
    /// How clients reach it; they ask for [`CHANNEL`].
    pub dial: Dial,
    /// Its processes.
    pub processes: Processes,
    /// What clients of a channel ask for.
    pub path: fn(&str) -> String,
    source: Option<Source>,
    /// Dropped in this order.
    _children: Vec<Child>,
    _beside: Vec<Child>,
    _scratch: Option<Scratch>,
}

/// Where events come from.
enum Source {
    /// This tool publishes them.
    Road(Road),
    /// The server makes them itself, once it is told to.
    Floor(ChildStdin, BufReader<ChildStdout>),
}

/// Events that are being published.
pub enum Publishing {
    /// By this tool.
    Here(Publisher),
    /// By the server itself, as this thread is told.
    There(JoinHandle<anyhow::Result<Published>>),
}

impl Publishing {
    /// Whether all is sent.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Here(publisher) => publisher.is_over(),
            Self::There(thread) => thread.is_finished(),
        }
    }

    /// How it went.
    ///
    /// # Errors
    /// Where something could not be sent.
    pub fn end(self) -> anyhow::Result<Published> {
        match self {
            Self::Here(publisher) => publisher.end(),
            Self::There(thread) => thread.join().expect("the thread does not panic"),
        }
    }
}

impl Target {
    /// The server that the options name, with a route of this linger.
    ///
    /// # Errors
    /// Where it does not start, or there is none.
    pub fn new(options: &Options, via: Via, linger: u32) -> anyhow::Result<Self> {
        if let (None, Some(url)) = (&options.server, &options.url) {
            return Self::running(url, options);
        }
        let scratch = Scratch::new()?;
        let via_name = match via {
            Via::Push => "push",
            Via::Redis => "redis",
        };
        let started = ssegate::start(options, via, linger, scratch.path()?)?;
        Self::started(options, "ssegate", via_name, started, scratch)
    }

    /// The peer, for a scenario that needs this. `linger` is for what it is before.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn peer(options: &Options, peer: Peer, need: Need, linger: u32) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let started = peer.start(options, need, linger, scratch.path()?)?;
        let mut target = Self::started(options, peer.name(), peer.via(), started, scratch)?;
        target.dial.announces = false;
        Ok(target)
    }

    fn started(
        options: &Options,
        name: &str,
        via: &'static str,
        started: Started,
        scratch: Scratch,
    ) -> anyhow::Result<Self> {
        let Started { children, beside, public, path, road } = started;
        Ok(Self {
            name: name.to_owned(),
            via,
            dial: Dial::new(public, &path(CHANNEL), options)?,
            processes: children.iter().map(Child::pid).collect(),
            path,
            source: Some(Source::Road(road)),
            _children: children,
            _beside: beside,
            _scratch: Some(scratch),
        })
    }

    /// The floor, ready for the plan's clients.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn floor(options: &Options, plan: &Plan) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let own = own.to_str().context("the tool's own path is not UTF-8")?;
        let numbers = [
            ("--clients", plan.clients as u64),
            ("--rate", plan.rate.into()),
            ("--seconds", plan.seconds.into()),
            ("--linger", plan.linger.into()),
            ("--payload", plan.payload as u64),
        ];
        let numbers = numbers.map(|(name, number)| [name.to_owned(), number.to_string()]);
        let arguments: Vec<_> =
            [own, "floor-serve"].into_iter().chain(numbers.iter().flatten().map(String::as_str)).collect();
        let mut server = Child::start(&arguments, options.server_cores(), |command| {
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
            processes: server.pid().into(),
            path: |_| "/".to_owned(),
            source: Some(Source::Floor(stdin, stdout)),
            _children: vec![server],
            _beside: Vec::new(),
            _scratch: None,
        })
    }

    /// Whether it can publish more than once, as warming up takes.
    pub fn warms_up(&self) -> bool {
        matches!(self.source, Some(Source::Road(_)))
    }

    /// Begins to publish; the floor does so once.
    ///
    /// # Errors
    /// For a server that runs already where no --publish-url or --redis was given.
    pub fn publish(&mut self, pace: Pace) -> anyhow::Result<Publishing> {
        if let Some(Source::Floor(..)) = self.source
            && let Some(Source::Floor(stdin, stdout)) = self.source.take()
        {
            return Ok(Publishing::There(thread::spawn(move || tell_floor(stdin, stdout, &pace))));
        }
        Ok(Publishing::Here(Publisher::start(self.road()?, pace)))
    }

    /// The road to it, for those who publish as they like.
    ///
    /// # Errors
    /// For the floor, and for a server that runs already where no --publish-url or --redis was given.
    pub fn road(&self) -> anyhow::Result<Road> {
        match &self.source {
            Some(Source::Road(road)) => Ok(road.clone()),
            Some(Source::Floor(..)) => bail!("the floor publishes itself"),
            None => bail!("say how events reach the server: --publish-url or --redis"),
        }
    }

    fn running(url: &str, options: &Options) -> anyhow::Result<Self> {
        let (plain, addr, path) = parse_url(url)?;
        let road = match (&options.publish_url, options.redis) {
            (Some(url), _) => {
                let (_, addr, path) = parse_url(url)?;
                Some(Road::Post { addr, path })
            }
            (None, Some(addr)) => Some(Road::Redis { addr }),
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
            processes: options.pid.context("--url needs --pid: the server's process")?.into(),
            path: |channel| format!("/{channel}"),
            source: road.map(Source::Road),
            _children: Vec::new(),
            _beside: Vec::new(),
            _scratch: None,
        })
    }
}

fn tell_floor(
    mut stdin: ChildStdin,
    mut stdout: BufReader<ChildStdout>,
    pace: &Pace,
) -> anyhow::Result<Published> {
    writeln!(stdin, "go")?;
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let (late, took) = line.trim().split_once(' ').context("the floor does not tell its times")?;
    let (late, took) = (Duration::from_micros(late.parse()?), Duration::from_micros(took.parse()?));
    Ok(Published { events: pace.events, late, took })
}

/// Whether it is plain, where, and the path.
fn parse_url(url: &str) -> anyhow::Result<(bool, SocketAddr, String)> {
    let (scheme, rest) = url.split_once("://").context("a URL begins with http:// or https://")?;
    let (addr, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addr =
        addr.replace("localhost", "127.0.0.1").parse().context("a URL has an IP address and a port")?;
    Ok((scheme == "http", addr, format!("/{path}")))
}

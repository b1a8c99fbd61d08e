//! Servers to compare with, each set up to do the same work: one file for each.

mod centrifugo;
mod mercure;
mod nchan;
mod nginx;
mod pushpin;

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::args::{Coding, Options, Peer};
use crate::server::start::Started;

/// What a scenario asks of a server beyond sending events to those who are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Live,
    /// HTTP/2.
    Http2,
    /// To go on after `Last-Event-ID`.
    Return,
}

impl Peer {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nchan => "nginx+nchan",
            Self::Pushpin => "Pushpin",
            Self::Mercure => "Mercure",
            Self::Centrifugo => "Centrifugo",
            Self::Nginx => "nginx before ssegate",
        }
    }

    /// How events reach it.
    pub fn via(self) -> &'static str {
        match self {
            Self::Pushpin => "ZeroMQ",
            _ => "POST",
        }
    }

    /// Why it cannot do what a scenario needs, if it cannot.
    pub fn lacks(self, need: Need) -> Option<&'static str> {
        match (self, need) {
            (Self::Pushpin, Need::Http2) => Some("Pushpin speaks no HTTP/2"),
            (Self::Pushpin, Need::Return) => {
                Some("Pushpin leaves what was missed to the application behind it")
            }
            (Self::Centrifugo, Need::Return) => Some("Centrifugo's SSE knows no Last-Event-ID"),
            _ => None,
        }
    }

    /// Why it cannot send this coding, if it cannot.
    pub fn lacks_coding(self, coding: Coding) -> Option<&'static str> {
        match (self, coding) {
            (Self::Nchan | Self::Nginx, Coding::Gzip) => None,
            (Self::Nchan | Self::Nginx, Coding::Zstd) => Some("nginx has no zstd"),
            (Self::Nginx, Coding::Identity) => Some("nginx before ssegate is there for gzip"),
            (_, Coding::Identity) => None,
            (Self::Pushpin, _) => Some("Pushpin compresses no streams"),
            (Self::Mercure, _) => Some("Mercure leaves compression to the server around it"),
            (Self::Centrifugo, _) => Some("Centrifugo compresses no SSE"),
        }
    }

    /// Whether it is installed; if not, says how to get it.
    ///
    /// # Errors
    /// Where it is not.
    pub fn installed(self, options: &Options) -> anyhow::Result<()> {
        match self {
            Self::Nchan => nchan::installed(),
            Self::Nginx => nginx::installed(),
            Self::Pushpin => pushpin::installed(),
            Self::Mercure => built(&mercure::program(options)),
            Self::Centrifugo => built(&centrifugo::program(options)),
        }
    }

    /// Starts it for a scenario that needs this, with its files in `folder`. `linger` is for what it is before.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn start(self, options: &Options, need: Need, linger: u32, folder: &str) -> anyhow::Result<Started> {
        self.installed(options)?;
        match self {
            Self::Nchan => nchan::start(options, folder),
            Self::Pushpin => pushpin::start(options, folder),
            Self::Mercure => mercure::start(options, need, folder),
            Self::Centrifugo => centrifugo::start(options, folder),
            Self::Nginx => nginx::start(options, linger, folder),
        }
    }

    /// What it is exactly.
    pub fn version(self, options: &Options) -> String {
        match self {
            Self::Nchan => format!("nginx {}, nchan {}", package("nginx"), package("libnginx-mod-nchan")),
            Self::Nginx => package("nginx"),
            Self::Pushpin => format!("Pushpin {}, condure {}", package("pushpin"), package("condure")),
            Self::Mercure => module(&mercure::program(options), mercure::MODULE),
            Self::Centrifugo => module(&centrifugo::program(options), centrifugo::MODULE),
        }
    }
}

fn built(program: &str) -> anyhow::Result<()> {
    if !Path::new(program).exists() {
        bail!("{program} is missing: install Go 1.26 or newer, then run scripts/need.sh bench");
    }
    Ok(())
}

/// The version of a package of Debian.
fn package(name: &str) -> String {
    output("dpkg-query", &["-W", "-f", "${Version}", name])
}

/// The version of a module that a Go program was built of.
fn module(program: &str, module: &str) -> String {
    let told = output("go", &["version", "-m", program]);
    let line = told.lines().find(|line| line.contains(&format!("\t{module}\tv")));
    let version = line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("of unknown version");
    let go = told.lines().next().and_then(|line| line.rsplit(": ").next()).unwrap_or_default();
    format!("{module} {version}, {go}")
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

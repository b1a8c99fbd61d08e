//! A Mercure hub: the Go module of the same name, served by the main package in `tests/load/peers/mercure`. It has a
//! history, which is a file, only where clients come back: writing it takes most of its time.

use std::fs::File;
use std::process::Stdio;

use anyhow::Context as _;

use crate::args::Options;
use crate::peer::Need;
use crate::publish::road::Road;
use crate::server::cert::Certificate;
use crate::server::child::Child;
use crate::server::start::{Started, free_address, wait_for};

/// Where its program is.
pub fn program(options: &Options) -> String {
    options.peers_dir.join("mercure").display().to_string()
}

/// Starts it, with its files in `folder`.
///
/// # Errors
/// Where it does not start.
pub fn start(options: &Options, need: Need, folder: &str) -> anyhow::Result<Started> {
    let (public, publisher) = (free_address()?, free_address()?);
    let mut arguments =
        vec![program(options), format!("--listen={public}"), format!("--publish={publisher}")];
    if need == Need::Return {
        arguments.push(format!("--history={folder}/history.db"));
    }
    if let Some(Certificate { cert, key }) = Certificate::make(options, folder)? {
        arguments.extend([format!("--cert={cert}"), format!("--key={key}")]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let log = File::create(format!("{folder}/mercure.log")).context("no log for Mercure")?;
    let mut server = Child::start(&arguments, options.server_cores(), |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
    })?;
    wait_for(&mut server, public)?;
    wait_for(&mut server, publisher)?;
    let path = |channel: &str| format!("/.well-known/mercure?topic={channel}");
    Ok(Started {
        children: vec![server],
        beside: Vec::new(),
        public,
        path,
        road: Road::Mercure { addr: publisher },
    })
}

/// What it is built of.
pub const MODULE: &str = "github.com/dunglas/mercure";

//! `ssegate-load`: holds many clients, publishes to them, and tells what that costs the server.
//!
//! Reading order: [`args`] says what can be asked for; [`scenario`] runs it, one file for each, against a
//! [`target`](server::target), which is an [`ssegate`](server::ssegate) or a [`peer`] started here, a server that runs
//! already, or the [`floor`](server::floor). A [`fleet`] is one epoll loop over many [`client`]s, each of which undoes
//! TLS, [`http1`] or [`http2`] with its [`frames`], a coding in [`decode`], and [`sse`]; what arrives is checked in [`tally`]. [`publish`] sends
//! events, [`kafka`] records, both with a [`payload`], [`usage`](server::usage) reads the server's CPU time and memory, [`report`] prints. The [`suite`]
//! runs everything, each step in a process of its own.

mod args;
mod client;
mod decode;
mod dial;
mod fleet;
mod frames;
mod http1;
mod http2;
mod kafka;
mod payload;
mod peer;
mod publish;
mod report;
mod scenario;
mod server;
mod simulate;
mod sse;
mod suite;
mod tally;
mod wire;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::report::Report;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    raise_descriptor_limit();
    if let Command::FloorServe(plan) = &args.command {
        return server::floor::serve(plan);
    }
    if !args.options.no_pin {
        server::child::pin_self(args.options.load_core)?;
    }
    if let Command::ScalePart | Command::AttackPart(_) = &args.command {
        return scenario::run(&args, &mut Report::new(&args.options));
    }
    if let Command::Suite(suite) = &args.command {
        return suite::run(suite, &args.options);
    }
    let mut report = Report::new(&args.options);
    // What was measured before something failed is not lost.
    let outcome = scenario::run(&args, &mut report);
    if let Err(error) = &outcome {
        report.note(format!("{error:#}"));
    }
    print!("{}", report.markdown());
    if let Some(path) = &args.options.json {
        std::fs::write(path, report.json())?;
    }
    outcome
}

/// Each client is a descriptor.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it stays low, opening the clients fails and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

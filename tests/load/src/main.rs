//! `ssegate-load`: holds many clients, publishes to them, and tells what that costs the server.
//!
//! Reading order: [`args`] says what can be asked for; [`scenario`] runs it against a [`target`], which is an
//! [`ssegate`] or a [`peer`] started here, a server that runs already, or the [`floor`]. A [`fleet`] is one
//! epoll loop over many [`client`]s, each of which undoes TLS, [`http1`] or [`http2`], and [`sse`]; what arrives
//! is checked in [`tally`]. [`publish`] sends the events, [`usage`] reads the server's CPU time and memory,
//! [`report`] prints. What was sent before a client came is another matter: [`resume`] from memory, [`history`] and
//! [`herd`] from a [`kafka`], and [`keyed`].

mod args;
mod child;
mod client;
mod dial;
mod fleet;
mod floor;
mod herd;
mod history;
mod http1;
mod http2;
mod kafka;
mod keyed;
mod peer;
mod publish;
mod report;
mod resume;
mod scenario;
mod scratch;
mod sse;
mod ssegate;
mod tally;
mod target;
mod usage;
mod wire;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::report::Report;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    raise_descriptor_limit();
    if let Command::FloorServe(plan) = &args.command {
        return floor::serve(plan);
    }
    if !args.options.no_pin {
        child::pin_self(args.options.load_core)?;
    }
    let mut report = Report::new(args.options.server.as_deref());
    // What was measured before something failed is not lost.
    let outcome = scenario::run(&args, &mut report);
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

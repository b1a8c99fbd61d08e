//! Everything in one run that ends by itself: each step is this tool again in a process of its own, with a limit of
//! time. One that fails is noted, and the rest goes on.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};
use serde::Serialize;

use crate::args::{Options, Peer, Suite};
use crate::report::Report;
use crate::report::plot::plot;
use crate::report::targets::{Reached, reached, table};
use crate::server::child::Child;
use crate::server::usage::Processes;

/// Runs all steps, and writes what they found.
///
/// # Errors
/// Where there is no server of ours, or nowhere to write to. A step that fails is none.
pub fn run(suite: &Suite, options: &Options) -> anyhow::Result<()> {
    if !options.server()?.exists() {
        bail!("there is no {}: cargo build --release", options.server()?.display());
    }
    fs::create_dir_all(&suite.out)?;
    // What a step leaves behind becomes ours, to be ended.
    set_child_subreaper(Some(getpid()))?;
    let mut report = if suite.go_on { begun(&suite.out)? } else { Report::new(options) };
    let mut peers = options.peer.clone();
    peers.retain(|peer| match peer.installed(options) {
        Ok(()) => true,
        Err(error) => {
            report.note(format!("{} is left out: {error:#}", peer.name()));
            false
        }
    });
    let mut steps: Vec<_> = STEPS.iter().collect();
    steps.retain(|step| suite.only.is_empty() || suite.only.iter().any(|part| step.name.contains(part)));
    steps.retain(|step| !report.steps.iter().any(|done| done == step.name));
    for step in steps {
        let (began, rows) = (Instant::now(), report.rows.len());
        if let Err(error) = step.run(suite, options, &peers, &mut report) {
            report.note(format!("{}: {error:#}", step.name));
        }
        if report.rows.len() > rows {
            report.steps.push(step.name.to_owned());
        }
        end_what_is_left();
        eprintln!("= {} took {:.0?}", step.name, began.elapsed());
        // After each, so that a run that is ended by hand is not lost.
        write(&suite.out, &report)?;
    }
    print!("{}", fs::read_to_string(suite.out.join("table.md"))?);
    Ok(())
}

/// What figures.json holds.
#[derive(Serialize)]
struct Figures<'a> {
    targets: Vec<Reached>,
    #[serde(flatten)]
    report: &'a Report,
}

/// What a run that was ended has written.
fn begun(out: &Path) -> anyhow::Result<Report> {
    let path = out.join("figures.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not of this tool", path.display()))
}

fn write(out: &Path, report: &Report) -> anyhow::Result<()> {
    let targets = reached(report);
    fs::write(out.join("table.md"), format!("{}\n{}", table(&targets), report.markdown()))?;
    fs::write(out.join("bench.svg"), plot(report))?;
    fs::write(out.join("figures.json"), serde_json::to_string_pretty(&Figures { targets, report })?)?;
    Ok(())
}

/// A run of the tool.
struct Step {
    /// For people, and for --only.
    name: &'static str,
    /// Scenario and options.
    full: &'static str,
    /// What is added for a quick run; later options win.
    quick: &'static str,
    /// Which peers take part.
    beside: Beside,
    /// For each server that takes part, in seconds.
    limit: u64,
}

#[derive(Clone, Copy)]
enum Beside {
    Nobody,
    Nchan,
    /// Both that have gzip from nginx.
    Nginx,
    /// All that send streams of their own.
    All,
}

impl Step {
    fn run(
        &self,
        suite: &Suite,
        options: &Options,
        peers: &[Peer],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let json = suite.out.join("step.json");
        let _ = fs::remove_file(&json);
        let only = |some: &[Peer]| peers.iter().copied().filter(|peer| some.contains(peer)).collect();
        let peers: Vec<_> = match self.beside {
            Beside::Nobody => Vec::new(),
            Beside::Nchan => only(&[Peer::Nchan]),
            Beside::Nginx => only(&[Peer::Nchan, Peer::Nginx]),
            Beside::All => only(&[Peer::Nchan, Peer::Pushpin, Peer::Mercure, Peer::Centrifugo]),
        };
        let arguments = self.arguments(suite, options, &peers, &json)?;
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        // Each way that ssegate is fed counts, too.
        let limit = Duration::from_secs(self.limit * (peers.len() as u64 + 2));
        let mut tool = Child::start(&arguments, &[], |command| command.stdout(Stdio::null()))?;
        let deadline = Instant::now() + limit;
        let ended = loop {
            match tool.ended()? {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => sleep(LOOK),
            }
        };
        if ended.is_none() {
            tool.kill()?;
        }
        if let Ok(text) = fs::read_to_string(&json) {
            report.absorb(serde_json::from_str(&text).context("what the step wrote cannot be read")?);
            fs::remove_file(&json)?;
        } else if let Some(status) = ended {
            bail!("it ended without figures ({status})");
        }
        if ended.is_none() {
            bail!("ended after {limit:?}");
        }
        Ok(())
    }

    fn arguments(
        &self,
        suite: &Suite,
        options: &Options,
        peers: &[Peer],
        json: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        let mut arguments = vec![text(&std::env::current_exe()?)?];
        arguments.extend(self.full.split_whitespace().map(str::to_owned));
        if suite.quick {
            arguments.extend(self.quick.split_whitespace().map(str::to_owned));
        }
        let cores: Vec<_> = options.server_core.iter().map(usize::to_string).collect();
        let names: Vec<_> = peers.iter().map(|peer| format!("{peer:?}").to_lowercase()).collect();
        let all = [
            ("--server", text(options.server()?)?),
            ("--peers-dir", text(&options.peers_dir)?),
            ("--kafka-classpath", text(&options.kafka_classpath)?),
            ("--server-core", cores.join(",")),
            ("--load-core", options.load_core.to_string()),
            ("--peer", names.join(",")),
            ("--json", text(json)?),
        ];
        for (name, value) in all.into_iter().filter(|(_, value)| !value.is_empty()) {
            arguments.extend([name.to_owned(), value]);
        }
        Ok(arguments)
    }
}

/// Ends the servers that a step which was ended itself could not end.
fn end_what_is_left() {
    let left = Processes::from(std::process::id()).started();
    for pid in left.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = kill_process(pid, Signal::KILL);
    }
    while matches!(wait(WaitOptions::empty()), Ok(Some(_))) {}
}

/// Between two looks whether a step has ended.
const LOOK: Duration = Duration::from_millis(100);

const fn step(
    name: &'static str,
    full: &'static str,
    quick: &'static str,
    beside: Beside,
    limit: u64,
) -> Step {
    Step { name, full, quick, beside, limit }
}

/// All steps. A limit is some three times what the step takes.
const STEPS: &[Step] = &[
    step("floor", "floor", "--seconds 3", Beside::Nobody, 90),
    step("sparse", "sparse --via redis,push", "--clients 500 --seconds 3", Beside::All, 120),
    step("dense", "dense --via redis,push", "--clients 50 --seconds 3", Beside::All, 150),
    step(
        "dense-linger-0",
        "dense --linger 0 --via redis,push",
        "--clients 50 --seconds 3",
        Beside::Nchan,
        150,
    ),
    step("sparse-1k", "sparse --clients 1000 --via redis", "--clients 100 --seconds 3", Beside::Nchan, 90),
    step(
        "sparse-1k-gzip",
        "sparse --clients 1000 --coding gzip --level 1 --via redis",
        "--clients 100 --seconds 3",
        Beside::Nginx,
        90,
    ),
    step(
        "sparse-1k-zstd",
        "sparse --clients 1000 --coding zstd --via redis",
        "--clients 100 --seconds 3",
        Beside::Nobody,
        90,
    ),
    step(
        "dense-gzip",
        "dense --seconds 5 --coding gzip --via redis",
        "--clients 50 --seconds 3",
        Beside::Nobody,
        60,
    ),
    step(
        "dense-zstd",
        "dense --seconds 5 --coding zstd --via redis",
        "--clients 50 --seconds 3",
        Beside::Nobody,
        60,
    ),
    // As many clients as nginx can follow with: behind, it neither costs nor takes what it does otherwise.
    step("dense-30", "dense --clients 30 --seconds 10 --via redis", "--seconds 3", Beside::Nchan, 90),
    step(
        "dense-30-gzip",
        "dense --clients 30 --seconds 10 --coding gzip --level 1 --via redis",
        "--seconds 3",
        Beside::Nginx,
        90,
    ),
    step("rooms", "rooms --via redis,push", "--clients 500 --rate 500 --seconds 3", Beside::All, 150),
    step("idle", "idle --rounds 1 --seconds 10", "--clients 500 --seconds 2", Beside::All, 240),
    step("streams", "streams", "--clients 1000", Beside::All, 120),
    step("connect-full", "connect --concurrency 8", "--connects 300", Beside::All, 60),
    step("connect-resumed", "connect --resume --concurrency 8", "--connects 300", Beside::All, 60),
    step("connect-rsa-full", "connect --cert rsa --concurrency 8", "--connects 300", Beside::All, 60),
    step(
        "connect-rsa-resumed",
        "connect --cert rsa --resume --concurrency 8",
        "--connects 300",
        Beside::Nchan,
        60,
    ),
    step("connect-x25519-full", "connect --kx x25519 --concurrency 8", "--connects 300", Beside::Nchan, 60),
    step(
        "connect-x25519-resumed",
        "connect --kx x25519 --resume --concurrency 8",
        "--connects 300",
        Beside::Nchan,
        60,
    ),
    step(
        "connect-x25519-rsa-full",
        "connect --kx x25519 --cert rsa --concurrency 8",
        "--connects 300",
        Beside::Nchan,
        60,
    ),
    step(
        "sparse-http2",
        "sparse --h2 --streams-per-connection 100 --via redis",
        "--clients 500 --seconds 3",
        Beside::All,
        120,
    ),
    step("return", "return", "--clients 500", Beside::All, 150),
    step(
        "scale",
        "scale --parts clients,streams,feeds --seconds 6",
        "--clients 600 --seconds 2",
        Beside::Nobody,
        240,
    ),
    step("slow", "slow --clients 1000 --rate 200 --linger 50", "--clients 50 --seconds 3", Beside::All, 150),
    step("attack", "attack", "--clients 20 --seconds 1", Beside::Nobody, 240),
    step("delay", "delay", "--clients 50 --seconds 4", Beside::Nobody, 60),
    step("workers", "workers --clients 800", "--seconds 3", Beside::Nobody, 60),
    step("filters", "filters", "--clients 50 --rate 200 --seconds 3", Beside::Nobody, 90),
    step("snapshots", "snapshots", "--clients 50 --events 1000", Beside::Nobody, 90),
    step("resume", "resume", "--events 20000", Beside::Nobody, 90),
    step("history", "history", "--events 50000", Beside::Nobody, 120),
    step("herd", "herd --no-pin", "--clients 100 --events 2000", Beside::Nobody, 150),
    step(
        "keyed-10k",
        "keyed --clients 10000 --slots 4",
        "--clients 500 --rate 500 --seconds 3",
        Beside::Nobody,
        120,
    ),
    step(
        "keyed-100k-http2",
        "keyed --no-pin --h2 --streams-per-connection 100 --slots 4",
        "--clients 2000 --rate 500 --seconds 3",
        Beside::Nobody,
        180,
    ),
];

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    #[test]
    fn the_tool_knows_what_each_step_asks_for() {
        for step in STEPS {
            for options in [step.full.to_owned(), format!("{} {}", step.full, step.quick)] {
                let arguments = ["ssegate-load"].into_iter().chain(options.split_whitespace());
                Args::try_parse_from(arguments).unwrap_or_else(|error| panic!("{}: {error}", step.name));
            }
        }
    }
}

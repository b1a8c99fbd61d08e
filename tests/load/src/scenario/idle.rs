//! Clients that get nothing but keepalives. They come several times, so that what stays behind shows.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::fleet::Fleet;
use crate::report::noise::Noise;
use crate::scenario::{MIB, SETTLE, note};
use crate::server::target::Target;
use crate::server::usage::Watch;

/// Clients that get no events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idle {
    pub server: String,
    pub protocol: String,
    pub clients: usize,
    pub rounds: u32,
    pub empty_mib: f64,
    pub pss_kib_per_client: f64,
    pub rss_kib_per_client: f64,
    /// With all of the first round there.
    pub full_mib: f64,
    /// After they had left.
    pub left_mib: f64,
    pub again_kib_per_client: f64,
    pub cpu_us_per_client_second: f64,
    pub ended: BTreeMap<String, u64>,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options, target: Target) -> anyhow::Result<Idle> {
    let (clients, hold) = (options.clients.unwrap_or(15_000), options.seconds.unwrap_or(20));
    note(&format!("idle: {clients} clients of {}", target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    thread::sleep(SETTLE);
    let empty = target.processes.memory()?;
    fleet.open(clients, options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;
    let full = target.processes.memory()?;
    let streams = fleet.streams();
    let watch = Watch::begin(target.processes.clone(), &options.server_core)?;
    fleet.read_until(Duration::from_secs(hold.into()), |_| false)?;
    let spent = watch.end()?;
    let (mut left, mut again) = (full, full);
    for _ in 1..options.rounds {
        fleet.close();
        thread::sleep(LEFT);
        left = target.processes.memory()?;
        fleet.open(clients, options.concurrency)?;
        fleet.read_until(SETTLE, |_| false)?;
        again = target.processes.memory()?;
    }
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / streams.max(1) as f64 / 1024.0;
    Ok(Idle {
        server: target.name.clone(),
        protocol: fleet.protocol(),
        clients: streams,
        rounds: options.rounds.max(1),
        empty_mib: empty.pss as f64 / MIB,
        pss_kib_per_client: each(full.pss, empty.pss),
        rss_kib_per_client: each(full.rss, empty.rss),
        full_mib: full.pss as f64 / MIB,
        left_mib: left.pss as f64 / MIB,
        again_kib_per_client: each(again.pss, empty.pss),
        cpu_us_per_client_second: spent.cpu.as_secs_f64() * 1e6
            / streams.max(1) as f64
            / spent.elapsed.as_secs_f64(),
        ended: fleet.tally.ended.clone(),
        noise: Noise::of(&spent),
    })
}

/// How long a server gets to put away clients that left.
const LEFT: Duration = Duration::from_secs(4);

pub const HEAD: &str = "| idle | by | clients | memory a client (PSS) | of nchan's | empty, all, after they left | a client, last round | CPU a client and second | ended | core: server / others / tool |";

impl Idle {
    /// Its line of the table.
    pub fn line(&self, ratio: &str) -> String {
        let Self { server, protocol, clients, rounds, empty_mib, full_mib, left_mib, noise, .. } = self;
        let Self { pss_kib_per_client, again_kib_per_client, cpu_us_per_client_second, .. } = self;
        let ended: u64 = self.ended.values().sum();
        format!(
            "| {server} | {protocol} | {clients} | {pss_kib_per_client:.2} KiB | {ratio} \
             | {empty_mib:.1}, {full_mib:.0}, {left_mib:.0} MiB | {again_kib_per_client:.2} KiB (round {rounds}) \
             | {cpu_us_per_client_second:.1} µs | {ended} | {} |",
            noise.cells()
        )
    }
}

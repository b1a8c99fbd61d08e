//! Some of the clients stop reading: what the server and the kernel hold for each of them, whether the server ends it,
//! and what the others notice.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::fleet::Fleet;
use crate::publish::{Pace, Publisher};
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::fanout::readers;
use crate::scenario::{GRACE, MIB, SETTLE, note};
use crate::server::sockets::{Held, held};
use crate::server::target::Target;
use crate::server::usage::Watch;

/// Clients of which some do not read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Slow {
    pub server: String,
    pub protocol: String,
    pub via: String,
    pub clients: usize,
    pub rate: u32,
    pub stalled: usize,
    /// Of them, how many the server ended.
    pub cut: usize,
    /// For each, at its peak: of the server's memory, what it grew by beyond its peak before, and of the kernel's, at
    /// the server's end.
    pub process_kib: f64,
    pub kernel_kib: f64,
    pub before_mib: f64,
    pub peak_mib: f64,
    /// Of the others, before and while some do not read.
    pub quiet_ms: [f64; 3],
    pub meanwhile_ms: [f64; 3],
    /// Of the others.
    pub checked: Checked,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options, target: Target) -> anyhow::Result<Slow> {
    let (clients, rate) = (options.clients.unwrap_or(200), options.rate.unwrap_or(1_000));
    let phase = Duration::from_secs(options.seconds.unwrap_or(15).into());
    note(&format!("slow: {clients} clients of {}, every tenth stops reading", target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    fleet.open_for(readers(&target, clients, 1), options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;
    let pace = Pace { rate, first: 0, events: u64::MAX, feeds: 1, payload: options.payload };
    let publisher = Publisher::start(target.road()?, pace);
    // Long enough for what a server keeps of events to have its size; its memory goes up and down even so.
    let (began, mut before) = (Instant::now(), 0);
    while began.elapsed() < phase && !publisher.is_over() {
        fleet.read_until(LOOK, |_| false)?;
        before = before.max(target.processes.memory()?.pss);
    }
    let quiet = quantiles(&fleet.tally.latency);
    fleet.tally.begin();

    let watch = Watch::begin(target.processes.clone(), &options.server_core)?;
    let stalled = fleet.stall(clients / 10);
    let ports: HashSet<_> =
        stalled.iter().filter_map(|socket| Some(socket.local_addr().ok()?.port())).collect();
    let (mut process, mut kernel, mut now) = (0, 0, Held::default());
    while watch.elapsed() < phase && !publisher.is_over() {
        fleet.read_until(LOOK, |_| false)?;
        now = held(target.dial.addr, &ports)?;
        process = process.max(target.processes.memory()?.pss.saturating_sub(before));
        kernel = kernel.max(now.bytes);
    }
    let (spent, meanwhile) = (watch.end()?, quantiles(&fleet.tally.latency));
    let published = publisher.end()?;
    let mut left = u64::MAX;
    let began = Instant::now();
    while left > 0 && began.elapsed() < GRACE {
        fleet.read_until(LOOK, |_| false)?;
        left = fleet.missing(published.events);
    }
    let each = |bytes: u64| bytes as f64 / stalled.len().max(1) as f64 / 1024.0;
    Ok(Slow {
        server: target.name.clone(),
        protocol: fleet.protocol(),
        via: target.via.to_owned(),
        clients,
        rate,
        stalled: stalled.len(),
        cut: stalled.len() - now.open,
        process_kib: each(process),
        kernel_kib: each(kernel),
        before_mib: before as f64 / MIB,
        peak_mib: (before + process) as f64 / MIB,
        quiet_ms: quiet,
        meanwhile_ms: meanwhile,
        checked: Checked::of(&fleet.tally, left),
        noise: Noise::of(&spent),
    })
}

/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(500);

pub const HEAD: &str = "| slow | by | clients, stalled | events/s | a stalled client: process + kernel | ended by the server | memory before, peak | others: p50, p99, max before | meanwhile | delivered | wrong | core: server / others / tool |";

impl Slow {
    /// Memory of each stalled client, the kernel's included.
    pub fn held_kib(&self) -> f64 {
        self.process_kib + self.kernel_kib
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { server, protocol, via, clients, rate, stalled, cut, process_kib, kernel_kib, .. } = self;
        let Self { before_mib, peak_mib, quiet_ms, meanwhile_ms, checked, noise, .. } = self;
        format!(
            "| {server} | {via}; {protocol} | {clients}, {stalled} | {rate} | {process_kib:.0} + {kernel_kib:.0} KiB \
             | {cut} | {before_mib:.0}, {peak_mib:.0} MiB | {} | {} | {} | {} |",
            millis(quiet_ms),
            millis(meanwhile_ms),
            checked.cells(),
            noise.cells()
        )
    }
}

//! All clients lose their connections and come back at once, each with the id that it read last, while events go on.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::fleet::Fleet;
use crate::publish::{Pace, Publisher};
use crate::report::checked::Checked;
use crate::report::noise::Noise;
use crate::scenario::fanout::readers;
use crate::scenario::{GRACE, MIB, SETTLE, note};
use crate::server::target::Target;
use crate::server::usage::Watch;
use crate::sse::Subscriber;

/// The return of all clients, to what memory holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Return {
    pub server: String,
    pub protocol: String,
    pub via: String,
    pub clients: usize,
    pub rate: u32,
    /// From the cut until the last stream stood, and until the last client had all that was sent before and the next
    /// event.
    pub all_stand_s: f64,
    pub all_live_s: f64,
    pub cpu_us_per_client: f64,
    pub before_mib: f64,
    pub after_mib: f64,
    pub checked: Checked,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options, target: Target) -> anyhow::Result<Return> {
    let (clients, rate) = (options.clients.unwrap_or(5_000), options.rate.unwrap_or(10));
    note(&format!("return: {clients} clients of {}", target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    fleet.open_for(readers(&target, clients, 1), options.concurrency)?;
    let pace = Pace { rate, first: 0, events: u64::MAX, feeds: 1, payload: options.payload };
    let publisher = Publisher::start(target.road()?, pace);
    fleet.read_until(BEFORE, |_| publisher.is_over())?;
    let before = target.processes.memory()?;

    let (watch, began) = (Watch::begin(target.processes.clone(), &options.server_core)?, Instant::now());
    let (was, gone) = fleet.into_subscribers();
    let mut fleet = Fleet::new(target.dial.clone())?;
    fleet.open_for(gone.into_iter().map(Subscriber::again).collect(), clients.min(AT_ONCE))?;
    let stand = began.elapsed();
    let until = publisher.sent() + 1;
    while fleet.missing(until) > 0 && began.elapsed() < PATIENCE && !publisher.is_over() {
        fleet.read_until(LOOK, |_| false)?;
    }
    let (live, spent) = (began.elapsed(), watch.end()?);
    let after = target.processes.memory()?;
    fleet.read_until(SETTLE, |_| publisher.is_over())?;
    let published = publisher.end()?;
    let (owed, before_that) = (published.events * clients as u64, was.delivered);
    fleet.read_until(GRACE, |tally| tally.delivered + before_that >= owed)?;
    let mut checked = Checked::of(&fleet.tally, fleet.missing(published.events));
    checked.repeated += was.repeated;
    checked.disordered += was.disordered;
    Ok(Return {
        server: target.name.clone(),
        protocol: fleet.protocol(),
        via: target.via.to_owned(),
        clients,
        rate,
        all_stand_s: stand.as_secs_f64(),
        all_live_s: live.as_secs_f64(),
        cpu_us_per_client: spent.cpu.as_secs_f64() * 1e6 / clients as f64,
        before_mib: before.pss as f64 / MIB,
        after_mib: after.pss as f64 / MIB,
        checked,
        noise: Noise::of(&spent),
    })
}

/// How long all are live before they are cut.
const BEFORE: Duration = Duration::from_secs(3);

/// Between two looks whether all are live again.
const LOOK: Duration = Duration::from_millis(10);

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections on the way at a time. More than servers let wait, 4,096, would measure how the kernel tries again.
const AT_ONCE: usize = 4_000;

pub const HEAD: &str = "| return | by | clients | all stand | all live again | of nchan's | CPU a client | memory before, after | delivered again | wrong | core: server / others / tool |";

impl Return {
    /// Its line of the table.
    pub fn line(&self, ratio: &str) -> String {
        let Self { server, protocol, via, clients, all_stand_s, all_live_s, cpu_us_per_client, .. } = self;
        let Self { before_mib, after_mib, checked, noise, .. } = self;
        format!(
            "| {server} | {via}; {protocol} | {clients} | {all_stand_s:.2} s | {all_live_s:.2} s | {ratio} \
             | {cpu_us_per_client:.0} µs | {before_mib:.0}, {after_mib:.0} MiB | {} | {} |",
            checked.cells(),
            noise.cells()
        )
    }
}

//! Clients that come at once, and are each given a snapshot of many keys: until the last has all of it, and what that holds.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::publish::road::Road;
use crate::publish::{Pace, Publisher};
use crate::report::checked::Checked;
use crate::report::noise::Noise;
use crate::scenario::{GRACE, LOOK, MIB, SETTLE, note};
use crate::server::scratch::Scratch;
use crate::server::ssegate::{PATH, Serving};
use crate::server::start::CHANNEL;
use crate::server::usage::{Processes, Watch};

/// Clients with a snapshot each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshots {
    pub protocol: String,
    pub clients: usize,
    pub keys: u64,
    /// Until the last client had its answer's head, and until the last had every key.
    pub answered_in_s: f64,
    pub all_in_s: f64,
    pub cpu_us_per_snapshot: f64,
    /// With the snapshot's source and one client, and the most of it meanwhile.
    pub before_mib: f64,
    pub most_mib: f64,
    /// What the two differ by.
    pub pss_kib_per_client: f64,
    pub checked: Checked,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Snapshots> {
    let (clients, keys) = (options.clients.unwrap_or(1_000), options.events.unwrap_or(10_000));
    note(&format!("snapshots: {clients} clients, {keys} keys each"));
    let scratch = Scratch::new()?;
    let serving = Serving::start(options, scratch.path()?, &configuration(keys))?;
    let processes = Processes::from(serving.server.pid());
    // As long as nobody reads a feed there is none.
    let mut first = Fleet::new(Dial::new(serving.public, PATH, options)?)?;
    first.open(1, 1)?;
    let road = Road::Post { addr: serving.admin, path: "/publish/{}".to_owned() };
    let pace = Pace { rate: FILLING, first: 0, events: keys, feeds: 1, payload: options.payload };
    let publisher = Publisher::of_symbols(road, pace, keys);
    first.read_until(Duration::MAX, |_| publisher.is_over())?;
    publisher.end()?;
    first.read_until(GRACE, |tally| tally.delivered >= keys)?;
    first.read_until(SETTLE, |_| false)?;

    let before = processes.memory()?.pss;
    // Each of them stands once it is answered, so that all are there before the first has everything.
    let dial = Dial { announces: false, ..Dial::new(serving.public, PATH, options)? };
    let mut fleet = Fleet::new(dial)?;
    let watch = Watch::begin(processes.clone(), &options.server_core)?;
    let began = Instant::now();
    fleet.open(clients, clients)?;
    let (answered, streams) = (began.elapsed(), fleet.streams());
    let (expected, mut most) = (keys * streams as u64, before);
    while fleet.tally.delivered < expected && began.elapsed() < PATIENCE {
        most = most.max(processes.memory()?.pss);
        fleet.read_until(LOOK, |tally| tally.delivered >= expected)?;
    }
    let (all, spent) = (began.elapsed(), watch.end()?);
    Ok(Snapshots {
        protocol: fleet.protocol(),
        clients: streams,
        keys,
        answered_in_s: answered.as_secs_f64(),
        all_in_s: all.as_secs_f64(),
        cpu_us_per_snapshot: spent.cpu.as_secs_f64() * 1e6 / streams.max(1) as f64,
        before_mib: before as f64 / MIB,
        most_mib: most as f64 / MIB,
        pss_kib_per_client: most.saturating_sub(before) as f64 / streams.max(1) as f64 / 1024.0,
        checked: Checked::of(&fleet.tally, fleet.missing(keys)),
        noise: Noise::of(&spent),
    })
}

fn configuration(keys: u64) -> String {
    format!(
        "upstreams: {{ source: {{ push: {{}} }} }}
routes:
  - path: {PATH}
    from: {{ upstream: source, channel: {CHANNEL} }}
    snapshot: {{ by: \"{{event.symbol}}\", max_keys: {keys} }}
"
    )
}

/// Events a second while the keys are made.
const FILLING: u32 = 10_000;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub const HEAD: &str = "| snapshots | clients × keys | all answered | the last has all | CPU a snapshot | memory before, at most | of it a client | delivered | wrong | core: server / others / tool |";

impl Snapshots {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { protocol, clients, keys, answered_in_s, all_in_s, cpu_us_per_snapshot, .. } = self;
        let Self { before_mib, most_mib, pss_kib_per_client, checked, noise, .. } = self;
        format!(
            "| {protocol} | {clients} × {keys} | {answered_in_s:.1} s | {all_in_s:.1} s | {cpu_us_per_snapshot:.0} µs \
             | {before_mib:.1}, {most_mib:.1} MiB | {pss_kib_per_client:.1} KiB | {} | {} |",
            checked.cells(),
            noise.cells()
        )
    }
}

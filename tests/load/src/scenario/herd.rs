//! The return of many clients at once, each with an id of its own, to a topic that memory no longer holds: what is read
//! of Kafka for them, and what others on the same route notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use rustix::process::nice;
use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::filled::{Filled, ends, source};
use crate::scenario::history::PATIENCE;
use crate::scenario::{LOOK, MIB, SETTLE, note};
use crate::server::ssegate::{PATH, Serving};
use crate::server::usage::{Processes, Watch};
use crate::sse::{Place, Subscriber, Trail};
use crate::tally::Seen;

/// The return of many clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Herd {
    pub protocol: String,
    pub source: String,
    pub clients: usize,
    pub checked: Checked,
    pub seconds: f64,
    pub per_second: f64,
    pub read_mib: f64,
    /// What was sent before they came, and what came to it meanwhile.
    pub range_mib: f64,
    pub grown_mib: f64,
    pub live: usize,
    /// Of the others, before and while the many come back.
    pub quiet_ms: [f64; 3],
    pub meanwhile_ms: [f64; 3],
    pub base_mib: f64,
    pub peak_mib: f64,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Herd> {
    let (clients, events) = (options.clients.unwrap_or(1_000), options.events.unwrap_or(10_000));
    let (partitions, rate) = (options.partitions.unwrap_or(1), options.rate.unwrap_or(20));
    note(&format!("herd: {clients} clients come back to {events} events in {partitions} partitions"));
    let filled = Filled::new(options, partitions, events)?;
    let places = walk(&filled.serve(options)?, options, events, clients)?;
    // Anew, so that it remembers nothing of that. The ids mean the same to it.
    let serving = filled.serve(options)?;
    let Filled { kafka, topic, scratch: _scratch, .. } = filled;

    let (pid, server) = (serving.server.pid(), Processes::from(serving.server.pid()));
    let dial = Dial::new(serving.public, PATH, options)?;
    let (range, sent) = (topic.bytes, topic.sent.clone());
    let live = Live::start(dial.clone(), ends(events, partitions))?;
    let pacing = topic.pace(rate);
    thread::sleep(SETTLE);
    live.next_phase();
    thread::sleep(QUIET);
    let (base, before) = (server.memory()?, kafka.read_by(pid)?);
    let mut herd = Fleet::new(dial)?;
    live.next_phase();
    let watch = Watch::begin(pid, &options.server_core)?;
    herd.open_for(places.into_iter().map(Subscriber::after).collect(), clients)?;
    let until = ends(sent.load(Ordering::Relaxed), partitions);
    let (mut peak, mut left) = (base.pss, u64::MAX);
    while left > 0 && watch.elapsed() < PATIENCE {
        herd.read_until(LOOK, |_| false)?;
        peak = peak.max(server.memory()?.pss);
        left = herd.subscribers().map(|one| one.missing(&until)).sum();
    }
    let spent = watch.end()?;
    live.next_phase();
    let read = kafka.read_by(pid)?.saturating_sub(before);
    let [_, quiet, meanwhile] = live.end()?;
    let (topic, _) = pacing.end()?;
    let seconds = spent.elapsed.as_secs_f64();
    Ok(Herd {
        protocol: herd.protocol(),
        source: source(options, partitions),
        clients,
        checked: Checked::of(&herd.tally, left),
        seconds,
        per_second: herd.tally.delivered as f64 / seconds,
        read_mib: read as f64 / MIB,
        range_mib: range as f64 / MIB,
        grown_mib: (topic.bytes - range) as f64 / MIB,
        live: LIVE,
        quiet_ms: quantiles(&quiet),
        meanwhile_ms: quantiles(&meanwhile),
        base_mib: base.pss as f64 / MIB,
        peak_mib: peak as f64 / MIB,
        noise: Noise::of(&spent),
    })
}

/// Reads the topic once, and notes so many places in it.
fn walk(serving: &Serving, options: &Options, events: u64, places: usize) -> anyhow::Result<Vec<Place>> {
    let mut fleet =
        Fleet::new(Dial::new(serving.public, "/all", &Options { h2: false, ..options.clone() })?)?;
    let trail = Trail { stride: (events / places as u64).max(1), places: Vec::new(), events: 0 };
    let mut walker = Subscriber::default();
    walker.trail = Some(Box::new(trail));
    fleet.open_for(vec![walker], 1)?;
    fleet.read_until(PATIENCE, |tally| tally.delivered >= events)?;
    let (_, walkers) = fleet.into_subscribers();
    let trail = walkers.into_iter().next().and_then(|walker| walker.trail).context("nobody walked")?;
    Ok(trail.places.into_iter().take(places).collect())
}

/// The others, in a thread of their own, and what they get in each phase: while things settle, while it is quiet, and
/// while the many come back.
struct Live {
    phase: Arc<AtomicUsize>,
    thread: JoinHandle<anyhow::Result<[Histogram<u64>; 3]>>,
}

impl Live {
    /// Returns when they stand. They have seen what lies below `ends`.
    fn start(dial: Dial, ends: Vec<u64>) -> anyhow::Result<Self> {
        let phase = Arc::new(AtomicUsize::new(0));
        let (now, (ready, stand)) = (Arc::clone(&phase), channel());
        let thread = thread::spawn(move || {
            // What is measured is the server, not how the tool's threads share a core.
            let _ = nice(-10);
            let mut live = Fleet::new(dial)?;
            let one = || Subscriber::after((Vec::new(), ends.iter().map(|&end| Seen::below(end)).collect()));
            live.open_for((0..LIVE).map(|_| one()).collect(), LIVE)?;
            ready.send(())?;
            let mut phases = [0, 1, 2].map(|_| live.tally.latency.clone());
            for (at, latency) in phases.iter_mut().enumerate() {
                live.tally.latency.reset();
                live.read_until(Duration::MAX, |_| now.load(Ordering::Relaxed) > at)?;
                *latency = live.tally.latency.clone();
            }
            Ok(phases)
        });
        match stand.recv() {
            Ok(()) => Ok(Self { phase, thread }),
            Err(_) => thread.join().expect("no panic").and_then(|_| bail!("the live clients left")),
        }
    }

    fn next_phase(&self) {
        self.phase.fetch_add(1, Ordering::Relaxed);
    }

    fn end(self) -> anyhow::Result<[Histogram<u64>; 3]> {
        self.phase.store(usize::MAX, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Clients that are live meanwhile.
const LIVE: usize = 50;

/// How long their latency is measured before.
const QUIET: Duration = Duration::from_secs(10);

pub const HEAD: &str = "| return to Kafka | source | clients | took | read / range | live clients | p50, p99, max quiet | meanwhile | memory before, peak | delivered | wrong | core: server / others / tool |";

impl Herd {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { protocol, source, clients, checked, seconds, read_mib, range_mib, live, .. } = self;
        let Self { quiet_ms, meanwhile_ms, base_mib, peak_mib, noise, .. } = self;
        format!(
            "| {protocol} | {source} | {clients} | {seconds:.1} s | {read_mib:.1} / {range_mib:.1} MiB | {live} \
             | {} | {} | {base_mib:.0}, {peak_mib:.0} MiB | {} | {} |",
            millis(quiet_ms),
            millis(meanwhile_ms),
            checked.cells(),
            noise.cells()
        )
    }
}

//! One feed, and clients that each ask for another part of it: every event is looked at for every client, and sent to one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::payload::symbol_name;
use crate::publish::road::Road;
use crate::publish::{Pace, Publisher};
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::{GRACE, SETTLE, note};
use crate::server::scratch::Scratch;
use crate::server::ssegate::{PATH, Serving};
use crate::server::start::CHANNEL;
use crate::server::usage::{Processes, Watch};
use crate::sse::Subscriber;

/// Clients with a filter each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Filters {
    pub protocol: String,
    pub clients: usize,
    pub rate: u32,
    pub seconds: f64,
    pub linger_ms: u32,
    pub latency_ms: [f64; 3],
    pub publisher_late_ms: f64,
    /// Of an event and a client, whether it was sent to that one or not; all that the server did is in it.
    pub cpu_ns_per_event_and_client: f64,
    /// Beyond what the server took without clients.
    pub pss_kib_per_client: f64,
    pub checked: Checked,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Filters> {
    let (clients, rate) = (options.clients.unwrap_or(1_000), options.rate.unwrap_or(1_000).max(1));
    let (seconds, linger) = (options.seconds.unwrap_or(20), options.linger.unwrap_or(10));
    note(&format!("filters: {clients} clients, {rate} events/s"));
    let scratch = Scratch::new()?;
    let serving = Serving::start(options, scratch.path()?, &configuration(linger))?;
    let processes = Processes::from(serving.server.pid());
    let dial = Dial::new(serving.public, PATH, options)?;
    // Of whole connections, where several share one.
    let clients = clients.next_multiple_of(dial.h2.unwrap_or(1));
    let mut fleet = Fleet::new(dial)?;
    let empty = processes.memory()?.pss;
    let symbols = clients as u64;
    let one = |number| Subscriber::of(number, format!("{PATH}?symbol={}", symbol_name(number)));
    fleet.open_for((0..symbols).map(one).collect(), options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;

    let road = Road::Post { addr: serving.admin, path: "/publish/{}".to_owned() };
    let mut published = 0;
    let mut publish = |fleet: &mut Fleet, seconds: u32| -> anyhow::Result<_> {
        let events = u64::from(rate) * u64::from(seconds);
        let pace = Pace { rate, first: published, events, feeds: symbols, payload: options.payload };
        let publisher = Publisher::of_symbols(road.clone(), pace, symbols);
        fleet.read_until(Duration::MAX, |_| publisher.is_over())?;
        let outcome = publisher.end()?;
        published = outcome.events;
        // Each is for one of them.
        fleet.read_until(GRACE, |tally| tally.delivered >= events)?;
        Ok(outcome)
    };
    publish(&mut fleet, WARM_UP)?;
    fleet.tally.begin();
    let watch = Watch::begin(processes.clone(), &options.server_core)?;
    let outcome = publish(&mut fleet, seconds)?;
    let spent = watch.end()?;
    let looks = f64::from(rate) * f64::from(seconds) * clients as f64;
    Ok(Filters {
        protocol: fleet.protocol(),
        clients,
        rate,
        seconds: outcome.took.as_secs_f64(),
        linger_ms: linger,
        latency_ms: quantiles(&fleet.tally.latency),
        publisher_late_ms: outcome.late.as_secs_f64() * 1e3,
        cpu_ns_per_event_and_client: spent.cpu.as_secs_f64() * 1e9 / looks.max(1.0),
        pss_kib_per_client: processes.memory()?.pss.saturating_sub(empty) as f64
            / clients.max(1) as f64
            / 1024.0,
        checked: Checked::of(&fleet.tally, fleet.missing_of(outcome.events, symbols)),
        noise: Noise::of(&spent),
    })
}

fn configuration(linger: u32) -> String {
    format!(
        "upstreams: {{ source: {{ push: {{}} }} }}
defaults: {{ linger: {linger}ms }}
routes: [{{ path: {PATH}, from: {{ upstream: source, channel: {CHANNEL} }}, filter: event.symbol == query.symbol }}]
"
    )
}

/// Seconds of events that are not counted.
const WARM_UP: u32 = 1;

pub const HEAD: &str = "| a filter each | clients × events/s × s | linger | p50, p99, max | publisher late | CPU an event and client | memory a client | delivered | wrong | core: server / others / tool |";

impl Filters {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { protocol, clients, rate, seconds, linger_ms, latency_ms, checked, noise, .. } = self;
        let Self { publisher_late_ms, cpu_ns_per_event_and_client, pss_kib_per_client, .. } = self;
        format!(
            "| {protocol} | {clients} × {rate} × {seconds:.0} | {linger_ms} ms | {} | {publisher_late_ms:.0} ms \
             | {cpu_ns_per_event_and_client:.0} ns | {pss_kib_per_client:.1} KiB | {} | {} |",
            millis(latency_ms),
            checked.cells(),
            noise.cells()
        )
    }
}

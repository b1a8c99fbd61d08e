//! Every event to every client of its feed: few events to many, many to few, and many feeds with few clients each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args::{Coding, Options, Plan};
use crate::fleet::Fleet;
use crate::peer::Need;
use crate::publish::Pace;
use crate::report::Report;
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::report::row::Row;
use crate::scenario::{GRACE, MIB, SETTLE, each_with, note};
use crate::server::start::channel;
use crate::server::target::Target;
use crate::server::usage::Watch;
use crate::sse::Subscriber;

/// Events to many clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fanout {
    pub scenario: String,
    pub server: String,
    pub protocol: String,
    pub via: String,
    pub clients: usize,
    pub feeds: u64,
    pub rate: u32,
    pub seconds: f64,
    pub linger_ms: u32,
    pub coding: Coding,
    /// Of the coding; the server's default where it is none.
    pub level: Option<u8>,
    pub expected: u64,
    pub checked: Checked,
    pub cpu_us_per_delivery: f64,
    /// Of the body, without the framing of HTTP and TLS, as they came.
    pub body_bytes_per_delivery: f64,
    /// The same before coding.
    pub plain_bytes_per_delivery: f64,
    pub latency_ms: [f64; 3],
    /// How late the publisher was at most, as where the server did not take events as fast as they were due.
    pub publisher_late_ms: f64,
    pub pss_mib: f64,
    /// Beyond what the server took without clients.
    pub pss_kib_per_client: f64,
    pub noise: Noise,
}

/// Few events to many clients.
pub fn sparse(options: &Options) -> Plan {
    plan(options, Plan { clients: 5_000, rate: 10, seconds: 20, linger: 10, payload: 0, feeds: 1 })
}

/// Many events to few clients.
pub fn dense(options: &Options) -> Plan {
    plan(options, Plan { clients: 200, rate: 1_000, seconds: 15, linger: 20, payload: 0, feeds: 1 })
}

/// Many feeds with five clients each.
pub fn rooms(options: &Options) -> Plan {
    let plan =
        plan(options, Plan { clients: 10_000, rate: 2_000, seconds: 15, linger: 10, payload: 0, feeds: 1 });
    Plan { feeds: (plan.clients as u64 / 5).max(1), ..plan }
}

fn plan(options: &Options, scenario: Plan) -> Plan {
    Plan {
        clients: options.clients.unwrap_or(scenario.clients),
        rate: options.rate.unwrap_or(scenario.rate).max(1),
        seconds: options.seconds.unwrap_or(scenario.seconds),
        linger: options.linger.unwrap_or(scenario.linger),
        payload: options.payload,
        feeds: scenario.feeds,
    }
}

/// The floor of sparse and dense.
///
/// # Errors
/// Where it, or a client, cannot do its work.
pub fn floors(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for (name, plan) in [("sparse", sparse(options)), ("dense", dense(options))] {
        report.add(Row::Fanout(run(options, name, &plan, Target::floor(options, &plan)?)?));
    }
    Ok(())
}

/// With our server and each peer.
///
/// # Errors
/// Where one, or a client, cannot do its work.
pub fn run_each(options: &Options, name: &str, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    each_with(options, Need::Live, plan.linger, report, |start| {
        Ok(Row::Fanout(run(options, name, plan, start()?)?))
    })
}

fn run(options: &Options, name: &str, plan: &Plan, mut target: Target) -> anyhow::Result<Fanout> {
    note(&format!("{name}: {} clients of {}", plan.clients, target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    let empty = target.processes.memory()?.pss;
    fleet.open_for(readers(&target, plan.clients, plan.feeds), options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;
    let first = if target.warms_up() { warm_up(&mut target, &mut fleet, plan)? } else { 0 };

    let pace = Pace { first, ..plan.pace() };
    let expected = pace.events * fleet.streams() as u64 / plan.feeds;
    let watch = Watch::begin(target.processes.clone(), &options.server_core)?;
    let publishing = target.publish(pace)?;
    // It ends by itself, late or with an error.
    fleet.read_until(Duration::MAX, |_| publishing.is_over())?;
    let published = publishing.end()?;
    read_rest(&mut fleet, expected)?;
    let spent = watch.end()?;
    let (full, each) = (target.processes.memory()?.pss, fleet.tally.delivered.max(1) as f64);
    let lost = fleet.missing_of(published.events, plan.feeds);
    Ok(Fanout {
        scenario: name.to_owned(),
        server: target.name.clone(),
        protocol: fleet.protocol(),
        via: target.via.to_owned(),
        clients: fleet.streams(),
        feeds: plan.feeds,
        rate: plan.rate,
        seconds: published.took.as_secs_f64(),
        linger_ms: plan.linger,
        coding: target.dial.coding,
        level: options.level,
        expected,
        cpu_us_per_delivery: spent.cpu.as_secs_f64() * 1e6 / each,
        body_bytes_per_delivery: fleet.tally.body as f64 / each,
        plain_bytes_per_delivery: fleet.tally.plain as f64 / each,
        latency_ms: quantiles(&fleet.tally.latency),
        checked: Checked::of(&fleet.tally, lost),
        publisher_late_ms: published.late.as_secs_f64() * 1e3,
        pss_mib: full as f64 / MIB,
        pss_kib_per_client: full.saturating_sub(empty) as f64 / fleet.streams().max(1) as f64 / 1024.0,
        noise: Noise::of(&spent),
    })
}

/// Clients for the feeds in turn; of whole connections, where several share one.
pub fn readers(target: &Target, clients: usize, feeds: u64) -> Vec<Subscriber> {
    let clients = clients.next_multiple_of(target.dial.h2.unwrap_or(1)) as u64;
    let one = |number: u64| match feeds {
        1 => Subscriber::default(),
        _ => Subscriber::of(number % feeds, (target.path)(&channel(number % feeds, feeds))),
    };
    (0..clients).map(one).collect()
}

/// Reads for as long as anything comes: where a server is behind, what is late is not lost.
fn read_rest(fleet: &mut Fleet, expected: u64) -> anyhow::Result<()> {
    let mut before = None;
    while fleet.tally.delivered < expected && before != Some(fleet.tally.delivered) {
        before = Some(fleet.tally.delivered);
        fleet.read_until(GRACE, |tally| tally.delivered >= expected)?;
    }
    Ok(())
}

/// A second of events that are not counted. Returns how many they were.
fn warm_up(target: &mut Target, fleet: &mut Fleet, plan: &Plan) -> anyhow::Result<u64> {
    let pace = Pace { events: u64::from(plan.rate), ..plan.pace() };
    let expected = pace.events * fleet.streams() as u64 / plan.feeds;
    let publishing = target.publish(pace)?;
    fleet.read_until(Duration::MAX, |_| publishing.is_over())?;
    publishing.end()?;
    read_rest(fleet, expected)?;
    fleet.tally.begin();
    Ok(pace.events)
}

pub const HEAD: &str = "| scenario | server | by | clients × events/s × s | linger | coding | bytes a delivery, before coding | CPU a delivery | of nchan's | of its own uncoded | p50, p99, max | publisher late | memory, of it a client | delivered | wrong | core: server / others / tool |";

impl Fanout {
    /// What it did, whoever did it, in whichever coding.
    pub fn work(&self) -> String {
        let Self { scenario, protocol, clients, rate, .. } = self;
        let coded = if self.coding == Coding::Identity { "" } else { " coded" };
        format!("{scenario} {protocol} {clients} {rate}{coded}")
    }

    /// Whether the same server did the same without a coding, where this was with one.
    pub fn is_coded_form_of(&self, other: &Self) -> bool {
        let same = |row: &Self| {
            let Self { scenario, server, protocol, via, clients, rate, linger_ms, .. } = row.clone();
            (scenario, server, protocol, via, clients, rate, linger_ms)
        };
        self.coding != Coding::Identity && other.coding == Coding::Identity && same(self) == same(other)
    }

    /// Its line of the table.
    pub fn line(&self, ratio: &str, uncoded: &str) -> String {
        let Self { scenario, server, protocol, via, clients, rate, seconds, linger_ms, .. } = self;
        let Self { cpu_us_per_delivery, latency_ms, publisher_late_ms, pss_mib, checked, noise, .. } = self;
        let Self {
            body_bytes_per_delivery: body, plain_bytes_per_delivery: plain, pss_kib_per_client, ..
        } = self;
        let coding = match (self.coding, self.level) {
            (Coding::Identity, _) => String::new(),
            (coding, None) => format!("{}, default level", coding.name()),
            (coding, Some(level)) => format!("{}, level {level}", coding.name()),
        };
        let linger = if server == "ssegate" { format!("{linger_ms} ms") } else { String::new() };
        format!(
            "| {scenario} | {server} | {via}; {protocol} | {clients} × {rate} × {seconds:.0} | {linger} | {coding} | {body:.0}, {plain:.0} \
             | {cpu_us_per_delivery:.2} µs | {ratio} | {uncoded} | {} | {publisher_late_ms:.0} ms \
             | {pss_mib:.0} MiB, {pss_kib_per_client:.0} KiB | {} | {} |",
            millis(latency_ms),
            checked.cells(),
            noise.cells()
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::args::Args;

    fn row(server: &str, coding: &str, cpu: f64) -> Row {
        let noise = json!({ "server": 0.5, "others": 0.0, "tool": 0.2 });
        let checked = json!({
            "delivered": 1, "lost": 0, "announced": 0, "repeated": 0, "disordered": 0, "gaps": {}, "ended": {},
        });
        let row = json!({
            "kind": "fanout", "scenario": "dense", "server": server, "protocol": "TLS", "via": "push", "clients": 200,
            "feeds": 1, "rate": 1000, "seconds": 5.0, "linger_ms": 20, "coding": coding, "level": null,
            "expected": 1, "checked": checked, "cpu_us_per_delivery": cpu, "body_bytes_per_delivery": 80.0,
            "plain_bytes_per_delivery": 240.0, "latency_ms": [1.0, 2.0, 3.0], "publisher_late_ms": 0.0,
            "pss_mib": 1.0, "pss_kib_per_client": 1.0, "noise": noise,
        });
        serde_json::from_value(row).expect("it has every field")
    }

    #[test]
    fn codings_are_compared_with_each_other_and_with_none() {
        let rows = [
            row("ssegate", "identity", 2.0),
            row("nginx+nchan", "identity", 10.0),
            row("ssegate", "zstd", 3.0),
            row("nginx+nchan", "gzip", 30.0),
        ];
        let options = Args::parse_from(["ssegate-load", "dense"]).options;
        let report = Report { rows: rows.to_vec(), ..Report::new(&options) };
        let shares = rows.each_ref().map(|row| (report.ratio(row), report.of_uncoded(row)));
        let (plain, peer) = ((Some(0.2), None), (Some(1.0), None));
        assert_eq!(shares, [plain, peer, (Some(0.1), Some(1.5)), (Some(1.0), Some(3.0))]);
    }

    #[test]
    fn a_line_has_as_many_cells_as_the_head() {
        let line = row("ssegate", "gzip", 1.0).line(None, None);
        assert_eq!(line.matches('|').count(), HEAD.matches('|').count(), "{line}");
    }
}

//! What nobody has measured: many cores, a million clients. Costs are taken to be the same on each core.

use crate::args::Options;
use crate::report::Report;
use crate::simulate::check::BACKLOG;
use crate::simulate::costs::Costs;
use crate::simulate::world::{Plan, Storm, run};
use crate::simulate::{Simulate, add};

/// All of it.
pub fn all(simulate: &Simulate, costs: &Costs, options: &Options, report: &mut Report) {
    let (cores, clients) = (simulate.cores, options.clients.unwrap_or(1_000_000));
    let (many, name) = (clients as f64, format!("{clients} clients, {cores} cores"));
    let mut told =
        |what: &str, unit: &str, value: f64| add(report, format!("{name}: {what}"), unit, value, None);
    told("memory of the process", "GiB", many * costs.pss_kib / GIB);
    told("memory of the kernel", "GiB", many * costs.kernel_kib / GIB);
    let full = cores as f64 * 1e6 / (many * costs.lone_us());
    told("events/s that fill all cores", "a second", full);
    told("accepted by one listener, at most", "a second", 1e6 / costs.accept_us);
    for load in [0.3, 0.6, 0.9] {
        let rate = full * load;
        // Long enough for some hundred events.
        let plan = live(simulate, clients, rate, options.linger.unwrap_or(10));
        let outcome = run(&plan, costs);
        let load = load * 100.0;
        told(&format!("load {load:.0} %"), "events/s", rate);
        let frames = costs.bytes + TCP + ETHERNET;
        told(&format!("load {load:.0} %, on the wire"), "Gbit/s", rate * many * frames * 8.0 / 1e9);
        for (quantile, label) in [(0.5, "p50"), (0.99, "p99")] {
            let value = outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
            told(&format!("load {load:.0} %, events at random: {label}"), "ms", value);
        }
    }
    let rate = full * 0.3;
    let kinds: [(_, _, _, &[f64]); 3] = [
        ("full handshakes", *costs, BACKLOG, &[3.0, 30.0, 60.0, 120.0]),
        ("full handshakes, somaxconn 65,535", *costs, 65_535, &[3.0, 30.0]),
        ("resumed", costs.resuming(), BACKLOG, &[60.0]),
    ];
    for (kind, costs, backlog, retries) in kinds {
        told(&format!("{kind}, all cores"), "a second", cores as f64 * 1e6 / costs.connect_us);
        for retry in retries {
            let window = (retry * 0.75e9, retry * 1.25e9);
            let storm = Storm {
                window: (window.0 as u64, window.1 as u64),
                at_once: usize::MAX,
                backlog,
                round_trip: ROUND_TRIP,
            };
            let plan = Plan { storm: Some(storm), ..live(simulate, clients, rate, 10) };
            let outcome = run(&plan, &costs);
            let what = format!("all cut, retry {retry:.0} s, {kind}");
            told(&format!("{what}: the last is live after"), "s", outcome.live as f64 / 1e9);
            told(&format!("{what}: found the backlog full"), "times each", outcome.refused as f64 / many);
            told(&format!("{what}: longest handshake"), "s", outcome.longest as f64 / 1e9);
        }
    }
}

fn live(simulate: &Simulate, clients: usize, rate: f64, linger_ms: u32) -> Plan {
    Plan {
        cores: simulate.cores,
        clients,
        feeds: 1,
        rate,
        events: EVENTS,
        linger: u64::from(linger_ms) * 1_000_000,
        random: true,
        reader: 0,
        dialer: 0,
        storm: None,
        seed: simulate.seed,
    }
}

/// Events of a run.
const EVENTS: u64 = 100;

/// Between a browser and the server, in nanoseconds.
const ROUND_TRIP: u64 = 50_000_000;

/// Headers of TCP with time stamps and of IPv4, and of Ethernet with what lies between two frames.
const TCP: f64 = 52.0;
const ETHERNET: f64 = 38.0;

const GIB: f64 = 1024.0 * 1024.0;

//! The simulation beside the measurements: the same load, computed from costs of which it was no part.

use crate::report::Report;
use crate::report::row::Row;
use crate::scenario::fanout::Fanout;
use crate::scenario::return_storm::Return;
use crate::scenario::scale::point::Point;
use crate::simulate::add;
use crate::simulate::costs::Costs;
use crate::simulate::world::{Outcome, Plan, Storm, run};

/// Each row that can be computed, too.
pub fn all(rows: &[Row], costs: &Costs, rare: &Costs, seed: u64, report: &mut Report) {
    for row in rows {
        match row {
            Row::Scale(point) if point.part == "clients" => scale(point, rare, seed, report),
            Row::Fanout(row) if row.server == "ssegate" && row.protocol == HTTP1 => {
                fanout(row, costs, seed, report);
            }
            Row::Return(row) if row.server == "ssegate" => come_back(row, costs, seed, report),
            _ => {}
        }
    }
}

/// On one core, the clients on another.
fn one_core(clients: usize, rate: u32, linger_ms: u32, seed: u64) -> Plan {
    Plan {
        cores: 1,
        clients,
        feeds: 1,
        rate: rate.into(),
        events: u64::from(rate) * SECONDS,
        linger: u64::from(linger_ms) * 1_000_000,
        random: false,
        reader: 0,
        dialer: 0,
        storm: None,
        seed,
    }
}

fn scale(point: &Point, costs: &Costs, seed: u64, report: &mut Report) {
    let clients = point.clients;
    let plan = one_core(clients, point.rate, point.linger_ms, seed);
    let took = f64::from(point.rate) * clients as f64;
    // What the tool does for a delivery.
    let reader = (point.noise.tool * 1e9 / took) as u64;
    let outcome = run(&Plan { reader, ..plan }, costs);
    let name = format!("scale, {clients} clients, {} events/s", point.rate);
    compare(report, &name, &outcome, point.cpu_us_per_delivery, &point.latency_ms);
    let each = |all: f64| all / clients as f64;
    let (pss, kernel) = (costs.pss_kib, costs.kernel_kib);
    add(report, format!("{name}: memory of the process, each"), "KiB", pss, Some(each(point.pss_kib)));
    add(report, format!("{name}: memory of the kernel, each"), "KiB", kernel, Some(each(point.kernel_kib)));
    add(report, format!("{name}: connecting"), "µs", costs.connect_us, Some(each(point.connect_cpu_us)));
}

fn fanout(row: &Fanout, costs: &Costs, seed: u64, report: &mut Report) {
    let plan = one_core(row.clients, row.rate, row.linger_ms, seed);
    let feeds = row.feeds as usize;
    // Of a wake, whatever it brings; that of a lone event is what is known.
    let wakes = f64::from(row.rate).min(1e3 / f64::from(row.linger_ms.max(1))) * row.clients as f64;
    let reader = if feeds == 1 { (row.noise.tool * 1e9 / wakes) as u64 } else { 0 };
    let outcome = run(&Plan { feeds, reader, ..plan }, costs);
    let name = format!(
        "{}, {} clients, {} events/s, linger {} ms",
        row.scenario, row.clients, row.rate, row.linger_ms
    );
    compare(report, &name, &outcome, row.cpu_us_per_delivery, &row.latency_ms);
}

fn compare(report: &mut Report, name: &str, outcome: &Outcome, cpu_us: f64, latency_ms: &[f64; 3]) {
    let cpu = outcome.busy as f64 / outcome.deliveries as f64 / 1e3;
    add(report, format!("{name}: CPU a delivery"), "µs", cpu, Some(cpu_us));
    for (quantile, at, label) in [(0.5, 0, "p50"), (0.99, 1, "p99")] {
        let computed = outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        add(report, format!("{name}: {label}"), "ms", computed, Some(latency_ms[at]));
    }
}

fn come_back(row: &Return, costs: &Costs, seed: u64, report: &mut Report) {
    let storm = Storm { window: (0, 0), at_once: row.clients.min(AT_ONCE), backlog: BACKLOG, round_trip: 0 };
    let plan = one_core(row.clients, row.rate, 10, seed);
    // The tool's core is about as busy as the server's, by what its own half of a handshake takes.
    let dialer = (row.noise.tool * row.all_live_s * 1e9 / row.clients as f64) as u64;
    let outcome = run(&Plan { dialer, storm: Some(storm), ..plan }, costs);
    let name = format!("return, {} clients, {} events/s", row.clients, row.rate);
    add(report, format!("{name}: all stand"), "s", outcome.stand as f64 / 1e9, Some(row.all_stand_s));
    add(report, format!("{name}: all live"), "s", outcome.live as f64 / 1e9, Some(row.all_live_s));
    let cpu = outcome.busy as f64 / row.clients as f64 / 1e3;
    add(report, format!("{name}: CPU a client"), "µs", cpu, Some(row.cpu_us_per_client));
}

/// How long events are published.
const SECONDS: u64 = 10;

/// What the return scenario has on the way at a time.
const AT_ONCE: usize = 4_000;

/// Of the server's listener: what `net.core.somaxconn` is by default.
pub const BACKLOG: usize = 4_096;

const HTTP1: &str = "TLS, HTTP/1.1";

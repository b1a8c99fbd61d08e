//! What ssegate is to reach, and whether it does: each figure beside nchan's of the same run, where nchan can do it.

use std::fmt::{self, Write as _};

use serde::Serialize;

use Bound::{Least, Most};

use crate::args::Coding;
use crate::report::Report;
use crate::report::row::Row;
use crate::scenario::attack::Attack;
use crate::scenario::delay::Delay;
use crate::scenario::workers::Workers;

/// A target, and what was reached.
#[derive(Debug, Serialize)]
pub struct Reached {
    /// What is measured.
    pub what: &'static str,
    /// The unit of both numbers.
    pub unit: &'static str,
    /// What it has to be; `None` where the figure is there to be seen.
    pub bound: Option<Bound>,
    /// What it is.
    pub value: f64,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more than this.
    Most(f64),
    /// No less than this.
    Least(f64),
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::Most(bound) => value <= bound,
            Self::Least(bound) => value >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(bound) => write!(f, "≤ {bound}"),
            Self::Least(bound) => write!(f, "≥ {bound}"),
        }
    }
}

/// Every target of which the report has the rows.
pub fn reached(report: &Report) -> Vec<Reached> {
    TARGETS
        .iter()
        .filter_map(|&(what, unit, bound, measure)| {
            Some(Reached { what, unit, bound, value: measure(report)? })
        })
        .collect()
}

/// As a table.
pub fn table(targets: &[Reached]) -> String {
    let mut out = "| target | to reach | reached | |\n|---|---|---|---|\n".to_owned();
    for Reached { what, unit, bound, value } in targets {
        let (bound, met) = match bound {
            Some(bound) => (format!("{bound} {unit}"), if bound.is_met(*value) { "yes" } else { "no" }),
            None => (String::new(), ""),
        };
        let _ = writeln!(out, "| {what} | {bound} | {value:.2} {unit} | {met} |");
    }
    out
}

type Target = (&'static str, &'static str, Option<Bound>, fn(&Report) -> Option<f64>);

const TARGETS: &[Target] = &[
    ("sparse: CPU a delivery", "× nchan", Some(Most(0.8)), |report| fan_out(report, "sparse", 10, ratio)),
    ("dense, linger 20 ms: CPU a delivery", "× nchan", Some(Most(0.1)), |report| {
        fan_out(report, "dense", 20, ratio)
    }),
    ("dense, linger 20 ms: p99", "ms", Some(Most(30.0)), |report| fan_out(report, "dense", 20, p99)),
    ("dense, linger 0: CPU a delivery", "× nchan", Some(Most(0.6)), |report| {
        fan_out(report, "dense", 0, ratio)
    }),
    ("many feeds: CPU a delivery", "× nchan", Some(Most(0.8)), |report| fan_out(report, "rooms", 10, ratio)),
    ("memory of an idle TLS client, HTTP/1.1", "KB", Some(Most(9.0)), idle),
    ("memory of an idle HTTP/2 stream beyond the first", "KB", Some(Most(2.5)), stream),
    ("full handshake and first byte, ECDSA: CPU", "× nchan", Some(Most(1.0)), |report| {
        handshake(report, ECDSA, false, NCHAN)
    }),
    ("the same, RSA", "× nchan", Some(Most(1.0)), |report| handshake(report, RSA, false, NCHAN)),
    ("resumed handshake and first byte, ECDSA: CPU", "× full of nchan", Some(Most(0.5)), |report| {
        handshake(report, ECDSA, true, NCHAN)
    }),
    ("the same, RSA", "× full of nchan", Some(Most(0.5)), |report| handshake(report, RSA, true, NCHAN)),
    ("the same, RSA", "× own full", Some(Most(0.5)), |report| handshake(report, RSA, true, OURS)),
    ("the same, ECDSA", "× own full", None, |report| handshake(report, ECDSA, true, OURS)),
    ("return of all: until the last is live", "× nchan", Some(Most(0.7)), come_back),
    ("a client that does not read: memory, kernel included", "KiB", Some(Most(256.0)), slow),
    ("the worst attack: p99 of the others", "ms", Some(Most(250.0)), |report| {
        attacks(report, |row| row.attack_ms[1])
    }),
    ("all attacks: what others lost", "events", Some(Most(0.0)), |report| {
        attacks(report, |row| row.checked.lost as f64)
    }),
    ("the worst attack: memory of the process", "× limits.memory", Some(Most(1.0)), |report| {
        attacks(report, Attack::memory_share)
    }),
    ("Kafka to client beyond the broker's own fetch, p99 less p99", "ms", Some(Most(15.0)), |report| {
        delay(report, |row| row.client_ms[1] - row.fetch_ms[1])
    }),
    ("the same, record by record", "ms", None, |report| delay(report, |row| row.beyond_ms[1])),
    ("1,000 clients with a filter each, 1,000 events/s: p99", "ms", Some(Most(50.0)), |report| {
        report.rows.iter().find_map(|row| match row {
            Row::Filters(row) => Some(row.latency_ms[1]),
            _ => None,
        })
    }),
    ("two cores: throughput", "× one core", Some(Least(1.8)), |report| {
        workers(report, |row| row.deliveries_per_second)
    }),
    ("two cores: CPU a delivery", "× one core", Some(Most(1.05)), |report| {
        workers(report, |row| row.cpu_us_per_delivery)
    }),
];

/// Of our rows in this scenario the first: the one that Redis feeds, in the suite.
fn fan_out(
    report: &Report,
    scenario: &str,
    linger: u32,
    of: fn(&Report, &Row) -> Option<f64>,
) -> Option<f64> {
    let ours = |row: &&Row| match row {
        Row::Fanout(row) => {
            row.server == OURS
                && row.scenario == scenario
                && row.linger_ms == linger
                && row.coding == Coding::Identity
        }
        _ => false,
    };
    of(report, report.rows.iter().find(ours)?)
}

fn ratio(report: &Report, row: &Row) -> Option<f64> {
    report.ratio(row)
}

fn p99(_: &Report, row: &Row) -> Option<f64> {
    match row {
        Row::Fanout(row) => Some(row.latency_ms[1]),
        _ => None,
    }
}

fn idle(report: &Report) -> Option<f64> {
    report.rows.iter().find_map(|row| match row {
        Row::Idle(row) if row.server == OURS => Some(row.pss_kib_per_client * KIB),
        _ => None,
    })
}

fn stream(report: &Report) -> Option<f64> {
    report.rows.iter().find_map(|row| match row {
        Row::Streams(row) if row.server == OURS => Some(row.kib_per_stream * KIB),
        _ => None,
    })
}

/// What ours needs for a handshake, full or resumed, as a share of what `server` needs for a full one; with what
/// today's browsers offer.
fn handshake(report: &Report, certificate: &str, resuming: bool, server: &str) -> Option<f64> {
    let cost = |server: &str, resuming: bool| {
        report.rows.iter().find_map(|row| match row {
            Row::Connect(row)
                if row.server == server
                    && row.certificate == certificate
                    && row.offered == OFFERED
                    && row.resuming == resuming =>
            {
                Some(row.cpu_us_per_connect)
            }
            _ => None,
        })
    };
    Some(cost(OURS, resuming)? / cost(server, false)?)
}

fn come_back(report: &Report) -> Option<f64> {
    let ours = |row: &&Row| matches!(row, Row::Return(row) if row.server == OURS);
    report.ratio(report.rows.iter().find(ours)?)
}

fn slow(report: &Report) -> Option<f64> {
    report.rows.iter().find_map(|row| match row {
        Row::Slow(row) if row.server == OURS => Some(row.held_kib()),
        _ => None,
    })
}

/// The most of any attack; nothing where one of them did not take place.
fn attacks(report: &Report, of: fn(&Attack) -> f64) -> Option<f64> {
    let attacks = report.rows.iter().filter_map(|row| match row {
        Row::Attack(row) => Some(row.took_place().then(|| of(row))),
        _ => None,
    });
    attacks.reduce(|one, other| Some(one?.max(other?))).flatten()
}

fn delay(report: &Report, of: fn(&Delay) -> f64) -> Option<f64> {
    report.rows.iter().find_map(|row| match row {
        Row::Delay(row) => Some(of(row)),
        _ => None,
    })
}

fn workers(report: &Report, of: fn(&Workers) -> f64) -> Option<f64> {
    let on = |cores: usize| {
        report.rows.iter().find_map(|row| match row {
            Row::Workers(row) if row.cores == cores => Some(of(row)),
            _ => None,
        })
    };
    Some(on(2)? / on(1)?)
}

const OURS: &str = "ssegate";
const NCHAN: &str = "nginx+nchan";
const ECDSA: &str = "ECDSA P-256";
const RSA: &str = "RSA-2048";

const OFFERED: &str = "Hybrid";

/// Targets are in thousands of bytes.
const KIB: f64 = 1.024;

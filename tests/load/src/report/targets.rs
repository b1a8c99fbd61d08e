//! What ssegate is to reach, and whether it does: each figure beside nchan's of the same run, where nchan can do it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::Report;
use crate::report::row::Row;

/// A target, and what was reached.
#[derive(Debug, Serialize)]
pub struct Reached {
    /// What is measured.
    pub what: &'static str,
    /// The unit of both numbers.
    pub unit: &'static str,
    /// The most that it may be, where that is settled.
    pub limit: Option<f64>,
    /// What it is.
    pub value: f64,
}

/// Every target of which the report has the rows.
pub fn reached(report: &Report) -> Vec<Reached> {
    TARGETS
        .iter()
        .filter_map(|&(what, unit, limit, measure)| {
            Some(Reached { what, unit, limit, value: measure(report)? })
        })
        .collect()
}

/// As a table.
pub fn table(targets: &[Reached]) -> String {
    let mut out = "| target | to reach | reached | |\n|---|---|---|---|\n".to_owned();
    for Reached { what, unit, limit, value } in targets {
        let (limit, met) = match limit {
            Some(limit) => (format!("≤ {limit} {unit}"), if value <= limit { "yes" } else { "no" }),
            None => (String::new(), ""),
        };
        let _ = writeln!(out, "| {what} | {limit} | {value:.2} {unit} | {met} |");
    }
    out
}

type Target = (&'static str, &'static str, Option<f64>, fn(&Report) -> Option<f64>);

const TARGETS: &[Target] = &[
    ("sparse: CPU a delivery", "× nchan", Some(0.8), |report| fan_out(report, "sparse", 10, ratio)),
    ("dense, linger 20 ms: CPU a delivery", "× nchan", Some(0.1), |report| {
        fan_out(report, "dense", 20, ratio)
    }),
    ("dense, linger 20 ms: p99", "ms", Some(30.0), |report| fan_out(report, "dense", 20, p99)),
    ("dense, linger 0: CPU a delivery", "× nchan", None, |report| fan_out(report, "dense", 0, ratio)),
    ("many feeds: CPU a delivery", "× nchan", None, |report| fan_out(report, "rooms", 10, ratio)),
    ("memory of an idle TLS client", "KB", Some(9.0), idle),
    ("memory of an HTTP/2 stream beyond the first", "KB", Some(2.5), stream),
    ("full handshake, ECDSA: CPU", "× nchan", Some(1.0), |report| handshake(report, "ECDSA P-256")),
    ("resumed handshake, ECDSA: CPU", "× full", Some(0.5), |report| resumed(report, "ECDSA P-256")),
    ("full handshake, RSA: CPU", "× nchan", Some(1.0), |report| handshake(report, "RSA-2048")),
    ("resumed handshake, RSA: CPU", "× full", Some(0.5), |report| resumed(report, "RSA-2048")),
    ("return of all: until the last is live", "× nchan", None, come_back),
    ("a client that does not read: memory, kernel included", "KiB", Some(256.0), slow),
    ("Kafka to client beyond the broker's own fetch, p99", "ms", None, delay),
    ("two cores: throughput", "× one core", None, |report| workers(report, |row| row.deliveries_per_second)),
    ("two cores: CPU a delivery", "× one core", None, |report| {
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
        Row::Fanout(row) => row.server == OURS && row.scenario == scenario && row.linger_ms == linger,
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

/// With what today's browsers offer.
fn handshake(report: &Report, certificate: &str) -> Option<f64> {
    let ours = |row: &&Row| match row {
        Row::Connect(row) => {
            row.server == OURS && row.certificate == certificate && row.offered == OFFERED && !row.resuming
        }
        _ => false,
    };
    report.ratio(report.rows.iter().find(ours)?)
}

fn resumed(report: &Report, certificate: &str) -> Option<f64> {
    let cost = |resumed: bool| {
        report.rows.iter().find_map(|row| match row {
            Row::Connect(row)
                if row.server == OURS
                    && row.certificate == certificate
                    && row.offered == OFFERED
                    && row.resuming == resumed =>
            {
                Some(row.cpu_us_per_connect)
            }
            _ => None,
        })
    };
    Some(cost(true)? / cost(false)?)
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

fn delay(report: &Report) -> Option<f64> {
    report.rows.iter().find_map(|row| match row {
        Row::Delay(row) => Some(row.beyond_ms[1]),
        _ => None,
    })
}

fn workers(report: &Report, of: fn(&crate::scenario::workers::Workers) -> f64) -> Option<f64> {
    let on = |cores: usize| {
        report.rows.iter().find_map(|row| match row {
            Row::Workers(row) if row.cores == cores => Some(of(row)),
            _ => None,
        })
    };
    Some(on(2)? / on(1)?)
}

const OURS: &str = "ssegate";

const OFFERED: &str = "Hybrid";

/// Targets are in thousands of bytes.
const KIB: f64 = 1.024;

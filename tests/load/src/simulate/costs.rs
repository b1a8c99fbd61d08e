//! What things cost, as it was measured, and what is made of a report's rows.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde::Deserialize;

use crate::report::row::Row;
use crate::scenario::scale::fit::Fit;

/// What things cost the server; CPU time in microseconds of one core. The defaults are those of docs/SCALING.md.
#[derive(Debug, Clone, Copy, PartialEq, ClapArgs)]
pub struct Costs {
    /// Of a client that is woken: its task, a TLS record, a send.
    #[arg(long, default_value_t = 15.0)]
    pub wake_us: f64,
    /// Of each event that it is given then.
    #[arg(long, default_value_t = 0.1)]
    pub event_us: f64,
    /// Of an event, whatever the number of its clients.
    #[arg(long, default_value_t = 80.0)]
    pub append_us: f64,
    /// Of accepting a connection, which is done by one at a time.
    #[arg(long, default_value_t = 22.0)]
    pub accept_us: f64,
    /// Of a connection until its stream stands: accepted, full handshake, request, first events.
    #[arg(long, default_value_t = 377.0)]
    pub connect_us: f64,
    /// The same with a resumed TLS session.
    #[arg(long, default_value_t = 342.0)]
    pub resumed_us: f64,
    /// Memory of the process for a client.
    #[arg(long, default_value_t = 5.2)]
    pub pss_kib: f64,
    /// Memory of the kernel for a client.
    #[arg(long, default_value_t = 3.9)]
    pub kernel_kib: f64,
    /// Bytes of an event of 200, as it is handed to TCP.
    #[arg(long, default_value_t = 259.0)]
    pub bytes: f64,
}

impl Costs {
    /// Of a handshake, until the server's first flight is sent, accepting apart.
    pub fn hello_us(&self) -> f64 {
        (self.connect_us - self.accept_us).max(0.0) * FIRST_FLIGHT
    }

    /// What follows.
    pub fn finish_us(&self) -> f64 {
        (self.connect_us - self.accept_us).max(0.0) * (1.0 - FIRST_FLIGHT)
    }

    /// Where all resume their TLS sessions.
    pub fn resuming(self) -> Self {
        Self { connect_us: self.resumed_us, ..self }
    }

    /// A lone event to a client.
    pub fn lone_us(&self) -> f64 {
        self.wake_us + self.event_us
    }

    /// The same where events are rare, and processor and caches have gone on to other things meanwhile.
    pub fn rare(self, rows: &[Row]) -> Self {
        let lone = slope(rows, "clients: CPU of an event to all");
        Self { wake_us: lone.map_or(self.wake_us, |lone| lone - self.event_us), ..self }
    }

    /// What rows say in place of what is assumed.
    pub fn measured(self, rows: &[Row]) -> Self {
        let mut costs = self;
        costs.pss_kib = slope(rows, "clients: memory of the process").unwrap_or(costs.pss_kib);
        costs.kernel_kib = slope(rows, "clients: memory of the kernel").unwrap_or(costs.kernel_kib);
        let connects = |resuming: bool| {
            rows.iter().find_map(|row| match row {
                Row::Connect(row) if row.resuming == resuming => Some(row.cpu_us_per_connect),
                _ => None,
            })
        };
        // The connections of the connect scenario are closed, too; what resuming saves is the same.
        let (full, resumed) = (connects(false), connects(true));
        let saved =
            full.zip(resumed).map_or(costs.connect_us - costs.resumed_us, |(full, resumed)| full - resumed);
        costs.connect_us = slope(rows, "clients: CPU of connecting").or(full).unwrap_or(costs.connect_us);
        costs.resumed_us = costs.connect_us - saved;
        for row in rows {
            if let Row::Scale(row) = row
                && row.part == "clients"
            {
                costs.bytes = row.bytes_per_delivery;
            }
        }
        // A lone event to many; many that are given together; and a lone one to few, of whom each bears a share of what
        // the event itself costs.
        let fanout = |scenario: &str, linger: u32| {
            rows.iter().find_map(|row| match row {
                Row::Fanout(row) if row.scenario == scenario && row.linger_ms == linger => Some(row),
                _ => None,
            })
        };
        if let (Some(lone), Some(rooms)) = (fanout("sparse", 10), fanout("rooms", 10)) {
            let each = rooms.clients as f64 / rooms.feeds as f64;
            costs.append_us = ((rooms.cpu_us_per_delivery - lone.cpu_us_per_delivery) * each).max(0.0);
        }
        if let (Some(lone), Some(many)) = (fanout("sparse", 10), fanout("dense", 20)) {
            let together = f64::from(many.rate) * f64::from(many.linger_ms) / 1e3;
            let own = many.cpu_us_per_delivery - costs.append_us / many.clients as f64;
            costs.event_us = ((together * own - lone.cpu_us_per_delivery) / (together - 1.0)).max(0.0);
            costs.wake_us = lone.cpu_us_per_delivery - costs.event_us;
        }
        costs
    }
}

fn slope(rows: &[Row], what: &str) -> Option<f64> {
    rows.iter().find_map(|row| match row {
        Row::Fit(Fit { what: name, line, .. }) if name.starts_with(what) => Some(line.slope),
        _ => None,
    })
}

/// What the load tool wrote: its own JSON, or a suite's figures.json.
#[derive(Debug, Deserialize)]
struct Written {
    rows: Vec<Row>,
}

/// The rows of these files.
///
/// # Errors
/// Where one cannot be read.
pub fn rows(files: &[PathBuf]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in files {
        let name = || file.display().to_string();
        let written = File::open(file).with_context(name)?;
        rows.extend(serde_json::from_reader::<_, Written>(BufReader::new(written)).with_context(name)?.rows);
    }
    Ok(rows)
}

/// Of a handshake, the server's first flight: the key exchange and the signature.
const FIRST_FLIGHT: f64 = 0.7;

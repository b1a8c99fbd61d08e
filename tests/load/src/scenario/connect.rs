//! Connections that live until their stream stands: what handshake, request and first byte cost.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args::{Cert, Options};
use crate::fleet::Fleet;
use crate::report::checked::{millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::{SETTLE, note};
use crate::server::target::Target;
use crate::server::usage::Watch;

/// Connections one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connect {
    pub server: String,
    pub protocol: String,
    pub certificate: String,
    /// What clients offered, and what came of it.
    pub offered: String,
    pub key_exchange: String,
    /// Whether clients asked for it; and with how many it came about.
    pub resuming: bool,
    pub connects: usize,
    pub resumed: usize,
    pub per_second: f64,
    pub cpu_us_per_connect: f64,
    pub latency_ms: [f64; 3],
    pub ended: BTreeMap<String, u64>,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options, target: Target) -> anyhow::Result<Connect> {
    note(&format!("connect: {} connections to {}", options.connects, target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    // rustls keeps 8 tickets for a server.
    let concurrency = if options.resume { options.concurrency.min(8) } else { options.concurrency };
    // What is done once: pages touched first, and tickets to resume with.
    fleet.cycle(WARM_UP.min(options.connects), concurrency)?;
    fleet.tally.begin();
    thread::sleep(SETTLE);
    let watch = Watch::begin(target.processes.clone(), &options.server_core)?;
    let cycled = fleet.cycle(options.connects, concurrency)?;
    let took = watch.elapsed();
    // The server has connections to put away still.
    thread::sleep(PUT_AWAY);
    let spent = watch.end()?;
    Ok(Connect {
        server: target.name.clone(),
        protocol: fleet.protocol(),
        certificate: match options.cert {
            Cert::Ecdsa => "ECDSA P-256".to_owned(),
            Cert::Rsa => "RSA-2048".to_owned(),
        },
        offered: format!("{:?}", options.kx),
        key_exchange: cycled.key_exchange,
        resuming: options.resume,
        connects: cycled.connects,
        resumed: cycled.resumed,
        per_second: cycled.connects as f64 / took.as_secs_f64(),
        cpu_us_per_connect: spent.cpu.as_secs_f64() * 1e6 / cycled.connects.max(1) as f64,
        latency_ms: quantiles(&fleet.tally.latency),
        ended: fleet.tally.ended.clone(),
        noise: Noise::of(&spent),
    })
}

/// Connections made before the measured ones.
const WARM_UP: usize = 200;

/// How long the server's share of closing them may take.
const PUT_AWAY: Duration = Duration::from_millis(500);

pub const HEAD: &str = "| connect | certificate | offered, agreed on | connections | resumed | CPU a connection | of nchan's | a second | p50, p99, max | failed | core: server / others / tool |";

impl Connect {
    /// What it did, whoever did it.
    pub fn work(&self) -> String {
        let Self { protocol, certificate, offered, resuming, .. } = self;
        format!("{protocol} {certificate} {offered} {resuming}")
    }

    /// Its line of the table.
    pub fn line(&self, ratio: &str) -> String {
        let Self { server, protocol, certificate, offered, key_exchange, connects, resumed, .. } = self;
        let Self { per_second, cpu_us_per_connect, latency_ms, noise, .. } = self;
        let ended: u64 = self.ended.values().sum();
        format!(
            "| {server}; {protocol} | {certificate} | {offered}, {key_exchange} | {connects} | {resumed} \
             | {cpu_us_per_connect:.0} µs | {ratio} | {per_second:.0} | {} | {ended} | {} |",
            millis(latency_ms),
            noise.cells()
        )
    }
}

//! The row of those scenarios in which clients read what was there before they came.

use serde::{Deserialize, Serialize};

use crate::report::checked::Checked;
use crate::report::noise::Noise;

/// Clients that read what was there before they came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replay {
    pub scenario: String,
    pub protocol: String,
    pub source: String,
    pub clients: usize,
    pub checked: Checked,
    pub seconds: f64,
    pub per_second: f64,
    pub per_cpu_second: f64,
    /// What the server received from Kafka meanwhile, and how large what was sent to it was.
    pub read_mib: f64,
    pub range_mib: f64,
    pub noise: Noise,
}

pub const HEAD: &str = "| replay | protocol | source | clients | events/s | events a CPU second | read / range | delivered | wrong | core: server / others / tool |";

impl Replay {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { scenario, protocol, source, clients, checked, per_second, per_cpu_second, .. } = self;
        let Self { read_mib, range_mib, noise, .. } = self;
        format!(
            "| {scenario} | {protocol} | {source} | {clients} | {per_second:.0} | {per_cpu_second:.0} \
             | {read_mib:.1} / {range_mib:.1} MiB | {} | {} |",
            checked.cells(),
            noise.cells()
        )
    }
}

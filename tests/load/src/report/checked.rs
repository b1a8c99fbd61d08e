//! What arrived, and what did not.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::tally::Tally;

/// What arrived, and what did not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checked {
    pub delivered: u64,
    pub lost: u64,
    /// Of those lost, how many gap events told of.
    pub announced: u64,
    pub repeated: u64,
    pub disordered: u64,
    pub gaps: BTreeMap<String, u64>,
    /// Connections that ended before they were meant to.
    pub ended: BTreeMap<String, u64>,
}

impl Checked {
    /// What a tally says, and what was missing.
    pub fn of(tally: &Tally, lost: u64) -> Self {
        Self {
            delivered: tally.delivered,
            lost,
            announced: tally.announced,
            repeated: tally.repeated,
            disordered: tally.disordered,
            gaps: tally.gaps.clone(),
            ended: tally.ended.clone(),
        }
    }

    /// For a table: how many came, and all that is wrong.
    pub fn cells(&self) -> String {
        let Self { delivered, lost, announced, repeated, disordered, .. } = self;
        let ended: u64 = self.ended.values().sum();
        let wrong = [
            (*lost, "lost"),
            (*announced, "of them announced"),
            (*repeated, "repeated"),
            (*disordered, "disordered"),
            (ended, "connections ended"),
        ];
        let wrong: Vec<_> = wrong
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        format!("{delivered} | {}", if wrong.is_empty() { "none".to_owned() } else { wrong.join(", ") })
    }
}

/// Median, 99th percentile and largest, in milliseconds.
pub fn quantiles(latency: &Histogram<u64>) -> [f64; 3] {
    [0.5, 0.99, 1.0].map(|quantile| latency.value_at_quantile(quantile) as f64 / 1e3)
}

/// For a table.
pub fn millis([p50, p99, max]: &[f64; 3]) -> String {
    format!("{p50:.1}, {p99:.1}, {max:.0} ms")
}

//! How far a figure can be trusted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::server::usage::Spent;

/// Shares of the time that a figure was taken over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Noise {
    /// Of a core, by the server.
    pub server: f64,
    /// Of the server's cores, by anything else.
    pub others: f64,
    /// Of a core, by the tool; near 1, latencies are the tool's own.
    pub tool: f64,
}

impl Noise {
    /// From what was spent.
    pub fn of(spent: &Spent) -> Self {
        let share = |time: Duration| time.as_secs_f64() / spent.elapsed.as_secs_f64();
        Self { server: share(spent.cpu), others: share(spent.others), tool: share(spent.own) }
    }

    /// For a table: the server's cores, then the tool's.
    pub fn cells(&self) -> String {
        let [server, others, tool] = [self.server, self.others, self.tool].map(|share| share * 100.0);
        format!("{server:.0} / {others:.0} / {tool:.0} %")
    }
}

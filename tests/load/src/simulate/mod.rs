//! What more cores and more clients would come to: first what was measured beside what is computed for the same, then what
//! nobody has measured. [`world`] is the server as a queue, [`costs`] what things cost.

mod check;
pub mod costs;
pub mod predict;
mod world;

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::report::Report;
use crate::report::row::Row;
use crate::simulate::costs::Costs;

/// What is simulated.
#[derive(Debug, Clone, ClapArgs)]
pub struct Simulate {
    /// What the tool has measured: its JSON, of scale and others, or a suite's figures.json. Several count together, the
    /// first of a kind.
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    pub from: Vec<PathBuf>,
    /// Cores of the server.
    #[arg(long, default_value_t = 32)]
    pub cores: usize,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What things cost; what is measured counts more.
    #[command(flatten)]
    pub costs: Costs,
}

/// A figure that was computed, and measured if it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Simulated {
    pub what: String,
    pub unit: String,
    pub computed: f64,
    pub measured: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// Where a file of measurements cannot be read.
pub fn run(simulate: &Simulate, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let rows = costs::rows(&simulate.from)?;
    let costs = simulate.costs.measured(&rows);
    let rare = costs.rare(&rows);
    report.note(format!("{costs:.2?}; where events are rare {:.2} µs a wake", rare.wake_us));
    check::all(&rows, &costs, &rare, simulate.seed, report);
    predict::all(simulate, &rare, options, report);
    Ok(())
}

fn add(report: &mut Report, what: String, unit: &str, computed: f64, measured: Option<f64>) {
    report.add(Row::Simulated(Simulated { what, unit: unit.to_owned(), computed, measured }));
}

pub const HEAD: &str = "| simulated | computed | measured | off by |";

impl Simulated {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { what, unit, computed, measured } = self;
        let (measured, off) = match measured {
            None => (String::new(), String::new()),
            Some(measured) => (
                format!("{} {unit}", figures(*measured)),
                format!("{:+.0} %", (computed / measured - 1.0) * 100.0),
            ),
        };
        format!("| {what} | {} {unit} | {measured} | {off} |", figures(*computed))
    }
}

/// With as many digits as mean anything.
fn figures(number: f64) -> String {
    match number.abs() {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

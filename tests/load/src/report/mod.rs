//! The figures, as Markdown for people and as JSON for programs.

pub mod checked;
pub mod machine;
pub mod noise;
pub mod plot;
pub mod row;
pub mod targets;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::args::{Options, Peer};
use crate::report::machine::Machine;
use crate::report::row::{HEADS, Row};

/// All that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    /// What was left out or failed, and why.
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
    /// The steps of the suite that rows are from.
    #[serde(default)]
    pub steps: Vec<String>,
}

impl Report {
    /// Nothing yet, of this machine.
    pub fn new(options: &Options) -> Self {
        Self { machine: Machine::this(options), notes: Vec::new(), rows: Vec::new(), steps: Vec::new() }
    }

    /// Adds a row, and shows it.
    pub fn add(&mut self, row: Row) {
        eprintln!("  {}", serde_json::to_string(&row).unwrap_or_default());
        self.rows.push(row);
    }

    /// Adds a note, once, and shows it.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            eprintln!("! {note}");
            self.notes.push(note);
        }
    }

    /// Takes over what another process has measured.
    pub fn absorb(&mut self, other: Self) {
        self.rows.extend(other.rows);
        other.notes.into_iter().for_each(|note| self.note(note));
    }

    /// The figure of a row as a share of what nchan needs for the same.
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        let ours = row.compared()?;
        let of_the_kind = self.rows.iter().filter(|other| other.head() == row.head());
        let mut peers = of_the_kind.filter_map(Row::compared);
        let peer = peers.find(|peer| peer.server == Peer::Nchan.name() && peer.work == ours.work)?;
        (peer.figure > 0.0).then(|| ours.figure / peer.figure)
    }

    /// The figure of a row with a coding as a share of what the same server needs without one.
    pub fn of_uncoded(&self, row: &Row) -> Option<f64> {
        let Row::Fanout(coded) = row else { return None };
        let plain = self.rows.iter().find_map(|other| match other {
            Row::Fanout(other) if coded.is_coded_form_of(other) => Some(other),
            _ => None,
        })?;
        Some(coded.cpu_us_per_delivery / plain.cpu_us_per_delivery)
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// As tables.
    pub fn markdown(&self) -> String {
        let mut out = self.machine.markdown();
        for head in HEADS {
            let rows: Vec<_> = self.rows.iter().filter(|row| row.head() == head).collect();
            if !rows.is_empty() {
                let rule = "|---".repeat(head.matches('|').count() - 1);
                let _ = writeln!(out, "\n{head}\n{rule}|");
                for row in rows {
                    out.extend([row.line(self.ratio(row), self.of_uncoded(row)).as_str(), "\n"]);
                }
            }
        }
        if !self.notes.is_empty() {
            out.push('\n');
            self.notes.iter().for_each(|note| out.extend(["- ", note, "\n"]));
        }
        out
    }
}

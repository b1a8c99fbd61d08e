//! One measurement of any kind, and what tables and targets want to know of it.

use serde::{Deserialize, Serialize};

use crate::scenario::attack::Attack;
use crate::scenario::connect::Connect;
use crate::scenario::delay::Delay;
use crate::scenario::fanout::Fanout;
use crate::scenario::filters::Filters;
use crate::scenario::herd::Herd;
use crate::scenario::idle::Idle;
use crate::scenario::keyed::Keyed;
use crate::scenario::replay::Replay;
use crate::scenario::return_storm::Return;
use crate::scenario::scale::fit::Fit;
use crate::scenario::scale::point::Point;
use crate::scenario::slow::Slow;
use crate::scenario::snapshots::Snapshots;
use crate::scenario::streams::Streams;
use crate::scenario::workers::Workers;
use crate::scenario::{
    attack, connect, delay, fanout, filters, herd, idle, keyed, replay, return_storm, scale, slow, snapshots,
    streams, workers,
};
use crate::simulate::{self, Simulated};

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    /// Of `sparse`, `dense`, `rooms` and the floor.
    Fanout(Fanout),
    /// Of `idle`.
    Idle(Idle),
    /// Of `streams`.
    Streams(Streams),
    /// Of `connect`.
    Connect(Connect),
    /// Of `return`.
    Return(Return),
    /// Of `slow`.
    Slow(Slow),
    /// Of `attack`.
    Attack(Attack),
    /// Of `delay`.
    Delay(Delay),
    /// Of `workers`.
    Workers(Workers),
    /// Of `resume` and `history`.
    Replay(Replay),
    /// Of `herd`.
    Herd(Herd),
    /// Of `keyed`.
    Keyed(Keyed),
    /// Of `filters`.
    Filters(Filters),
    /// Of `snapshots`.
    Snapshots(Snapshots),
    /// Of `scale`.
    Scale(Point),
    /// What several of these come to.
    Fit(Fit),
    /// Of `simulate`.
    Simulated(Simulated),
}

/// What a row says beside those of other servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared<'a> {
    /// The server.
    pub server: &'a str,
    /// What it did; only rows that did the same are compared.
    pub work: String,
    /// What that cost: less is better.
    pub figure: f64,
}

/// Heads of all tables, in their order.
pub const HEADS: [&str; 17] = [
    fanout::HEAD,
    idle::HEAD,
    streams::HEAD,
    connect::HEAD,
    return_storm::HEAD,
    slow::HEAD,
    attack::HEAD,
    delay::HEAD,
    workers::HEAD,
    replay::HEAD,
    herd::HEAD,
    keyed::HEAD,
    filters::HEAD,
    snapshots::HEAD,
    scale::point::HEAD,
    scale::fit::HEAD,
    simulate::HEAD,
];

impl Row {
    /// The head of its table.
    pub fn head(&self) -> &'static str {
        match self {
            Self::Fanout(_) => fanout::HEAD,
            Self::Idle(_) => idle::HEAD,
            Self::Streams(_) => streams::HEAD,
            Self::Connect(_) => connect::HEAD,
            Self::Return(_) => return_storm::HEAD,
            Self::Slow(_) => slow::HEAD,
            Self::Attack(_) => attack::HEAD,
            Self::Delay(_) => delay::HEAD,
            Self::Workers(_) => workers::HEAD,
            Self::Replay(_) => replay::HEAD,
            Self::Herd(_) => herd::HEAD,
            Self::Keyed(_) => keyed::HEAD,
            Self::Filters(_) => filters::HEAD,
            Self::Snapshots(_) => snapshots::HEAD,
            Self::Scale(_) => scale::point::HEAD,
            Self::Fit(_) => scale::fit::HEAD,
            Self::Simulated(_) => simulate::HEAD,
        }
    }

    /// Its line in that table. `ratio` is its figure as a share of nchan's, if that did the same, and `uncoded` that
    /// of its own without a coding.
    pub fn line(&self, ratio: Option<f64>, uncoded: Option<f64>) -> String {
        let share = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2} ×"));
        let (ratio, uncoded) = (share(ratio), share(uncoded));
        match self {
            Self::Fanout(row) => row.line(&ratio, &uncoded),
            Self::Idle(row) => row.line(&ratio),
            Self::Streams(row) => row.line(&ratio),
            Self::Connect(row) => row.line(&ratio),
            Self::Return(row) => row.line(&ratio),
            Self::Slow(row) => row.line(),
            Self::Attack(row) => row.line(),
            Self::Delay(row) => row.line(),
            Self::Workers(row) => row.line(),
            Self::Replay(row) => row.line(),
            Self::Herd(row) => row.line(),
            Self::Keyed(row) => row.line(),
            Self::Filters(row) => row.line(),
            Self::Snapshots(row) => row.line(),
            Self::Scale(row) => row.line(),
            Self::Fit(row) => row.line(),
            Self::Simulated(row) => row.line(),
        }
    }

    /// What it says beside those of other servers, if there are others that can do this.
    pub fn compared(&self) -> Option<Compared<'_>> {
        let (server, work, figure) = match self {
            Self::Fanout(row) => (&row.server, row.work(), row.cpu_us_per_delivery),
            Self::Idle(row) => (&row.server, row.protocol.clone(), row.pss_kib_per_client),
            Self::Streams(row) => (&row.server, String::new(), row.kib_per_stream),
            Self::Connect(row) => (&row.server, row.work(), row.cpu_us_per_connect),
            Self::Return(row) => (&row.server, row.protocol.clone(), row.all_live_s),
            _ => return None,
        };
        Some(Compared { server, work, figure })
    }
}

//! The hub against naive models, through its public interface alone. Records go in, what readers get is
//! parsed by the independent parser, and the two are held against each other: each event once and in order,
//! or a gap that accounts for exactly what is missing.
//!
//! `PROPTEST_CASES` sets the number of cases of every property, which by default is small enough for CI.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod client;
mod conflated;
mod entries;
mod filters;
mod keyed;
mod memory;
mod merged;
mod past;
mod record;
mod replicas;
mod retention;
mod sharing;
mod single;
mod snapshots;
#[allow(dead_code, reason = "shared with the tests over sockets, which use more of it")]
#[path = "../it/support/sse_parser.rs"]
mod sse_parser;
mod topic;
mod vector;
mod waking;
mod wants;
mod wire;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;
use ssegate::config::{OnLag, Replay, Start};
use ssegate::hub::{Bounds, Cursor, Terms, Wish};

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(default: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    Config {
        cases: asked.unwrap_or(default),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    }
}

/// How many bytes a reader asks for: none, mostly fewer than this, or all there are.
fn max(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 4 => 1..most, 1 => Just(usize::MAX)]
}

/// Goes on until a step brings nothing more.
fn until_still(mut step: impl FnMut() -> bool) {
    let is_still = (0..10_000).any(|_| !step());
    assert!(is_still, "it comes to an end");
}

/// Bounds that are never reached.
const ROOM: Bounds =
    Bounds { events: usize::MAX, bytes: usize::MAX, age: Duration::from_secs(1 << 32), buffer: 0 };

/// Every id is honoured, however old.
const ANY_AGE: Replay = Replay {
    max_events: usize::MAX,
    max_age: Duration::from_secs(1 << 40),
    max_bytes: usize::MAX,
    timeout: Duration::from_secs(1 << 32),
};

/// Without an id begin at the head, be told what was missed.
const TERMS: Terms =
    Terms { start: Start::Latest, replay: ANY_AGE, on_lag: OnLag::Gap, rate: None, snapshots: true };

/// A reader that comes with this id.
fn cursor(id: Option<String>, terms: Terms) -> Cursor {
    Cursor::new(Wish { id, ..Wish::default() }, terms)
}

//! Figures that are looked up when somebody asks, and not counted where they change.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{OfPart, OfReading, OfRoute, OfUpstream};

/// What others know at this moment.
#[derive(Debug, Default)]
pub struct Figures {
    /// What events may take in all, in bytes.
    pub memory_limit: usize,
    /// The parts of that.
    pub memory: Vec<Part>,
    /// Feeds that are kept.
    pub feeds: usize,
    /// How many streams wait for their turn, by what they read.
    pub waiting: Vec<(&'static str, usize)>,
    /// How far upstreams are behind, where that can be known.
    pub lags: Vec<(Arc<str>, Lag)>,
    /// How old the newest event of a route is, where its source has no parameters.
    pub ages: Vec<(String, Duration)>,
}

/// A part of the memory.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// What it is for.
    pub name: &'static str,
    /// Bytes in use.
    pub used: usize,
    /// The most that it may take, where it has a limit of its own.
    pub limit: Option<usize>,
}

/// How far reading is behind an upstream's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Records that are there and were not read.
    pub records: u64,
    /// For how long.
    pub time: Duration,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Where figures are put to be encoded.
#[derive(Default)]
pub(super) struct Gauges {
    used: Family<OfPart, Gauge>,
    part_limit: Family<OfPart, Gauge>,
    limit: Gauge,
    feeds: Gauge,
    waiting: Family<OfReading, Gauge>,
    lag_records: Family<OfUpstream, Gauge>,
    lag: Family<OfUpstream, Seconds>,
    age: Family<OfRoute, Seconds>,
}

impl Gauges {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        let help = "Held of events: by logs, by the keys of snapshots, by history that was read, and by streams that cannot be decided on yet";
        registry.register_with_unit("memory_used", help, Unit::Bytes, gauges.used.clone());
        let help = "What all of that together may take";
        registry.register_with_unit("memory_limit", help, Unit::Bytes, gauges.limit.clone());
        let help = "What a part of it may take, within the whole";
        registry.register_with_unit("memory_part_limit", help, Unit::Bytes, gauges.part_limit.clone());
        registry.register("feeds", "Feeds that are kept", gauges.feeds.clone());
        let help = "Open streams that are behind and wait for their turn to read on, in memory or in history";
        registry.register("streams_waiting_for_turn", help, gauges.waiting.clone());
        let help =
            "Records that the upstream has and that were not read, of the topic or stream with the most";
        registry.register("upstream_lag_records", help, gauges.lag_records.clone());
        let help = "For how long the upstream has had records that were not read, or has told nothing; 0 when all is read";
        registry.register_with_unit("upstream_lag", help, Unit::Seconds, gauges.lag.clone());
        let help = "Since the newest event of a route whose source has no parameters came in";
        registry.register_with_unit("feed_age", help, Unit::Seconds, gauges.age.clone());
        gauges
    }

    /// What is not among the figures any more is shown no more.
    pub(super) fn set(&self, figures: &Figures) {
        self.limit.set(whole(figures.memory_limit));
        self.feeds.set(whole(figures.feeds));
        for Part { name, used, limit } in &figures.memory {
            self.used.get_or_create(&OfPart { part: name }).set(whole(*used));
            if let Some(limit) = limit {
                self.part_limit.get_or_create(&OfPart { part: name }).set(whole(*limit));
            }
        }
        for (reads, waiting) in &figures.waiting {
            self.waiting.get_or_create(&OfReading { reads }).set(whole(*waiting));
        }
        self.lag_records.clear();
        self.lag.clear();
        for (upstream, lag) in &figures.lags {
            let of = OfUpstream { upstream: upstream.to_string() };
            self.lag_records.get_or_create(&of).set(i64::try_from(lag.records).unwrap_or(i64::MAX));
            self.lag.get_or_create(&of).set(lag.time.as_secs_f64());
        }
        self.age.clear();
        for (route, age) in &figures.ages {
            self.age.get_or_create(&OfRoute { route: route.clone() }).set(age.as_secs_f64());
        }
    }
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

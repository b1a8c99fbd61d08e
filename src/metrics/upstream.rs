//! What is counted of upstreams, and of reading their history.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::labels::{OfUpstream, UpstreamOutcome, UpstreamReason};
use super::recent::{Recent, Whom};
use super::shown::Shown;
use crate::hub::Reason;

/// Everything about upstreams that is counted where it happens.
#[derive(Clone, Default)]
pub(super) struct Families {
    events_in: Family<OfUpstream, Counter>,
    conflated: Family<OfUpstream, Counter>,
    sampled_out: Family<OfUpstream, Counter>,
    gaps: Family<UpstreamReason, Counter>,
    up: Family<OfUpstream, Gauge>,
    reconnects: Family<OfUpstream, Counter>,
    troubles: Family<OfUpstream, Counter>,
    filtered: Family<OfUpstream, Counter>,
    undecided: Family<OfUpstream, Counter>,
    history: History,
}

#[derive(Debug, Clone, Default)]
struct History {
    queued: Family<OfUpstream, Gauge>,
    running: Family<OfUpstream, Gauge>,
    reads: Family<UpstreamOutcome, Counter>,
}

/// The handles of one upstream. Its series go with the last of them.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Events appended to logs.
    pub events_in: Counter,
    /// Events that a newer one of their key replaced, and that no client is sent.
    pub conflated: Counter,
    /// Events that are none of those which `sample` keeps.
    pub sampled_out: Counter,
    /// 1 while the link is up.
    pub up: Gauge,
    /// Links that followed a lost one, or that were tried in vain.
    pub reconnects: Counter,
    /// What went wrong and left the link up.
    pub troubles: Counter,
    /// Records that a filter left out.
    pub filtered: Counter,
    /// Records of which a filter could not tell.
    pub undecided: Counter,
    name: String,
    gaps: Family<UpstreamReason, Counter>,
    history: History,
    whom: Whom,
    recent: Arc<Recent>,
    _shown: Shown,
}

/// The handles of reading one upstream's history.
#[derive(Debug, Clone, Default)]
pub struct HistoryMetrics {
    /// Reads that wait for a slot.
    pub queued: Gauge,
    /// Reads that have one.
    pub running: Gauge,
    /// Reads that brought what was asked for.
    pub read: Counter,
    /// Reads that did not, and are tried again.
    pub failed: Counter,
}

impl Families {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let families = Self::default();
        let (own, history) = (&families, &families.history);
        registry.register(
            "events_in",
            "Events taken in from an upstream, once for each feed",
            own.events_in.clone(),
        );
        let help =
            "Events that a newer one of their key replaced before they were sent, on routes with conflate";
        registry.register("events_conflated", help, own.conflated.clone());
        let help = "Events that were left out on routes with sample";
        registry.register("events_sampled_out", help, own.sampled_out.clone());
        registry.register("source_gaps", "Gaps that happened to a source", own.gaps.clone());
        registry.register("upstream_up", "1 while the link to the upstream is up", own.up.clone());
        registry.register("upstream_reconnects", "Attempts to link up again", own.reconnects.clone());
        let help = "What went wrong at an upstream and left the link up: a topic that may not be read, say";
        registry.register("upstream_troubles", help, own.troubles.clone());
        let help = "Records that a route's filter left out, once for each feed";
        registry.register("filtered", help, own.filtered.clone());
        let help =
            "Records left out since a route's filter could not tell: a field that it names is not there, say";
        registry.register("filter_undecided", help, own.undecided.clone());
        let help = "Reads of an upstream's history that wait for one of replay.concurrency slots";
        registry.register("history_reads_queued", help, history.queued.clone());
        let help = "Reads of an upstream's history that are under way";
        registry.register("history_reads_running", help, history.running.clone());
        registry.register("history_reads", "Reads of an upstream's history", history.reads.clone());
        families
    }

    /// The upstream is no more.
    fn forget(&self, name: &str) {
        let (of, history) = (OfUpstream { upstream: name.to_owned() }, &self.history);
        let counters = [
            &self.events_in,
            &self.conflated,
            &self.sampled_out,
            &self.reconnects,
            &self.troubles,
            &self.filtered,
            &self.undecided,
        ];
        counters.iter().for_each(|family| _ = family.remove(&of));
        [&self.up, &history.queued, &history.running].iter().for_each(|family| _ = family.remove(&of));
        for reason in Reason::ALL {
            self.gaps.remove(&UpstreamReason { upstream: name.to_owned(), reason: reason.as_str() });
        }
        for outcome in OUTCOMES {
            history.reads.remove(&UpstreamOutcome { upstream: name.to_owned(), outcome });
        }
    }
}

impl Metrics {
    /// The handles of an upstream. The reasons for which its sources have gaps begin at 0, so that their growth is seen.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let (of, families) = (OfUpstream { upstream: name.to_owned() }, &self.upstreams);
        let begin = || {
            for reason in OF_SOURCES {
                let labels = UpstreamReason { upstream: name.to_owned(), reason: reason.as_str() };
                drop(families.gaps.get_or_create(&labels));
            }
            let Families { events_in, conflated, sampled_out, reconnects, troubles, .. } = families;
            let Families { filtered, undecided, .. } = families;
            let counters = [events_in, conflated, sampled_out, reconnects, troubles, filtered, undecided];
            (counters.map(|family| family.get_or_create_owned(&of)), families.up.get_or_create_owned(&of))
        };
        let (all, gone) = (families.clone(), name.to_owned());
        let (made, shown) = self.handles.show("upstream", name, begin, move || all.forget(&gone));
        let ([events_in, conflated, sampled_out, reconnects, troubles, filtered, undecided], up) = made;
        UpstreamMetrics {
            events_in,
            conflated,
            sampled_out,
            up,
            reconnects,
            troubles,
            filtered,
            undecided,
            name: name.to_owned(),
            gaps: families.gaps.clone(),
            history: families.history.clone(),
            whom: Whom::Upstream(name.into()),
            recent: Arc::clone(&self.recent),
            _shown: shown,
        }
    }
}

impl UpstreamMetrics {
    /// Counts a gap that happened to a source of this upstream.
    pub fn gap(&self, reason: Reason) {
        let labels = UpstreamReason { upstream: self.name.clone(), reason: reason.as_str() };
        self.gaps.get_or_create(&labels).inc();
        self.recent.note("gap", &self.whom, reason.as_str());
    }

    /// Something is wrong with this upstream that was not before.
    pub fn error(&self, cause: &str) {
        self.recent.note("error", &self.whom, cause);
    }

    /// The handles of reading its history, where it keeps some.
    pub fn history(&self) -> HistoryMetrics {
        let of = OfUpstream { upstream: self.name.clone() };
        let reads = |outcome| {
            let labels = UpstreamOutcome { upstream: self.name.clone(), outcome };
            self.history.reads.get_or_create_owned(&labels)
        };
        HistoryMetrics {
            queued: self.history.queued.get_or_create_owned(&of),
            running: self.history.running.get_or_create_owned(&of),
            read: reads(OUTCOMES[0]),
            failed: reads(OUTCOMES[1]),
        }
    }
}

/// What reading history comes to.
const OUTCOMES: [&str; 2] = ["read", "failed"];

/// Why a source has a gap, which all of its readers are told.
const OF_SOURCES: [Reason; 6] = [
    Reason::UpstreamLost,
    Reason::Undecodable,
    Reason::TooLarge,
    Reason::Trimmed,
    Reason::Recreated,
    Reason::SnapshotLimit,
];

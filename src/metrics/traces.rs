//! What is counted of traces.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Metrics;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

/// Everything about traces.
#[derive(Default)]
pub(super) struct Families {
    spans: Family<OfOutcome, Counter>,
    exports: Family<OfOutcome, Counter>,
}

/// The handles of traces.
#[derive(Debug, Clone)]
pub struct TraceMetrics {
    /// Spans that the collector has taken.
    pub exported: Counter,
    /// Spans for which there was no room.
    pub dropped: Counter,
    /// Spans that the collector did not want.
    pub rejected: Counter,
    /// Messages that the collector has taken.
    pub sent: Counter,
    /// Attempts at such a message that have failed.
    pub failed: Counter,
}

impl Families {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register("trace_spans", "Spans of traces that have ended", families.spans.clone());
        registry.register("trace_exports", "Messages to the collector of traces", families.exports.clone());
        families
    }
}

impl Metrics {
    /// The handles of traces, where there are any.
    pub fn traces(&self) -> TraceMetrics {
        let spans = |outcome| self.traces.spans.get_or_create_owned(&OfOutcome { outcome });
        let exports = |outcome| self.traces.exports.get_or_create_owned(&OfOutcome { outcome });
        TraceMetrics {
            exported: spans("exported"),
            dropped: spans("dropped"),
            rejected: spans("rejected"),
            sent: exports("sent"),
            failed: exports("failed"),
        }
    }
}

//! What is counted of decisions, and of those who are asked for them. Labelled by what stands in the configuration,
//! never by who the client is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::shown::Shown;

/// Labels of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    route: String,
    provider: String,
    outcome: &'static str,
}

/// Labels of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: String,
}

/// Labels of a question to the outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    provider: String,
    outcome: &'static str,
}

/// Everything about who may listen.
pub struct AuthMetrics {
    decisions: Decisions,
    refreshes: Family<Asked, Counter>,
    refreshed: Family<OfProvider, Gauge>,
    forwards: Family<Asked, Counter>,
    latency: Family<OfProvider, Histogram, fn() -> Histogram>,
    told: Mutex<Option<Instant>>,
}

/// Verdicts, and which there have been: their labels are found out as they come.
#[derive(Clone, Default)]
pub(super) struct Decisions {
    counters: Family<Decision, Counter>,
    known: Arc<Mutex<HashSet<Decision>>>,
}

/// The handles of a key set. Its series go with the last of them.
pub struct JwksMetrics {
    fetched: Counter,
    failed: Counter,
    at: Gauge,
    _shown: Shown,
}

/// The handles of an endpoint that is asked. Its series go with the last of them.
pub struct ForwardMetrics {
    answered: Counter,
    failed: Counter,
    latency: Histogram,
    _shown: Shown,
}

impl Decisions {
    fn of(&self, route: &str, provider: &str, outcome: &'static str) -> Counter {
        let labels = Decision { route: route.to_owned(), provider: provider.to_owned(), outcome };
        if let Some(counter) = self.counters.get(&labels) {
            return counter.clone();
        }
        self.known.lock().insert(labels.clone());
        self.counters.get_or_create_owned(&labels)
    }

    /// The route is no more.
    pub fn forget(&self, route: &str) {
        for gone in self.known.lock().extract_if(|labels| labels.route == route) {
            self.counters.remove(&gone);
        }
    }
}

impl AuthMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            decisions: Decisions::default(),
            refreshes: Family::default(),
            refreshed: Family::default(),
            forwards: Family::default(),
            latency: Family::new_with_constructor(latency),
            told: Mutex::default(),
        };
        registry.register(
            "auth_decisions",
            "Requests that were let in or not",
            metrics.decisions.counters.clone(),
        );
        registry.register("jwks_fetches", "Fetches of a key set", metrics.refreshes.clone());
        let help = "When a key set was fetched last, in seconds since 1970";
        registry.register_with_unit("jwks_fetched_timestamp", help, Unit::Seconds, metrics.refreshed.clone());
        registry.register(
            "forward_questions",
            "Questions to endpoints that decide",
            metrics.forwards.clone(),
        );
        let help = "How long endpoints take to decide";
        registry.register_with_unit("forward_duration", help, Unit::Seconds, metrics.latency.clone());
        metrics
    }

    pub(super) fn decisions(&self) -> Decisions {
        self.decisions.clone()
    }
}

impl Metrics {
    /// Verdicts of this provider on this route begin at 0: that somebody is let in, and that it cannot be told.
    pub fn auth_begins(&self, route: &str, provider: &str) {
        for outcome in ["allowed", "undecided"] {
            drop(self.auth.decisions.of(route, provider, outcome));
        }
    }

    /// Counts a verdict: `allowed`, `undecided`, or why not. The provider is `none` where no credential was there.
    pub fn auth_decision(&self, route: &str, provider: &str, outcome: &'static str) {
        self.auth.decisions.of(route, provider, outcome).inc();
    }

    /// Logs a rule that could not be evaluated, at most once a second: clients decide how often it happens.
    pub fn rule_failed(&self, route: &str, error: &str) {
        let mut told = self.auth.told.lock();
        if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
            *told = Some(Instant::now());
            let error: String = error.chars().filter(|c| !c.is_control()).take(200).collect();
            tracing::warn!(route, error, "a rule cannot be evaluated, which refuses the client");
        }
    }

    /// The handles of a key set.
    pub fn jwks(&self, provider: &str) -> JwksMetrics {
        let [fetched, failed] =
            ["fetched", "failed"].map(|outcome| Asked { provider: provider.to_owned(), outcome });
        let of = OfProvider { provider: provider.to_owned() };
        let (refreshes, refreshed) = (self.auth.refreshes.clone(), self.auth.refreshed.clone());
        let begin = || {
            let counters = [&fetched, &failed].map(|labels| self.auth.refreshes.get_or_create_owned(labels));
            (counters, self.auth.refreshed.get_or_create_owned(&of))
        };
        let gone = (fetched.clone(), failed.clone(), of.clone());
        let forget = move || {
            [&gone.0, &gone.1].iter().for_each(|labels| _ = refreshes.remove(labels));
            refreshed.remove(&gone.2);
        };
        let (([fetched, failed], at), shown) = self.handles.show("jwks", provider, begin, forget);
        JwksMetrics { fetched, failed, at, _shown: shown }
    }

    /// The handles of an endpoint that is asked.
    pub fn forward(&self, provider: &str) -> ForwardMetrics {
        let [answered, failed] =
            ["answered", "failed"].map(|outcome| Asked { provider: provider.to_owned(), outcome });
        let of = OfProvider { provider: provider.to_owned() };
        let (forwards, latency) = (self.auth.forwards.clone(), self.auth.latency.clone());
        let begin = || {
            let counters = [&answered, &failed].map(|labels| self.auth.forwards.get_or_create_owned(labels));
            (counters, self.auth.latency.get_or_create_owned(&of))
        };
        let gone = (answered.clone(), failed.clone(), of.clone());
        let forget = move || {
            [&gone.0, &gone.1].iter().for_each(|labels| _ = forwards.remove(labels));
            latency.remove(&gone.2);
        };
        let (([answered, failed], latency), shown) = self.handles.show("forward", provider, begin, forget);
        ForwardMetrics { answered, failed, latency, _shown: shown }
    }
}

impl JwksMetrics {
    /// Counts a fetch.
    pub fn fetched(&self, whole: bool) {
        if !whole {
            self.failed.inc();
            return;
        }
        self.fetched.inc();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}

impl ForwardMetrics {
    /// Counts a question, whether there was an answer, and how long it took.
    pub fn answered(&self, took: Duration, whole: bool) {
        if whole { &self.answered } else { &self.failed }.inc();
        self.latency.observe(took.as_secs_f64());
    }
}

/// From a millisecond to 16 seconds.
fn latency() -> Histogram {
    Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)))
}

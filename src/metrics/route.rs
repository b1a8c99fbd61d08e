//! What is counted of routes: their streams, what these are sent and how late, and what applications answer.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::labels::{OfRoute, RouteReason, RouteStatus};
use super::recent::{Recent, Whom};
use super::shown::Shown;
use crate::hub::Reason;

/// Everything about routes that is counted where it happens.
#[derive(Clone)]
pub(super) struct Families {
    subscribers: Family<OfRoute, Gauge>,
    replaying: Family<OfRoute, Gauge>,
    events_out: Family<OfRoute, Counter>,
    bytes_out: Family<OfRoute, Counter>,
    plain_out: Family<OfRoute, Counter>,
    left_out: Family<OfRoute, Counter>,
    withheld: Family<OfRoute, Counter>,
    undecided: Family<OfRoute, Counter>,
    delay: Family<OfRoute, Histogram, fn() -> Histogram>,
    gaps: Family<RouteReason, Counter>,
    ended: Family<RouteReason, Counter>,
    shed: Family<RouteReason, Counter>,
    proxied: Family<RouteStatus, Counter>,
    pages: Family<OfRoute, Counter>,
}

/// The handles of one route. Its series go with the last of them.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Open streams.
    pub subscribers: Gauge,
    /// Those of them that read what only the upstream still holds.
    pub replaying: Gauge,
    /// Events handed to streams.
    pub events_out: Counter,
    /// Bytes handed to streams, everything included.
    pub bytes_out: Counter,
    /// The same before compression.
    pub plain_out: Counter,
    /// Events that streams were not handed, as they were beyond `rate`.
    pub left_out: Counter,
    /// Events that streams were not handed, by their clients' filters.
    pub withheld: Counter,
    /// Streams whose filter could not tell of an event.
    pub undecided: Counter,
    delay: Histogram,
    pages: Counter,
    name: String,
    gaps: Family<RouteReason, Counter>,
    ended: Family<RouteReason, Counter>,
    shed: Family<RouteReason, Counter>,
    whom: Whom,
    recent: Arc<Recent>,
    _shown: Shown,
}

/// The handles of one route that an application answers. Its series go with the last of them.
#[derive(Debug)]
pub struct ApplicationMetrics {
    name: String,
    proxied: Family<RouteStatus, Counter>,
    _shown: Shown,
}

impl Families {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let families = Self {
            subscribers: Family::default(),
            replaying: Family::default(),
            events_out: Family::default(),
            bytes_out: Family::default(),
            plain_out: Family::default(),
            left_out: Family::default(),
            withheld: Family::default(),
            undecided: Family::default(),
            delay: Family::new_with_constructor(delays),
            gaps: Family::default(),
            ended: Family::default(),
            shed: Family::default(),
            proxied: Family::default(),
            pages: Family::default(),
        };
        registry.register("subscribers", "Open streams", families.subscribers.clone());
        let help = "Open streams that read what only the upstream still holds";
        registry.register("streams_replaying", help, families.replaying.clone());
        registry.register("events_out", "Events handed to streams", families.events_out.clone());
        registry.register_with_unit("sent", "Handed to streams", Unit::Bytes, families.bytes_out.clone());
        let help = "Handed to streams, as it is before it is compressed";
        registry.register_with_unit("sent_plain", help, Unit::Bytes, families.plain_out.clone());
        let help = "Events that streams were not handed, as they were beyond the rate of their route";
        registry.register("events_left_out", help, families.left_out.clone());
        let help = "Events that streams were not handed, by what their clients' query or claims say to the filter of their route";
        registry.register("events_withheld", help, families.withheld.clone());
        let help = "Streams whose filter could not tell of an event, which they were not handed";
        registry.register("streams_filter_undecided", help, families.undecided.clone());
        let help = "From the broker's timestamp of an event, or its arrival where there is none, to its being handed \
                    to a stream's connection; a sample";
        registry.register_with_unit("delivery_delay", help, Unit::Seconds, families.delay.clone());
        registry.register("client_gaps", "Gaps that one client was told", families.gaps.clone());
        registry.register("streams_ended", "Streams that ended", families.ended.clone());
        registry.register("streams_shed", "Streams for which there was no room", families.shed.clone());
        let help = "Requests that an application was to answer";
        registry.register("proxied_requests", help, families.proxied.clone());
        registry.register("pages", "Pages of what there was that were given", families.pages.clone());
        families
    }
}

impl Metrics {
    /// The handles of a route whose streams end, or find no room, for these reasons. All that can be counted begins at
    /// 0, so that its growth is seen.
    pub fn route(
        &self,
        name: &str,
        ends: impl IntoIterator<Item = &'static str>,
        sheds: impl IntoIterator<Item = &'static str>,
    ) -> RouteMetrics {
        let reasons = [
            OF_CLIENTS.into_iter().map(Reason::as_str).collect(),
            ends.into_iter().collect(),
            sheds.into_iter().collect(),
        ];
        let (families, decisions) = (self.routes.clone(), self.auth.decisions());
        let (route, known) = (name.to_owned(), reasons.clone());
        let forget = move || {
            families.forget(&route, &known);
            decisions.forget(&route);
        };
        let (metrics, shown) = self.handles.show("route", name, || self.begin_route(name, &reasons), forget);
        metrics(shown)
    }

    fn begin_route(&self, name: &str, reasons: &Reasons) -> impl FnOnce(Shown) -> RouteMetrics + use<> {
        let (of, families) = (OfRoute { route: name.to_owned() }, &self.routes);
        let begin = |family: &Family<RouteReason, Counter>, reason| {
            drop(family.get_or_create(&RouteReason { route: name.to_owned(), reason }));
        };
        for (family, reasons) in families.by_reason().into_iter().zip(reasons) {
            reasons.iter().for_each(|reason| begin(family, reason));
        }
        let subscribers = families.subscribers.get_or_create_owned(&of);
        let replaying = families.replaying.get_or_create_owned(&of);
        let events_out = families.events_out.get_or_create_owned(&of);
        let bytes_out = families.bytes_out.get_or_create_owned(&of);
        let plain_out = families.plain_out.get_or_create_owned(&of);
        let left_out = families.left_out.get_or_create_owned(&of);
        let withheld = families.withheld.get_or_create_owned(&of);
        let undecided = families.undecided.get_or_create_owned(&of);
        let delay = families.delay.get_or_create_owned(&of);
        let pages = families.pages.get_or_create_owned(&of);
        let name = name.to_owned();
        let [gaps, ended, shed] = families.by_reason().map(Family::clone);
        let (whom, recent) = (Whom::Route(name.as_str().into()), Arc::clone(&self.recent));
        move |shown| RouteMetrics {
            subscribers,
            replaying,
            events_out,
            bytes_out,
            plain_out,
            left_out,
            withheld,
            undecided,
            delay,
            pages,
            name,
            gaps,
            ended,
            shed,
            whom,
            recent,
            _shown: shown,
        }
    }

    /// The handles of a route that an application answers. Its failures begin at 0.
    pub fn application(&self, name: &str) -> ApplicationMetrics {
        let (proxied, decisions, route) =
            (self.routes.proxied.clone(), self.auth.decisions(), name.to_owned());
        let begin = || {
            for status in [502, 503, 504] {
                drop(self.routes.proxied.get_or_create(&RouteStatus { route: name.to_owned(), status }));
            }
        };
        let forget = move || {
            for status in 100..1_000 {
                proxied.remove(&RouteStatus { route: route.clone(), status });
            }
            decisions.forget(&route);
        };
        let ((), shown) = self.handles.show("application", name, begin, forget);
        ApplicationMetrics { name: name.to_owned(), proxied: self.routes.proxied.clone(), _shown: shown }
    }
}

impl ApplicationMetrics {
    /// Counts a request that the application was to answer, by the status that the client was given.
    pub fn answered(&self, status: u16) {
        self.proxied.get_or_create(&RouteStatus { route: self.name.clone(), status }).inc();
    }
}

/// Why clients have gaps, streams end, and there is no room for them.
type Reasons = [Vec<&'static str>; 3];

impl Families {
    fn by_reason(&self) -> [&Family<RouteReason, Counter>; 3] {
        [&self.gaps, &self.ended, &self.shed]
    }

    /// The route is no more.
    fn forget(&self, name: &str, reasons: &Reasons) {
        let of = OfRoute { route: name.to_owned() };
        self.subscribers.remove(&of);
        self.replaying.remove(&of);
        let sent = [&self.events_out, &self.bytes_out, &self.plain_out];
        let counters = [&self.left_out, &self.withheld, &self.undecided].into_iter().chain(sent);
        counters.for_each(|family| _ = family.remove(&of));
        self.delay.remove(&of);
        self.pages.remove(&of);
        for (family, reasons) in self.by_reason().into_iter().zip(reasons) {
            for reason in reasons {
                family.remove(&RouteReason { route: name.to_owned(), reason });
            }
        }
    }
}

impl RouteMetrics {
    /// Counts events that a stream is handed. Returns whether to measure how late they are: that is every time while few
    /// streams are open, and with each sixty-fourth event where many are, so that their number never makes it dear.
    pub fn delivered(&self, events: u64) -> bool {
        let before = self.events_out.inc_by(events);
        self.subscribers.get() <= FEW || before / SAMPLED != (before + events) / SAMPLED
    }

    /// How late events were handed to a stream's connection.
    pub fn delayed(&self, delay: Duration) {
        self.delay.observe(delay.as_secs_f64());
    }

    /// Counts a page with so many events in so many bytes.
    pub fn page(&self, events: usize, bytes: usize) {
        self.pages.inc();
        self.events_out.inc_by(events as u64);
        self.bytes_out.inc_by(bytes as u64);
        self.plain_out.inc_by(bytes as u64);
    }

    /// Counts a gap that one client was told.
    pub fn gap(&self, reason: Reason) {
        self.gaps.get_or_create(&self.with(reason.as_str())).inc();
        self.recent.note("gap", &self.whom, reason.as_str());
    }

    /// Counts a stream for which there was no room, by why.
    pub fn shed(&self, reason: &'static str) {
        self.shed.get_or_create(&self.with(reason)).inc();
    }

    /// Counts a stream that ended, by why.
    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&self.with(reason)).inc();
    }

    fn with(&self, reason: &'static str) -> RouteReason {
        RouteReason { route: self.name.clone(), reason }
    }
}

/// From a millisecond to a minute.
fn delays() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

/// Streams of a route up to which every delay is measured.
const FEW: i64 = 64;
/// With which event of a route a delay is measured where there are more.
const SAMPLED: u64 = 64;

/// Why a client misses something that others may have got.
const OF_CLIENTS: [Reason; 8] = [
    Reason::Evicted,
    Reason::Trimmed,
    Reason::Recreated,
    Reason::Lagged,
    Reason::ReplayLimit,
    Reason::UnknownId,
    Reason::FeedIdle,
    Reason::SnapshotLimit,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Figures, Format};

    #[test]
    fn a_route_is_shown_for_as_long_as_somebody_counts_for_it() {
        let metrics = Metrics::new();
        let shown = |route: &str| {
            let text = metrics.encode(&Figures::default(), Format::Open);
            text.lines().filter(|line| line.contains(&format!("route=\"{route}\""))).count()
        };
        let (first, app) = (metrics.route("/r", ["client"], ["feeds"]), metrics.application("/a"));
        first.events_out.inc();
        app.answered(200);
        metrics.auth_decision("/r", "users", "expired");
        metrics.auth_decision("/a", "users", "expired");
        let all = shown("/r");
        let again = metrics.route("/r", ["client"], ["feeds"]);
        drop(first);
        assert_eq!((shown("/r"), again.events_out.get()), (all, 1), "it goes on counting");
        drop(again);
        assert_eq!((shown("/r"), shown("/a")), (0, 5));
        drop(app);
        assert_eq!(shown("/a"), 0);
        assert_eq!(metrics.route("/r", ["client"], ["feeds"]).events_out.get(), 0, "and would begin anew");
    }

    #[test]
    fn every_delay_counts_for_few_streams_and_a_sample_for_many() {
        let metrics = Metrics::new();
        let route = metrics.route("/r", [], []);
        route.subscribers.set(FEW);
        assert!((0..100).all(|_| route.delivered(1)));
        route.subscribers.set(FEW + 1);
        let measured = (0..6_400).filter(|_| route.delivered(1)).count();
        assert_eq!(measured, 100);
        assert!((0..10).all(|_| route.delivered(SAMPLED)), "a burst always holds such an event");
        route.delayed(Duration::from_millis(3));
        let text = metrics.encode(&Figures::default(), Format::Open);
        assert!(
            text.contains(r#"ssegate_delivery_delay_seconds_bucket{le="0.0025",route="/r"} 0"#),
            "{text}"
        );
        assert!(text.contains(r#"ssegate_delivery_delay_seconds_bucket{le="0.005",route="/r"} 1"#), "{text}");
    }
}

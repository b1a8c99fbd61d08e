//! OpenTelemetry traces, where they are asked for. Whether a request is traced is decided once, when it comes; whatever
//! belongs to it asks for a [`Trace`] that is there or not. `http` says what happens and what it is called; nothing here
//! knows of streams, and nobody ever waits for a collector.
//!
//! Reading order: [`Traces`] decides, a [`Trace`] is what a traced request and its streams share, a [`Span`] is what is told
//! of one of them, [`Exporter`] sends it. `context` is what requests say of traces.

mod context;
mod export;
mod span;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use data_encoding::HEXLOWER;
use http::HeaderMap;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

pub use export::Exporter;
pub use span::Span;

use crate::config::{self, TraceParent};
use crate::metrics::Metrics;
use context::{Parent, SpanId, TRACESTATE, TraceId};
use span::Kind;

/// Which requests are traced.
pub struct Traces {
    sample: f64,
    parent: TraceParent,
    /// To the exporter. What does not fit is dropped.
    queue: mpsc::Sender<otlp::Span>,
    dropped: Counter,
}

impl Traces {
    /// As configured, with what sends them to the collector.
    pub fn begin(config: &config::Traces, metrics: &Metrics) -> (Arc<Self>, Exporter) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let counted = metrics.traces();
        let traces =
            Self { sample: config.sample, parent: config.parent, queue, dropped: counted.dropped.clone() };
        (Arc::new(traces), Exporter::start(config, counted, spans))
    }

    /// The span of a request, if it is traced: the request's own parent decides if it counts, and else chance does. Of
    /// the others nothing is kept, nor made.
    pub fn request(self: &Arc<Self>, headers: &HeaderMap, is_of_proxy: bool) -> Option<Span> {
        let counts = match self.parent {
            TraceParent::Any => true,
            TraceParent::Proxies => is_of_proxy,
            TraceParent::None => false,
        };
        let parent = if counts { Parent::of(headers) } else { None };
        let is_sampled = parent.map_or_else(|| rand::random_bool(self.sample), |parent| parent.sampled);
        is_sampled.then(|| {
            let trace = Arc::new(Trace {
                traces: Arc::clone(self),
                id: parent.map_or_else(new_trace_id, |parent| parent.trace),
                request: new_span_id(),
                parent: parent.map(|parent| parent.span),
                state: parent.map(|_| context::state(headers)).unwrap_or_default(),
                came: SystemTime::now(),
                began: Instant::now(),
            });
            Span::of_request(&trace)
        })
    }
}

/// A request that is traced, and what belongs to it.
pub struct Trace {
    traces: Arc<Traces>,
    id: TraceId,
    /// The span of the request.
    request: SpanId,
    /// The span of whoever has sent the request.
    parent: Option<SpanId>,
    /// What goes with that.
    state: String,
    /// When the request came, by both clocks: a span lasts as long as it takes, whatever is done to the one on the wall.
    came: SystemTime,
    began: Instant,
}

impl Trace {
    /// Its number, as others write it.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.id)
    }

    /// A part of the request, or what follows from it, that begins now.
    pub fn span(self: &Arc<Self>, name: &'static str) -> Span {
        self.span_since(name, Instant::now())
    }

    /// One that began with the request.
    pub fn span_since_request(self: &Arc<Self>, name: &'static str) -> Span {
        self.span_since(name, self.began)
    }

    /// One that began then.
    pub fn span_since(self: &Arc<Self>, name: &'static str, began: Instant) -> Span {
        Span::new(self, Kind::Internal, new_span_id(), Some(self.request), name, began)
    }

    /// Has whoever gets these headers go on with the trace, as a part of the request.
    pub fn tell(&self, headers: &mut HeaderMap) {
        if self.parent.is_none() {
            // It belongs to a parent that does not count.
            headers.remove(TRACESTATE);
        }
        Parent { trace: self.id, span: self.request, sampled: true }.tell(headers);
    }

    /// Nanoseconds since 1970.
    fn nanoseconds(&self, at: Instant) -> u64 {
        let since = self.came.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from((since + at.duration_since(self.began)).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn new_trace_id() -> TraceId {
    rand::random_range(1..=u128::MAX).to_be_bytes()
}

fn new_span_id() -> SpanId {
    rand::random_range(1..=u64::MAX).to_be_bytes()
}

/// Spans that may wait for the collector, each of some 4 KiB at most.
const QUEUE: usize = 2_048;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn traces(sample: f64, parent: TraceParent) -> Arc<Traces> {
        let config = config::Traces {
            endpoint: "http://127.0.0.1:1/v1/traces".parse().unwrap(),
            roots: None,
            headers: HeaderMap::new(),
            sample,
            parent,
            service_name: "test".to_owned(),
            attributes: BTreeMap::new(),
            timeout: Duration::from_secs(1),
        };
        Traces::begin(&config, &Metrics::new()).0
    }

    fn headers(parent: &str) -> HeaderMap {
        [("traceparent", parent), ("tracestate", "a=1")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect()
    }

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[tokio::test]
    async fn the_parent_decides_where_it_counts_and_else_chance() {
        let some = |sample, parent, header, of_proxy| {
            traces(sample, parent).request(&headers(header), of_proxy).is_some()
        };
        use TraceParent::{Any, None, Proxies};
        for (parent, of_proxy, counts) in
            [(Any, false, true), (Proxies, false, false), (Proxies, true, true), (None, true, false)]
        {
            assert_eq!(some(0.0, parent, SAMPLED, of_proxy), counts, "{parent:?} {of_proxy}");
            assert_eq!(some(1.0, parent, UNSAMPLED, of_proxy), !counts, "{parent:?} {of_proxy}");
            assert!(!some(0.0, parent, "malformed", of_proxy) && some(1.0, parent, "malformed", of_proxy));
        }
        let half = traces(0.5, Any);
        let sampled = (0..10_000).filter(|_| half.request(&HeaderMap::new(), false).is_some()).count();
        assert!((4_500..5_500).contains(&sampled), "{sampled} of 10,000");
    }

    #[tokio::test]
    async fn who_is_told_goes_on_with_the_trace() {
        let mut told = headers(SAMPLED);
        let traces = traces(1.0, TraceParent::Any);
        let span = traces.request(&told, false).unwrap();
        span.trace().tell(&mut told);
        let parent = Parent::of(&told).unwrap();
        assert_eq!(HEXLOWER.encode(&parent.trace), &SAMPLED[3..35]);
        assert_eq!((parent.span, parent.sampled), (span.trace().request, true));
        assert_eq!(told["tracestate"], "a=1");

        let mut told = headers("malformed");
        let span = traces.request(&told, false).unwrap();
        span.trace().tell(&mut told);
        assert_eq!(Parent::of(&told).unwrap().trace, span.trace().id);
        assert!(!told.contains_key("tracestate"), "it is of another trace");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let (queue, mut spans) = mpsc::channel(2);
        let dropped = Counter::default();
        let traces = Traces { sample: 1.0, parent: TraceParent::Any, queue, dropped: dropped.clone() };
        let traces = Arc::new(traces);
        for _ in 0..5 {
            drop(traces.request(&HeaderMap::new(), false));
        }
        assert_eq!(dropped.get(), 3);
        drop(traces);
        let mut taken = Vec::new();
        while let Some(span) = spans.recv().await {
            taken.push(span.span_id);
        }
        assert_eq!(taken.len(), 2);
        assert_ne!(taken[0], taken[1]);
    }
}

//! Sends spans to the collector: OTLP over HTTP with protobuf. One message at a time, made of what has come within a
//! second, and tried again while the collector is away; meanwhile the queue fills, and what does not fit is dropped.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::response::Parts;
use http::{StatusCode, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::span::attribute;
use crate::config::Traces;
use crate::fetch::{Absence, Http};
use crate::metrics::TraceMetrics;

/// What sends spans, as long as there are some.
pub struct Exporter {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Sends what comes through this queue.
    pub(super) fn start(config: &Traces, metrics: TraceMetrics, queue: mpsc::Receiver<Span>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut headers = config.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        let export = Export {
            http: Http::new(config.roots.as_ref()),
            url: config.endpoint.clone(),
            collector: config.collector(),
            headers,
            timeout: config.timeout,
            resource: resource(config),
            metrics,
            absence: Absence::default(),
            queue,
            stop: stopped,
        };
        Self { stop, task: tokio::spawn(export.run()) }
    }

    /// Sends what there is still to send, for two seconds at the longest, and ends.
    pub async fn flush(mut self) {
        self.stop.send_replace(true);
        if timeout(FLUSH, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the collector of traces did not take the last ones in time");
        }
    }
}

struct Export {
    http: Http,
    url: Uri,
    /// How logs call it.
    collector: String,
    headers: HeaderMap,
    timeout: Duration,
    resource: Resource,
    metrics: TraceMetrics,
    absence: Absence,
    queue: mpsc::Receiver<Span>,
    stop: watch::Receiver<bool>,
}

/// Why the collector did not take a message.
enum Failed {
    /// It may another time, after this at the earliest.
    ForNow(String, Duration),
    /// It never will.
    ForGood(String),
}

impl Export {
    async fn run(mut self) {
        while let Some(spans) = self.gather().await {
            self.deliver(spans).await;
        }
    }

    /// What makes the next message; nothing once there will be no other.
    async fn gather(&mut self) -> Option<Vec<Span>> {
        let Self { queue, stop, .. } = self;
        let first = tokio::select! {
            biased;
            first = queue.recv() => first?,
            () = stopped(stop) => queue.try_recv().ok()?,
        };
        let mut spans = vec![first];
        let others = async {
            while spans.len() < BATCH
                && let Some(span) = queue.recv().await
            {
                spans.push(span);
            }
        };
        tokio::select! {
            biased;
            () = others => {}
            () = sleep(GATHER) => {}
            // What was there is taken: the others go first.
            () = stopped(stop) => {}
        }
        Some(spans)
    }

    /// Sends a message until the collector takes it, or says that it never will. At the end it is tried once.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let message = Bytes::from(self.message(spans).encode_to_vec());
        let mut wait = RETRY.start;
        loop {
            let is_last = *self.stop.borrow();
            match self.send(message.clone()).await {
                Ok(rejected) => {
                    self.metrics.exported.inc_by(count.saturating_sub(rejected));
                    self.metrics.rejected.inc_by(rejected.min(count));
                    return;
                }
                Err(Failed::ForGood(why)) => {
                    self.failed(&why);
                    self.metrics.rejected.inc_by(count);
                    return;
                }
                Err(Failed::ForNow(why, _)) if is_last => {
                    self.metrics.dropped.inc_by(count);
                    tracing::warn!(
                        collector = self.collector,
                        error = why,
                        spans = count,
                        "the last traces are lost"
                    );
                    return;
                }
                Err(Failed::ForNow(why, asked)) => {
                    self.failed(&why);
                    tokio::select! {
                        () = sleep(wait.max(asked)) => {}
                        () = stopped(&mut self.stop) => {}
                    }
                    wait = (wait * 2).min(RETRY.end);
                }
            }
        }
    }

    /// Sends a message once. Gives the number of spans that the collector did not want.
    async fn send(&self, message: Bytes) -> Result<u64, Failed> {
        let answer = self.http.post(self.url.clone(), self.headers.clone(), message, self.timeout).await;
        let (head, body) = answer.map_err(|why| {
            self.metrics.failed.inc();
            Failed::ForNow(why, Duration::ZERO)
        })?;
        if !head.status.is_success() {
            self.metrics.failed.inc();
            return Err(refusal(&head));
        }
        self.metrics.sent.inc();
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let partial = answer.partial_success.filter(|partial| partial.rejected_spans > 0);
        match partial {
            Some(partial) => {
                self.failed(&format!("it does not want some: {}", shown(&partial.error_message)));
                Ok(partial.rejected_spans.unsigned_abs())
            }
            None => {
                if let Some(failed) = self.absence.answered() {
                    tracing::info!(collector = self.collector, failed, "traces are taken again");
                }
                Ok(0)
            }
        }
    }

    fn failed(&self, error: &str) {
        match self.absence.failed() {
            Some(failed) => {
                tracing::warn!(collector = self.collector, failed, error, "traces are not taken");
            }
            None => tracing::debug!(collector = self.collector, error, "traces are not taken"),
        }
    }

    fn message(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let (name, version) = (env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let scope = InstrumentationScope { name, version, ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }
    }
}

/// Ends once there is an end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// What an answer means that is no success (OTLP, "OTLP/HTTP Response").
fn refusal(head: &Parts) -> Failed {
    let why = format!("it answers {}", head.status);
    let asked = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match head.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            Failed::ForNow(why, asked.map(Duration::from_secs).unwrap_or_default().min(ASKED))
        }
        _ => Failed::ForGood(why),
    }
}

/// What somebody else says, fit for the log.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What all spans are of.
fn resource(config: &Traces) -> Resource {
    // As a UUID of version 4 (RFC 9562 section 5.4), which is what others make of it.
    let random = rand::random::<u128>() & !(0xf000_c000 << 48) | (0x4000_8000 << 48);
    let id = format!("{random:032x}");
    let id = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    let own = [
        ("service.name", config.service_name.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &id),
    ];
    let own = own.into_iter().filter(|(key, _)| !config.attributes.contains_key(*key));
    let given = config.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let attributes =
        own.chain(given).map(|(key, value)| attribute(key, Value::StringValue(value.to_owned()))).collect();
    Resource { attributes, ..Resource::default() }
}

const AGENT: &str = concat!("ssegate/", env!("CARGO_PKG_VERSION"));
/// Spans of a message.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Between two attempts.
const RETRY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(10);
/// And at the longest, where the collector asks for it.
const ASKED: Duration = Duration::from_secs(60);
/// How long the end may take.
const FLUSH: Duration = Duration::from_secs(2);

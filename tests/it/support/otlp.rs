//! A collector of traces: takes OTLP over HTTP, keeps the spans, and can be out of order as the test likes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Given;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::serve::serve;
use super::tls::TestCa;
use super::wait::eventually;

/// The collector. Dropping it closes it with its connections.
pub struct Otlp {
    base: String,
    state: Arc<State>,
    _server: JoinSet<()>,
}

/// A span that has come.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// `Server`, `Internal`.
    pub kind: otlp::span::SpanKind,
    /// The number of its trace, as `traceparent` has it.
    pub trace: String,
    /// Its own.
    pub id: String,
    /// That of its parent, or "".
    pub parent: String,
    /// What goes with the parent.
    pub state: String,
    /// Whether the parent is elsewhere.
    pub is_remote: bool,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// The same.
    pub ended: u64,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
    /// Whether it has failed.
    pub failed: bool,
    /// The attributes of what it is of.
    pub resource: BTreeMap<String, Value>,
}

impl Span {
    /// An attribute, or null.
    pub fn get(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or(&Value::Null)
    }
}

struct State {
    /// What it answers; 0 is no answer.
    status: Mutex<u16>,
    /// How many spans of each message it does not want.
    rejects: Mutex<i64>,
    requests: Mutex<Vec<HeaderMap>>,
    spans: Mutex<Vec<Span>>,
}

impl Otlp {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self::listen(0, None).await
    }

    /// Listens on this port.
    pub async fn start_on(port: u16) -> Self {
        Self::listen(port, None).await
    }

    /// Over TLS, with a certificate of this authority.
    pub async fn start_tls(ca: &TestCa) -> Self {
        Self::listen(0, Some(TlsAcceptor::from(ca.server_config(&["http/1.1"])))).await
    }

    async fn listen(port: u16, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", listener.local_addr().expect("its address"));
        let state = Arc::new(State {
            status: Mutex::new(200),
            rejects: Mutex::default(),
            requests: Mutex::default(),
            spans: Mutex::default(),
        });
        let mut server = JoinSet::new();
        let told = Arc::clone(&state);
        server.spawn(serve(listener, tls, move |request| answer(request, Arc::clone(&told))));
        Self { base, state, _server: server }
    }

    /// What to configure.
    pub fn endpoint(&self) -> String {
        format!("{}/v1/traces", self.base)
    }

    /// From now on it answers with this status, and takes nothing unless that is 200; 0 never answers.
    pub fn say(&self, status: u16) {
        *self.state.status.lock() = status;
    }

    /// From now on it says that it did not want so many of each message.
    pub fn reject(&self, spans: i64) {
        *self.state.rejects.lock() = spans;
    }

    /// The header fields of all messages so far.
    pub fn requests(&self) -> Vec<HeaderMap> {
        self.state.requests.lock().clone()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.state.spans.lock().clone()
    }

    /// Waits for a span that is `wanted`.
    pub async fn span(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        eventually(what, async || {
            let spans = self.spans();
            let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
            spans.into_iter().find(&wanted).ok_or(format!("{names:?}"))
        })
        .await
    }

    /// Waits for a message, whatever becomes of it.
    pub async fn wait_requests(&self, count: usize) {
        eventually(&format!("{count} messages"), async || match self.requests().len() {
            seen if seen >= count => Ok(()),
            seen => Err(format!("{seen}")),
        })
        .await;
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Response<Full<Bytes>> {
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1/traces"));
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    state.requests.lock().push(request.headers().clone());
    let Ok(body) = request.into_body().collect().await else { return Response::default() };
    let message = ExportTraceServiceRequest::decode(body.to_bytes()).expect("a message of OTLP");
    let status = *state.status.lock();
    match status {
        0 => std::future::pending().await,
        200 => state.spans.lock().extend(message.resource_spans.iter().flat_map(spans)),
        _ => {}
    }
    let rejected_spans = *state.rejects.lock();
    let error_message = "too\nmany".to_owned();
    let partial_success =
        (rejected_spans > 0).then_some(ExportTracePartialSuccess { rejected_spans, error_message });
    let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    Response::builder().status(status).body(Full::new(body.into())).expect("a response")
}

fn spans(of: &otlp::ResourceSpans) -> Vec<Span> {
    let resource = attributes(&of.resource.as_ref().expect("what it is of").attributes);
    let all = of.scope_spans.iter().flat_map(|scope| &scope.spans);
    all.map(|span| Span {
        name: span.name.clone(),
        kind: span.kind(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state.clone(),
        is_remote: span.flags & otlp::SpanFlags::ContextIsRemoteMask as u32 != 0,
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        attributes: attributes(&span.attributes),
        failed: span.status.as_ref().is_some_and(|status| status.code() == otlp::status::StatusCode::Error),
        resource: resource.clone(),
    })
    .collect()
}

fn attributes(given: &[KeyValue]) -> BTreeMap<String, Value> {
    let all: BTreeMap<_, _> = given
        .iter()
        .map(|given| (given.key.clone(), value(given.value.as_ref().expect("a value"))))
        .collect();
    assert_eq!(all.len(), given.len(), "an attribute comes twice: {given:?}");
    all
}

fn value(given: &AnyValue) -> Value {
    match given.value.as_ref().expect("a value") {
        Given::StringValue(text) => json!(text),
        Given::IntValue(number) => json!(number),
        Given::ArrayValue(list) => list.values.iter().map(value).collect(),
        other => panic!("{other:?} is not expected"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("room");
        text
    })
}

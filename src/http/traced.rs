//! What requests and streams tell of themselves where they are traced, in the words of OpenTelemetry's semantic conventions
//! for HTTP and messaging: never a query, a header that lets somebody in, or a payload.
//!
//! The span of a request ends with the head of a stream, since a stream may last for weeks and a span is seen when it has
//! ended; below it `subscribe` lasts until it is fixed where the stream begins, and `stream` from then to its end. The span
//! of what an application answers lasts as long as the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{Method, Request, StatusCode, Version};

use super::answer::{Visit, authority};
use super::streams::{Control, End};
use crate::hub::{Reason, Wish};
use crate::traces::{Span, Trace};

impl Visit {
    /// The span of a request, if it is traced. Boxed, since few are, and hyper keeps the room.
    pub(super) fn begin_span<B>(&self, request: &Request<B>) -> Option<Box<Span>> {
        let traces = self.edge.traces.as_ref()?;
        let mut span = traces.request(request.headers(), self.proxied)?;
        let method = method(request.method());
        span.rename(method.unwrap_or("HTTP").to_owned());
        span.text("http.request.method", method.unwrap_or("_OTHER"));
        span.text("url.scheme", if self.is_secure(request) { "https" } else { "http" });
        span.text("url.path", request.uri().path());
        if let Ok(authority) = authority(request) {
            span.text("server.address", authority.host());
            if let Some(port) = authority.port_u16() {
                span.number("server.port", port.into());
            }
        }
        span.text("client.address", &self.client(request).addr.ip().to_canonical().to_string());
        span.text("network.protocol.version", version(request.version()));
        if let Some(agent) = request.headers().get(http::header::USER_AGENT) {
            span.text("user_agent.original", &String::from_utf8_lossy(agent.as_bytes()));
        }
        Some(Box::new(span))
    }
}

/// The route of a request is known: host, if it names one, and path as configured.
pub(super) fn routed(span: &mut Span, method: &Method, name: &str) {
    // A host has no slash.
    let path = name.find('/').map_or(name, |at| &name[at..]);
    span.rename(format!("{} {path}", self::method(method).unwrap_or("HTTP")));
    span.text("http.route", path);
}

/// The request is answered.
pub(super) fn answered(span: &mut Span, status: StatusCode) {
    span.number("http.response.status_code", status.as_u16().into());
    if status.is_server_error() {
        span.fails(status.as_str());
    }
}

/// A stream that is traced.
pub struct Traced {
    trace: Arc<Trace>,
    resume: &'static str,
    /// Why its client misses something from the beginning, each reason once.
    misses: Vec<Reason>,
    /// When it was fixed where it begins, if it was.
    fixed: Option<Instant>,
}

impl Traced {
    /// One that was asked for with this wish.
    pub fn new(trace: &Arc<Trace>, wish: &Wish) -> Self {
        let resume = match wish {
            Wish { id: Some(_), .. } => "id",
            Wish { since: Some(_), .. } => "since",
            Wish { .. } => "start",
        };
        Self { trace: Arc::clone(trace), resume, misses: Vec::new(), fixed: None }
    }

    /// The number of its trace.
    pub fn id(&self) -> String {
        self.trace.id()
    }

    /// Whether it is fixed where the stream begins.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Of what its client cannot be given any more it has been told, before it was fixed where all begins.
    pub fn misses(&mut self, gaps: &[Reason]) {
        for gap in gaps {
            if !self.misses.contains(gap) {
                self.misses.push(*gap);
            }
        }
    }

    /// It is fixed where the stream begins, which comes to pass once.
    pub fn fixed(&mut self, control: &Control) {
        let mut span = self.subscribe(control);
        if !self.misses.is_empty() {
            span.words("ssegate.gap", self.misses.iter().map(|gap| gap.as_str()));
        }
        drop(span);
        // One begins where the other ends.
        self.fixed = Some(Instant::now());
    }

    /// It has ended. Where it was never fixed where it begins, there is no more to tell than that.
    pub fn ended(self, control: &Control, why: End) {
        let Some(fixed) = self.fixed else {
            let mut span = self.subscribe(control);
            span.text("ssegate.stream.end", why.as_str());
            return;
        };
        let mut span = self.trace.span_since("stream", fixed);
        describe(&mut span, control);
        span.number("ssegate.stream.events", control.events.load(Ordering::Relaxed));
        span.number("ssegate.stream.bytes", control.bytes.load(Ordering::Relaxed));
        span.text("ssegate.stream.end", why.as_str());
    }

    fn subscribe(&self, control: &Control) -> Span {
        let mut span = self.trace.span_since_request("subscribe");
        span.text("messaging.operation.name", "subscribe");
        span.text("ssegate.resume", self.resume);
        describe(&mut span, control);
        span
    }
}

/// What is read, and the number that the log has of the stream.
fn describe(span: &mut Span, control: &Control) {
    span.number("ssegate.stream.id", control.id);
    span.text("messaging.system", &control.route.system);
    span.text("ssegate.upstream", &control.route.upstreams);
    if let Some(feed) = control.reading.feed() {
        span.text("messaging.destination.name", feed.key.source.name());
        span.text("ssegate.source", feed.key.source.kind());
    }
}

/// A method that is known to others; clients can make up more than anybody wants to tell apart.
fn method(method: &Method) -> Option<&'static str> {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ];
    let names = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    known.iter().position(|known| known == method).map(|at| names[at])
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

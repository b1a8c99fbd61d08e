//! A span: what is told of a request, or of a part of it. Of what comes from outside it keeps no more than some bytes, so
//! that the queue of spans is bounded.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use otlp::SpanFlags;
use otlp::status::StatusCode;

use super::Trace;
use super::context::SpanId;

pub(super) use otlp::span::SpanKind as Kind;

/// A span that has begun. It ends, and is told, when it is dropped.
pub struct Span {
    trace: Arc<Trace>,
    told: otlp::Span,
}

impl Span {
    /// Of the request itself.
    pub(super) fn of_request(trace: &Arc<Trace>) -> Self {
        let mut span = Self::new(trace, Kind::Server, trace.request, trace.parent, "", trace.began);
        if trace.parent.is_some() {
            span.told.flags |= SpanFlags::ContextIsRemoteMask as u32;
        }
        span
    }

    pub(super) fn new(
        trace: &Arc<Trace>,
        kind: Kind,
        id: SpanId,
        parent: Option<SpanId>,
        name: &str,
        began: Instant,
    ) -> Self {
        let told = otlp::Span {
            trace_id: trace.id.to_vec(),
            span_id: id.to_vec(),
            trace_state: trace.state.clone(),
            parent_span_id: parent.map(Vec::from).unwrap_or_default(),
            flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32,
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: trace.nanoseconds(began),
            ..otlp::Span::default()
        };
        Self { trace: Arc::clone(trace), told }
    }

    /// What it belongs to.
    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    /// Calls it otherwise.
    pub fn rename(&mut self, name: String) {
        self.told.name = name;
    }

    /// An attribute that is text, of which it keeps the first 512 bytes.
    pub fn text(&mut self, key: &'static str, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        self.set(key, Value::StringValue(text.to_owned()));
    }

    /// An attribute that is a number.
    pub fn number(&mut self, key: &'static str, number: u64) {
        self.set(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)));
    }

    /// An attribute that is a list of words.
    pub fn words(&mut self, key: &'static str, words: impl Iterator<Item = &'static str>) {
        let word = |word: &str| AnyValue { value: Some(Value::StringValue(word.to_owned())) };
        self.set(key, Value::ArrayValue(ArrayValue { values: words.map(word).collect() }));
    }

    /// It has failed, for this.
    pub fn fails(&mut self, why: &str) {
        self.text("error.type", why);
        self.told.status = Some(otlp::Status { code: StatusCode::Error.into(), ..otlp::Status::default() });
    }

    fn set(&mut self, key: &str, value: Value) {
        self.told.attributes.push(attribute(key, value));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.told.end_time_unix_nano = self.trace.nanoseconds(Instant::now());
        let traces = &self.trace.traces;
        if traces.queue.try_send(std::mem::take(&mut self.told)).is_err() {
            traces.dropped.inc();
        }
    }
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Bytes of an attribute that is text: more than paths and user agents have for the most part.
const MAX_TEXT: usize = 512;
/// The flag of what is traced (W3C Trace Context section 3.2.2.5.1).
const SAMPLED: u32 = 1;

//! What the expressions of a shape are told of one record: no more than what they name.

use std::borrow::Cow;
use std::rc::Rc;

use super::payload::Payload;
use super::{Record, Shape, last_of_each, rfc3339};
use crate::config::{Projection, Variable};
use crate::expression::{Document, Expression, Fault, Json, Known, Value, Work};

/// A record, as expressions see it.
pub(super) struct Scope<'r> {
    event: Option<Json<'r>>,
    variables: [Value<'r>; Variable::ALL.len()],
    /// Bytes of the payload.
    size: usize,
}

impl<'r> Scope<'r> {
    /// Of `record`, whose payload says `document` if it is JSON, and was read as that.
    pub fn new(
        shape: &Shape,
        record: &'r impl Record,
        payload: &Payload<'_>,
        document: Option<&'r Document<'r>>,
    ) -> Self {
        let event = document.map(Document::root);
        let map = shape.projection.as_ref().and_then(Projection::expression);
        let named = [shape.filter.as_ref(), map];
        let variables = Variable::ALL.map(|variable| {
            let is_read = named.iter().flatten().any(|expression| expression.reads(variable as usize));
            if is_read { value(variable, record, event) } else { Value::Null }
        });
        Self { event, variables, size: payload.len() }
    }

    /// What the payload says as JSON.
    pub fn event(&self) -> Option<Json<'r>> {
        self.event
    }

    /// Whether a filter holds.
    pub fn holds(&self, filter: &Expression) -> Result<bool, Fault> {
        filter.holds(&self.variables, &mut Work::for_payload(self.size))
    }

    /// What a filter has to know of the record to be asked for clients.
    pub fn facts(&self, filter: &Expression) -> Vec<Known> {
        filter.facts(&self.variables, &mut Work::for_payload(self.size))
    }

    /// What an expression makes of the record.
    pub fn evaluate<'v>(&'v self, expression: &'v Expression) -> Result<Value<'v>, Fault> {
        expression.evaluate(&self.variables, &mut Work::for_payload(self.size))
    }
}

fn value<'r>(variable: Variable, record: &'r impl Record, event: Option<Json<'r>>) -> Value<'r> {
    let text = |bytes: Option<&'r [u8]>| {
        bytes.map_or(Value::Null, |bytes| Value::Text(String::from_utf8_lossy(bytes)))
    };
    match variable {
        Variable::Event => event.map_or(Value::Null, Value::Json),
        Variable::Key => text(record.key()),
        Variable::Headers => headers(record),
        Variable::Name => Value::Text(record.name().into()),
        Variable::Fields => {
            let fields = record.fields().into_iter().flatten();
            let text = |bytes: &'r Vec<u8>| String::from_utf8_lossy(bytes);
            texts(fields.map(|(name, value)| (text(name), text(value))).collect())
        }
        Variable::Timestamp => {
            record.timestamp().and_then(rfc3339).map_or(Value::Null, |time| Value::Text(time.into()))
        }
    }
}

fn headers<'r>(record: &impl Record) -> Value<'r> {
    let mut headers = Vec::new();
    record.headers(&mut |name, value| {
        let value = String::from_utf8_lossy(value.unwrap_or_default());
        headers.push((name.to_owned().into(), value.into_owned().into()));
    });
    texts(headers)
}

/// Texts by name, of which the last of each counts.
fn texts<'r>(texts: Vec<(Cow<'r, str>, Cow<'r, str>)>) -> Value<'r> {
    let texts = last_of_each(texts).into_iter().map(|(name, text)| (name, Value::Text(text)));
    Value::Map(Rc::new(texts.collect()))
}

//! `wrap: cloudevents`: data as a CloudEvent 1.0 in structured mode (CloudEvents, JSON Event Format). A record that is one
//! keeps what it says, be it structured (its payload is the event) or in binary mode, as Kafka's binding has it (section
//! 3.2: headers `ce_NAME`). Of any other the attributes come from where it stands.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::envelope::Members;
use super::payload::Data;
use super::{Record, Shaped, last_of_each, rfc3339};
use crate::expression::Document;
use crate::expression::json::Kind;

/// Where a record stands.
pub(super) struct Place<'p> {
    pub upstream: &'p str,
    /// The name of its event.
    pub name: Option<&'p str>,
    /// What its id would be.
    pub id: &'p dyn Fn() -> String,
}

/// The event, as JSON.
pub(super) fn wrap<'p>(
    place: &Place<'_>,
    record: &impl Record,
    document: Option<&Document<'p>>,
    data: Data<'p>,
) -> Result<Cow<'p, str>, Shaped> {
    let content_type = record.header("content-type").map(String::from_utf8_lossy);
    let is_said =
        content_type.as_deref().is_some_and(|said| media_type(said).starts_with("application/cloudevents"));
    let is_one = is_said && !matches!(data, Data::Nothing) || document.is_some_and(is_event);
    if is_one {
        return match (data, document) {
            (Data::Json(json), _) => Ok(json),
            (_, Some(document)) => Ok(document.text().into()),
            // In another format of CloudEvents, or many at once.
            _ => Err(Shaped::Undecodable),
        };
    }
    let mut told = Vec::new();
    record.headers(&mut |name, value| {
        let name = name.strip_prefix("ce_").or_else(|| name.strip_prefix("ce-"));
        if let Some((name, value)) = name.filter(|name| is_attribute(name)).zip(value) {
            told.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        }
    });
    let mut attributes = Attributes(last_of_each(told));
    attributes.or("specversion", || Some("1.0".to_owned()));
    attributes.or("id", || Some(record.id().unwrap_or_else(place.id)));
    attributes.or("source", || {
        let name = utf8_percent_encode(record.name(), OUTSIDE_URIS);
        Some(format!("/{}/{name}", place.upstream))
    });
    attributes.or("type", || Some(place.name.unwrap_or("message").to_owned()));
    attributes.or("time", || record.timestamp().and_then(rfc3339));
    attributes.or("partitionkey", || Some(str::from_utf8(record.key()?).ok()?.to_owned()));
    let data = match (data, content_type.as_deref()) {
        // JSON, though it is said to be none of that, is text that looks so.
        (Data::Json(text), Some(said)) if !is_json(said) => Data::Text(text),
        (data, _) => data,
    };
    attributes.or("datacontenttype", || match (&data, content_type) {
        (Data::Nothing, _) => None,
        (_, Some(said)) => Some(said.into_owned()),
        (Data::Json(_), None) => Some("application/json".to_owned()),
        (Data::Text(_), None) => Some("text/plain".to_owned()),
        (Data::Base64(_), None) => Some("application/octet-stream".to_owned()),
    });
    let mut members = Members::new();
    attributes.0.iter().for_each(|(name, value)| members.text(name, value));
    if !matches!(data, Data::Nothing) {
        members.data(&data, "null");
    }
    Ok(members.finish().into())
}

/// Whether a payload is an event in structured mode: it has what all of them must have.
fn is_event(document: &Document<'_>) -> bool {
    let is_text = |name| document.root().member(name).is_some_and(|member| member.kind() == Kind::Text);
    ["specversion", "id", "source", "type"].into_iter().all(is_text)
}

/// Attributes in order, each once.
struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn or(&mut self, name: &str, value: impl FnOnce() -> Option<String>) {
        if !self.0.iter().any(|(known, _)| known == name)
            && let Some(value) = value()
        {
            self.0.push((name.to_owned(), value));
        }
    }
}

/// What CloudEvents allows for the name of an attribute (section 3.1), but for those that carry the data.
fn is_attribute(name: &str) -> bool {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    plain && !matches!(name, "data" | "datacontenttype")
}

/// The type that a header says, without its parameters.
fn media_type(said: &str) -> String {
    said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(said: &str) -> bool {
    let media_type = media_type(said);
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

/// What the path of a URI cannot hold as it is (RFC 3986 section 3.3).
const OUTSIDE_URIS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

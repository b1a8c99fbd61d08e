//! `wrap: envelope`: data that tells where it comes from, as one mapping in JSON. What is not UTF-8 stands in base64 under a
//! name that says so, and what is not there has no name at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::payload::Data;
use super::{Record, last_of_each, rfc3339};
use crate::expression::write_text;

/// The envelope of a record, in which the name of its source is `called` so.
pub(super) fn wrap(called: &str, record: &impl Record, data: &Data<'_>) -> String {
    let mut members = Members::new();
    if let Some(key) = record.key() {
        members.bytes("key", key);
    }
    let mut headers = Vec::new();
    record.headers(&mut |name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
    let (mut texts, mut binary) = (Headers::default(), Headers::default());
    for (name, value) in last_of_each(headers) {
        match value.map(String::from_utf8) {
            None => texts.0.push((name, None)),
            Some(Ok(text)) => texts.0.push((name, Some(text))),
            Some(Err(other)) => binary.0.push((name, Some(BASE64.encode(other.as_bytes())))),
        }
    }
    for (name, headers) in [("headers", texts), ("headers_base64", binary)] {
        if let Some(json) = headers.json() {
            members.json(name, &json);
        }
    }
    if let Some(time) = record.timestamp().and_then(rfc3339) {
        members.text("timestamp", &time);
    }
    members.text(called, record.name());
    members.data(data, "null");
    members.finish()
}

#[derive(Default)]
struct Headers(Vec<(String, Option<String>)>);

impl Headers {
    /// As a mapping; nothing if there are none.
    fn json(self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut members = Members::new();
        for (name, value) in &self.0 {
            match value {
                Some(value) => members.text(name, value),
                None => members.json(name, "null"),
            }
        }
        Some(members.finish())
    }
}

/// A mapping in JSON while it is written.
pub(super) struct Members(Vec<u8>);

impl Members {
    pub fn new() -> Self {
        Self(b"{".to_vec())
    }

    /// A value that is JSON already.
    pub fn json(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        write_text(name, &mut self.0);
        self.0.push(b':');
        self.0.extend_from_slice(json.as_bytes());
    }

    pub fn text(&mut self, name: &str, text: &str) {
        self.json(name, "");
        write_text(text, &mut self.0);
    }

    /// A text, or base64 under a name that says so.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        match str::from_utf8(bytes) {
            Ok(text) => self.text(name, text),
            Err(_) => self.text(&format!("{name}_base64"), &BASE64.encode(bytes)),
        }
    }

    /// What the event carries; where that is nothing, it is said so.
    pub fn data(&mut self, data: &Data<'_>, nothing: &str) {
        match data {
            Data::Nothing => self.json("data", nothing),
            Data::Json(json) => self.json("data", json),
            Data::Text(text) => self.text("data", text),
            Data::Base64(text) => self.text("data_base64", text),
        }
    }

    pub fn finish(mut self) -> String {
        self.0.push(b'}');
        String::from_utf8(self.0).expect("it is made of texts")
    }
}

//! From a record as the upstream gave it to the body of an event: its name, its payload as text, or the
//! reason why it cannot be one. Runs once for each record and feed, whatever the number of clients.

mod entry;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use entry::{Fields, field};

use crate::config::{Binary, Digest, Field, Part, Template};
use crate::sse::{self, EventName};

/// What an upstream hands over: one message, borrowed from the client library.
pub trait Record {
    /// The payload; `None` is a Kafka tombstone, or an entry that has fields instead.
    fn payload(&self) -> Option<&[u8]>;
    /// The channel, topic or stream that it came on.
    fn name(&self) -> &str;
    /// Its Kafka key.
    fn key(&self) -> Option<&[u8]> {
        None
    }
    /// The last of its Kafka headers called `name`.
    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
    /// The fields of a Redis stream's entry.
    fn fields(&self) -> Option<&Fields> {
        None
    }
    /// When it was published, where the upstream says so.
    fn timestamp(&self) -> Option<SystemTime> {
        None
    }
    /// An event name given along with it, which then wins over the route's.
    fn event(&self) -> Option<&str> {
        None
    }
    /// Whether it says that its key is gone: it is a Kafka tombstone.
    fn deletes(&self) -> bool {
        self.payload().is_none() && self.fields().is_none()
    }
}

/// How the records of a feed become events. Part of what tells two feeds apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The event name, path parameters already filled in.
    pub event: Option<Template>,
    /// The event name of tombstones, path parameters already filled in; without it they make no event.
    pub tombstone: Option<Template>,
    /// The field of an entry that is sent; without it all are, as JSON.
    pub data: Option<Arc<str>>,
    /// What becomes of a payload that is not UTF-8.
    pub binary: Binary,
    /// Bytes of data and event name above which a record is refused.
    pub max_event: usize,
    /// What the names of control events begin with; no record may use it.
    pub control_prefix: Arc<str>,
    /// Which records are kept.
    pub digest: Arc<Digest>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shaped {
    /// The body of an event was written.
    Event,
    /// Nothing is to be sent: a tombstone, on a route without a name for them, or an entry without the field that is.
    Skipped,
    /// The payload is not UTF-8, and the route sends text.
    Undecodable,
    /// Payload and event name are larger than `max_event`.
    TooLarge,
}

impl Shape {
    /// Appends the body of `record`'s event to `out`, or nothing where it says why.
    pub fn encode(&self, record: &impl Record, out: &mut Vec<u8>) -> Shaped {
        let (name, data, binary) = match (record.fields(), record.payload()) {
            (Some(fields), _) => match &self.data {
                None => match entry::json(fields, self.binary) {
                    // Its values are encoded already.
                    Some(json) => (self.name(record), Cow::Owned(json.into_bytes()), Binary::Gap),
                    None => return Shaped::Undecodable,
                },
                Some(name) => match field(fields, name) {
                    Some(value) => (self.name(record), Cow::Borrowed(value), self.binary),
                    None => return Shaped::Skipped,
                },
            },
            (None, Some(payload)) => (self.name(record), Cow::Borrowed(payload), self.binary),
            // What it deletes is all that it says. Data may be empty: WHATWG HTML 9.2.6 drops an event without a
            // `data:` line, and not one whose line is empty.
            (None, None) => match &self.tombstone {
                Some(name) => {
                    (self.filled(name, record), Cow::Borrowed(record.key().unwrap_or_default()), self.binary)
                }
                None => return Shaped::Skipped,
            },
        };
        let name_len = name.as_ref().map_or(0, |name| name.as_str().len());
        if data.len() + name_len > self.max_event {
            return Shaped::TooLarge;
        }
        match binary {
            Binary::Base64 => sse::body(out, name.as_ref(), &BASE64.encode(&data)),
            Binary::Gap => match std::str::from_utf8(&data) {
                Ok(text) => sse::body(out, name.as_ref(), text),
                Err(_) => return Shaped::Undecodable,
            },
        }
        Shaped::Event
    }

    fn name<'r>(&'r self, record: &'r impl Record) -> Option<EventName<'r>> {
        match record.event() {
            Some(event) => EventName::new(event).map(|name| name.outside(&self.control_prefix)),
            None => self.filled(self.event.as_ref()?, record),
        }
    }

    fn filled<'r>(&self, template: &Template, record: &'r impl Record) -> Option<EventName<'r>> {
        EventName::new(template.fill(|field| value(field, record)))
            .map(|name| name.outside(&self.control_prefix))
    }
}

/// The key of `record`; none where it lacks a field of `by`.
pub fn key<'r>(by: &Template, record: &'r impl Record) -> Option<Cow<'r, [u8]>> {
    // A field alone as it is: what is no text may be a key.
    match by.parts() {
        [Part::Field(Field::Key)] => return record.key().map(Cow::Borrowed),
        [Part::Field(Field::Header(name))] => return record.header(name).map(Cow::Borrowed),
        [Part::Field(Field::Entry(name))] => return field(record.fields()?, name).map(Cow::Borrowed),
        _ => {}
    }
    let mut is_whole = true;
    let text = by.fill(|field| {
        let value = value(field, record);
        is_whole &= value.is_some();
        value
    });
    is_whole.then(|| Cow::Owned(text.into_bytes()))
}

fn value<'r>(of: &Field, record: &'r impl Record) -> Option<Cow<'r, str>> {
    match of {
        Field::Channel | Field::Topic | Field::Stream => Some(Cow::Borrowed(record.name())),
        Field::Entry(name) => {
            record.fields().and_then(|fields| field(fields, name)).map(String::from_utf8_lossy)
        }
        Field::Key => record.key().map(String::from_utf8_lossy),
        Field::Header(name) => record.header(name).map(String::from_utf8_lossy),
        Field::Param(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Message<'a>(&'a [u8], Option<&'a str>);
    impl Record for Message<'_> {
        fn payload(&self) -> Option<&[u8]> {
            Some(self.0)
        }
        fn name(&self) -> &str {
            "news"
        }
        fn header(&self, name: &str) -> Option<&[u8]> {
            (name == "type").then_some(b"sold\nout")
        }
        fn event(&self) -> Option<&str> {
            self.1
        }
    }

    fn shape(event: Option<&str>, binary: Binary) -> Shape {
        let event = event.map(|text| Template::parse(text).unwrap());
        let (control_prefix, digest) = ("stream.".into(), Arc::default());
        Shape { event, data: None, tombstone: None, binary, max_event: 16, control_prefix, digest }
    }

    /// A tombstone with this key.
    struct Deleted<'a>(Option<&'a [u8]>);
    impl Record for Deleted<'_> {
        fn payload(&self) -> Option<&[u8]> {
            None
        }
        fn name(&self) -> &str {
            "orders"
        }
        fn key(&self) -> Option<&[u8]> {
            self.0
        }
    }

    fn encoded(shape: &Shape, message: &impl Record) -> Result<String, Shaped> {
        let mut out = Vec::new();
        match shape.encode(message, &mut out) {
            Shaped::Event => Ok(String::from_utf8(out).unwrap()),
            other => Err(other),
        }
    }

    #[test]
    fn names_come_from_the_route_or_along_with_the_record() {
        let plain = shape(None, Binary::Gap);
        assert_eq!(encoded(&plain, &Message(b"x", None)).unwrap(), "data: x\n");
        assert_eq!(encoded(&plain, &Message(b"x", Some("e"))).unwrap(), "event: e\ndata: x\n");
        let named = shape(Some("{channel}:{header.type}"), Binary::Gap);
        assert_eq!(encoded(&named, &Message(b"x", None)).unwrap(), "event: news:sold out\ndata: x\n");
        let empty = shape(Some("{key}"), Binary::Gap);
        assert_eq!(encoded(&empty, &Message(b"x", None)).unwrap(), "data: x\n");
        assert_eq!(
            encoded(&plain, &Message(b"x", Some("stream.gap"))).unwrap(),
            "event: _stream.gap\ndata: x\n"
        );
    }

    struct Entry(Fields);
    impl Record for Entry {
        fn payload(&self) -> Option<&[u8]> {
            None
        }
        fn name(&self) -> &str {
            "audit"
        }
        fn fields(&self) -> Option<&Fields> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_entry_is_sent_as_a_whole_or_one_field_of_it() {
        let entry = Entry(vec![(b"t".to_vec(), b"sold".to_vec()), (b"p".to_vec(), b"\xff".to_vec())]);
        let whole = Shape { max_event: 100, ..shape(Some("{stream}:{field.t}{field.x}"), Binary::Base64) };
        let body = |shape: &Shape| {
            let mut out = Vec::new();
            let shaped = shape.encode(&entry, &mut out);
            (shaped, String::from_utf8(out).unwrap())
        };
        let expected = "event: audit:sold\ndata: {\"t\":\"c29sZA==\",\"p\":\"/w==\"}\n";
        assert_eq!(body(&whole), (Shaped::Event, expected.to_owned()));
        let one = |name: &str, binary| Shape { data: Some(name.into()), ..shape(None, binary) };
        assert_eq!(body(&one("t", Binary::Gap)), (Shaped::Event, "data: sold\n".to_owned()));
        assert_eq!(body(&one("p", Binary::Base64)), (Shaped::Event, "data: /w==\n".to_owned()));
        for (shape, shaped) in [
            (Shape { max_event: 100, ..shape(None, Binary::Gap) }, Shaped::Undecodable),
            (one("p", Binary::Gap), Shaped::Undecodable),
            (one("x", Binary::Gap), Shaped::Skipped),
            (shape(None, Binary::Base64), Shaped::TooLarge),
        ] {
            assert_eq!(body(&shape), (shaped, String::new()));
        }
    }

    #[test]
    fn what_is_not_text_is_told_or_sent_as_base64() {
        let binary = Message(b"\xff\x00", None);
        assert_eq!(encoded(&shape(None, Binary::Gap), &binary), Err(Shaped::Undecodable));
        assert_eq!(encoded(&shape(None, Binary::Base64), &binary).unwrap(), "data: /wA=\n");
        assert_eq!(
            encoded(&shape(None, Binary::Base64), &Message(b"text", None)).unwrap(),
            "data: dGV4dA==\n"
        );
        assert_eq!(
            encoded(&shape(None, Binary::Gap), &Message(b"12345678901234567", None)),
            Err(Shaped::TooLarge)
        );
    }

    #[test]
    fn tombstones_are_skipped_or_say_what_is_deleted() {
        let key = Deleted(Some(b"7"));
        assert_eq!(encoded(&shape(Some("e"), Binary::Gap), &key), Err(Shaped::Skipped));
        let named = |name: &str, binary| Shape {
            tombstone: Some(Template::parse(name).unwrap()),
            ..shape(Some("e"), binary)
        };
        let delete = named("delete", Binary::Gap);
        assert_eq!(encoded(&delete, &key).unwrap(), "event: delete\ndata: 7\n");
        assert_eq!(encoded(&delete, &Deleted(None)).unwrap(), "event: delete\ndata: \n");
        assert_eq!(encoded(&delete, &Deleted(Some(b"\xff"))), Err(Shaped::Undecodable));
        assert_eq!(encoded(&delete, &Deleted(Some(b"12345678901"))), Err(Shaped::TooLarge));
        assert_eq!(encoded(&delete, &Message(b"", None)).unwrap(), "event: e\ndata: \n", "is no tombstone");
        let base64 = named("-{topic}-{key}", Binary::Base64);
        assert_eq!(encoded(&base64, &key).unwrap(), "event: -orders-7\ndata: Nw==\n");
        let forged = named("{key}", Binary::Gap);
        assert_eq!(encoded(&forged, &Deleted(Some(b"stream."))).unwrap(), "event: _stream.\ndata: stream.\n");
    }

    #[test]
    fn a_key_is_whole_or_there_is_none() {
        let key_by =
            |by: &str, record: &Deleted<'_>| key(&Template::parse(by).unwrap(), record).map(Cow::into_owned);
        let (named, nameless) = (Deleted(Some(b"\xff")), Deleted(None));
        assert_eq!(key_by("{key}", &named), Some(b"\xff".to_vec()), "as it is, text or not");
        assert_eq!(key_by("{key}", &nameless), None);
        assert_eq!(key_by("{topic}/{key}", &Deleted(Some(b"7"))), Some(b"orders/7".to_vec()));
        assert_eq!(key_by("{topic}/{key}", &nameless), None);
        assert_eq!(key_by("{header.type}", &named), None);
        let message = Message(b"x", None);
        assert_eq!(
            key(&Template::parse("{header.type}").unwrap(), &message).as_deref(),
            Some(&b"sold\nout"[..])
        );
        let entry = Entry(vec![(b"id".to_vec(), b"a".to_vec())]);
        assert_eq!(key(&Template::parse("{field.id}").unwrap(), &entry).as_deref(), Some(&b"a"[..]));
        assert!(named.deletes() && !entry.deletes() && !message.deletes());
    }
}

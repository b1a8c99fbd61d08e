//! From a record as the upstream gave it to the body of an event: whether it is sent, its name, its data as text, or the
//! reason why it cannot be one. Runs once for each record and feed, whatever the number of clients.

mod cloudevents;
#[cfg(test)]
mod costs;
mod entry;
mod envelope;
mod facts;
mod keys;
mod payload;
mod project;
mod scope;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use entry::{Fields, field};
pub use facts::{ClientFilter, FOR_ALL, Facts, NeverHolds};
pub use keys::Keys;

pub use crate::expression::{Fact, Fault, Member};
pub use crate::schema::Decoder;

use crate::config::{Binary, Digest, Field, Projection, Template, Variable};
use crate::expression::{Document, Expression, Json};
use crate::schema::{self, Registry, SchemaId};
use crate::sse::{self, EventName};
use payload::{Data, Payload};
use scope::Scope;

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
    /// Hands each of its headers over, in order; a header may be without a value.
    fn headers(&self, _each: &mut dyn FnMut(&str, Option<&[u8]>)) {}
    /// The fields of a Redis stream's entry.
    fn fields(&self) -> Option<&Fields> {
        None
    }
    /// When it was published, where the upstream says so.
    fn timestamp(&self) -> Option<SystemTime> {
        None
    }
    /// Its routing key, of a message of RabbitMQ.
    fn routing_key(&self) -> Option<&str> {
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
    /// What the upstream knows it by among those of its source, where that is the same for whoever reads it.
    fn id(&self) -> Option<String> {
        None
    }
}

/// How the records of a feed become events. Part of what tells two feeds apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The event name, path parameters already filled in.
    pub event: Option<Template>,
    /// The event name of tombstones, path parameters already filled in; without it they make no event.
    pub tombstone: Option<Template>,
    /// What must hold for a record to make an event, path parameters already bound.
    pub filter: Option<Expression>,
    /// The field of an entry that is sent; without it all are, as JSON.
    pub data: Option<Arc<str>>,
    /// What of a payload in JSON is sent; without it all of it is.
    pub projection: Option<Projection>,
    /// What is put around that.
    pub wrap: Option<Wrap>,
    /// What becomes of a payload that is not UTF-8.
    pub binary: Binary,
    /// Bytes of data and event name above which a record is refused.
    pub max_event: usize,
    /// What the names of control events begin with; no record may use it.
    pub control_prefix: Arc<str>,
    /// What payloads are.
    pub decode: Decoder,
    /// Which records are kept.
    pub digest: Arc<Digest>,
}

/// What is put around the data of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wrap {
    /// Key, headers, time, and the source's name under this one.
    Envelope(&'static str),
    /// A CloudEvent, whose source is one of this upstream's where the record says no other.
    CloudEvent(Arc<str>),
}

impl Default for Shape {
    /// Payloads as they are, without a name.
    fn default() -> Self {
        Self {
            event: None,
            tombstone: None,
            decode: Decoder::Text,
            filter: None,
            data: None,
            projection: None,
            wrap: None,
            binary: Binary::Gap,
            max_event: 1 << 20,
            control_prefix: "stream.".into(),
            digest: Arc::default(),
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shaped {
    /// The body of an event was written.
    Event,
    /// Nothing is to be sent: a tombstone, on a route without a name for them, or an entry without the field that is.
    Skipped,
    /// Nothing is to be sent, by the filter.
    FilteredOut,
    /// Nothing is to be sent, since the filter cannot tell.
    Undecided(Fault),
    /// The payload is not UTF-8, and the route sends text; it is not what the route decodes; or it is not JSON, and the route
    /// sends what is made of that.
    Undecodable,
    /// The data cannot be made of what the payload says.
    Unmade(Fault),
    /// Payload and event name are larger than `max_event`.
    TooLarge,
}

impl Shape {
    /// Appends the body of `record`'s event to `out`, or nothing where it says why. `id` is what its id would be, for a
    /// record that the upstream has no name for. Also returns its keys, where it makes no event as well, and what is known of
    /// the event for the filters of clients.
    pub fn encode<'r>(
        &self,
        record: &'r impl Record,
        id: &dyn Fn() -> String,
        out: &mut Vec<u8>,
    ) -> (Shaped, Keys<'r>, Facts) {
        let payload = Payload::of(self, record).and_then(|payload| {
            if payload.len() > self.max_event { Err(Shaped::TooLarge) } else { Ok(payload) }
        });
        let document = payload.as_ref().ok().filter(|_| self.reads_json()).and_then(Payload::document);
        let keys = Keys::of(&self.digest, record, document.as_ref().map(Document::root));
        let encoded = match &payload {
            Ok(payload) => self.encoded(record, payload, document.as_ref(), id, out),
            Err(why) => Err(*why),
        };
        match encoded {
            Ok(facts) => (Shaped::Event, keys, facts),
            Err(why) => (why, keys, Facts::default()),
        }
    }

    /// Whether its events are not all for every client of a feed.
    pub fn sifts(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter.client().is_empty())
    }

    fn encoded(
        &self,
        record: &impl Record,
        payload: &Payload<'_>,
        document: Option<&Document<'_>>,
        id: &dyn Fn() -> String,
        out: &mut Vec<u8>,
    ) -> Result<Facts, Shaped> {
        let scope = Scope::new(self, record, payload, document);
        if let Some(filter) = &self.filter {
            match scope.holds(filter) {
                Ok(true) => {}
                Ok(false) => return Err(Shaped::FilteredOut),
                Err(fault) => return Err(Shaped::Undecided(fault)),
            }
        }
        let name = if payload.is_tombstone() {
            self.tombstone.as_ref().and_then(|name| self.filled(name, record, &scope))
        } else {
            self.name(record, &scope)
        };
        let name_len = name.as_ref().map_or(0, |name| name.as_str().len());
        let room = self.max_event.checked_sub(name_len).ok_or(Shaped::TooLarge)?;
        let data = payload.data(self, &scope, room)?;
        let text = match (&self.wrap, data) {
            (None, Data::Nothing) => payload::text(record.key().unwrap_or_default(), self.binary, room)?,
            (None, Data::Json(text) | Data::Text(text)) => text,
            (None, Data::Base64(text)) => text.into(),
            (Some(Wrap::Envelope(called)), data) => envelope::wrap(called, record, &data).into(),
            (Some(Wrap::CloudEvent(upstream)), data) => {
                let named = name.as_ref().map(EventName::as_str);
                let place = cloudevents::Place { upstream, name: named, id };
                cloudevents::wrap(&place, record, document, data)?
            }
        };
        if self.wrap.is_some() && text.len() > room {
            return Err(Shaped::TooLarge);
        }
        sse::body(out, name.as_ref(), &text);
        let filter = self.filter.as_ref().filter(|_| self.sifts());
        Ok(filter.map(|filter| Facts::of(scope.facts(filter))).unwrap_or_default())
    }

    /// Whether what a payload says as JSON matters.
    fn reads_json(&self) -> bool {
        let filters = self.filter.as_ref().is_some_and(|filter| filter.reads(Variable::Event as usize));
        let names = self
            .event
            .as_ref()
            .is_some_and(|name| name.fields().any(|field| matches!(field, Field::Event(_))));
        filters || names || self.projection.is_some() || self.wrap.is_some() || keys::read_json(&self.digest)
    }

    /// The schema of a registry without which `record` cannot be decoded. It has to be at hand when it is encoded.
    pub fn needs(&self, record: &impl Record) -> Option<(&Arc<Registry>, SchemaId)> {
        if !self.decode.asks() {
            return None;
        }
        let payload = match (record.fields(), &self.data) {
            (Some(fields), Some(name)) => field(fields, name)?,
            (Some(_), None) => return None,
            (None, _) => record.payload()?,
        };
        self.decode.needs(payload, record.header(schema::HEADER))
    }

    fn name<'r>(&self, record: &'r impl Record, scope: &Scope<'r>) -> Option<EventName<'r>> {
        match record.event() {
            Some(event) => EventName::new(event).map(|name| name.outside(&self.control_prefix)),
            None => self.filled(self.event.as_ref()?, record, scope),
        }
    }

    fn filled<'r>(
        &self,
        template: &Template,
        record: &'r impl Record,
        scope: &Scope<'r>,
    ) -> Option<EventName<'r>> {
        EventName::new(template.fill(|field| value(field, record, scope.event())))
            .map(|name| name.outside(&self.control_prefix))
    }
}

/// What is named, in order, of each name the last.
fn last_of_each<N: AsRef<str>, V>(mut named: Vec<(N, V)>) -> Vec<(N, V)> {
    let mut seen = HashSet::with_capacity(named.len());
    let mut last: Vec<_> = named.iter().rev().map(|(name, _)| seen.insert(name.as_ref())).collect();
    drop(seen);
    named.retain(|_| last.pop().unwrap_or_default());
    named
}

/// A time as text (RFC 3339), as far as that has years.
fn rfc3339(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds < YEAR_10000).then(|| humantime::format_rfc3339_millis(time).to_string())
}

/// In seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

fn value<'r>(of: &Field, record: &'r impl Record, event: Option<Json<'r>>) -> Option<Cow<'r, str>> {
    match of {
        Field::Channel | Field::Topic | Field::Stream | Field::Subject => Some(Cow::Borrowed(record.name())),
        Field::Entry(name) => {
            record.fields().and_then(|fields| field(fields, name)).map(String::from_utf8_lossy)
        }
        Field::Key => record.key().map(String::from_utf8_lossy),
        Field::Header(name) => record.header(name).map(String::from_utf8_lossy),
        Field::RoutingKey => record.routing_key().map(Cow::Borrowed),
        Field::Param(_) => None,
        Field::Event(path) => event?.at(path.split('.'))?.said(),
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
        Shape { event, binary, max_event: 16, ..Shape::default() }
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
        match shape.encode(message, &|| "e-1".into(), &mut out).0 {
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
            let (shaped, ..) = shape.encode(&entry, &|| "e-1".into(), &mut out);
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

    /// What is made of records of a Redis channel by the keys of a route.
    pub(super) fn of_route(keys: &str) -> Shape {
        let text = format!(
            "server: {{ tls: none }}\nupstreams: {{ r: {{ redis: {{ url: redis://h }} }} }}\nroutes: [ {{ path: /x, from: {{ upstream: r, channel: c }}, {keys} }} ]\n"
        );
        let route =
            crate::config::parse("c.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let route = route.routes.into_iter().next().unwrap();
        Shape { event: route.event, filter: route.filter, projection: route.projection, ..Shape::default() }
    }

    #[test]
    fn a_filter_comes_first_and_says_why_it_cannot_tell() {
        let shape = Shape { max_event: 64, ..of_route("filter: event.n > 1, data: { keep: n }") };
        let of = |payload: &str| encoded(&shape, &Message(payload.as_bytes(), None));
        assert_eq!(of(r#"{"n":2,"m":3}"#).unwrap(), "data: {\"n\":2}\n");
        assert_eq!(of(r#"{"n":1}"#), Err(Shaped::FilteredOut));
        assert_eq!(of("{}"), Err(Shaped::Undecided(Fault::Absent)));
        assert_eq!(of("no json"), Err(Shaped::Undecided(Fault::Type)));
        assert_eq!(of(&format!(r#"{{"n":1,"m":"{}"}}"#, "x".repeat(64))), Err(Shaped::TooLarge));
    }

    #[test]
    fn what_data_is_made_of_must_be_json_that_has_it() {
        let shape = of_route("data: { map: \"{'n': event.n + 1, 'of': channel}\" }");
        let of = |payload: &[u8]| encoded(&shape, &Message(payload, None));
        assert_eq!(of(br#"{"n":2}"#).unwrap(), "data: {\"n\":3,\"of\":\"news\"}\n");
        assert_eq!(of(b"{}"), Err(Shaped::Unmade(Fault::Absent)));
        assert_eq!(of(br#"{"n":"x"}"#), Err(Shaped::Unmade(Fault::Type)));
        for payload in [&b"no json"[..], b"{\"n\":\"\xff\"}"] {
            assert_eq!(of(payload), Err(Shaped::Undecodable));
        }
        let twice = Shape { max_event: 20, ..of_route("data: { map: '[event, event]' }") };
        assert_eq!(encoded(&twice, &Message(b"1234567890", None)), Err(Shaped::TooLarge));
    }

    #[test]
    fn of_each_name_the_last_stays_in_its_place() {
        let named = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)];
        assert_eq!(last_of_each(named.to_vec()), [("a", 3), ("c", 4), ("b", 5)]);
        assert_eq!(last_of_each(Vec::<(&str, u8)>::new()), []);
    }

    #[test]
    fn a_time_without_a_year_is_none() {
        let at = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(YEAR_10000 - 1)).unwrap(), "9999-12-31T23:59:59.000Z");
        assert_eq!(rfc3339(at(YEAR_10000)), None);
        assert_eq!(rfc3339(at(u64::MAX / 1_000)), None, "microseconds that were taken for milliseconds");
        assert_eq!(rfc3339(UNIX_EPOCH - std::time::Duration::from_secs(1)), None);
    }

    #[test]
    fn names_from_payloads_forge_nothing() {
        let shape = of_route("event: '{event.type}{event.at.1}'");
        let of = |payload: &str| encoded(&shape, &Message(payload.as_bytes(), None)).unwrap();
        let payload = r#"{"type":"a\ndata: x","at":[0,2.50]}"#;
        assert_eq!(of(payload), format!("event: a data: x2.50\ndata: {payload}\n"));
        assert!(of(r#"{"type":"stream.gap"}"#).starts_with("event: _stream.gap\n"));
        assert_eq!(of(r#"{"type":null,"at":{}}"#), "data: {\"type\":null,\"at\":{}}\n");
        assert_eq!(of("no json"), "data: no json\n");
    }
}

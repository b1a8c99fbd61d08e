//! What is written against the independent parser: whatever payloads and names hold, one record is one event.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use proptest::sample::Index;
use ssegate::config::{Binary, Template};
use ssegate::hub::{Epoch, EpochCodec, Linger, Log, Memory, Position, Wake};
use ssegate::shape::{Record, Shape};
use ssegate::sse;

use crate::client::read;
use crate::sse_parser::{Event, Item, Parser};
use crate::{ROOM, TERMS, cases, cursor};

/// Text made of all that means something in an event stream.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => prop::sample::select(FORGERIES.to_vec()).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => ".{0,20}",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

const FORGERIES: [&str; 20] = [
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "\0",
    "\u{feff}",
    "data:",
    "data: x\n\n",
    "id:",
    "id: 7\n",
    "event:",
    "retry: 1\n",
    ":",
    " ",
    "  ",
    "é",
    "\u{2028}",
    "😀",
    "stream.",
    "data",
];

#[derive(Debug, Clone)]
struct Message {
    payload: Vec<u8>,
    event: Option<String>,
    header: Option<Vec<u8>>,
}

impl Record for Message {
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.payload)
    }

    fn name(&self) -> &str {
        "model"
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.header.as_deref().filter(|_| name == "type")
    }

    fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }
}

fn message(payload: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Message> {
    let header = prop_oneof![text().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..10)];
    let parts = (payload, prop::option::of(text()), prop::option::of(header));
    parts.prop_map(|(payload, event, header)| Message { payload, event, header })
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_payload_arrives_as_it_is(
        messages in prop::collection::vec(message(text().prop_map(String::into_bytes)), 1..8),
        (named, max, cuts) in how(),
    ) {
        check(&messages, Binary::Gap, named, max, &cuts);
    }

    #[test]
    fn bytes_arrive_as_base64(
        messages in prop::collection::vec(message(prop::collection::vec(any::<u8>(), 0..100)), 1..8),
        (named, max, cuts) in how(),
    ) {
        check(&messages, Binary::Base64, named, max, &cuts);
    }

    #[test]
    fn ids_of_any_printable_kind_arrive(id in "[!-~]{1,40}", data in text()) {
        let mut bytes = Vec::new();
        sse::body(&mut bytes, None, &data);
        sse::id_block(&mut bytes, &id);
        let event = Event { event: "message".into(), data: lines(&data), id };
        prop_assert_eq!(Parser::new().feed(&bytes), [Item::Event(event)]);
    }
}

/// Whether the route names events, how much is read at a time, and where the bytes are cut.
fn how() -> impl Strategy<Value = (bool, usize, Vec<Index>)> {
    (any::<bool>(), 0..300_usize, prop::collection::vec(any::<Index>(), 0..20))
}

fn check(messages: &[Message], binary: Binary, named: bool, max: usize, cuts: &[Index]) {
    let event = named.then(|| Template::parse("{header.type}").unwrap());
    let shape = Shape { event, binary, ..Shape::default() };
    let memory = Memory::new(usize::MAX);
    let log = Log::new(shape, false, ROOM, &memory, Wake::new(Duration::ZERO, Linger::new()));
    log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
    let mut cursor = cursor(None, TERMS);

    // As every stream begins.
    let mut bytes = Vec::new();
    sse::comment(&mut bytes, "");
    sse::retry(&mut bytes, Duration::from_millis(3_000));
    bytes.extend(read(&log, &mut cursor, max).unwrap().0);
    log.append(messages.iter().map(|message| (None, message.clone())));
    while let Some((more, _)) = read(&log, &mut cursor, max) {
        bytes.extend(more);
    }

    let items = parse(&bytes, cuts);
    let [Item::Comment(comment), Item::Retry(3_000), Item::Event(position), events @ ..] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!((comment.as_str(), position.event.as_str()), ("", "stream.position"));
    let epoch = position.id.strip_suffix("-0").unwrap();
    let expected = messages.iter().zip(1..).map(|(message, number)| {
        let data = match binary {
            Binary::Gap => lines(str::from_utf8(&message.payload).unwrap()),
            Binary::Base64 => BASE64.encode(&message.payload),
        };
        Item::Event(Event { event: name(message, named), data, id: format!("{epoch}-{number}") })
    });
    assert_eq!(events, expected.collect::<Vec<_>>());
}

fn parse(bytes: &[u8], cuts: &[Index]) -> Vec<Item> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut parser = Parser::new();
    cuts.windows(2).flat_map(|ends| parser.feed(&bytes[ends[0]..ends[1]])).collect()
}

/// A client joins lines with LF, whatever ended them.
fn lines(payload: &str) -> String {
    payload.replace("\r\n", "\n").replace('\r', "\n")
}

/// The name that a client sees.
fn name(message: &Message, named: bool) -> String {
    let header = message.header.as_deref().filter(|_| named).map(String::from_utf8_lossy);
    let name = message.event.as_deref().map(Cow::Borrowed).or(header).unwrap_or_default();
    let name: String = name.chars().map(|c| if "\r\n\0".contains(c) { ' ' } else { c }).collect();
    match name.as_str() {
        "" => "message".into(),
        reserved if reserved.starts_with("stream.") => format!("_{reserved}"),
        _ => name,
    }
}

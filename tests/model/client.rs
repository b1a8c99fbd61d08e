//! A client as browsers have it: it parses what it is sent, and comes back with the last id that it saw.

use serde_json::Value;
use ssegate::hub::{Cursor, Log, Read};

use crate::sse_parser::{Item, Parser};

/// One connection after the other.
#[derive(Default)]
pub struct Client {
    parser: Parser,
    before: String,
}

/// What a client is told.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Event {
        data: String,
        id: String,
    },
    Position {
        id: String,
    },
    Gap(Gap),
    /// A snapshot begins: what was known is no more.
    SnapshotStart,
    SnapshotEnd,
    /// A key is gone, which only routes with `tombstone` tell.
    Gone {
        key: String,
        id: String,
    },
}

/// The data of `stream.gap`.
#[derive(Debug, PartialEq)]
pub struct Gap {
    pub reason: String,
    pub missed: Option<u64>,
    pub from: Value,
    pub to: Value,
    /// Whether it says when.
    pub timed: bool,
}

impl Client {
    /// The id to resume from.
    pub fn id(&self) -> Option<String> {
        Some(self.parser.last_event_id().unwrap_or(&self.before))
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
    }

    /// The connection is gone, and with it what was received in part.
    pub fn reconnect(&mut self) {
        self.before = self.id().unwrap_or_default();
        self.parser = Parser::resuming(&self.before);
    }

    /// Comes back with an id that it never was given.
    pub fn forge(&mut self, id: String) {
        self.parser = Parser::resuming(&id);
        self.before = id;
    }

    /// Receives bytes, cut as they may be.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let mut before = self.parser.last_event_id().unwrap_or(&self.before).to_owned();
        let mut seen = Vec::new();
        for item in self.parser.feed(bytes) {
            let Item::Event(event) = item else { panic!("a log writes events alone, and this is {item:?}") };
            match event.event.as_str() {
                "message" => seen.push(Seen::Event { data: event.data, id: event.id.clone() }),
                "stream.position" => {
                    assert_eq!(event.data, "{}");
                    seen.push(Seen::Position { id: event.id.clone() });
                }
                "stream.gap" => {
                    assert_eq!(event.id, before, "a gap never moves the client's cursor");
                    seen.push(Seen::Gap(Gap::parse(&event.data)));
                }
                "stream.snapshot-start" => seen.push(Seen::SnapshotStart),
                "stream.snapshot-end" => seen.push(Seen::SnapshotEnd),
                "gone" => seen.push(Seen::Gone { key: event.data, id: event.id.clone() }),
                other => panic!("an event of the name {other}"),
            }
            before = event.id;
        }
        seen
    }
}

impl Gap {
    fn parse(data: &str) -> Self {
        let Value::Object(mut members) = serde_json::from_str(data).unwrap() else { panic!("{data}") };
        let mut take = |name| members.remove(name).unwrap_or_else(|| panic!("no {name} in {data}"));
        let (since, until) = (take("since"), take("until"));
        assert_eq!(since.is_null(), until.is_null());
        let gap = Self {
            reason: take("reason").as_str().unwrap().to_owned(),
            missed: Some(take("missed")).filter(|missed| !missed.is_null()).map(|m| m.as_u64().unwrap()),
            from: take("from"),
            to: take("to"),
            timed: !since.is_null(),
        };
        assert!(members.is_empty(), "unexpected members in {data}");
        gap
    }
}

/// Reads once. `None` if there is nothing to read yet; otherwise the bytes, and how many events they are said
/// to hold.
pub fn read(log: &Log, cursor: &mut Cursor, max: usize) -> Option<(Vec<u8>, usize)> {
    let (bytes, events) = match log.read(cursor, max) {
        Read::Pending | Read::Wait(_) => return None,
        Read::Control { bytes, .. } => return Some((bytes.to_vec(), 0)),
        Read::Slice { bytes, events, .. } => {
            assert!(events > 0, "a slice holds something");
            (bytes.to_vec(), events)
        }
        Read::Pieces { bytes, events, .. } => (bytes.concat(), events),
        Read::LeftOut(_) => panic!("no reader is bounded here"),
    };
    assert!(bytes.len() <= max || events == 1, "{} bytes of {events} events, {max} asked for", bytes.len());
    Some((bytes, events))
}

//! Records as an upstream would hand them over, and the shape that makes events of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use ssegate::hub::{Bounds, Linger, Log, Memory, Wake};
use ssegate::shape::{Record, Shape};

/// What a record is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event with so many bytes of filling.
    Event(usize),
    /// Nothing: it has no payload.
    Tombstone,
    /// A gap `undecodable`.
    Undecodable,
    /// A gap `too_large`.
    TooLarge,
}

/// Mostly small events, and some of everything else.
pub fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        12 => (0..60_usize).prop_map(Kind::Event),
        1 => (1_000..MAX_EVENT - 100).prop_map(Kind::Event),
        2 => Just(Kind::Tombstone),
        1 => Just(Kind::Undecodable),
        1 => Just(Kind::TooLarge),
    ]
}

impl Kind {
    /// The reason of the gap that it becomes.
    pub fn gap(self) -> Option<&'static str> {
        match self {
            Self::Undecodable => Some("undecodable"),
            Self::TooLarge => Some("too_large"),
            Self::Event(_) | Self::Tombstone => None,
        }
    }

    /// Whether a reader is told of it, be it as an event or as a gap.
    pub fn visible(self) -> bool {
        self != Self::Tombstone
    }
}

/// A record with a name by which its event is known again.
pub struct Message(Option<Vec<u8>>, u64);

impl Message {
    pub fn new(kind: Kind, name: &str) -> Self {
        Self::at(kind, name, 0)
    }

    /// One that was published so many milliseconds after the epoch.
    pub fn at(kind: Kind, name: &str, millis: u64) -> Self {
        let payload = match kind {
            Kind::Event(filling) => Some(text(name, filling).into_bytes()),
            Kind::Tombstone => None,
            Kind::Undecodable => Some(vec![b'a', 0xff]),
            Kind::TooLarge => Some(vec![b'a'; MAX_EVENT + 1]),
        };
        Self::of(payload, millis)
    }

    /// One of this payload, published as many milliseconds after the epoch.
    pub fn of(payload: Option<Vec<u8>>, millis: u64) -> Self {
        Self(payload, millis)
    }
}

impl Record for Message {
    fn payload(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    fn name(&self) -> &str {
        "model"
    }

    fn timestamp(&self) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_millis(self.1))
    }
}

/// A record with its key, and a header that says its colour if it has one.
pub struct Keyed {
    pub key: u8,
    pub colour: &'static str,
    pub message: Message,
}

impl Record for Keyed {
    fn payload(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    fn name(&self) -> &str {
        self.message.name()
    }

    fn key(&self) -> Option<&[u8]> {
        Some(std::slice::from_ref(&self.key))
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        each("colour", Some(self.colour.as_bytes()));
    }
}

/// The data of the event called `name` with so much filling.
pub fn text(name: &str, filling: usize) -> String {
    format!("{name} {}", "x".repeat(filling))
}

/// Text only, without names.
pub fn shape() -> Shape {
    Shape { max_event: MAX_EVENT, ..Shape::default() }
}

/// A log that is not open yet, whose wakes do not linger.
pub fn log(bounds: Bounds, memory: &Arc<Memory>) -> Arc<Log> {
    Log::new(shape(), false, bounds, memory, Wake::new(Duration::ZERO, Linger::new()))
}

/// The same, of this shape and keyed or not, with all the memory that it wants.
pub fn log_of(shape: &Shape, keyed: bool, bounds: Bounds) -> Arc<Log> {
    let (memory, wake) = (Memory::new(usize::MAX), Wake::new(Duration::ZERO, Linger::new()));
    Log::new(shape.clone(), keyed, bounds, &memory, wake)
}

/// More than one of these fits a chunk, and a batch of them does not.
const MAX_EVENT: usize = 20_000;

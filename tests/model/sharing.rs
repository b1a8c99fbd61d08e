//! Encoded once, shared by all: asserted by pointer.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use ssegate::hub::{Bounds, Cursor, Epoch, EpochCodec, Log, Mark, Memory, Opening, Position, Read};
use ssegate::shape::Record;

use crate::client::{Client, Seen, read};
use crate::past::Past;
use crate::record::{self, Kind, Message};
use crate::vector::VectorCodec;
use crate::{ROOM, TERMS, cursor};

/// A record that counts how often its payload is taken.
struct Counted<'c>(&'c Cell<usize>);

impl Record for Counted<'_> {
    fn payload(&self) -> Option<&[u8]> {
        self.0.set(self.0.get() + 1);
        Some(b"counted")
    }

    fn name(&self) -> &str {
        "model"
    }
}

#[test]
fn a_body_is_encoded_once_whatever_the_number_of_readers() {
    let log = epoch_log();
    let mut cursors: Vec<_> = (0..5).map(|_| cursor(None, TERMS)).collect();
    cursors.iter_mut().for_each(|cursor| drop(control(&log, cursor)));
    let encoded = Cell::new(0);
    log.append((0..100).map(|_| (None, Counted(&encoded))));
    assert_eq!(encoded.get(), 100);
    let slices: Vec<_> = cursors.iter_mut().map(|cursor| slice(&log, cursor)).collect();
    assert!(slices.iter().all(|(_, events)| *events == 100), "a burst is one slice over many events");
    assert!(slices.iter().all(|(bytes, _)| span(bytes) == span(&slices[0].0)));
    assert_eq!(encoded.get(), 100);
}

#[test]
fn a_reader_that_catches_up_shares_bodies_and_writes_its_own_ids() {
    let (log, past) = vector_log();
    let mut joined = cursor(None, TERMS);
    control(&log, &mut joined);
    let mut ahead = cursor(Some(VectorCodec::id(&[0, 2])), TERMS);
    assert!(matches!(log.read(&mut ahead, 1_000), Read::Wait(_)), "it is ahead of the log");
    past.serve::<Message>(&[2, 2], &|_| Vec::new(), 1);
    control(&log, &mut ahead);

    log.append([(0, 1), (1, 1), (0, 2), (1, 2)].map(event));
    let (shared, _) = slice(&log, &mut joined);
    let Read::Pieces { bytes, events: 2, .. } = log.read(&mut ahead, 1_000) else {
        panic!("two are new to it")
    };
    let [body, id, second_body, second_id] = &bytes[..] else { panic!("{bytes:?}") };
    for body in [body, second_body] {
        assert!(within(body, &shared), "bodies are shared");
    }
    assert!(!within(id, &shared) && !within(second_id, &shared));
    assert_eq!((&id[..], &second_id[..]), (&b"id: v1.2\n\n"[..], &b"id: v2.2\n\n"[..]));

    log.append([(0, 3)].map(event));
    assert_eq!(span(&slice(&log, &mut ahead).0), span(&slice(&log, &mut joined).0), "it has joined");
}

/// A client that resumes from the middle of a chunk shares the rest of it, also where some of the records
/// before it made no event.
#[test]
fn a_reader_from_the_middle_of_a_chunk_joins_by_its_end() {
    let (log, _) = vector_log();
    let tombstone = (Some(Mark::new(1, 1)), Message::new(Kind::Tombstone, "none"));
    log.append([event((0, 1)), tombstone, event((0, 2)), event((0, 3))]);
    let mut cursor = cursor(Some(VectorCodec::id(&[2, 1])), TERMS);
    control(&log, &mut cursor);
    let mut client = Client::default();
    let seen = client.receive(&read(&log, &mut cursor, 1_000).unwrap().0);
    assert!(matches!(&seen[..], [Seen::Event { id, .. }] if id == "v3.1"), "{seen:?}");
    log.append([event((0, 4))]);
    slice(&log, &mut cursor);
}

/// A client may be ahead by a record that makes no event.
#[test]
fn a_reader_joins_when_the_log_has_what_it_has_be_it_an_event_or_not() {
    let (log, past) = vector_log();
    let mut ahead = cursor(Some(VectorCodec::id(&[1, 1])), TERMS);
    log.read(&mut ahead, 1);
    past.serve::<Message>(&[1, 1], &|_| Vec::new(), 1);
    control(&log, &mut ahead);
    log.append([event((0, 1))]);
    assert!(matches!(log.read(&mut ahead, 1_000), Read::Pending));
    log.append([(Some(Mark::new(1, 1)), Message::new(Kind::Tombstone, "none"))]);
    while !matches!(log.read(&mut ahead, 1_000), Read::Pending) {}
    log.append([event((0, 2))]);
    slice(&log, &mut ahead);
}

/// What is told of a position that moved on without an event, and that it is told once.
#[test]
fn a_position_that_moved_on_is_news_once() {
    let (log, _) = vector_log();
    let none = |partition, next| (Some(Mark::new(partition, next)), Message::new(Kind::Tombstone, "none"));
    log.append([none(0, 1)]);
    let mut cursor = cursor(None, TERMS);
    assert_eq!(log.moved_on(&mut cursor), None, "its start is not fixed");
    assert_eq!(control(&log, &mut cursor), "v1");
    assert_eq!(log.moved_on(&mut cursor), None, "it has just been told");

    // In the append of an event, after it.
    log.append([event((0, 2)), none(1, 1)]);
    assert_eq!(log.moved_on(&mut cursor), None, "there is an event to read first");
    slice(&log, &mut cursor);
    let told = log.moved_on(&mut cursor).unwrap();
    assert_eq!(&told[..], b"event: stream.position\ndata: {}\nid: v2.1\n\n");
    assert_eq!(log.moved_on(&mut cursor), None);
    log.append([none(1, 2)]);
    assert!(log.moved_on(&mut cursor).is_some());
}

/// A reader that is ahead of a log does not miss what the log lets go of before it was walked.
#[test]
fn who_has_what_is_let_go_has_no_gap() {
    let (log, past) = keeping(Bounds { events: 1, ..ROOM });
    let mut ahead = cursor(Some(VectorCodec::id(&[4])), TERMS);
    log.read(&mut ahead, 1);
    past.serve::<Message>(&[9], &|_| Vec::new(), 1);
    assert_eq!(control(&log, &mut ahead), "v4");
    for next in 1..=5 {
        log.append([event((0, next))]);
    }
    let mut client = Client::default();
    let mut seen = Vec::new();
    while let Some((bytes, _)) = read(&log, &mut ahead, 1_000) {
        seen.extend(client.receive(&bytes));
    }
    assert!(matches!(&seen[..], [Seen::Event { id, .. }] if id == "v5"), "{seen:?}");
}

/// A record of which taking the payload panics.
struct Broken;

impl Record for Broken {
    fn payload(&self) -> Option<&[u8]> {
        panic!("on purpose");
    }

    fn name(&self) -> &str {
        "model"
    }
}

/// A panic restarts the upstream, which reads again from the log's position: nothing is lost or doubled, and
/// nobody else is harmed.
#[test]
fn a_panic_within_an_append_takes_back_all_of_it() {
    enum Either {
        Whole(Message),
        Broken(Broken),
    }
    impl Record for Either {
        fn payload(&self) -> Option<&[u8]> {
            match self {
                Self::Whole(message) => message.payload(),
                Self::Broken(broken) => broken.payload(),
            }
        }

        fn name(&self) -> &str {
            "model"
        }
    }
    let memory = Memory::new(usize::MAX);
    let log = record::log(ROOM, &memory);
    log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
    let mut cursor = cursor(None, TERMS);
    control(&log, &mut cursor);
    // Enough for two chunks before it breaks.
    let whole = || (0..5).map(|n| Either::Whole(Message::new(Kind::Event(19_000), &n.to_string())));
    let records = whole().chain([Either::Broken(Broken)]).map(|record| (None, record));
    catch_unwind(AssertUnwindSafe(|| log.append(records))).unwrap_err();
    assert_eq!((memory.used(), log.held().events), (0, 0));
    assert!(matches!(log.read(&mut cursor, 1_000), Read::Pending));

    log.append(whole().map(|record| (None, record)));
    let mut client = Client::default();
    let mut numbers = Vec::new();
    while let Some((bytes, _)) = read(&log, &mut cursor, 30_000) {
        for seen in client.receive(&bytes) {
            let Seen::Event { id, .. } = seen else { panic!("{seen:?}") };
            numbers.push(id.split_once('-').unwrap().1.to_owned());
        }
    }
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
}

fn epoch_log() -> Arc<Log> {
    let log = record::log(ROOM, &Memory::new(usize::MAX));
    log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
    log
}

fn vector_log() -> (Arc<Log>, Arc<Past>) {
    keeping(ROOM)
}

/// A log of two partitions, and the past of its source.
fn keeping(bounds: Bounds) -> (Arc<Log>, Arc<Past>) {
    let (log, past) = (record::log(bounds, &Memory::new(usize::MAX)), Past::new(2));
    let (start, end, history) = (Position::default(), Position::default(), Arc::clone(&past) as _);
    log.open_filled(Opening { codec: Arc::new(VectorCodec), history, segments: &[], start, end });
    (log, past)
}

fn event((partition, next): (u32, u64)) -> (Option<Mark>, Message) {
    (Some(Mark::new(partition, next)), Message::new(Kind::Event(3), &format!("{partition}:{next}")))
}

/// Reads a position without a gap, and returns its id.
fn control(log: &Log, cursor: &mut Cursor) -> String {
    let Read::Control { bytes, gaps } = log.read(cursor, 1_000) else { panic!("a position is due") };
    assert!(gaps.is_empty(), "{gaps:?}");
    let mut client = Client::default();
    client.receive(&bytes);
    client.id().unwrap()
}

fn slice(log: &Log, cursor: &mut Cursor) -> (Bytes, usize) {
    match log.read(cursor, 100_000) {
        Read::Slice { bytes, events, .. } => (bytes, events),
        other => panic!("not a shared slice: {other:?}"),
    }
}

fn span(bytes: &Bytes) -> Range<*const u8> {
    bytes.as_ptr_range()
}

fn within(part: &Bytes, whole: &Bytes) -> bool {
    let (part, whole) = (span(part), span(whole));
    whole.start <= part.start && part.end <= whole.end
}

//! A source with a single order whose positions are ids of two numbers, as Redis Streams have them, and whose upstream
//! keeps history and trims it: readers come back with the last id they saw, to a log that was filled, or has let go.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use ssegate::config::OnLag;
use ssegate::hub::{
    Answer, Bounds, Cursor, Decoded, Found, History, IdCodec, Log, Mark, Memory, Offset, Opening, Position,
    Question, Segment, SegmentDraft, Sought, Table, Terms,
};
use tokio::time::Instant;

use crate::client::{Client, Seen, read};
use crate::record::{self, Kind, Message};
use crate::{ROOM, TERMS, cases, cursor};

#[derive(Debug, Clone)]
enum Op {
    /// Entries, each so far after the last in both numbers.
    Publish(Vec<(u64, u64, bool)>),
    /// The log reads on, so many at most.
    Fetch(usize),
    /// The upstream lets go of its oldest.
    Trim(Index),
    /// A reader comes back with its last id.
    Reconnect(usize),
    Read(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let step = (prop_oneof![Just(0), Just(0), 1..3_u64, Just(1 << 62)], 1..3_u64, prop::bool::weighted(0.9));
    let max = prop_oneof![1 => Just(0), 4 => 1..1_000_usize, 1 => Just(usize::MAX)];
    prop_oneof![
        4 => prop::collection::vec(step, 1..20).prop_map(Op::Publish),
        4 => (0..25_usize).prop_map(Op::Fetch),
        1 => any::<Index>().prop_map(Op::Trim),
        2 => (0..READERS).prop_map(Op::Reconnect),
        8 => (0..READERS, max).prop_map(|(reader, max)| Op::Read(reader, max)),
    ]
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn readers_of_entries_see_each_once_or_are_told_that_it_was_trimmed(
        before in prop::collection::vec((0..3_u64, 1..3_u64, any::<bool>()), 0..20),
        filled in 0..20_usize,
        kept in prop_oneof![Just(usize::MAX), 0..30_usize],
        most in 1..8_usize,
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut world = World::new(&before, filled, kept, most);
        ops.into_iter().for_each(|op| world.step(op));
        world.catch_up();
    }
}

const READERS: usize = 3;

/// What there is upstream: entries with their ids, whether each makes an event, and how many were trimmed.
#[derive(Default)]
struct Stream {
    entries: Vec<(Offset, bool)>,
    trimmed: usize,
    most: usize,
}

impl Stream {
    fn publish(&mut self, (major, minor, visible): (u64, u64, bool)) {
        let last = self.last();
        // Where the range ends, nothing is added.
        let minor = if major > 0 { Some(minor - 1) } else { last.minor.checked_add(minor) };
        if let Some((major, minor)) = last.major.checked_add(major).zip(minor) {
            self.entries.push((Offset { major, minor }, visible));
        }
    }

    fn last(&self) -> Offset {
        self.entries.last().map_or(Offset::default(), |(id, _)| *id)
    }

    /// Where a reader must stand to have missed nothing: that it has the newest entry that was trimmed will do.
    fn beginning(&self) -> Offset {
        self.trimmed.checked_sub(1).map_or(Offset::default(), |last| self.entries[last].0)
    }

    /// How many events a reader at `id` has.
    fn rank(&self, id: Offset) -> usize {
        self.entries.iter().filter(|(own, visible)| *visible && *own <= id).count()
    }

    fn message(&self, at: usize) -> Message {
        let (id, visible) = self.entries[at];
        let kind = if visible { Kind::Event(at % 40) } else { Kind::Tombstone };
        Message::at(kind, &EntryIds::show(id), id.major)
    }

    /// What lies between two places, so many entries at most.
    fn segment(&self, from: Offset, until: Offset, most: usize) -> Segment {
        let codec: Arc<dyn IdCodec> = Arc::new(EntryIds);
        let memory = Memory::new(usize::MAX);
        let mut draft = SegmentDraft::new(&record::shape(), &codec, false, &memory, 0, from);
        let within = |at: &usize| self.entries[*at].0 > from && self.entries[*at].0 <= until;
        let mut there = (self.trimmed..self.entries.len()).filter(within).peekable();
        for at in there.by_ref().take(most) {
            draft.push(self.entries[at].0, &self.message(at));
        }
        let to = if there.peek().is_some() { draft.at() } else { until };
        draft.finish(to)
    }
}

/// Answers at once; waiting is for the tests of replicas.
struct Past(Arc<Mutex<Stream>>);

impl History for Past {
    fn segment(&self, partition: u32, from: Offset, until: Offset) -> Found<Sought> {
        assert!(partition == 0 && from < until);
        let stream = self.0.lock();
        Found::Here(if from < stream.beginning() {
            Sought::Trimmed(stream.beginning())
        } else {
            Sought::Segment(Arc::new(stream.segment(from, until, stream.most)))
        })
    }

    fn ask(&self, question: &Question, _: Instant) -> Found<Answer> {
        assert!(!matches!(question, Question::At(_)), "every age is honoured");
        let stream = self.0.lock();
        let (oldest, end) = (Position::single(stream.beginning()), Position::single(stream.last()));
        Found::Here(Answer { from: oldest.clone(), oldest, end, born: None })
    }

    fn answers_since(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn counts(&self) -> bool {
        false
    }

    fn scan(&self, _: &Position, _: Arc<Table>) {
        unreachable!("no log has a table here");
    }

    fn reset(&self) {
        unreachable!("no source is created anew here");
    }
}

/// Ids as plain as can be.
#[derive(Debug)]
struct EntryIds;

impl EntryIds {
    fn show(id: Offset) -> String {
        format!("{}-{}", id.major, id.minor)
    }

    fn parse(id: &str) -> Offset {
        let (major, minor) = id.split_once('-').unwrap();
        Offset { major: major.parse().unwrap(), minor: minor.parse().unwrap() }
    }
}

impl IdCodec for EntryIds {
    fn encode(&self, position: &Position, out: &mut String) {
        out.push_str(&Self::show(position.at(0)));
    }

    fn decode(&self, id: &str) -> Decoded {
        Decoded::Position(Position::single(Self::parse(id)))
    }

    fn single_order(&self) -> bool {
        true
    }

    fn counts(&self) -> bool {
        false
    }

    fn bound(&self, position: &Position, _: &Position) -> Value {
        json!(Self::show(position.at(0)))
    }
}

struct World {
    stream: Arc<Mutex<Stream>>,
    log: Arc<Log>,
    /// How many entries the log has read.
    taken: usize,
    readers: Vec<(Client, Cursor)>,
    /// How many events each has, or was told to miss.
    seen: Vec<Option<usize>>,
}

impl World {
    fn new(before: &[(u64, u64, bool)], filled: usize, kept: usize, most: usize) -> Self {
        let mut stream = Stream { most, ..Stream::default() };
        before.iter().for_each(|step| stream.publish(*step));
        let (taken, end) = (stream.entries.len(), stream.last());
        let first = taken.saturating_sub(filled).checked_sub(1);
        let start = first.map_or(Offset::default(), |before| stream.entries[before].0);
        let segments = [stream.segment(start, end, usize::MAX)];
        let log = record::log(Bounds { events: kept, ..ROOM }, &Memory::new(usize::MAX));
        let stream = Arc::new(Mutex::new(stream));
        let (codec, history) = (Arc::new(EntryIds), Arc::new(Past(Arc::clone(&stream))));
        let (start, end) = (Position::single(start), Position::single(end));
        log.open_filled(Opening { codec, history, segments: &segments, start, end });
        let readers = (0..READERS).map(|_| (Client::default(), cursor(None, Self::terms()))).collect();
        (0..READERS).for_each(|_| log.join());
        Self { stream, log, taken, readers, seen: vec![None; READERS] }
    }

    fn terms() -> Terms {
        Terms { on_lag: OnLag::Replay, ..TERMS }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Publish(steps) => steps.into_iter().for_each(|step| self.stream.lock().publish(step)),
            Op::Fetch(count) => self.fetch(count),
            Op::Trim(to) => {
                // What the log has not read yet stays, or it would be for the log to tell.
                let mut stream = self.stream.lock();
                stream.trimmed = stream.trimmed.max(to.index(self.taken + 1));
            }
            Op::Reconnect(reader) => {
                let (client, cursor_of) = &mut self.readers[reader];
                client.reconnect();
                *cursor_of = cursor(client.id(), Self::terms());
                let id = client.id().map(|id| EntryIds::parse(&id));
                self.seen[reader] = id.map(|id| self.stream.lock().rank(id));
            }
            Op::Read(reader, max) => _ = self.read(reader, max),
        }
    }

    fn fetch(&mut self, count: usize) {
        let stream = self.stream.lock();
        let to = self.taken.saturating_add(count).min(stream.entries.len());
        let mark = |at: usize| Some(Mark { partition: 0, next: stream.entries[at].0 });
        self.log.append((self.taken..to).map(|at| (mark(at), stream.message(at))));
        self.taken = to;
    }

    /// Reads once, and says whether there was something.
    fn read(&mut self, reader: usize, max: usize) -> bool {
        let (client, cursor) = &mut self.readers[reader];
        let Some((bytes, _)) = read(&self.log, cursor, max) else { return false };
        let stream = self.stream.lock();
        for seen in client.receive(&bytes) {
            let before = self.seen[reader];
            self.seen[reader] = Some(match seen {
                Seen::Event { data, id } => {
                    let next = before.unwrap();
                    let (expected, _) =
                        stream.entries.iter().filter(|(_, visible)| *visible).nth(next).unwrap();
                    assert_eq!(id, EntryIds::show(*expected), "each once and in order");
                    assert_eq!(data.split(' ').next(), Some(&*id));
                    next + 1
                }
                Seen::SnapshotStart | Seen::SnapshotEnd | Seen::Gone { .. } => {
                    panic!("no log has a table here")
                }
                Seen::Gap(gap) => {
                    assert_eq!((&*gap.reason, gap.missed), ("trimmed", None));
                    let id = |bound: &Value| EntryIds::parse(bound.as_str().unwrap());
                    assert_eq!(stream.rank(id(&gap.from)), before.unwrap());
                    assert!(id(&gap.from) < id(&gap.to) && id(&gap.to) <= stream.beginning());
                    stream.rank(id(&gap.to))
                }
                Seen::Position { id } => {
                    let now = stream.rank(EntryIds::parse(&id));
                    assert!(before.is_none_or(|before| before == now));
                    now
                }
            });
        }
        true
    }

    fn catch_up(&mut self) {
        self.fetch(usize::MAX);
        let stream = self.stream.lock();
        let all = stream.rank(stream.last());
        drop(stream);
        for reader in 0..READERS {
            let reads = (0..10_000).take_while(|_| self.read(reader, 500)).count();
            assert!(reads < 10_000, "it comes to an end");
            assert_eq!(self.seen[reader], Some(all), "all is accounted for");
        }
    }
}

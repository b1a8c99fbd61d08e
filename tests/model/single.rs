//! A log of a source with a single order, its bounds, and readers that read now and then, fall behind, are cut
//! at any byte and come back with the last id they saw.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::sample::Index;
use ssegate::config::Replay;
use ssegate::hub::{Bounds, Cursor, Epoch, EpochCodec, Log, Memory, Position, Reason, Terms};
use tokio::time::Instant;

use crate::client::{Client, Gap, Seen, read};
use crate::record::{self, Kind, Message};
use crate::{ANY_AGE, ROOM, TERMS, cases, cursor};

#[derive(Debug, Clone)]
enum Op {
    Publish(Vec<Kind>),
    LoseLink,
    Connect(Index),
    Read(Index, usize),
    /// The connection breaks while the reader receives, after this part of the bytes.
    Cut(Index, usize, Index),
    Disconnect(Index),
    Silence(Index),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let reader = any::<Index>;
    prop_oneof![
        6 => prop::collection::vec(record::kind(), 1..BATCH).prop_map(Op::Publish),
        1 => Just(Op::LoseLink),
        3 => reader().prop_map(Op::Connect),
        8 => (reader(), max()).prop_map(|(reader, max)| Op::Read(reader, max)),
        2 => (reader(), max(), any::<Index>()).prop_map(|(reader, max, at)| Op::Cut(reader, max, at)),
        1 => reader().prop_map(Op::Disconnect),
        1 => reader().prop_map(Op::Silence),
        2 => (0..400_u64).prop_map(Op::Wait),
    ]
}

fn max() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 4 => 1..2_000_usize, 2 => 2_000..80_000_usize, 1 => Just(usize::MAX)]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let events = prop_oneof![0..40_usize, Just(usize::MAX)];
    let bytes = prop_oneof![0..30_000_usize, Just(usize::MAX)];
    let age = prop_oneof![(0..2_000_u64).prop_map(Duration::from_millis), Just(ROOM.age)];
    let buffer = prop_oneof![Just(0), 0..100_000_usize];
    (events, bytes, age, buffer).prop_map(|(events, bytes, age, buffer)| Bounds {
        events,
        bytes,
        age,
        buffer,
    })
}

fn replay() -> impl Strategy<Value = Replay> {
    let limited = (0..40_usize, 0..2_000_u64);
    prop_oneof![
        Just(ANY_AGE),
        limited.prop_map(|(max_events, age)| Replay {
            max_events,
            max_age: Duration::from_millis(age),
            ..ANY_AGE
        })
    ]
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn every_reader_sees_each_event_once_or_a_gap_that_accounts_for_it(
        bounds in bounds(),
        replay in replay(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(World::new(bounds, replay).run(ops));
    }
}

/// What was published, as a client may know of it.
struct Published {
    what: What,
    at: Instant,
    /// No entry takes more room than this, its share of its chunk's bookkeeping included.
    room: usize,
    /// Whether it is the first of those that were appended together.
    first: bool,
}

enum What {
    Event(String),
    Gap(&'static str),
}

struct World {
    log: Arc<Log>,
    memory: Arc<Memory>,
    bounds: Bounds,
    replay: Replay,
    published: Vec<Published>,
    /// What was published up to here may have been let go for want of readers.
    unattended: usize,
    readers: Vec<Reader>,
}

/// A client, what it is to see next, and its connection if it has one.
struct Reader {
    client: Client,
    next: Option<usize>,
    connection: Option<Connection>,
}

struct Connection {
    cursor: Cursor,
    /// Whether it has been told where it starts.
    begun: bool,
    /// A gap has been told, so its position must come.
    owed: bool,
}

impl World {
    fn new(bounds: Bounds, replay: Replay) -> Self {
        let memory = Memory::new(usize::MAX);
        let log = record::log(bounds, &memory);
        let reader = |_| Reader { client: Client::default(), next: None, connection: None };
        let readers = (0..4).map(reader).collect();
        Self { log, memory, bounds, replay, published: Vec::new(), unattended: 0, readers }
    }

    async fn run(mut self, ops: Vec<Op>) {
        self.connect(0);
        assert!(self.read(0, 1).is_none(), "nothing is told before the log is open");
        self.log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        for op in ops {
            match op {
                Op::Publish(kinds) => self.publish(&kinds),
                Op::LoseLink => self.lose_link(),
                Op::Connect(reader) => self.connect(reader.index(4)),
                Op::Read(reader, max) => self.receive(reader.index(4), max, None),
                Op::Cut(reader, max, at) => self.receive(reader.index(4), max, Some(at)),
                Op::Disconnect(reader) => self.disconnect(reader.index(4)),
                Op::Silence(reader) => self.silence(reader.index(4)),
                Op::Wait(millis) => {
                    tokio::time::advance(Duration::from_millis(millis)).await;
                    self.log.sweep(Instant::now());
                    self.check_room();
                }
            }
        }
        for reader in 0..4 {
            self.connect(reader);
            self.receive_all(reader);
            assert_eq!(self.readers[reader].next, Some(self.published.len()), "all is accounted for");
        }
        drop(self.readers);
        assert_eq!(self.memory.used(), self.log.held().bytes, "nothing but the log holds anything");
        drop(self.log);
        assert_eq!(self.memory.used(), 0);
    }

    fn publish(&mut self, kinds: &[Kind]) {
        let mut records = Vec::new();
        let first_of_batch = self.published.len();
        for &kind in kinds {
            let name = self.published.len().to_string();
            records.push((None, Message::new(kind, &name)));
            let (what, room) = match (kind, kind.gap()) {
                (Kind::Event(filling), _) => (What::Event(record::text(&name, filling)), filling + 700),
                (_, Some(reason)) => (What::Gap(reason), 1_000),
                (_, None) => continue,
            };
            let first = first_of_batch == self.published.len();
            self.published.push(Published { what, at: Instant::now(), room, first });
        }
        let appended = self.log.append(records);
        assert_eq!(appended.events as usize, kinds.iter().filter(|kind| kind.visible()).count());
        assert_eq!(
            appended.gaps.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(),
            kinds.iter().filter_map(|kind| kind.gap()).collect::<Vec<_>>()
        );
        self.attended();
        self.check_room();
    }

    fn lose_link(&mut self) {
        let what = What::Gap(Reason::UpstreamLost.as_str());
        self.published.push(Published { what, at: Instant::now(), room: 1_000, first: true });
        self.log.append_link_lost((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
        self.attended();
        self.check_room();
    }

    fn connect(&mut self, reader: usize) {
        self.disconnect(reader);
        let reader = &mut self.readers[reader];
        reader.client.reconnect();
        // What a cut took away will be told again.
        reader.next = reader.client.id().map(|id| number(&id));
        let cursor = cursor(reader.client.id(), Terms { replay: self.replay, ..TERMS });
        reader.connection = Some(Connection { cursor, begun: false, owed: false });
        self.log.join();
    }

    fn disconnect(&mut self, reader: usize) {
        if self.readers[reader].connection.take().is_some() {
            self.log.leave();
        }
        self.attended();
    }

    fn attended(&mut self) {
        if self.log.readers() == 0 {
            self.unattended = self.published.len();
        }
    }

    fn read(&mut self, reader: usize, max: usize) -> Option<(Vec<u8>, usize)> {
        let connection = self.readers[reader].connection.as_mut()?;
        read(&self.log, &mut connection.cursor, max)
    }

    fn receive(&mut self, reader: usize, max: usize, cut: Option<Index>) {
        let connected = self.readers[reader].connection.is_some();
        match self.read(reader, max) {
            Some((bytes, events)) => {
                let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
                let seen = self.readers[reader].client.receive(&bytes[..end]);
                let entries = seen.iter().filter(|seen| !matches!(seen, Seen::Position { .. })).count();
                assert!(cut.is_some() || events == 0 || events == entries);
                self.check(reader, seen);
            }
            None if connected => {
                assert_eq!(self.readers[reader].next, Some(self.published.len()), "nothing is withheld");
            }
            None => {}
        }
        if cut.is_some() {
            self.disconnect(reader);
        }
    }

    fn receive_all(&mut self, reader: usize) {
        let mut reads = 0;
        while let Some((bytes, _)) = self.read(reader, 1_000) {
            let seen = self.readers[reader].client.receive(&bytes);
            self.check(reader, seen);
            reads += 1;
            assert!(reads < 10_000, "it comes to an end");
        }
    }

    /// A keepalive: of a source that numbers its own events there is no position without an event.
    fn silence(&mut self, reader: usize) {
        if let Some(connection) = &mut self.readers[reader].connection {
            assert_eq!(self.log.moved_on(&mut connection.cursor), None);
        }
    }

    fn check(&mut self, reader: usize, seen: Vec<Seen>) {
        for seen in seen {
            let next = self.readers[reader].next;
            let begun = self.readers[reader].connection.as_ref().unwrap().begun;
            let owed = self.readers[reader].connection.as_ref().unwrap().owed;
            assert!(!owed || matches!(seen, Seen::Position { .. }), "a position follows every gap");
            let (now, owes) = match seen {
                Seen::Event { data, id } => {
                    assert!(begun, "the position is told first");
                    let next = next.unwrap();
                    let What::Event(text) = &self.published[next].what else {
                        panic!("{data}, and it is a gap")
                    };
                    assert_eq!(&data, text);
                    assert_eq!(number(&id), next + 1);
                    (next + 1, false)
                }
                Seen::Gap(gap) => (self.check_gap(next.unwrap(), begun, &gap), true),
                Seen::SnapshotStart | Seen::SnapshotEnd | Seen::Gone { .. } => {
                    panic!("no log has a table here")
                }
                Seen::Position { id } => {
                    assert!(!begun || owed, "a position is told at the start and after gaps");
                    if !begun && !owed {
                        self.check_start(next, number(&id));
                    }
                    assert_eq!(number(&id), next.unwrap_or(self.published.len()));
                    (number(&id), false)
                }
            };
            let reader = &mut self.readers[reader];
            reader.next = Some(now);
            let connection = reader.connection.as_mut().unwrap();
            connection.begun |= !owes;
            connection.owed = owes;
        }
    }

    fn check_start(&self, next: Option<usize>, start: usize) {
        if let Some(next) = next {
            assert_eq!(start, next);
            assert!(start >= self.replay_limit(), "`replay` limits how far an id goes back");
        }
    }

    /// Returns what follows the gap.
    fn check_gap(&self, next: usize, begun: bool, gap: &Gap) -> usize {
        match gap.reason.as_str() {
            "lagged" => assert!(begun),
            "evicted" | "replay_limit" => assert!(!begun),
            source => {
                assert!(begun, "the position is told first");
                let What::Gap(reason) = self.published[next].what else {
                    panic!("{gap:?}, and it is an event")
                };
                assert_eq!(source, reason);
                let lost = reason == "upstream_lost";
                let expected = Gap {
                    reason: source.to_owned(),
                    missed: (!lost).then_some(1),
                    from: if lost { None } else { Some(next) }.into(),
                    to: if lost { None } else { Some(next + 1) }.into(),
                    timed: lost,
                };
                assert_eq!(gap, &expected);
                return next + 1;
            }
        }
        let bound = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let (from, to) = (bound(&gap.from), bound(&gap.to));
        assert_eq!(from, next, "a gap begins where the reader stands");
        assert!(from < to && to <= self.published.len(), "{gap:?} of {}", self.published.len());
        let missing = &self.published[from..to];
        let known = missing.iter().all(|published| matches!(published.what, What::Event(_)));
        assert_eq!(gap.missed, known.then_some((to - from) as u64), "{gap:?}");
        match gap.reason.as_str() {
            "replay_limit" => assert_eq!(to, self.replay_limit()),
            _ => assert!(to <= self.kept(), "{gap:?}, and {} on must be kept", self.kept()),
        }
        assert!(begun || to >= self.replay_limit());
        to
    }

    /// Where the oldest event is that `replay` allows.
    fn replay_limit(&self) -> usize {
        let now = Instant::now();
        let young = self.published.iter().take_while(|p| now - p.at > self.replay.max_age).count();
        young.max(self.published.len().saturating_sub(self.replay.max_events))
    }

    /// What was published from here on cannot have been let go.
    fn kept(&self) -> usize {
        let (now, len) = (Instant::now(), self.published.len());
        // What was appended together may go together.
        let fits = |room: usize, from: usize| {
            let mut sum = 0;
            let held = |&(_, p): &(usize, &Published)| {
                sum += p.room;
                sum <= room
            };
            let newest = self.published[from..].iter().rev().enumerate().take_while(held);
            newest.filter(|(_, p)| p.first).last().map_or(0, |(older, _)| older + 1)
        };
        let recent = self.published.iter().rev().take_while(|p| now - p.at <= self.bounds.age).count();
        let history = recent.min(self.bounds.events).min(fits(self.bounds.bytes, 0));
        len - history.max(fits(self.bounds.buffer, self.unattended))
    }

    /// The log holds no more than it may.
    fn check_room(&self) {
        let (held, Bounds { events, bytes, buffer, .. }) = (self.log.held(), self.bounds);
        let (lag_room, runs) = match self.log.readers() {
            0 => (0, 0),
            _ => (buffer.saturating_add(CHUNK_AT_MOST), RUNS_AT_MOST),
        };
        assert!(
            held.bytes <= bytes.max(lag_room).saturating_add(runs),
            "{held:?} with {} readers",
            self.log.readers()
        );
        let most = if events == 0 { 0 } else { events.saturating_add(BATCH) };
        assert!(held.events <= most || held.bytes <= lag_room.saturating_add(runs), "{held:?}");
    }
}

/// The number in an id `epoch-number`: how many entries a reader with this id has.
fn number(id: &str) -> usize {
    id.split_once('-').unwrap().1.parse().unwrap()
}

/// More than is ever published at once.
const BATCH: usize = 30;

/// What was joined for readers takes no more than this.
const RUNS_AT_MOST: usize = 4 * 25 * 1024;

/// A chunk takes no more than this.
const CHUNK_AT_MOST: usize = 64 * 1024 + BATCH * 100;

#[test]
fn an_epoch_is_known_by_its_log_alone() {
    let memory = Memory::new(usize::MAX);
    let mut ids = HashSet::new();
    for _ in 0..100 {
        let log = record::log(ROOM, &memory);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        let mut client = Client::default();
        let mut fresh = cursor(None, TERMS);
        client.receive(&read(&log, &mut fresh, 1).unwrap().0);
        assert!(ids.insert(client.id().unwrap()));
        let foreign: Option<&String> = ids.iter().find(|id| **id != client.id().unwrap());
        let Some(foreign) = foreign else { continue };
        let mut cursor = cursor(Some(foreign.clone()), TERMS);
        let mut client = Client::default();
        let seen = client.receive(&read(&log, &mut cursor, 1).unwrap().0);
        let [Seen::Gap(gap), Seen::Position { .. }] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((gap.reason.as_str(), gap.missed), ("unknown_id", None));
    }
}

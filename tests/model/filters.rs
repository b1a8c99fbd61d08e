//! Readers of whom each wants a part of what there is, on two replicas with an interleaving each: they read before, in and
//! beyond what a log holds, lag, are cut at any byte, hop and resume. With each id that a reader is told it has all that it
//! wants up to there, each once, and nothing that it does not want; or a gap accounts for it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use ssegate::config::{EventRate, OnLag, Start};
use ssegate::hub::{Bounds, Cursor, Mark, Memory, Opening, Position, Read, Terms};
use ssegate::shape::{Record as _, Shape};

use crate::client::{Client, Gap, Seen, read};
use crate::past::Past;
use crate::record::{self, Message};
use crate::topic::{Published, Replica, Topic};
use crate::vector::VectorCodec;
use crate::wants::{self, WANTS};
use crate::{ROOM, TERMS, cases, cursor, max, until_still};

const PARTITIONS: usize = 2;

/// What clients are asked for their events.
static SHAPE: LazyLock<Shape> = LazyLock::new(|| wants::shape("event.c"));

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// An event of one of the colours, with so much filling.
    Of(usize, usize),
    /// An event of which the filters cannot tell.
    Colourless,
    Tombstone,
    Undecodable,
}

impl Kind {
    /// Whether a reader is told of it.
    fn is_for(self, reader: usize) -> bool {
        match self {
            Self::Of(colour, _) => wants::is_for(reader, colour),
            Self::Colourless => reader == 0,
            Self::Tombstone => false,
            Self::Undecodable => true,
        }
    }
}

fn message(partition: usize, published: &Published<Kind>) -> Message {
    let name = format!("{partition}:{}", published.offset);
    let payload = match published.of {
        Kind::Of(colour, filling) => {
            let (colour, filling) = (WANTS[colour], "x".repeat(filling));
            Some(format!(r#"{{"c":"{colour}","n":"{name}","x":"{filling}"}}"#).into_bytes())
        }
        Kind::Colourless => Some(format!(r#"{{"n":"{name}"}}"#).into_bytes()),
        Kind::Tombstone => None,
        Kind::Undecodable => Some(vec![b'a', 0xff]),
    };
    Message::of(payload, published.offset / 3)
}

#[derive(Debug, Clone)]
enum Op {
    Publish(usize, Vec<Kind>),
    /// A replica reads on: so many records of one partition after the other, in one append.
    Fetch(usize, Vec<(usize, usize)>),
    /// The broker answers a replica, and reads so many records of each place that is wanted.
    Serve(usize, usize),
    /// Retention passes records of a partition.
    Trim(usize, Index),
    Read(usize, usize),
    /// The connection breaks while the reader receives, after this part of the bytes.
    Cut(usize, usize, Index),
    Hop(usize, usize),
    Silence(usize),
}

fn kind() -> impl Strategy<Value = Kind> {
    let filling = prop_oneof![6 => 0..40_usize, 1 => 2_000..9_000_usize];
    prop_oneof![
        12 => (1..WANTS.len(), filling).prop_map(|(colour, filling)| Kind::Of(colour, filling)),
        1 => Just(Kind::Colourless),
        1 => Just(Kind::Tombstone),
        1 => Just(Kind::Undecodable),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let (reader, replica, partition) = (|| 0..WANTS.len(), || 0..2_usize, || 0..PARTITIONS);
    let max = || max(1_500);
    let runs = prop::collection::vec((partition(), 1..8_usize), 1..8);
    prop_oneof![
        8 => (partition(), prop::collection::vec(kind(), 1..16)).prop_map(|(p, kinds)| Op::Publish(p, kinds)),
        10 => (replica(), runs).prop_map(|(replica, runs)| Op::Fetch(replica, runs)),
        5 => (replica(), 1..20_usize).prop_map(|(replica, most)| Op::Serve(replica, most)),
        1 => (partition(), any::<Index>()).prop_map(|(partition, to)| Op::Trim(partition, to)),
        14 => (reader(), max()).prop_map(|(reader, max)| Op::Read(reader, max)),
        3 => (reader(), max(), any::<Index>()).prop_map(|(reader, max, at)| Op::Cut(reader, max, at)),
        5 => (reader(), replica()).prop_map(|(reader, replica)| Op::Hop(reader, replica)),
        3 => reader().prop_map(Op::Silence),
    ]
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn with_each_id_a_reader_has_all_that_it_wants_up_to_there(
        kept in prop_oneof![Just(usize::MAX), 0..30_usize],
        earliest in any::<bool>(),
        replays in prop::bool::weighted(0.7),
        before in prop::collection::vec((0..PARTITIONS, kind()), 0..20),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let start = if earliest { Start::Earliest } else { Start::Latest };
        let on_lag = if replays { OnLag::Replay } else { OnLag::Gap };
        World::new(&before, kept, Terms { start, on_lag, ..TERMS }).run(ops);
    }
}

struct World {
    topic: Topic<Kind>,
    terms: Terms,
    replicas: [Replica; 2],
    readers: Vec<Reader>,
}

struct Reader {
    client: Client,
    /// How many records that are for it, of each partition, it has seen or was told to miss.
    seen: Option<Vec<usize>>,
    connection: Option<Connection>,
}

struct Connection {
    replica: usize,
    cursor: Cursor,
    begun: bool,
    owed: bool,
}

impl World {
    fn new(before: &[(usize, Kind)], kept: usize, terms: Terms) -> Self {
        let mut topic = Topic::new(PARTITIONS);
        before.iter().for_each(|&(partition, kind)| topic.publish(partition, kind, 0));
        let replicas = [false, true].map(|late| {
            let log = record::log_of(&SHAPE, false, Bounds { events: kept, ..ROOM });
            Replica::new(&topic, log, Past::of(PARTITIONS, &SHAPE, false), VectorCodec, late)
        });
        let reader = |_| Reader { client: Client::default(), seen: None, connection: None };
        let readers = (0..WANTS.len()).map(reader).collect();
        let mut world = Self { topic, terms, replicas, readers };
        (0..WANTS.len()).for_each(|reader| world.connect(reader, reader % 2));
        world
    }

    fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Publish(partition, kinds) => {
                    kinds.into_iter().for_each(|kind| self.topic.publish(partition, kind, 0));
                }
                Op::Fetch(replica, runs) => self.replicas[replica].fetch(&self.topic, runs, message),
                Op::Serve(replica, most) => self.serve(replica, most),
                Op::Trim(partition, to) => {
                    self.topic.trim(partition, to);
                    self.replicas.iter().for_each(|replica| replica.past.trim(&self.topic.low));
                }
                Op::Read(reader, max) => _ = self.receive(reader, max, None),
                Op::Cut(reader, max, at) => _ = self.receive(reader, max, Some(at)),
                Op::Hop(reader, replica) => self.connect(reader, replica),
                Op::Silence(reader) => self.silence(reader),
            }
        }
        self.catch_up();
    }

    /// How many records for a reader lie before `position`, in each partition.
    fn ranks(&self, reader: usize, position: &Position) -> Vec<usize> {
        self.topic.ranks(position, |kind| kind.is_for(reader))
    }

    fn rank(&self, reader: usize, partition: usize, next: u64) -> usize {
        self.topic.rank(partition, next, |kind| kind.is_for(reader))
    }

    fn connect(&mut self, reader: usize, replica: usize) {
        self.disconnect(reader);
        let state = &mut self.readers[reader];
        state.client.reconnect();
        let id = state.client.id();
        let seen = id.as_ref().map(|id| VectorCodec::position(id).unwrap());
        let cursor = Cursor::new(wants::wish(&SHAPE, id, reader), self.terms);
        state.connection = Some(Connection { replica, cursor, begun: false, owed: false });
        self.replicas[replica].log.join();
        // What a cut took away will be told again.
        self.readers[reader].seen = seen.map(|position| self.ranks(reader, &position));
    }

    fn disconnect(&mut self, reader: usize) {
        if let Some(connection) = self.readers[reader].connection.take() {
            self.replicas[connection.replica].log.leave();
        }
    }

    /// Reads once, and says whether there was something.
    fn receive(&mut self, reader: usize, max: usize, cut: Option<Index>) -> bool {
        let Some(connection) = &mut self.readers[reader].connection else { return false };
        let replica = connection.replica;
        let read = read(&self.replicas[replica].log, &mut connection.cursor, max);
        let progress = read.is_some();
        match read {
            Some((bytes, events)) => {
                let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
                let seen = self.readers[reader].client.receive(&bytes[..end]);
                let entries = seen.iter().filter(|seen| !matches!(seen, Seen::Position { .. })).count();
                assert!(cut.is_some() || events == 0 || events == entries);
                self.check(reader, replica, seen);
            }
            None if self.replicas[replica].past.is_wanted() => {}
            None => {
                assert!(connection.begun, "only a question to the broker has to wait");
                let has = self.ranks(reader, &self.replicas[replica].log.position().unwrap());
                let seen = self.readers[reader].seen.as_ref().unwrap();
                assert!(seen.iter().zip(&has).all(|(seen, has)| seen >= has), "{seen:?} of {has:?}");
            }
        }
        if cut.is_some() {
            self.disconnect(reader);
        }
        progress
    }

    fn silence(&mut self, reader: usize) {
        let state = &mut self.readers[reader];
        let Some(connection) = &mut state.connection else { return };
        let log = &self.replicas[connection.replica].log;
        let Some(bytes) = log.moved_on(&mut connection.cursor) else { return };
        assert_eq!(log.moved_on(&mut connection.cursor), None, "once");
        let before = VectorCodec::position(&state.client.id().unwrap()).unwrap();
        let seen = state.client.receive(&bytes);
        let [Seen::Position { id }] = &seen[..] else { panic!("{seen:?}") };
        let after = VectorCodec::position(id).unwrap();
        assert!(after.covers_all(&before) && after != before, "only news are told: {before:?} {after:?}");
        assert_eq!(self.readers[reader].seen, Some(self.ranks(reader, &after)), "nothing is passed over");
    }

    fn serve(&self, replica: usize, most: usize) {
        self.replicas[replica].past.serve(&self.topic.ends(), &self.topic.records(message), most);
    }

    fn check(&mut self, reader: usize, replica: usize, seen: Vec<Seen>) {
        for seen in seen {
            let state = &self.readers[reader];
            let Some(Connection { begun, owed, .. }) = state.connection else { panic!("it reads") };
            let before = state.seen.clone();
            assert!(!owed || matches!(seen, Seen::Position { .. }), "a position follows every gap");
            let (now, owes) = match seen {
                Seen::Event { data, id } => {
                    assert!(begun, "the position is told first");
                    let now = self.check_event(reader, before.unwrap(), &data);
                    let told = self.ranks(reader, &VectorCodec::position(&id).unwrap());
                    assert_eq!(told, now, "the id says what it has");
                    (now, false)
                }
                Seen::Gap(gap) => (self.check_gap(reader, before.unwrap(), replica, begun, &gap), true),
                Seen::Position { id } => {
                    // At the start and after gaps; and by itself where history was gone through that is not for it.
                    let now = self.ranks(reader, &VectorCodec::position(&id).unwrap());
                    let head = || self.ranks(reader, &self.replicas[replica].log.position().unwrap());
                    let earliest = self.terms.start == Start::Earliest && before.is_none();
                    assert!(earliest || now == before.unwrap_or_else(head));
                    (now, false)
                }
                other => panic!("no log has a table here: {other:?}"),
            };
            let state = &mut self.readers[reader];
            state.seen = Some(now);
            let connection = state.connection.as_mut().unwrap();
            connection.begun |= !owes;
            connection.owed = owes;
        }
    }

    /// Returns what the reader has then.
    fn check_event(&self, reader: usize, mut seen: Vec<usize>, data: &str) -> Vec<usize> {
        let event: Value = serde_json::from_str(data).unwrap();
        let (partition, offset) = event["n"].as_str().unwrap().split_once(':').unwrap();
        let (partition, offset) = (partition.parse::<usize>().unwrap(), offset.parse::<u64>().unwrap());
        let mut wanted = self.topic.own(partition, |kind| kind.is_for(reader));
        let expected = wanted.nth(seen[partition]).unwrap();
        assert_eq!(offset, expected.offset, "each that it wants once and in order, in partition {partition}");
        assert_eq!(Some(data.as_bytes()), message(partition, expected).payload());
        seen[partition] += 1;
        seen
    }

    fn check_gap(
        &self,
        reader: usize,
        mut seen: Vec<usize>,
        replica: usize,
        begun: bool,
        gap: &Gap,
    ) -> Vec<usize> {
        let (Value::Object(from), Value::Object(to)) = (&gap.from, &gap.to) else { panic!("{gap:?}") };
        let before = seen.clone();
        let mut reached = Vec::new();
        for (name, from) in from {
            let (partition, to) = (name.parse::<usize>().unwrap(), to[name].as_u64().unwrap());
            let at = self.rank(reader, partition, from.as_u64().unwrap());
            assert_eq!(at, seen[partition], "a gap begins where the reader stands");
            seen[partition] = self.rank(reader, partition, to);
            reached.push((partition, to));
        }
        match gap.reason.as_str() {
            "trimmed" => {
                let low = &self.topic.low;
                assert!(reached.iter().all(|&(p, to)| to <= low[p]), "{gap:?} of {low:?}");
            }
            "lagged" => {
                assert!(begun && self.terms.on_lag == OnLag::Gap);
                assert!(reader == 0 || gap.missed.is_none(), "how much of it is for the reader is not known");
                let head = self.replicas[replica].log.position().unwrap();
                assert!(reached.iter().all(|&(p, to)| to <= head.next(p as u32)), "{gap:?} of {head:?}");
            }
            reason => {
                assert!(begun && gap.missed == Some(1) && reason == "undecodable", "{gap:?}");
                let [(partition, to)] = reached[..] else { panic!("{gap:?}") };
                assert!(matches!(self.topic.of(partition)[to as usize - 1].of, Kind::Undecodable));
                assert_eq!(seen[partition], before[partition] + 1);
            }
        }
        seen
    }

    /// Both replicas read all there is, and then all readers do.
    fn catch_up(&mut self) {
        for replica in &mut self.replicas {
            replica.fetch(&self.topic, [(0, usize::MAX), (1, usize::MAX)], message);
        }
        for reader in 0..WANTS.len() {
            if self.readers[reader].connection.is_none() {
                self.connect(reader, reader % 2);
            }
            until_still(|| {
                let progress = self.receive(reader, 500, None);
                let wanted = self.replicas.iter().any(|replica| replica.past.is_wanted());
                (0..2).for_each(|replica| self.serve(replica, 7));
                progress || wanted
            });
            let all = self.topic.counts(|kind| kind.is_for(reader));
            assert_eq!(self.readers[reader].seen, Some(all), "all that it wants is accounted for");
            self.silence(reader);
        }
    }
}

/// What the rate of a route has left out for a reader is not made up for when it lags, and is given what lies before the log.
#[test]
fn what_was_left_out_for_a_reader_is_not_replayed_to_it() {
    let log = record::log(Bounds { events: 3, ..ROOM }, &Memory::new(usize::MAX));
    let past = Past::new(1);
    let (start, end, history) = (Position::default(), Position::default(), Arc::clone(&past) as _);
    log.open_filled(Opening { codec: Arc::new(VectorCodec), history, segments: &[], start, end });
    let rate = Some(EventRate { events: 1, every: Duration::from_secs(3_600) });
    let mut cursor = cursor(None, Terms { rate, on_lag: OnLag::Replay, ..TERMS });
    assert!(matches!(log.read(&mut cursor, 1_000), Read::Control { .. }));
    let message = |offset: u64| Message::new(record::Kind::Event(3), &format!("n{offset}"));
    let append = |offset: u64| drop(log.append([(Some(Mark::new(0, offset + 1)), message(offset))]));

    append(0);
    assert!(matches!(log.read(&mut cursor, 1_000), Read::Slice { events: 1, .. }));
    (1..4).for_each(append);
    assert!(matches!(log.read(&mut cursor, 1_000), Read::LeftOut(3)));
    (4..9).for_each(append);
    let records = |_| (0..9).map(|offset| (offset, message(offset))).collect();
    let mut told = String::new();
    loop {
        past.serve(&[9], &records, 100);
        match log.read(&mut cursor, 1_000) {
            Read::Pieces { bytes, .. } => told.push_str(str::from_utf8(&bytes.concat()).unwrap()),
            Read::Wait(_) => {}
            Read::LeftOut(3) => break,
            other => panic!("neither history nor what the log still holds: {other:?}"),
        }
    }
    let names: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(names, ["n4 xxx", "n5 xxx"]);
}

/// One that is ahead of its log in a partition is told how far it came in the others, with what is not for it.
#[test]
fn what_is_withheld_from_a_reader_that_catches_up_moves_it_on() {
    let log = record::log_of(&SHAPE, false, ROOM);
    log.open(Arc::new(VectorCodec), Position::default());
    let (red, blue) = (Kind::Of(1, 3), Kind::Of(3, 3));
    let mut topic = Topic::new(PARTITIONS);
    [red, red, red].into_iter().for_each(|kind| topic.publish(0, kind, 0));
    [red, blue, red].into_iter().for_each(|kind| topic.publish(1, kind, 0));
    let all = topic.take(&mut [0, 0], [(1, 3), (0, 3)]).into_iter();
    log.append(all.map(|(at, published)| (Some(published.mark(at)), message(at, published))));
    let mut cursor = Cursor::new(wants::wish(&SHAPE, Some(VectorCodec::id(&[3, 0])), 1), TERMS);
    assert!(matches!(log.read(&mut cursor, 1), Read::Control { .. }));
    assert!(matches!(log.read(&mut cursor, 1), Read::Pieces { events: 1, .. }));
    let told = log.moved_on(&mut cursor).unwrap();
    assert!(str::from_utf8(&told).unwrap().contains("\nid: v3.2\n"), "{told:?}");
    assert_eq!(log.moved_on(&mut cursor), None);
    assert!(matches!(log.read(&mut cursor, 1), Read::Pieces { events: 1, .. }));
}

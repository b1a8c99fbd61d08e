//! Keyed logs against the plain truth: two replicas of the same partitions, readers of one key each, and of one colour or all,
//! that are cut, hop and lag, records that stray from the partition of their key, and everything beyond memory from a slow
//! broker.

use std::sync::{Arc, LazyLock, OnceLock};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use ssegate::config::{OnLag, Start};
use ssegate::hub::{Bounds, Cursor, Decoded, IdCodec, Mark, Offset, Position, Terms};
use ssegate::shape::Shape;

use crate::client::{Client, Gap, Seen, read};
use crate::past::Past;
use crate::record::{self, Keyed, Kind, Message};
use crate::topic::{Published, Replica, Topic};
use crate::vector::VectorCodec;
use crate::wants::{self, WANTS};
use crate::{ROOM, TERMS, cases, max, until_still};

/// What clients are asked for their events.
static SHAPE: LazyLock<Shape> = LazyLock::new(|| wants::shape("headers.colour"));

/// There is a reader of each.
const KEYS: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    /// Records of these keys and colours, each of them in the partition of its key or, if it strays, in another.
    Publish(Vec<(Index, Kind, usize, Option<Index>)>),
    Fetch(Index, Vec<(Index, usize)>),
    Connect(Index, Index),
    Read(Index, usize),
    Cut(Index, usize, Index),
    Silence(Index),
    Serve(Index, usize),
    Trim(Index, Index),
}

fn op(strays: bool) -> impl Strategy<Value = Op> {
    let one = any::<Index>;
    let stray = prop::option::weighted(0.05, one()).prop_map(move |stray| stray.filter(|_| strays));
    let records = prop::collection::vec((one(), record::kind(), 1..WANTS.len(), stray), 1..12);
    let max = || max(1_000);
    prop_oneof![
        8 => records.prop_map(Op::Publish),
        10 => (one(), prop::collection::vec((one(), 1..8_usize), 1..8)).prop_map(|(r, runs)| Op::Fetch(r, runs)),
        5 => (one(), one()).prop_map(|(reader, replica)| Op::Connect(reader, replica)),
        14 => (one(), max()).prop_map(|(reader, max)| Op::Read(reader, max)),
        3 => (one(), max(), one()).prop_map(|(reader, max, at)| Op::Cut(reader, max, at)),
        3 => one().prop_map(Op::Silence),
        6 => (one(), 1..20_usize).prop_map(|(replica, most)| Op::Serve(replica, most)),
        1 => (one(), one()).prop_map(|(partition, to)| Op::Trim(partition, to)),
    ]
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn readers_of_a_key_see_its_records_once_or_a_gap_that_accounts_for_them(
        partitions in 1..=4_usize,
        kept in [0..30_usize, 0..30_usize],
        replay in prop::bool::weighted(0.8),
        ops in any::<bool>().prop_flat_map(|strays| prop::collection::vec(op(strays), 1..120)),
    ) {
        let on_lag = if replay { OnLag::Replay } else { OnLag::Gap };
        World::new(partitions, kept, Terms { on_lag, start: Start::Latest, ..TERMS }).run(ops);
    }
}

/// Ids as plain as can be: `h2.17` at home in partition 2, else those of [`VectorCodec`].
#[derive(Debug)]
struct KeyCodec {
    partitions: u32,
    scattered: OnceLock<Position>,
}

impl IdCodec for KeyCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        VectorCodec.encode(position, out);
    }

    fn decode(&self, id: &str) -> Decoded {
        VectorCodec.decode(id)
    }

    fn decode_for(&self, id: &str, _key: &[u8], _position: &Position) -> Decoded {
        let Some((home, next)) = home_of(id) else {
            return match self.decode(id) {
                Decoded::Position(position) if self.scattered.get().is_none() => Decoded::Wide(position),
                decoded => decoded,
            };
        };
        let mut position = self.scattered.get().cloned().unwrap_or_default();
        position.put(Mark::new(home, next));
        Decoded::Position(position)
    }

    fn home(&self, key: &[u8]) -> Option<u32> {
        self.scattered.get().is_none().then(|| u32::from(key[0]) % self.partitions)
    }

    fn encode_home(&self, partition: u32, next: Offset, out: &mut String) {
        out.push_str(&format!("h{partition}.{}", next.major));
    }

    fn scatter(&self, position: &Position) {
        let _ = self.scattered.set(position.clone());
    }

    fn single_order(&self) -> bool {
        false
    }
}

fn home_of(id: &str) -> Option<(u32, u64)> {
    let (home, next) = id.strip_prefix('h')?.split_once('.')?;
    Some((home.parse().unwrap(), next.parse().unwrap()))
}

/// A record of a key.
#[derive(Clone, Copy)]
struct Of {
    key: usize,
    kind: Kind,
    colour: usize,
}

/// Whether a reader is told of a record: of its key are gaps of the source, whatever it wants, and what is of its colour.
fn is_for(reader: usize) -> impl Fn(&Of) -> bool {
    move |of| {
        let is_wanted = of.kind.gap().is_some() || wants::is_for(reader % WANTS.len(), of.colour);
        of.key == reader && of.kind.visible() && is_wanted
    }
}

fn record(partition: usize, Published { offset, of }: &Published<Of>) -> Keyed {
    let message = Message::new(of.kind, &format!("{partition}:{offset}"));
    Keyed { key: of.key as u8, colour: WANTS[of.colour], message }
}

/// Of the key that is its own number.
struct Reader {
    client: Client,
    /// How many records that are for it, of each partition, it has seen or was told to miss.
    seen: Option<Vec<usize>>,
    connection: Option<(usize, Cursor)>,
}

struct World {
    topic: Topic<Of>,
    terms: Terms,
    replicas: [Replica; 2],
    readers: Vec<Reader>,
}

impl World {
    fn new(partitions: usize, kept: [usize; 2], terms: Terms) -> Self {
        let topic = Topic::new(partitions);
        let replicas = kept.map(|kept| {
            let log = record::log_of(&SHAPE, true, Bounds { events: kept, ..ROOM });
            let codec = KeyCodec { partitions: partitions as u32, scattered: OnceLock::new() };
            Replica::new(&topic, log, Past::of(partitions, &SHAPE, true), codec, false)
        });
        let reader = |_| Reader { client: Client::default(), seen: None, connection: None };
        let mut world = Self { topic, terms, replicas, readers: (0..KEYS).map(reader).collect() };
        (0..KEYS).for_each(|reader| world.connect(reader, reader));
        world
    }

    fn run(mut self, ops: Vec<Op>) {
        let partitions = self.topic.width();
        for op in ops {
            match op {
                Op::Publish(records) => records.into_iter().for_each(|(key, kind, colour, stray)| {
                    let key = key.index(KEYS);
                    let partition = stray.map_or(key % partitions, |stray| stray.index(partitions));
                    self.topic.publish(partition, Of { key, kind, colour }, 0);
                }),
                Op::Fetch(replica, runs) => {
                    let runs =
                        runs.into_iter().map(|(partition, count)| (partition.index(partitions), count));
                    self.replicas[replica.index(2)].fetch(&self.topic, runs, record);
                }
                Op::Connect(reader, replica) => self.connect(reader.index(KEYS), replica.index(2)),
                Op::Read(reader, max) => _ = self.receive(reader.index(KEYS), max, None),
                Op::Cut(reader, max, at) => _ = self.receive(reader.index(KEYS), max, Some(at)),
                Op::Silence(reader) => self.silence(reader.index(KEYS)),
                Op::Serve(replica, most) => self.serve(replica.index(2), most),
                Op::Trim(partition, to) => {
                    self.topic.trim(partition.index(partitions), to);
                    self.replicas.iter().for_each(|replica| replica.past.trim(&self.topic.low));
                }
            }
        }
        self.catch_up();
    }

    fn rank(&self, partition: usize, reader: usize, next: u64) -> usize {
        self.topic.rank(partition, next, is_for(reader))
    }

    /// What a reader has that was told `id`. At home it has none of what strayed, which was none yet.
    fn ranks(&self, reader: usize, id: &str) -> Vec<usize> {
        let position: Position = match home_of(id) {
            Some((home, next)) => Mark::new(home, next).into(),
            None => VectorCodec::position(id).unwrap(),
        };
        self.topic.ranks(&position, is_for(reader))
    }

    fn connect(&mut self, reader: usize, replica: usize) {
        let replica = replica % 2;
        self.disconnect(reader);
        let state = &mut self.readers[reader];
        state.client.reconnect();
        let id = state.client.id();
        let wish = wants::wish(&SHAPE, id.clone(), reader % WANTS.len());
        let cursor = Cursor::of_key(Some(Arc::from([reader as u8])), wish, self.terms.into());
        state.connection = Some((replica, cursor));
        self.replicas[replica].log.join();
        self.readers[reader].seen = id.map(|id| self.ranks(reader, &id));
    }

    fn disconnect(&mut self, reader: usize) {
        if let Some((replica, cursor)) = self.readers[reader].connection.take() {
            self.replicas[replica].log.unwatch(&cursor);
            self.replicas[replica].log.leave();
        }
    }

    fn receive(&mut self, reader: usize, max: usize, cut: Option<Index>) -> bool {
        let Some((replica, cursor)) = &mut self.readers[reader].connection else { return false };
        let replica = *replica;
        let read = read(&self.replicas[replica].log, cursor, max);
        let progress = read.is_some();
        match read {
            Some((bytes, _)) => {
                let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
                let seen = self.readers[reader].client.receive(&bytes[..end]);
                seen.into_iter().for_each(|seen| self.check(reader, replica, seen));
            }
            None if self.replicas[replica].past.is_wanted() => {}
            None => self.nothing_is_withheld(reader, replica),
        }
        if cut.is_some() {
            self.disconnect(reader);
        }
        progress
    }

    fn nothing_is_withheld(&self, reader: usize, replica: usize) {
        let has = self.topic.ranks(&self.replicas[replica].log.position().unwrap(), is_for(reader));
        let seen = self.readers[reader].seen.as_ref().unwrap();
        assert!(seen.iter().zip(&has).all(|(seen, has)| seen >= has), "{seen:?} of {has:?}");
    }

    fn silence(&mut self, reader: usize) {
        let Some((replica, cursor)) = &mut self.readers[reader].connection else { return };
        let Some(bytes) = self.replicas[*replica].log.moved_on(cursor) else { return };
        assert_eq!(self.replicas[*replica].log.moved_on(cursor), None, "once");
        let seen = self.readers[reader].client.receive(&bytes);
        let [Seen::Position { id }] = &seen[..] else { panic!("{seen:?}") };
        self.has_what_it_was_told(reader, id);
    }

    fn serve(&self, replica: usize, most: usize) {
        self.replicas[replica].past.serve(&self.topic.ends(), &self.topic.records(record), most);
    }

    fn check(&mut self, reader: usize, replica: usize, seen: Seen) {
        let before = self.readers[reader].seen.clone();
        match seen {
            Seen::Event { data, id } => {
                let (name, _) = data.split_once(' ').unwrap();
                let (partition, offset) = name.split_once(':').unwrap();
                let (partition, offset): (usize, u64) = (partition.parse().unwrap(), offset.parse().unwrap());
                let mut now = before.expect("its position is told first");
                let expected = self.topic.own(partition, is_for(reader)).nth(now[partition]).unwrap();
                assert_eq!(offset, expected.offset, "each once and in order, in partition {partition}");
                now[partition] += 1;
                self.readers[reader].seen = Some(now);
                self.has_what_it_was_told(reader, &id);
            }
            Seen::Gap(gap) => self.readers[reader].seen = Some(self.check_gap(before.unwrap(), reader, &gap)),
            Seen::SnapshotStart | Seen::SnapshotEnd | Seen::Gone { .. } => panic!("no log has a table here"),
            Seen::Position { id } => {
                if before.is_none() {
                    // The first one of all: the head as far as it concerns the reader.
                    let log = self.replicas[replica].log.position().unwrap();
                    self.readers[reader].seen = Some(self.topic.ranks(&log, is_for(reader)));
                }
                self.has_what_it_was_told(reader, &id);
            }
        }
    }

    /// An id says what its reader has: at home, of the home.
    fn has_what_it_was_told(&self, reader: usize, id: &str) {
        let (seen, told) = (self.readers[reader].seen.as_ref().unwrap(), self.ranks(reader, id));
        match home_of(id) {
            Some((home, _)) => assert_eq!(seen[home as usize], told[home as usize], "{id}"),
            None => assert_eq!(*seen, told, "{id}"),
        }
    }

    fn check_gap(&self, mut seen: Vec<usize>, reader: usize, gap: &Gap) -> Vec<usize> {
        let (Value::Object(from), Value::Object(to)) = (&gap.from, &gap.to) else { panic!("{gap:?}") };
        let bound = |side: &serde_json::Map<String, Value>, partition: usize| {
            side.get(&partition.to_string()).map(|bound| bound.as_u64().unwrap())
        };
        for (partition, seen) in seen.iter_mut().enumerate() {
            let (Some(from), Some(to)) = (bound(from, partition), bound(to, partition)) else { continue };
            assert!(from < to, "{gap:?}");
            assert!(self.rank(partition, reader, from) <= *seen, "a gap begins where the reader stands");
            match gap.reason.as_str() {
                "trimmed" => assert!(to <= self.topic.low[partition], "{gap:?} of {:?}", self.topic.low),
                "lagged" => assert!(self.terms.on_lag == OnLag::Gap),
                reason => {
                    let record = self.topic.own(partition, is_for(reader)).nth(*seen).unwrap();
                    assert_eq!(record.of.kind.gap(), Some(reason));
                }
            }
            *seen = (*seen).max(self.rank(partition, reader, to));
        }
        seen
    }

    fn catch_up(&mut self) {
        let partitions = self.topic.width();
        for replica in &mut self.replicas {
            replica.fetch(&self.topic, (0..partitions).map(|partition| (partition, usize::MAX)), record);
        }
        for reader in 0..KEYS {
            if self.readers[reader].connection.is_none() {
                self.connect(reader, reader);
            }
            until_still(|| {
                let progress = self.receive(reader, 500, None);
                let wanted = self.replicas.iter().any(|replica| replica.past.is_wanted());
                (0..2).for_each(|replica| self.serve(replica, 7));
                progress || wanted
            });
            let all = self.topic.counts(is_for(reader));
            assert_eq!(self.readers[reader].seen, Some(all), "all is accounted for");
            self.silence(reader);
            self.is_told_the_head(reader);
        }
    }

    /// Also where nothing of late is for it.
    fn is_told_the_head(&self, reader: usize) {
        let Reader { client, connection, .. } = &self.readers[reader];
        let (id, (replica, _)) = (client.id().unwrap(), connection.as_ref().unwrap());
        let head = self.replicas[*replica].log.position().unwrap();
        match home_of(&id) {
            Some((home, next)) => assert_eq!(next, head.next(home), "{id}"),
            None => assert_eq!(VectorCodec::position(&id).unwrap(), *head, "{id}"),
        }
    }
}

/// It has joined the log by then, at the place to which what is not for it has taken it.
#[test]
fn what_is_withheld_from_a_reader_of_a_key_that_catches_up_is_told_it() {
    let mut world = World::new(4, [9, 9], TERMS);
    assert!(world.receive(2, 500, None));
    world.disconnect(2);
    // Since one strays no key has a home any more, and the reader is ahead of the log's first entry, as what made no event came
    // before that. What follows is not of its colour.
    for (partition, key, kind, colour) in
        [(1, 1, Kind::Tombstone, 1), (2, 0, Kind::Event(0), 1), (2, 2, Kind::Event(0), 3)]
    {
        world.topic.publish(partition, Of { key, kind, colour }, 0);
    }
    world.replicas[0].fetch(&world.topic, [(1, 1), (2, 2)], record);
    world.connect(2, 0);
    until_still(|| world.receive(2, 500, None));
    world.silence(2);
    world.is_told_the_head(2);
}

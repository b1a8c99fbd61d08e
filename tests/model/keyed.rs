//! Keyed logs against the plain truth: two replicas of the same partitions, readers of one key each that are cut, hop and
//! lag, records that stray from the partition of their key, and everything beyond memory from a slow broker.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use ssegate::config::{OnLag, Start};
use ssegate::hub::{
    Bounds, Cursor, Decoded, IdCodec, Linger, Log, Mark, Memory, Offset, Opening, Position, Terms, Wake, Wish,
};
use ssegate::shape::Record;

use crate::client::{Client, Gap, Seen, read};
use crate::past::Past;
use crate::record::{self, Kind, Message};
use crate::vector::VectorCodec;
use crate::{ROOM, TERMS, cases};

const KEYS: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    /// Records of these keys, each of them in the partition of its key or, if it strays, in another.
    Publish(Vec<(Index, Kind, Option<Index>)>),
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
    let records = prop::collection::vec((one(), record::kind(), stray), 1..12);
    let max = || prop_oneof![1 => Just(0), 4 => 1..1_000_usize, 1 => Just(usize::MAX)];
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

struct Published {
    offset: u64,
    key: u8,
    kind: Kind,
}

/// A record with its key.
struct Keyed(u8, Message);

impl Record for Keyed {
    fn payload(&self) -> Option<&[u8]> {
        self.1.payload()
    }
    fn name(&self) -> &str {
        self.1.name()
    }
    fn key(&self) -> Option<&[u8]> {
        Some(std::slice::from_ref(&self.0))
    }
}

struct Replica {
    log: Arc<Log>,
    past: Arc<Past>,
    taken: Vec<usize>,
}

struct Reader {
    key: u8,
    client: Client,
    /// How many of its key's visible records of each partition it has seen or was told to miss.
    seen: Option<Vec<usize>>,
    connection: Option<(usize, Cursor)>,
    begun: bool,
}

struct World {
    partitions: Vec<Vec<Published>>,
    low: Vec<u64>,
    terms: Terms,
    replicas: [Replica; 2],
    readers: Vec<Reader>,
}

impl World {
    fn new(partitions: usize, kept: [usize; 2], terms: Terms) -> Self {
        let replicas = kept.map(|kept| Replica::new(partitions, kept));
        let reader = |n: usize| Reader {
            key: n as u8,
            client: Client::default(),
            seen: None,
            connection: None,
            begun: false,
        };
        let readers = (0..KEYS).map(reader).collect();
        let partitions: Vec<_> = (0..partitions).map(|_| Vec::new()).collect();
        let low = vec![0; partitions.len()];
        let mut world = Self { partitions, low, terms, replicas, readers };
        (0..KEYS).for_each(|reader| world.connect(reader, reader));
        world
    }

    fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Publish(records) => records.into_iter().for_each(|(key, kind, stray)| {
                    let key = key.index(KEYS);
                    let home = key % self.partitions.len();
                    let partition = stray.map_or(home, |stray| stray.index(self.partitions.len()));
                    let offset = self.partitions[partition].last().map_or(0, |last| last.offset + 1);
                    self.partitions[partition].push(Published { offset, key: key as u8, kind });
                }),
                Op::Fetch(replica, runs) => {
                    let count = self.partitions.len();
                    let runs: Vec<_> = runs.into_iter().map(|(p, n)| (p.index(count), n)).collect();
                    self.replicas[replica.index(2)].fetch(&self.partitions, &runs);
                }
                Op::Connect(reader, replica) => self.connect(reader.index(KEYS), replica.index(2)),
                Op::Read(reader, max) => _ = self.receive(reader.index(KEYS), max, None),
                Op::Cut(reader, max, at) => _ = self.receive(reader.index(KEYS), max, Some(at)),
                Op::Silence(reader) => self.silence(reader.index(KEYS)),
                Op::Serve(replica, most) => self.serve(replica.index(2), most),
                Op::Trim(partition, to) => {
                    let partition = partition.index(self.partitions.len());
                    let to = to.index(self.partitions[partition].len() + 1);
                    let passed = self.partitions[partition][..to].last().map_or(0, |last| last.offset + 1);
                    self.low[partition] = self.low[partition].max(passed);
                    self.replicas.iter().for_each(|replica| replica.past.trim(&self.low));
                }
            }
        }
        self.catch_up();
    }

    fn own(&self, partition: usize, key: u8) -> impl Iterator<Item = &Published> {
        self.partitions[partition].iter().filter(move |record| record.key == key && record.kind.visible())
    }

    fn rank(&self, partition: usize, key: u8, next: u64) -> usize {
        self.own(partition, key).take_while(|record| record.offset < next).count()
    }

    /// What a reader of `key` has that was told `id`. At home it has none of what strayed, which was none yet.
    fn ranks(&self, key: u8, id: &str) -> Vec<usize> {
        let next = |partition: usize| match home_of(id) {
            Some((home, next)) if home as usize == partition => next,
            Some(_) => 0,
            None => VectorCodec::position(id).unwrap().next(partition as u32),
        };
        (0..self.partitions.len()).map(|partition| self.rank(partition, key, next(partition))).collect()
    }

    fn connect(&mut self, reader: usize, replica: usize) {
        let replica = replica % 2;
        self.disconnect(reader);
        let state = &mut self.readers[reader];
        state.client.reconnect();
        let id = state.client.id();
        let wish = Wish { id: id.clone(), ..Wish::default() };
        let cursor = Cursor::of_key(Some(Arc::from([state.key])), wish, self.terms.into());
        (state.connection, state.begun) = (Some((replica, cursor)), false);
        self.replicas[replica].log.join();
        self.readers[reader].seen = id.map(|id| self.ranks(reader as u8, &id));
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
        let Reader { key, seen, .. } = &self.readers[reader];
        let log = self.replicas[replica].log.position().unwrap();
        for (partition, seen) in seen.as_ref().unwrap().iter().enumerate() {
            assert!(*seen >= self.rank(partition, *key, log.next(partition as u32)));
        }
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
        let end: Vec<_> = self
            .partitions
            .iter()
            .map(|partition| partition.last().map_or(0, |last| last.offset + 1))
            .collect();
        let records = |partition: usize| {
            self.partitions[partition].iter().map(|record| (record.offset, record.keyed(partition))).collect()
        };
        self.replicas[replica].past.serve_keyed(&end, &records, most);
    }

    fn check(&mut self, reader: usize, replica: usize, seen: Seen) {
        let (key, before) = (self.readers[reader].key, self.readers[reader].seen.clone());
        match seen {
            Seen::Event { data, id } => {
                let (name, _) = data.split_once(' ').unwrap();
                let (partition, offset) = name.split_once(':').unwrap();
                let (partition, offset): (usize, u64) = (partition.parse().unwrap(), offset.parse().unwrap());
                let mut now = before.expect("its position is told first");
                let expected = self.own(partition, key).nth(now[partition]).unwrap();
                assert_eq!(offset, expected.offset, "each once and in order, in partition {partition}");
                now[partition] += 1;
                self.readers[reader].seen = Some(now);
                self.has_what_it_was_told(reader, &id);
            }
            Seen::Gap(gap) => self.readers[reader].seen = Some(self.check_gap(before.unwrap(), key, &gap)),
            Seen::SnapshotStart | Seen::SnapshotEnd | Seen::Gone { .. } => panic!("no log has a table here"),
            Seen::Position { id } => {
                if before.is_none() {
                    // The first one of all: the head as far as it concerns the key.
                    let log = self.replicas[replica].log.position().unwrap();
                    let head = |p: usize| self.rank(p, key, log.next(p as u32));
                    self.readers[reader].seen = Some((0..self.partitions.len()).map(head).collect());
                }
                self.readers[reader].begun = true;
                self.has_what_it_was_told(reader, &id);
            }
        }
    }

    /// An id says what its reader has: at home, of the home.
    fn has_what_it_was_told(&self, reader: usize, id: &str) {
        let Reader { key, seen, .. } = &self.readers[reader];
        let (seen, told) = (seen.as_ref().unwrap(), self.ranks(*key, id));
        match home_of(id) {
            Some((home, _)) => assert_eq!(seen[home as usize], told[home as usize], "{id}"),
            None => assert_eq!(*seen, told, "{id}"),
        }
    }

    fn check_gap(&self, mut seen: Vec<usize>, key: u8, gap: &Gap) -> Vec<usize> {
        let (Value::Object(from), Value::Object(to)) = (&gap.from, &gap.to) else { panic!("{gap:?}") };
        let bound = |side: &serde_json::Map<String, Value>, partition: usize| {
            side.get(&partition.to_string()).map(|bound| bound.as_u64().unwrap())
        };
        for (partition, seen) in seen.iter_mut().enumerate() {
            let (Some(from), Some(to)) = (bound(from, partition), bound(to, partition)) else { continue };
            assert!(from < to, "{gap:?}");
            assert!(self.rank(partition, key, from) <= *seen, "a gap begins where the reader stands");
            match gap.reason.as_str() {
                "trimmed" => assert!(to <= self.low[partition], "{gap:?} of {:?}", self.low),
                "lagged" => assert!(self.terms.on_lag == OnLag::Gap),
                reason => {
                    let record = self.own(partition, key).nth(*seen).unwrap();
                    assert_eq!(record.kind.gap(), Some(reason));
                }
            }
            *seen = (*seen).max(self.rank(partition, key, to));
        }
        seen
    }

    fn catch_up(&mut self) {
        for replica in 0..2 {
            let runs: Vec<_> = (0..self.partitions.len()).map(|p| (p, usize::MAX / 2)).collect();
            self.replicas[replica].fetch(&self.partitions, &runs);
        }
        for reader in 0..KEYS {
            if self.readers[reader].connection.is_none() {
                self.connect(reader, reader);
            }
            let mut reads = 0;
            loop {
                let progress = self.receive(reader, 500, None);
                let wanted = self.replicas.iter().any(|replica| replica.past.is_wanted());
                (0..2).for_each(|replica| self.serve(replica, 7));
                if !progress && !wanted {
                    break;
                }
                reads += 1;
                assert!(reads < 10_000, "it comes to an end");
            }
            let key = self.readers[reader].key;
            let all: Vec<_> = (0..self.partitions.len()).map(|p| self.own(p, key).count()).collect();
            assert_eq!(self.readers[reader].seen, Some(all), "all is accounted for");
        }
    }
}

impl Replica {
    fn new(partitions: usize, kept: usize) -> Self {
        let wake = Wake::new(std::time::Duration::ZERO, Linger::new());
        let bounds = Bounds { events: kept, ..ROOM };
        let log = Log::new(record::shape(), true, bounds, &Memory::new(usize::MAX), wake);
        let past = Past::new(partitions);
        let codec = KeyCodec { partitions: partitions as u32, scattered: OnceLock::new() };
        let (history, start, end) = (Arc::clone(&past) as _, Position::default(), Position::default());
        log.open_filled(Opening { codec: Arc::new(codec), history, segments: &[], start, end });
        Self { log, past, taken: vec![0; partitions] }
    }

    fn fetch(&mut self, partitions: &[Vec<Published>], runs: &[(usize, usize)]) {
        let mut records = Vec::new();
        for &(partition, count) in runs {
            for published in partitions[partition].iter().skip(self.taken[partition]).take(count) {
                let mark = Mark::new(partition as u32, published.offset + 1);
                records.push((Some(mark), published.keyed(partition)));
            }
            self.taken[partition] =
                (self.taken[partition].saturating_add(count)).min(partitions[partition].len());
        }
        self.log.append(records);
    }
}

impl Published {
    fn keyed(&self, partition: usize) -> Keyed {
        Keyed(self.key, Message::new(self.kind, &format!("{partition}:{}", self.offset)))
    }
}

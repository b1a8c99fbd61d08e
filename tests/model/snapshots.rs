//! Logs with a table, on two replicas, and readers that come, lag, are cut at any byte, hop and resume while writers go
//! on: with each id that a reader is told it knows exactly the newest of every key up to there. Only one that is too slow for a
//! snapshot may lack what comes next, or is told that it misses something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use ssegate::config::{Conflate, Digest, OnLag, Snapshot, Template};
use ssegate::hub::{
    Bounds, Cursor, Decoded, IdCodec as _, Linger, Log, Mark, Memory, Opening, Position, Read, Reason, Terms,
    Wake,
};
use ssegate::shape::{Record, Shape};

use crate::client::{Client, Seen};
use crate::past::Past;
use crate::record;
use crate::vector::VectorCodec;
use crate::{ROOM, TERMS, cases, cursor};

const PARTITIONS: usize = 2;
const KEYS: usize = 8;
const READERS: usize = 3;
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
enum Op {
    /// Records of these keys are published, with so much filling; some say that the key is gone.
    Publish(Vec<(usize, bool, usize)>),
    /// A replica takes in so many of the next records of a partition.
    Fetch(usize, usize, usize),
    /// The broker answers a replica.
    Serve(usize, usize),
    /// The broker lets go of what is not the newest of any key.
    Trim,
    Wait(u64),
    Read(usize),
    /// The connection breaks while the reader receives, after this part of the bytes.
    Cut(usize, Index),
    /// A reader comes back, to this replica.
    Hop(usize, usize),
}

fn publish() -> impl Strategy<Value = Vec<(usize, bool, usize)>> {
    let filling = prop_oneof![6 => 0..40_usize, 1 => 2_000..9_000_usize];
    prop::collection::vec((0..KEYS, prop::bool::weighted(0.2), filling), 1..12)
}

fn op() -> impl Strategy<Value = Op> {
    let reader = 0..READERS;
    prop_oneof![
        3 => publish().prop_map(Op::Publish),
        6 => (0..2_usize, 0..PARTITIONS, 1..8_usize).prop_map(|(r, p, count)| Op::Fetch(r, p, count)),
        2 => (0..2_usize, 1..6_usize).prop_map(|(replica, most)| Op::Serve(replica, most)),
        1 => Just(Op::Trim),
        1 => (0..400_u64).prop_map(Op::Wait),
        8 => reader.clone().prop_map(Op::Read),
        2 => (reader.clone(), any::<Index>()).prop_map(|(reader, at)| Op::Cut(reader, at)),
        2 => (reader, 0..2_usize).prop_map(|(reader, replica)| Op::Hop(reader, replica)),
    ]
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn with_each_id_a_reader_knows_the_newest_of_every_key(
        before in publish(),
        kept in prop_oneof![0..20_usize, Just(usize::MAX)],
        on_lag in prop_oneof![Just(OnLag::Gap), Just(OnLag::Replay)],
        conflates in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let terms = Terms { on_lag, ..TERMS };
        runtime.block_on(async { World::new(before, kept, terms, conflates).run(ops).await });
    }
}

/// One record: its key, whether that is gone, and its filling.
type Published = (usize, bool, usize);

struct World {
    topic: Vec<Vec<Published>>,
    replicas: Vec<Replica>,
    readers: Vec<Reader>,
    terms: Terms,
    conflates: bool,
}

struct Replica {
    log: Arc<Log>,
    past: Arc<Past>,
    shape: Shape,
    taken: [usize; PARTITIONS],
}

struct Reader {
    replica: usize,
    client: Client,
    cursor: Cursor,
    /// The keys that it knows, each with its offset.
    state: BTreeMap<usize, usize>,
    /// Whether it is given a snapshot.
    is_given: bool,
    /// Whether that ended, so that what it lacks may be yet to come.
    was_given: bool,
    /// Whether it was told that it misses something, and has had no snapshot since.
    misses: bool,
    snapshots: usize,
}

impl World {
    fn new(before: Vec<Published>, kept: usize, terms: Terms, conflates: bool) -> Self {
        let mut topic = vec![Vec::new(); PARTITIONS];
        before.into_iter().for_each(|record| topic[record.0 % PARTITIONS].push(record));
        let replicas = (0..2).map(|_| Replica::new(&topic, kept, conflates)).collect();
        let reader = |reader: usize| Reader {
            replica: reader % 2,
            client: Client::default(),
            cursor: cursor(None, terms),
            state: BTreeMap::new(),
            is_given: false,
            was_given: false,
            misses: false,
            snapshots: 0,
        };
        Self { topic, replicas, readers: (0..READERS).map(reader).collect(), terms, conflates }
    }

    async fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Publish(records) => {
                    records.into_iter().for_each(|record| self.topic[record.0 % PARTITIONS].push(record));
                }
                Op::Fetch(replica, partition, count) => {
                    self.replicas[replica].fetch(&self.topic, partition, count);
                }
                Op::Serve(replica, most) => self.serve(replica, most),
                Op::Trim => self.trim(),
                Op::Wait(millis) => wait(Duration::from_millis(millis)).await,
                Op::Read(reader) => _ = self.read(reader, None),
                Op::Cut(reader, at) => {
                    self.read(reader, Some(at));
                    let replica = self.readers[reader].replica;
                    self.hop(reader, replica);
                }
                Op::Hop(reader, replica) => self.hop(reader, replica),
            }
        }
        for replica in &mut self.replicas {
            (0..PARTITIONS).for_each(|partition| replica.fetch(&self.topic, partition, usize::MAX));
        }
        wait(EVERY).await;
        let end: Vec<usize> = self.topic.iter().map(Vec::len).collect();
        for reader in 0..READERS {
            let mut steps = 0;
            while self.read(reader, None) || self.replicas[self.readers[reader].replica].past.is_wanted() {
                self.serve(self.readers[reader].replica, usize::MAX);
                steps += 1;
                assert!(steps < 10_000, "it comes to an end");
            }
            let reader = &self.readers[reader];
            assert!(reader.snapshots > 0 && !reader.is_given);
            assert!(reader.misses || reader.state == self.newest(|partition| end[partition]));
        }
    }

    /// The keys that are there, each with the offset of its newest, of what lies before these offsets.
    fn newest(&self, end: impl Fn(usize) -> usize) -> BTreeMap<usize, usize> {
        let mut state = BTreeMap::new();
        for (partition, records) in self.topic.iter().enumerate() {
            for (offset, &(key, gone, _)) in records.iter().enumerate().take(end(partition)) {
                if gone {
                    state.remove(&key)
                } else {
                    state.insert(key, offset)
                };
            }
        }
        state
    }

    fn serve(&mut self, replica: usize, most: usize) {
        let (replica, topic) = (&self.replicas[replica], &self.topic);
        let end: Vec<u64> = topic.iter().map(|records| records.len() as u64).collect();
        let records = |partition: usize| {
            let records = topic[partition].iter().enumerate();
            records.map(|(offset, &record)| (offset as u64, Change::new(offset, record))).collect::<Vec<_>>()
        };
        replica.past.serve_shaped(&replica.shape, &end, &records, most);
    }

    fn trim(&mut self) {
        let end: Vec<usize> = self.topic.iter().map(Vec::len).collect();
        let newest = self.newest(|partition| end[partition]);
        let low = |partition: usize| {
            let own = newest.iter().filter(|(key, _)| **key % PARTITIONS == partition);
            own.map(|(_, &offset)| offset).min().unwrap_or(end[partition]) as u64
        };
        for replica in &self.replicas {
            // What it has not read yet stays, or it would be for its log to tell.
            let low: Vec<_> = (0..PARTITIONS).map(|p| low(p).min(replica.taken[p] as u64)).collect();
            replica.past.trim(&low);
        }
    }

    fn hop(&mut self, reader: usize, replica: usize) {
        let terms = self.terms;
        let reader = &mut self.readers[reader];
        reader.client.reconnect();
        reader.replica = replica;
        reader.is_given = false;
        reader.cursor = cursor(reader.client.id(), terms);
    }

    /// Reads once, and says whether there was something.
    fn read(&mut self, reader: usize, cut: Option<Index>) -> bool {
        let log = &self.replicas[self.readers[reader].replica].log;
        let bytes = match log.read(&mut self.readers[reader].cursor, 32 * 1024) {
            Read::Pending | Read::Wait(_) => return false,
            Read::Control { bytes, gaps } => {
                assert!(
                    gaps.is_empty() || gaps == [Reason::Lagged],
                    "there is a snapshot in the place of others"
                );
                bytes.to_vec()
            }
            Read::Slice { bytes, .. } => bytes.to_vec(),
            Read::Pieces { bytes, .. } => bytes.concat(),
            Read::LeftOut(_) => panic!("no reader is bounded here"),
        };
        let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
        for seen in self.readers[reader].client.receive(&bytes[..end]) {
            self.see(reader, seen);
        }
        true
    }

    fn see(&mut self, at_reader: usize, seen: Seen) {
        let reader = &mut self.readers[at_reader];
        let id = match seen {
            Seen::SnapshotStart => {
                reader.state.clear();
                (reader.is_given, reader.was_given, reader.misses) = (true, false, false);
                assert_eq!(VectorCodec.decode(&reader.client.id().unwrap()), Decoded::Unknown);
                return;
            }
            Seen::SnapshotEnd => {
                assert!(reader.is_given);
                (reader.is_given, reader.was_given) = (false, true);
                reader.snapshots += 1;
                return;
            }
            Seen::Event { data, id } => {
                let words = data.split(' ').take(2).map(|word| word.parse().unwrap()).collect::<Vec<usize>>();
                let (key, offset) = (words[0], words[1]);
                let is_news = reader.state.insert(key, offset).is_none_or(|before| before < offset);
                assert!(is_news || reader.was_given || reader.misses, "in order, once");
                id
            }
            Seen::Gone { key, id } => {
                reader.state.remove(&key.parse().unwrap());
                id
            }
            Seen::Position { id } => id,
            Seen::Gap(gap) => {
                assert!(gap.reason == "lagged" && reader.was_given, "{gap:?}");
                reader.misses = true;
                return;
            }
        };
        if reader.is_given {
            assert_eq!(VectorCodec.decode(&id), Decoded::Unknown, "no place within a snapshot");
            return;
        }
        let (was_given, state) = (reader.was_given, reader.state.clone());
        if !reader.misses {
            let at = VectorCodec::position(&id).unwrap();
            let newest = self.newest(|partition| at.next(partition as u32) as usize);
            let differs = |key: &usize| state.get(key) != newest.get(key);
            let is_to_come = |key: &usize| {
                let partition = key % PARTITIONS;
                let later = self.topic[partition].iter().skip(at.next(partition as u32) as usize);
                later.map(|record| record.0).any(|later| later == *key)
            };
            let lacks: Vec<_> = (0..KEYS).filter(differs).collect();
            // Within a window nobody knows what it knows.
            let may_lack = self.conflates || (was_given && lacks.iter().all(is_to_come));
            assert!(lacks.is_empty() || may_lack, "{lacks:?} at {id}");
            self.readers[at_reader].was_given &= !lacks.is_empty();
        }
    }
}

impl Replica {
    /// One whose log begins with what there is, and has nothing of it.
    fn new(topic: &[Vec<Published>], kept: usize, conflates: bool) -> Self {
        let linger = Linger::new();
        let ticker = Arc::clone(&linger);
        tokio::spawn(async move { ticker.run().await });
        let (shape, past) = (shape(conflates), Past::new(PARTITIONS));
        let bounds = Bounds { events: kept, buffer: 1 << 20, ..ROOM };
        let wake = Wake::new(Duration::ZERO, linger);
        let log = Log::new(shape.clone(), false, bounds, &Memory::new(usize::MAX), wake);
        let taken = [topic[0].len(), topic[1].len()];
        let end = Position::new(taken.iter().map(|&taken| taken as u64).collect());
        let history = Arc::clone(&past);
        log.open_filled(Opening {
            codec: Arc::new(VectorCodec),
            history,
            segments: &[],
            start: end.clone(),
            end,
        });
        Self { log, past, shape, taken }
    }

    fn fetch(&mut self, topic: &[Vec<Published>], partition: usize, count: usize) {
        let from = self.taken[partition];
        let to = from.saturating_add(count).min(topic[partition].len());
        self.log.append((from..to).map(|offset| {
            let record = Change::new(offset, topic[partition][offset]);
            (Some(Mark::new(partition as u32, offset as u64 + 1)), record)
        }));
        self.taken[partition] = to;
    }
}

async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
    // The ticker has its turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn shape(conflates: bool) -> Shape {
    let by = || Template::parse("{key}").unwrap();
    let conflate = conflates.then(|| Conflate { by: by(), every: EVERY });
    let snapshot = Some(Snapshot { by: by(), max_keys: 1_000, max_bytes: usize::MAX });
    let digest = Digest { conflate, snapshot, ..Digest::default() }.into();
    Shape { digest, tombstone: Some(Template::parse("gone").unwrap()), ..record::shape() }
}

/// A record of a key, or one that says that it is gone.
struct Change {
    key: String,
    payload: Option<String>,
}

impl Change {
    fn new(offset: usize, (key, gone, filling): Published) -> Self {
        let payload = (!gone).then(|| format!("{key} {offset} {}", "x".repeat(filling)));
        Self { key: key.to_string(), payload }
    }
}

impl Record for Change {
    fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref().map(str::as_bytes)
    }

    fn name(&self) -> &str {
        "model"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.key.as_bytes())
    }
}

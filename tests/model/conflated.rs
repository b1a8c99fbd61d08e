//! Logs that conflate, on two replicas whose windows fall differently, and readers that hop between them: whatever is not
//! seen was replaced by something newer of its key that is, and in the end every key is at its newest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use ssegate::config::{Conflate, Digest, Template};
use ssegate::hub::{Bounds, Cursor, Linger, Log, Mark, Memory, Opening, Position, Wake};
use ssegate::shape::{Record, Shape};

use crate::client::{Client, Seen, read};
use crate::past::Past;
use crate::record;
use crate::vector::VectorCodec;
use crate::{ROOM, TERMS, cases, cursor};

const PARTITIONS: usize = 3;
const KEYS: usize = 6;
const READERS: usize = 3;
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
enum Op {
    /// Records of these keys are published; of some it says that they are gone.
    Publish(Vec<(usize, bool)>),
    /// A replica takes in so many of the next records of a partition.
    Fetch(usize, usize, usize),
    Wait(u64),
    /// A reader reads so many bytes at most.
    Read(usize, usize),
    /// A reader comes back, to this replica.
    Hop(usize, usize),
    Silence(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let reader = 0..READERS;
    prop_oneof![
        3 => prop::collection::vec((0..KEYS, prop::bool::weighted(0.15)), 1..12).prop_map(Op::Publish),
        8 => (0..2_usize, 0..PARTITIONS, 1..8_usize).prop_map(|(r, p, count)| Op::Fetch(r, p, count)),
        3 => (0..400_u64).prop_map(Op::Wait),
        6 => (reader.clone(), 1..400_usize).prop_map(|(reader, max)| Op::Read(reader, max)),
        2 => (reader.clone(), 0..2_usize).prop_map(|(reader, replica)| Op::Hop(reader, replica)),
        1 => reader.prop_map(Op::Silence),
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn what_is_not_seen_was_replaced_by_what_is(
        buffer in prop_oneof![Just(0_usize), Just(2_000), Just(usize::MAX)],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { World::new(buffer).run(ops).await });
    }
}

/// One record: its key, and whether that is gone.
type Published = (usize, bool);

struct World {
    topic: Vec<Vec<Published>>,
    replicas: [Replica; 2],
    readers: Vec<Reader>,
}

struct Replica {
    log: Arc<Log>,
    /// Says whether an id is of a replica that is further on.
    past: Arc<Past>,
    memory: Arc<Memory>,
    taken: [usize; PARTITIONS],
    given: u64,
    replaced: u64,
}

struct Reader {
    replica: usize,
    client: Client,
    cursor: Cursor,
    /// Where it stands; nowhere before it has been told.
    at: Option<Position>,
    /// What it was at first.
    began: Position,
    /// For each key the offset seen last.
    state: BTreeMap<usize, u64>,
    seen: BTreeSet<(usize, u64)>,
}

impl Replica {
    fn new(buffer: usize) -> Self {
        let linger = Linger::new();
        let ticker = Arc::clone(&linger);
        tokio::spawn(async move { ticker.run().await });
        let memory = Memory::new(usize::MAX);
        let wake = Wake::new(Duration::ZERO, linger);
        let log = Log::new(shape(), false, Bounds { buffer, ..ROOM }, &memory, wake);
        let (past, begin) = (Past::new(PARTITIONS), Position::default());
        let (codec, history) = (Arc::new(VectorCodec), Arc::clone(&past));
        log.open_filled(Opening { codec, history, segments: &[], start: begin.clone(), end: begin });
        Self { log, past, memory, taken: [0; PARTITIONS], given: 0, replaced: 0 }
    }

    fn fetch(&mut self, topic: &[Vec<Published>], partition: usize, count: usize) {
        let from = self.taken[partition];
        let to = from.saturating_add(count).min(topic[partition].len());
        // Some of it comes twice, as after a lost link.
        let records = (from.saturating_sub(2)..to).map(|offset| {
            let (key, gone) = topic[partition][offset];
            (Some(Mark::new(partition as u32, offset as u64 + 1)), Change::new(key, partition, offset, gone))
        });
        let appended = self.log.append(records);
        let events = topic[partition][from..to].iter().filter(|(_, gone)| !gone).count();
        assert_eq!(appended.events as usize, events, "all of it was taken in, and nothing twice");
        self.taken[partition] = to;
        self.given += appended.events;
        self.replaced += appended.replaced;
        let position: Vec<u64> = self.taken.iter().map(|&taken| taken as u64).collect();
        assert_eq!(*self.log.position().unwrap(), Position::new(position), "where the source is read on");
    }
}

impl World {
    fn new(buffer: usize) -> Self {
        let reader = |reader: usize| Reader {
            replica: reader % 2,
            client: Client::default(),
            cursor: cursor(None, TERMS),
            at: None,
            began: Position::default(),
            state: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        Self {
            topic: vec![Vec::new(); PARTITIONS],
            replicas: [buffer, buffer].map(Replica::new),
            readers: (0..READERS).map(reader).collect(),
        }
    }

    async fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Publish(records) => {
                    records
                        .into_iter()
                        .for_each(|(key, gone)| self.topic[key % PARTITIONS].push((key, gone)));
                }
                Op::Fetch(replica, partition, count) => {
                    self.replicas[replica].fetch(&self.topic, partition, count);
                }
                Op::Wait(millis) => self.wait(Duration::from_millis(millis)).await,
                Op::Read(reader, max) => _ = self.read(reader, max) || self.serve(reader),
                Op::Hop(reader, replica) => {
                    // What the broker said before it came is no answer to it.
                    self.wait(Duration::from_millis(1)).await;
                    self.hop(reader, replica);
                }
                Op::Silence(reader) => self.silence(reader),
            }
        }
        for replica in &mut self.replicas {
            (0..PARTITIONS).for_each(|partition| replica.fetch(&self.topic, partition, usize::MAX));
        }
        // Nothing more comes: the last windows end by time.
        self.wait(EVERY).await;
        for reader in 0..READERS {
            let reads = (0..10_000).take_while(|_| self.read(reader, 300) || self.serve(reader)).count();
            assert!(reads < 10_000, "it comes to an end");
            self.silence(reader);
            self.is_at_the_newest(reader);
        }
        for replica in self.replicas {
            // A deleted key takes what waits of it along.
            assert!(replica.log.held().events as u64 + replica.replaced >= replica.given);
            assert_eq!(replica.memory.used(), replica.log.held().bytes);
            assert_eq!(replica.log.replaced(), Some(replica.replaced));
        }
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
        // The ticker has its turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn hop(&mut self, reader: usize, replica: usize) {
        let reader = &mut self.readers[reader];
        reader.client.reconnect();
        reader.replica = replica;
        reader.cursor = cursor(reader.client.id(), TERMS);
    }

    fn silence(&mut self, reader: usize) {
        let reader = &mut self.readers[reader];
        if let Some(told) = self.replicas[reader.replica].log.moved_on(&mut reader.cursor) {
            let seen = reader.client.receive(&told);
            let [Seen::Position { id }] = &seen[..] else { panic!("{seen:?}") };
            reader.at = VectorCodec::position(id);
        }
    }

    /// The broker answers, and says whether it was asked.
    fn serve(&mut self, reader: usize) -> bool {
        let past = &self.replicas[self.readers[reader].replica].past;
        let is_wanted = past.is_wanted();
        let end: Vec<u64> = self.topic.iter().map(|records| records.len() as u64).collect();
        past.serve::<record::Message>(&end, &|_| panic!("the log holds all of it"), 0);
        is_wanted
    }

    /// Reads once, and says whether there was something.
    fn read(&mut self, reader: usize, max: usize) -> bool {
        let reader = &mut self.readers[reader];
        let log = &self.replicas[reader.replica].log;
        let Some((bytes, _)) = read(log, &mut reader.cursor, max) else { return false };
        for seen in reader.client.receive(&bytes) {
            match seen {
                Seen::Event { data, id } => {
                    let [key, partition, offset] = &data.split(' ').collect::<Vec<_>>()[..] else {
                        panic!("{data}")
                    };
                    let (key, partition, offset): (usize, usize, u64) =
                        (key.parse().unwrap(), partition.parse().unwrap(), offset.parse().unwrap());
                    let mark = Mark::new(partition as u32, offset + 1);
                    let at = reader.at.replace(VectorCodec::position(&id).unwrap()).unwrap();
                    assert!(!at.covers(mark), "nothing comes twice, and each partition in order");
                    assert!(reader.at.as_ref().unwrap().covers(mark), "an id says what was read");
                    assert!(reader.at.as_ref().unwrap().covers_all(&at), "and never less than before");
                    reader.state.insert(key, offset);
                    reader.seen.insert((partition, offset));
                }
                Seen::Position { id } => {
                    let position = VectorCodec::position(&id).unwrap();
                    if reader.at.is_none() {
                        reader.began = position.clone();
                    }
                    assert!(reader.at.as_ref().is_none_or(|at| *at == position));
                    reader.at = Some(position);
                }
                Seen::Gap(gap) => panic!("what was replaced is no gap: {gap:?}"),
                Seen::SnapshotStart | Seen::SnapshotEnd | Seen::Gone { .. } => {
                    panic!("no log has a table here")
                }
            }
        }
        true
    }

    fn is_at_the_newest(&self, reader: usize) {
        let reader = &self.readers[reader];
        let Some(at) = &reader.at else { panic!("its start is told") };
        for (partition, records) in self.topic.iter().enumerate() {
            assert_eq!(at.next(partition as u32), records.len() as u64, "it has been told all of it");
            let began = reader.began.next(partition as u32) as usize;
            for (offset, &(key, gone)) in records.iter().enumerate().skip(began) {
                let newer = records[offset + 1..].iter().position(|(other, _)| *other == key);
                let seen = reader.seen.contains(&(partition, offset as u64));
                assert!(!(gone && seen), "a key that is gone makes no event");
                assert!(gone || seen || newer.is_some(), "the newest of key {key} at {offset} is missing");
                if newer.is_none() && !gone {
                    assert_eq!(reader.state[&key], offset as u64);
                }
            }
        }
    }
}

fn shape() -> Shape {
    let conflate = Conflate { by: Template::parse("{key}").unwrap(), every: EVERY };
    let digest = Digest { conflate: Some(conflate), ..Digest::default() }.into();
    Shape { digest, ..record::shape() }
}

/// A record of a key, or one that says that it is gone.
struct Change {
    key: String,
    payload: Option<String>,
}

impl Change {
    fn new(key: usize, partition: usize, offset: usize, gone: bool) -> Self {
        let payload = (!gone).then(|| format!("{key} {partition} {offset}"));
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

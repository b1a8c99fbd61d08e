//! Logs with a table, on two replicas, and readers that come, lag, are cut at any byte, hop and resume while writers go on, of
//! all keys or of one each, and of one colour or all: with each id that a reader is told it knows exactly the newest of every
//! key up to there, where that is of its colour. Only one that is too slow for a snapshot may lack what comes next, or is told
//! that it misses something.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use ssegate::config::{Conflate, Digest, OnLag, Snapshot, Template};
use ssegate::hub::{
    Bounds, Cursor, Decoded, IdCodec as _, Linger, Log, Memory, Position, Read, Reason, Terms, Wake,
};
use ssegate::shape::Shape;

use crate::client::{Client, Seen};
use crate::past::Past;
use crate::record::{self, Keyed, Message};
use crate::topic::{Published, Replica, Topic};
use crate::vector::VectorCodec;
use crate::wants::{self, WANTS};
use crate::{ROOM, TERMS, cases, until_still};

/// What clients are asked for their events.
static SHAPE: LazyLock<Shape> = LazyLock::new(|| wants::shape("headers.colour"));

const PARTITIONS: usize = 2;
const KEYS: usize = 8;
/// Each wants what is of another colour, the first of them all; where a log is keyed, of the key that is its own number.
const READERS: usize = 3;
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
enum Op {
    Publish(Vec<Change>),
    /// A replica takes in so many of the next records of a partition.
    Fetch(usize, usize, usize),
    /// The broker answers a replica.
    Serve(usize, usize),
    /// The broker lets go of what is not the newest of any key.
    Trim,
    Wait(u64),
    Read(usize),
    Silence(usize),
    /// The connection breaks while the reader receives, after this part of the bytes.
    Cut(usize, Index),
    /// A reader comes back, to this replica.
    Hop(usize, usize),
}

/// What is published of a key.
#[derive(Debug, Clone, Copy)]
struct Change {
    key: usize,
    colour: usize,
    /// So much filling; without it the key is gone.
    filling: Option<usize>,
}

fn publish() -> impl Strategy<Value = Vec<Change>> {
    let filling = prop_oneof![6 => 0..40_usize, 1 => 2_000..9_000_usize];
    let filling = prop::option::weighted(0.8, filling);
    let change = (0..KEYS, 1..READERS, filling);
    let change = change.prop_map(|(key, colour, filling)| Change { key, colour, filling });
    prop::collection::vec(change, 1..12)
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
        2 => reader.clone().prop_map(Op::Silence),
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
        (keyed, conflates) in prop_oneof![Just((false, false)), Just((false, true)), Just((true, false))],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let terms = Terms { on_lag, ..TERMS };
        runtime.block_on(async { World::new(before, kept, terms, keyed, conflates).run(ops).await });
    }
}

struct World {
    topic: Topic<Change>,
    replicas: [Replica; 2],
    readers: Vec<Reader>,
    terms: Terms,
    keyed: bool,
    conflates: bool,
}

struct Reader {
    replica: usize,
    client: Client,
    cursor: Cursor,
    /// The keys that it knows, each with its offset.
    state: BTreeMap<usize, u64>,
    /// Whether it is given a snapshot.
    is_given: bool,
    /// Whether that ended, so that what it lacks may be yet to come.
    was_given: bool,
    /// Whether it was told that it misses something, and has had no snapshot since.
    misses: bool,
    snapshots: usize,
}

impl World {
    fn new(before: Vec<Change>, kept: usize, terms: Terms, keyed: bool, conflates: bool) -> Self {
        let mut topic = Topic::new(PARTITIONS);
        before.into_iter().for_each(|change| topic.publish(change.key % PARTITIONS, change, 0));
        let shape = shape(conflates);
        let replicas = [(); 2].map(|()| {
            let (log, past) = (log(&shape, keyed, kept), Past::of(PARTITIONS, &shape, keyed));
            Replica::new(&topic, log, past, VectorCodec, true)
        });
        let reader = |reader: usize| Reader {
            replica: reader % 2,
            client: Client::default(),
            cursor: cursor(reader, None, keyed, terms),
            state: BTreeMap::new(),
            is_given: false,
            was_given: false,
            misses: false,
            snapshots: 0,
        };
        let readers = (0..READERS).map(reader).collect();
        Self { topic, replicas, readers, terms, keyed, conflates }
    }

    async fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Publish(changes) => {
                    let publish = |change: Change| self.topic.publish(change.key % PARTITIONS, change, 0);
                    changes.into_iter().for_each(publish);
                }
                Op::Fetch(replica, partition, count) => {
                    self.replicas[replica].fetch(&self.topic, [(partition, count)], record);
                }
                Op::Serve(replica, most) => self.serve(replica, most),
                Op::Trim => self.trim(),
                Op::Wait(millis) => wait(Duration::from_millis(millis)).await,
                Op::Read(reader) => _ = self.read(reader, None),
                Op::Silence(reader) => self.silence(reader),
                Op::Cut(reader, at) => {
                    self.read(reader, Some(at));
                    let replica = self.readers[reader].replica;
                    self.hop(reader, replica);
                }
                Op::Hop(reader, replica) => self.hop(reader, replica),
            }
        }
        for replica in &mut self.replicas {
            replica.fetch(&self.topic, (0..PARTITIONS).map(|partition| (partition, usize::MAX)), record);
        }
        wait(EVERY).await;
        for reader in 0..READERS {
            let replica = self.readers[reader].replica;
            until_still(|| {
                let progress = self.read(reader, None);
                let wanted = self.replicas[replica].past.is_wanted();
                self.serve(replica, usize::MAX);
                progress || wanted
            });
            self.silence(reader);
            let (end, Reader { client, snapshots, is_given, misses, .. }) =
                (self.replicas[replica].log.position().unwrap(), &self.readers[reader]);
            assert!(*snapshots > 0 && !is_given);
            assert_eq!(VectorCodec::position(&client.id().unwrap()).unwrap(), *end, "it is told the head");
            assert!(*misses || (0..KEYS).all(|key| self.knows(reader, key, &end)));
        }
    }

    /// Whether a reader knows of a key what it is to know at this position: the newest, or nothing where that says that the
    /// key is gone. Of a newest that is not for it the reader knows nothing, be it that it keeps what was before.
    fn knows(&self, reader: usize, key: usize, at: &Position) -> bool {
        let (partition, known) = (key % PARTITIONS, self.readers[reader].state.get(&key));
        if !self.sees(reader, key) {
            return known.is_none();
        }
        let own = self.topic.own(partition, |change| change.key == key);
        let own: Vec<_> = own.take_while(|change| change.offset < at.next(partition as u32)).collect();
        let is_for = |change: &Published<Change>| wants::is_for(reader, change.of.colour);
        match own.last() {
            Some(newest) if is_for(newest) => known == newest.of.filling.map(|_| &newest.offset),
            _ => known.is_none_or(|known| own.iter().any(|older| older.offset == *known && is_for(older))),
        }
    }

    fn sees(&self, reader: usize, key: usize) -> bool {
        !self.keyed || reader == key
    }

    fn serve(&self, replica: usize, most: usize) {
        self.replicas[replica].past.serve(&self.topic.ends(), &self.topic.records(record), most);
    }

    /// Of each key the newest stays; and what a replica has not read yet, or it would be for its log to tell.
    fn trim(&self) {
        let newest = |key: usize| self.topic.own(key % PARTITIONS, move |change| change.key == key).last();
        let there = (0..KEYS).filter_map(newest).filter(|newest| newest.of.filling.is_some());
        let mut low = self.topic.ends();
        for Published { offset, of } in there {
            let low = &mut low[of.key % PARTITIONS];
            *low = (*low).min(*offset);
        }
        for replica in &self.replicas {
            let low = low.iter().zip(&replica.taken).map(|(low, taken)| (*low).min(*taken as u64));
            replica.past.trim(&low.collect::<Vec<_>>());
        }
    }

    fn hop(&mut self, at_reader: usize, replica: usize) {
        let reader = &mut self.readers[at_reader];
        self.replicas[reader.replica].log.unwatch(&reader.cursor);
        reader.client.reconnect();
        reader.replica = replica;
        reader.is_given = false;
        reader.cursor = cursor(at_reader, reader.client.id(), self.keyed, self.terms);
    }

    fn silence(&mut self, at_reader: usize) {
        let reader = &mut self.readers[at_reader];
        let log = &self.replicas[reader.replica].log;
        let Some(bytes) = log.moved_on(&mut reader.cursor) else { return };
        assert_eq!(log.moved_on(&mut reader.cursor), None, "once");
        let seen = reader.client.receive(&bytes);
        assert!(matches!(seen[..], [Seen::Position { .. }]) && !reader.is_given, "{seen:?}");
        seen.into_iter().for_each(|seen| self.see(at_reader, seen));
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
                let words: Vec<u64> = data.split(' ').take(2).map(|word| word.parse().unwrap()).collect();
                let (key, offset) = (words[0] as usize, words[1]);
                let Change { colour, .. } = self.topic.of(key % PARTITIONS)[offset as usize].of;
                assert!(wants::is_for(at_reader, colour), "{data}");
                let is_news = reader.state.insert(key, offset).is_none_or(|before| before < offset);
                assert!(is_news || reader.was_given || reader.misses, "in order, once");
                id
            }
            Seen::Gone { key, id } => {
                let key: usize = key.parse().unwrap();
                reader.state.remove(&key);
                // Where its id says which it is.
                if !reader.is_given && !self.conflates {
                    let (partition, at) = (key % PARTITIONS, VectorCodec::position(&id).unwrap());
                    let gone = self.topic.of(partition)[at.next(partition as u32) as usize - 1].of;
                    assert!(gone.key == key && gone.filling.is_none(), "{gone:?}");
                    assert!(wants::is_for(at_reader, gone.colour), "{gone:?}");
                }
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
        let was_given = reader.was_given;
        if !reader.misses {
            let at = VectorCodec::position(&id).unwrap();
            let is_to_come = |key: &usize| {
                let mut own = self.topic.own(key % PARTITIONS, |change| change.key == *key);
                own.any(|later| later.offset >= at.next((key % PARTITIONS) as u32))
            };
            let lacks: Vec<_> = (0..KEYS).filter(|key| !self.knows(at_reader, *key, &at)).collect();
            // Within a window nobody knows what it knows.
            let may_lack = self.conflates || (was_given && lacks.iter().all(is_to_come));
            assert!(lacks.is_empty() || may_lack, "{lacks:?} at {id}");
            self.readers[at_reader].was_given &= !lacks.is_empty();
        }
    }
}

/// A log that keeps so many events, whose window is ended by its own ticker.
fn log(shape: &Shape, keyed: bool, kept: usize) -> Arc<Log> {
    let linger = Linger::new();
    let ticker = Arc::clone(&linger);
    tokio::spawn(async move { ticker.run().await });
    let bounds = Bounds { events: kept, buffer: 1 << 20, ..ROOM };
    Log::new(shape.clone(), keyed, bounds, &Memory::new(usize::MAX), Wake::new(Duration::ZERO, linger))
}

fn cursor(reader: usize, id: Option<String>, keyed: bool, terms: Terms) -> Cursor {
    let key: Option<Arc<[u8]>> = keyed.then(|| [digit(reader)].into());
    Cursor::of_key(key, wants::wish(&SHAPE, id, reader), terms.into())
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
    Shape { digest, tombstone: Some(Template::parse("gone").unwrap()), ..SHAPE.clone() }
}

fn record(_: usize, Published { offset, of }: &Published<Change>) -> Keyed {
    let Change { key, colour, filling } = *of;
    let payload = filling.map(|filling| record::text(&format!("{key} {offset}"), filling).into_bytes());
    Keyed { key: digit(key), colour: WANTS[colour], message: Message::of(payload, *offset) }
}

/// A key as its records have it, so that the data of one that is gone says which.
fn digit(key: usize) -> u8 {
    b'0' + key as u8
}

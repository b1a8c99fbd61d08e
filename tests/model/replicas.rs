//! Two replicas of the same partitions, each with its own interleaving, and readers that hop between them with
//! the last id they saw: while they catch up, ahead of the replica's head, behind what it let go.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use ssegate::config::{OnLag, Start};
use ssegate::hub::{Bounds, Cursor, Log, Mark, Memory, Opening, Position, Read, Terms};

use crate::client::{Client, Gap, Seen, read};
use crate::past::Past;
use crate::record::{self, Kind, Message};
use crate::topic::{Published, Topic};
use crate::vector::VectorCodec;
use crate::{ROOM, TERMS, cases, cursor, max, until_still};

#[derive(Debug, Clone)]
enum Op {
    /// Records in a partition, each after a hole such as compaction leaves.
    Publish(Index, Vec<(Kind, u64)>),
    /// A replica reads on: so many records of one partition after the other, in one append.
    Fetch(Index, Vec<(Index, usize)>),
    /// The same, once more from a little before, as after a lost link.
    FetchAgain(Index, Index, usize),
    Hop(Index, Index),
    Forge(Index, Index, Index),
    Read(Index, usize),
    /// The connection breaks while the reader receives, after this part of the bytes.
    Cut(Index, usize, Index),
    Silence(Index),
    /// The broker answers a replica, and reads so many records of each place that is wanted.
    Serve(Index, usize),
    /// Retention passes records of a partition.
    Trim(Index, Index),
}

fn op() -> impl Strategy<Value = Op> {
    let one = any::<Index>;
    let records = prop::collection::vec((record::kind(), prop_oneof![4 => Just(0), 1 => 1..4_u64]), 1..12);
    let runs = prop::collection::vec((one(), 1..8_usize), 1..8);
    let max = || max(1_000);
    prop_oneof![
        8 => (one(), records).prop_map(|(partition, records)| Op::Publish(partition, records)),
        10 => (one(), runs).prop_map(|(replica, runs)| Op::Fetch(replica, runs)),
        1 => (one(), one(), 1..5_usize).prop_map(|(r, partition, back)| Op::FetchAgain(r, partition, back)),
        6 => (one(), one()).prop_map(|(reader, replica)| Op::Hop(reader, replica)),
        1 => (one(), one(), one()).prop_map(|(reader, replica, p)| Op::Forge(reader, replica, p)),
        12 => (one(), max()).prop_map(|(reader, max)| Op::Read(reader, max)),
        3 => (one(), max(), one()).prop_map(|(reader, max, at)| Op::Cut(reader, max, at)),
        1 => one().prop_map(Op::Silence),
        5 => (one(), 1..20_usize).prop_map(|(replica, most)| Op::Serve(replica, most)),
        1 => (one(), one()).prop_map(|(partition, to)| Op::Trim(partition, to)),
    ]
}

/// How many of the newest events each replica keeps, which may be all.
fn kept() -> impl Strategy<Value = [usize; 2]> {
    let one = || prop_oneof![Just(usize::MAX), 0..30_usize];
    [one(), one()]
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn readers_that_hop_between_replicas_see_each_event_once_or_a_gap_that_accounts_for_it(
        partitions in 1..=4_usize,
        kept in kept(),
        // How much there is before the replicas open, and whether they open at its end.
        before in prop::collection::vec((any::<Index>(), record::kind()), 0..20),
        late in any::<[bool; 2]>(),
        // How many of these are in their logs then.
        filled in 0..20_usize,
        earliest in any::<bool>(),
        replay in prop::bool::weighted(0.7),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let start = if earliest { Start::Earliest } else { Start::Latest };
        let on_lag = if replay { OnLag::Replay } else { OnLag::Gap };
        World::new(partitions, kept, &before, late, filled, Terms { start, on_lag, ..TERMS }).run(ops);
    }
}

struct Replica {
    log: Arc<Log>,
    past: Arc<Past>,
    kept: usize,
    /// How many records of each partition it has read.
    taken: Vec<usize>,
    /// What it was given that is seen by readers, in its own order.
    order: Vec<(usize, u64)>,
}

struct World {
    topic: Topic<Kind>,
    terms: Terms,
    replicas: [Replica; 2],
    readers: Vec<Reader>,
}

/// A client, and its connection if it has one.
struct Reader {
    client: Client,
    /// How many visible records of each partition it has seen or was told to miss.
    seen: Option<Vec<usize>>,
    forged: bool,
    connection: Option<Connection>,
}

struct Connection {
    replica: usize,
    cursor: Cursor,
    begun: bool,
    owed: bool,
}

impl World {
    fn new(
        partitions: usize,
        kept: [usize; 2],
        before: &[(Index, Kind)],
        late: [bool; 2],
        filled: usize,
        terms: Terms,
    ) -> Self {
        let mut topic = Topic::new(partitions);
        before.iter().for_each(|(partition, kind)| topic.publish(partition.index(partitions), *kind, 0));
        let replicas = [0, 1].map(|n| Replica::new(&topic, kept[n], late[n], filled));
        let reader = |_| Reader { client: Client::default(), seen: None, forged: false, connection: None };
        let mut world = Self { topic, terms, replicas, readers: (0..3).map(reader).collect() };
        (0..3).for_each(|reader| world.connect(reader, reader % 2));
        world
    }

    fn run(mut self, ops: Vec<Op>) {
        let partitions = self.topic.width();
        for op in ops {
            match op {
                Op::Publish(partition, records) => {
                    let partition = partition.index(partitions);
                    records.into_iter().for_each(|(kind, hole)| self.topic.publish(partition, kind, hole));
                }
                Op::Fetch(replica, runs) => {
                    let runs =
                        runs.into_iter().map(|(partition, count)| (partition.index(partitions), count));
                    self.replicas[replica.index(2)].fetch(&self.topic, runs);
                }
                Op::FetchAgain(replica, partition, back) => {
                    let partition = partition.index(partitions);
                    self.replicas[replica.index(2)].fetch_again(&self.topic, partition, back);
                }
                Op::Hop(reader, replica) => self.connect(reader.index(3), replica.index(2)),
                Op::Forge(reader, replica, partition) => {
                    let mut end = self.topic.ends();
                    end[partition.index(partitions)] += 1_000_000;
                    let reader = reader.index(3);
                    self.readers[reader].client.forge(VectorCodec::id(&end));
                    self.readers[reader].forged = true;
                    self.connect(reader, replica.index(2));
                }
                Op::Read(reader, max) => _ = self.receive(reader.index(3), max, None),
                Op::Cut(reader, max, at) => _ = self.receive(reader.index(3), max, Some(at)),
                Op::Silence(reader) => self.silence(reader.index(3)),
                Op::Serve(replica, most) => self.serve(replica.index(2), most),
                Op::Trim(partition, to) => {
                    self.topic.trim(partition.index(partitions), to);
                    self.replicas.iter().for_each(|replica| replica.past.trim(&self.topic.low));
                }
            }
        }
        self.catch_up();
        self.all_are_joined();
    }

    /// How many visible records a reader at `position` has, in each partition.
    fn ranks(&self, position: &Position) -> Vec<usize> {
        self.topic.ranks(position, is_visible)
    }

    fn connect(&mut self, reader: usize, replica: usize) {
        self.disconnect(reader);
        let state = &mut self.readers[reader];
        state.client.reconnect();
        let id = state.client.id();
        let cursor = cursor(id.clone(), self.terms);
        state.connection = Some(Connection { replica, cursor, begun: false, owed: false });
        self.replicas[replica].log.join();
        // What a cut took away will be told again.
        let seen = id.filter(|_| !self.readers[reader].forged);
        self.readers[reader].seen = seen.map(|id| self.ranks(&VectorCodec::position(&id).unwrap()));
    }

    fn disconnect(&mut self, reader: usize) {
        if let Some(connection) = self.readers[reader].connection.take() {
            self.replicas[connection.replica].log.leave();
        }
    }

    /// Reads once, and says whether there was something.
    fn receive(&mut self, reader: usize, max: usize, cut: Option<Index>) -> bool {
        let Some(connection) = &mut self.readers[reader].connection else { return false };
        let (log, replica) = (&self.replicas[connection.replica].log, connection.replica);
        let read = read(log, &mut connection.cursor, max);
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
                self.nothing_is_withheld(reader, replica);
            }
        }
        if cut.is_some() {
            self.disconnect(reader);
        }
        progress
    }

    fn nothing_is_withheld(&self, reader: usize, replica: usize) {
        let has = self.ranks(&self.replicas[replica].log.position().unwrap());
        let seen = self.readers[reader].seen.as_ref().unwrap();
        assert!(seen.iter().zip(&has).all(|(seen, has)| seen >= has), "{seen:?} of {has:?}");
    }

    fn silence(&mut self, reader: usize) {
        let state = &mut self.readers[reader];
        let Some(connection) = &mut state.connection else { return };
        let replica = connection.replica;
        if let Some(bytes) = self.replicas[replica].log.moved_on(&mut connection.cursor) {
            let before = VectorCodec::position(&state.client.id().unwrap()).unwrap();
            let seen = state.client.receive(&bytes);
            let [Seen::Position { id }] = &seen[..] else { panic!("{seen:?}") };
            let after = VectorCodec::position(id).unwrap();
            assert!(after.covers_all(&before) && after != before, "only news are told");
            let again = self.replicas[replica].log.moved_on(&mut connection.cursor);
            assert_eq!(again, None, "once");
            assert_eq!(self.readers[reader].seen, Some(self.ranks(&after)));
        }
    }

    fn serve(&self, replica: usize, most: usize) {
        self.replicas[replica].past.serve(&self.topic.ends(), &self.topic.records(message), most);
    }

    fn check(&mut self, reader: usize, replica: usize, seen: Vec<Seen>) {
        for seen in seen {
            let state = &self.readers[reader];
            let connection = state.connection.as_ref().unwrap();
            let (begun, owed, forged) = (connection.begun, connection.owed, state.forged);
            let before = state.seen.clone();
            assert!(!owed || matches!(seen, Seen::Position { .. }), "a position follows every gap");
            let (now, owes) = match seen {
                Seen::Event { data, id } => {
                    assert!(begun, "the position is told first");
                    let now = self.check_event(before.unwrap(), &data);
                    assert_eq!(
                        self.ranks(&VectorCodec::position(&id).unwrap()),
                        now,
                        "the id says what it has"
                    );
                    (Some(now), false)
                }
                Seen::Gap(gap) if gap.reason == "unknown_id" => {
                    assert!(forged && !begun);
                    assert_eq!((&gap.from, &gap.to, gap.missed), (&Value::Null, &Value::Null, None));
                    (None, true)
                }
                Seen::Gap(gap) => (Some(self.check_gap(before.unwrap(), replica, begun, &gap)), true),
                Seen::SnapshotStart | Seen::SnapshotEnd | Seen::Gone { .. } => {
                    panic!("no log has a table here")
                }
                Seen::Position { id } => {
                    // At the start and after gaps; and by itself where history was gone through that made no event.
                    let position = VectorCodec::position(&id).unwrap();
                    let head = self.replicas[replica].log.position().unwrap();
                    let now = self.ranks(&position);
                    let earliest = self.terms.start == Start::Earliest && before.is_none();
                    assert!(earliest || now == before.unwrap_or_else(|| self.ranks(&head)));
                    assert!(!forged || owed, "a forged id is not honoured");
                    (Some(now), false)
                }
            };
            let state = &mut self.readers[reader];
            state.seen = now;
            state.forged &= owes;
            let connection = state.connection.as_mut().unwrap();
            connection.begun |= !owes;
            connection.owed = owes;
        }
    }

    /// Returns what the reader has then.
    fn check_event(&self, mut seen: Vec<usize>, data: &str) -> Vec<usize> {
        let name = data.split_once(' ').unwrap().0;
        let (partition, offset) = name.split_once(':').unwrap();
        let (partition, offset) = (partition.parse::<usize>().unwrap(), offset.parse::<u64>().unwrap());
        let expected = self.topic.own(partition, is_visible).nth(seen[partition]).unwrap();
        assert_eq!(offset, expected.offset, "each once and in order, in partition {partition}");
        let Kind::Event(filling) = expected.of else { panic!("{data}, and it is a gap") };
        assert_eq!(data, record::text(name, filling));
        seen[partition] += 1;
        seen
    }

    fn check_gap(&self, mut seen: Vec<usize>, replica: usize, begun: bool, gap: &Gap) -> Vec<usize> {
        assert!(!gap.timed);
        let (Value::Object(from), Value::Object(to)) = (&gap.from, &gap.to) else { panic!("{gap:?}") };
        assert!(!from.is_empty() && from.keys().eq(to.keys()), "{gap:?}");
        let range = |partition: usize| {
            let (from, to) = (from.get(&partition.to_string())?, to.get(&partition.to_string())?);
            Some((from.as_u64().unwrap(), to.as_u64().unwrap()))
        };
        let before = seen.clone();
        for (partition, seen) in seen.iter_mut().enumerate() {
            let Some((from, to)) = range(partition) else { continue };
            assert!(from < to, "{gap:?}");
            let rank = |next| self.topic.rank(partition, next, is_visible);
            assert_eq!(rank(from), *seen, "a gap begins where the reader stands");
            *seen = rank(to);
        }
        match gap.reason.as_str() {
            "trimmed" => {
                assert_eq!(gap.missed, None);
                let to = |partition| range(partition).map_or(0, |(_, to)| to);
                let low = &self.topic.low;
                assert!((0..seen.len()).all(|p| to(p) <= low[p]), "{gap:?} of {low:?}");
                return seen;
            }
            "lagged" => assert!(begun && self.terms.on_lag == OnLag::Gap),
            reason => {
                assert!(begun && gap.missed == Some(1) && from.len() == 1, "{gap:?}");
                let partition: usize = from.keys().next().unwrap().parse().unwrap();
                assert_eq!(seen[partition], before[partition] + 1);
                let record = self.topic.own(partition, is_visible).nth(before[partition]).unwrap();
                assert_eq!(record.of.gap(), Some(reason));
                return seen;
            }
        }
        if let Some(missed) = gap.missed {
            let missing = |p: usize| self.topic.own(p, is_visible).take(seen[p]).skip(before[p]);
            let missing: Vec<_> = (0..seen.len()).flat_map(missing).collect();
            assert!(missing.iter().all(|record| record.of.gap().is_none()) && begun, "{gap:?}");
            assert_eq!(missed, missing.len() as u64, "{gap:?}");
        }
        let (log, order) = (&self.replicas[replica].log, &self.replicas[replica].order);
        let head = self.ranks(&log.position().unwrap());
        assert!(seen.iter().zip(&before).zip(&head).all(|((seen, was), head)| seen == was || seen <= head));
        let kept = &order[order.len().saturating_sub(self.replicas[replica].kept)..];
        let held =
            |&(p, offset): &(usize, u64)| range(p).is_some_and(|(from, to)| (from..to).contains(&offset));
        assert!(!kept.iter().any(held), "{gap:?}, and {kept:?} are held");
        seen
    }

    /// Both replicas read all there is, and then all readers do.
    fn catch_up(&mut self) {
        for replica in 0..2 {
            self.replicas[replica].fetch_all(&self.topic);
        }
        for reader in 0..3 {
            if self.readers[reader].connection.is_none() {
                self.connect(reader, reader % 2);
            }
            until_still(|| {
                let progress = self.receive(reader, 500, None);
                let wanted = self.replicas.iter().any(|replica| replica.past.is_wanted());
                (0..2).for_each(|replica| self.serve(replica, 7));
                progress || wanted
            });
            let all = self.topic.counts(is_visible);
            assert_eq!(self.readers[reader].seen, Some(all), "all is accounted for");
        }
    }

    /// Whoever has seen an event of each partition reads what all others do.
    fn all_are_joined(&mut self) {
        (0..self.topic.width()).for_each(|partition| self.topic.publish(partition, Kind::Event(5), 0));
        self.replicas.iter_mut().for_each(|replica| replica.kept = usize::MAX);
        for replica in &mut self.replicas {
            replica.log.widen(ROOM);
        }
        self.catch_up();
        self.topic.publish(0, Kind::Event(5), 0);
        for replica in 0..2 {
            self.replicas[replica].fetch_all(&self.topic);
            let mut shared = None;
            for reader in &mut self.readers {
                let connection = reader.connection.as_mut().unwrap();
                if connection.replica == replica {
                    let read = self.replicas[replica].log.read(&mut connection.cursor, 1_000);
                    let Read::Slice { bytes, events: 1, .. } = read else { panic!("{read:?}") };
                    assert_eq!(*shared.get_or_insert(bytes.as_ptr()), bytes.as_ptr());
                }
            }
        }
    }
}

impl Replica {
    fn new(topic: &Topic<Kind>, kept: usize, late: bool, filled: usize) -> Self {
        let bounds = Bounds { events: kept, ..ROOM };
        let log = record::log(bounds, &Memory::new(usize::MAX));
        let past = Past::new(topic.width());
        let taken = (0..topic.width()).map(|p| if late { topic.of(p).len() } else { 0 }).collect();
        let end = Position::new(if late { topic.ends() } else { Vec::new() });
        let start = Position::default().newest(&end, filled as u64);
        let mut segments = Vec::new();
        for partition in start.behind(&end) {
            let mut at = start.at(partition);
            while at < end.at(partition) {
                segments.push(past.segment(partition, at, end.at(partition), &topic.records(message), 5));
                at = segments.last().unwrap().to;
            }
        }
        let (codec, history) = (Arc::new(VectorCodec), Arc::clone(&past) as _);
        log.open_filled(Opening { codec, history, segments: &segments, start, end });
        Self { log, past, kept, taken, order: Vec::new() }
    }

    fn fetch(&mut self, topic: &Topic<Kind>, runs: impl IntoIterator<Item = (usize, usize)>) {
        let read = topic.take(&mut self.taken, runs);
        let visible = read.iter().filter(|(_, published)| published.of.visible());
        self.order.extend(visible.map(|(partition, published)| (*partition, published.offset)));
        self.log.append(read.into_iter().map(record));
        let position = self.log.position().unwrap();
        for (partition, &taken) in self.taken.iter().enumerate().filter(|(_, taken)| **taken > 0) {
            assert_eq!(position.next(partition as u32), topic.of(partition)[taken - 1].offset + 1);
        }
    }

    fn fetch_again(&mut self, topic: &Topic<Kind>, partition: usize, back: usize) {
        let end = self.taken[partition];
        let again = topic.of(partition)[end.saturating_sub(back)..end].iter();
        let appended = self.log.append(again.map(|published| record((partition, published))));
        assert_eq!((appended.events, appended.gaps.len()), (0, 0), "it has them already");
    }

    fn fetch_all(&mut self, topic: &Topic<Kind>) {
        self.fetch(topic, (0..topic.width()).map(|partition| (partition, usize::MAX)));
    }
}

fn record((partition, published): (usize, &Published<Kind>)) -> (Option<Mark>, Message) {
    (Some(published.mark(partition)), message(partition, published))
}

fn message(partition: usize, published: &Published<Kind>) -> Message {
    Message::at(published.of, &format!("{partition}:{}", published.offset), published.offset / 3)
}

fn is_visible(kind: &Kind) -> bool {
    kind.visible()
}

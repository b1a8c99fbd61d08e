//! Several feeds on one connection against the plain truth: feeds with a single order, of several partitions, of single keys and
//! of a list of sources, two replicas whose logs interleave them differently, and clients that are cut anywhere and come back
//! with the last id that they saw for other feeds than before, on any replica.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use ssegate::config::Partitioner;
use ssegate::hub::{
    Feed, FeedKey, Hub, Memory, Merged, Opens, Part, Policy, Position, Read, Source, Tell, Wish, Wishes,
};

use crate::record::{self, Keyed, Kind, Message};
use crate::sse_parser::{Event, Item, Parser};
use crate::topic::{Published, Topic};
use crate::vector::VectorCodec;
use crate::{ROOM, TERMS, cases, max, until_still};

/// What is published to, and in how many partitions.
const SOURCES: [(&str, usize); 6] = [("s0", 1), ("s1", 1), ("s2", 1), ("t0", 3), ("t1", 2), ("k", 2)];

/// What clients call feeds, which sources these have, and of which key.
const FEEDS: [(&str, &[usize], Option<u8>); 6] = [
    ("/s0", &[0], None),
    ("/s1", &[1], None),
    ("/list", &[2, 4], None),
    ("/t0", &[3], None),
    ("/k0", &[5], Some(0)),
    ("/k1", &[5], Some(1)),
];

const CLIENTS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    /// To a source, records of these partitions and keys.
    Publish(Index, Vec<(Index, u8, Kind)>),
    /// A replica reads so many records of these partitions of a source.
    Fetch(Index, Index, Vec<(Index, usize)>),
    /// A client asks a replica for the feeds of which a bit is set.
    Connect(Index, Index, u8),
    Read(Index, usize),
    Cut(Index, usize, Index),
    Silence(Index),
}

fn op() -> impl Strategy<Value = Op> {
    let one = any::<Index>;
    let records = prop::collection::vec((one(), 0..3_u8, record::kind()), 1..12);
    let runs = prop::collection::vec((one(), 1..8_usize), 1..8);
    let max = || max(2_000);
    prop_oneof![
        10 => (one(), records).prop_map(|(source, records)| Op::Publish(source, records)),
        14 => (one(), one(), runs).prop_map(|(replica, source, runs)| Op::Fetch(replica, source, runs)),
        4 => (one(), one(), 0..1_u8 << FEEDS.len()).prop_map(|(client, replica, feeds)| Op::Connect(client, replica, feeds)),
        16 => (one(), max()).prop_map(|(client, max)| Op::Read(client, max)),
        4 => (one(), max(), one()).prop_map(|(client, max, at)| Op::Cut(client, max, at)),
        2 => one().prop_map(Op::Silence),
    ]
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn of_each_feed_of_several_all_is_seen_once_and_in_order(ops in prop::collection::vec(op(), 1..150)) {
        World::new().run(ops);
    }
}

/// A record of a key.
#[derive(Clone, Copy)]
struct Of {
    key: u8,
    kind: Kind,
}

struct Replica {
    hub: Hub,
    /// By source.
    feeds: Vec<Arc<Feed>>,
    /// By source and partition, how many records it has read.
    taken: Vec<Vec<usize>>,
}

/// What a client has of a source of one of its feeds: in each partition the number of records that it was told of, or that
/// lie before those.
type Seen = HashMap<(usize, usize), Vec<usize>>;

#[derive(Default)]
struct Client {
    parser: Parser,
    id: String,
    seen: Seen,
    connection: Option<Connection>,
}

struct Connection {
    reader: Merged,
    replica: usize,
    /// Bits of the feeds that it has.
    feeds: u8,
    /// Where feeds begin at the earliest that it had not before.
    head: Seen,
    /// A gap was told, which a position must follow.
    owes_position: bool,
}

struct World {
    /// By source.
    topics: Vec<Topic<Of>>,
    replicas: [Replica; 2],
    clients: Vec<Client>,
}

impl World {
    fn new() -> Self {
        let topics = SOURCES.iter().map(|&(_, partitions)| Topic::new(partitions)).collect();
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        Self { topics, replicas: [Replica::new(), Replica::new()], clients }
    }

    fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Publish(source, records) => self.publish(source.index(SOURCES.len()), &records),
                Op::Fetch(replica, source, runs) => {
                    let source = source.index(SOURCES.len());
                    let runs = runs.iter().map(|(at, count)| (at.index(SOURCES[source].1), *count));
                    self.replicas[replica.index(2)].fetch(&self.topics, source, runs);
                }
                Op::Connect(client, replica, feeds) => {
                    self.connect(client.index(CLIENTS), replica.index(2), feeds);
                }
                Op::Read(client, max) => _ = self.receive(client.index(CLIENTS), max, None),
                Op::Cut(client, max, at) => _ = self.receive(client.index(CLIENTS), max, Some(at)),
                Op::Silence(client) => self.silence(client.index(CLIENTS)),
            }
        }
        for client in 0..CLIENTS {
            self.connect(client, client % 2, u8::MAX);
            until_still(|| self.receive(client, 5_000, None));
            for (feed, &(_, sources, _)) in FEEDS.iter().enumerate() {
                for &source in sources {
                    let all = self.topics[source].counts(is_of(feed));
                    assert_eq!(self.clients[client].seen[&(feed, source)], all, "all is accounted for");
                }
            }
        }
    }

    fn publish(&mut self, source: usize, records: &[(Index, u8, Kind)]) {
        for (partition, key, kind) in records {
            let partition = partition.index(SOURCES[source].1);
            // What a gap within a list is of cannot be told.
            let is_listed =
                FEEDS.iter().any(|(_, sources, _)| sources.len() > 1 && sources.contains(&source));
            let kind = if is_listed && kind.gap().is_some() { Kind::Tombstone } else { *kind };
            self.topics[source].publish(partition, Of { key: *key, kind }, 0);
        }
    }

    /// How many records of which a reader of the feed is told lie before a position, in each partition.
    fn ranks(&self, feed: usize, source: usize, position: &Position) -> Vec<usize> {
        self.topics[source].ranks(position, is_of(feed))
    }

    /// What an id says that its client has.
    fn told(&self, id: &str) -> Seen {
        let mut told = Seen::new();
        for (feed, &(label, sources, _)) in FEEDS.iter().enumerate() {
            for &source in sources {
                let mut part = part_of(id, label);
                if sources.len() > 1 {
                    let (name, kind) = (SOURCES[source].0, if source == 2 { "stream" } else { "topic" });
                    part = part.and_then(|id| part_of(&id, &format!("up\n{kind}\n{name}")));
                }
                if let Some(part) = part {
                    let position = VectorCodec::position(&part).unwrap();
                    told.insert((feed, source), self.ranks(feed, source, &position));
                }
            }
        }
        told
    }

    fn connect(&mut self, client: usize, replica: usize, feeds: u8) {
        // Whoever is further on than it would wait for what it is still to read.
        for (source, &(_, partitions)) in SOURCES.iter().enumerate() {
            let all = (0..partitions).rev().map(|partition| (partition, usize::MAX));
            self.replicas[replica].fetch(&self.topics, source, all);
        }
        let id = self.clients[client].id();
        let wishes = Wishes::new(Wish { id: id.clone(), ..Wish::default() });
        let (mut parts, mut head) = (Vec::new(), Seen::new());
        for (feed, &(label, sources, key)) in
            FEEDS.iter().enumerate().filter(|(feed, _)| feeds >> feed & 1 == 1)
        {
            parts.push(self.replicas[replica].part(label, sources, key, &wishes));
            for &source in sources {
                let position = self.replicas[replica].feeds[source].log.position().unwrap();
                head.insert((feed, source), self.ranks(feed, source, &position));
            }
        }
        let seen = id.as_deref().map(|id| self.told(id)).unwrap_or_default();
        let reader = Merged::new(parts, Tell::Event, "stream.".into(), Vec::new());
        let connection = Connection { reader, replica, feeds, head, owes_position: false };
        let id = id.unwrap_or_default();
        let parser = Parser::resuming(&id);
        self.clients[client] = Client { parser, id, seen, connection: Some(connection) };
    }

    /// Reads once; false if there is nothing to read.
    fn receive(&mut self, client: usize, max: usize, cut: Option<Index>) -> bool {
        let Some(connection) = &mut self.clients[client].connection else { return false };
        let bytes = match connection.read(max) {
            Read::Pending => None,
            Read::Control { bytes, .. } => Some(bytes.to_vec()),
            Read::Pieces { bytes, events, .. } => {
                let bytes = bytes.concat();
                assert!(bytes.len() <= max.saturating_add(64) || events <= 1, "{} of {max}", bytes.len());
                Some(bytes)
            }
            other => panic!("{other:?}"),
        };
        let progress = bytes.is_some();
        match bytes {
            Some(bytes) => {
                let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
                self.take(client, &bytes[..end]);
            }
            None => self.nothing_is_withheld(client),
        }
        if cut.is_some() {
            self.clients[client].connection = None;
        }
        progress
    }

    fn nothing_is_withheld(&self, client: usize) {
        let Client { seen, connection, .. } = &self.clients[client];
        let connection = connection.as_ref().unwrap();
        let replica = &self.replicas[connection.replica];
        for (feed, &(_, sources, _)) in FEEDS.iter().enumerate().filter(|(feed, _)| connection.has(*feed)) {
            for &source in sources {
                let position = replica.feeds[source].log.position().unwrap();
                let log = self.ranks(feed, source, &position);
                let seen = &seen[&(feed, source)];
                assert!(log.iter().zip(seen).all(|(log, seen)| seen >= log), "{seen:?} of {log:?}");
            }
        }
        assert!(!connection.owes_position, "a position follows each gap");
    }

    fn silence(&mut self, client: usize) {
        let Some(connection) = &mut self.clients[client].connection else { return };
        let Some(bytes) = connection.reader.moved_on() else { return };
        assert_eq!(connection.reader.moved_on(), None, "once");
        self.take(client, &bytes);
    }

    fn take(&mut self, client: usize, bytes: &[u8]) {
        let items = self.clients[client].parser.feed(bytes);
        for item in items {
            let Item::Event(event) = item else { panic!("only events are written here: {item:?}") };
            let before = std::mem::replace(&mut self.clients[client].id, event.id.clone());
            let owed = &mut self.clients[client].connection.as_mut().unwrap().owes_position;
            match (event.event.as_str(), std::mem::take(owed)) {
                ("stream.position", _) => assert_eq!(event.data, "{}"),
                (_, true) => panic!("a gap is followed by {event:?}"),
                ("stream.gap", false) => {
                    assert_eq!(event.id, before, "a gap never moves the client's cursor");
                    *owed = true;
                    self.gap(client, &event);
                    continue;
                }
                (_, false) => self.event(client, &event),
            }
            self.has_what_it_was_told(client, &event.id);
        }
    }

    fn event(&mut self, client: usize, event: &Event) {
        let feed = FEEDS.iter().position(|(label, ..)| *label == event.event).unwrap();
        let (name, _) = event.data.split_once(' ').unwrap();
        let name: Vec<usize> = name.split(':').map(|number| number.parse().unwrap()).collect();
        let [source, partition, offset] = name[..] else { panic!("{event:?}") };
        // Where it begins may be told with its first event.
        let Some(seen) = self.clients[client].seen.get(&(feed, source)) else { return };
        let expected = self.topics[source].own(partition, is_of(feed)).nth(seen[partition]).unwrap();
        assert_eq!(offset as u64, expected.offset, "each once and in order, of {}", event.event);
        assert!(matches!(expected.of.kind, Kind::Event(_)));
        self.clients[client].seen.get_mut(&(feed, source)).unwrap()[partition] += 1;
    }

    fn gap(&mut self, client: usize, event: &Event) {
        let gap: Value = serde_json::from_str(&event.data).unwrap();
        let feed = FEEDS.iter().position(|(label, ..)| gap["feed"] == *label).unwrap();
        let [source] = *FEEDS[feed].1 else { panic!("{event:?}") };
        for (partition, to) in gap["to"].as_object().unwrap() {
            let partition: usize = partition.parse().unwrap();
            let next = self.clients[client].seen[&(feed, source)][partition];
            let missed = self.topics[source].own(partition, is_of(feed)).nth(next).unwrap();
            assert_eq!(
                (missed.of.kind.gap(), to.as_u64()),
                (gap["reason"].as_str(), Some(missed.offset + 1))
            );
            self.clients[client].seen.get_mut(&(feed, source)).unwrap()[partition] += 1;
        }
    }

    /// An id says what its client has of each feed of the connection, and of no other.
    fn has_what_it_was_told(&mut self, client: usize, id: &str) {
        let told = self.told(id);
        let Client { seen, connection, .. } = &mut self.clients[client];
        let connection = connection.as_ref().unwrap();
        for ((feed, source), told) in told {
            assert!(connection.has(feed));
            let head = &connection.head[&(feed, source)];
            let seen = seen.entry((feed, source)).or_insert_with(|| {
                assert!(
                    told.iter().zip(head).all(|(told, head)| told >= head),
                    "it begins with what comes next"
                );
                told.clone()
            });
            assert_eq!(*seen, told, "of {}", FEEDS[feed].0);
        }
    }
}

impl Connection {
    /// As a stream does it: it waits where there is nothing, and reads again when it is woken.
    fn read(&mut self, max: usize) -> Read {
        loop {
            match self.reader.read_in(false, max) {
                Read::Pending => {}
                read => return read,
            }
            if self.reader.poll_wake(&mut Context::from_waker(Waker::noop())).is_pending() {
                return Read::Pending;
            }
        }
    }

    fn has(&self, feed: usize) -> bool {
        self.feeds >> feed & 1 == 1
    }
}

impl Client {
    fn id(&self) -> Option<String> {
        Some(&self.id).filter(|id| !id.is_empty()).cloned()
    }
}

impl Replica {
    fn new() -> Self {
        let hub = Hub::new(["up".into()], Memory::new(usize::MAX));
        let keys: Vec<_> = (0..SOURCES.len()).map(key).collect();
        let held = keys.iter().map(|key| (key.clone(), POLICY)).collect();
        hub.hold_only(&held, &HashMap::new());
        let feeds: Vec<_> = keys.iter().map(|key| hub.kept(key).unwrap()).collect();
        feeds.iter().for_each(|feed| feed.log.open(Arc::new(VectorCodec), Position::default()));
        Self { hub, feeds, taken: SOURCES.iter().map(|&(_, partitions)| vec![0; partitions]).collect() }
    }

    fn part(&self, label: &str, sources: &[usize], of: Option<u8>, wishes: &Wishes) -> Part {
        let opens = |&source: &usize| Opens {
            feed: key(source),
            key: of.map(|key| [key].into()),
            start: None,
            also: Vec::new(),
        };
        let [first, also @ ..] = sources else { panic!("a feed has a source") };
        let opens = Opens { also: also.iter().map(opens).collect(), ..opens(first) };
        let wish = wishes.of(label);
        let resumes = wish.id.clone();
        Part { label: label.into(), reader: self.hub.subscribe(opens, &POLICY, wish, TERMS), resumes }
    }

    fn fetch(&mut self, topics: &[Topic<Of>], source: usize, runs: impl IntoIterator<Item = (usize, usize)>) {
        let read = topics[source].take(&mut self.taken[source], runs).into_iter();
        self.feeds[source].log.append(read.map(|(partition, published)| {
            let Published { offset, of: Of { key, kind } } = published;
            let message = Message::new(*kind, &format!("{source}:{partition}:{offset}"));
            (Some(published.mark(partition)), Keyed { key: *key, colour: "", message })
        }));
    }
}

/// Whether a reader of the feed is told of a record.
fn is_of(feed: usize) -> impl Fn(&Of) -> bool {
    let own = FEEDS[feed].2;
    move |of| of.kind.visible() && own.is_none_or(|own| own == of.key)
}

fn key(source: usize) -> FeedKey {
    let name: Arc<str> = SOURCES[source].0.into();
    let source = match SOURCES[source].1 {
        1 => Source::Stream(name),
        _ if &*name == "k" => Source::Keyed(name, Partitioner::Any),
        _ => Source::Topic(name),
    };
    FeedKey { upstream: "up".into(), source, shape: record::shape() }
}

fn part_of(id: &str, label: &str) -> Option<String> {
    Wishes::new(Wish { id: Some(id.to_owned()), ..Wish::default() }).of(label).id
}

const POLICY: Policy = Policy { bounds: ROOM, linger: Duration::ZERO, idle_timeout: Duration::ZERO };

//! Which topics are read, from where on, and for which feeds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};

use super::cause;
use super::client::{self, ASK, Consumer};
use super::fill::{Filling, Found, Past, Shelved};
use super::held::Held;
use super::history::TopicReader;
use super::id::TopicCodec;
use super::keyed::KeyedCodec;
use super::known::Facts;
use super::lag::{Ends, Progress};
use super::offsets::{self, Bounds};
use super::record::Message;
use super::topic_id;
use crate::hub::{Feed, Feeds, IdCodec, Mark, Opening, Position, Reason, Source};
use crate::upstream::lag::Behind;
use crate::upstream::schemas::{self, Missing, Ready};

/// A gap that a feed's log was told.
pub(super) type Told = (Arc<Feed>, Reason);

/// The topics of one consumer. Questions go through a client of their own: a broker answers each connection in
/// order, and on the consumer's they would wait behind its fetch.
pub(super) struct Topics {
    asker: Consumer,
    cluster: Option<String>,
    past: Past,
    read: HashMap<Arc<str>, Topic>,
    /// Wanted, and about to be read: their logs are being filled.
    filling: HashMap<Arc<str>, Filling>,
    /// Wanted, but not yet read: unknown to the cluster, or not yet asked for.
    waiting: HashMap<Arc<str>, Waiting>,
    /// Whether a topic was created anew that the clients knew before.
    outdated: bool,
}

/// A topic that could not be begun yet.
struct Waiting {
    feeds: Vec<Arc<Feed>>,
    again: Instant,
    pause: Duration,
    /// Whether it was read before and then was gone.
    was_gone: bool,
}

/// A topic that is read.
struct Topic {
    feeds: Vec<Arc<Feed>>,
    /// The next offset of each partition that is assigned.
    next: Position,
    progress: Progress,
    /// What those know who read its history.
    facts: Arc<Facts>,
    /// Since a record waits for its schema: not read until that is there, and then on from where it stands.
    held: Option<Held>,
}

impl Topics {
    /// No topics yet.
    pub(super) fn new(asker: Consumer, cluster: Option<String>, past: Past) -> Self {
        let (read, filling, waiting) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { asker, cluster, past, read, filling, waiting, outdated: false }
    }

    /// Whether all clients have to be made anew, asked once.
    pub(super) fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
    }

    /// Goes on with new clients.
    pub(super) fn renew(&mut self, consumer: &Consumer, asker: Consumer) -> Result<(), KafkaError> {
        client::let_go(std::mem::replace(&mut self.asker, asker));
        self.past.slots.renew();
        for (name, topic) in &self.read {
            topic.assign(consumer, name)?;
        }
        Ok(())
    }

    /// The client for questions.
    pub(super) fn asker(&self) -> &Consumer {
        &self.asker
    }

    /// Follows the wanted set: forgets what is no longer wanted, and notes what is to be begun.
    pub(super) fn follow(&mut self, consumer: &Consumer, wanted: Feeds) -> Result<(), KafkaError> {
        let mut wanted = by_topic(wanted);
        for (name, topic) in self.read.extract_if(|name, _| !wanted.contains_key(name)) {
            topic.unassign(consumer, &name)?;
        }
        for (name, topic) in &mut self.read {
            topic.feeds = wanted.remove(name).unwrap_or_default();
        }
        self.filling.retain(|name, _| wanted.contains_key(name));
        for (name, filling) in &mut self.filling {
            filling.topic.feeds = wanted.remove(name).unwrap_or_default();
        }
        self.waiting.retain(|name, _| wanted.contains_key(name));
        for (name, feeds) in wanted {
            self.waiting.entry(name).or_insert_with(Waiting::new).feeds = feeds;
        }
        Ok(())
    }

    /// The feeds of a topic that is read.
    pub(super) fn feeds(&self, topic: &str) -> &[Arc<Feed>] {
        self.read.get(topic).map_or(&[], |topic| &topic.feeds)
    }

    /// Every feed that is fed.
    pub(super) fn all_feeds(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.read.values().flat_map(|topic| &topic.feeds)
    }

    /// The names of the topics that are read.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.read.keys().map(|name| &**name)
    }

    /// The name of any topic that is wanted.
    pub(super) fn any(&self) -> Option<&Arc<str>> {
        self.read.keys().chain(self.filling.keys()).chain(self.waiting.keys()).next()
    }

    /// Whether logs are being filled.
    pub(super) fn are_filling(&self) -> bool {
        !self.filling.is_empty()
    }

    /// Lets go of what reading history no longer needs.
    pub(super) fn let_go(&self) {
        self.past.slots.let_go();
    }

    /// Notes that a record was handed over, and when it was published.
    pub(super) fn advance(&mut self, topic: &str, mark: Mark, published: Option<SystemTime>) {
        if let Some(topic) = self.read.get_mut(topic) {
            topic.next.advance(mark);
            topic.progress.read(mark, published);
        }
    }

    /// How many of a topic's records can be decoded; a schema that is new is waited for a moment, which hardly ever does
    /// not do.
    pub(super) fn ready(&self, topic: &str, run: &[BorrowedMessage<'_>]) -> Ready {
        let shapes = self.feeds(topic).iter().map(|feed| &feed.key.shape);
        let ready = schemas::look(shapes.clone(), run.iter().map(Message));
        if ready.missing.is_empty() || self.past.runtime.block_on(ready.missing.learn(MOMENT)).is_err() {
            return ready;
        }
        schemas::look(shapes, run.iter().map(Message))
    }

    /// Whether a topic waits for a schema.
    pub(super) fn is_held(&self, topic: &str) -> bool {
        self.read.get(topic).is_some_and(|topic| topic.held.is_some())
    }

    /// Reads a topic no more until these schemas are there. The others are read on.
    pub(super) fn hold(
        &mut self,
        consumer: &Consumer,
        topic: &str,
        missing: Missing,
    ) -> Result<(), KafkaError> {
        if let Some(of_name) = self.read.get_mut(topic) {
            of_name.unassign(consumer, topic)?;
            of_name.held = Some(Held::begins(missing));
        }
        Ok(())
    }

    /// Reads on what was held, where its schemas are there; says now and then what is in the way of the others.
    pub(super) fn release(&mut self, consumer: &Consumer, trouble: impl Fn(&str)) -> Result<(), KafkaError> {
        for (name, topic) in &mut self.read {
            let asks = topic.feeds.iter().any(|feed| feed.key.shape.decode.asks());
            let is_over = |held: &mut Held| !asks || held.is_over(&self.past.runtime, &trouble);
            if topic.held.take_if(is_over).is_some() {
                topic.assign(consumer, name)?;
            }
        }
        Ok(())
    }

    /// Tells how far each topic that is read is behind these ends.
    pub(super) fn behind(&mut self, ends: &Ends, tell: impl Fn(&Arc<str>, Behind)) {
        let now = SystemTime::now();
        for (name, topic) in &mut self.read {
            let held = topic.held.is_some();
            let ends = ends.of(name).iter().map(|end| if held { end.undrained() } else { *end });
            tell(name, topic.progress.behind(&topic.next, &ends.collect::<Vec<_>>(), now));
        }
    }

    /// Opens the logs of feeds that joined a topic which is read already: at the place where it is read.
    pub(super) fn open_joined(&self) {
        for (name, topic) in &self.read {
            for feed in topic.feeds.iter().filter(|feed| feed.log.position().is_none()) {
                let (_, codec, history) = self.shelve(name, feed, &topic.facts);
                let (start, end) = (topic.next.clone(), topic.next.clone());
                feed.log.open_filled(Opening { codec, history, segments: &[], start, end });
            }
        }
    }

    /// The codec of a feed's log, where this is known of its topic.
    fn codec(&self, topic: &Arc<str>, feed: &Feed, facts: &Facts) -> Arc<dyn IdCodec> {
        let incarnation = facts.incarnation();
        let whole = TopicCodec::new(self.cluster.as_deref(), topic, incarnation);
        match feed.key.source {
            Source::Keyed(_, partitioner) => {
                Arc::new(KeyedCodec::new(whole, partitioner, facts.partitions()))
            }
            _ => Arc::new(whole),
        }
    }

    /// A feed whose log is to be opened.
    fn shelve(&self, topic: &Arc<str>, feed: &Arc<Feed>, facts: &Arc<Facts>) -> Shelved {
        let codec = self.codec(topic, feed, facts);
        let reader = TopicReader::new(&self.past.slots, topic, facts);
        let shelf = self.past.pool.shelf(reader, &feed.key, &codec);
        (Arc::clone(feed), codec, shelf)
    }

    /// Tries to begin the topics whose turn it is, a few at a time, since reading waits meanwhile. Returns what is
    /// in the way, in words.
    pub(super) fn begin_waiting(&mut self) -> Vec<String> {
        let now = Instant::now();
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.again <= now);
        let due: Vec<_> = due.map(|(name, _)| Arc::clone(name)).take(BEGIN_AT_ONCE).collect();
        let mut troubles = Vec::new();
        for name in due {
            let Some(mut waiting) = self.waiting.remove(&name) else { continue };
            if let Err(error) = self.begin(&name, &mut waiting) {
                waiting.put_off();
                troubles.push(format!("topic {name} cannot be read: {}", cause::of_topic(&error)));
                self.waiting.insert(name, waiting);
            }
        }
        troubles
    }

    /// Begins with a topic: where a log is new, it is filled first.
    fn begin(&mut self, name: &Arc<str>, waiting: &mut Waiting) -> Result<(), KafkaError> {
        let partitions =
            count_partitions(&self.asker, name).inspect_err(|error| waiting.was_gone |= is_unknown(error))?;
        self.identify(&[name])?;
        let facts = self.past.known.topic(name);
        waiting.was_gone |= facts.is_another();
        let bounds = offsets::bounds(&self.asker, name, partitions, ASK)?;
        let new: Vec<_> =
            waiting.feeds.iter().filter(|feed| feed.log.position().is_none()).cloned().collect();
        // A topic loses no partition in its life.
        waiting.was_gone |= partitions < facts.partitions();
        if partitions > facts.partitions() {
            waiting.feeds.iter().for_each(|feed| feed.log.scatter());
        }
        facts.has_partitions(partitions);
        if waiting.was_gone {
            // Those that knew the old one would have the fill wait for nothing.
            self.past.slots.renew();
        }
        let shelves: Vec<_> = new.iter().map(|feed| self.shelve(name, feed, &facts)).collect();
        let from = self.fill_from(name, &bounds, &shelves)?;
        let (feeds, was_gone) = (waiting.feeds.clone(), waiting.was_gone);
        let topic = Found { feeds, was_gone, bounds, facts };
        let filling = Filling::start(&self.past, shelves, from, topic);
        self.filling.insert(Arc::clone(name), filling);
        Ok(())
    }

    /// Asks which topics these are by now. Returns those that are not what they were.
    fn identify(&self, names: &[&Arc<str>]) -> Result<Vec<Arc<str>>, KafkaError> {
        let asked: Vec<&str> = names.iter().map(|name| &***name).collect();
        let answers = topic_id::topic_ids(self.asker.client(), &asked, ASK)?;
        let mut others = Vec::new();
        for &name in names {
            // One that is unknown, or does not tell, is found out otherwise.
            let Some(Ok(Some(id))) = answers.get(&**name) else { continue };
            if self.past.known.topic(name).has_id(*id) {
                others.push(Arc::clone(name));
            }
        }
        Ok(others)
    }

    /// Where the history of new logs begins: the newest records that any of them keeps.
    fn fill_from(&self, name: &str, bounds: &Bounds, shelves: &[Shelved]) -> Result<Position, KafkaError> {
        let rooms: Vec<_> = shelves.iter().map(|(feed, ..)| feed.log.bounds()).collect();
        let events = rooms.iter().map(|room| room.events).max().unwrap_or(0);
        let mut from = bounds.low.newest(&bounds.high, events as u64);
        let age = rooms.iter().map(|room| room.age).max().unwrap_or_default();
        if let Some(oldest) = SystemTime::now().checked_sub(age).filter(|_| from != bounds.high) {
            let partitions = bounds.high.as_slice().len();
            from.merge(&offsets::at(&self.asker, name, partitions, oldest, &bounds.high, ASK)?);
        }
        Ok(from)
    }

    /// Reads the topics on whose logs are filled. Returns the gaps that were told.
    pub(super) fn begin_filled(&mut self, consumer: &Consumer) -> Result<Vec<Told>, KafkaError> {
        let mut told = Vec::new();
        let filled: Vec<_> = self.filling.extract_if(|_, filling| filling.is_done()).collect();
        for (name, filling) in filled {
            // What stood open before was fed by an earlier session, and goes on where it stands.
            let open: Vec<_> = filling.topic.feeds.iter().filter_map(|feed| feed.log.position()).collect();
            let Found { feeds, was_gone, bounds, facts } = filling.open_logs(&self.past);
            let next = |partition: u32| {
                let stands = open.iter().map(|position| position.next(partition)).min();
                stands.unwrap_or(bounds.high.next(partition))
            };
            let next = Position::new((0..bounds.high.as_slice().len() as u32).map(next).collect());
            let mut topic = Topic { feeds, next, progress: Progress::begins(), facts, held: None };
            told.extend(self.mend_topic(&name, &mut topic, &bounds, was_gone && !open.is_empty()));
            topic.assign(consumer, &name)?;
            self.read.insert(name, topic);
        }
        self.open_joined();
        Ok(told)
    }

    /// Looks for partitions that were added, and reads them from offset 0 on; for topics that were created anew, which
    /// are begun again; and for those that are gone, which wait to be. Returns what went wrong with the others, in words.
    pub(super) fn look(&mut self, consumer: &Consumer) -> Result<Vec<String>, KafkaError> {
        let (mut troubles, mut gone) = (Vec::new(), Vec::new());
        let known: Vec<_> = self.read.keys().chain(self.filling.keys()).collect();
        let others = self.identify(&known).unwrap_or_else(|error| {
            troubles.push(format!("asking for the ids of topics failed: {}", cause::of_topic(&error)));
            Vec::new()
        });
        for name in others {
            self.wait_for_another(consumer, name)?;
        }
        // One whose logs are being filled must not keep a reader waiting that cannot succeed.
        for (name, filling) in &mut self.filling {
            match count_partitions(&self.asker, name) {
                Ok(now) if now < filling.topic.facts.partitions() => gone.push(Arc::clone(name)),
                Err(error) if is_unknown(&error) => gone.push(Arc::clone(name)),
                Ok(_) | Err(_) => {}
            }
        }
        for (name, topic) in &mut self.read {
            match count_partitions(&self.asker, name) {
                Ok(now) if now < topic.facts.partitions() => gone.push(Arc::clone(name)),
                Ok(now) => topic.grow(consumer, name, now)?,
                Err(error) if is_unknown(&error) => gone.push(Arc::clone(name)),
                Err(error) => {
                    troubles.push(format!("looking after topic {name} failed: {}", cause::of_topic(&error)));
                }
            }
        }
        for name in gone {
            troubles.push(format!("topic {name} is gone; waiting for it to be created again"));
            self.wait_for_another(consumer, name)?;
        }
        Ok(troubles)
    }

    /// Reads a topic no more, and begins with the next of its name.
    fn wait_for_another(&mut self, consumer: &Consumer, name: Arc<str>) -> Result<(), KafkaError> {
        let feeds = if let Some(topic) = self.read.remove(&name) {
            topic.unassign(consumer, &name)?;
            topic.feeds
        } else if let Some(filling) = self.filling.remove(&name) {
            filling.into_feeds()
        } else {
            return Ok(());
        };
        self.waiting.insert(name, Waiting { feeds, was_gone: true, ..Waiting::new() });
        Ok(())
    }

    /// An offset was refused, and librdkafka has stopped reading that partition: finds what is no longer there,
    /// tells the gap, and reads everything again from where it stands. What comes twice, the logs leave out.
    pub(super) fn mend(&mut self, consumer: &Consumer) -> Result<Vec<Told>, KafkaError> {
        let mut told = Vec::new();
        for (name, mut topic) in std::mem::take(&mut self.read) {
            topic.unassign(consumer, &name)?;
            // Which topic it is comes first: what is asked after that is of that one, or of one that is found out next.
            let is_another = self.identify(&[&name]).map(|others| !others.is_empty());
            let bounds = offsets::bounds(&self.asker, &name, topic.next.as_slice().len(), ASK);
            match (is_another, bounds) {
                (Ok(false), Ok(bounds)) => {
                    told.extend(self.mend_topic(&name, &mut topic, &bounds, false));
                    topic.assign(consumer, &name)?;
                    self.read.insert(name, topic);
                }
                // Another one is begun with, and one that does not answer when it does.
                (is_another, _) => {
                    let was_gone = is_another.unwrap_or(false);
                    self.waiting.insert(name, Waiting { feeds: topic.feeds, was_gone, ..Waiting::new() });
                }
            }
        }
        Ok(told)
    }

    /// Moves a topic to where it can be read, and tells its logs what is gone.
    fn mend_topic(
        &mut self,
        name: &Arc<str>,
        topic: &mut Topic,
        bounds: &Bounds,
        recreated: bool,
    ) -> Vec<Told> {
        // Offsets never go back in a topic's life: if they do, it was deleted and created again, or a leader was elected
        // that lacked what another had.
        let went_back = !bounds.high.covers_all(&topic.next);
        let recreated =
            recreated || went_back && self.identify(&[name]).is_ok_and(|others| !others.is_empty());
        topic.facts.is_read();
        if recreated || went_back {
            topic.next = bounds.low.clone();
            if topic.facts.incarnation().id.is_none() || !recreated {
                topic.facts.is_made_anew();
            }
            self.outdated = true;
            // What slots have fetched ahead may be of the topic before.
            self.past.slots.renew();
            let restart = |feed: &&Arc<Feed>| {
                feed.log.restart(self.codec(name, feed, &topic.facts), topic.next.clone())
            };
            return topic
                .feeds
                .iter()
                .filter(restart)
                .map(|feed| (Arc::clone(feed), Reason::Recreated))
                .collect();
        }
        let mut told = Vec::new();
        for partition in topic.next.behind(&bounds.low).collect::<Vec<_>>() {
            let mark = Mark::new(partition, bounds.low.next(partition));
            topic.next.advance(mark);
            for feed in &topic.feeds {
                let gaps = feed.log.append_missing(Reason::Trimmed, mark).gaps;
                told.extend(gaps.into_iter().map(|reason| (Arc::clone(feed), reason)));
            }
        }
        told
    }
}

/// The feeds of each topic, whether they read all of it or a key.
fn by_topic(wanted: Feeds) -> HashMap<Arc<str>, Vec<Arc<Feed>>> {
    let mut topics = HashMap::<_, Vec<_>>::new();
    for (source, feeds) in wanted {
        if let Source::Topic(topic) | Source::Keyed(topic, _) = source {
            topics.entry(topic).or_default().extend(feeds);
        }
    }
    topics
}

impl Waiting {
    fn new() -> Self {
        Self { feeds: Vec::new(), again: Instant::now(), pause: BEGIN_AGAIN.0, was_gone: false }
    }

    fn put_off(&mut self) {
        self.again = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(BEGIN_AGAIN.1);
    }
}

impl Topic {
    /// Reads it, unless it is held.
    fn assign(&self, consumer: &Consumer, name: &str) -> Result<(), KafkaError> {
        if self.held.is_none() { consumer.incremental_assign(&self.partitions(name)) } else { Ok(()) }
    }

    /// Reads it no more.
    fn unassign(&self, consumer: &Consumer, name: &str) -> Result<(), KafkaError> {
        if self.held.is_none() { consumer.incremental_unassign(&self.partitions(name)) } else { Ok(()) }
    }

    /// Its partitions, each at its next offset.
    fn partitions(&self, name: &str) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, &offset) in self.next.as_slice().iter().enumerate() {
            let added = list.add_partition_offset(name, partition as i32, Offset::Offset(offset as i64));
            added.expect("offsets come from Kafka");
        }
        list
    }

    /// Reads the partitions beyond those it knows, up to `now` in all.
    fn grow(&mut self, consumer: &Consumer, name: &Arc<str>, now: usize) -> Result<(), KafkaError> {
        let known = self.next.as_slice().len();
        if now <= known {
            return Ok(());
        }
        let mut added = TopicPartitionList::new();
        for partition in known..now {
            added.add_partition_offset(name, partition as i32, Offset::Offset(0))?;
        }
        // Keys move with the number of partitions.
        self.feeds.iter().for_each(|feed| feed.log.scatter());
        if self.held.is_none() {
            consumer.incremental_assign(&added)?;
        }
        self.next = Position::new((0..now as u32).map(|partition| self.next.next(partition)).collect());
        self.facts.has_partitions(now);
        tracing::info!(topic = %name, from = known, to = now, "partitions were added");
        Ok(())
    }
}

/// How many partitions a topic has at present.
pub(super) fn count_partitions(asker: &Consumer, name: &str) -> Result<usize, KafkaError> {
    let metadata = asker.fetch_metadata(Some(name), ASK)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let topic = topic.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))?;
    match topic.error() {
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        None => Ok(topic.partitions().len()),
    }
}

/// Whether the cluster does not know what was asked for.
pub(super) fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownPartition | UnknownTopicOrPartition))
}

/// The wait before a topic that could not be begun is tried again, and the longest one.
const BEGIN_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long all topics wait for a schema that is new to one of them, before that one is held.
const MOMENT: Duration = Duration::from_millis(50);
/// The most topics that are begun between two polls.
const BEGIN_AT_ONCE: usize = 8;

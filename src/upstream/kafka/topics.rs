//! Which topics are read, from where on, and for which feeds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK, Consumer};
use super::id::TopicCodec;
use crate::hub::{Feed, Feeds, Mark, Position, Reason, Source};

/// A gap that a feed's log was told.
pub(super) type Told = (Arc<Feed>, Reason);

/// The topics of one consumer. Questions go through a client of their own: a broker answers each connection in
/// order, and on the consumer's they would wait behind its fetch.
pub(super) struct Topics {
    asker: Consumer,
    cluster: Option<String>,
    /// How often a topic was seen to be created anew.
    generations: HashMap<Arc<str>, u32>,
    read: HashMap<Arc<str>, Topic>,
    /// Wanted, but not yet read: unknown to the cluster, or not yet asked for.
    waiting: HashMap<Arc<str>, Waiting>,
}

/// A topic that could not be begun yet.
struct Waiting {
    feeds: Vec<Arc<Feed>>,
    again: Instant,
    pause: Duration,
    /// What was in the way the last time.
    trouble: Option<String>,
    /// Whether it was read before and then was gone.
    was_gone: bool,
}

/// A topic that is read.
struct Topic {
    feeds: Vec<Arc<Feed>>,
    /// The next offset of each partition that is assigned.
    next: Position,
    /// Before then the topic's ends are not asked for again, whatever ids clients bring.
    ends_again: Instant,
}

/// What a partition holds at present: from the low watermark up to, not including, the high one.
type Watermarks = (u64, u64);

impl Topics {
    /// No topics yet.
    pub(super) fn new(asker: Consumer, cluster: Option<String>) -> Self {
        Self { asker, cluster, generations: HashMap::new(), read: HashMap::new(), waiting: HashMap::new() }
    }

    /// The client for questions.
    pub(super) fn asker(&self) -> &Consumer {
        &self.asker
    }

    /// Follows the wanted set: forgets what is no longer wanted, and notes what is to be begun.
    pub(super) fn follow(&mut self, consumer: &Consumer, wanted: Feeds) -> Result<(), KafkaError> {
        let mut wanted: HashMap<Arc<str>, Vec<Arc<Feed>>> = wanted
            .into_iter()
            .filter_map(|(source, feeds)| match source {
                Source::Topic(topic) => Some((topic, feeds)),
                _ => None,
            })
            .collect();
        for (name, topic) in self.read.extract_if(|name, _| !wanted.contains_key(name)) {
            consumer.incremental_unassign(&topic.partitions(&name))?;
        }
        for (name, topic) in &mut self.read {
            topic.feeds = wanted.remove(name).unwrap_or_default();
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

    /// The name of any topic that is wanted.
    pub(super) fn any(&self) -> Option<&Arc<str>> {
        self.read.keys().chain(self.waiting.keys()).next()
    }

    /// Notes that a record was handed over.
    pub(super) fn advance(&mut self, topic: &str, mark: Mark) {
        if let Some(topic) = self.read.get_mut(topic) {
            topic.next.advance(mark);
        }
    }

    /// Opens the logs of feeds that joined a topic which is read already: at the place where it is read.
    pub(super) fn open_joined(&self) {
        for (name, topic) in &self.read {
            for feed in topic.feeds.iter().filter(|feed| feed.log.position().is_none()) {
                feed.log.open(self.codec(name), topic.next.clone());
            }
        }
    }

    fn codec(&self, topic: &Arc<str>) -> Arc<TopicCodec> {
        let generation = self.generations.get(topic).copied().unwrap_or(0);
        Arc::new(TopicCodec::new(self.cluster.as_deref(), topic, generation))
    }

    /// Tries to begin the topics whose turn it is, a few at a time, since reading waits meanwhile. Returns what is
    /// newly in the way, in words, and the gaps that were told.
    pub(super) fn begin_waiting(&mut self, consumer: &Consumer) -> (Vec<String>, Vec<Told>) {
        let now = Instant::now();
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.again <= now);
        let due: Vec<_> = due.map(|(name, _)| Arc::clone(name)).take(BEGIN_AT_ONCE).collect();
        let (mut troubles, mut told) = (Vec::new(), Vec::new());
        for name in due {
            let Some(mut waiting) = self.waiting.remove(&name) else { continue };
            match self.begin(consumer, &name, &waiting) {
                Ok(gaps) => told.extend(gaps),
                Err(error) => {
                    troubles.extend(waiting.put_off(format!("topic {name} cannot be read: {error}")));
                    self.waiting.insert(name, waiting);
                }
            }
        }
        (troubles, told)
    }

    /// Begins to read a topic: at the end where a log is new, and where a log stands that was fed by an earlier
    /// session.
    fn begin(
        &mut self,
        consumer: &Consumer,
        name: &Arc<str>,
        waiting: &Waiting,
    ) -> Result<Vec<Told>, KafkaError> {
        let count = count_partitions(&self.asker, name)?;
        let watermarks = watermarks(&self.asker, name, count)?;
        let ends = Position::new(watermarks.iter().map(|(_, high)| *high).collect());
        let open: Vec<_> = waiting.feeds.iter().filter_map(|feed| feed.log.position()).collect();
        let start = |partition: u32| {
            open.iter().map(|position| position.next(partition)).min().unwrap_or(ends.next(partition))
        };
        let next = Position::new((0..count as u32).map(start).collect());
        let mut topic = Topic { feeds: waiting.feeds.clone(), next, ends_again: Instant::now() };
        let told = self.mend_topic(name, &mut topic, &watermarks, waiting.was_gone && !open.is_empty());
        consumer.incremental_assign(&topic.partitions(name))?;
        for feed in &topic.feeds {
            feed.log.open(self.codec(name), ends.clone());
        }
        self.read.insert(Arc::clone(name), topic);
        Ok(told)
    }

    /// Looks for partitions that were added, and reads them from offset 0 on; and for topics that are gone, which
    /// then wait to be created anew. Returns what went wrong with the others, in words.
    pub(super) fn look(&mut self, consumer: &Consumer) -> Result<Vec<String>, KafkaError> {
        let (mut troubles, mut gone) = (Vec::new(), Vec::new());
        for (name, topic) in &mut self.read {
            match count_partitions(&self.asker, name) {
                Ok(now) => topic.grow(consumer, name, now)?,
                Err(error) if is_unknown(&error) => gone.push(Arc::clone(name)),
                Err(error) => troubles.push(format!("looking for new partitions of {name} failed: {error}")),
            }
        }
        for name in gone {
            let Some(topic) = self.read.remove(&name) else { continue };
            consumer.incremental_unassign(&topic.partitions(&name))?;
            troubles.push(format!("topic {name} is gone; waiting for it to be created again"));
            self.waiting.insert(name, Waiting { feeds: topic.feeds, was_gone: true, ..Waiting::new() });
        }
        Ok(troubles)
    }

    /// Answers the logs that ask where their topic ends, each topic once a second at most. Returns what went
    /// wrong, in words.
    pub(super) fn tell_ends(&mut self) -> Vec<String> {
        let mut troubles = Vec::new();
        let now = Instant::now();
        for (name, topic) in &mut self.read {
            let asking: Vec<_> =
                topic.feeds.iter().filter_map(|feed| Some((feed, feed.log.asks_ends()?))).collect();
            if asking.is_empty() || now < topic.ends_again {
                continue;
            }
            topic.ends_again = now + ENDS_AGAIN;
            match watermarks(&self.asker, name, topic.next.as_slice().len()) {
                Ok(watermarks) => {
                    let ends = Position::new(watermarks.iter().map(|(_, high)| *high).collect());
                    asking.iter().for_each(|(feed, question)| feed.log.tell_ends(*question, ends.clone()));
                }
                Err(error) => troubles.push(format!("asking for the ends of {name} failed: {error}")),
            }
        }
        troubles
    }

    /// An offset was refused, and librdkafka has stopped reading that partition: finds what is no longer there,
    /// tells the gap, and reads everything again from where it stands. What comes twice, the logs leave out.
    pub(super) fn mend(&mut self, consumer: &Consumer) -> Result<Vec<Told>, KafkaError> {
        let mut told = Vec::new();
        for (name, mut topic) in std::mem::take(&mut self.read) {
            consumer.incremental_unassign(&topic.partitions(&name))?;
            // A topic that does not answer is begun again when it does.
            match watermarks(&self.asker, &name, topic.next.as_slice().len()) {
                Ok(watermarks) => {
                    told.extend(self.mend_topic(&name, &mut topic, &watermarks, false));
                    consumer.incremental_assign(&topic.partitions(&name))?;
                    self.read.insert(name, topic);
                }
                Err(error) => {
                    let waiting =
                        Waiting { feeds: topic.feeds, was_gone: is_unknown(&error), ..Waiting::new() };
                    self.waiting.insert(name, waiting);
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
        watermarks: &[Watermarks],
        recreated: bool,
    ) -> Vec<Told> {
        // Offsets never go back in a topic's life: if they do, it was deleted and created again.
        let went_back = (0_u32..).zip(watermarks).any(|(p, (_, high))| topic.next.next(p) > *high);
        if recreated || went_back {
            topic.next = Position::new(watermarks.iter().map(|(low, _)| *low).collect());
            *self.generations.entry(Arc::clone(name)).or_default() += 1;
            let codec = self.codec(name);
            let restart = |feed: &&Arc<Feed>| feed.log.restart(Arc::clone(&codec) as _, topic.next.clone());
            return topic
                .feeds
                .iter()
                .filter(restart)
                .map(|feed| (Arc::clone(feed), Reason::Recreated))
                .collect();
        }
        let mut told = Vec::new();
        for (partition, (low, _)) in (0_u32..).zip(watermarks) {
            if topic.next.next(partition) >= *low {
                continue;
            }
            let mark = Mark { partition, next: *low };
            topic.next.advance(mark);
            for feed in &topic.feeds {
                let gaps = feed.log.append_missing(Reason::Trimmed, mark).gaps;
                told.extend(gaps.into_iter().map(|reason| (Arc::clone(feed), reason)));
            }
        }
        told
    }
}

impl Waiting {
    fn new() -> Self {
        Self {
            feeds: Vec::new(),
            again: Instant::now(),
            pause: BEGIN_AGAIN.0,
            trouble: None,
            was_gone: false,
        }
    }

    /// Returns the trouble if it is news.
    fn put_off(&mut self, trouble: String) -> Option<String> {
        self.again = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(BEGIN_AGAIN.1);
        let news = self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble.clone());
        news.then_some(trouble)
    }
}

impl Topic {
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
        consumer.incremental_assign(&added)?;
        self.next = Position::new((0..now as u32).map(|partition| self.next.next(partition)).collect());
        tracing::info!(topic = %name, from = known, to = now, "partitions were added");
        Ok(())
    }
}

fn count_partitions(asker: &Consumer, name: &str) -> Result<usize, KafkaError> {
    let metadata = asker.fetch_metadata(Some(name), ASK)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let topic = topic.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))?;
    match topic.error() {
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        None => Ok(topic.partitions().len()),
    }
}

fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownPartition | UnknownTopicOrPartition))
}

fn watermarks(consumer: &Consumer, name: &str, partitions: usize) -> Result<Vec<Watermarks>, KafkaError> {
    (0..partitions as i32)
        .map(|partition| consumer.fetch_watermarks(name, partition, ASK))
        .map(|watermarks| watermarks.map(|(low, high)| (low.max(0) as u64, high.max(0) as u64)))
        .collect()
}

/// The wait before a topic that could not be begun is tried again, and the longest one.
const BEGIN_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The most topics that are begun between two polls.
const BEGIN_AT_ONCE: usize = 8;
/// How long a topic's ends are not asked for again.
const ENDS_AGAIN: Duration = Duration::from_secs(1);

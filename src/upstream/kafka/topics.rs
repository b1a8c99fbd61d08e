//! Which topics are read, from where on, and for which feeds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK, Consumer};
use super::id::TopicCodec;
use crate::hub::{Feed, Feeds, Mark, Position, Reason, Source};

/// The topics of one consumer.
#[derive(Default)]
pub(super) struct Topics {
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
}

/// A topic that is read.
struct Topic {
    feeds: Vec<Arc<Feed>>,
    /// The next offset of each partition that is assigned.
    next: Position,
}

/// What a partition holds at present: from the low watermark up to, not including, the high one.
type Watermarks = (u64, u64);

impl Topics {
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
    pub(super) fn open_joined(&self, cluster: Option<&str>) {
        for (name, topic) in &self.read {
            for feed in topic.feeds.iter().filter(|feed| feed.log.position().is_none()) {
                feed.log.open(Arc::new(TopicCodec::new(cluster, name)), topic.next.clone());
            }
        }
    }

    /// Tries to begin the topics whose turn it is, a few at a time, since reading waits meanwhile. Returns what
    /// is newly in the way, in words.
    pub(super) fn begin_waiting(&mut self, consumer: &Consumer, cluster: Option<&str>) -> Vec<String> {
        let now = Instant::now();
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.again <= now);
        let due: Vec<_> = due.map(|(name, _)| Arc::clone(name)).take(BEGIN_AT_ONCE).collect();
        let mut troubles = Vec::new();
        for name in due {
            let Some(mut waiting) = self.waiting.remove(&name) else { continue };
            match begin(consumer, cluster, &name, &waiting.feeds) {
                Ok(next) => {
                    self.read.insert(name, Topic { feeds: waiting.feeds, next });
                }
                Err(error) => {
                    troubles.extend(waiting.put_off(format!("topic {name} cannot be read: {error}")));
                    self.waiting.insert(name, waiting);
                }
            }
        }
        troubles
    }

    /// Looks for partitions that were added, and reads them from offset 0 on.
    pub(super) fn find_new_partitions(&mut self, consumer: &Consumer) -> Result<(), KafkaError> {
        for (name, topic) in &mut self.read {
            let (known, now) = (topic.next.as_slice().len(), count_partitions(consumer, name)?);
            if now > known {
                let mut added = TopicPartitionList::new();
                for partition in known..now {
                    added.add_partition_offset(name, partition as i32, Offset::Offset(0))?;
                }
                consumer.incremental_assign(&added)?;
                topic.next =
                    Position::new((0..now as u32).map(|partition| topic.next.next(partition)).collect());
                tracing::info!(topic = %name, from = known, to = now, "partitions were added");
            }
        }
        Ok(())
    }

    /// Answers the logs that ask where their topic ends.
    pub(super) fn tell_ends(&self, consumer: &Consumer) -> Result<(), KafkaError> {
        for (name, topic) in &self.read {
            for feed in &topic.feeds {
                if let Some(question) = feed.log.asks_ends() {
                    let watermarks = watermarks(consumer, name, topic.next.as_slice().len())?;
                    feed.log.tell_ends(
                        question,
                        Position::new(watermarks.iter().map(|(_, high)| *high).collect()),
                    );
                }
            }
        }
        Ok(())
    }

    /// An offset was refused: finds the partitions whose next offset is no longer there, tells the gap, and
    /// goes on with what is left.
    pub(super) fn mend(&mut self, consumer: &Consumer) -> Result<Vec<(Arc<Feed>, Reason)>, KafkaError> {
        let mut gaps = Vec::new();
        for (name, topic) in &mut self.read {
            let watermarks = watermarks(consumer, name, topic.next.as_slice().len())?;
            let Some(reason) = mend_topic(topic, &watermarks) else { continue };
            gaps.extend(topic.feeds.iter().map(|feed| (Arc::clone(feed), reason)));
            consumer.incremental_unassign(&topic.partitions(name))?;
            consumer.incremental_assign(&topic.partitions(name))?;
        }
        Ok(gaps)
    }
}

impl Waiting {
    fn new() -> Self {
        Self { feeds: Vec::new(), again: Instant::now(), pause: BEGIN_AGAIN.0, trouble: None }
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
        partitions(name, &self.next)
    }
}

fn partitions(name: &str, next: &Position) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, &offset) in next.as_slice().iter().enumerate() {
        let added = list.add_partition_offset(name, partition as i32, Offset::Offset(offset as i64));
        added.expect("offsets come from Kafka or from ids, which are checked");
    }
    list
}

/// Begins to read a topic: at the end where a log is new, and where a log stands that was fed by an earlier
/// session.
fn begin(
    consumer: &Consumer,
    cluster: Option<&str>,
    name: &Arc<str>,
    feeds: &[Arc<Feed>],
) -> Result<Position, KafkaError> {
    let count = count_partitions(consumer, name)?;
    let watermarks = watermarks(consumer, name, count)?;
    let ends = Position::new(watermarks.iter().map(|(_, high)| *high).collect());
    let open: Vec<_> = feeds.iter().filter_map(|feed| feed.log.position()).collect();
    let start = |partition: u32| {
        open.iter().map(|position| position.next(partition)).min().unwrap_or(ends.next(partition))
    };
    let mut topic =
        Topic { feeds: feeds.to_vec(), next: Position::new((0..count as u32).map(start).collect()) };
    mend_topic(&mut topic, &watermarks);
    consumer.incremental_assign(&topic.partitions(name))?;
    for feed in feeds {
        feed.log.open(Arc::new(TopicCodec::new(cluster, name)), ends.clone());
    }
    Ok(topic.next)
}

/// Moves a topic to where it can be read, and tells its logs what is gone. `None` if nothing is.
fn mend_topic(topic: &mut Topic, watermarks: &[Watermarks]) -> Option<Reason> {
    let next = |partition: usize| topic.next.next(partition as u32);
    if watermarks.iter().enumerate().any(|(partition, (_, high))| next(partition) > *high) {
        // Offsets never go back in a topic's life: it was deleted and created again.
        topic.next = Position::new(watermarks.iter().map(|(low, _)| *low).collect());
        topic.feeds.iter().for_each(|feed| feed.log.restart(topic.next.clone()));
        return Some(Reason::Recreated);
    }
    let trimmed: Vec<_> = (0_u32..)
        .zip(watermarks)
        .filter(|(partition, (low, _))| topic.next.next(*partition) < *low)
        .map(|(partition, (low, _))| Mark { partition, next: *low })
        .collect();
    for &mark in &trimmed {
        topic.next.advance(mark);
        topic.feeds.iter().for_each(|feed| drop(feed.log.append_missing(Reason::Trimmed, mark)));
    }
    (!trimmed.is_empty()).then_some(Reason::Trimmed)
}

fn count_partitions(consumer: &Consumer, name: &str) -> Result<usize, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(name), ASK)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    match topic.and_then(|topic| topic.error()) {
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        None => Ok(topic.map_or(0, |topic| topic.partitions().len())),
    }
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

//! Consumers for reading history: as many as there are reads at a time, made when they are needed. Each goes on where
//! it left off, if that is asked for, with what it has fetched ahead. Blocking; see [`super::history`].

use std::iter::once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::asker::Asker;
use super::client::{self, ASK, Consumer};
use super::offsets::{self, Bounds};
use super::proof::{Out, Proof};
use super::record::Message;
use super::topic_id::TopicId;
use super::topics;
use crate::config;
use crate::history::{End, Unreadable};
use crate::hub::{Position, Segment, SegmentDraft};
use crate::schema::Pins;
use crate::shape::{Record as _, Shape};
use crate::upstream::Broken;
use crate::upstream::schemas;

/// The idle consumers of one cluster.
pub(super) struct Slots {
    config: Mutex<config::Kafka>,
    idle: Mutex<Vec<Slot>>,
    /// The client for the questions of all, while there is a slot.
    asker: Mutex<Weak<Asker>>,
    /// How often all were to be made anew.
    generation: AtomicU32,
}

/// A consumer, and where it would go on.
pub(super) struct Slot {
    consumer: Consumer,
    asker: Arc<Asker>,
    at: Option<Place>,
    used: Instant,
    generation: u32,
}

/// A place in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub topic: Arc<str>,
    pub partition: u32,
    /// The offset to read next.
    pub next: u64,
}

impl Slots {
    /// None so far.
    pub(super) fn new(config: &config::Kafka) -> Arc<Self> {
        let (config, generation) = (Mutex::new(config.clone()), AtomicU32::new(0));
        Arc::new(Self { config, idle: Mutex::default(), asker: Mutex::default(), generation })
    }

    /// From now on consumers are made so.
    pub(super) fn configure(&self, config: &config::Kafka) {
        *self.config.lock() = config.clone();
        self.renew();
    }

    /// Does something with a slot, on a thread that may block; with the one that stands at `place`, if there is one.
    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        place: Option<Place>,
        job: impl FnOnce(&mut Slot) -> Result<T, Unreadable> + Send + 'static,
    ) -> Result<T, Unreadable> {
        let slots = Arc::clone(self);
        let work = move || {
            let mut slot = slots.take(place.as_ref())?;
            client::serve(slot.asker.client());
            let result = job(&mut slot);
            slot.used = Instant::now();
            if slot.generation == slots.generation() {
                slots.idle.lock().push(slot);
            } else {
                client::let_go(slot);
            }
            result
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(panic) => Err(Unreadable(format!("a defect in ssegate: {panic}"))),
        }
    }

    /// One that stands at the place, or nowhere; if there is none, the one that nobody has gone on with for the longest.
    fn take(&self, place: Option<&Place>) -> Result<Slot, Unreadable> {
        let generation = self.generation();
        let mut idle = self.idle.lock();
        let stands = |at: Option<&Place>| idle.iter().position(|slot| slot.at.as_ref() == at);
        let fitting = stands(place).or_else(|| stands(None)).or((!idle.is_empty()).then_some(0));
        if let Some(at) = fitting {
            return Ok(idle.remove(at));
        }
        drop(idle);
        let asker = self.asker().map_err(unreadable)?;
        let config = self.config.lock().clone();
        let consumer = client::history_consumer(&config).map_err(unreadable)?;
        Ok(Slot { consumer, asker, at: None, used: Instant::now(), generation })
    }

    fn asker(&self) -> Result<Arc<Asker>, Broken> {
        let mut asker = self.asker.lock();
        if let Some(asker) = asker.upgrade() {
            return Ok(asker);
        }
        let new = Arc::new(Asker::new(&self.config.lock().clone())?);
        *asker = Arc::downgrade(&new);
        Ok(new)
    }

    /// Lets go of consumers that were not needed for a while.
    pub(super) fn let_go(&self) {
        let old: Vec<_> = self.idle.lock().extract_if(.., |slot| slot.used.elapsed() > UNUSED).collect();
        if !old.is_empty() {
            client::let_go(old);
        }
    }

    /// A topic was created anew: consumers that knew the old one are of no more use, see [`client::let_go`].
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        *self.asker.lock() = Weak::new();
        client::let_go(std::mem::take(&mut *self.idle.lock()));
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }
}

impl Slot {
    /// Its client for questions.
    pub(super) fn asker(&self) -> &Consumer {
        self.asker.client()
    }

    /// Fails unless the topic of this name has this id.
    pub(super) fn is_still(&self, topic: &Arc<str>, id: Option<TopicId>) -> Result<(), Unreadable> {
        Proof::ask(&self.asker, (topic, id))?.wait()
    }

    /// Reads as [`Reader::read`](crate::history::Reader::read) is to. What is handed over is of the topic that has this id.
    pub(super) fn read(
        &mut self,
        (topic, id): (&Arc<str>, Option<TopicId>),
        partitions: usize,
        mut draft: SegmentDraft,
        until: u64,
        hand_over: impl FnMut(Segment) -> bool,
    ) -> Result<End, Unreadable> {
        let (partition, from) = (draft.partition(), draft.at().major);
        let place = |next| Place { topic: Arc::clone(topic), partition, next };
        let stands = self.at.take().is_some_and(|at| at == place(from));
        tracing::debug!(topic = &**topic, partition, from, until, stands, "reading history");
        if !stands {
            self.seek(topic, partition, from)?;
        }
        let asker = Arc::clone(&self.asker);
        let mut out = Out::new(&asker, (topic, id), hand_over);
        let (mut last, mut sure) = (Instant::now(), false);
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if !is_of(&message, topic, partition, from) => {}
                Some(Ok(message)) if message.offset() as u64 >= until => {
                    // Of no use to a read that goes on here: it would lack what was just taken.
                    out.last(draft.finish(until.into()))?;
                    return Ok(End::Read);
                }
                Some(Ok(message)) => {
                    last = Instant::now();
                    let next = message.offset() as u64 + 1;
                    let _pins = have_schema(draft.shape(), Message(&message), topic)?;
                    draft.push(next.into(), &Message(&message));
                    if !draft.is_full() && next < until {
                        continue;
                    }
                    if next >= until || !out.go_on(draft.close())? {
                        // A draft that has just been closed has nothing to tell.
                        out.last(draft.finish(next.into()))?;
                        self.at = Some(place(next));
                        return Ok(End::Read);
                    }
                }
                // The end before which this was fetched may lie before `until`: it was ahead of its time, or of a leader
                // that has yet to learn what the one before it had shown.
                Some(Err(KafkaError::PartitionEOF(of))) if of == partition as i32 && !sure => {
                    if self.bounds(topic, partitions)?.high.next(partition) < until {
                        return Err(Unreadable(format!(
                            "topic {topic} ends before {until} in partition {partition}"
                        )));
                    }
                    sure = true;
                    self.seek(topic, partition, draft.at().major)?;
                }
                // There is nothing but holes up to `until`.
                Some(Err(KafkaError::PartitionEOF(of))) if of == partition as i32 => {
                    out.last(draft.finish(until.into()))?;
                    self.at = Some(place(until));
                    return Ok(End::Read);
                }
                Some(Err(error)) if is_out_of_range(&error) => {
                    let end = self.out_of_range(topic, partition, partitions, draft.at().major)?;
                    out.last(draft.close())?;
                    return Ok(end);
                }
                Some(Err(error)) if topics::is_unknown(&error) => {
                    return Err(Unreadable(format!("reading the history of topic {topic} failed: {error}")));
                }
                None => out.prove()?,
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => tracing::debug!(%error, "while reading history"),
            }
            if last.elapsed() > SLOW {
                let why = self.consumer.context().news().error;
                let why = why.unwrap_or_else(|| format!("nothing came within {SLOW:?}"));
                return Err(Unreadable(format!("reading the history of topic {topic} failed: {why}")));
            }
        }
    }

    /// When the first record of each of these partitions was published, where it has one that consumers may see; `low` is
    /// where they begin.
    pub(super) fn first_times(
        &mut self,
        topic: &Arc<str>,
        low: &Position,
        mut partitions: Vec<u32>,
    ) -> Result<Vec<(u32, SystemTime)>, Unreadable> {
        self.at = None;
        self.assign(topic, partitions.iter().map(|&partition| (partition, low.next(partition))))?;
        let (mut times, mut last) = (Vec::new(), Instant::now());
        while !partitions.is_empty() {
            let of = match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let partition = message.partition() as u32;
                    let is_first = partitions.contains(&partition)
                        && is_of(&message, topic, partition, low.next(partition));
                    if is_first {
                        times.extend(Message(&message).timestamp().map(|time| (partition, time)));
                    }
                    is_first.then_some(partition)
                }
                // There is none that consumers may see.
                Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition as u32),
                Some(Err(error)) if is_out_of_range(&error) => {
                    return Err(Unreadable(format!("topic {topic} was trimmed just now")));
                }
                Some(Err(_)) | None => None,
            };
            if let Some(at) = of.and_then(|of| partitions.iter().position(|&partition| partition == of)) {
                partitions.swap_remove(at);
                last = Instant::now();
            }
            if last.elapsed() > SLOW {
                return Err(Unreadable(format!("reading the first records of topic {topic} took too long")));
            }
        }
        // What follows is not wanted.
        self.assign(topic, [])?;
        Ok(times)
    }

    fn seek(&mut self, topic: &Arc<str>, partition: u32, from: u64) -> Result<(), Unreadable> {
        self.assign(topic, [(partition, from)])
    }

    fn assign(
        &mut self,
        topic: &Arc<str>,
        places: impl IntoIterator<Item = (u32, u64)>,
    ) -> Result<(), Unreadable> {
        self.consumer.context().clear();
        let mut list = TopicPartitionList::new();
        let mut places = places.into_iter();
        let added = places.try_for_each(|(partition, from)| {
            list.add_partition_offset(topic, partition as i32, Offset::Offset(from as i64))
        });
        added
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| Unreadable(format!("reading the history of topic {topic} failed: {error}")))
    }

    /// As the consumer's own view of the cluster has them: what it did not find is judged by them.
    fn bounds(&self, topic: &str, partitions: usize) -> Result<Bounds, Unreadable> {
        let bounds = offsets::bounds(&self.consumer, topic, partitions, ASK);
        bounds.map_err(|error| Unreadable(format!("asking for the ends of topic {topic} failed: {error}")))
    }

    fn out_of_range(
        &self,
        topic: &str,
        partition: u32,
        partitions: usize,
        from: u64,
    ) -> Result<End, Unreadable> {
        let low = self.bounds(topic, partitions)?.low;
        if low.next(partition) > from {
            return Ok(End::Trimmed(low.at(partition)));
        }
        Err(Unreadable(format!("topic {topic} has no offset {from} in partition {partition}")))
    }
}

/// Keeps at hand what a record is decoded by. Waits for it a little; where that does not do, whoever wants it comes back, and
/// meanwhile the slot is another's.
fn have_schema(shape: &Shape, message: Message<'_>, topic: &str) -> Result<Pins, Unreadable> {
    let ready = schemas::look(once(shape), once(message));
    if ready.missing.is_empty() {
        return Ok(ready.pins);
    }
    let have = Handle::current().block_on(schemas::have(once(shape), once(message)));
    have.map_err(|why| Unreadable(format!("reading the history of topic {topic} failed: {why}")))
}

fn unreadable(broken: Broken) -> Unreadable {
    Unreadable(broken.to_string())
}

fn is_of(message: &BorrowedMessage<'_>, topic: &str, partition: u32, from: u64) -> bool {
    message.partition() == partition as i32 && message.offset() as u64 >= from && message.topic() == topic
}

fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
}

/// How long a poll waits.
const POLL: Duration = Duration::from_millis(100);
/// How long a read may bring nothing.
const SLOW: Duration = Duration::from_secs(10);
/// How long a consumer is kept that nobody needs; it goes on asking for what follows its place.
const UNUSED: Duration = Duration::from_secs(15);

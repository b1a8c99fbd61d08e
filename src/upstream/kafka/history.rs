//! The history of a topic: what Kafka's retention still holds, read by the cluster's slots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rdkafka::error::KafkaError;

use super::client::ASK;
use super::known::Facts;
use super::offsets::{self, Bounds};
use super::slots::{Place, Slot, Slots};
use super::topic_id::TopicId;
use super::topics::count_partitions;
use crate::history::{End, Reader, Unreadable};
use crate::hub::{Answer, Mark, Offset, Position, Question, Segment, SegmentDraft};

/// Reads one topic.
pub(super) struct TopicReader {
    slots: Arc<Slots>,
    topic: Arc<str>,
    facts: Arc<Facts>,
    /// The id of the topic that its log has read, where brokers tell it. Another of the same name is none of its history,
    /// and is not read before the log has begun anew.
    id: Mutex<Option<TopicId>>,
    firsts: Arc<Firsts>,
}

/// Where partitions begin, and when their first record was published.
type Firsts = Mutex<HashMap<u32, (Offset, SystemTime)>>;

impl TopicReader {
    /// For a topic of which this is known.
    pub(super) fn new(slots: &Arc<Slots>, topic: &Arc<str>, facts: &Arc<Facts>) -> Self {
        let id = Mutex::new(facts.incarnation().id);
        let (slots, topic, facts) = (Arc::clone(slots), Arc::clone(topic), Arc::clone(facts));
        Self { slots, topic, facts, id, firsts: Arc::default() }
    }
}

impl Reader for TopicReader {
    const COUNTS: bool = true;

    fn begins_anew(&self) {
        *self.id.lock() = self.facts.incarnation().id;
        self.firsts.lock().clear();
    }

    async fn answer(&self, question: Question) -> Result<Answer, Unreadable> {
        let (topic, id, firsts) = (Arc::clone(&self.topic), *self.id.lock(), Arc::clone(&self.firsts));
        let ask = move |slot: &mut Slot| {
            let answer = answer(slot, &topic, question, &firsts)?;
            slot.is_still(&topic, id)?;
            Ok(answer)
        };
        self.slots.with(None, ask).await
    }

    async fn read(
        &self,
        draft: SegmentDraft,
        until: Offset,
        hand_over: impl FnMut(Segment) -> bool + Send + 'static,
    ) -> Result<End, Unreadable> {
        let (topic, id, partitions) = (Arc::clone(&self.topic), *self.id.lock(), self.facts.partitions());
        let place = Place { topic: Arc::clone(&topic), partition: draft.partition(), next: draft.at().major };
        let read = move |slot: &mut Slot| slot.read((&topic, id), partitions, draft, until.major, hand_over);
        self.slots.with(Some(place), read).await
    }
}

fn answer(
    slot: &mut Slot,
    topic: &Arc<str>,
    question: Question,
    firsts: &Firsts,
) -> Result<Answer, Unreadable> {
    let (asker, failed) = (slot.asker(), |error: KafkaError| {
        Unreadable(format!("asking for the offsets of topic {topic} failed: {error}"))
    });
    // There may be more by now than the log knows, and a replica may have told ids with them.
    let partitions = count_partitions(asker, topic).map_err(failed)?;
    let bounds = offsets::bounds(asker, topic, partitions, ASK).map_err(failed)?;
    let from = match question {
        Question::Bounds => bounds.low.clone(),
        Question::At(time) => {
            let found = offsets::at(asker, topic, partitions, time, &bounds.high, ASK).map_err(failed)?;
            with_what_is_hidden(slot, topic, time, &bounds, found, firsts)?
        }
    };
    Ok(Answer { from, oldest: bounds.low, end: bounds.high, born: None })
}

/// A broker looks for a time in the first segment that goes beyond it, and finds nothing where that was deleted by offset
/// and is about to go, however much there is after it. So where it finds nothing, the first record tells; it is read once.
/// Where none may be seen, as all that is left was aborted, none is too old.
fn with_what_is_hidden(
    slot: &mut Slot,
    topic: &Arc<str>,
    time: SystemTime,
    bounds: &Bounds,
    mut found: Position,
    firsts: &Firsts,
) -> Result<Position, Unreadable> {
    let hidden = |&partition: &u32| found.next(partition) >= bounds.high.next(partition);
    let unsure: Vec<_> = bounds.low.behind(&bounds.high).filter(hidden).collect();
    let known = |partition: u32| {
        let first = firsts.lock().get(&partition).copied();
        first.filter(|(low, _)| *low == bounds.low.at(partition)).map(|(_, time)| time)
    };
    let unknown: Vec<_> = unsure.iter().copied().filter(|&partition| known(partition).is_none()).collect();
    if !unknown.is_empty() {
        for (partition, time) in slot.first_times(topic, &bounds.low, unknown)? {
            firsts.lock().insert(partition, (bounds.low.at(partition), time));
        }
    }
    for partition in
        unsure.into_iter().filter(|&partition| known(partition).is_none_or(|first| first >= time))
    {
        found.put(Mark { partition, next: bounds.low.at(partition) });
    }
    Ok(found)
}

//! The history of a topic: what Kafka's retention still holds, read by the cluster's slots.

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
}

impl TopicReader {
    /// For a topic of which this is known.
    pub(super) fn new(slots: &Arc<Slots>, topic: &Arc<str>, facts: &Arc<Facts>) -> Self {
        let id = Mutex::new(facts.incarnation().id);
        Self { slots: Arc::clone(slots), topic: Arc::clone(topic), facts: Arc::clone(facts), id }
    }
}

impl Reader for TopicReader {
    const COUNTS: bool = true;

    fn begins_anew(&self) {
        *self.id.lock() = self.facts.incarnation().id;
    }

    async fn answer(&self, question: Question) -> Result<Answer, Unreadable> {
        let (topic, id) = (Arc::clone(&self.topic), *self.id.lock());
        let ask = move |slot: &mut Slot| {
            let answer = answer(slot, &topic, question)?;
            slot.is_still(&topic, id)?;
            Ok(answer)
        };
        self.slots.with(None, ask).await
    }

    async fn read(
        &self,
        draft: SegmentDraft,
        until: Offset,
        hand_over: impl FnMut(Segment) -> Option<SegmentDraft> + Send + 'static,
    ) -> Result<End, Unreadable> {
        let (topic, id, partitions) = (Arc::clone(&self.topic), *self.id.lock(), self.facts.partitions());
        let place = Place { topic: Arc::clone(&topic), partition: draft.partition(), next: draft.at().major };
        let read = move |slot: &mut Slot| slot.read((&topic, id), partitions, draft, until.major, hand_over);
        self.slots.with(Some(place), read).await
    }
}

fn answer(slot: &mut Slot, topic: &Arc<str>, question: Question) -> Result<Answer, Unreadable> {
    let (client, failed) = (slot.client(), |error: KafkaError| {
        Unreadable(format!("asking for the offsets of topic {topic} failed: {error}"))
    });
    // There may be more by now than the log knows, and a replica may have told ids with them.
    let partitions = count_partitions(client, topic).map_err(failed)?;
    let bounds = offsets::bounds(client, topic, partitions, ASK).map_err(failed)?;
    let from = match question {
        Question::Bounds => bounds.low.clone(),
        Question::At(time) => {
            let found = offsets::at(client, topic, partitions, time, &bounds.high, ASK).map_err(failed)?;
            with_what_is_hidden(slot, topic, time, &bounds, found)?
        }
    };
    Ok(Answer { from, oldest: bounds.low, end: bounds.high, born: None })
}

/// A broker looks for a time in the first segment that goes beyond it, and finds nothing where that was deleted by offset
/// and is about to go, however much there is after it. So where it finds nothing, the first record tells.
fn with_what_is_hidden(
    slot: &mut Slot,
    topic: &Arc<str>,
    time: SystemTime,
    bounds: &Bounds,
    mut found: Position,
) -> Result<Position, Unreadable> {
    let hidden = |&partition: &u32| found.next(partition) >= bounds.high.next(partition);
    let unsure: Vec<_> = bounds.low.behind(&bounds.high).filter(hidden).collect();
    if !unsure.is_empty() {
        for partition in slot.first_since(topic, time, &bounds.low, unsure)? {
            found.put(Mark { partition, next: bounds.low.at(partition) });
        }
    }
    Ok(found)
}

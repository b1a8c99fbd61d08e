//! The history of a topic: what Kafka's retention still holds, read by the cluster's slots.

use std::sync::Arc;

use rdkafka::error::KafkaError;

use super::client::ASK;
use super::known::Facts;
use super::offsets;
use super::slots::{Place, Slot, Slots};
use crate::history::{End, Reader, Unreadable};
use crate::hub::{Answer, Offset, Question, Segment, SegmentDraft};

/// Reads one topic.
pub(super) struct TopicReader {
    slots: Arc<Slots>,
    topic: Arc<str>,
    facts: Arc<Facts>,
}

impl TopicReader {
    /// For a topic of which this is known.
    pub(super) fn new(slots: &Arc<Slots>, topic: &Arc<str>, facts: &Arc<Facts>) -> Self {
        Self { slots: Arc::clone(slots), topic: Arc::clone(topic), facts: Arc::clone(facts) }
    }
}

impl Reader for TopicReader {
    const COUNTS: bool = true;

    async fn answer(&self, question: Question) -> Result<Answer, Unreadable> {
        let (topic, partitions) = (Arc::clone(&self.topic), self.facts.partitions());
        let ask = move |client: &_| -> Result<Answer, KafkaError> {
            let bounds = offsets::bounds(client, &topic, partitions, ASK)?;
            let from = match question {
                Question::At(time) => offsets::at(client, &topic, partitions, time, &bounds.high, ASK)?,
                Question::Bounds => bounds.low.clone(),
            };
            Ok(Answer { from, oldest: bounds.low, end: bounds.high, born: None })
        };
        let topic = Arc::clone(&self.topic);
        let asked = self.slots.with(None, move |slot| {
            ask(slot.client()).map_err(|error| {
                Unreadable(format!("asking for the offsets of topic {topic} failed: {error}"))
            })
        });
        asked.await
    }

    async fn read(
        &self,
        draft: SegmentDraft,
        until: Offset,
        hand_over: impl FnMut(Segment) -> Option<SegmentDraft> + Send + 'static,
    ) -> Result<End, Unreadable> {
        let (topic, partitions) = (Arc::clone(&self.topic), self.facts.partitions());
        let place = Place { topic: Arc::clone(&topic), partition: draft.partition(), next: draft.at().major };
        let read = move |slot: &mut Slot| slot.read(&topic, partitions, draft, until.major, hand_over);
        self.slots.with(Some(place), read).await
    }
}

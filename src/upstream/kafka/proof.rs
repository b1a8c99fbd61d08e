//! That what was read of a topic is of the right one: a topic that is deleted and created again has the same name, and
//! offsets that may look alike. Blocking.

use std::sync::Arc;

use rdkafka::error::KafkaError;

use super::asker::Asker;
use super::topic_id::{Asked, TopicId};
use crate::history::Unreadable;
use crate::hub::Segment;

/// The name of a topic, and the id that it is to have, where brokers tell it.
pub(super) type Of<'s> = (&'s Arc<str>, Option<TopicId>);

/// Segments on their way out: each is handed over once it is known that its topic is the right one still. The answer to
/// that comes while the next is read.
pub(super) struct Out<'s, F> {
    asker: &'s Asker,
    of: Of<'s>,
    hand_over: F,
    waiting: Option<(Segment, Proof<'s>)>,
    /// Whether no more is wanted.
    enough: bool,
}

impl<'s, F: FnMut(Segment) -> bool> Out<'s, F> {
    /// Nothing so far, of this topic.
    pub(super) fn new(asker: &'s Asker, of: Of<'s>, hand_over: F) -> Self {
        Self { asker, of, hand_over, waiting: None, enough: false }
    }

    /// The next, after which there may be others; whether there should be.
    pub(super) fn go_on(&mut self, segment: Segment) -> Result<bool, Unreadable> {
        let proof = Proof::ask(self.asker, self.of)?;
        self.prove()?;
        self.waiting = Some((segment, proof));
        Ok(!self.enough)
    }

    /// The last, unless there is nothing in it.
    pub(super) fn last(mut self, segment: Segment) -> Result<(), Unreadable> {
        if segment.to > segment.from {
            self.go_on(segment)?;
        }
        self.prove()
    }

    /// Hands over what waits.
    pub(super) fn prove(&mut self) -> Result<(), Unreadable> {
        let Some((segment, proof)) = self.waiting.take() else { return Ok(()) };
        proof.wait()?;
        self.enough |= !(self.hand_over)(segment);
        Ok(())
    }
}

/// The question whether the topic of a name has an id still: then all that came before it is of no later topic. A broker
/// that does not tell any more is believed; so is one that has yet to learn of a change.
pub(super) struct Proof<'s> {
    asker: &'s Asker,
    of: Of<'s>,
    asked: Option<Asked>,
}

impl<'s> Proof<'s> {
    /// Sends the question.
    pub(super) fn ask(asker: &'s Asker, of: Of<'s>) -> Result<Self, Unreadable> {
        let (topic, id) = of;
        let asked = id.map(|_| asker.ask_for_id(topic)).transpose();
        Ok(Self { asker, of, asked: asked.map_err(|error| not_told(asker, topic, &error))? })
    }

    /// Waits for the answer, and fails where it is no.
    pub(super) fn wait(self) -> Result<(), Unreadable> {
        let (Some(asked), (topic, id)) = (self.asked, self.of) else { return Ok(()) };
        let now = asked.answers().and_then(|mut answers| answers.remove(&**topic).unwrap_or(Ok(None)));
        let now = now.map_err(|error| not_told(self.asker, topic, &error))?;
        if now.is_some() && now != id {
            return Err(Unreadable(format!("topic {topic} was created anew")));
        }
        Ok(())
    }
}

fn not_told(asker: &Asker, topic: &str, error: &KafkaError) -> Unreadable {
    asker.failed();
    Unreadable(format!("asking for the id of topic {topic} failed: {error}"))
}

//! The client through which the slots of a cluster ask. A broker answers each connection in order, and on a consumer's own
//! questions would wait behind what that fetches ahead, which at the end of a partition takes long. Blocking.

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;

use super::client::{self, ASK, Consumer};
use super::topic_id::{self, Asked};
use crate::config;
use crate::upstream::Broken;

/// One for all slots, while there is one.
pub(super) struct Asker {
    client: Consumer,
    /// The broker that has answered last.
    broker: Mutex<Option<i32>>,
}

impl Asker {
    /// Nothing is connected yet.
    pub(super) fn new(config: &config::Kafka) -> Result<Self, Broken> {
        Ok(Self { client: client::asker(config)?, broker: Mutex::default() })
    }

    /// The client.
    pub(super) fn client(&self) -> &Consumer {
        &self.client
    }

    /// Asks for the id of a topic; the answer is waited for once it is needed.
    pub(super) fn ask_for_id(&self, topic: &str) -> Result<Asked, KafkaError> {
        let known = *self.broker.lock();
        let broker = match known {
            Some(broker) => broker,
            None => topic_id::any_broker(self.client.client(), topic, ASK)?,
        };
        *self.broker.lock() = Some(broker);
        topic_id::ask(self.client.client(), &[topic], broker, ASK)
    }

    /// A question failed: the broker that it went to may have left.
    pub(super) fn failed(&self) {
        *self.broker.lock() = None;
    }
}

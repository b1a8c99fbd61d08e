//! Event ids of a stream: its next offset.

use crate::hub::{Decoded, IdCodec, Position};
use crate::upstream::numbered::Tag;

/// `TAG-OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCodec(Tag);

impl OffsetCodec {
    /// The codec of a stream of this name that has begun anew so often, as far as this process knows: AMQP has no way to ask.
    pub fn new(stream: &str, count: u32) -> Self {
        Self(Tag::new(stream, &count.to_string()))
    }
}

impl IdCodec for OffsetCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        self.0.write(position, out);
    }

    fn decode(&self, id: &str) -> Decoded {
        self.0.read(id)
    }

    fn single_order(&self) -> bool {
        true
    }

    /// RabbitMQ gives some offsets to what is none of the messages.
    fn counts(&self) -> bool {
        false
    }
}

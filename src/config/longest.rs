//! How long event ids get: what the ids of several feeds come to together has to fit into a header field. The formats are
//! those of `hub` and `upstream`, which hold their codecs against these figures.

use super::model::{Partitioner, Source};
use super::upstreams::Kind;

impl Source {
    /// The most bytes of an event id of this source, whose upstream is of this kind. For topics of Kafka, which name every
    /// partition, with [`PARTITIONS`].
    pub(super) fn longest_id(&self, kind: Kind) -> usize {
        match self {
            Self::Topic(_) | Self::Keyed { partitioner: Partitioner::Any, .. } => {
                longest_of_topic(PARTITIONS)
            }
            Self::Keyed { .. } => KEY,
            Self::Stream(_) if kind == Kind::Redis => ENTRY,
            Self::Stream(_) | Self::Table { .. } => TAGGED,
            Self::Jetstream { .. } => MESSAGE,
            Self::Path(_) if kind == Kind::Sse => OF_SERVER,
            Self::Channel(_)
            | Self::Pattern(_)
            | Self::ShardChannel(_)
            | Self::Ticker
            | Self::Lines
            | Self::Exchange { .. }
            | Self::Path(_)
            | Self::Subject(_)
            | Self::Filter { .. } => EPOCH,
        }
    }
}

/// The most bytes of an event id of a topic of Kafka with so many partitions: base64 of a version, two hashes, the number of
/// partitions and nine bytes for the offset of each.
pub const fn longest_of_topic(partitions: usize) -> usize {
    let number = if partitions < 128 { 1 } else { 2 };
    ((7 + number + 9 * partitions) * 4).div_ceil(3)
}

/// Partitions of a topic of Kafka for as long as nobody has asked the broker.
pub const PARTITIONS: usize = 12;

/// `epoch-seq`: 16 digits in base 16, and a number of 64 bits.
pub const EPOCH: usize = 16 + 1 + 20;
/// An entry of a Redis stream: two numbers of 64 bits.
pub const ENTRY: usize = 20 + 1 + 20;
/// A table of Postgres, or a stream of RabbitMQ: hashes, and a number of 63 bits.
pub const TAGGED: usize = 8 + 1 + 19;
/// A message of JetStream: hashes, and a number of 64 bits.
pub const MESSAGE: usize = 16 + 1 + 20;
/// A key of a topic of Kafka: base64 of a version, two hashes, the number of partitions, one of them, and its offset.
pub const KEY: usize = ((7 + 5 + 5 + 9) * 4_usize).div_ceil(3);
/// What a server of events may give.
pub const OF_SERVER: usize = 512;

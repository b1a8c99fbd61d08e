//! Questions about offsets, a whole topic at a time: one request to each broker that leads some of its partitions
//! (Kafka's ListOffsets). Blocking.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::Consumer;
use crate::hub::Position;

/// What a topic holds at present.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// The first offset of each partition.
    pub low: Position,
    /// The offset after the last that consumers may see.
    pub high: Position,
}

/// Where a topic begins and ends.
pub(super) fn bounds(
    client: &Consumer,
    topic: &str,
    partitions: usize,
    timeout: Duration,
) -> Result<Bounds, KafkaError> {
    let low = ask(client, topic, partitions, Offset::Beginning, timeout)?;
    let high = ask(client, topic, partitions, Offset::End, timeout)?;
    let position = |offsets: Vec<Option<u64>>| {
        Position::new(offsets.into_iter().map(Option::unwrap_or_default).collect())
    };
    Ok(Bounds { low: position(low), high: position(high) })
}

/// Where what was published at `time` or later begins; `end` where there is nothing.
pub(super) fn at(
    client: &Consumer,
    topic: &str,
    partitions: usize,
    time: SystemTime,
    end: &Position,
    timeout: Duration,
) -> Result<Position, KafkaError> {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let offsets = ask(client, topic, partitions, Offset::Offset(millis as i64), timeout)?;
    let next =
        (0_u32..).zip(offsets).map(|(partition, offset)| offset.unwrap_or_else(|| end.next(partition)));
    Ok(Position::new(next.collect()))
}

/// Offsets by time; the protocol has times of its own for a partition's two ends, which are the numbers that stand for
/// these offsets. `None` where there is nothing at or after it.
fn ask(
    client: &Consumer,
    topic: &str,
    partitions: usize,
    time: Offset,
    timeout: Duration,
) -> Result<Vec<Option<u64>>, KafkaError> {
    let mut times = TopicPartitionList::with_capacity(partitions);
    for partition in 0..partitions as i32 {
        times.add_partition_offset(topic, partition, time)?;
    }
    if partitions == 0 {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    let found = client.offsets_for_times(times, timeout)?;
    let mut offsets = vec![None; partitions];
    for element in found.elements_for_topic(topic) {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets[element.partition() as usize] = Some(offset.max(0) as u64);
        }
    }
    Ok(offsets)
}

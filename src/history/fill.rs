//! What a log begins with: the newest of its source's history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::Instant;

use super::{Part, Reader, Shelf};
use crate::hub::{Offset, Position, Segment};

/// How long a partition may be read in vain before the log begins without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The wait before a read that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// What a log is filled with.
#[derive(Debug)]
pub struct Fill {
    /// The segments, those of a partition in order and without a hole up to the end.
    pub segments: Vec<Segment>,
    /// Where they begin. A partition that could not be read begins at the end.
    pub start: Position,
}

impl Fill {
    /// Nothing, for a log that begins at `end`.
    pub fn none(end: &Position) -> Self {
        Self { segments: Vec::new(), start: end.clone() }
    }
}

/// Reads what lies between two positions, of each partition at most the newest `bytes`, so many partitions at a time.
pub async fn fill<R: Reader>(
    shelf: &Arc<Shelf<R>>,
    from: &Position,
    end: &Position,
    bytes: usize,
    at_a_time: usize,
) -> Fill {
    let partitions: Vec<_> = from.behind(end).collect();
    let read = stream::iter(partitions)
        .map(|partition| async move {
            let segments =
                read_partition(shelf, partition, from.at(partition), end.at(partition), bytes).await;
            (partition, segments)
        })
        .buffer_unordered(at_a_time)
        .collect::<BTreeMap<_, _>>()
        .await;
    let mut start = Vec::from(end.as_slice());
    for (partition, segments) in &read {
        if let Some(first) = segments.first() {
            start[*partition as usize] = first.from.major;
        }
    }
    Fill { segments: read.into_values().flatten().collect(), start: Position::new(start) }
}

async fn read_partition<R: Reader>(
    shelf: &Arc<Shelf<R>>,
    partition: u32,
    from: Offset,
    end: Offset,
    bytes: usize,
) -> Vec<Segment> {
    let (mut segments, mut at, mut size) = (Vec::<Segment>::new(), from, 0);
    let mut progress = Instant::now();
    while at < end {
        match shelf.reader().read(shelf.draft(partition, at), end).await {
            Ok(Part::Segment(segment)) => {
                (at, size, progress) = (segment.to, size + segment.size(), Instant::now());
                segments.push(segment);
            }
            Ok(Part::Trimmed(low)) => {
                (at, size) = (low, 0);
                segments.clear();
            }
            Err(error) if progress.elapsed() > PATIENCE => {
                tracing::warn!(%error, partition, "a log begins without its history");
                return Vec::new();
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
        while segments.len() > 1 && size - segments[0].size() >= bytes {
            size -= segments.remove(0).size();
        }
    }
    segments
}

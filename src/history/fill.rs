//! What a log begins with: the newest of its source's history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{End, Pool, Reader, Shelf, Unreadable};
use crate::hub::{Offset, Position, Segment};

/// For how long a partition may be read and nothing come before the log begins without it.
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

/// Reads what lies between two positions, of each partition at most the newest `bytes`, through the slots of `pool`.
pub async fn fill<R: Reader>(
    pool: &Pool<R>,
    shelf: &Arc<Shelf<R>>,
    from: &Position,
    end: &Position,
    bytes: usize,
) -> Fill {
    let partitions: Vec<_> = from.behind(end).collect();
    let read = stream::iter(partitions)
        .map(|partition| async move {
            let filling = Filling { pool, shelf, partition, end: end.at(partition) };
            (partition, filling.read(from.at(partition), bytes).await)
        })
        .buffer_unordered(pool.slots())
        .collect::<BTreeMap<_, _>>()
        .await;
    let mut start = Vec::from(end.as_slice());
    for (partition, segments) in &read {
        if let Some(first) = segments.front() {
            start[*partition as usize] = first.from.major;
        }
    }
    Fill { segments: read.into_values().flatten().collect(), start: Position::new(start) }
}

/// One partition of a fill.
struct Filling<'f, R> {
    pool: &'f Pool<R>,
    shelf: &'f Arc<Shelf<R>>,
    partition: u32,
    end: Offset,
}

impl<R: Reader> Filling<'_, R> {
    async fn read(&self, from: Offset, bytes: usize) -> VecDeque<Segment> {
        let newest = Arc::new(Mutex::new(Newest::from(from)));
        let mut in_vain = Duration::ZERO;
        loop {
            let at = newest.lock().at;
            if at >= self.end {
                return std::mem::take(&mut newest.lock().segments);
            }
            let slot = self.pool.slot().await;
            let began = Instant::now();
            let read = self.read_on(at, bytes, &newest).await;
            drop(slot);
            self.pool.count(read.is_ok());
            in_vain = match newest.lock().came {
                Some(came) if came >= began => came.elapsed(),
                _ => in_vain + began.elapsed(),
            };
            match read {
                Ok(End::Read) => in_vain = Duration::ZERO,
                Ok(End::Trimmed(low)) => *newest.lock() = Newest::from(low),
                Err(error) if in_vain > PATIENCE => {
                    tracing::warn!(%error, self.partition, "a log begins without its history");
                    return VecDeque::new();
                }
                Err(_) => {
                    tokio::time::sleep(AGAIN).await;
                    in_vain += AGAIN;
                }
            }
        }
    }

    /// One read, as long as those for readers are.
    async fn read_on(
        &self,
        at: Offset,
        bytes: usize,
        newest: &Arc<Mutex<Newest>>,
    ) -> Result<End, Unreadable> {
        let newest = Arc::clone(newest);
        let keep = move |segment| {
            newest.lock().put(segment, bytes);
            true
        };
        self.shelf.read(self.partition, at, self.end, keep).await
    }
}

/// The newest of what was read of a partition.
struct Newest {
    segments: VecDeque<Segment>,
    size: usize,
    /// Where to read on.
    at: Offset,
    /// When something came last.
    came: Option<Instant>,
}

impl Newest {
    fn from(at: Offset) -> Self {
        Self { segments: VecDeque::new(), size: 0, at, came: None }
    }

    /// Takes in what follows, and lets go of the oldest that `bytes` has no room for.
    fn put(&mut self, segment: Segment, bytes: usize) {
        (self.at, self.size) = (segment.to, self.size + segment.size());
        self.came = Some(Instant::now());
        self.segments.push_back(segment);
        while let Some(oldest) = self.segments.front()
            && self.size - oldest.size() >= bytes
        {
            self.size -= oldest.size();
            self.segments.pop_front();
        }
    }
}

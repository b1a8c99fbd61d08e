//! What a log begins with: the newest entries of its stream, read from its end back in bounded answers.

use std::iter::once;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::asker::{Asker, Unanswered};
use super::id;
use super::reply::{self, Entry, Item};
use crate::hub::{Feed, IdCodec, Memory, Offset, Segment, SegmentDraft};
use crate::upstream::pace::Pace;
use crate::upstream::schemas;

/// Where the entries of one feed's stream become segments.
pub(super) struct Filling<'f> {
    pub asker: &'f Asker,
    pub memory: &'f Arc<Memory>,
    pub codec: &'f Arc<dyn IdCodec>,
    pub feed: &'f Feed,
}

impl Filling<'_> {
    /// The segments up to `end`, without a hole and the oldest first, as much as the log is to keep.
    pub(super) async fn read(&self, end: Offset) -> Result<Vec<Segment>, Unanswered> {
        let room = self.feed.log.bounds();
        let oldest = oldest(room.age);
        let (mut pace, mut left, mut bytes) = (Pace::new(), room.events, 0);
        let (mut at, mut segments) = (end, Vec::new());
        while left > 0 && bytes < room.bytes && at > id::BEGIN {
            let count = left.min(pace.count());
            let mut entries = self.asker.range_back(self.feed.key.source.name(), at, count).await?;
            let through = entries.len() < count;
            pace.note(reply::size(&entries));
            let found = entries.len();
            entries.retain(|entry| entry.id.major >= oldest);
            let Some(first) = entries.last() else { break };
            let items = entries.iter().map(|entry| Item { stream: self.feed.key.source.name(), entry });
            let pins = schemas::have(once(&self.feed.key.shape), items).await.map_err(Unanswered::Busy)?;
            let segment = self.segment(id::before(first.id), at, &entries);
            drop(pins);
            (at, left, bytes) = (segment.from, left - entries.len(), bytes + segment.size());
            segments.push(segment);
            if through || entries.len() < found {
                break;
            }
        }
        segments.reverse();
        Ok(segments)
    }

    /// What lies between two places; the newest of `entries` comes first.
    fn segment(&self, from: Offset, to: Offset, entries: &[Entry]) -> Segment {
        let mut draft = SegmentDraft::new(&self.feed.key.shape, self.codec, false, self.memory, 0, from);
        for entry in entries.iter().rev() {
            draft.push(entry.id, &Item { stream: self.feed.key.source.name(), entry });
        }
        draft.finish(to)
    }
}

/// The milliseconds of the epoch before which entries are older than this.
fn oldest(age: std::time::Duration) -> u64 {
    let since = SystemTime::now().checked_sub(age).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

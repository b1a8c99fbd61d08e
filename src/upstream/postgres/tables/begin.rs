//! What the log of a feed begins with: the newest of its rows, read from the end back in bounded answers.

use std::iter::once;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Tables;
use super::history::RowReader;
use super::known::{Asked, Failed, Known, Which};
use super::row::{Item, Row};
use super::{Facts, RowCodec};
use crate::hub::{Feed, IdCodec, Offset, Opening, Position, Rows, Segment, SegmentDraft};
use crate::upstream::pace::Pace;
use crate::upstream::schemas;

/// Opens the log of a feed that is to go on at `end`.
pub(super) async fn open(
    tables: &Tables,
    facts: &Arc<Facts>,
    known: &Arc<Known>,
    asked: Asked<'_>,
    (feed, rows): (&Feed, &Rows),
    end: u64,
) -> Result<(), Failed> {
    let codec: Arc<dyn IdCodec> = Arc::new(RowCodec::new(&rows.table.to_string(), &known.named()));
    let segments = Filling { tables, known, asked, codec: &codec, feed, rows }.read(end).await?;
    let start = segments.first().map_or(Offset::from(end), |first| first.from);
    let reader = RowReader::new(&tables.askers, facts, rows, feed.key.shape.max_event, known);
    let history = tables.pool.shelf(reader, &feed.key, &codec);
    let (start, end) = (Position::single(start), Position::single(Offset::from(end)));
    feed.log.open_filled(Opening { codec, history, segments: &segments, start, end });
    Ok(())
}

struct Filling<'f> {
    tables: &'f Tables,
    known: &'f Known,
    asked: Asked<'f>,
    codec: &'f Arc<dyn IdCodec>,
    feed: &'f Feed,
    rows: &'f Rows,
}

impl Filling<'_> {
    /// The segments up to `end`, without a hole and the oldest first, as much as the log is to keep.
    async fn read(&self, end: u64) -> Result<Vec<Segment>, Failed> {
        let room = self.feed.log.bounds();
        let since = oldest(room.age);
        let (mut pace, mut left, mut bytes) = (Pace::new(), room.events, 0);
        let (mut at, mut segments) = (end, Vec::new());
        while left > 0 && bytes < room.bytes && at > 0 {
            let count = left.min(pace.count());
            let which = Which::Back(at, since, &self.rows.values);
            let read = self.known.read(self.asked, which, count, self.feed.key.shape.max_event).await?;
            pace.note(read.rows.iter().map(Row::size).sum());
            let Some(first) = read.rows.last() else { break };
            let table = self.rows.table.to_string();
            let items = read.rows.iter().map(|row| Item { table: &table, row: Some(row) });
            let shape = once(&self.feed.key.shape);
            let _pins = schemas::have(shape, items).await.map_err(Failed::Waits)?;
            let segment = self.segment(first.id - 1, at, &read.rows);
            (at, left, bytes) = (first.id - 1, left.saturating_sub(read.rows.len()), bytes + segment.size());
            segments.push(segment);
            if !read.more {
                break;
            }
        }
        segments.reverse();
        Ok(segments)
    }

    /// What lies between two places; the newest of `rows` comes first.
    fn segment(&self, from: u64, to: u64, rows: &[Row]) -> Segment {
        let (from, table) = (Offset::from(from), self.rows.table.to_string());
        let mut draft =
            SegmentDraft::new(&self.feed.key.shape, self.codec, false, &self.tables.memory, 0, from);
        for row in rows.iter().rev() {
            draft.push(Offset::from(row.id), &Item { table: &table, row: Some(row) });
        }
        draft.finish(Offset::from(to))
    }
}

/// The milliseconds of the epoch before which rows are older than this.
fn oldest(age: Duration) -> i64 {
    let since = SystemTime::now().checked_sub(age).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

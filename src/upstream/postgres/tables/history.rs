//! The history of a table: the rows that it still holds, for one feed.

use std::iter::once;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Facts;
use super::asker::Askers;
use super::known::{Asked, Bounds, Failed, Known, Which};
use super::row::{Item, Row};
use crate::history::{End, Reader, Unreadable};
use crate::hub::{Answer, Offset, Position, Question, Rows, Segment, SegmentDraft};
use crate::upstream::pace::Pace;
use crate::upstream::{Unanswered, schemas};

/// Reads the rows of one feed.
pub(super) struct RowReader {
    askers: Arc<Askers>,
    facts: Arc<Facts>,
    rows: Rows,
    max_event: usize,
    /// The table that the feed's log has read. Another of the same name is none of its history.
    known: Mutex<Arc<Known>>,
    pace: Mutex<Pace>,
}

impl RowReader {
    pub(super) fn new(
        askers: &Arc<Askers>,
        facts: &Arc<Facts>,
        rows: &Rows,
        max_event: usize,
        known: &Arc<Known>,
    ) -> Self {
        Self {
            askers: Arc::clone(askers),
            facts: Arc::clone(facts),
            rows: rows.clone(),
            max_event,
            known: Mutex::new(Arc::clone(known)),
            pace: Mutex::new(Pace::new()),
        }
    }

    async fn try_answer(
        &self,
        known: &Known,
        asked: Asked<'_>,
        question: Question,
    ) -> Result<Answer, Failed> {
        let bounds = known.bounds(asked).await?;
        let settled = self.facts.settled();
        let oldest = beginning(bounds).min(settled);
        let from = match question {
            Question::At(time) if self.rows.table.time.is_some() => {
                at(known, asked, bounds, time).await?.clamp(oldest, settled)
            }
            // Without times nothing is too old.
            Question::At(_) | Question::Bounds => oldest,
        };
        let place = |id: u64| Position::single(Offset::from(id));
        Ok(Answer { from: place(from), oldest: place(oldest), end: place(bounds.last), born: None })
    }

    async fn try_read(
        &self,
        known: &Known,
        asked: Asked<'_>,
        mut draft: SegmentDraft,
        until: u64,
        hand_over: &mut (impl FnMut(Segment) -> bool + Send),
    ) -> Result<End, Failed> {
        let table = self.rows.table.to_string();
        loop {
            let (at, count) = (draft.at().major, self.pace.lock().count());
            if at >= until {
                break;
            }
            let which = Which::Between(at, until, &self.rows.values);
            let read = known.read(asked, which, count, self.max_event).await?;
            // Of what lies before the first row it cannot be told whether it ever was.
            let beginning = read.first.map_or(until, |first| first.saturating_sub(1).min(until));
            if at < beginning {
                // What was read before it was deleted is good.
                if draft.at() > draft.from() {
                    hand_over(draft.finish(Offset::from(at)));
                }
                return Ok(End::Trimmed(Offset::from(beginning)));
            }
            self.pace.lock().note(read.rows.iter().map(Row::size).sum());
            let items = read.rows.iter().map(|row| Item { table: &table, row: Some(row) });
            let _pins = schemas::have(once(draft.shape()), items).await.map_err(Failed::Waits)?;
            for row in &read.rows {
                draft.push(Offset::from(row.id), &Item { table: &table, row: Some(row) });
            }
            if !read.more {
                break;
            }
            if draft.is_full() && draft.at().major < until && !hand_over(draft.close()) {
                return Ok(End::Read);
            }
        }
        hand_over(draft.finish(Offset::from(until)));
        Ok(End::Read)
    }

    fn unreadable(&self, why: &Failed) -> Unreadable {
        Unreadable(format!("reading the history of table {} failed: {why}", self.rows.table))
    }
}

impl Reader for RowReader {
    /// Ids have holes, and a feed has some of the rows.
    const COUNTS: bool = false;

    fn begins_anew(&self) {
        if let Some(known) = self.facts.known() {
            *self.known.lock() = known;
        }
    }

    async fn answer(&self, question: Question) -> Result<Answer, Unreadable> {
        let known = Arc::clone(&self.known.lock());
        let answer = async {
            let asker = self.askers.take().await.map_err(Unanswered::Broken)?;
            let answer = self.try_answer(&known, asker.asked(), question).await?;
            self.askers.put_back(asker);
            Ok(answer)
        };
        answer.await.map_err(|why| self.unreadable(&why))
    }

    async fn read(
        &self,
        draft: SegmentDraft,
        until: Offset,
        mut hand_over: impl FnMut(Segment) -> bool + Send + 'static,
    ) -> Result<End, Unreadable> {
        let known = Arc::clone(&self.known.lock());
        let read = async {
            let asker = self.askers.take().await.map_err(Unanswered::Broken)?;
            let end = self.try_read(&known, asker.asked(), draft, until.major, &mut hand_over).await;
            if matches!(end, Ok(_) | Err(Failed::Waits(_))) {
                self.askers.put_back(asker);
            }
            end
        };
        read.await.map_err(|why| self.unreadable(&why))
    }
}

/// Where a reader stands whose next row is the first.
fn beginning(bounds: Bounds) -> u64 {
    bounds.first.map_or(bounds.last, |first| first.saturating_sub(1))
}

/// Where a reader stands whose next row is the first that is not older than `time`; rows are as old as their order says.
/// Looks at some rows by their ids, so that times need no index.
async fn at(known: &Known, asked: Asked<'_>, bounds: Bounds, time: SystemTime) -> Result<u64, Failed> {
    let wanted = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let (mut low, mut high) = (bounds.first.unwrap_or(bounds.last), bounds.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match known.time(asked, middle).await? {
            Some((id, Some(time))) if time < wanted => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low.saturating_sub(1))
}

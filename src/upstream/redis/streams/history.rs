//! The history of a stream: what Redis still holds of it.

use std::iter::once;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;

use super::asker::{Asker, Unanswered};
use super::id::{self, BEGIN};
use super::info::Info;
use super::reply::{self, Item};
use crate::history::{End, Reader, Unreadable};
use crate::hub::{Answer, Offset, Position, Question, Segment, SegmentDraft};
use crate::upstream::pace::Pace;
use crate::upstream::schemas;

/// Reads one stream.
pub(super) struct StreamReader {
    asker: Arc<Asker>,
    stream: Arc<str>,
    pace: Mutex<Pace>,
}

impl StreamReader {
    pub(super) fn new(asker: &Arc<Asker>, stream: &Arc<str>) -> Self {
        Self { asker: Arc::clone(asker), stream: Arc::clone(stream), pace: Mutex::new(Pace::new()) }
    }

    /// The newest entry before this millisecond of the epoch.
    async fn last_before(&self, millis: u64) -> Result<Option<Offset>, Unanswered> {
        let before = id::before(Offset { major: millis, minor: 0 });
        let found = self.asker.range_back(&self.stream, before, 1).await?;
        Ok(found.first().map(|entry| entry.id))
    }

    async fn try_answer(&self, question: Question) -> Result<Answer, Unanswered> {
        let mut from = BEGIN;
        if let Question::At(time) = question {
            let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let found = self.last_before(u64::try_from(millis).unwrap_or(u64::MAX)).await?;
            from = found.unwrap_or(BEGIN);
        }
        let info = self.asker.info(&self.stream).await?.unwrap_or_else(Info::none);
        let oldest = info.beginning();
        Ok(Answer {
            from: Position::single(from.max(oldest)),
            oldest: Position::single(oldest),
            end: Position::single(info.last),
            born: info.born().map(Position::single),
        })
    }

    async fn try_read(
        &self,
        mut draft: SegmentDraft,
        until: Offset,
        mut hand_over: impl FnMut(Segment) -> bool,
    ) -> Result<End, Unanswered> {
        loop {
            let (at, count) = (draft.at(), self.pace.lock().count());
            let Some(next) = id::after(at).filter(|next| *next <= until) else { break };
            let (entries, info) = self.asker.range(&self.stream, next, until, count).await?;
            // Of a stream that was deleted nothing is left, whether or not there is another by now.
            let beginning = match info {
                Some(info) if info.is_another(at, None) => until,
                Some(info) => info.beginning(),
                None => until,
            };
            if at < beginning {
                // What was read before it was trimmed is good.
                if at > draft.from() {
                    hand_over(draft.finish(at));
                }
                return Ok(End::Trimmed(beginning));
            }
            self.pace.lock().note(reply::size(&entries));
            let items = entries.iter().map(|entry| Item { stream: &self.stream, entry });
            let _pins = schemas::have(once(draft.shape()), items.clone()).await.map_err(Unanswered::Busy)?;
            for item in items {
                draft.push(item.entry.id, &item);
            }
            if entries.len() < count {
                break;
            }
            if draft.is_full() && draft.at() < until && !hand_over(draft.close()) {
                return Ok(End::Read);
            }
        }
        hand_over(draft.finish(until));
        Ok(End::Read)
    }

    fn unreadable(&self, why: &Unanswered) -> Unreadable {
        Unreadable(format!("reading the history of stream {} failed: {why}", self.stream))
    }
}

impl Reader for StreamReader {
    const COUNTS: bool = false;

    /// A time is answered by the newest entry before it: whoever has that has missed nothing since.
    async fn answer(&self, question: Question) -> Result<Answer, Unreadable> {
        self.try_answer(question).await.map_err(|why| self.unreadable(&why))
    }

    async fn read(
        &self,
        draft: SegmentDraft,
        until: Offset,
        hand_over: impl FnMut(Segment) -> bool + Send + 'static,
    ) -> Result<End, Unreadable> {
        self.try_read(draft, until, hand_over).await.map_err(|why| self.unreadable(&why))
    }
}

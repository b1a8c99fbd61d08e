//! The history of a stream: what Redis still holds of it.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;

use super::asker::{Asker, Unanswered};
use super::id::{self, BEGIN};
use super::info::Info;
use super::pace::Pace;
use super::reply::{self, Item};
use crate::history::{Part, Reader, Unreadable};
use crate::hub::{Answer, Offset, Position, Question, SegmentDraft};

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
        let from = from.max(info.beginning());
        Ok(Answer { from: Position::single(from), end: Position::single(info.last) })
    }

    async fn try_read(&self, mut draft: SegmentDraft, until: Offset) -> Result<Part, Unanswered> {
        let from = draft.at();
        while !draft.is_full() {
            let (at, count) = (draft.at(), self.pace.lock().count());
            let Some(next) = id::after(at).filter(|next| *next <= until) else { break };
            let (entries, info) = self.asker.range(&self.stream, next, until, count).await?;
            // Of a stream that was deleted nothing is left.
            let beginning = info.map_or(until, |info| info.beginning());
            if at < beginning {
                // What was read before it was trimmed is good.
                let good = at > from;
                return Ok(if good { Part::Segment(draft.finish(at)) } else { Part::Trimmed(beginning) });
            }
            self.pace.lock().note(reply::size(&entries));
            for entry in &entries {
                draft.push(entry.id, &Item { stream: &self.stream, entry });
            }
            if entries.len() < count {
                return Ok(Part::Segment(draft.finish(until)));
            }
        }
        let at = draft.at();
        Ok(Part::Segment(draft.finish(at)))
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

    async fn read(&self, draft: SegmentDraft, until: Offset) -> Result<Part, Unreadable> {
        self.try_read(draft, until).await.map_err(|why| self.unreadable(&why))
    }
}

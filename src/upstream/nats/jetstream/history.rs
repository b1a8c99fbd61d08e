//! The history of a stream, or of a part of it: what JetStream still holds.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::api::{self, Info, Since, Unanswered};
use super::consumer::{Came, Consumer, Item};
use super::id::Incarnation;
use super::{Facts, Lines};
use crate::history::{End, Reader, Unreadable};
use crate::hub::{Answer, Offset, Position, Question, Segment, SegmentDraft};
use crate::upstream::nats::line::Line;

/// Reads one part of a stream.
pub(super) struct StreamReader {
    lines: Lines,
    stream: Arc<str>,
    subject: Option<Arc<str>>,
    facts: Facts,
    /// What its log has read. Another stream of the same name is none of its history, and is not read before the log has
    /// begun anew.
    incarnation: Mutex<Option<Incarnation>>,
}

impl StreamReader {
    pub(super) fn new(lines: &Lines, stream: &Arc<str>, subject: Option<&Arc<str>>, facts: &Facts) -> Self {
        let incarnation = Mutex::new(facts.lock().clone());
        let (lines, stream, facts) = (Arc::clone(lines), Arc::clone(stream), Arc::clone(facts));
        Self { lines, stream, subject: subject.cloned(), facts, incarnation }
    }

    fn line(&self) -> Result<Arc<Line>, Unanswered> {
        let none = || Unanswered::Busy("there is no link to NATS".to_owned());
        self.lines.lock().clone().ok_or_else(none)
    }

    /// The stream, if it is still the one that the log has read.
    async fn info(&self, line: &Arc<Line>) -> Result<Info, Unanswered> {
        let info = api::info(line, &self.stream).await?;
        let is_it = self.incarnation.lock().as_ref().is_some_and(|own| own.created == info.created);
        match is_it && *self.incarnation.lock() == *self.facts.lock() {
            true => Ok(info),
            false => Err(Unanswered::Busy("it was made anew".to_owned())),
        }
    }

    async fn try_answer(&self, question: Question) -> Result<Answer, Unanswered> {
        let line = self.line()?;
        let first = match question {
            Question::Bounds => Some(0),
            Question::At(time) => first_at(&line, &self.stream, time).await?,
        };
        let info = self.info(&line).await?;
        let oldest = info.beginning();
        let from = first.map_or(info.end(), |first| first.saturating_sub(1)).max(oldest);
        let place = |number: u64| Position::new(vec![number]);
        Ok(Answer { from: place(from), oldest: place(oldest), end: place(info.end()), born: None })
    }

    async fn try_read(
        &self,
        mut draft: SegmentDraft,
        until: Offset,
        mut hand_over: impl FnMut(Segment) -> bool,
    ) -> Result<End, Unanswered> {
        let line = self.line()?;
        let from = Since::After(draft.at().major);
        let mut consumer = Consumer::make(&line, &self.stream, self.subject.as_deref(), from, false).await?;
        // Of what was there when the consumer was made, or earlier: it goes with its stream.
        let mut beginning = self.info(&line).await?.beginning();
        let trimmed = |draft: SegmentDraft, beginning: u64, hand_over: &mut dyn FnMut(Segment) -> bool| {
            // What was read before it was trimmed is good.
            if draft.at() > draft.from() {
                let at = draft.at();
                hand_over(draft.finish(at));
            }
            Ok(End::Trimmed(beginning.min(until.major).into()))
        };
        loop {
            if draft.at().major < beginning && draft.at() == draft.from() {
                return trimmed(draft, beginning, &mut hand_over);
            }
            let items = match consumer.drain().await? {
                Came::Items(items) => items,
                Came::Nothing => {
                    beginning = self.info(&line).await?.beginning();
                    if draft.at().major < beginning && draft.at().major < until.major {
                        return trimmed(draft, beginning, &mut hand_over);
                    }
                    break;
                }
                Came::Gone(why) => return Err(Unanswered::Busy(why)),
            };
            if has_hole(draft.at().major, &items) {
                beginning = self.info(&line).await?.beginning();
            }
            for item in &items {
                if item.number > until.major {
                    hand_over(draft.finish(until));
                    return Ok(End::Read);
                }
                if item.number > draft.at().major + 1 && draft.at().major < beginning {
                    return trimmed(draft, beginning, &mut hand_over);
                }
                draft.push(item.number.into(), &item);
                if draft.is_full() && draft.at() < until && !hand_over(draft.close()) {
                    return Ok(End::Read);
                }
            }
            if draft.at() >= until {
                break;
            }
        }
        hand_over(draft.finish(until));
        Ok(End::Read)
    }

    fn unreadable(&self, why: &Unanswered) -> Unreadable {
        Unreadable(format!("reading the history of stream {} failed: {why}", self.stream))
    }
}

/// Whether numbers are missing between a place and messages that follow it, or between these: of other subjects, or
/// deleted, or trimmed.
pub(super) fn has_hole(at: u64, items: &[Item]) -> bool {
    items.last().is_some_and(|last| last.number - at > items.len() as u64)
}

/// The number of the first message that is not older, if there is one.
pub(super) async fn first_at(
    line: &Arc<Line>,
    stream: &Arc<str>,
    time: SystemTime,
) -> Result<Option<u64>, Unanswered> {
    let mut consumer = Consumer::make(line, stream, None, Since::Time(time), true).await?;
    match consumer.drain().await? {
        Came::Items(items) => Ok(items.first().map(|first| first.number)),
        Came::Nothing => Ok(None),
        Came::Gone(why) => Err(Unanswered::Busy(why)),
    }
}

impl Reader for StreamReader {
    const COUNTS: bool = false;

    fn begins_anew(&self) {
        *self.incarnation.lock() = self.facts.lock().clone();
    }

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

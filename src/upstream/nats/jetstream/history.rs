//! The history of a stream, or of a part of it: what JetStream still holds.

use std::iter::once;
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
use crate::upstream::schemas;

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
        let from = match question {
            Question::Bounds => 0,
            Question::At(time) => {
                // Whatever comes while that is looked for is not older.
                let end = self.info(&line).await?.end();
                let first = first_at(&line, &self.stream, time).await?;
                first.map_or(end, |first| first.saturating_sub(1))
            }
        };
        let info = self.info(&line).await?;
        let oldest = info.beginning();
        let from = from.max(oldest);
        let place = |number: u64| Position::new(vec![number]);
        Ok(Answer { from: place(from), oldest: place(oldest), end: place(info.end()), born: None })
    }

    async fn try_read(
        &self,
        mut draft: SegmentDraft,
        until: Offset,
        mut hand_over: impl FnMut(Segment) -> bool,
    ) -> Result<End, Unanswered> {
        let (line, subject) = (self.line()?, self.subject.as_deref());
        let from = Since::After(draft.at().major);
        let mut consumer = Consumer::make(&line, &self.stream, subject, from, false).await?;
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
                    let at = draft.at();
                    if !api::holds_back(&line, &self.stream, subject, at.major, until.major).await? {
                        break;
                    }
                    if at == draft.from() {
                        return Err(api::behind());
                    }
                    hand_over(draft.finish(at));
                    return Ok(End::Read);
                }
                Came::Gone(why) => return Err(Unanswered::Busy(why)),
            };
            if has_hole(draft.at().major, &items) {
                beginning = self.info(&line).await?.beginning();
            }
            let range = draft.at().major..until.major;
            let wanted = items.iter().filter(|item| range.contains(&item.number.saturating_sub(1)));
            let have = schemas::have(once(draft.shape()), wanted);
            let _pins = have.await.map_err(Unanswered::Busy)?;
            for item in &items {
                // Where less is there than was read, a consumer begins with the last of that.
                if item.number <= draft.at().major {
                    continue;
                }
                match next(draft.at().major, item.number, until.major, beginning) {
                    Next::Trimmed => return trimmed(draft, beginning, &mut hand_over),
                    Next::Beyond => {
                        hand_over(draft.finish(until));
                        return Ok(End::Read);
                    }
                    Next::Item => draft.push(item.number.into(), &item),
                }
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

/// What follows a place.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The message.
    Item,
    /// Nothing that was asked for: the message comes later.
    Beyond,
    /// What was trimmed before it could be read, or may have been.
    Trimmed,
}

/// What follows `at`, where the next message that came has this number, and the stream begins after `beginning`.
fn next(at: u64, number: u64, until: u64, beginning: u64) -> Next {
    if number > at + 1 && at < beginning.min(until) {
        Next::Trimmed
    } else if number > until {
        Next::Beyond
    } else {
        Next::Item
    }
}

/// Whether numbers are missing between a place and messages that follow it, or between these: of other subjects, or
/// deleted, or trimmed.
pub(super) fn has_hole(at: u64, items: &[Item]) -> bool {
    let following = items.iter().filter(|item| item.number > at).count() as u64;
    items.last().is_some_and(|last| last.number.saturating_sub(at) > following)
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
        // All that is there is older; but perhaps it is not all.
        Came::Nothing => api::first_from(line, stream, None, consumer.at().await? + 1).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_trimmed_while_it_was_read_is_none_of_what_was_read() {
        for (at, number, until, beginning, expected) in [
            (3, 4, 10, 0, Next::Item),
            (3, 4, 10, 3, Next::Item),
            // Of other subjects, or deleted.
            (3, 6, 10, 2, Next::Item),
            (3, 6, 10, 3, Next::Item),
            (3, 12, 10, 3, Next::Beyond),
            (10, 12, 10, 3, Next::Beyond),
            (10, 12, 10, 11, Next::Beyond),
            // Up to the next that is there, or to the end of what was to be read.
            (3, 6, 10, 5, Next::Trimmed),
            (3, 12, 10, 5, Next::Trimmed),
            (3, 12, 10, 11, Next::Trimmed),
            (9, 12, 10, 11, Next::Trimmed),
            // It was trimmed once it had come.
            (3, 4, 10, 11, Next::Item),
        ] {
            assert_eq!(next(at, number, until, beginning), expected, "{at} {number} {until} {beginning}");
        }
    }
}

//! The history of a stream: what RabbitMQ's retention still holds.

use std::iter::once;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;

use super::asker::{Asker, Askers};
use super::place::{self, Begin, Stream};
use super::prefetch::Prefetch;
use crate::history::{End, Reader, Unreadable};
use crate::hub::{Answer, Offset, Position, Question, Segment, SegmentDraft};
use crate::upstream::Unanswered;
use crate::upstream::amqp::message::Message;
use crate::upstream::schemas;

/// Reads one stream.
pub(super) struct StreamReader {
    askers: Arc<Askers>,
    stream: Arc<str>,
    prefetch: Mutex<Prefetch>,
}

impl StreamReader {
    pub(super) fn new(askers: &Arc<Askers>, stream: &Arc<str>) -> Self {
        let (askers, stream) = (Arc::clone(askers), Arc::clone(stream));
        Self { askers, stream, prefetch: Mutex::new(Prefetch::new()) }
    }

    fn stream<'s>(&'s self, asker: &'s Asker) -> Stream<'s> {
        asker.stream(&self.stream)
    }

    async fn try_answer(&self, asker: &Asker, question: Question) -> Result<Answer, Unanswered> {
        let stream = self.stream(asker);
        let end = stream.end().await?.unwrap_or_default();
        let oldest = stream.first(Begin::First).await?.unwrap_or(end);
        let from = match question {
            Question::Bounds => oldest,
            Question::At(time) => {
                let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let found = stream.first(Begin::Time(seconds)).await?;
                // Chunks have times, and not each message. Behind the last of them there is nothing.
                found.unwrap_or(end).clamp(oldest, end)
            }
        };
        let place = |offset: u64| Position::single(Offset::from(offset));
        Ok(Answer { from: place(from), oldest: place(oldest), end: place(end), born: None })
    }

    async fn try_read(
        &self,
        asker: &Asker,
        mut draft: SegmentDraft,
        until: u64,
        hand_over: &mut (impl FnMut(Segment) -> bool + Send),
    ) -> Result<End, Unanswered> {
        let stream = self.stream(asker);
        let prefetch = *self.prefetch.lock();
        let mut place = stream.read(Begin::Offset(draft.at().major), prefetch).await?;
        loop {
            // Its log has read more, so that something comes.
            let come = place.next().await?;
            let oldest = match place::has_hole(draft.at().major, &come) {
                true => stream.first(Begin::First).await?.unwrap_or_default(),
                false => 0,
            };
            let range = draft.at().major..until;
            let wanted = come.iter().filter(|come| place::offset(come).is_some_and(|at| range.contains(&at)));
            let messages = wanted.map(|delivery| Message::new(&self.stream, delivery));
            let have = schemas::have(once(draft.shape()), messages);
            let _pins = have.await.map_err(Unanswered::Refused)?;
            for delivery in &come {
                let (at, Some(offset)) = (draft.at().major, place::offset(delivery)) else { continue };
                if offset > at && at < oldest {
                    // What was read before it was trimmed is good.
                    if draft.at() > draft.from() {
                        hand_over(draft.finish(Offset::from(at)));
                    }
                    return Ok(End::Trimmed(Offset::from(oldest.min(until))));
                }
                if offset >= until {
                    break;
                }
                // It begins with a whole chunk.
                if offset < at {
                    continue;
                }
                draft.push(Offset::from(offset + 1), &Message::new(&self.stream, delivery));
                if draft.is_full() && draft.at().major < until && !hand_over(draft.close()) {
                    return Ok(End::Read);
                }
            }
            let last = come.last().and_then(place::offset);
            if last.is_some_and(|last| last + 1 >= until) {
                break;
            }
            place.done(&come).await?;
            *self.prefetch.lock() = place.prefetch();
        }
        hand_over(draft.finish(Offset::from(until)));
        Ok(End::Read)
    }

    fn unreadable(&self, why: &Unanswered) -> Unreadable {
        Unreadable(format!("reading the history of stream {} failed: {why}", self.stream))
    }
}

impl Reader for StreamReader {
    const COUNTS: bool = true;

    async fn answer(&self, question: Question) -> Result<Answer, Unreadable> {
        let answer = async {
            let asker = self.askers.take().await.map_err(Unanswered::Broken)?;
            let answer = self.try_answer(&asker, question).await?;
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
        let read = async {
            let asker = self.askers.take().await.map_err(Unanswered::Broken)?;
            let end = self.try_read(&asker, draft, until.major, &mut hand_over).await;
            // One that said no, or whose answer has to wait for a schema, is as good as before.
            if !matches!(end, Err(Unanswered::Broken(_))) {
                self.askers.put_back(asker);
            }
            end
        };
        read.await.map_err(|why| self.unreadable(&why))
    }
}

//! Reading one part of a stream while it is wanted: opens its logs, reads on from the one that is furthest behind, and
//! finds out what was trimmed before it could be read, and whether the stream was made anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::api::{self, Info, Since, Unanswered};
use super::consumer::{Came, Consumer, Item};
use super::history::{self, StreamReader};
use super::id::{Incarnation, StreamCodec};
use super::{Facts, Streams, fill};
use crate::history::Fill;
use crate::hub::{Feed, IdCodec, Mark, Opening, Position, Reason};
use crate::shape::Record;
use crate::upstream::doubt::Doubt;
use crate::upstream::lag::Behind;
use crate::upstream::link::Link;
use crate::upstream::nats::line::Line;
use crate::upstream::schemas;

/// The reading of one part.
pub(super) struct Reading {
    pub streams: Arc<Streams>,
    pub link: Arc<Link>,
    pub line: Arc<Line>,
    pub stream: Arc<str>,
    pub subject: Option<Arc<str>>,
    pub feeds: watch::Receiver<Vec<Arc<Feed>>>,
    pub facts: Facts,
    /// How long messages are waited for at a time.
    pub wait: Duration,
    /// Whether its logs were opened, or that was refused; and whom to tell.
    pub tried: (Arc<AtomicBool>, Arc<Notify>),
    /// Whether its sequence numbers went back.
    pub doubt: Doubt,
    /// What stood in the way the last time.
    pub trouble: Option<String>,
}

impl Reading {
    /// Reads for as long as it is let.
    pub async fn run(mut self) {
        loop {
            let begun = self.begin().await;
            self.tried.0.store(true, Ordering::Relaxed);
            self.tried.1.notify_one();
            let ended = match begun {
                Ok(mut consumer) => {
                    self.trouble = None;
                    self.read(&mut consumer).await
                }
                Err(why) => Err(why),
            };
            match ended {
                Ok(()) => {}
                Err(Unanswered::Refused(why)) => self.wait_in_trouble(why, REFUSED).await,
                Err(Unanswered::Busy(why)) => self.wait_in_trouble(why, BUSY).await,
            }
        }
    }

    async fn wait_in_trouble(&mut self, why: String, wait: Duration) {
        if self.trouble.as_ref() == Some(&why) {
            self.link.trouble_goes_on();
        } else {
            self.link.trouble(&format!("stream {} cannot be read: {why}", self.stream));
            self.trouble = Some(why);
        }
        sleep(wait).await;
    }

    /// Opens the logs that are not open yet, holds the others against what there is now, and makes the consumer to read on
    /// with.
    async fn begin(&mut self) -> Result<Consumer, Unanswered> {
        let info = api::info(&self.line, &self.stream).await?;
        self.recognise(&info)?;
        let feeds = self.feeds.borrow_and_update().clone();
        for feed in feeds.iter().filter(|feed| feed.log.position().is_none()) {
            self.open(feed, &info).await?;
        }
        let at = self.position().unwrap_or(info.end());
        let from = Since::After(at);
        let consumer = Consumer::make(&self.line, &self.stream, self.subject.as_deref(), from, false).await?;
        // The consumer is one of the stream that is there after it was made, or of none.
        let now = api::info(&self.line, &self.stream).await?;
        if now.created != info.created {
            return Err(Unanswered::Busy("it was made anew".to_owned()));
        }
        for feed in &feeds {
            self.mend(feed, now.beginning());
        }
        Ok(consumer)
    }

    /// Has the logs begin anew if this is not the stream that they have read.
    fn recognise(&mut self, info: &Info) -> Result<(), Unanswered> {
        // A server that leads since just now may not know of all yet.
        let went_back = self.position_of_last().is_some_and(|at| at > info.end());
        let stays_so = self.doubt.lasts(went_back, Instant::now());
        let mut facts = self.facts.lock();
        let known = facts.get_or_insert_with(|| Incarnation { created: info.created.clone(), count: 0 });
        if known.created != info.created {
            *known = Incarnation { created: info.created.clone(), count: 0 };
        } else if stays_so {
            known.count += 1;
        } else if went_back {
            return Err(Unanswered::Busy("it ends before what has been read of it".to_owned()));
        } else {
            return Ok(());
        }
        let codec: Arc<dyn IdCodec> = Arc::new(StreamCodec::new(&self.stream, known));
        drop(facts);
        for feed in self.feeds.borrow().iter() {
            if feed.log.restart(Arc::clone(&codec), Position::new(vec![info.beginning()])) {
                self.link.tell_gap(feed, Reason::Recreated);
            }
        }
        Ok(())
    }

    async fn open(&self, feed: &Arc<Feed>, info: &Info) -> Result<(), Unanswered> {
        let codec: Arc<dyn IdCodec> = match &*self.facts.lock() {
            Some(incarnation) => Arc::new(StreamCodec::new(&self.stream, incarnation)),
            None => return Ok(()),
        };
        let reader = StreamReader::new(&self.streams.lines, &self.stream, self.subject.as_ref(), &self.facts);
        let history = self.streams.pool.shelf(reader, &feed.key, &codec);
        let (bounds, subject) = (feed.log.bounds(), self.subject.as_deref());
        let from = fill::beginning(&self.line, &self.stream, subject, &bounds, info).await?;
        let (from, end) = (Position::new(vec![from]), Position::new(vec![info.end()]));
        let Fill { segments, start } =
            crate::history::fill(&self.streams.pool, &history, &from, &end, bounds.bytes).await;
        feed.log.open_filled(Opening { codec, history, segments: &segments, start, end });
        Ok(())
    }

    /// Tells a log what was trimmed before it could be read.
    fn mend(&self, feed: &Arc<Feed>, beginning: u64) {
        for reason in feed.log.append_missing(Reason::Trimmed, Mark::new(0, beginning)).gaps {
            self.link.tell_gap(feed, reason);
        }
    }

    /// Reads until it is to be begun anew.
    async fn read(&mut self, consumer: &mut Consumer) -> Result<(), Unanswered> {
        // Where the stream ended before what is waited for was asked for.
        let mut end = None;
        loop {
            if consumer.is_idle() && self.subject.is_some() {
                end = Some(api::info(&self.line, &self.stream).await?.end());
            }
            let came = tokio::select! {
                came = consumer.next(self.wait) => came?,
                changed = self.feeds.changed() => {
                    // Where nobody tells any more what is wanted, it is about to be ended.
                    if changed.is_err() || self.has_new() {
                        return Ok(());
                    }
                    continue;
                }
            };
            match came {
                Came::Items(items) => {
                    self.take_in(&items).await?;
                    self.make_way().await;
                }
                Came::Nothing if end.is_some() && consumer.has_given_all().await? => self.pass(end).await?,
                Came::Nothing => {}
                Came::Gone(why) => {
                    tracing::debug!(stream = &*self.stream, why, "a consumer is gone");
                    sleep(SOON).await;
                    return Ok(());
                }
            }
        }
    }

    /// Appends what came, once it can be decoded, and it is known whether something was trimmed before it could be read.
    async fn take_in(&self, items: &[Item]) -> Result<(), Unanswered> {
        let Some(at) = self.position() else { return Ok(()) };
        let feeds = self.feeds.borrow().clone();
        let shapes = feeds.iter().map(|feed| &feed.key.shape);
        let have = schemas::have(shapes, items.iter()).await;
        // They are given again where it takes longer.
        let _pins = have.map_err(|why| {
            self.tell_behind(items, items.len());
            Unanswered::Busy(why)
        })?;
        let beginning = match history::has_hole(at, items) {
            true => {
                let info = api::info(&self.line, &self.stream).await?;
                if !self.has_read(&info) {
                    // Where that began nobody knows any more: that it was made anew is told of all that is not taken in.
                    return Ok(());
                }
                info.beginning()
            }
            false => 0,
        };
        for feed in &feeds {
            let Some(mut at) = feed.log.position().map(|position| position.next(0)) else { continue };
            let mut run = Vec::new();
            for item in items {
                if item.number <= at {
                    continue;
                }
                if item.number > at + 1 && at < beginning {
                    self.deliver(feed, &mut run);
                    self.mend(feed, beginning.min(item.number - 1));
                }
                at = item.number;
                run.push(item);
            }
            self.deliver(feed, &mut run);
        }
        self.tell_behind(items, 0);
        Ok(())
    }

    /// Tells how far reading is behind, where the last so many of these are not appended yet.
    fn tell_behind(&self, items: &[Item], left: usize) {
        let Some(oldest) = items.iter().rev().take(left.max(1)).last() else { return };
        let records = items.last().map_or(0, |last| last.pending) + left as u64;
        let behind = Behind { records, since: (records > 0).then_some(oldest.time) };
        self.link.is_behind(self.subject.as_ref().unwrap_or(&self.stream), behind);
    }

    fn deliver(&self, feed: &Arc<Feed>, run: &mut Vec<&Item>) {
        self.link.deliver(feed, run.drain(..).map(|item| (Some(Mark::new(0, item.number)), item)));
    }

    /// All of it has been read up to there, if the server says so that leads the stream, but for what was trimmed before: what
    /// follows is read on from there, also if the rest is trimmed.
    async fn pass(&self, end: Option<u64>) -> Result<(), Unanswered> {
        let (Some(at), Some(end)) = (self.position(), end) else { return Ok(()) };
        if api::holds_back(&self.line, &self.stream, self.subject.as_deref(), at, end).await? {
            return Err(api::behind());
        }
        let info = api::info(&self.line, &self.stream).await?;
        if !self.has_read(&info) {
            return Ok(());
        }
        for feed in self.feeds.borrow().iter().filter(|feed| feed.log.position().is_some()) {
            self.mend(feed, info.beginning().min(end));
            self.link.deliver(feed, [(Some(Mark::new(0, end)), Passed)]);
        }
        Ok(())
    }

    /// Whether it is this stream that the logs have read.
    fn has_read(&self, info: &Info) -> bool {
        self.facts.lock().as_ref().is_some_and(|known| known.created == info.created)
    }

    /// Lets readers that are behind catch up a little, since this source can wait.
    async fn make_way(&self) {
        let until = Instant::now() + PAUSE;
        let congested = || self.feeds.borrow().iter().any(|feed| feed.log.congested());
        while congested() && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn has_new(&self) -> bool {
        self.feeds.borrow().iter().any(|feed| feed.log.position().is_none())
    }

    /// Where to read on: all logs have everything up to there.
    fn position(&self) -> Option<u64> {
        self.positions().min()
    }

    fn position_of_last(&self) -> Option<u64> {
        self.positions().max()
    }

    fn positions(&self) -> impl Iterator<Item = u64> {
        let feeds = self.feeds.borrow().clone();
        feeds.into_iter().filter_map(|feed| Some(feed.log.position()?.next(0)))
    }
}

/// Stands for what is of other subjects.
struct Passed;

impl Record for Passed {
    fn payload(&self) -> Option<&[u8]> {
        None
    }

    fn name(&self) -> &str {
        ""
    }
}

/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a stream that JetStream refuses waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);
/// The same where there is no answer.
const BUSY: Duration = Duration::from_millis(500);
/// The pause before another consumer is made.
const SOON: Duration = Duration::from_millis(50);

//! The reader of one stream: opens the logs of its feeds, and appends what comes from where they stand.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use lapin::message::Delivery;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::history::StreamReader;
use super::id::OffsetCodec;
use super::place::{self, Begin, PREFETCH, Place};
use super::{Facts, Streams};
use crate::history::{Fill, fill};
use crate::hub::{Feed, IdCodec, Mark, Opening, Position, Reason, Source};
use crate::upstream::Broken;
use crate::upstream::amqp::connection::{Connection, Dialer, Unanswered};
use crate::upstream::amqp::message::Message;
use crate::upstream::changes::Changes;
use crate::upstream::lag::Behind;
use crate::upstream::link::Link;

pub(super) struct Reading {
    pub streams: Arc<Streams>,
    pub stream: Arc<str>,
    pub facts: Arc<Facts>,
    pub connection: Arc<Connection>,
    pub dialer: Dialer,
    pub link: Arc<Link>,
    pub changes: Changes,
    pub every: Duration,
}

impl Reading {
    /// Reads until the link ends; says once when it has begun.
    pub(super) async fn run(mut self, begun: Arc<Semaphore>) -> Broken {
        let mut first = Some(begun);
        loop {
            let why = match self.read(&mut first).await {
                Ok(never) => match never {},
                Err(Unanswered::Broken(broken)) => return broken,
                Err(Unanswered::Refused(why)) => why,
            };
            // In RabbitMQ's words: it is gone, and not out of reach. Whatever comes by that name is another one.
            if why.starts_with("NOT_FOUND - no queue") {
                self.facts.gone.store(true, Ordering::Relaxed);
            }
            self.link.trouble(&format!("reading stream {} was refused: {why}", self.stream));
            first.take().iter().for_each(|begun| begun.add_permits(1));
            tokio::time::sleep(REFUSED).await;
        }
    }

    fn feeds(&self) -> Vec<Arc<Feed>> {
        self.link.wanted().of(&Source::Stream(Arc::clone(&self.stream)))
    }

    async fn read(&mut self, first: &mut Option<Arc<Semaphore>>) -> Result<Infallible, Unanswered> {
        let dialer = self.dialer.clone();
        let end = self.end().await?;
        self.begin_anew(end);
        let mut at = self.open(end).await?;
        let mut place = Place::open(&dialer, self.channel().await?, &self.stream, Begin::Offset(at)).await?;
        self.link.tells_lag();
        first.take().iter().for_each(|begun| begun.add_permits(1));
        loop {
            tokio::select! {
                changed = self.changes.next() => {
                    changed.map_err(Unanswered::Broken)?;
                    at = self.open(at).await?;
                }
                come = place.wait(self.every) => at = self.take(&place, come?, at).await?,
            }
        }
    }

    async fn channel(&self) -> Result<lapin::Channel, Unanswered> {
        self.dialer.channel(&self.connection, PREFETCH).await
    }

    /// Where the stream ends.
    async fn end(&self) -> Result<u64, Unanswered> {
        loop {
            if let Some(end) = place::end(&self.dialer, self.channel().await?, &self.stream).await? {
                return Ok(end);
            }
            let has_read =
                self.feeds().iter().filter_map(|feed| feed.log.position()).any(|at| at.next(0) > 0);
            if !has_read || self.facts.gone.load(Ordering::Relaxed) {
                return Ok(0);
            }
            // It is another one perhaps, or not ready yet: what comes first tells.
            let mut first =
                Place::open(&self.dialer, self.channel().await?, &self.stream, Begin::First).await?;
            while first.wait(self.every).await?.is_empty() {}
        }
    }

    /// If there is another stream of that name by now, the logs begin anew.
    fn begin_anew(&self, end: u64) {
        let feeds = self.feeds();
        let stands =
            feeds.iter().filter_map(|feed| feed.log.position()).map(|position| position.next(0)).max();
        let went_back = stands.is_some_and(|stands| stands > end);
        if !self.facts.gone.swap(false, Ordering::Relaxed) && !went_back {
            return;
        }
        self.facts.count.fetch_add(1, Ordering::Relaxed);
        for feed in &feeds {
            if feed.log.restart(self.codec(), Position::default()) {
                self.link.tell_gap(feed, Reason::Recreated);
            }
        }
    }

    fn codec(&self) -> Arc<dyn IdCodec> {
        Arc::new(OffsetCodec::new(&self.stream, self.facts.count.load(Ordering::Relaxed)))
    }

    /// Opens the logs that are not open yet, where the others stand, or at `end`. Returns where to read on.
    async fn open(&self, end: u64) -> Result<u64, Unanswered> {
        let feeds = self.feeds();
        let stands =
            feeds.iter().filter_map(|feed| feed.log.position()).map(|position| position.next(0)).min();
        let at = stands.unwrap_or(end);
        for feed in feeds.iter().filter(|feed| feed.log.position().is_none()) {
            let codec = self.codec();
            let reader = StreamReader::new(&self.streams.askers, &self.stream);
            let shelf = self.streams.pool.shelf(reader, &feed.key, &codec);
            let room = feed.log.bounds();
            let from = at.saturating_sub(room.events as u64);
            let (from, until) = (Position::new(vec![from]), Position::new(vec![at]));
            let Fill { segments, start } = match room.events {
                0 => Fill::none(&until),
                _ => fill(&self.streams.pool, &shelf, &from, &until, room.bytes).await,
            };
            feed.log.open_filled(Opening { codec, history: shelf, segments: &segments, start, end: until });
        }
        Ok(at)
    }

    /// Appends what came after `at`. Returns up to where that was.
    async fn take(&self, place: &Place<'_>, come: Vec<Delivery>, at: u64) -> Result<u64, Unanswered> {
        let feeds = self.feeds();
        let offsets: Vec<_> =
            come.iter().filter_map(|delivery| Some((place::offset(delivery)?, delivery))).collect();
        let fresh = &offsets[offsets.partition_point(|(offset, _)| *offset < at)..];
        let Some(&(first, _)) = fresh.first() else {
            place.done(&come).await?;
            return Ok(at);
        };
        // Not every offset is that of a message.
        let oldest = match first > at {
            true => place::first(&self.dialer, self.channel().await?, &self.stream, Begin::First).await?,
            false => None,
        };
        for feed in &feeds {
            if let Some(oldest) = oldest.filter(|oldest| *oldest > at) {
                let mark = Mark::new(0, oldest.min(first));
                for reason in feed.log.append_missing(Reason::Trimmed, mark).gaps {
                    self.link.tell_gap(feed, reason);
                }
            }
            let records = fresh.iter().map(|(offset, delivery)| {
                (Some(Mark::new(0, offset + 1)), Message::new(&self.stream, delivery))
            });
            self.link.deliver(feed, records);
        }
        let behind = match come.len() >= usize::from(PREFETCH) {
            true => Behind { records: 1, since: Some(SystemTime::now()) },
            false => Behind::default(),
        };
        self.link.is_behind(&self.stream, behind);
        // This source can wait.
        let until = Instant::now() + PAUSE;
        while feeds.iter().any(|feed| feed.log.congested()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        place.done(&come).await?;
        Ok(fresh.last().map_or(at, |(offset, _)| offset + 1))
    }
}

/// How long a stream that RabbitMQ refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(1);
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);

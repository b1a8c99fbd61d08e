//! The reader of one stream: opens the logs of its feeds, and appends what comes from where they stand.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use lapin::message::Delivery;
use tokio::time::{Instant, sleep};

use super::history::StreamReader;
use super::id::OffsetCodec;
use super::look::Look;
use super::place::{self, Begin, Place, Stream};
use super::prefetch::Prefetch;
use super::{Facts, Streams};
use crate::history::{Fill, fill};
use crate::hub::{Feed, IdCodec, Mark, Opening, Position, Reason, Source};
use crate::upstream::amqp::connection::{Connection, Dialer};
use crate::upstream::amqp::message::Message;
use crate::upstream::begun::Begins;
use crate::upstream::changes::Changes;
use crate::upstream::doubt::Doubt;
use crate::upstream::lag::Behind;
use crate::upstream::link::Link;
use crate::upstream::schemas;
use crate::upstream::{Broken, Unanswered};

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
    /// Reads until the link ends; says when it has begun.
    pub(super) async fn run(mut self, mut begins: Begins) -> Broken {
        loop {
            let why = match self.read(&mut begins).await {
                Ok(never) => match never {},
                Err(Unanswered::Broken(broken)) => return broken,
                Err(Unanswered::Refused(why)) => why,
            };
            // In RabbitMQ's words: it is gone, and not out of reach. Whatever comes by that name is another one.
            if why.starts_with("NOT_FOUND - no queue") {
                self.facts.gone.store(true, Ordering::Relaxed);
            }
            self.link.trouble(&format!("stream {} cannot be read: {why}", self.stream));
            begins.now();
            sleep(REFUSED).await;
        }
    }

    fn feeds(&self) -> Vec<Arc<Feed>> {
        self.link.wanted().of(&Source::Stream(Arc::clone(&self.stream)))
    }

    async fn read(&mut self, begins: &mut Begins) -> Result<Infallible, Unanswered> {
        let (dialer, connection, name) =
            (self.dialer.clone(), Arc::clone(&self.connection), Arc::clone(&self.stream));
        let stream = Stream { dialer: &dialer, connection: &connection, name: &name };
        let end = self.end(stream).await?;
        self.begin_anew(end);
        let mut at = self.open(end).await?;
        let mut place = stream.read(Begin::Offset(at), Prefetch::new()).await?;
        self.link.tells_lag();
        begins.now();
        loop {
            tokio::select! {
                changed = self.changes.next() => {
                    changed.map_err(Unanswered::Broken)?;
                    at = self.open(at).await?;
                }
                come = place.wait(self.every) => at = self.take(stream, &mut place, come?, at).await?,
            }
        }
    }

    /// Where the stream ends. That it ends before what has been read of it is believed once nothing speaks against it.
    async fn end(&self, stream: Stream<'_>) -> Result<u64, Unanswered> {
        loop {
            let Some(end) = stream.end().await? else {
                if self.stands().is_none_or(|stands| stands == 0) || self.facts.gone.load(Ordering::Relaxed) {
                    return Ok(0);
                }
                // It is another one perhaps, or not ready yet: what comes first tells.
                let mut first = stream.read(Begin::First, Prefetch::one()).await?;
                while first.wait(self.every).await?.is_empty() {}
                continue;
            };
            let went_back = self.stands().is_some_and(|stands| stands > end);
            if !went_back || self.facts.gone.load(Ordering::Relaxed) {
                *self.facts.doubt.lock() = Doubt::default();
                return Ok(end);
            }
            let look =
                Look { first: stream.first(Begin::First).await?, end, counted: stream.counted().await? };
            if self.facts.doubt.lock().lasts(!look.is_behind(), Instant::now()) {
                return Ok(end);
            }
            self.link.trouble(&format!(
                "stream {} ends before what has been read of it: its node is behind, or it is another one",
                self.stream
            ));
            sleep(AGAIN).await;
        }
    }

    /// Up to where the logs have read.
    fn stands(&self) -> Option<u64> {
        self.feeds().iter().filter_map(|feed| feed.log.position()).map(|position| position.next(0)).max()
    }

    /// If there is another stream of that name by now, the logs begin anew.
    fn begin_anew(&self, end: u64) {
        let went_back = self.stands().is_some_and(|stands| stands > end);
        if !self.facts.gone.swap(false, Ordering::Relaxed) && !went_back {
            return;
        }
        self.facts.count.fetch_add(1, Ordering::Relaxed);
        for feed in &self.feeds() {
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

    /// Appends what came after `at`, once it can be decoded. Returns up to where that was.
    async fn take(
        &self,
        stream: Stream<'_>,
        place: &mut Place<'_>,
        come: Vec<Delivery>,
        at: u64,
    ) -> Result<u64, Unanswered> {
        let feeds = self.feeds();
        let oldest = match place::has_hole(at, &come) {
            true => stream.first(Begin::First).await?.unwrap_or_default(),
            false => 0,
        };
        let offsets = come.iter().filter_map(|delivery| Some((place::offset(delivery)?, delivery)));
        let fresh: Vec<_> = offsets.filter(|(offset, _)| *offset >= at).collect();
        let shapes = feeds.iter().map(|feed| &feed.key.shape);
        let messages = fresh.iter().map(|(_, delivery)| Message::new(&self.stream, delivery));
        // They are read again where it takes longer.
        let _pins = schemas::have(shapes, messages).await.map_err(|why| {
            let behind = Behind { records: fresh.len() as u64, since: Some(SystemTime::now()) };
            self.link.is_behind(&self.stream, behind);
            Unanswered::Refused(why)
        })?;
        for feed in &feeds {
            let (mut next, mut run) = (at, Vec::new());
            for &(offset, delivery) in &fresh {
                if offset > next && next < oldest {
                    self.deliver(feed, &mut run);
                    self.mend(feed, oldest.min(offset));
                }
                next = offset + 1;
                run.push((next, delivery));
            }
            self.deliver(feed, &mut run);
        }
        let next = fresh.last().map_or(at, |(offset, _)| offset + 1);
        let behind = match come.len() >= usize::from(place.prefetch().count()) {
            true => Behind { records: 1, since: Some(SystemTime::now()) },
            false => Behind::default(),
        };
        self.link.is_behind(&self.stream, behind);
        // This source can wait.
        let until = Instant::now() + PAUSE;
        while feeds.iter().any(|feed| feed.log.congested()) && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        place.done(&come).await?;
        Ok(next)
    }

    fn deliver(&self, feed: &Arc<Feed>, run: &mut Vec<(u64, &Delivery)>) {
        let records = run.drain(..);
        self.link.deliver(
            feed,
            records.map(|(next, delivery)| (Some(Mark::new(0, next)), Message::new(&self.stream, delivery))),
        );
    }

    /// Tells a log what was trimmed before it could be read.
    fn mend(&self, feed: &Arc<Feed>, to: u64) {
        for reason in feed.log.append_missing(Reason::Trimmed, Mark::new(0, to)).gaps {
            self.link.tell_gap(feed, reason);
        }
    }
}

/// How long a stream waits that RabbitMQ refused, or whose messages cannot be decoded yet, before it is tried again.
const REFUSED: Duration = Duration::from_secs(1);
/// The pause between two looks at a stream that ends too early.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);

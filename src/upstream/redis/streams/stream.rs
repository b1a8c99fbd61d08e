//! One stream that is read: for whom, how far it is, and what is known of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::begin::{self, Mended};
use super::info::Info;
use super::reply::{Entry, Item};
use crate::hub::{Feed, Mark, Offset};
use crate::upstream::lag::Behind;
use crate::upstream::link::Link;

/// A stream in a table.
pub(super) struct Stream {
    pub feeds: Vec<Arc<Feed>>,
    /// Its stay in this table; that it left and came back is another one.
    pub term: u64,
    /// Whether it is read on; its logs were held against what there is.
    pub read: bool,
    /// Whether logs are being opened.
    pub beginning: bool,
    /// When it is to be begun, if Redis refused it.
    pub refused: Option<Instant>,
    pub looked: Instant,
    rank: Option<Rank>,
    /// Whether another server gave it the last time.
    moved: bool,
}

/// Streams on their way from table to table.
#[derive(Default)]
pub(in crate::upstream::redis) struct Carried(pub(super) HashMap<Arc<str>, Stream>);

/// How many entries had been added to a stream, up to and with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank {
    at: Offset,
    added: u64,
}

impl Rank {
    /// Where a stream ends.
    fn of(info: &Info) -> Option<Self> {
        Some(Self { at: info.last, added: info.added? })
    }
}

/// A stream that is read on.
pub(super) struct Reading {
    pub stream: Arc<str>,
    pub term: u64,
    /// Where.
    pub at: Offset,
    /// For whom: their logs have all up to there.
    pub feeds: Vec<Arc<Feed>>,
}

impl Stream {
    /// One that has not been read.
    pub(super) fn new(term: u64) -> Self {
        Self {
            feeds: Vec::new(),
            term,
            read: false,
            beginning: false,
            refused: None,
            looked: Instant::now(),
            rank: None,
            moved: false,
        }
    }

    /// The same in another table. It is read on as it was; who was about to open logs lets that be.
    pub(super) fn moved(self, term: u64) -> Self {
        Self { term, beginning: false, moved: true, ..self }
    }

    /// Serves these from now on. Returns whether some are new.
    pub(super) fn serve(&mut self, feeds: Vec<Arc<Feed>>) -> bool {
        let known = |feed: &Arc<Feed>| self.feeds.iter().any(|other| Arc::ptr_eq(other, feed));
        let news = !feeds.iter().all(known);
        self.feeds = feeds;
        news
    }

    /// Whether logs are to be opened now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let unopened = || self.feeds.iter().any(|feed| feed.log.position().is_none());
        !self.beginning && self.refused.is_none_or(|again| again <= now) && (!self.read || unopened())
    }

    /// The logs are open, and the stream was this then.
    pub(super) fn begun(&mut self, info: &Info) {
        (self.beginning, self.read, self.refused) = (false, true, None);
        if let Some(rank) = Rank::of(info).filter(|rank| self.position() == Some(rank.at)) {
            self.rank = Some(rank);
        }
    }

    /// It waits for so long, and then is begun anew. Returns whether that is news.
    pub(super) fn refuse(&mut self, wait: Duration) -> bool {
        (self.beginning, self.read) = (false, false);
        self.refused.replace(Instant::now() + wait).is_none()
    }

    /// Where to read on, if a log is open.
    pub(super) fn reading(&self, name: &Arc<str>) -> Option<Reading> {
        let feeds: Vec<_> = self.feeds.iter().filter(|feed| feed.log.position().is_some()).cloned().collect();
        Some(Reading { stream: Arc::clone(name), term: self.term, at: self.position()?, feeds })
    }

    /// Appends what came, once logs were held against what the stream is now, if it is there.
    pub(super) fn take_in(&mut self, reading: &Reading, entries: &[Entry], info: Option<&Info>, link: &Link) {
        if let Some(info) = info.filter(|_| std::mem::take(&mut self.moved)) {
            // Another server may have lost some that the one before gave: not another stream for that.
            self.rank.take_if(|rank| info.added.is_some_and(|added| added < rank.added));
        }
        let held: Vec<Offset> = entries.iter().map(|entry| entry.id).collect();
        let mut lost = 0;
        for feed in &reading.feeds {
            let Some(at) = feed.log.position().map(|position| position.at(0)) else { continue };
            if let Some(info) = info {
                match begin::mend(feed, at, self.rank(at), info, &held, link) {
                    Mended::Anew => continue,
                    Mended::On(some) => lost = lost.max(some),
                }
            }
            let records = entries.iter().map(|entry| {
                (Some(Mark { partition: 0, next: entry.id }), Item { stream: &reading.stream, entry })
            });
            link.deliver(feed, records);
        }
        self.note(reading, entries, lost, info);
        info.iter().for_each(|info| self.tell_lag(reading, info, link));
    }

    /// Tells how far it is behind what there was of it after it was read.
    fn tell_lag(&self, reading: &Reading, info: &Info, link: &Link) {
        let Some(at) = self.position() else { return };
        let mut behind = Behind::default();
        if at < info.last {
            let known = info.added.zip(self.rank(at)).map(|(added, rank)| added.saturating_sub(rank));
            behind.records = known.unwrap_or(info.length).max(1);
            // Who has read nothing yet is behind since the first of what there is.
            let read = if at.major == 0 { info.first.unwrap_or(info.last) } else { at };
            behind.since = UNIX_EPOCH.checked_add(Duration::from_millis(read.major));
        }
        link.is_behind(&reading.stream, behind);
    }

    fn note(&mut self, reading: &Reading, entries: &[Entry], lost: u64, info: Option<&Info>) {
        self.looked = Instant::now();
        let at = entries.last().map_or(reading.at, |last| last.id);
        let counted = self.rank(reading.at).map(|rank| rank + entries.len() as u64 + lost);
        self.rank = match info {
            Some(info) if info.last == at => Rank::of(info),
            _ => counted.map(|added| Rank { at, added }),
        };
    }

    /// How many entries had been added up to this place, where that is known.
    fn rank(&self, at: Offset) -> Option<u64> {
        self.rank.filter(|rank| rank.at == at).map(|rank| rank.added)
    }

    fn position(&self) -> Option<Offset> {
        self.feeds.iter().filter_map(|feed| feed.log.position()).map(|position| position.at(0)).min()
    }
}

//! Which streams are wanted, and how far each of them is. Positions are kept by the logs alone: a stream is read on
//! from where the one that is furthest behind stands, and what the others have already, they leave out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::info::Info;
use super::reply::Entry;
use crate::hub::{Feed, Feeds, Offset, Source};

/// The streams of one session.
#[derive(Default)]
pub(super) struct Table {
    streams: HashMap<Arc<str>, Stream>,
}

struct Stream {
    feeds: Vec<Arc<Feed>>,
    /// Whether it is read on; its logs were held against what there is.
    read: bool,
    /// Whether logs are being opened.
    beginning: bool,
    /// When it is to be begun, if Redis refused it.
    refused: Option<Instant>,
    rank: Option<Rank>,
    looked: Instant,
}

/// How many entries had been added to a stream, up to and with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank {
    pub at: Offset,
    pub added: u64,
}

impl Rank {
    /// Where a stream ends.
    pub(super) fn of(info: &Info) -> Option<Self> {
        Some(Self { at: info.last, added: info.added? })
    }
}

/// A stream whose logs are to be opened.
pub(super) struct Due {
    pub stream: Arc<str>,
    pub feeds: Vec<Arc<Feed>>,
    /// Whether it is read on meanwhile.
    pub read: bool,
}

/// A stream that is read on.
pub(super) struct Reading {
    pub stream: Arc<str>,
    /// Where.
    pub at: Offset,
    /// For whom: their logs have all up to there.
    pub feeds: Vec<Arc<Feed>>,
    rank: Option<Rank>,
}

impl Reading {
    /// How many entries had been added up to this place, where that is known.
    pub(super) fn rank(&self, at: Offset) -> Option<u64> {
        self.rank.filter(|rank| rank.at == at).map(|rank| rank.added)
    }
}

impl Table {
    /// Follows the wanted set.
    pub(super) fn follow(&mut self, wanted: Feeds) {
        let mut wanted: HashMap<_, _> = wanted.into_iter().filter_map(stream).collect();
        self.streams.retain(|name, _| wanted.contains_key(name));
        for (name, feeds) in wanted.drain() {
            self.streams.entry(name).or_insert_with(Stream::new).feeds = feeds;
        }
    }

    /// At most `most` streams whose logs are to be opened now; counted as begun from here on.
    pub(super) fn take_due(&mut self, most: usize) -> Vec<Due> {
        let now = Instant::now();
        let due = self.streams.iter_mut().filter(|(_, stream)| stream.is_due(now));
        due.take(most)
            .map(|(name, stream)| {
                stream.beginning = true;
                Due { stream: Arc::clone(name), feeds: stream.feeds.clone(), read: stream.read }
            })
            .collect()
    }

    /// The logs of a stream are open; `rank` is that of its end then.
    pub(super) fn begun(&mut self, name: &str, rank: Option<Rank>) {
        if let Some(stream) = self.streams.get_mut(name) {
            (stream.beginning, stream.read, stream.refused) = (false, true, None);
            if rank.is_some_and(|rank| stream.position() == Some(rank.at)) {
                stream.rank = rank;
            }
        }
    }

    /// Redis refused a stream, which waits alone. Returns whether that is news.
    pub(super) fn refuse(&mut self, name: &str) -> bool {
        let Some(stream) = self.streams.get_mut(name) else { return false };
        (stream.beginning, stream.read) = (false, false);
        stream.refused.replace(Instant::now() + REFUSED).is_none()
    }

    /// When a stream that was refused is to be tried again.
    pub(super) fn again(&self) -> Option<Instant> {
        let waiting = self.streams.values().filter(|stream| !stream.read && !stream.beginning);
        waiting.filter_map(|stream| stream.refused).min()
    }

    /// Whether all that can be read is.
    pub(super) fn is_settled(&self) -> bool {
        self.streams.values().all(|stream| !stream.beginning && (stream.read || stream.refused.is_some()))
    }

    /// The streams that are read on.
    pub(super) fn reading(&self) -> Vec<Reading> {
        let reading = self.streams.iter().filter(|(_, stream)| stream.read);
        reading.filter_map(|(name, stream)| stream.reading(name)).collect()
    }

    /// Those of them that were not looked at for this long, the first to be looked at first, so many at most.
    pub(super) fn unseen(&self, since: Duration, most: usize) -> Vec<Reading> {
        let mut unseen: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.read && stream.looked.elapsed() >= since)
            .collect();
        unseen.sort_by_key(|(_, stream)| stream.looked);
        unseen.into_iter().filter_map(|(name, stream)| stream.reading(name)).take(most).collect()
    }

    /// Notes what a stream was found to be after `entries` of it were taken in.
    pub(super) fn note(&mut self, reading: &Reading, entries: &[Entry], lost: u64, info: Option<&Info>) {
        let Some(stream) = self.streams.get_mut(&reading.stream) else { return };
        stream.looked = Instant::now();
        let at = entries.last().map_or(reading.at, |last| last.id);
        let counted = reading.rank(reading.at).map(|rank| rank + entries.len() as u64 + lost);
        stream.rank = match info {
            Some(info) if info.last == at => Rank::of(info),
            _ => counted.map(|added| Rank { at, added }),
        };
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            feeds: Vec::new(),
            read: false,
            beginning: false,
            refused: None,
            rank: None,
            looked: Instant::now(),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let unopened = || self.feeds.iter().any(|feed| feed.log.position().is_none());
        !self.beginning && self.refused.is_none_or(|again| again <= now) && (!self.read || unopened())
    }

    fn position(&self) -> Option<Offset> {
        self.feeds.iter().filter_map(|feed| feed.log.position()).map(|position| position.at(0)).min()
    }

    fn reading(&self, name: &Arc<str>) -> Option<Reading> {
        let feeds: Vec<_> = self.feeds.iter().filter(|feed| feed.log.position().is_some()).cloned().collect();
        Some(Reading { stream: Arc::clone(name), at: self.position()?, feeds, rank: self.rank })
    }
}

fn stream((source, feeds): (Source, Vec<Arc<Feed>>)) -> Option<(Arc<str>, Vec<Arc<Feed>>)> {
    match source {
        Source::Stream(name) => Some((name, feeds)),
        _ => None,
    }
}

/// How long a stream that Redis refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);

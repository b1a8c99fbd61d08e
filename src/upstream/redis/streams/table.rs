//! Which streams one connection reads: the table between those who decide what is read where and its
//! [`Reader`](super::reader). A stream is in one table at a time, and takes along what is known of it: what a connection
//! has read of one that left is nobody's, and is read again where it went.
//!
//! Positions are kept by the logs alone: a stream is read on from where the one that is furthest behind stands, and
//! what the others have already, they leave out.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Streams;
use super::begin::Begun;
use super::info::Info;
use super::reply::Entry;
use super::stream::{Carried, Reading, Stream};
use crate::hub::{Feed, Feeds, Source};
use crate::upstream::Broken;
use crate::upstream::link::Link;

/// The streams of one connection.
#[derive(Default)]
pub(in crate::upstream::redis) struct Table {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    streams: HashMap<Arc<str>, Stream>,
    /// How many came so far.
    terms: u64,
}

/// A stream whose logs are to be opened.
pub(super) struct Due {
    pub stream: Arc<str>,
    pub term: u64,
    pub feeds: Vec<Arc<Feed>>,
    /// Whether it is read on meanwhile.
    pub read: bool,
}

/// For those who decide.
impl Table {
    /// Assigns every stream that is wanted, for as long as it runs.
    pub async fn follow_wanted(&self, link: &Link) -> Broken {
        let mut changes = link.wanted().changes();
        loop {
            self.assign(link.wanted().snapshot(), &mut Carried::default());
            if changes.changed().await.is_err() {
                return Broken("the wanted set is gone".to_owned());
            }
        }
    }

    /// Makes the streams among `feeds` what is read here. Those that others had are among `carried`.
    pub fn assign(&self, feeds: Feeds, carried: &mut Carried) {
        let (mut guard, mut news) = (self.inner.lock(), false);
        let Inner { streams, terms } = &mut *guard;
        streams.retain(|name, _| feeds.contains_key(&Source::Stream(Arc::clone(name))));
        for (source, feeds) in feeds {
            let Source::Stream(name) = source else { continue };
            let stream = match streams.entry(name) {
                Slot::Occupied(stream) => stream.into_mut(),
                Slot::Vacant(slot) => {
                    *terms += 1;
                    news = true;
                    let stream = match carried.0.remove(slot.key()) {
                        Some(stream) => stream.moved(*terms),
                        None => Stream::new(*terms),
                    };
                    slot.insert(stream)
                }
            };
            news |= stream.serve(feeds);
        }
        drop(guard);
        // Whoever waits for fewer streams from now on need not be woken for that.
        if news {
            self.changed.notify_one();
        }
    }

    /// Takes away what is to be read elsewhere.
    pub fn withdraw_all_but(&self, keep: impl Fn(&Source) -> bool, carried: &mut Carried) {
        let mut inner = self.inner.lock();
        let leaving = inner.streams.extract_if(|name, _| !keep(&Source::Stream(Arc::clone(name))));
        carried.0.extend(leaving);
    }
}

/// For the reader.
impl Table {
    /// Ends when there may be something else to do.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// At most `most` streams whose logs are to be opened now; counted as begun from here on.
    pub(super) fn take_due(&self, most: usize) -> Vec<Due> {
        let (mut inner, now) = (self.inner.lock(), Instant::now());
        let due = inner.streams.iter_mut().filter(|(_, stream)| stream.is_due(now));
        due.take(most)
            .map(|(name, stream)| {
                stream.beginning = true;
                let (stream_name, feeds) = (Arc::clone(name), stream.feeds.clone());
                Due { stream: stream_name, term: stream.term, feeds, read: stream.read }
            })
            .collect()
    }

    /// Opens the logs of a stream.
    pub(super) fn begun(&self, due: &Due, begun: &Begun, streams: &Streams, link: &Link) {
        self.with(&due.stream, due.term, |stream| {
            begun.open(due, streams, link);
            stream.begun(&begun.info());
        });
    }

    /// A stream is refused, and waits alone for so long. Returns whether that is news.
    pub(super) fn refuse(&self, name: &str, term: u64, wait: Duration) -> bool {
        self.with(name, term, |stream| stream.refuse(wait)).unwrap_or(false)
    }

    /// When a stream that was refused is to be tried again.
    pub(super) fn again(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let waiting = inner.streams.values().filter(|stream| !stream.read && !stream.beginning);
        waiting.filter_map(|stream| stream.refused).min()
    }

    /// Whether all that can be read is.
    pub(super) fn is_settled(&self) -> bool {
        let settled = |stream: &Stream| !stream.beginning && (stream.read || stream.refused.is_some());
        self.inner.lock().streams.values().all(settled)
    }

    /// The streams that are read on.
    pub(super) fn reading(&self) -> Vec<Reading> {
        let inner = self.inner.lock();
        let reading = inner.streams.iter().filter(|(_, stream)| stream.read);
        reading.filter_map(|(name, stream)| stream.reading(name)).collect()
    }

    /// Those of them that were not looked at for this long, the first to be looked at first, so many at most.
    pub(super) fn unseen(&self, since: Duration, most: usize) -> Vec<Reading> {
        let inner = self.inner.lock();
        let is_unseen = |stream: &Stream| stream.read && stream.looked.elapsed() >= since;
        let mut unseen: Vec<_> = inner.streams.iter().filter(|(_, stream)| is_unseen(stream)).collect();
        unseen.sort_by_key(|(_, stream)| stream.looked);
        unseen.into_iter().filter_map(|(name, stream)| stream.reading(name)).take(most).collect()
    }

    /// Appends what was read of a stream that is still here, and what that says of it.
    pub(super) fn take_in(&self, reading: &Reading, entries: &[Entry], info: Option<&Info>, link: &Link) {
        self.with(&reading.stream, reading.term, |stream| stream.take_in(reading, entries, info, link));
    }

    /// Does something with a stream, unless it has left.
    fn with<T>(&self, name: &str, term: u64, work: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let mut inner = self.inner.lock();
        inner.streams.get_mut(name).filter(|stream| stream.term == term).map(work)
    }
}

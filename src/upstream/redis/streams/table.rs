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
        let mut changes = link.changes();
        loop {
            changes.look(|| self.assign(link.wanted().snapshot(), &mut Carried::default()));
            if let Err(gone) = changes.next().await {
                return gone;
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
                let Stream { term, read, .. } = *stream;
                Due { stream: Arc::clone(name), term, feeds: stream.feeds.clone(), read }
            })
            .collect()
    }

    /// Opens the logs of a stream.
    pub(super) fn begun(&self, due: &Due, begun: &Begun, streams: &Streams, link: &Link) {
        self.with(&due.stream, due.term, |stream| {
            begun.open(due, streams, link);
            stream.begun(&begun.info());
            link.tells_lag();
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

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::super::id::{self, EntryCodec};
    use super::super::reply;
    use super::*;
    use crate::hub::{Bounds, FeedKey, Hub, Memory, Offset, Policy, Position};
    use crate::metrics::Metrics;
    use crate::shape::Shape;

    fn at(major: u64) -> Offset {
        Offset { major, minor: 0 }
    }

    fn entry(id: &str) -> Vec<Entry> {
        let entry = Value::Array(vec![Value::BulkString(id.into()), Value::Array(Vec::new())]);
        reply::entries(Value::Array(vec![entry])).unwrap()
    }

    /// A stream of which nothing was trimmed, by its last id and how many were ever added.
    fn info(last: u64, added: u64) -> Info {
        Info { last: at(last), first: Some(at(1)), length: added, added: Some(added) }
    }

    /// A stream that is wanted and has been read up to entry 10, its third.
    struct Rig {
        _hub: Hub,
        link: Arc<Link>,
        feed: Arc<Feed>,
        tables: [Table; 2],
    }

    impl Rig {
        fn new() -> Self {
            let hub = Hub::new([Arc::from("r")], Memory::new(usize::MAX));
            let link = Link::new("r".into(), hub.wanted("r").unwrap(), Metrics::new().upstream("r"));
            let bounds = Bounds { events: 100, bytes: 1 << 20, age: Duration::from_secs(60), buffer: 0 };
            let policy = Policy { bounds, linger: Duration::ZERO, idle_timeout: Duration::ZERO };
            let shape = Shape { control_prefix: "x".into(), ..Shape::default() };
            let key = FeedKey { upstream: "r".into(), source: Source::Stream("s".into()), shape };
            let feed = hub.hold(key, &policy);
            feed.log.open(Arc::new(EntryCodec), Position::single(at(10)));
            let rig = Self { _hub: hub, link, feed, tables: Default::default() };
            rig.tables[0].assign(rig.link.wanted().snapshot(), &mut Carried::default());
            let due = rig.tables[0].take_due(9).remove(0);
            assert!(rig.tables[0].take_due(9).is_empty() && !rig.tables[0].is_settled());
            rig.tables[0].with(&due.stream, due.term, |stream| stream.begun(&info(10, 3)));
            rig
        }

        fn carry(&self, from: usize, to: usize) {
            let mut carried = Carried::default();
            self.tables[from].withdraw_all_but(|_| false, &mut carried);
            self.tables[to].assign(self.link.wanted().snapshot(), &mut carried);
        }

        fn reading(&self, table: usize) -> Reading {
            self.tables[table].reading().remove(0)
        }

        fn position(&self) -> Offset {
            self.feed.log.position().unwrap().at(0)
        }
    }

    #[test]
    fn what_was_read_of_a_stream_that_left_is_nobodys() {
        let rig = Rig::new();
        let early = rig.reading(0);
        rig.carry(0, 1);
        assert!(rig.tables[1].take_due(9).is_empty() && rig.tables[1].is_settled(), "it is read on");
        rig.tables[0].take_in(&early, &entry("20-0"), Some(&info(20, 4)), &rig.link);
        assert_eq!(rig.position(), at(10));
        rig.tables[1].take_in(&rig.reading(1), &entry("20-0"), Some(&info(20, 4)), &rig.link);
        assert_eq!(rig.position(), at(20));
        rig.carry(1, 0);
        // As if another stream were there, which it was before.
        rig.tables[0].take_in(&early, &entry("12-0"), Some(&info(12, 4)), &rig.link);
        assert_eq!(rig.position(), at(20), "it came back, and that was another stay");
        assert!(!rig.tables[0].refuse("s", early.term, Duration::ZERO));
    }

    #[test]
    fn logs_that_were_to_be_opened_here_are_opened_where_the_stream_went() {
        let rig = Rig::new();
        rig.tables[0].refuse("s", rig.reading(0).term, Duration::ZERO);
        let due = rig.tables[0].take_due(9).remove(0);
        rig.carry(0, 1);
        assert_eq!(rig.tables[1].take_due(9).len(), 1);
        assert!(rig.tables[0].with("s", due.term, |_| ()).is_none());
        rig.carry(1, 0);
        assert!(rig.tables[0].with("s", due.term, |_| ()).is_none());
        assert_eq!(rig.tables[0].take_due(9).len(), 1);
    }

    #[test]
    fn a_count_that_went_back_makes_another_stream_unless_another_server_counts() {
        let rig = Rig::new();
        rig.carry(0, 1);
        rig.tables[1].take_in(&rig.reading(1), &[], Some(&info(10, 2)), &rig.link);
        assert_eq!(rig.position(), at(10));
        rig.tables[1].take_in(&rig.reading(1), &[], Some(&info(10, 1)), &rig.link);
        assert_eq!(rig.position(), id::before(at(1)), "it begins anew");
    }
}

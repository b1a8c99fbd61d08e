//! The window of a log that conflates: what has come in and is not appended yet, of each key the newest record alone. It
//! waits for nothing and knows no log; [`super::writer`] fills it, and appends what is left when it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::gap::Reason;
use super::key::{KeyHash, Lies};
use super::memory::{Memory, Reserved};
use super::position::{Mark, Position};
use super::table::Subject;
use crate::config::Conflate;
use crate::shape::Facts;

/// What waits to be appended.
pub struct Window {
    conflate: Conflate,
    /// In the order in which they came; `None` where a newer one of the key stands further on.
    waiting: Vec<Option<Waiting>>,
    /// How many of these are empty.
    empty: usize,
    /// Where the newest of each key stands.
    places: HashMap<KeyHash, usize>,
    /// The log's position once all of it is appended.
    reached: Arc<Position>,
    bytes: usize,
    counted: Reserved,
    /// Whether something came in since it began.
    moved: bool,
    /// How many came in since then, those that were replaced included.
    arrivals: u64,
    /// When something was appended last.
    appended: Option<Instant>,
    /// When it ends, if it is open.
    ends: Option<Instant>,
}

/// A record that waits.
pub struct Waiting {
    /// Its mark; `None` where the log numbers its records itself, which it does as it appends them.
    pub mark: Option<Mark>,
    /// What it makes.
    pub makes: Makes,
    /// When it was published.
    pub published: Option<SystemTime>,
    /// The key of a keyed source, and where that lies.
    pub whose: (Option<KeyHash>, Lies),
    /// What it says to the table.
    pub subject: Option<Subject>,
    /// What is known of its event.
    pub facts: Facts,
}

/// What a record makes.
pub enum Makes {
    /// An event, with this body.
    Event(Vec<u8>),
    /// A gap of the source. Nothing replaces it, and it replaces nothing: what it says would be lost.
    Note(Reason),
    /// Nothing, and so it deletes its key.
    Nothing,
}

/// When a window is to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Now: what it holds is to be appended.
    Now,
    /// Then: it has just been opened.
    At(Instant),
    /// When that comes which is known already.
    Known,
}

impl Window {
    /// An empty one, of a log that stands at `position`.
    pub fn new(conflate: Conflate, position: Arc<Position>, memory: &Arc<Memory>) -> Self {
        Self {
            conflate,
            waiting: Vec::new(),
            empty: 0,
            places: HashMap::new(),
            reached: position,
            bytes: 0,
            counted: memory.count(),
            moved: false,
            arrivals: 0,
            appended: None,
            ends: None,
        }
    }

    /// The log's position once all of it is appended.
    pub fn reached(&self) -> &Arc<Position> {
        &self.reached
    }

    /// The number that the next record has among those that came in since it began.
    pub fn arrival(&self) -> u64 {
        self.arrivals + 1
    }

    /// Goes past a record that makes nothing and deletes nothing.
    pub fn skip(&mut self, mark: Mark) {
        Arc::make_mut(&mut self.reached).advance(mark);
        self.moved = true;
    }

    /// Takes in the next record. Returns whether one of its key had to leave for it.
    pub fn put(&mut self, key: Option<KeyHash>, record: Waiting) -> bool {
        if let Some(mark) = record.mark {
            self.skip(mark);
        }
        self.moved = true;
        self.arrivals += 1;
        self.bytes += record.size();
        let place = self.waiting.len();
        let key = key.filter(|_| !matches!(record.makes, Makes::Note(_)));
        self.waiting.push(Some(record));
        let Some(before) = key.and_then(|key| self.places.insert(key, place)) else { return false };
        self.bytes -= self.waiting[before].take().map_or(0, |before| before.size());
        self.empty += 1;
        if self.empty > SLACK.max(self.waiting.len() / 2) {
            self.close_ranks();
        }
        true
    }

    /// Forgets the places of what was replaced.
    fn close_ranks(&mut self) {
        let mut place = 0;
        let stands = |slot: &Option<Waiting>| {
            let at = place;
            place += usize::from(slot.is_some());
            at
        };
        let moved: Vec<_> = self.waiting.iter().map(stands).collect();
        self.places.values_mut().for_each(|place| *place = moved[*place]);
        self.waiting.retain(Option::is_some);
        self.empty = 0;
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is to become of it once records were put in: a lone one does not wait, and what follows within the window's
    /// length waits for its end.
    pub fn next(&mut self, now: Instant) -> Next {
        self.counted.set(self.bytes);
        if !self.moved || self.ends.is_some() {
            return Next::Known;
        }
        match self.appended.map(|appended| appended + self.conflate.every) {
            Some(ends) if ends > now => {
                self.ends = Some(ends);
                Next::At(ends)
            }
            _ => Next::Now,
        }
    }

    /// Whether it ends at this time.
    pub fn ends_at(&self, at: Instant) -> bool {
        self.ends == Some(at)
    }

    /// Ends it: returns what is left, in the order of the newest of each key.
    pub fn end(&mut self, now: Instant) -> Vec<Waiting> {
        if std::mem::take(&mut self.moved) {
            self.appended = Some(now);
        }
        self.ends = None;
        self.places.clear();
        (self.empty, self.bytes, self.arrivals) = (0, 0, 0);
        self.counted.set(0);
        std::mem::take(&mut self.waiting).into_iter().flatten().collect()
    }

    /// Forgets what it holds, and goes on at `position`.
    pub fn restart(&mut self, position: Arc<Position>) {
        self.end(Instant::now());
        self.reached = position;
    }
}

impl Waiting {
    fn size(&self) -> usize {
        let body = match &self.makes {
            Makes::Event(body) => body.capacity(),
            Makes::Note(_) | Makes::Nothing => 0,
        };
        // Its place, that of its key, and the allocator's share.
        size_of::<Option<Self>>() + 64 + body + self.facts.size()
    }
}

/// Places of what was replaced that are not worth being looked after.
const SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cursor::{Cursor, Read, Wish};
    use super::super::id::{Epoch, EpochCodec};
    use super::super::log::{Appended, Log};
    use super::super::ring::Bounds;
    use super::super::testing::{ROOM, TERMS, shape};
    use super::super::wake::{Linger, Wake};
    use super::*;
    use crate::config::{Digest, Template};
    use crate::shape::{Record, Shape};

    /// A record of this key with this payload; without one it deletes its key.
    struct Of(Option<&'static str>, Option<&'static [u8]>);

    impl Record for Of {
        fn payload(&self) -> Option<&[u8]> {
            self.1
        }

        fn name(&self) -> &str {
            "test"
        }

        fn key(&self) -> Option<&[u8]> {
            self.0.map(str::as_bytes)
        }
    }

    const EVERY: Duration = Duration::from_millis(250);

    fn conflating(bounds: Bounds, memory: &Arc<Memory>) -> (Arc<Log>, Cursor) {
        conflating_as(shape(), bounds, memory)
    }

    fn conflating_as(shape: Shape, bounds: Bounds, memory: &Arc<Memory>) -> (Arc<Log>, Cursor) {
        let linger = Linger::new();
        let ticker = Arc::clone(&linger);
        tokio::spawn(async move { ticker.run().await });
        let conflate = Conflate { by: Template::parse("{key}").unwrap(), every: EVERY };
        let digest = Digest { conflate: Some(conflate), ..Digest::default() };
        let shape = Shape { digest: digest.into(), ..shape };
        let log = Log::new(shape, false, bounds, memory, Wake::new(Duration::ZERO, linger));
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        let mut cursor = Cursor::new(Wish::default(), TERMS);
        assert!(matches!(log.read(&mut cursor, 1_000), Read::Control { .. }));
        (log, cursor)
    }

    fn put(log: &Log, key: &'static str, payload: &'static str) -> Appended {
        log.append([(None, Of(Some(key), Some(payload.as_bytes())))])
    }

    /// All that there is to read: data, reasons of gaps, and the number of the last id.
    fn told(log: &Log, cursor: &mut Cursor) -> (Vec<String>, String) {
        let (mut told, mut id) = (Vec::new(), String::new());
        while let Read::Slice { bytes, .. } = log.read(cursor, 1 << 20) {
            for line in str::from_utf8(&bytes).unwrap().lines() {
                if let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "{}") {
                    let reason = data.strip_prefix("{").and_then(|gap| gap.split("reason\":\"").nth(1));
                    told.push(reason.map_or(data, |reason| reason.split('"').next().unwrap()).to_owned());
                } else if let Some((_, number)) = line.strip_prefix("id: ").and_then(|id| id.split_once('-'))
                {
                    number.clone_into(&mut id);
                }
            }
        }
        (told, id)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_record_leaves_at_once_and_of_the_others_the_newest_at_the_windows_end() {
        let (log, mut cursor) = conflating(Bounds { buffer: 1 << 20, ..ROOM }, &Memory::new(usize::MAX));
        put(&log, "a", "a1");
        assert_eq!(told(&log, &mut cursor), (vec!["a1".into()], "1".into()));
        let replaced: u64 = [("a", "a2"), ("b", "b1"), ("a", "a3"), ("c", "c1"), ("b", "b2")]
            .map(|(key, text)| put(&log, key, text).replaced)
            .iter()
            .sum();
        assert_eq!((replaced, log.replaced()), (2, Some(2)));
        assert_eq!(told(&log, &mut cursor).0, Vec::<String>::new());
        let woken = log.wake().next();
        woken.await;
        assert_eq!(told(&log, &mut cursor), (vec!["a3".into(), "c1".into(), "b2".into()], "4".into()));
        // The next window begins where that one ended.
        put(&log, "a", "a4");
        assert_eq!(told(&log, &mut cursor).0.len(), 0);
        tokio::time::sleep(2 * EVERY).await;
        assert_eq!(told(&log, &mut cursor).0, ["a4"]);
        put(&log, "a", "a5");
        assert_eq!(told(&log, &mut cursor).0, ["a5"], "a lone one again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_key_and_what_is_a_gap_is_not_replaced() {
        let (log, mut cursor) = conflating(Bounds { buffer: 1 << 20, ..ROOM }, &Memory::new(usize::MAX));
        put(&log, "x", "first");
        told(&log, &mut cursor);
        let broken = |key| Of(Some(key), Some(b"\xff"));
        let nameless = || Of(None, Some(b"nameless"));
        let of = |key, text: &'static [u8]| Of(Some(key), Some(text));
        let all = [
            of("a", b"a1"),
            nameless(),
            broken("a"),
            of("a", b"a2"),
            nameless(),
            broken("b"),
            of("b", b"b1"),
        ];
        let appended = log.append(all.map(|record| (None, record)));
        assert_eq!((appended.events, appended.replaced, appended.gaps.len()), (7, 1, 2));
        log.append_link_lost((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
        let expected = ["nameless", "undecodable", "a2", "nameless", "undecodable", "b1", "upstream_lost"];
        assert_eq!(told(&log, &mut cursor).0, expected, "and what waits comes before a link is told lost");
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_and_where_the_source_moves_on_what_waits_is_not_passed_over() {
        let (log, mut cursor) = conflating(Bounds { buffer: 1 << 20, ..ROOM }, &Memory::new(usize::MAX));
        let numbered = |next, key| log.append([(Some(Mark::new(0, next)), Of(Some(key), Some(b"x")))]);
        numbered(1, "a");
        numbered(2, "b");
        log.move_on(Mark::new(0, 9));
        numbered(5, "c");
        assert_eq!(told(&log, &mut cursor), (vec!["x".into()], "1".into()));
        log.ends();
        assert_eq!(
            told(&log, &mut cursor),
            (vec!["x".into()], "2".into()),
            "of what it had moved past there is none"
        );
        assert_eq!(log.position().unwrap().next(0), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tombstone_replaces_like_others() {
        let (log, mut cursor) = conflating(Bounds { buffer: 1 << 20, ..ROOM }, &Memory::new(usize::MAX));
        put(&log, "x", "first");
        told(&log, &mut cursor);
        put(&log, "a", "a1");
        put(&log, "b", "b1");
        let appended = log.append([(None, Of(Some("a"), None))]);
        assert_eq!((appended.events, appended.replaced), (0, 1));
        tokio::time::sleep(2 * EVERY).await;
        assert_eq!(told(&log, &mut cursor), (vec!["b1".into()], "2".into()), "and takes no number");
    }

    #[tokio::test(start_paused = true)]
    async fn what_names_events_as_cloud_events_names_no_two_that_are_sent() {
        let memory = Memory::new(usize::MAX);
        let wrap = Some(crate::shape::Wrap::CloudEvent("up".into()));
        let (log, mut cursor) =
            conflating_as(Shape { wrap, ..shape() }, Bounds { buffer: 1 << 20, ..ROOM }, &memory);
        let mut ids = Vec::new();
        for round in 0..3 {
            ["a", "b", "a", "c"].iter().for_each(|&key| _ = put(&log, key, "x"));
            tokio::time::sleep(2 * EVERY).await;
            for data in told(&log, &mut cursor).0 {
                let event: serde_json::Value = serde_json::from_str(&data).unwrap();
                ids.push(event["id"].as_str().unwrap().to_owned());
            }
            // The first of each round is a lone one.
            assert_eq!(ids.len(), 4 * round + 4);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_is_full_ends_early_and_counts_as_memory() {
        let memory = Memory::new(usize::MAX);
        let (log, mut cursor) = conflating(Bounds { buffer: 4_000, ..ROOM }, &memory);
        put(&log, "x", "first");
        let before = memory.used();
        put(&log, "a", "a1");
        assert!(memory.used() > before && memory.used() == log.held().bytes);
        let names: Vec<_> = (0..100).map(|n| -> &'static str { format!("k{n}").leak() }).collect();
        names.iter().for_each(|&name| _ = put(&log, name, name));
        let early = told(&log, &mut cursor).0.len();
        assert!((10..102).contains(&early), "{early} left before time");
        tokio::time::sleep(2 * EVERY).await;
        assert_eq!(told(&log, &mut cursor).0.len() + early, 102);
        assert_eq!(memory.used(), log.held().bytes);
        put(&log, "y", "y1");
        put(&log, "z", "z1");
        drop((log, cursor));
        assert_eq!(memory.used(), 0);
    }

    /// A record that nobody can read.
    enum Faulty {
        Sound(&'static str),
        Broken,
    }

    impl Record for Faulty {
        fn payload(&self) -> Option<&[u8]> {
            match self {
                Self::Sound(text) => Some(text.as_bytes()),
                Self::Broken => panic!("on purpose"),
            }
        }

        fn name(&self) -> &str {
            "test"
        }

        fn key(&self) -> Option<&[u8]> {
            match self {
                Self::Sound(text) => Some(text.as_bytes()),
                Self::Broken => None,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_panics_takes_nothing_along_that_left_a_full_window() {
        let (log, mut cursor) = conflating(Bounds { buffer: 4_000, ..ROOM }, &Memory::new(usize::MAX));
        put(&log, "x", "first");
        told(&log, &mut cursor);
        let names: Vec<_> = (0..100).map(|n| -> &'static str { format!("k{n}").leak() }).collect();
        let records = names.iter().map(|name| Faulty::Sound(name)).chain([Faulty::Broken]);
        let append = || log.append(records.map(|record| (None, record)));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(append)).is_err());
        let early = told(&log, &mut cursor);
        assert!(early.0.len() > 10, "{early:?} left before time");
        put(&log, "y", "last");
        tokio::time::sleep(2 * EVERY).await;
        let late = told(&log, &mut cursor);
        let all: Vec<_> = early.0.into_iter().chain(late.0).collect();
        let expected = names.iter().copied().chain(["last"]);
        assert!(all.iter().map(String::as_str).eq(expected), "nothing missing, nothing twice: {all:?}");
        assert_eq!(late.1, "102");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_changes_without_end_takes_no_more_room_than_once() {
        let (log, mut cursor) = conflating(Bounds { buffer: 1 << 20, ..ROOM }, &Memory::new(usize::MAX));
        put(&log, "x", "first");
        told(&log, &mut cursor);
        put(&log, "b", "b1");
        (0..10_000).for_each(|_| _ = put(&log, "a", "a"));
        assert_eq!(log.replaced(), Some(9_999));
        tokio::time::sleep(2 * EVERY).await;
        assert_eq!(told(&log, &mut cursor).0, ["b1", "a"]);
    }
}

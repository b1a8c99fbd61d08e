//! Chunks: the unit of memory and eviction. A chunk is the encoded bytes of some events in a row, and an
//! index that tells where each begins and what position it carries.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::key::{KeyHash, Keyed};
use super::position::{Mark, Position};
use crate::shape::{FOR_ALL, Facts};

/// The number of an entry in its log, from 0 on. Unlike a position it means nothing outside this process.
pub type Seq = u64;

/// Encoded events in a row.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the first entry.
    pub first: Seq,
    /// The entries in order; at least one.
    pub entries: Box<[Entry]>,
    /// Their keys, in the log of a keyed source; else empty.
    pub keys: Box<[Keyed]>,
    /// What is known of them for the filters of clients, where these have such; else empty.
    pub facts: Box<[Facts]>,
    /// The events as they are sent, each its body and then its id block.
    pub bytes: Bytes,
    /// The log's position before the first entry.
    pub start: Arc<Position>,
    /// The log's position after the last entry, which is what the last id says.
    pub end: Arc<Position>,
    /// When it was appended.
    pub at: Instant,
    /// When its first event was published, by the upstream's clock; when it was appended where that does not tell.
    pub published: Instant,
    /// Bytes that the log had taken in before it, since it was made.
    pub before: u64,
}

/// When events came about, the oldest of them to be exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When they were published.
    pub published: Instant,
    /// When they came in.
    pub arrived: Instant,
}

/// One event in a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Where its body begins, in bytes of the chunk; it ends where its id block begins.
    pub body: u32,
    /// Where its id block begins; it ends where the next entry's body begins.
    pub id: u32,
    /// The step that reading it takes.
    pub mark: Mark,
    /// Whether it is a gap that happened to the source, and no record.
    pub note: bool,
    /// Whether its id names the home of its key alone, and not all partitions.
    pub at_home: bool,
}

/// Where a method takes a place in the chunk, that is counted from its first entry; the place after the last
/// is its end.
impl Chunk {
    /// The number after the last entry.
    pub fn next(&self) -> Seq {
        self.first + self.entries.len() as Seq
    }

    /// Bytes that count against history, buffer and memory: content, index and bookkeeping.
    pub fn size(&self) -> usize {
        self.bytes.len() + overhead(&self.entries, &self.keys, &self.facts, &self.end)
    }

    /// When its events came about.
    pub fn times(&self) -> Times {
        Times { published: self.published, arrived: self.at }
    }

    /// Whether it holds an event, and not only gaps of the source.
    pub fn holds_events(&self) -> bool {
        self.entries.iter().any(|entry| !entry.note)
    }

    /// Where the entry at `place` begins.
    pub fn offset(&self, place: usize) -> usize {
        self.entries.get(place).map_or(self.bytes.len(), |entry| entry.body as usize)
    }

    /// What is known of the entry at `place`.
    pub fn facts(&self, place: usize) -> &Facts {
        self.facts.get(place).unwrap_or(&FOR_ALL)
    }

    /// Bytes of the entry at `place`.
    pub fn length(&self, place: usize) -> usize {
        self.offset(place + 1) - self.offset(place)
    }

    /// The last place up to which the events from `start` on, and before `end`, have at most `room` bytes.
    pub fn fitting(&self, start: usize, end: usize, room: usize) -> usize {
        let most = self.offset(start).saturating_add(room);
        // Each entry begins where the one before it ends.
        let within = self.entries[start..end].partition_point(|entry| entry.body as usize <= most);
        if self.offset(end) <= most { end } else { start + within.saturating_sub(1) }
    }

    /// The whole event at `place`, with the log's id.
    pub fn event(&self, place: usize) -> Bytes {
        self.bytes.slice(self.offset(place)..self.offset(place + 1))
    }

    /// Whether the entry at `place` is for readers of this key: it is the key's own, or a gap of everyone's.
    pub fn concerns(&self, place: usize, key: KeyHash) -> bool {
        self.keys.get(place).is_some_and(|keyed| match keyed.hash {
            Some(hash) => hash == key,
            None => self.entries[place].note,
        })
    }

    /// The body of the entry at `place`.
    pub fn body(&self, place: usize) -> Bytes {
        self.bytes.slice(self.offset(place)..self.entries[place].id as usize)
    }

    /// Bytes that the log had taken in before the entry at `place`.
    pub fn taken_before(&self, place: usize) -> u64 {
        let within = if place == self.entries.len() { self.size() } else { self.offset(place) };
        self.before + within as u64
    }

    /// The log's position before the entry at `place`; short of it where records between the entries made no
    /// event.
    pub fn position_before(&self, place: usize) -> Arc<Position> {
        if place == self.entries.len() {
            return Arc::clone(&self.end);
        }
        let mut position = Position::clone(&self.start);
        self.entries[..place].iter().for_each(|entry| position.advance(entry.mark));
        position.into()
    }

    /// Moves `position` past the entry at `place`: by its mark, or to the end of the chunk if it is the last.
    pub fn step(&self, position: &mut Position, place: usize) {
        if place + 1 == self.entries.len() {
            position.merge(&self.end);
        } else {
            position.advance(self.entries[place].mark);
        }
    }
}

/// What a chunk with these entries costs beside its bytes: the structs, their counters, the allocator's share.
pub fn overhead(entries: &[Entry], keys: &[Keyed], facts: &[Facts], end: &Position) -> usize {
    // A key has its place in the index as well.
    let keys = size_of_val(keys) + 64 * keys.len();
    let facts = size_of_val(facts) + facts.iter().map(Facts::size).sum::<usize>();
    size_of::<Chunk>() + 160 + size_of_val(entries) + keys + facts + size_of_val(end.as_slice())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::cursor::{Cursor, Read, Wish};
    use super::super::id::{Epoch, EpochCodec};
    use super::super::log::Log;
    use super::super::testing::{ROOM, TERMS, Text, log};
    use super::*;
    use crate::shape::Record;

    struct Dated(SystemTime);

    impl Record for Dated {
        fn payload(&self) -> Option<&[u8]> {
            Some(b"text")
        }
        fn name(&self) -> &str {
            "test"
        }
        fn timestamp(&self) -> Option<SystemTime> {
            Some(self.0)
        }
    }

    fn opened() -> (Arc<Log>, Cursor) {
        let (log, mut cursor) = (log(ROOM), Cursor::new(Wish::default(), TERMS));
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        assert!(matches!(log.read(&mut cursor, 1_000), Read::Control { .. }));
        (log, cursor)
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_as_old_as_the_first_that_came_with_them_says() {
        let (log, mut cursor) = opened();
        let mut age = |log: &Log| match log.read(&mut cursor, 1_000) {
            Read::Slice { times: Some(times), .. } => {
                (times.arrived.elapsed(), (times.arrived - times.published).as_secs())
            }
            other => panic!("not a slice: {other:?}"),
        };
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        log.append([(None, Text("text"))]);
        tokio::time::advance(second).await;
        assert_eq!(age(&log), (second, 0), "it is as old as its coming in");
        let now = SystemTime::now();
        log.append([now - 5 * second, now - day].map(|time| (None, Dated(time))));
        log.append([(None, Dated(now - day))]);
        assert_eq!(age(&log), (Duration::ZERO, 5));
        log.append([(None, Dated(now + day))]);
        assert_eq!(age(&log), (Duration::ZERO, 0), "a clock that is ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_ends_with_an_event_and_not_with_a_gap() {
        let second = Duration::from_secs(1);
        let (log, _) = opened();
        tokio::time::advance(second).await;
        assert_eq!(log.silent_for(), second);
        log.append_link_lost((SystemTime::now(), SystemTime::now()));
        assert_eq!(log.silent_for(), second);
        log.append([(None, Text("text"))]);
        assert_eq!(log.silent_for(), Duration::ZERO);
        tokio::time::advance(2 * second).await;
        log.restart(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::new(vec![7]));
        assert_eq!(log.silent_for(), 2 * second);
    }
}

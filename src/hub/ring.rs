//! The bounded ring of chunks: what a log holds, how it lets go, and where a reader finds its place. Pure:
//! it waits for nobody and tells the time from its arguments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::chunk::{Chunk, Seq};
use super::key::{Index, KeyHash};
use super::memory::Memory;
use super::position::{Mark, Offset, Position};
use super::run::{Run, Runs};
use super::writer::Batch;

/// How much a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events kept for resuming.
    pub events: usize,
    /// Bytes kept for resuming.
    pub bytes: usize,
    /// How long events are kept for resuming.
    pub age: Duration,
    /// Bytes of lag room, kept beyond the above while there are readers.
    pub buffer: usize,
}

impl Bounds {
    /// The larger of each, for a feed that two routes share.
    pub fn max(self, other: Self) -> Self {
        Self {
            events: self.events.max(other.events),
            bytes: self.bytes.max(other.bytes),
            age: self.age.max(other.age),
            buffer: self.buffer.max(other.buffer),
        }
    }
}

/// The chunks of a log, oldest first.
pub struct Ring {
    chunks: VecDeque<Chunk>,
    /// What was made of them for joined readers.
    runs: Runs,
    /// The entries of each key, if the source is keyed.
    index: Option<Index>,
    /// Bytes of the chunks.
    bytes: usize,
    /// The number after the newest entry.
    head: Seq,
    /// When the newest event came in.
    newest: Option<Instant>,
    /// The number of the oldest entry held, and the position before it.
    floor: (Seq, Arc<Position>),
    /// The position after the newest record, whether it made an event or not.
    position: Arc<Position>,
    /// The newest of the source's own gaps that was let go.
    evicted_note: Option<(Seq, Mark)>,
    /// Bytes taken in since the log was made, and how many of them the foremost reader has passed.
    taken: u64,
    passed: u64,
    /// The number of the first entry since the source was created anew.
    restarted: Seq,
}

impl Ring {
    /// An empty ring whose first entry will be number 0.
    pub fn new(position: Position, keyed: bool, memory: Arc<Memory>) -> Self {
        let position = Arc::new(position);
        Self {
            chunks: VecDeque::new(),
            runs: Runs::new(memory),
            index: keyed.then(Index::default),
            bytes: 0,
            head: 0,
            newest: None,
            floor: (0, Arc::clone(&position)),
            position,
            evicted_note: None,
            taken: 0,
            passed: 0,
            restarted: 0,
        }
    }

    /// Takes in what one append made. Returns what wakes the readers of its keys.
    pub fn push(&mut self, batch: Batch) -> Vec<Arc<Notify>> {
        let mut wakes = Vec::new();
        for mut chunk in batch.chunks {
            if let Some(index) = &mut self.index {
                index_chunk(index, &mut chunk, &mut wakes);
            }
            self.bytes += chunk.size();
            self.taken = chunk.taken_before(chunk.entries.len());
            self.head = chunk.next();
            self.newest = if chunk.holds_events() { Some(chunk.at) } else { self.newest };
            self.chunks.push_back(chunk);
        }
        self.position = batch.position;
        if self.index.is_some() {
            // Each reader looks at few of the entries: none of them is foremost.
            self.passed_all();
        }
        wakes
    }

    /// The entries from `from` on that are for readers of a key, in order; `None` if one of them was let go.
    pub fn of_key(&self, key: KeyHash, from: Seq) -> Option<Vec<Seq>> {
        let index = self.index.as_ref()?;
        let mut seqs = Vec::new();
        let mut at = index.latest(key);
        while let Some(seq) = at.filter(|&seq| seq >= from) {
            let (chunk, place) = self.find(seq)?;
            seqs.push(seq);
            at = chunk.keys[place].before;
        }
        seqs.reverse();
        let own = seqs.len();
        for seq in index.to_all_from(from) {
            self.find(seq)?;
            seqs.push(seq);
        }
        if seqs.len() > own {
            seqs.sort_unstable();
        }
        Some(seqs)
    }

    /// The index of a keyed source, and the number of the oldest entry held.
    pub fn index(&mut self) -> Option<(&mut Index, Seq)> {
        let floor = self.floor.0;
        self.index.as_mut().map(|index| (index, floor))
    }

    /// Lets go of chunks beyond the history, except those that are lag room for readers.
    pub fn evict(&mut self, bounds: &Bounds, attended: bool, now: Instant) {
        while let Some(oldest) = self.chunks.front() {
            let newer = (self.head - oldest.next()) as usize;
            let history = newer < bounds.events
                && self.bytes <= bounds.bytes
                && now.duration_since(oldest.at) <= bounds.age;
            let lag_room = attended && self.bytes - oldest.size() < bounds.buffer;
            if history || lag_room {
                break;
            }
            self.evict_oldest();
        }
        if !attended {
            self.runs.forget();
        }
    }

    /// Lets go of the oldest chunk, whatever the bounds say; returns its size.
    pub fn evict_oldest(&mut self) -> usize {
        let Some(oldest) = self.chunks.pop_front() else { return 0 };
        if let Some(at) = oldest.entries.iter().rposition(|entry| entry.note) {
            self.evicted_note = Some((oldest.first + at as Seq, oldest.entries[at].mark));
        }
        if let Some(index) = &mut self.index {
            for (keyed, seq) in oldest.keys.iter().zip(oldest.first..) {
                keyed.hash.into_iter().for_each(|hash| index.evicted(hash, seq));
            }
            index.evicted_to_all(oldest.next());
        }
        self.floor = (oldest.next(), Arc::clone(&oldest.end));
        self.runs.forget_before(self.floor.0);
        self.bytes -= oldest.size();
        oldest.size()
    }

    /// Forgets everything, and goes on at `position` one number after the head: every reader finds itself
    /// behind.
    pub fn restart(&mut self, position: Position) {
        let position = Arc::new(position);
        self.head += 1;
        self.chunks.clear();
        self.runs.forget();
        self.index.iter_mut().for_each(Index::restart);
        self.bytes = 0;
        self.floor = (self.head, Arc::clone(&position));
        self.position = position;
        self.evicted_note = None;
        self.restarted = self.head;
    }

    /// Whether the source was created anew since entry `seq` was the next to come.
    pub fn restarted_since(&self, seq: Seq) -> bool {
        seq < self.restarted
    }

    /// The number after the newest entry.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// When the newest event came in, whether it is still held or not.
    pub fn newest(&self) -> Option<Instant> {
        self.newest
    }

    /// The number of the oldest entry held.
    pub fn floor(&self) -> Seq {
        self.floor.0
    }

    /// The position before the oldest entry held.
    pub fn floor_position(&self) -> &Arc<Position> {
        &self.floor.1
    }

    /// The position after the newest record.
    pub fn position(&self) -> &Arc<Position> {
        &self.position
    }

    /// Bytes held, those of runs included.
    pub fn bytes(&self) -> usize {
        self.bytes + self.runs.bytes()
    }

    /// Entries held.
    pub fn events(&self) -> usize {
        (self.head() - self.floor()) as usize
    }

    /// Whether a gap of the source itself was let go among the entries from `seq` on.
    pub fn evicted_note_since(&self, seq: Seq) -> bool {
        self.evicted_note.is_some_and(|(at, _)| at >= seq)
    }

    /// The same, for entries that a reader at `position` has not read.
    pub fn evicted_note_beyond(&self, position: &Position) -> bool {
        self.evicted_note.is_some_and(|(_, mark)| !position.covers(mark))
    }

    /// The chunk that holds entry `seq`, and its place there. `None` at the head, and below the floor.
    pub fn find(&self, seq: Seq) -> Option<(&Chunk, usize)> {
        let chunk = &self.chunks[self.index_of(seq)?];
        Some((chunk, (seq - chunk.first) as usize))
    }

    /// Which chunk holds entry `seq`.
    fn index_of(&self, seq: Seq) -> Option<usize> {
        let newest = self.chunks.back()?;
        if seq >= newest.first {
            return (seq < newest.next()).then(|| self.chunks.len() - 1);
        }
        (seq >= self.floor.0).then(|| self.chunks.partition_point(|chunk| chunk.next() <= seq))
    }

    /// What a joined reader is given that stands before entry `from`, of the entries before `until`: at most `max`
    /// bytes unless a single event is larger. `None` if there is nothing.
    pub fn run(&mut self, from: Seq, until: Seq, max: usize, now: Instant) -> Option<Run> {
        let until = match self.runs.after(from) {
            Some(run) if run.from == from && (run.bytes.len() <= max || run.events() == 1) => {
                return Some(run.clone());
            }
            // Where the one ends, or the next one begins, the others stand.
            Some(run) if run.from <= from => run.to,
            Some(run) => run.from,
            None => until,
        };
        let first = self.index_of(from).filter(|_| from < until)?;
        self.runs.make(self.chunks.range(first..), (from, until), max, now)
    }

    /// Lets go of what was made for readers who have it by now.
    pub fn forget_old_runs(&mut self, now: Instant) {
        self.runs.forget_old(now);
    }

    /// Lets go of what was made for readers; returns its size.
    pub fn forget_runs(&mut self) -> usize {
        self.runs.forget()
    }

    /// The number of the first entry that `position` does not cover. Entries after it may be covered.
    pub fn first_uncovered(&self, position: &Position) -> Seq {
        let at = self.chunks.partition_point(|chunk| position.covers_all(&chunk.end));
        self.chunks.get(at).map_or(self.head(), |chunk| {
            let covered = chunk.entries.iter().take_while(|entry| position.covers(entry.mark)).count();
            chunk.first + covered as Seq
        })
    }

    /// The number of an entry before which all is covered by a reader that stands at `next` in this partition.
    pub fn covered_before(&self, partition: u32, next: Offset) -> Seq {
        let at = self.chunks.partition_point(|chunk| chunk.end.at(partition) <= next);
        self.chunks.get(at).map_or(self.head(), |chunk| chunk.first)
    }

    /// The number of the first entry that is younger than `age`.
    pub fn first_younger(&self, age: Duration, now: Instant) -> Seq {
        let at = self.chunks.partition_point(|chunk| now.duration_since(chunk.at) > age);
        self.chunks.get(at).map_or(self.head(), |chunk| chunk.first)
    }

    /// The log's position before entry `seq`, which is held or the head; see [`Chunk::position_before`].
    pub fn position_before(&self, seq: Seq) -> Arc<Position> {
        match self.find(seq) {
            Some((chunk, place)) => chunk.position_before(place),
            None => Arc::clone(&self.position),
        }
    }

    /// Whether a gap of the source itself is held among the entries `from..to`.
    pub fn note_within(&self, from: Seq, to: Seq) -> bool {
        let chunks = self.chunks.iter().filter(|chunk| chunk.next() > from && chunk.first < to);
        chunks
            .flat_map(|chunk| chunk.entries.iter().zip(chunk.first..))
            .any(|(entry, seq)| entry.note && (from..to).contains(&seq))
    }

    /// Notes that a reader has passed the first `bytes` that were taken in.
    pub fn passed(&mut self, bytes: u64) {
        self.passed = self.passed.max(bytes);
    }

    /// Notes that a reader stands at the head.
    pub fn passed_all(&mut self) {
        self.passed = self.taken;
    }

    /// Bytes that not even the foremost reader has taken.
    pub fn unread(&self) -> u64 {
        self.taken.saturating_sub(self.passed)
    }
}

/// Links the entries of a chunk to those of the same key before them.
fn index_chunk(index: &mut Index, chunk: &mut Chunk, wakes: &mut Vec<Arc<Notify>>) {
    for (place, keyed) in chunk.keys.iter_mut().enumerate() {
        let seq = chunk.first + place as Seq;
        match keyed.hash {
            Some(hash) => {
                let (before, wake) = index.appended(hash, seq);
                keyed.before = before;
                wakes.extend(wake);
            }
            None if chunk.entries[place].note => {
                index.appended_to_all(seq);
                wakes.extend(index.all_wakes());
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::Entry;
    use super::super::testing::ROOM;
    use super::super::writer::LeftOut;
    use super::*;

    /// Appends one chunk with so many entries and bytes of content.
    fn push(ring: &mut Ring, entries: u64, bytes: usize, note: bool) {
        let mark = |next: u64| Mark::new(0, next);
        let (first, start) = (ring.head(), Arc::clone(ring.position()));
        let before = start.next(0);
        let entry = |n| Entry { body: 0, id: 0, mark: mark(before + n), note, at_home: false };
        let end = Arc::new(Position::new(vec![before + entries]));
        let chunk = Chunk {
            first,
            entries: (1..=entries).map(entry).collect(),
            keys: Box::default(),
            facts: Box::default(),
            bytes: vec![0; bytes].into(),
            start,
            end: Arc::clone(&end),
            at: Instant::now(),
            published: Instant::now(),
            before: ring.taken,
        };
        ring.push(Batch {
            chunks: vec![chunk],
            position: end,
            events: entries,
            notes: Vec::new(),
            replaced: 0,
            left_out: LeftOut::default(),
            ends: None,
            changes: Vec::new(),
        });
    }

    fn empty() -> Ring {
        Ring::new(Position::default(), false, Memory::new(usize::MAX))
    }

    fn ring(chunks: &[(u64, usize)]) -> Ring {
        let mut ring = empty();
        chunks.iter().for_each(|&(entries, bytes)| push(&mut ring, entries, bytes, false));
        ring
    }

    /// Evicts, and returns the number of the oldest entry left.
    fn floor(ring: &mut Ring, bounds: Bounds, attended: bool) -> Seq {
        ring.evict(&bounds, attended, Instant::now());
        assert_eq!(ring.floor_position().next(0), ring.floor());
        ring.floor()
    }

    #[tokio::test]
    async fn whole_chunks_go_and_at_least_the_history_stays() {
        let mut ring = ring(&[(3, 1), (3, 1), (3, 1)]);
        let events = |events| Bounds { events, ..ROOM };
        assert_eq!(floor(&mut ring, events(9), false), 0);
        assert_eq!(floor(&mut ring, events(7), false), 0, "six would be too few");
        assert_eq!(floor(&mut ring, events(6), false), 3);
        assert_eq!(floor(&mut ring, events(1), false), 6);
        assert_eq!((ring.events(), ring.position_before(7).next(0)), (3, 7));
        assert_eq!(floor(&mut ring, events(0), false), 9);
        assert_eq!((ring.events(), ring.bytes()), (0, 0));
    }

    #[tokio::test]
    async fn no_more_bytes_are_kept_for_resuming_than_the_bound() {
        let mut ring = ring(&[(1, 1_000), (1, 2_000), (1, 500)]);
        let two = ring.chunks[1].size() + ring.chunks[2].size();
        assert_eq!(floor(&mut ring, Bounds { bytes: two, ..ROOM }, false), 1);
        assert_eq!(ring.bytes(), two);
        assert_eq!(floor(&mut ring, Bounds { bytes: two - 1, ..ROOM }, false), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_bound_goes() {
        let mut ring = ring(&[(1, 1)]);
        tokio::time::advance(Duration::from_secs(5)).await;
        push(&mut ring, 1, 1, false);
        let age = |secs| Bounds { age: Duration::from_secs(secs), ..ROOM };
        assert_eq!(floor(&mut ring, age(5), false), 0);
        assert_eq!(ring.first_younger(Duration::from_secs(4), Instant::now()), 1);
        assert_eq!(floor(&mut ring, age(4), false), 1);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(floor(&mut ring, age(4), false), 2);
    }

    #[tokio::test]
    async fn lag_room_is_kept_while_there_are_readers() {
        let mut ring = ring(&[(1, 1_000), (1, 1_000), (1, 1_000)]);
        let one = ring.chunks[0].size();
        let none = Bounds { events: 0, bytes: 0, age: Duration::ZERO, buffer: 0 };
        assert_eq!(floor(&mut ring, Bounds { buffer: 2 * one + 1, ..none }, true), 0);
        assert_eq!(floor(&mut ring, Bounds { buffer: 2 * one, ..none }, true), 1);
        assert_eq!(
            floor(&mut ring, Bounds { buffer: 1, ..none }, true),
            2,
            "the newest fills the room alone"
        );
        assert_eq!(floor(&mut ring, Bounds { buffer: usize::MAX, ..none }, false), 3);
    }

    #[tokio::test]
    async fn a_place_is_found_for_every_entry_held() {
        let mut ring = ring(&[(2, 1), (1, 1), (3, 1)]);
        ring.evict_oldest();
        let place = |seq| ring.find(seq).map(|(chunk, place)| (chunk.first, place));
        assert_eq!([0, 1].map(place), [None, None], "below the floor");
        assert_eq!([2, 3, 4, 5].map(place), [Some((2, 0)), Some((3, 0)), Some((3, 1)), Some((3, 2))]);
        assert_eq!([6, 7].map(place), [None, None], "the head");
        let uncovered = |next| ring.first_uncovered(&Position::new(vec![next]));
        assert_eq!([0, 2, 3, 5, 6, 9].map(uncovered), [2, 2, 3, 5, 6, 6]);
    }

    #[tokio::test]
    async fn the_newest_note_let_go_is_remembered() {
        let mut ring = empty();
        push(&mut ring, 1, 1, false);
        push(&mut ring, 2, 1, true);
        push(&mut ring, 1, 1, false);
        assert_eq!(
            [(0, 1), (0, 2), (2, 3), (3, 4)].map(|(a, b)| ring.note_within(a, b)),
            [false, true, true, false]
        );
        assert!(!ring.evicted_note_since(0));
        (0..3).for_each(|_| _ = ring.evict_oldest());
        assert_eq!([0, 2, 3].map(|seq| ring.evicted_note_since(seq)), [true, true, false]);
        let beyond = |next| ring.evicted_note_beyond(&Position::new(vec![next]));
        assert_eq!([0, 2, 3].map(beyond), [true, true, false]);
    }
}

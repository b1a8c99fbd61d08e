//! Runs: what joined readers are given. A run is the events from one entry on, as far as readers have been woken for,
//! in one piece of bytes: made by the first reader that asks, and given by pointer to every other that stands where it
//! begins. Who stands within one is given its rest, and stands with the others from then on. For clients that accept a
//! content coding a run has a packed form, which is made once, too.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::chunk::{Chunk, Seq, Times};
use super::memory::Memory;
use super::position::Position;
use super::sieve::Contents;
use crate::compress::{Encoding, Packed};
use crate::shape::Facts;

/// Bytes that are joined at most; a single chunk may hold more.
const LENGTH: usize = 24 * 1024;

/// Runs that are kept, for readers that are a little behind the others.
const KEPT: usize = 4;

/// How old the newest events may be in a run that is packed. It is made for all who keep up; to pack what one client returns for
/// would cost each of them what is meant to be shared, and let a client order that work.
const FRESH: Duration = Duration::from_secs(2);

/// How long runs are kept, unless newer ones take their place: whoever keeps up asks within that.
const SHARED: Duration = Duration::from_secs(1);

/// Events in a row, as they are sent.
#[derive(Debug, Clone)]
pub struct Run {
    /// The number of the first entry.
    pub from: Seq,
    /// The number after the last entry.
    pub to: Seq,
    /// The events: a part of a chunk, or parts of several that were copied together.
    pub bytes: Bytes,
    /// The log's position after the last entry.
    pub end: Arc<Position>,
    /// Bytes that the log had taken in up to the last entry.
    pub taken: u64,
    /// When its events came about.
    pub times: Times,
    /// What many clients are sent in its place, if it is for many.
    pub forms: Option<Arc<Forms>>,
    /// What it holds, where clients have filters.
    pub contents: Option<Arc<Contents>>,
    /// What it costs beside the chunks, its forms aside.
    own: usize,
    made: Instant,
}

/// The packed forms of a run.
pub struct Forms {
    memory: Arc<Memory>,
    made: Mutex<Vec<(Encoding, Form)>>,
}

/// A form, once somebody has asked for it; `None` where the run is not worth it.
type Form = Arc<OnceLock<Option<Packed>>>;

impl Run {
    /// How many events it holds.
    pub fn events(&self) -> usize {
        (self.to - self.from) as usize
    }
}

impl Forms {
    /// None is made yet.
    pub fn new(memory: &Arc<Memory>) -> Arc<Self> {
        Arc::new(Self { memory: Arc::clone(memory), made: Mutex::default() })
    }

    /// The packed form of `plain`, the bytes of the run; made by the first who asks, while others of the same encoding
    /// wait for it. `None` where the run is sent as it is.
    pub fn packed(&self, plain: &[u8], encoding: Encoding) -> Option<Packed> {
        let form = {
            let mut made = self.made.lock();
            match made.iter().find(|(other, _)| *other == encoding) {
                Some((_, form)) => Arc::clone(form),
                None => {
                    let form = Form::default();
                    made.push((encoding, Arc::clone(&form)));
                    form
                }
            }
        };
        let make = || {
            let bytes = self.memory.charge(encoding.pack(plain)?, OVERHEAD);
            self.memory.settle();
            Some(Packed::new(plain, bytes))
        };
        form.get_or_init(make).clone()
    }

    /// Bytes held.
    fn bytes(&self) -> usize {
        let made = self.made.lock();
        let packed = made.iter().filter_map(|(_, form)| form.get()?.as_ref());
        packed.map(|packed| packed.bytes.len() + OVERHEAD).sum()
    }
}

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.made.lock().iter().map(|(encoding, _)| encoding.coding)).finish()
    }
}

/// The runs of a log that were made last, oldest first. They overlap nowhere.
pub struct Runs {
    kept: VecDeque<Run>,
    memory: Arc<Memory>,
}

impl Runs {
    /// None yet.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { kept: VecDeque::new(), memory }
    }

    /// The first that ends after entry `from`.
    pub fn after(&self, from: Seq) -> Option<&Run> {
        self.kept.iter().find(|run| run.to > from)
    }

    /// Makes the run from entry `from` to `until` or short of it, at most `max` bytes unless a single event is larger,
    /// out of the chunks from that on which holds `from`. Keeps it for others, unless it is old and there are newer ones,
    /// or lies within another.
    pub fn make<'c>(
        &mut self,
        chunks: impl Iterator<Item = &'c Chunk>,
        (from, until): (Seq, Seq),
        max: usize,
        now: Instant,
    ) -> Option<Run> {
        let (mut to, mut length, mut times, mut last) = (from, 0, None, None);
        let (mut parts, mut contents): (Vec<Bytes>, Vec<(u32, Facts)>) = (Vec::new(), Vec::new());
        for chunk in chunks.take_while(|chunk| chunk.first < until) {
            let start = (to - chunk.first) as usize;
            let end = chunk.entries.len().min((until - chunk.first) as usize);
            let room = if parts.is_empty() { max } else { LENGTH.min(max).saturating_sub(length) };
            let mut fitting = chunk.fitting(start, end, room);
            if parts.is_empty() {
                fitting = fitting.max(start + 1);
            }
            if fitting > start {
                let part = chunk.bytes.slice(chunk.offset(start)..chunk.offset(fitting));
                let known = chunk.facts.get(start..fitting).unwrap_or_default().iter();
                let end = |place| (length + chunk.offset(place + 1) - chunk.offset(start)) as u32;
                contents.extend((start..fitting).map(end).zip(known.cloned()));
                length += part.len();
                parts.push(part);
                to = chunk.first + fitting as Seq;
                times.get_or_insert(chunk.times());
                last = Some((chunk, fitting));
            }
            if fitting < chunk.entries.len() {
                break;
            }
        }
        let ((chunk, place), times) = (last?, times?);
        let joined = parts.len() > 1;
        let contents = (!contents.is_empty()).then(|| Contents::new(contents, &self.memory));
        let own = if joined { length + OVERHEAD } else { 0 };
        let own = own + contents.as_ref().map_or(0, |contents| contents.size());
        let bytes = if joined { self.memory.charge(parts.concat(), OVERHEAD) } else { parts.remove(0) };
        let (end, taken) = (chunk.position_before(place), chunk.taken_before(place));
        let fresh = now.duration_since(chunk.at) <= FRESH;
        let place = self.kept.partition_point(|run| run.to <= from);
        let full = self.kept.len() == KEPT;
        let fits = |next: &Run| fresh && to <= next.from && (place > 0 || !full);
        let keep = self.kept.get(place).is_none_or(fits);
        let forms = (keep && fresh).then(|| Forms::new(&self.memory));
        let run = Run { from, to, bytes, end, taken, times, forms, contents, own, made: now };
        if keep {
            self.kept.insert(place, run.clone());
            if full {
                self.kept.pop_front();
            }
        }
        Some(run)
    }

    /// Forgets those that begin before entry `floor`, which hold on to what the log let go.
    pub fn forget_before(&mut self, floor: Seq) {
        while self.kept.front().is_some_and(|run| run.from < floor) {
            self.kept.pop_front();
        }
    }

    /// Forgets those that nobody is likely to ask for any more.
    pub fn forget_old(&mut self, now: Instant) {
        self.kept.retain(|run| now.duration_since(run.made) < SHARED);
    }

    /// Forgets all; returns what they took beside the chunks.
    pub fn forget(&mut self) -> usize {
        let bytes = self.bytes();
        self.kept.clear();
        bytes
    }

    /// Bytes held beside the chunks.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(|run| run.own + run.forms.as_ref().map_or(0, |forms| forms.bytes())).sum()
    }
}

/// What a run that was copied together, or a packed form, costs beside its bytes.
const OVERHEAD: usize = size_of::<Run>() + 64;

#[cfg(test)]
mod tests {
    use super::super::cursor::{Cursor, Read, Wish};
    use super::super::id::{Epoch, EpochCodec};
    use super::super::log::Log;
    use super::super::ring::Bounds;
    use super::super::testing::{ROOM, TERMS, Text, log};
    use super::super::wake::{Linger, Wake};
    use super::*;
    use crate::compress::Coding;

    fn opened(bounds: Bounds) -> Arc<Log> {
        let log = log(bounds);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        log
    }

    /// A reader that has been told where it starts.
    fn reader(log: &Log) -> Cursor {
        let mut cursor = Cursor::new(Wish::default(), TERMS);
        assert!(matches!(log.read(&mut cursor, MAX), Read::Control { .. }));
        log.join();
        cursor
    }

    fn append(log: &Log, events: usize) {
        (0..events).for_each(|_| drop(log.append([(None, Text("text"))])));
    }

    fn slice(log: &Log, cursor: &mut Cursor, max: usize) -> (Bytes, usize) {
        match log.read(cursor, max) {
            Read::Slice { bytes, events, .. } => (bytes, events),
            other => panic!("not a slice: {other:?}"),
        }
    }

    /// The numbers in the ids.
    fn numbers(bytes: &Bytes) -> Vec<usize> {
        let ids = str::from_utf8(bytes).unwrap().lines().filter_map(|line| line.strip_prefix("id: "));
        ids.map(|id| id.split_once('-').unwrap().1.parse().unwrap()).collect()
    }

    const MAX: usize = 32 * 1024;

    #[tokio::test]
    async fn many_appends_are_one_run_shared_by_all_who_stand_where_it_begins() {
        let log = opened(ROOM);
        let mut readers: Vec<_> = (0..5).map(|_| reader(&log)).collect();
        append(&log, 20);
        let given: Vec<_> = readers.iter_mut().map(|reader| slice(&log, reader, MAX)).collect();
        assert_eq!(numbers(&given[0].0), (1..=20).collect::<Vec<_>>());
        for (bytes, events) in &given {
            assert_eq!((bytes.as_ptr_range(), *events), (given[0].0.as_ptr_range(), 20));
        }
        assert!(readers.iter_mut().all(|reader| matches!(log.read(reader, MAX), Read::Pending)));
        assert!(!log.congested(), "all of it was passed");

        append(&log, 1);
        let lone = slice(&log, &mut readers[0], MAX).0;
        assert_eq!(numbers(&lone), [21]);
        let held = log.held().bytes;
        assert_eq!(slice(&log, &mut readers[1], MAX).0.as_ptr(), lone.as_ptr());
        assert_eq!(log.held().bytes, held, "what one append made is not copied");
    }

    #[tokio::test]
    async fn a_reader_that_is_behind_or_within_a_run_stands_with_the_others_after_it() {
        let log = opened(ROOM);
        let (mut first, mut behind) = (reader(&log), reader(&log));
        append(&log, 3);
        slice(&log, &mut first, MAX);
        append(&log, 2);
        let mut within = reader(&log);
        append(&log, 2);
        let second = slice(&log, &mut first, MAX).0;
        assert_eq!(numbers(&second), [4, 5, 6, 7]);

        let rest = slice(&log, &mut within, MAX).0;
        assert_eq!(numbers(&rest), [6, 7]);
        assert_eq!(numbers(&slice(&log, &mut behind, MAX).0), [1, 2, 3], "the run that the first was given");
        assert_eq!(slice(&log, &mut behind, MAX).0.as_ptr(), second.as_ptr());

        append(&log, 2);
        let third: Vec<_> =
            [first, behind, within].iter_mut().map(|reader| slice(&log, reader, MAX).0.as_ptr()).collect();
        assert!(third.iter().all(|bytes| *bytes == third[0]));
    }

    #[tokio::test]
    async fn a_run_is_bounded_and_so_is_what_is_kept() {
        let log = opened(ROOM);
        let (mut large, mut small) = (reader(&log), reader(&log));
        append(&log, 5_000);
        let held = log.held().bytes;
        let mut seen = Vec::new();
        while let Read::Slice { bytes, events, .. } = log.read(&mut large, MAX) {
            assert!(bytes.len() <= LENGTH && (bytes.len() > LENGTH - 200 || seen.len() + events == 5_000));
            seen.extend(numbers(&bytes));
            assert!(log.held().bytes <= held + KEPT * (LENGTH + OVERHEAD));
        }
        assert!(seen.into_iter().eq(1..=5_000));
        for max in (0..5_000).step_by(100) {
            let (bytes, events) = slice(&log, &mut small, max);
            assert!(events == 1 || bytes.len() <= max);
        }
    }

    #[tokio::test]
    async fn what_is_let_go_is_not_held_by_a_run() {
        let memory = Memory::new(usize::MAX);
        let wake = Wake::new(Duration::ZERO, Linger::new());
        let log =
            Log::new(super::super::testing::shape(), false, Bounds { events: 2, ..ROOM }, &memory, wake);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        let (mut first, mut late) = (reader(&log), reader(&log));
        append(&log, 2);
        let held = slice(&log, &mut first, MAX).0;
        append(&log, 2);
        assert_eq!(memory.used(), log.held().bytes + held.len() + OVERHEAD, "only the reader holds it");
        assert_eq!(numbers(&held), [1, 2], "which it does as it was");
        drop(held);
        assert_eq!(memory.used(), log.held().bytes);
        assert!(matches!(log.read(&mut late, MAX), Read::Control { .. }), "it has lagged");
        assert_eq!(numbers(&slice(&log, &mut late, MAX).0), [3, 4]);

        let with_run = memory.used();
        log.sweep(Instant::now());
        assert_eq!(memory.used(), with_run, "others may want it");
        log.sweep(Instant::now() + SHARED);
        assert!(memory.used() < with_run, "the copy goes when its time is over");
        assert_eq!(numbers(&slice(&log, &mut first, MAX).0), [3, 4]);

        log.restart(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::new(vec![9]));
        append(&log, 2);
        assert!(matches!(log.read(&mut first, MAX), Read::Control { .. }), "it is told");
        assert_eq!(numbers(&slice(&log, &mut first, MAX).0), [10, 11]);
        drop((first, late, log));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn who_stands_beyond_the_others_takes_nothing_from_them() {
        let log = opened(ROOM);
        let mut crowd: Vec<_> = (0..4).map(|_| reader(&log)).collect();
        append(&log, 3);
        let mut newcomer = reader(&log);
        append(&log, 2);
        assert_eq!(numbers(&slice(&log, &mut newcomer, MAX).0), [4, 5], "it is the first to read");
        let given: Vec<_> = crowd.iter_mut().map(|reader| slice(&log, reader, MAX).0).collect();
        assert_eq!(numbers(&given[0]), [1, 2, 3]);
        assert!(given.iter().all(|bytes| bytes.as_ptr() == given[0].as_ptr()), "made once");
        let beyond: Vec<_> = crowd.iter_mut().map(|reader| slice(&log, reader, MAX).0).collect();
        assert!(beyond.iter().all(|bytes| bytes.as_ptr() == beyond[0].as_ptr()));
    }

    /// What a reader of this encoding is sent for the next slice.
    fn packed(log: &Log, cursor: &mut Cursor, encoding: Encoding) -> Option<Bytes> {
        let Read::Slice { bytes, forms, .. } = log.read(cursor, MAX) else { panic!("a slice") };
        forms.unwrap().packed(&bytes, encoding).map(|packed| packed.bytes)
    }

    #[tokio::test]
    async fn a_run_is_packed_once_for_each_encoding_and_counted() {
        let memory = Memory::new(usize::MAX);
        let wake = Wake::new(Duration::ZERO, Linger::new());
        let log = Log::new(super::super::testing::shape(), false, ROOM, &memory, wake);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        let mut readers: Vec<_> = (0..8).map(|_| reader(&log)).collect();
        append(&log, 50);
        let zstd = Encoding { coding: Coding::Zstd, level: 1, min_length: 0 };
        let kinds = [zstd, Encoding { level: 9, ..zstd }, Encoding { coding: Coding::Gzip, ..zstd }];
        let given: Vec<_> = readers[..6]
            .iter_mut()
            .zip(kinds.into_iter().cycle())
            .map(|(reader, encoding)| packed(&log, reader, encoding).unwrap())
            .collect();
        for at in 0..3 {
            assert_eq!(given[at].as_ptr_range(), given[at + 3].as_ptr_range());
            assert!(given[at + 1..][..2].iter().all(|other| other.as_ptr() != given[at].as_ptr()));
        }
        let none = Encoding { min_length: 1 << 20, ..zstd };
        assert_eq!(packed(&log, &mut readers[6], none), None);
        assert_eq!(memory.used(), log.held().bytes, "forms are counted");
        log.sweep(Instant::now() + SHARED);
        let held: usize = given[..3].iter().map(|bytes| bytes.len() + OVERHEAD).sum();
        assert_eq!(memory.used(), log.held().bytes + held, "until the last reader has let go");
        drop(given);
        assert_eq!(memory.used(), log.held().bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_client_returns_for_is_not_packed_for_it() {
        let log = opened(ROOM);
        let mut behind = reader(&log);
        append(&log, 3);
        tokio::time::advance(FRESH + Duration::from_millis(1)).await;
        assert!(matches!(log.read(&mut behind, MAX), Read::Slice { forms: None, .. }));
        append(&log, 3);
        assert!(matches!(log.read(&mut behind, MAX), Read::Slice { forms: Some(_), .. }));
    }

    /// Whoever looks before the window ends waits with the others, so that all are given the same.
    #[tokio::test(start_paused = true)]
    async fn nobody_is_given_what_readers_have_not_been_woken_for() {
        let linger = Linger::new();
        let ticker = Arc::clone(&linger);
        tokio::spawn(async move { ticker.run().await });
        let wake = Wake::new(Duration::from_millis(20), linger);
        let bounds = Bounds { buffer: 16 * 1024, ..ROOM };
        let log = Log::new(super::super::testing::shape(), false, bounds, &Memory::new(usize::MAX), wake);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        tokio::time::advance(Duration::from_millis(20)).await;
        let (mut early, mut other) = (reader(&log), reader(&log));
        append(&log, 1);
        assert_eq!(slice(&log, &mut early, MAX).1, 1, "a lone event is there at once");
        append(&log, 2);
        assert!(matches!(log.read(&mut early, MAX), Read::Pending));
        let woken = log.wake().next();
        append(&log, 2);
        woken.await;
        assert_eq!(slice(&log, &mut other, MAX).1, 1);
        let (shared, events) = slice(&log, &mut early, MAX);
        assert_eq!((events, slice(&log, &mut other, MAX).0.as_ptr()), (4, shared.as_ptr()));

        append(&log, 1);
        assert!(matches!(log.read(&mut early, MAX), Read::Pending));
        append(&log, 20);
        assert!(slice(&log, &mut early, MAX).1 > 1, "much of the lag room does not wait");
    }
}

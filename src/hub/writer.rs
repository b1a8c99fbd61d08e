//! The writing end of a log: turns records into chunks. Encodes outside the lock that readers take, and
//! each body exactly once.

mod draft;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::chunk::{Chunk, Seq};
use super::gap::{Gap, Reason};
use super::id::IdCodec;
use super::key::{KeyHash, Lies};
use super::memory::Memory;
use super::note::{self, Body};
use super::position::{Mark, Position};
use super::sample;
use super::segment::{self, Segment};
use super::table::{Change, Subject};
use super::window::{Makes, Next, Waiting, Window};
use crate::shape::{self, Record, Shape};
use draft::Draft;

/// Builds the chunks of one log, in order.
pub struct Writer {
    codec: Arc<dyn IdCodec>,
    shape: Shape,
    keyed: bool,
    memory: Arc<Memory>,
    position: Arc<Position>,
    next: Seq,
    total: u64,
    id: String,
    /// What waits, where the log conflates.
    window: Option<Window>,
    /// What comes, where the log keeps one in so many.
    count: sample::Count,
}

/// What one append made.
#[derive(Debug)]
pub struct Batch {
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    /// The position after them; beyond the last chunk's end where records made no event.
    pub position: Arc<Position>,
    /// Entries that were taken in, gaps included. They may wait still.
    pub events: u64,
    /// The gaps among them.
    pub notes: Vec<Reason>,
    /// Records that a newer one of their key replaced before they were appended.
    pub replaced: u64,
    /// Records that were left out, where the log keeps one in so many.
    pub left_out: u64,
    /// When a window ends that was opened.
    pub ends: Option<Instant>,
    /// What became of keys, where the log has a table.
    pub changes: Vec<Change>,
}

impl Writer {
    /// A writer whose first entry is number 0 and follows `position`.
    pub fn new(
        codec: Arc<dyn IdCodec>,
        shape: Shape,
        keyed: bool,
        memory: Arc<Memory>,
        position: Position,
    ) -> Self {
        let position = Arc::new(position);
        let (conflate, count) = (shape.digest.conflate.clone(), sample::Count::default());
        let window = conflate.map(|conflate| Window::new(conflate, Arc::clone(&position), &memory));
        Self { codec, shape, keyed, memory, position, next: 0, total: 0, id: String::new(), window, count }
    }

    /// Where the next record is expected.
    pub fn position(&self) -> &Arc<Position> {
        self.window.as_ref().map_or(&self.position, Window::reached)
    }

    /// Encodes `records`. Each comes with its mark, or with none where this log numbers them itself.
    /// Records that the position covers already are left out. Where the log conflates, what it makes of them waits, up to
    /// `room` bytes of it.
    pub fn records<R: Record>(
        &mut self,
        records: impl IntoIterator<Item = (Option<Mark>, R)>,
        room: usize,
    ) -> Batch {
        if self.window.is_some() {
            return self.gather(records, room);
        }
        let mut draft = Draft::new(self);
        for (given, record) in records {
            let mark = given.unwrap_or_else(|| draft.own_mark());
            if draft.position.covers(mark) {
                continue;
            }
            if draft.writer.leaves_out(given) {
                given.into_iter().for_each(|mark| draft.skip(mark));
                draft.left_out += 1;
                continue;
            }
            draft.record(&record, mark, given.is_some());
        }
        draft.finish()
    }

    /// Whether a record is none of those that are kept.
    fn leaves_out(&mut self, mark: Option<Mark>) -> bool {
        let Some(sample) = self.shape.digest.sample else { return false };
        !mark.map_or_else(|| self.count.keeps(sample), |mark| sample::keeps(sample, mark))
    }

    fn gather<R: Record>(
        &mut self,
        records: impl IntoIterator<Item = (Option<Mark>, R)>,
        room: usize,
    ) -> Batch {
        let (now, mut batch) = (Instant::now(), self.nothing());
        for (mark, record) in records {
            if mark.is_some_and(|mark| self.position().covers(mark)) {
                continue;
            }
            if self.leaves_out(mark) {
                batch.left_out += 1;
                self.window.iter_mut().zip(mark).for_each(|(window, mark)| window.skip(mark));
            } else {
                self.wait(mark, &record, &mut batch);
            }
            if self.window.as_ref().is_some_and(|window| window.bytes() >= room) {
                batch.follow(self.flush(now));
            }
        }
        match self.window.as_mut().map_or(Next::Known, |window| window.next(now)) {
            Next::Now => batch.follow(self.flush(now)),
            Next::At(ends) => batch.ends = Some(ends),
            Next::Known => {}
        }
        batch
    }

    /// Has a record wait, if it makes something or deletes its key, and counts it.
    fn wait(&mut self, mark: Option<Mark>, record: &impl Record, batch: &mut Batch) {
        let Some(window) = &mut self.window else { return };
        let mut body = Vec::new();
        let makes = match note::write_event(record, &self.shape, &mut body) {
            Body::Event => Makes::Event(body),
            Body::Note(reason) => {
                batch.notes.push(reason);
                Makes::Note(reason)
            }
            Body::None if record.deletes() => Makes::Nothing,
            Body::None => return mark.into_iter().for_each(|mark| window.skip(mark)),
        };
        batch.events += u64::from(!matches!(makes, Makes::Nothing));
        let own = record.key().filter(|_| self.keyed);
        let partition = mark.map_or(0, |mark| mark.partition);
        let whose = (own.map(KeyHash::of), Lies::of(&*self.codec, own, partition));
        let by = shape::key(&window.conflate().by, record).map(|key| KeyHash::of(&key));
        let subject = Subject::of(record, &self.shape);
        let replaced = window.put(by, Waiting { mark, makes, published: record.timestamp(), whose, subject });
        batch.replaced += u64::from(replaced);
    }

    /// Appends what waits.
    pub fn flush(&mut self, now: Instant) -> Batch {
        let Some(window) = &mut self.window else { return self.nothing() };
        let (waiting, reached) = (window.end(now), Arc::clone(window.reached()));
        let (mut draft, mut scattered) = (Draft::new(self), false);
        for mut record in waiting {
            if scattered {
                record.whose.1 = Lies::Anywhere;
            }
            scattered |= record.whose.1 == Lies::Astray;
            draft.waited(record);
        }
        draft.reach(&reached);
        // They were counted as they came.
        let batch = Batch { events: 0, notes: Vec::new(), ..draft.finish() };
        self.moved();
        batch
    }

    /// The same, if a window ends at this time.
    pub fn flush_due(&mut self, at: Instant) -> Batch {
        match &self.window {
            Some(window) if window.ends_at(at) => self.flush(Instant::now()),
            _ => self.nothing(),
        }
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.window.as_ref().map_or(0, Window::bytes)
    }

    fn nothing(&self) -> Batch {
        Batch {
            chunks: Vec::new(),
            position: Arc::clone(&self.position),
            events: 0,
            notes: Vec::new(),
            replaced: 0,
            left_out: 0,
            ends: None,
            changes: Vec::new(),
        }
    }

    /// Takes in what the log begins with, merged by time, and goes on at `end`. Events are as old as they say.
    pub fn fill(&mut self, segments: &[Segment], end: &Position) -> Batch {
        let (now, mut draft) = (SystemTime::now(), Draft::new(self));
        let (at, mut newest, mut scattered) = (draft.at, None, false);
        for (partition, segment, entry) in merged(segments) {
            let age = now.duration_since(UNIX_EPOCH + Duration::from_millis(entry.time)).unwrap_or_default();
            newest = newest.max(at.checked_sub(age));
            draft.at = newest.unwrap_or(at);
            draft.bytes.extend_from_slice(&segment.body(entry));
            let lies = if scattered { Lies::Anywhere } else { entry.lies };
            scattered |= lies == Lies::Astray;
            draft.entry(Mark { partition, next: entry.next }, entry.note, (entry.key, lies));
        }
        let mut batch = draft.finish();
        let mut position = Position::clone(&self.position);
        position.merge(end);
        self.position = Arc::new(position);
        batch.position = Arc::clone(&self.position);
        self.moved();
        batch
    }

    /// Encodes a gap that happened to the source: the link was lost for this span. It takes a number of its
    /// own, so that ids from before and after it differ.
    pub fn link_lost(&mut self, span: (SystemTime, SystemTime)) -> Batch {
        let mut batch = self.flush(Instant::now());
        let mut draft = Draft::new(self);
        let mark = draft.own_mark();
        draft.note_to_all(&Gap { span: Some(span), ..Gap::of(Reason::UpstreamLost) });
        draft.entry(mark, true, (None, Lies::Anywhere));
        batch.follow(draft.finish());
        self.moved();
        batch
    }

    /// Encodes a gap of the source up to `mark`, in its partition; nothing where the position covers that.
    pub fn missing(&mut self, reason: Reason, mark: Mark) -> Batch {
        let mut batch = self.flush(Instant::now());
        let mut draft = Draft::new(self);
        if !draft.position.covers(mark) {
            draft.note_to_all(&Gap::up_to(reason, &draft.position, mark, None));
            draft.entry(mark, true, (None, Lies::Anywhere));
        }
        batch.follow(draft.finish());
        self.moved();
        batch
    }

    /// Nothing waits, and the log stands where it has got to.
    fn moved(&mut self) {
        let position = &self.position;
        self.window.iter_mut().for_each(|window| window.restart(Arc::clone(position)));
    }

    /// Goes on at `position`, after a number that no entry has, so that every reader finds itself behind.
    pub fn restart(&mut self, codec: Arc<dyn IdCodec>, position: Position) {
        self.codec = codec;
        self.position = Arc::new(position);
        self.next += 1;
        self.moved();
    }
}

impl Batch {
    /// What was made right after it.
    fn follow(&mut self, next: Self) {
        self.chunks.extend(next.chunks);
        self.position = next.position;
        self.events += next.events;
        self.notes.extend(next.notes);
        self.changes.extend(next.changes);
    }
}

/// The entries of segments by time, each partition's in its own order.
fn merged(segments: &[Segment]) -> impl Iterator<Item = (u32, &Segment, &segment::Entry)> {
    let mut partitions: BTreeMap<u32, Peekable<_>> = BTreeMap::new();
    for run in segments.chunk_by(|a, b| a.partition == b.partition) {
        let entries =
            run.iter().flat_map(|segment| segment.entries().iter().map(move |entry| (segment, entry)));
        partitions.insert(run[0].partition, entries.peekable());
    }
    let mut heads: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
    for (partition, entries) in &mut partitions {
        heads.extend(entries.peek().map(|(_, entry)| Reverse((entry.time, *partition))));
    }
    std::iter::from_fn(move || {
        let Reverse((_, partition)) = heads.pop()?;
        let entries = partitions.get_mut(&partition)?;
        let (segment, entry) = entries.next()?;
        heads.extend(entries.peek().map(|(_, entry)| Reverse((entry.time, partition))));
        Some((partition, segment, entry))
    })
}

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
use crate::shape::{Facts, Fault, Record, Shape};
use draft::Draft;

/// Builds the chunks of one log, in order.
pub struct Writer {
    codec: Arc<dyn IdCodec>,
    shape: Shape,
    keyed: bool,
    /// Whether clients have filters.
    sifts: bool,
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
    /// What was left out.
    pub left_out: LeftOut,
    /// When a window ends that was opened.
    pub ends: Option<Instant>,
    /// What became of keys, where the log has a table.
    pub changes: Vec<Change>,
}

/// What was left out of one append, or could be made nothing of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Records that are none of those kept, where the log keeps one in so many.
    pub sampled: u64,
    /// Records for which the shape's filter does not hold.
    pub filtered: u64,
    /// Records of which it cannot tell.
    pub undecided: u64,
    /// Why it cannot, for the last of them.
    pub why: Option<Fault>,
    /// Why the data of the last record could not be made whose data could not; a gap in its place says no more than that.
    pub unmade: Option<Fault>,
}

impl LeftOut {
    /// What was left out of the rest of the append.
    pub(super) fn follow(&mut self, rest: Self) {
        self.sampled += rest.sampled;
        self.filtered += rest.filtered;
        self.undecided += rest.undecided;
        self.why = rest.why.or(self.why);
        self.unmade = rest.unmade.or(self.unmade);
    }

    /// Counts a record that made this.
    fn count(&mut self, body: &Body) {
        match *body {
            Body::Event | Body::None => {}
            Body::Note(_, why) => self.unmade = why.or(self.unmade),
            Body::FilteredOut => self.filtered += 1,
            Body::Undecided(fault) => {
                self.undecided += 1;
                self.why = Some(fault);
            }
        }
    }
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
        let (sifts, next, total, id) = (shape.sifts(), 0, 0, String::new());
        Self { codec, shape, keyed, sifts, memory, position, next, total, id, window, count }
    }

    /// Where the next record is expected.
    pub fn position(&self) -> &Arc<Position> {
        self.window.as_ref().map_or(&self.position, Window::reached)
    }

    /// Encodes `records`. Each comes with its mark, or with none where this log numbers them itself.
    /// Records that the position covers already are left out. Where the log conflates, what it makes of them waits, up to
    /// `room` bytes of it: then that is what it returns, and there may be more records, to be given again.
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
                draft.left_out.sampled += 1;
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
                batch.left_out.sampled += 1;
                self.window.iter_mut().zip(mark).for_each(|(window, mark)| window.skip(mark));
            } else {
                self.wait(mark, &record, &mut batch);
            }
            if self.window.as_ref().is_some_and(|window| window.bytes() >= room) {
                // The log is to have it before the next record is looked at: one that panics takes none of it along.
                batch.follow(self.flush(now));
                return batch;
            }
        }
        self.look(now, &mut batch);
        batch
    }

    /// Sees to the window after something came in.
    fn look(&mut self, now: Instant, batch: &mut Batch) {
        match self.window.as_mut().map_or(Next::Known, |window| window.next(now)) {
            Next::Now => batch.follow(self.flush(now)),
            Next::At(ends) => batch.ends = Some(ends),
            Next::Known => {}
        }
    }

    /// Has a record wait, if it makes something or deletes its key, and counts it.
    fn wait(&mut self, mark: Option<Mark>, record: &impl Record, batch: &mut Batch) {
        let Some(window) = &mut self.window else { return };
        let (mut bytes, codec) = (Vec::new(), &*self.codec);
        // A number of the log's own is not known yet.
        let arrival = window.arrival();
        let id =
            || mark.map_or_else(|| arrival_id(codec, &self.position, arrival), |mark| note::id(codec, mark));
        let (body, keys, facts) = note::write_event(record, &self.shape, &id, &mut bytes);
        batch.left_out.count(&body);
        let makes = match body {
            Body::Event => Makes::Event(bytes),
            Body::Note(reason, _) => {
                batch.notes.push(reason);
                Makes::Note(reason)
            }
            _ if record.deletes() => Makes::Nothing,
            _ => return mark.into_iter().for_each(|mark| window.skip(mark)),
        };
        batch.events += u64::from(!matches!(makes, Makes::Nothing));
        let own = record.key().filter(|_| self.keyed);
        let partition = mark.map_or(0, |mark| mark.partition);
        let whose = (own.map(KeyHash::of), Lies::of(&*self.codec, own, partition));
        let by = keys.conflate.as_deref().map(KeyHash::of);
        let subject = Subject::of(record, &keys);
        let published = record.timestamp();
        let replaced = window.put(by, Waiting { mark, makes, published, whose, subject, facts });
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
        self.settled();
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
            left_out: LeftOut::default(),
            ends: None,
            changes: Vec::new(),
        }
    }

    /// Takes in what the log begins with, merged by time, and goes on at `end`. Events are as old as they say; those that do not
    /// say are new.
    pub fn fill(&mut self, segments: &[Segment], end: &Position) -> Batch {
        let (now, mut draft) = (SystemTime::now(), Draft::new(self));
        let (at, mut newest, mut scattered) = (draft.at, None, false);
        for (partition, segment, (place, entry)) in merged(segments) {
            let age = match entry.time {
                0 => Duration::ZERO,
                time => now.duration_since(UNIX_EPOCH + Duration::from_millis(time)).unwrap_or_default(),
            };
            newest = newest.max(at.checked_sub(age));
            draft.at = newest.unwrap_or(at);
            draft.bytes.extend_from_slice(&segment.body(entry));
            let lies = if scattered { Lies::Anywhere } else { entry.lies };
            scattered |= lies == Lies::Astray;
            let (mark, facts) = (Mark { partition, next: entry.next }, segment.facts(place).clone());
            draft.entry(mark, entry.note, (entry.key, lies), facts);
        }
        let mut batch = draft.finish();
        let mut position = Position::clone(&self.position);
        position.merge(end);
        self.position = Arc::new(position);
        batch.position = Arc::clone(&self.position);
        self.settled();
        batch
    }

    /// Encodes a gap that happened to the source: the link was lost for this span. It takes a number of its
    /// own, so that ids from before and after it differ.
    pub fn link_lost(&mut self, span: (SystemTime, SystemTime)) -> Batch {
        self.own_gap(&Gap { span: Some(span), ..Gap::of(Reason::UpstreamLost) })
    }

    /// Encodes a gap of the source up to `mark`, in its partition; nothing where the position covers that.
    pub fn missing(&mut self, reason: Reason, mark: Mark) -> Batch {
        let mut batch = self.flush(Instant::now());
        let gap = Gap::up_to(reason, &self.position, mark, None);
        batch.follow(self.gap(&gap, mark));
        batch
    }

    /// Encodes a gap of the source, which takes a reader to `mark`; nothing where the position covers that.
    pub fn gap(&mut self, gap: &Gap, mark: Mark) -> Batch {
        let mut batch = self.flush(Instant::now());
        let mut draft = Draft::new(self);
        if !draft.position.covers(mark) {
            draft.note_to_all(gap);
            draft.entry(mark, true, (None, Lies::Anywhere), Facts::default());
        }
        batch.follow(draft.finish());
        self.settled();
        batch
    }

    /// Nothing waits, and the log stands where it has got to.
    fn settled(&mut self) {
        let position = &self.position;
        self.window.iter_mut().for_each(|window| window.restart(Arc::clone(position)));
    }

    /// Goes on to `mark`: up to there nothing makes an event.
    pub fn moved(&mut self, mark: Mark) -> Batch {
        if let Some(window) = &mut self.window {
            window.skip(mark);
            let mut batch = self.nothing();
            self.look(Instant::now(), &mut batch);
            return batch;
        }
        let mut draft = Draft::new(self);
        draft.skip(mark);
        draft.finish()
    }

    /// Encodes a gap of so many records of a source without history, which takes a number of its own.
    pub fn lost(&mut self, reason: Reason, missed: u64) -> Batch {
        self.own_gap(&Gap { missed: Some(missed), ..Gap::of(reason) })
    }

    fn own_gap(&mut self, gap: &Gap) -> Batch {
        let mut batch = self.flush(Instant::now());
        let mut draft = Draft::new(self);
        let mark = draft.own_mark();
        draft.note_to_all(gap);
        draft.entry(mark, true, (None, Lies::Anywhere), Facts::default());
        batch.follow(draft.finish());
        self.settled();
        batch
    }

    /// Goes on at `position`, after a number that no entry has, so that every reader finds itself behind.
    pub fn restart(&mut self, codec: Arc<dyn IdCodec>, position: Position) {
        self.codec = codec;
        self.position = Arc::new(position);
        self.next += 1;
        self.settled();
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

/// What names a record that waits for a number of its own: the position that it is to follow, and how many came in after
/// that up to it. Two that are sent share no such name, since what is sent moves the position on.
fn arrival_id(codec: &dyn IdCodec, position: &Position, arrival: u64) -> String {
    let mut id = String::new();
    codec.encode(position, &mut id);
    id.push('.');
    id.push_str(&arrival.to_string());
    id
}

/// The entries of segments by time, each partition's in its own order, and each with its place.
fn merged(segments: &[Segment]) -> impl Iterator<Item = (u32, &Segment, (usize, &segment::Entry))> {
    let mut partitions: BTreeMap<u32, Peekable<_>> = BTreeMap::new();
    for run in segments.chunk_by(|a, b| a.partition == b.partition) {
        let entries = run.iter().flat_map(|segment| {
            let placed = segment.entries().iter().enumerate();
            placed.map(move |entry| (segment, entry))
        });
        partitions.insert(run[0].partition, entries.peekable());
    }
    let mut heads: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
    for (partition, entries) in &mut partitions {
        heads.extend(entries.peek().map(|(_, (_, entry))| Reverse((entry.time, *partition))));
    }
    std::iter::from_fn(move || {
        let Reverse((_, partition)) = heads.pop()?;
        let entries = partitions.get_mut(&partition)?;
        let (segment, entry) = entries.next()?;
        heads.extend(entries.peek().map(|(_, (_, entry))| Reverse((entry.time, partition))));
        Some((partition, segment, entry))
    })
}

//! The writing end of a log: turns records into chunks. Encodes outside the lock that readers take, and
//! each body exactly once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::chunk::{Chunk, Entry, Seq, overhead};
use super::gap::{Gap, Reason};
use super::id::IdCodec;
use super::key::{KeyHash, Keyed, Lies};
use super::memory::Memory;
use super::note::{self, Body};
use super::position::{Mark, Position};
use super::segment::{self, Segment};
use crate::shape::{Fault, Record, Shape};
use crate::sse;

/// Bytes after which a chunk is closed. Of events that are not large a whole one fits into a read.
const CHUNK: usize = 24 * 1024;

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
}

/// What one append made.
#[derive(Debug)]
pub struct Batch {
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    /// The position after them; beyond the last chunk's end where records made no event.
    pub position: Arc<Position>,
    /// The gaps among the entries.
    pub notes: Vec<Reason>,
    /// What the shape left out.
    pub left_out: LeftOut,
}

/// What the shape left out of one append, or could make nothing of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Records for which it does not hold.
    pub filtered: u64,
    /// Records of which it cannot tell.
    pub undecided: u64,
    /// Why it cannot, for the last of them.
    pub why: Option<Fault>,
    /// Why the data of the last record could not be made whose data could not; a gap in its place says no more than that.
    pub unmade: Option<Fault>,
}

impl Batch {
    /// How many entries it has.
    pub fn events(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.entries.len() as u64).sum()
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
        Self { codec, shape, keyed, memory, position, next: 0, total: 0, id: String::new() }
    }

    /// Where the next record is expected.
    pub fn position(&self) -> &Arc<Position> {
        &self.position
    }

    /// Encodes `records`. Each comes with its mark, or with none where this log numbers them itself.
    /// Records that the position covers already are left out.
    pub fn records<R: Record>(&mut self, records: impl IntoIterator<Item = (Option<Mark>, R)>) -> Batch {
        let mut draft = Draft::new(self);
        for (given, record) in records {
            let mark = given.unwrap_or_else(|| draft.own_mark());
            if draft.position.covers(mark) {
                continue;
            }
            draft.record(&record, mark, given.is_some());
        }
        draft.finish()
    }

    /// Takes in what the log begins with, merged by time, and goes on at `end`. Events are as old as they say; those that do not
    /// say are new.
    pub fn fill(&mut self, segments: &[Segment], end: &Position) -> Batch {
        let (now, mut draft) = (SystemTime::now(), Draft::new(self));
        let (at, mut newest, mut scattered) = (draft.at, None, false);
        for (partition, segment, entry) in merged(segments) {
            let age = match entry.time {
                0 => Duration::ZERO,
                time => now.duration_since(UNIX_EPOCH + Duration::from_millis(time)).unwrap_or_default(),
            };
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
        batch
    }

    /// Encodes a gap that happened to the source: the link was lost for this span. It takes a number of its
    /// own, so that ids from before and after it differ.
    pub fn link_lost(&mut self, span: (SystemTime, SystemTime)) -> Batch {
        let mut draft = Draft::new(self);
        let mark = draft.own_mark();
        draft.note(&Gap { span: Some(span), ..Gap::of(Reason::UpstreamLost) });
        draft.entry(mark, true, (None, Lies::Anywhere));
        draft.finish()
    }

    /// Encodes a gap of the source up to `mark`, in its partition; nothing where the position covers that.
    pub fn missing(&mut self, reason: Reason, mark: Mark) -> Batch {
        let gap = Gap::up_to(reason, &self.position, mark, None);
        self.gap(&gap, mark)
    }

    /// Encodes a gap of the source, which takes a reader to `mark`; nothing where the position covers that.
    pub fn gap(&mut self, gap: &Gap, mark: Mark) -> Batch {
        let mut draft = Draft::new(self);
        if !draft.position.covers(mark) {
            draft.note(gap);
            draft.entry(mark, true, (None, Lies::Anywhere));
        }
        draft.finish()
    }

    /// Goes on to `mark`: up to there nothing makes an event.
    pub fn moved(&mut self, mark: Mark) -> Batch {
        let mut draft = Draft::new(self);
        draft.skip(mark);
        draft.finish()
    }

    /// Encodes a gap of so many records of a source without history, which takes a number of its own.
    pub fn lost(&mut self, reason: Reason, missed: u64) -> Batch {
        let mut draft = Draft::new(self);
        let mark = draft.own_mark();
        draft.note(&Gap { missed: Some(missed), ..Gap::of(reason) });
        draft.entry(mark, true, (None, Lies::Anywhere));
        draft.finish()
    }

    /// Goes on at `position`, after a number that no entry has, so that every reader finds itself behind.
    pub fn restart(&mut self, codec: Arc<dyn IdCodec>, position: Position) {
        self.codec = codec;
        self.position = Arc::new(position);
        self.next += 1;
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

/// The chunks of one append while they are made.
struct Draft<'w> {
    writer: &'w mut Writer,
    chunks: Vec<Chunk>,
    notes: Vec<Reason>,
    left_out: LeftOut,
    at: Instant,
    /// When the first event of the open chunk was published, if that is known.
    published: Option<Instant>,
    /// The position after all that was read so far.
    position: Position,
    /// The position before the open chunk.
    start: Arc<Position>,
    /// The position after the newest entry, where what made no event has moved it on since.
    end: Option<Position>,
    next: Seq,
    total: u64,
    /// The open chunk's content, the body of the next entry at its end.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    keys: Vec<Keyed>,
    /// Where the next entry's body begins.
    open: usize,
}

impl<'w> Draft<'w> {
    fn new(writer: &'w mut Writer) -> Self {
        Self {
            chunks: Vec::new(),
            notes: Vec::new(),
            left_out: LeftOut::default(),
            at: Instant::now(),
            published: None,
            position: Position::clone(&writer.position),
            start: Arc::clone(&writer.position),
            end: None,
            next: writer.next,
            total: writer.total,
            bytes: Vec::new(),
            entries: Vec::new(),
            keys: Vec::new(),
            open: 0,
            writer,
        }
    }

    fn own_mark(&self) -> Mark {
        Mark::new(0, self.position.next(0) + 1)
    }

    /// Goes past a record that makes no event.
    fn skip(&mut self, mark: Mark) {
        self.end.get_or_insert_with(|| self.position.clone());
        self.position.advance(mark);
    }

    fn record(&mut self, record: &impl Record, mark: Mark, numbered_upstream: bool) {
        if self.entries.is_empty() {
            let age = record.timestamp().and_then(|time| SystemTime::now().duration_since(time).ok());
            self.published = age.and_then(|age| self.at.checked_sub(age));
        }
        let Writer { shape, codec, .. } = &*self.writer;
        match note::write_record(record, shape, &**codec, &self.position, mark, &mut self.bytes) {
            Body::Event => return self.entry(mark, false, self.whose(record, mark)),
            Body::Note(reason, why) => {
                self.notes.push(reason);
                self.left_out.unmade = why.or(self.left_out.unmade);
                return self.entry(mark, true, self.whose(record, mark));
            }
            Body::None => {}
            Body::FilteredOut => self.left_out.filtered += 1,
            Body::Undecided(fault) => {
                self.left_out.undecided += 1;
                self.left_out.why = Some(fault);
            }
        }
        // Numbers of the log's own count events, so that what makes none takes none.
        if numbered_upstream {
            self.skip(mark);
        }
    }

    fn whose(&self, record: &impl Record, mark: Mark) -> (Option<KeyHash>, Lies) {
        let key = record.key().filter(|_| self.writer.keyed);
        (key.map(KeyHash::of), Lies::of(&*self.writer.codec, key, mark.partition))
    }

    fn note(&mut self, gap: &Gap) {
        note::write(gap, &self.writer.shape.control_prefix, &*self.writer.codec, &mut self.bytes);
        self.notes.push(gap.reason);
    }

    /// Closes the entry whose body has just been written.
    fn entry(&mut self, mark: Mark, note: bool, (key, lies): (Option<KeyHash>, Lies)) {
        let id = self.bytes.len();
        self.writer.id.clear();
        if lies == Lies::Astray {
            self.writer.codec.scatter(&self.position);
        }
        self.position.advance(mark);
        self.end = None;
        let at_home = lies == Lies::AtHome;
        if at_home {
            self.writer.codec.encode_home(mark.partition, mark.next, &mut self.writer.id);
        } else {
            self.writer.codec.encode(&self.position, &mut self.writer.id);
        }
        if self.writer.keyed {
            self.keys.push(Keyed { hash: key, before: None });
        }
        sse::id_block(&mut self.bytes, &self.writer.id);
        self.entries.push(Entry { body: self.open as u32, id: id as u32, mark, note, at_home });
        self.open = self.bytes.len();
        if self.open >= CHUNK {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let entries = std::mem::take(&mut self.entries).into_boxed_slice();
        let end = Arc::new(self.end.take().unwrap_or_else(|| self.position.clone()));
        let start = std::mem::replace(&mut self.start, Arc::clone(&end));
        let keys = std::mem::take(&mut self.keys).into_boxed_slice();
        let overhead = overhead(&entries, &keys, &end);
        let bytes = self.writer.memory.charge(std::mem::take(&mut self.bytes), overhead);
        self.open = 0;
        let (at, published) = (self.at, self.published.take().unwrap_or(self.at));
        let chunk =
            Chunk { first: self.next, entries, keys, bytes, start, end, at, published, before: self.total };
        self.next = chunk.next();
        self.total += chunk.size() as u64;
        self.chunks.push(chunk);
    }

    /// Only now the writer moves on: a record that panics takes its whole append with it, and no more.
    fn finish(mut self) -> Batch {
        if !self.entries.is_empty() {
            self.seal();
        }
        (self.writer.next, self.writer.total) = (self.next, self.total);
        if self.position != *self.writer.position {
            self.writer.position = Arc::new(self.position);
        }
        let position = Arc::clone(&self.writer.position);
        Batch { chunks: self.chunks, position, notes: self.notes, left_out: self.left_out }
    }
}

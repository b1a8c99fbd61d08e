//! The writing end of a log: turns records into chunks. Encodes outside the lock that readers take, and
//! each body exactly once.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::chunk::{Chunk, Entry, Seq, overhead};
use super::gap::{Gap, Reason};
use super::id::IdCodec;
use super::memory::Memory;
use super::position::{Mark, Position};
use crate::shape::{Record, Shape, Shaped};
use crate::sse;

/// Bytes after which a chunk is closed. A reader takes at most one chunk at a time, and of events that are not
/// large a whole one fits into its read.
const CHUNK: usize = 24 * 1024;

/// Builds the chunks of one log, in order.
pub struct Writer {
    codec: Arc<dyn IdCodec>,
    shape: Shape,
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
}

impl Writer {
    /// A writer whose first entry is number 0 and follows `position`.
    pub fn new(codec: Arc<dyn IdCodec>, shape: Shape, memory: Arc<Memory>, position: Position) -> Self {
        Self { codec, shape, memory, position: Arc::new(position), next: 0, total: 0, id: String::new() }
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
            let shaped = draft.writer.shape.encode(&record, &mut draft.bytes);
            match shaped {
                Shaped::Event => draft.entry(mark, false),
                // Numbers of the log's own count events, so that what makes none takes none.
                Shaped::Skipped => given.into_iter().for_each(|mark| draft.skip(mark)),
                Shaped::Undecodable => draft.gap_up_to(Reason::Undecodable, mark, Some(1)),
                Shaped::TooLarge => draft.gap_up_to(Reason::TooLarge, mark, Some(1)),
            }
        }
        draft.finish()
    }

    /// Encodes a gap that happened to the source: the link was lost for this span. It takes a number of its
    /// own, so that ids from before and after it differ.
    pub fn link_lost(&mut self, span: (SystemTime, SystemTime)) -> Batch {
        let mut draft = Draft::new(self);
        let mark = draft.own_mark();
        draft.note(&Gap { span: Some(span), ..Gap::of(Reason::UpstreamLost) }, mark);
        draft.finish()
    }

    /// Encodes a gap of the source up to `mark`, in its partition; nothing where the position covers that.
    pub fn missing(&mut self, reason: Reason, mark: Mark) -> Batch {
        let mut draft = Draft::new(self);
        if !draft.position.covers(mark) {
            draft.gap_up_to(reason, mark, None);
        }
        draft.finish()
    }

    /// Goes on at `position`, after a number that no entry has, so that every reader finds itself behind.
    pub fn restart(&mut self, codec: Arc<dyn IdCodec>, position: Position) {
        self.codec = codec;
        self.position = Arc::new(position);
        self.next += 1;
    }
}

/// The chunks of one append while they are made.
struct Draft<'w> {
    writer: &'w mut Writer,
    chunks: Vec<Chunk>,
    notes: Vec<Reason>,
    at: Instant,
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
    /// Where the next entry's body begins.
    open: usize,
}

impl<'w> Draft<'w> {
    fn new(writer: &'w mut Writer) -> Self {
        Self {
            chunks: Vec::new(),
            notes: Vec::new(),
            at: Instant::now(),
            position: Position::clone(&writer.position),
            start: Arc::clone(&writer.position),
            end: None,
            next: writer.next,
            total: writer.total,
            bytes: Vec::new(),
            entries: Vec::new(),
            open: 0,
            writer,
        }
    }

    fn own_mark(&self) -> Mark {
        Mark { partition: 0, next: self.position.next(0) + 1 }
    }

    /// Goes past a record that makes no event.
    fn skip(&mut self, mark: Mark) {
        self.end.get_or_insert_with(|| self.position.clone());
        self.position.advance(mark);
    }

    /// A gap from where the source stands up to `mark`, in its partition.
    fn gap_up_to(&mut self, reason: Reason, mark: Mark, missed: Option<u64>) {
        let from = self.position.clone();
        let mut to = from.clone();
        to.advance(mark);
        self.note(&Gap { missed, range: Some((from, to)), ..Gap::of(reason) }, mark);
    }

    /// A gap, and the position after it: the gap has no id, since it must not move the client's cursor.
    fn note(&mut self, gap: &Gap, mark: Mark) {
        let prefix = &self.writer.shape.control_prefix;
        gap.encode(prefix, &*self.writer.codec, &mut self.bytes);
        self.bytes.push(b'\n');
        sse::control_body(&mut self.bytes, prefix, "position", "{}");
        self.notes.push(gap.reason);
        self.entry(mark, true);
    }

    /// Closes the entry whose body has just been written.
    fn entry(&mut self, mark: Mark, note: bool) {
        let id = self.bytes.len();
        self.position.advance(mark);
        self.end = None;
        self.writer.id.clear();
        self.writer.codec.encode(&self.position, &mut self.writer.id);
        sse::id_block(&mut self.bytes, &self.writer.id);
        self.entries.push(Entry { body: self.open as u32, id: id as u32, mark, note });
        self.open = self.bytes.len();
        if self.open >= CHUNK {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let entries = std::mem::take(&mut self.entries).into_boxed_slice();
        let end = Arc::new(self.end.take().unwrap_or_else(|| self.position.clone()));
        let start = std::mem::replace(&mut self.start, Arc::clone(&end));
        let overhead = overhead(&entries, &end);
        let bytes = self.writer.memory.charge(std::mem::take(&mut self.bytes), overhead);
        self.open = 0;
        let chunk = Chunk { first: self.next, entries, bytes, start, end, at: self.at, before: self.total };
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
        Batch { chunks: self.chunks, position: Arc::clone(&self.writer.position), notes: self.notes }
    }
}

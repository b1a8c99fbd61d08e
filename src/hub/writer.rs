//! The writing end of a log: turns records into chunks. Encodes outside the lock that readers take, and
//! each body exactly once.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::chunk::{Chunk, Entry, Index, OVERHEAD, Seq};
use super::gap::{Gap, Reason};
use super::id::IdCodec;
use super::memory::Memory;
use super::position::{Mark, Position};
use crate::shape::{Record, Shape, Shaped};
use crate::sse;

/// Bytes after which a chunk is closed. A reader takes at most one chunk at a time.
const CHUNK: usize = 32 * 1024;

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
        for (mark, record) in records {
            let mark = mark.unwrap_or_else(|| draft.own_mark());
            if draft.position.covers(mark) {
                continue;
            }
            let shaped = draft.writer.shape.encode(&record, &mut draft.bytes);
            match shaped {
                Shaped::Event => draft.entry(mark, false),
                Shaped::Skipped => draft.position.advance(mark),
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

    /// Encodes a gap of the source up to `mark`, in its partition.
    pub fn missing(&mut self, reason: Reason, mark: Mark) -> Batch {
        let mut draft = Draft::new(self);
        draft.gap_up_to(reason, mark, None);
        draft.finish()
    }

    /// Goes on at `position`, after a number that no entry has, so that every reader finds itself behind.
    pub fn restart(&mut self, position: Position) {
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
            bytes: Vec::new(),
            entries: Vec::new(),
            open: 0,
            writer,
        }
    }

    fn own_mark(&self) -> Mark {
        Mark { partition: 0, next: self.position.next(0) + 1 }
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
        let (first, before) = (self.writer.next, self.writer.total);
        let entries = std::mem::take(&mut self.entries).into_boxed_slice();
        let index = Arc::new(Index { first, start: Arc::clone(&self.start), entries });
        let end = Arc::new(self.position.clone());
        let overhead = OVERHEAD + index.size() + size_of_val(end.as_slice());
        let bytes = self.writer.memory.charge(std::mem::take(&mut self.bytes), overhead);
        self.open = 0;
        self.start = Arc::clone(&end);
        let chunk = Chunk { index, bytes, end, at: self.at, before };
        self.writer.next = chunk.index.end();
        self.writer.total += chunk.size() as u64;
        self.chunks.push(chunk);
    }

    fn finish(mut self) -> Batch {
        if !self.entries.is_empty() {
            self.seal();
        }
        if self.position != *self.writer.position {
            self.writer.position = Arc::new(self.position);
        }
        Batch { chunks: self.chunks, position: Arc::clone(&self.writer.position), notes: self.notes }
    }
}

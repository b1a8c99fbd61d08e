//! Chunks: the unit of memory and eviction. A chunk is the encoded bytes of some events in a row, and an
//! index that tells where each begins and what position it carries.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::position::{Mark, Position};

/// The number of an entry in its log, from 0 on. Unlike a position it means nothing outside this process.
pub type Seq = u64;

/// Encoded events in a row.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Where each event is.
    pub index: Arc<Index>,
    /// The events as they are sent, each its body and then its id block.
    pub bytes: Bytes,
    /// The log's position after the last entry.
    pub end: Arc<Position>,
    /// When it was appended.
    pub at: Instant,
    /// Bytes that the log had taken in before it, since it was made.
    pub before: u64,
}

/// What a reader needs to know of a chunk without holding its bytes.
#[derive(Debug)]
pub struct Index {
    /// The number of the first entry.
    pub first: Seq,
    /// The log's position before the first entry.
    pub start: Arc<Position>,
    /// The entries in order.
    pub entries: Box<[Entry]>,
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
}

impl Index {
    /// The number after the last entry.
    pub fn end(&self) -> Seq {
        self.first + self.entries.len() as Seq
    }

    /// The log's position before the entry `seq`, which lies within or just after this chunk.
    pub fn position_before(&self, seq: Seq) -> Position {
        let mut position = Position::clone(&self.start);
        self.entries[..(seq - self.first) as usize].iter().for_each(|entry| position.advance(entry.mark));
        position
    }

    /// Memory that the index takes, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries)
    }
}

impl Chunk {
    /// Bytes that count against history, buffer and memory: content, index and bookkeeping.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.index.size() + OVERHEAD + size_of_val(self.end.as_slice())
    }

    /// Where the entry at `at` (its place in this chunk) begins; the end of the bytes for the place after
    /// the last.
    pub fn offset(&self, at: usize) -> usize {
        self.index.entries.get(at).map_or(self.bytes.len(), |entry| entry.body as usize)
    }

    /// The body of the entry at `at`.
    pub fn body(&self, at: usize) -> Bytes {
        self.bytes.slice(self.offset(at)..self.index.entries[at].id as usize)
    }
}

/// What a chunk costs beside its bytes and entries: the structs, their counters, the allocator's share.
pub const OVERHEAD: usize = size_of::<Chunk>() + 160;

//! Segments: records of one partition in a row, read from the upstream's history and encoded once for all readers.
//! They hold bodies alone, since each reader's ids are its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::gap::Gap;
use super::id::IdCodec;
use super::key::{KeyHash, Lies};
use super::memory::Memory;
use super::note::{self, Body};
use super::position::{Mark, Offset};
use super::sample;
use super::table::Subject;
use crate::shape::{FOR_ALL, Facts, Record, Shape};

/// Records and bytes after which a segment is closed.
const FULL: (usize, usize) = (4096, 512 * 1024);

/// Bytes after which a block is closed, what is known of its events included: what a reader that stalls keeps from being freed.
const BLOCK: usize = 32 * 1024;

/// What the upstream holds of a partition between two offsets. A reader at `from` has, once it has read the
/// entries, all up to `to`.
#[derive(Debug)]
pub struct Segment {
    /// The partition.
    pub partition: u32,
    /// Where it begins.
    pub from: Offset,
    /// Where it ends.
    pub to: Offset,
    entries: Box<[Entry]>,
    blocks: Box<[Bytes]>,
    /// The entries of each key in order, if the source is keyed.
    keys: Option<HashMap<KeyHash, Vec<u32>>>,
    /// What becomes of each key, in order, where the log has a table.
    changes: Box<[Change]>,
    /// What is known of its entries, where clients have filters; else empty.
    facts: Box<[Facts]>,
    size: usize,
    is_full: bool,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
struct Change {
    key: KeyHash,
    /// An entry; none where the key is gone.
    entry: Option<u32>,
    time: u64,
}

/// One event of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The step that reading it takes within the partition.
    pub next: Offset,
    /// When it was published, in milliseconds since the epoch; 0 where that is not known.
    pub time: u64,
    /// Whether it is a gap that happened to the source, and no record.
    pub note: bool,
    /// Stands for its key, where there is one.
    pub key: Option<KeyHash>,
    /// Where it is, by its key.
    pub lies: Lies,
    block: u32,
    start: u32,
    end: u32,
}

impl Entry {
    /// Bytes of its body.
    pub fn length(&self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Segment {
    /// All of its entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Its entries that a reader at `from` has not read, all of them or those of one key, each with its place.
    pub fn after(&self, from: Offset, key: Option<KeyHash>) -> impl Iterator<Item = (usize, &Entry)> {
        let end = self.entries.len();
        let (all, own) = match (key, &self.keys) {
            (Some(key), Some(keys)) => (end..end, keys.get(&key).map_or(&[][..], Vec::as_slice)),
            _ => (self.entries.partition_point(|entry| entry.next <= from)..end, &[][..]),
        };
        let places = all.chain(own.iter().map(|&at| at as usize));
        places.map(|at| (at, &self.entries[at])).filter(move |(_, entry)| entry.next > from)
    }

    /// What is known of the entry at `place`.
    pub fn facts(&self, place: usize) -> &Facts {
        self.facts.get(place).unwrap_or(&FOR_ALL)
    }

    /// The body of one of its entries.
    pub fn body(&self, entry: &Entry) -> Bytes {
        self.blocks[entry.block as usize].slice(entry.start as usize..entry.end as usize)
    }

    /// What becomes of each key, in order, and when that was published: the entry at a place, or nothing where it is gone.
    /// Empty where the log has no table.
    pub fn changes(&self) -> impl Iterator<Item = (KeyHash, Option<usize>, u64)> {
        self.changes.iter().map(|change| (change.key, change.entry.map(|at| at as usize), change.time))
    }

    /// Bytes that count against memory.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether it ends because there was no room for more.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

/// A segment while it is read.
pub struct SegmentDraft {
    shape: Shape,
    codec: Arc<dyn IdCodec>,
    keyed: bool,
    memory: Arc<Memory>,
    partition: u32,
    from: Offset,
    at: Offset,
    entries: Vec<Entry>,
    facts: Vec<Facts>,
    changes: Vec<Change>,
    blocks: Vec<Bytes>,
    open: Vec<u8>,
    /// Bytes of what is known of the entries whose block is open.
    known: usize,
    /// Entries whose block is closed.
    closed: usize,
    records: usize,
    bytes: usize,
}

impl SegmentDraft {
    /// A segment of `partition` that begins at `from`.
    pub fn new(
        shape: &Shape,
        codec: &Arc<dyn IdCodec>,
        keyed: bool,
        memory: &Arc<Memory>,
        partition: u32,
        from: Offset,
    ) -> Self {
        Self {
            shape: shape.clone(),
            codec: Arc::clone(codec),
            keyed,
            memory: Arc::clone(memory),
            partition,
            from,
            at: from,
            entries: Vec::new(),
            facts: Vec::new(),
            changes: Vec::new(),
            blocks: Vec::new(),
            open: Vec::new(),
            known: 0,
            closed: 0,
            records: 0,
            bytes: 0,
        }
    }

    /// What its events are made by.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Where it began.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Where it has got to.
    pub fn at(&self) -> Offset {
        self.at
    }

    /// Whether it is to be closed.
    pub fn is_full(&self) -> bool {
        self.records >= FULL.0 || self.bytes + self.open.len() + self.known >= FULL.1
    }

    /// Takes in the next record, after which the partition stands at `next`.
    pub fn push(&mut self, next: Offset, record: &impl Record) {
        let mark = Mark { partition: self.partition, next };
        if self.shape.digest.sample.is_some_and(|sample| !sample::keeps(sample, mark)) {
            (self.at, self.records) = (next, self.records + 1);
            return;
        }
        let position = Mark { partition: self.partition, next: self.at }.into();
        let start = self.open.len();
        let (body, keys, facts) =
            note::write_record(record, &self.shape, &*self.codec, &position, mark, &mut self.open);
        (self.at, self.records) = (next, self.records + 1);
        let time = record.timestamp().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let time = time.map_or(0, |time| time.as_millis() as u64);
        let makes_none = matches!(body, Body::None | Body::FilteredOut | Body::Undecided(_));
        if let Some(Subject { key, is_gone }) = Subject::of(record, &keys)
            && (is_gone || !makes_none)
        {
            let entry = (!is_gone).then_some(self.entries.len() as u32);
            self.changes.push(Change { key, entry, time });
        }
        if makes_none {
            return;
        }
        let key = record.key().filter(|_| self.keyed);
        let entry = Entry {
            next,
            time,
            key: key.map(KeyHash::of),
            lies: Lies::of(&*self.codec, key, self.partition),
            note: matches!(body, Body::Note(..)),
            block: self.blocks.len() as u32,
            start: start as u32,
            end: self.open.len() as u32,
        };
        self.entry(entry, facts);
    }

    /// Takes in a gap of which the upstream itself tells in its history, after which the partition stands at `next`.
    pub fn gap(&mut self, next: Offset, gap: &Gap) {
        let start = self.open.len() as u32;
        note::write(gap, &self.shape.control_prefix, &*self.codec, &mut self.open);
        (self.at, self.records) = (next, self.records + 1);
        let (block, end) = (self.blocks.len() as u32, self.open.len() as u32);
        let lies = Lies::Anywhere;
        let entry = Entry { next, time: 0, note: true, key: None, lies, block, start, end };
        self.entry(entry, Facts::default());
    }

    fn entry(&mut self, entry: Entry, facts: Facts) {
        self.entries.push(entry);
        if self.shape.sifts() {
            self.known += facts.size();
            self.facts.push(facts);
        }
        if self.open.len() + self.known >= BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let known = size_of_val(self.facts.get(self.closed..).unwrap_or_default());
        let known = known + std::mem::take(&mut self.known);
        let index = size_of_val(&self.entries[self.closed..]) + known + size_of::<Bytes>();
        self.closed = self.entries.len();
        self.bytes += self.open.len() + index;
        self.blocks.push(self.memory.charge(std::mem::take(&mut self.open), index));
    }

    /// Closes it where it stands, and goes on as an empty one from there.
    pub fn close(&mut self) -> Segment {
        let onward = Self::new(&self.shape, &self.codec, self.keyed, &self.memory, self.partition, self.at);
        let whole = std::mem::replace(self, onward);
        let at = whole.at;
        whole.finish(at)
    }

    /// Closes it: up to `to` the upstream holds nothing else.
    pub fn finish(mut self, to: Offset) -> Segment {
        let is_full = self.is_full();
        if !self.open.is_empty() {
            self.close_block();
        }
        let entries = self.entries.into_boxed_slice();
        let keys = self.keyed.then(|| {
            let mut keys = HashMap::<_, Vec<u32>>::new();
            for (at, key) in (0..).zip(&entries).filter_map(|(at, entry)| Some((at, entry.key?))) {
                keys.entry(key).or_default().push(at);
            }
            keys
        });
        let changes = self.changes.into_boxed_slice();
        let size = size_of::<Segment>() + self.bytes + size_of_val(&*changes);
        let blocks = self.blocks.into_boxed_slice();
        Segment {
            partition: self.partition,
            from: self.from,
            to: to.max(self.at),
            entries,
            blocks,
            keys,
            changes,
            facts: self.facts.into_boxed_slice(),
            size,
            is_full,
        }
    }
}

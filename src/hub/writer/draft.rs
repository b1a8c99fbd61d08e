//! The chunks of one append while they are made: each entry's body, its id block, and its place in the index.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::{Batch, LeftOut, Writer};
use crate::hub::chunk::{Chunk, Entry, Seq, overhead};
use crate::hub::gap::{Gap, Reason};
use crate::hub::key::{KeyHash, Keyed, Lies};
use crate::hub::note::{self, Body};
use crate::hub::position::{Mark, Position};
use crate::hub::table::{Change, Newest, Subject};
use crate::hub::window::{Makes, Waiting};
use crate::shape::{Facts, Record};
use crate::sse;

/// Bytes after which a chunk is closed, what is known of its events included. Of events that are not large a whole one fits
/// into a read.
const CHUNK: usize = 24 * 1024;

/// What one append makes.
pub(super) struct Draft<'w> {
    pub(super) writer: &'w mut Writer,
    chunks: Vec<Chunk>,
    notes: Vec<Reason>,
    changes: Vec<Change>,
    pub(super) left_out: LeftOut,
    pub(super) at: Instant,
    /// When the first event of the open chunk was published, if that is known.
    published: Option<Instant>,
    /// The position after all that was read so far.
    pub(super) position: Position,
    /// The position before the open chunk.
    start: Arc<Position>,
    /// The position after the newest entry, where what made no event has moved it on since.
    end: Option<Position>,
    next: Seq,
    total: u64,
    /// The open chunk's content, the body of the next entry at its end.
    pub(super) bytes: Vec<u8>,
    entries: Vec<Entry>,
    keys: Vec<Keyed>,
    facts: Vec<Facts>,
    /// Bytes of these.
    known: usize,
    /// Where the next entry's body begins.
    open: usize,
}

impl<'w> Draft<'w> {
    pub(super) fn new(writer: &'w mut Writer) -> Self {
        Self {
            chunks: Vec::new(),
            notes: Vec::new(),
            changes: Vec::new(),
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
            facts: Vec::new(),
            known: 0,
            open: 0,
            writer,
        }
    }

    pub(super) fn own_mark(&self) -> Mark {
        Mark::new(0, self.position.next(0) + 1)
    }

    /// Goes past a record that makes no event.
    pub(super) fn skip(&mut self, mark: Mark) {
        self.end.get_or_insert_with(|| self.position.clone());
        self.position.advance(mark);
    }

    pub(super) fn record(&mut self, record: &impl Record, mark: Mark, numbered_upstream: bool) {
        self.dated(record.timestamp());
        let Writer { shape, codec, .. } = &*self.writer;
        let (body, keys, facts) =
            note::write_record(record, shape, &**codec, &self.position, mark, &mut self.bytes);
        self.tell_table(Subject::of(record, &keys), &facts);
        self.left_out.count(&body);
        match body {
            Body::Event => self.entry(mark, false, self.whose(record, mark), facts),
            Body::Note(reason, _) => {
                self.notes.push(reason);
                self.entry(mark, true, self.whose(record, mark), facts);
            }
            // Numbers of the log's own count events, so that what makes none takes none.
            _ if numbered_upstream => self.skip(mark),
            _ => {}
        }
    }

    /// Notes what the body that has just been written says of a key.
    fn tell_table(&mut self, subject: Option<Subject>, facts: &Facts) {
        let Some(Subject { key, is_gone }) = subject else { return };
        let newest = match &self.bytes[self.open..] {
            body if is_gone => Newest::gone(body),
            [] => return,
            body => Newest::of(body),
        };
        self.changes.push(Change { key: Some(key), newest, facts: facts.clone() });
    }

    /// What follows was published then.
    fn dated(&mut self, time: Option<SystemTime>) {
        if self.entries.is_empty() {
            let age = time.and_then(|time| SystemTime::now().duration_since(time).ok());
            self.published = age.and_then(|age| self.at.checked_sub(age));
        }
    }

    /// The next of those that have waited.
    pub(super) fn waited(&mut self, record: Waiting) {
        let mark = record.mark.unwrap_or_else(|| self.own_mark());
        let note = match record.makes {
            Makes::Event(body) => {
                self.bytes.extend_from_slice(&body);
                false
            }
            Makes::Note(reason) => {
                self.note(&Gap::up_to(reason, &self.position, mark, Some(1)));
                true
            }
            Makes::Nothing => {
                self.tell_table(record.subject, &record.facts);
                return record.mark.into_iter().for_each(|mark| self.skip(mark));
            }
        };
        self.tell_table(record.subject, &record.facts);
        self.dated(record.published);
        self.entry(mark, note, record.whose, record.facts);
    }

    /// Goes to where the log stands once nothing waits any more.
    pub(super) fn reach(&mut self, position: &Position) {
        if !self.position.covers_all(position) {
            self.end.get_or_insert_with(|| self.position.clone());
            self.position.merge(position);
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

    /// The same, of a gap that any key may have.
    pub(super) fn note_to_all(&mut self, gap: &Gap) {
        self.note(gap);
        if self.writer.shape.digest.snapshot.is_some() {
            let newest = Newest::of(&self.bytes[self.open..]);
            self.changes.push(Change { key: None, newest, facts: Facts::default() });
        }
    }

    /// Closes the entry whose body has just been written, and of which this is known.
    pub(super) fn entry(
        &mut self,
        mark: Mark,
        note: bool,
        (key, lies): (Option<KeyHash>, Lies),
        facts: Facts,
    ) {
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
        if self.writer.sifts {
            self.known += facts.size();
            self.facts.push(facts);
        }
        sse::id_block(&mut self.bytes, &self.writer.id);
        self.entries.push(Entry { body: self.open as u32, id: id as u32, mark, note, at_home });
        self.open = self.bytes.len();
        if self.open + self.known >= CHUNK {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let entries = std::mem::take(&mut self.entries).into_boxed_slice();
        let end = Arc::new(self.end.take().unwrap_or_else(|| self.position.clone()));
        let start = std::mem::replace(&mut self.start, Arc::clone(&end));
        let keys = std::mem::take(&mut self.keys).into_boxed_slice();
        let facts = std::mem::take(&mut self.facts).into_boxed_slice();
        let overhead = overhead(&entries, &keys, &facts, &end);
        let bytes = self.writer.memory.charge(std::mem::take(&mut self.bytes), overhead);
        (self.open, self.known) = (0, 0);
        let (at, published) = (self.at, self.published.take().unwrap_or(self.at));
        let (first, before) = (self.next, self.total);
        let chunk = Chunk { first, entries, keys, facts, bytes, start, end, at, published, before };
        self.next = chunk.next();
        self.total += chunk.size() as u64;
        self.chunks.push(chunk);
    }

    /// Only now the writer moves on: a record that panics takes its whole append with it, and no more.
    pub(super) fn finish(mut self) -> Batch {
        if !self.entries.is_empty() {
            self.seal();
        }
        let events = self.next - self.writer.next;
        (self.writer.next, self.writer.total) = (self.next, self.total);
        if self.position != *self.writer.position {
            self.writer.position = Arc::new(self.position);
        }
        let position = Arc::clone(&self.writer.position);
        let Self { chunks, notes, changes, left_out, .. } = self;
        Batch { chunks, position, events, notes, replaced: 0, left_out, ends: None, changes }
    }
}

//! The log of one feed: a writer and a ring behind two locks, and a wake. Appending never waits for a reader:
//! encoding happens outside the readers' lock, and what is done inside it does not depend on their number.
//!
//! Here is what its upstream does with it: it is opened, appended to and begun anew. What readers do is in `reading`, how much
//! it holds in `keeping`.

mod appended;
mod keeping;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::appended::Appended;
pub use self::keeping::Held;
use super::chunk::Seq;
use super::gap::{Gap, Reason};
use super::history::History;
use super::id::IdCodec;
use super::memory::{Memory, Reclaim};
use super::position::{Mark, Position};
use super::ring::{Bounds, Ring};
use super::segment::Segment;
use super::table::Table;
use super::wake::{Due, Wake};
use super::writer::{Batch, Writer};
use crate::shape::{Record, Shape};

/// Bounded, append-only, in memory; one upstream session writes, any number of cursors read.
pub struct Log {
    shape: Shape,
    keyed: bool,
    memory: Arc<Memory>,
    wake: Arc<Wake>,
    bounds: Mutex<Bounds>,
    readers: AtomicUsize,
    made: Instant,
    writer: Mutex<Option<Writer>>,
    open: Mutex<Option<Open>>,
    /// Bytes that wait to be appended, where it conflates.
    waiting: AtomicUsize,
    /// Records that newer ones of their keys replaced.
    replaced: AtomicU64,
    /// The newest of each key, for readers that begin with a snapshot.
    table: Option<Arc<Table>>,
    own: Weak<Self>,
}

struct Open {
    ring: Ring,
    codec: Arc<dyn IdCodec>,
    history: Option<Arc<dyn History>>,
    at: Instant,
}

impl Open {
    /// Lets go of what is too much or too old.
    fn evict(&mut self, bounds: &Bounds, attended: bool, now: Instant) {
        let floor = self.ring.floor();
        self.ring.evict(bounds, attended, now);
        if self.ring.floor() != floor {
            self.codec.forgets(self.ring.floor_position());
        }
    }
}

/// How a log begins whose upstream keeps history.
pub struct Opening<'s> {
    /// Its ids.
    pub codec: Arc<dyn IdCodec>,
    /// What the upstream keeps beyond the log.
    pub history: Arc<dyn History>,
    /// What it is filled with, those of a partition in order; from `start` on there is nothing else.
    pub segments: &'s [Segment],
    /// Where that begins.
    pub start: Position,
    /// Where it goes on after that.
    pub end: Position,
}

/// What readers are to be told of: there are entries up to `head`.
struct News {
    head: Seq,
    /// Who waits for the keys of these.
    wakes: Vec<Arc<Notify>>,
    /// Whether they are to be told at once.
    hurry: bool,
}

impl Log {
    /// A log that holds nothing and is not open: readers wait. In a keyed one each reader sees one key.
    pub fn new(
        shape: Shape,
        keyed: bool,
        bounds: Bounds,
        memory: &Arc<Memory>,
        wake: Arc<Wake>,
    ) -> Arc<Self> {
        Self::within(shape, keyed, bounds, (memory, memory), wake)
    }

    /// The same, with a table that has room in the second of these, which is a part of the first.
    pub fn within(
        shape: Shape,
        keyed: bool,
        bounds: Bounds,
        (memory, tables): (&Arc<Memory>, &Arc<Memory>),
        wake: Arc<Wake>,
    ) -> Arc<Self> {
        let table = shape.digest.snapshot.as_ref().map(|snapshot| Table::within(snapshot, memory, tables));
        let log = Arc::new_cyclic(|own: &Weak<Self>| Self {
            shape,
            keyed,
            memory: Arc::clone(memory),
            wake,
            bounds: Mutex::new(bounds),
            readers: AtomicUsize::new(0),
            made: Instant::now(),
            writer: Mutex::new(None),
            open: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            replaced: AtomicU64::new(0),
            table,
            own: Weak::clone(own),
        });
        let holder: Arc<dyn Reclaim> = log.clone();
        memory.register(Arc::downgrade(&holder));
        log
    }

    /// Opens the log: the upstream's subscription is confirmed, and what comes next follows `position`. Does
    /// nothing if it is open already.
    pub fn open(&self, codec: Arc<dyn IdCodec>, position: Position) {
        self.open_with(codec, None, position, |_| None);
    }

    /// Opens the log of a source whose upstream keeps history. Does nothing if it is open already.
    pub fn open_filled(&self, opening: Opening<'_>) {
        let Opening { codec, history, segments, start, end } = opening;
        self.open_with(codec, Some(history), start, |writer| Some(writer.fill(segments, &end)));
        self.settle();
    }

    /// Opens the log of a source that numbers nothing, with records that were there before. Does nothing if it is open
    /// already.
    pub fn open_after<R: Record>(
        &self,
        codec: Arc<dyn IdCodec>,
        records: impl IntoIterator<Item = R>,
    ) -> Appended {
        let mut appended = Appended::default();
        self.open_with(codec, None, Position::default(), |writer| {
            // A window that was never open ends at once.
            let mut batch = writer.records(records.into_iter().map(|record| (None, record)), usize::MAX);
            appended = Appended::of(&mut batch);
            Some(batch)
        });
        self.replaced.fetch_add(appended.replaced, Ordering::Relaxed);
        self.settle();
        appended
    }

    fn open_with(
        &self,
        codec: Arc<dyn IdCodec>,
        history: Option<Arc<dyn History>>,
        position: Position,
        fill: impl FnOnce(&mut Writer) -> Option<Batch>,
    ) {
        let head = {
            let mut slot = self.writer.lock();
            if slot.is_some() {
                return;
            }
            let mut ring = Ring::new(position.clone(), self.keyed, Arc::clone(&self.memory));
            let (shape, memory) = (self.shape.clone(), Arc::clone(&self.memory));
            let mut writer = Writer::new(Arc::clone(&codec), shape, self.keyed, memory, position);
            let mut changes = Vec::new();
            if let Some(mut batch) = fill(&mut writer) {
                changes = std::mem::take(&mut batch.changes);
                // Nobody reads yet.
                drop(ring.push(batch));
                ring.evict(&self.bounds.lock(), self.attended(), Instant::now());
            }
            if let Some(table) = &self.table {
                // What lies before is read by and by; what comes meanwhile is newer.
                drop(table.begin(Arc::clone(ring.position()), history.is_none()));
                history.iter().for_each(|history| history.scan(ring.position(), Arc::clone(table)));
                table.put(changes, ring.position());
            }
            *slot = Some(writer);
            let head = ring.head();
            *self.open.lock() = Some(Open { ring, codec, history, at: Instant::now() });
            head
        };
        self.wake.ring_now(head);
    }

    /// The position after the newest record, even if that waits to be appended; `None` before the log is open.
    pub fn position(&self) -> Option<Arc<Position>> {
        self.writer.lock().as_ref().map(|writer| Arc::clone(writer.position()))
    }

    /// Appends records, each with its mark, or with none where the log numbers them. Records that the log has
    /// already are left out. Never waits for a reader. Where the log conflates, they wait for their window's end, or until
    /// they take up half of the lag room.
    pub fn append<R: Record>(&self, records: impl IntoIterator<Item = (Option<Mark>, R)>) -> Appended {
        let room = self.bounds.lock().buffer / 2;
        let (mut records, mut appended) = (records.into_iter().peekable(), Appended::default());
        loop {
            let mut is_open = false;
            appended.follow(self.take_in(|writer| {
                is_open = true;
                writer.records(&mut records, room)
            }));
            if !is_open || records.peek().is_none() {
                break;
            }
        }
        // Told here alone, where somebody counts it; what a window's end does to the table is told with the next records.
        appended.gaps.extend(self.table.as_ref().and_then(|table| table.news()));
        appended
    }

    /// Appends the gap `upstream_lost` for this span of time.
    pub fn append_link_lost(&self, span: (SystemTime, SystemTime)) -> Appended {
        self.take_in(|writer| writer.link_lost(span))
    }

    /// Appends a gap of so many records, of a source whose entries the log numbers.
    pub fn append_lost(&self, reason: Reason, missed: u64) -> Appended {
        self.take_in(|writer| writer.lost(reason, missed))
    }

    /// Appends a gap of the source itself up to `mark`, in its partition.
    pub fn append_missing(&self, reason: Reason, mark: Mark) -> Appended {
        self.take_in(|writer| writer.missing(reason, mark))
    }

    /// Wakes readers for all there is, whatever `linger` and a window say: nothing is to follow.
    pub fn ends(&self) {
        self.take_in(|writer| writer.flush(Instant::now()));
        let head = self.open.lock().as_ref().map(|open| open.ring.head());
        head.into_iter().for_each(|head| self.wake.ring_now(head));
    }

    /// Appends a gap that the upstream itself tells of, which takes readers to `mark`.
    pub fn append_gap(&self, gap: &Gap, mark: Mark) -> Appended {
        self.take_in(|writer| writer.gap(gap, mark))
    }

    /// The upstream has got to `mark` without an event.
    pub fn move_on(&self, mark: Mark) {
        self.take_in(|writer| writer.moved(mark));
    }

    /// The source was created anew: forgets everything and goes on at `position`, with a codec that does not
    /// know the ids given before. Readers are told. Returns whether the log was open.
    pub fn restart(&self, codec: Arc<dyn IdCodec>, position: Position) -> bool {
        let (mut head, mut wakes) = (0, Vec::new());
        // Dropped when nobody waits for it.
        let mut forgotten = None;
        {
            let mut writer = self.writer.lock();
            let Some(writer) = writer.as_mut() else { return false };
            writer.restart(Arc::clone(&codec), position.clone());
            self.waiting.store(0, Ordering::Relaxed);
            if let Some(open) = self.open.lock().as_mut() {
                open.ring.restart(position);
                head = open.ring.head();
                wakes = open.ring.index().map(|(index, _)| index.all_wakes()).unwrap_or_default();
                open.codec = codec;
                if let Some(history) = &open.history {
                    history.reset();
                }
                // All that there is of the new one comes live.
                let position = Arc::clone(open.ring.position());
                forgotten = self.table.as_ref().map(|table| table.begin(position, true));
            }
        }
        drop(forgotten);
        wakes.iter().for_each(|wake| wake.notify_waiters());
        self.wake.ring_now(head);
        true
    }

    fn take_in(&self, encode: impl FnOnce(&mut Writer) -> Batch) -> Appended {
        let mut writer = self.writer.lock();
        let Some(open) = writer.as_mut() else { return Appended::default() };
        let batch = encode(open);
        let (appended, news) = self.push(open, batch);
        drop(writer);
        self.settle();
        news.into_iter().for_each(|news| self.tell(news));
        appended
    }

    /// Takes in what the writer made. Returns who is to be told of it.
    fn push(&self, writer: &Writer, mut batch: Batch) -> (Appended, Option<News>) {
        let appended = Appended::of(&mut batch);
        self.replaced.fetch_add(appended.replaced, Ordering::Relaxed);
        self.waiting.store(writer.waiting(), Ordering::Relaxed);
        if let Some(ends) = batch.ends {
            self.wake.linger().schedule(ends, self.own.clone());
        }
        let (changes, position) = (std::mem::take(&mut batch.changes), Arc::clone(&batch.position));
        let news = self.push_on_ring(batch);
        // Only now: what a snapshot lacks is on the ring.
        if let Some(table) = &self.table {
            table.put(changes, &position);
        }
        (appended, news)
    }

    fn push_on_ring(&self, batch: Batch) -> Option<News> {
        let (is_news, bounds) = (!batch.chunks.is_empty(), *self.bounds.lock());
        let mut open = self.open.lock();
        let open = open.as_mut()?;
        let wakes = open.ring.push(batch);
        let head = open.ring.head();
        open.evict(&bounds, self.attended(), Instant::now());
        // What takes up much of the lag room does not linger.
        let hurry = self.attended() && open.ring.unread() > bounds.buffer as u64 / 4;
        is_news.then_some(News { head, wakes, hurry })
    }

    fn tell(&self, news: News) {
        let News { head, wakes, hurry } = news;
        if hurry { self.wake.ring_now(head) } else { self.wake.ring(head, wakes) }
    }

    /// Whether a source that can pause should: there are readers, and not even the foremost keeps up.
    pub fn congested(&self) -> bool {
        let buffer = self.bounds.lock().buffer as u64;
        self.attended() && self.open.lock().as_ref().is_some_and(|open| open.ring.unread() > buffer / 2)
    }

    /// From now on records of a key may be in other partitions than before.
    pub fn scatter(&self) {
        self.take_in(|writer| writer.flush(Instant::now()));
        if let Some(open) = self.open.lock().as_ref() {
            open.codec.scatter(open.ring.position());
        }
    }

    fn attended(&self) -> bool {
        self.readers() > 0
    }

    fn settle(&self) {
        self.memory.settle();
        self.table.iter().for_each(|table| table.settle());
    }
}

impl Due for Log {
    /// The window of what waits is over, unless it ended before.
    fn due(&self, at: Instant) {
        self.take_in(|writer| writer.flush_due(at));
    }
}

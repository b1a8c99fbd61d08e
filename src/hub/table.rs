//! The newest of each key of a log, for readers that begin with a snapshot. The writer keeps it up to date; a reader is
//! given a [`Generation`] of it, which says at which position it was taken: everything up to there is in it, and everything
//! after is for the log to give. Who comes soon after shares it, by pointer. Where the log has let go of what came after, or
//! there was no room to keep a generation for as long as its reader took, the reader goes on with what changes in the table.

mod inner;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::gap::Reason;
use super::generation::{self, Generation, Page};
use super::history::Found;
use super::key::KeyHash;
use super::memory::{Memory, Reclaim};
use super::note;
use super::order::{Kept, OVERHEAD, Order, Sent};
use super::position::Position;
use super::ring::Ring;
use super::segment::Segment;
use super::sieve::Contents;
use crate::config::Snapshot;
use crate::shape::{Facts, Keys, Record};
use inner::Inner;

/// The newest of each key.
pub struct Table {
    bounds: Bounds,
    /// What its pages count in.
    memory: Arc<Memory>,
    /// What its keys count in, which nobody but another table wants to have.
    room: Arc<Memory>,
    inner: Mutex<Inner>,
    /// Rings when what the upstream held before the log has been read.
    whole: Arc<Notify>,
    spare: Arc<Spare>,
}

/// What a record says of a key.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The key.
    pub key: KeyHash,
    /// Whether it is gone.
    pub is_gone: bool,
}

impl Subject {
    /// That of this record with these keys, where there is a table and it has one.
    pub fn of(record: &impl Record, keys: &Keys<'_>) -> Option<Self> {
        let key = KeyHash::of(keys.snapshot.as_deref()?);
        Some(Self { key, is_gone: record.deletes() })
    }
}

/// What it has room for.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    keys: usize,
    bytes: usize,
}

/// What became of a key, or of the source as a whole.
#[derive(Debug)]
pub struct Change {
    /// The key; none where it concerns them all.
    pub key: Option<KeyHash>,
    /// Its newest.
    pub newest: Newest<Vec<u8>>,
    /// What is known of that for the filters of clients.
    pub facts: Facts,
}

/// The newest of a key.
#[derive(Debug)]
pub enum Newest<B> {
    /// An event, or a gap in its place: as it is sent, without an id.
    Is(B),
    /// It is gone; and the event that says so, if one does.
    Gone(Option<B>),
}

impl Newest<Vec<u8>> {
    /// The event, or the gap, that an entry of this body is.
    pub fn of(body: &[u8]) -> Self {
        Self::Is(event(body))
    }

    /// The key is gone, which an entry of this body says, if there is one.
    pub fn gone(body: &[u8]) -> Self {
        Self::Gone((!body.is_empty()).then(|| event(body)))
    }
}

impl<B> Newest<B> {
    /// What is sent of it.
    pub fn body(&self) -> Option<&B> {
        match self {
            Self::Is(body) => Some(body),
            Self::Gone(body) => body.as_ref(),
        }
    }

    fn map<C>(self, with: impl FnOnce(B) -> C) -> Newest<C> {
        match self {
            Self::Is(body) => Newest::Is(with(body)),
            Self::Gone(body) => Newest::Gone(body.map(with)),
        }
    }
}

fn event(body: &[u8]) -> Vec<u8> {
    let body = note::alone(body);
    let mut event = Vec::with_capacity(body.len() + 1);
    event.extend_from_slice(body);
    event.push(b'\n');
    event
}

/// What a table holds, for `/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tabled {
    /// Keys.
    pub keys: usize,
    /// Bytes, bookkeeping included.
    pub bytes: usize,
    /// Whether it has all of the source's keys that it has room for.
    pub is_whole: bool,
    /// Whether keys had to leave for want of room.
    pub lacks: bool,
}

/// A reader that begins to walk.
#[derive(Debug)]
pub struct Entered {
    /// The generation that it walks.
    pub generation: u64,
    /// Where the table ended when that was made.
    pub end: u64,
    /// Where the log stood there.
    pub as_of: Arc<Position>,
    /// Whether keys are missing for want of room.
    pub lacks: bool,
    _walks: Arc<()>,
}

/// What there is of a generation.
pub enum Walked {
    /// The next page.
    Page(Page),
    /// Nothing more.
    End,
    /// There was no room for it any more.
    Gone,
}

/// What has changed in the table.
pub struct Changes {
    /// The events. None at the end.
    pub events: Vec<Sent>,
    /// The number at which the next ones begin.
    pub to: u64,
    /// Where the table ends.
    pub end: u64,
    /// Where the log stands there.
    pub as_of: Arc<Position>,
    /// Whether keys are missing for want of room, or some are known that are gone.
    pub lacks: bool,
}

/// What a table held that begins anew. It may take its time to drop: to be done where nobody waits.
pub struct Forgotten {
    _order: Order,
    _generations: VecDeque<Generation>,
}

impl Table {
    /// An empty table.
    pub fn new(snapshot: &Snapshot, memory: &Arc<Memory>) -> Arc<Self> {
        Self::within(snapshot, memory, memory)
    }

    /// The same, whose keys have `room` in a part of that memory: where there is none left, the table with the most gives up
    /// its oldest.
    pub fn within(snapshot: &Snapshot, memory: &Arc<Memory>, room: &Arc<Memory>) -> Arc<Self> {
        let table = Arc::new_cyclic(|own| Self {
            bounds: Bounds { keys: snapshot.max_keys, bytes: snapshot.max_bytes },
            memory: Arc::clone(memory),
            room: Arc::clone(room),
            inner: Mutex::new(Inner::new(room)),
            whole: Arc::default(),
            spare: Arc::new(Spare(Weak::clone(own))),
        });
        let (keys, pages): (Arc<dyn Reclaim>, Arc<dyn Reclaim>) = (table.clone(), table.spare.clone());
        room.register_here(Arc::downgrade(&keys));
        memory.register(Arc::downgrade(&pages));
        table
    }

    /// The log opens, or begins anew, at `position`. Where the upstream has more before that it `is_read`, or all of it is
    /// to be told by [`Self::put_read`] and [`Self::is_whole`].
    pub fn begin(&self, position: Arc<Position>, is_read: bool) -> Forgotten {
        let forgotten = self.inner.lock().restart(position, is_read);
        self.whole.notify_waiters();
        forgotten
    }

    /// Takes in what one append came to, after which the log stands at `position`, and has it to give.
    pub fn put(&self, changes: Vec<Change>, position: &Arc<Position>) {
        let kept = |Change { key, newest, facts }| {
            let newest = self.charged(newest, facts);
            Kept { key, newest, read: None }
        };
        let changes: Vec<_> = changes.into_iter().map(kept).collect();
        let mut inner = self.inner.lock();
        for kept in changes {
            inner.take(kept, self.bounds);
        }
        inner.as_of = Arc::clone(position);
        inner.forget_gone(AT_ONCE);
        inner.count();
    }

    /// Why snapshots lack something, told once.
    pub fn news(&self) -> Option<Reason> {
        let mut inner = self.inner.lock();
        let is_news = inner.lacks && !inner.is_told;
        inner.is_told = inner.lacks;
        is_news.then_some(Reason::SnapshotLimit)
    }

    /// Takes in what the upstream held before the log: the segments of a partition come in order.
    pub fn put_read(&self, segment: &Segment) {
        for (key, place, time) in segment.changes() {
            let (newest, facts) = match place {
                Some(place) => {
                    let body = segment.body(&segment.entries()[place]);
                    (Newest::of(&body), segment.facts(place).clone())
                }
                None => (Newest::Gone(None), Facts::default()),
            };
            let read = Some((segment.partition, time));
            let kept = Kept { key: Some(key), newest: self.charged(newest, facts), read };
            let mut inner = self.inner.lock();
            inner.take(kept, self.bounds);
            inner.count();
        }
    }

    /// All that the upstream held before the log has been put in.
    pub fn is_whole(&self) {
        let mut inner = self.inner.lock();
        inner.is_read = true;
        inner.drop_idle_gap();
        drop(inner);
        self.whole.notify_waiters();
    }

    fn charged(&self, newest: Newest<Vec<u8>>, facts: Facts) -> Newest<Sent> {
        newest.map(|event| Sent { bytes: self.room.charge(event, OVERHEAD + facts.size()), facts })
    }

    /// A reader begins to walk now, after which `ring` can give the rest.
    pub fn enter(&self, ring: &Ring, now: Instant) -> Found<Entered> {
        let mut inner = self.inner.lock();
        if !inner.is_read {
            return Found::Wait(Arc::clone(&self.whole).notified_owned());
        }
        Found::Here(inner.enter(ring, now))
    }

    /// A page of a generation.
    pub fn page(&self, generation: u64, at: usize) -> Walked {
        let mut guard = self.inner.lock();
        let Inner { order, generations, .. } = &mut *guard;
        let generation = generations.iter_mut().find(|walked| walked.number == generation);
        let Some(generation) = generation else { return Walked::Gone };
        generation.page(at, order, &self.memory).map_or(Walked::End, Walked::Page)
    }

    /// What has changed from the number `from` on, for one that has walked the generation which was made where the table ended
    /// at `since`: as much of it as a page.
    pub fn changes(&self, from: u64, since: u64) -> Changes {
        let inner = self.inner.lock();
        let end = inner.order.end();
        let (events, to) = generation::fitting(inner.order.changes(from, since), end);
        let lacks = inner.lacks || inner.forgot.is_some_and(|gone| gone >= since);
        Changes { events, to, end, as_of: Arc::clone(&inner.as_of), lacks }
    }

    /// What has changed in one piece, for a reader whose filter is to be asked what it is given of that. Nothing where all of
    /// it is for every client.
    pub fn to_sift(&self, changes: &Changes) -> Option<(Bytes, Arc<Contents>)> {
        let (bytes, contents) = generation::joined(&changes.events, &self.memory);
        Some((bytes, contents?))
    }

    /// What a reader of one key begins with, and where that stands.
    pub fn of_key(&self, key: KeyHash) -> Found<(Option<Sent>, Arc<Position>, bool)> {
        let inner = self.inner.lock();
        if !inner.is_read {
            return Found::Wait(Arc::clone(&self.whole).notified_owned());
        }
        let kept = inner.order.number(Some(key)).and_then(|number| inner.order.at(number));
        let body = kept.filter(|kept| !kept.is_gone()).and_then(|kept| kept.newest.body().cloned());
        let lacks = inner.lacks && kept.is_none();
        Found::Here((body, Arc::clone(&inner.as_of), lacks))
    }

    /// Lets go of generations that nobody walks any more, and of what is gone and nobody has to know.
    pub fn sweep(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let stays = |walked: &Generation| walked.is_walked() || now.duration_since(walked.made()) < SHARED;
        inner.keep(stays);
        let let_go = std::mem::take(&mut inner.let_go);
        MutexGuard::unlocked(&mut inner, || drop(let_go));
        inner.walks.retain(|(_, walks)| walks.strong_count() > 0);
        // What is appended meanwhile has its turn in between.
        for _ in 0..SWEPT {
            let is_more = inner.forget_gone(AT_ONCE);
            inner.count();
            if !is_more {
                break;
            }
            MutexGuard::bump(&mut inner);
        }
        drop(inner);
        self.settle();
    }

    /// Makes room where tables take up too much. Called with no lock held.
    pub fn settle(&self) {
        self.room.settle();
    }

    /// What it holds.
    pub fn held(&self) -> Tabled {
        let inner = self.inner.lock();
        let (order, is_whole, lacks) = (&inner.order, inner.is_read, inner.lacks);
        Tabled { keys: order.keys(), bytes: order.bytes() + order.gone_bytes(), is_whole, lacks }
    }
}

impl Reclaim for Table {
    fn held(&self) -> usize {
        let inner = self.inner.lock();
        inner.order.bytes() + inner.all_generations().map(Generation::aside).sum::<usize>()
    }

    /// What was kept for readers goes first; without that they are given what is there. Who comes after a key has gone is told
    /// what is missing.
    fn reclaim(&self, bytes: usize) -> usize {
        let mut inner = self.inner.lock();
        let generations = (std::mem::take(&mut inner.generations), std::mem::take(&mut inner.let_go));
        let all = generations.0.iter().chain(&generations.1);
        let mut given = all.map(Generation::aside).sum::<usize>();
        MutexGuard::unlocked(&mut inner, || drop(generations));
        for n in 1.. {
            if given >= bytes {
                break;
            }
            match inner.give_oldest() {
                0 => break,
                size => given += size,
            }
            if n % AT_ONCE == 0 {
                // What is appended meanwhile has its turn in between.
                MutexGuard::bump(&mut inner);
            }
        }
        given
    }
}

/// The pages of a table, which are given up as soon as memory is short.
struct Spare(Weak<Table>);

impl Reclaim for Spare {
    fn held(&self) -> usize {
        let Some(table) = self.0.upgrade() else { return 0 };
        let inner = table.inner.lock();
        inner.all_generations().map(Generation::paged).sum()
    }

    fn reclaim(&self, bytes: usize) -> usize {
        let Some(table) = self.0.upgrade() else { return 0 };
        let mut inner = table.inner.lock();
        let mut gone = Vec::from(std::mem::take(&mut inner.let_go));
        let mut given = gone.iter().map(Generation::paged).sum::<usize>();
        while given < bytes
            && let Some(oldest) = inner.generations.pop_front()
        {
            given += oldest.paged();
            gone.push(oldest);
        }
        drop(inner);
        drop(gone);
        given
    }
}

/// How long one that nobody walks is kept for others.
const SHARED: Duration = Duration::from_secs(10);

/// Keys that are looked at in one go, while appends wait.
const AT_ONCE: usize = 256;

/// How often that is done when there is time.
const SWEPT: usize = 64;

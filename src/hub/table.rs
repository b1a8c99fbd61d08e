//! The newest of each key of a log, for readers that begin with a snapshot. The writer keeps it up to date; a reader is
//! given a *generation* of it, which never changes and says at which position it was taken: everything up to there is in
//! it, and everything after is for the log to give. Who comes soon after shares it, by pointer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::gap::Reason;
use super::generation::{Generation, Lies, OVERHEAD};
use super::history::Found;
use super::key::KeyHash;
use super::memory::Memory;
use super::note;
use super::position::Position;
use super::ring::Ring;
use super::segment::Segment;
use crate::config::Snapshot;
use crate::shape::{Facts, Keys, Record};

/// The newest of each key.
pub struct Table {
    bounds: Bounds,
    memory: Arc<Memory>,
    inner: Mutex<Inner>,
    /// Rings when what the upstream held before the log has been read.
    whole: Arc<Notify>,
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
    /// It is gone.
    Gone,
}

impl Newest<Vec<u8>> {
    /// The event, or the gap, that an entry of this body is.
    pub fn of(body: &[u8]) -> Self {
        let body = note::alone(body);
        let mut event = Vec::with_capacity(body.len() + 1);
        event.extend_from_slice(body);
        event.push(b'\n');
        Self::Is(event)
    }
}

struct Inner {
    /// The number of each key's newest.
    numbers: HashMap<KeyHash, u64>,
    /// What is kept, by number: what came last has the highest, and what was read from the upstream has lower ones than
    /// what came live.
    kept: BTreeMap<u64, Kept>,
    /// How many of these are gone.
    gone: usize,
    bytes: usize,
    next: u64,
    next_read: u64,
    /// The number of the newest gap that concerns all keys.
    gap: Option<u64>,
    /// Where the log stood when the newest of it came.
    as_of: Arc<Position>,
    /// Whether it is still to be read what the upstream held before the log.
    is_read: bool,
    /// Whether keys had to leave for want of room.
    lacks: bool,
    /// Whether that was told.
    is_told: bool,
    /// The generations that are walked, the newest at the end.
    generations: VecDeque<Arc<Generation>>,
}

#[derive(Debug)]
struct Kept {
    key: Option<KeyHash>,
    newest: Newest<Bytes>,
    facts: Facts,
    /// Where it was read, and when it was published there.
    read: Option<(u32, u64)>,
}

/// The newest of a key as it is sent, and what is known of it.
pub type Sent = (Bytes, Facts);

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

impl Table {
    /// An empty table.
    pub fn new(snapshot: &Snapshot, memory: &Arc<Memory>) -> Arc<Self> {
        let inner = Inner {
            numbers: HashMap::new(),
            kept: BTreeMap::new(),
            gone: 0,
            bytes: 0,
            next: LIVE,
            next_read: 0,
            gap: None,
            as_of: Arc::default(),
            is_read: true,
            lacks: false,
            is_told: false,
            generations: VecDeque::new(),
        };
        Arc::new(Self {
            bounds: Bounds { keys: snapshot.max_keys, bytes: snapshot.max_bytes },
            memory: Arc::clone(memory),
            inner: Mutex::new(inner),
            whole: Arc::default(),
        })
    }

    /// The log opens, or begins anew, at `position`. Where the upstream has more before that it `is_read`, or all of it is
    /// to be told by [`Self::put_read`] and [`Self::is_whole`].
    pub fn begin(&self, position: Arc<Position>, is_read: bool) {
        let mut inner = self.inner.lock();
        inner.numbers.clear();
        inner.kept.clear();
        inner.generations.clear();
        (inner.gone, inner.bytes, inner.gap) = (0, 0, None);
        (inner.lacks, inner.is_told) = (false, false);
        (inner.as_of, inner.is_read) = (position, is_read);
        drop(inner);
        self.whole.notify_waiters();
    }

    /// Takes in what one append came to, after which the log stands at `position`, and has it to give.
    pub fn put(&self, changes: Vec<Change>, position: &Arc<Position>) {
        let mut inner = self.inner.lock();
        for Change { key, newest, facts } in changes {
            let newest = self.charged(newest, &facts);
            inner.put(Kept { key, newest, facts, read: None }, self.bounds);
        }
        inner.as_of = Arc::clone(position);
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
            let newest = match place {
                Some(place) => Newest::of(&segment.body(&segment.entries()[place])),
                None => Newest::Gone,
            };
            let facts = place.map(|place| segment.facts(place).clone()).unwrap_or_default();
            let (newest, read) = (self.charged(newest, &facts), Some((segment.partition, time)));
            self.inner.lock().put(Kept { key: Some(key), newest, facts, read }, self.bounds);
        }
    }

    /// All that the upstream held before the log has been put in.
    pub fn is_whole(&self) {
        let mut inner = self.inner.lock();
        inner.is_read = true;
        let gone: Vec<_> =
            inner.kept.iter().filter(|(_, kept)| kept.is_gone()).map(|(&number, _)| number).collect();
        gone.into_iter().for_each(|number| inner.remove(number));
        inner.drop_idle_gap();
        drop(inner);
        self.whole.notify_waiters();
    }

    fn charged(&self, newest: Newest<Vec<u8>>, facts: &Facts) -> Newest<Bytes> {
        match newest {
            Newest::Is(event) => Newest::Is(self.memory.charge(event, OVERHEAD + facts.size())),
            Newest::Gone => Newest::Gone,
        }
    }

    /// A generation for a reader that begins now, after which `ring` can give the rest.
    pub fn generation(&self, ring: &Ring, now: Instant) -> Found<Arc<Generation>> {
        let mut inner = self.inner.lock();
        if !inner.is_read {
            return Found::Wait(Arc::clone(&self.whole).notified_owned());
        }
        Found::Here(inner.generation(ring, &self.memory, now))
    }

    /// What a reader of one key begins with, what is known of that, and where it stands.
    pub fn of_key(&self, key: KeyHash) -> Found<(Option<Sent>, Arc<Position>, bool)> {
        let inner = self.inner.lock();
        if !inner.is_read {
            return Found::Wait(Arc::clone(&self.whole).notified_owned());
        }
        let kept = inner.numbers.get(&key).and_then(|number| inner.kept.get(number));
        let body = kept.and_then(|kept| Some((kept.body()?.clone(), kept.facts.clone())));
        let lacks = inner.lacks && body.is_none();
        Found::Here((body, Arc::clone(&inner.as_of), lacks))
    }

    /// Lets go of generations that nobody walks any more.
    pub fn sweep(&self, now: Instant) {
        let stays = |walked: &Arc<Generation>| {
            Arc::weak_count(walked) > 0 || now.duration_since(walked.made()) < SHARED
        };
        self.inner.lock().generations.retain(stays);
    }

    /// What it holds.
    pub fn held(&self) -> Tabled {
        let inner = self.inner.lock();
        Tabled { keys: inner.numbers.len(), bytes: inner.bytes, is_whole: inner.is_read, lacks: inner.lacks }
    }
}

impl Inner {
    fn put(&mut self, kept: Kept, bounds: Bounds) {
        let before = match kept.key {
            Some(key) => self.numbers.get(&key).copied(),
            None => self.gap,
        };
        let older = before
            .and_then(|number| self.kept.get(&number))
            .is_some_and(|before| before.is_newer_than(&kept));
        if older {
            return;
        }
        before.into_iter().for_each(|number| self.remove(number));
        // What is gone has to be known for as long as something older may still be read.
        if kept.is_gone() && self.is_read {
            return;
        }
        let next = if kept.read.is_some() { &mut self.next_read } else { &mut self.next };
        let number = *next;
        *next += 1;
        match kept.key {
            Some(key) => _ = self.numbers.insert(key, number),
            None => self.gap = Some(number),
        }
        self.bytes += kept.size();
        self.gone += usize::from(kept.is_gone());
        self.kept.insert(number, kept);
        let exceeds = |own: &Self| {
            let there = own.numbers.len() - own.gone;
            there > bounds.keys || own.gone > bounds.keys || own.bytes > bounds.bytes
        };
        while exceeds(self)
            && let Some((&oldest, _)) = self.kept.first_key_value()
        {
            self.lacks = true;
            self.remove(oldest);
        }
        self.drop_idle_gap();
    }

    /// A gap before which there is nothing says nothing of what there is.
    fn drop_idle_gap(&mut self) {
        if let Some(gap) = self.gap.filter(|_| self.is_read)
            && self.kept.first_key_value().is_some_and(|(&first, _)| first == gap)
        {
            self.remove(gap);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(kept) = self.kept.remove(&number) else { return };
        self.bytes -= kept.size();
        self.gone -= usize::from(kept.is_gone());
        match kept.key {
            Some(key) => _ = self.numbers.remove(&key),
            None => self.gap = None,
        }
    }

    fn generation(&mut self, ring: &Ring, memory: &Arc<Memory>, now: Instant) -> Arc<Generation> {
        let lies = |generation: &Arc<Generation>| Lies::of(generation, ring);
        let newest = self.generations.back().cloned();
        if let Some(newest) = newest.filter(|newest| lies(newest) == Lies::Near) {
            return newest;
        }
        self.generations.retain(|walked| Arc::weak_count(walked) > 0);
        if self.generations.len() >= WALKED {
            // Whoever walks the oldest begins anew, unless it is young, and the newest will still do.
            let young =
                self.generations.front().is_some_and(|oldest| now.duration_since(oldest.made()) < PATIENCE);
            if let Some(newest) =
                self.generations.back().filter(|newest| young && lies(newest) != Lies::Before)
            {
                return Arc::clone(newest);
            }
            self.generations.pop_front();
        }
        let there = || self.kept.values().filter_map(|kept| Some((kept.body()?, &kept.facts)));
        let entries = there().map(|(body, _)| body.clone()).collect();
        let facts = match there().all(|(_, facts)| facts.are_for_all()) {
            true => Box::default(),
            false => there().map(|(_, facts)| facts.clone()).collect(),
        };
        let as_of = Arc::clone(&self.as_of);
        let made = Arc::new(Generation::new((entries, facts), as_of, self.lacks, memory, now));
        self.generations.push_back(Arc::clone(&made));
        made
    }
}

impl Kept {
    fn body(&self) -> Option<&Bytes> {
        match &self.newest {
            Newest::Is(body) => Some(body),
            Newest::Gone => None,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.newest, Newest::Gone)
    }

    fn size(&self) -> usize {
        self.body().map_or(0, Bytes::len) + self.facts.size() + OVERHEAD
    }

    /// Whether it came after `other`, which comes now: it came live, and the other was read; or in another partition it was
    /// published later.
    fn is_newer_than(&self, other: &Self) -> bool {
        match (self.read, other.read) {
            (None, Some(_)) => true,
            (Some((partition, time)), Some((of, at))) => partition != of && time > at,
            (_, None) => false,
        }
    }
}

/// The number of the first key that came live.
const LIVE: u64 = 1 << 63;

/// How many generations are walked at a time.
const WALKED: usize = 4;

/// How long a generation can be walked before it has to make room for another.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one that nobody walks is kept for others.
const SHARED: Duration = Duration::from_secs(10);

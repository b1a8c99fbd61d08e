//! The keys of a [`Table`](super::table::Table) in the order in which they changed last, each with its newest. One that
//! changes moves to the end: so whoever has gone through the order up to some number, and goes on to its end, has the
//! newest of them all. What is gone stands here, too, for as long as that has to be known. Pure: it decides nothing.

use std::collections::btree_map::Range;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::key::KeyHash;
use super::table::Newest;
use crate::shape::Facts;

/// What is kept of each key, by number: what came last has the highest, and what was read from the upstream has lower ones
/// than what came live.
pub struct Order {
    /// The number of each key's newest.
    numbers: HashMap<KeyHash, u64>,
    there: BTreeMap<u64, Kept>,
    gone: BTreeMap<u64, Kept>,
    /// The number of the newest gap that concerns all keys.
    gap: Option<u64>,
    /// Bytes of what is there, and of what is gone.
    bytes: (usize, usize),
    /// How many are gone of which no event says so.
    bare: usize,
    end: u64,
    next_read: u64,
}

/// What is kept of a key, or of the source as a whole.
#[derive(Debug)]
pub struct Kept {
    /// The key; none where it concerns them all.
    pub key: Option<KeyHash>,
    /// Its newest.
    pub newest: Newest<Sent>,
    /// Where it was read, and when it was published there; none where it came live.
    pub read: Option<(u32, u64)>,
}

/// An event as it is sent, without an id.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its bytes.
    pub bytes: Bytes,
    /// What is known of it for the filters of clients.
    pub facts: Facts,
}

impl Order {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::from_number(LIVE)
    }

    fn from_number(end: u64) -> Self {
        let (numbers, there, gone) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { numbers, there, gone, gap: None, bytes: (0, 0), bare: 0, end, next_read: 0 }
    }

    /// Begins anew after all numbers so far. Returns what there was, which takes its time to drop.
    #[must_use]
    pub fn restart(&mut self) -> Self {
        let anew = Self::from_number(self.end);
        std::mem::replace(self, anew)
    }

    /// The number after the newest.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The number of what is kept of a key, or of the gap that concerns them all.
    pub fn number(&self, key: Option<KeyHash>) -> Option<u64> {
        key.map_or(self.gap, |key| self.numbers.get(&key).copied())
    }

    /// What has this number.
    pub fn at(&self, number: u64) -> Option<&Kept> {
        self.there.get(&number).or_else(|| self.gone.get(&number))
    }

    /// Takes in the newest of a key of which nothing is kept, and returns its number.
    pub fn push(&mut self, kept: Kept) -> u64 {
        let next = if kept.read.is_some() { &mut self.next_read } else { &mut self.end };
        let number = *next;
        *next += 1;
        match kept.key {
            Some(key) => _ = self.numbers.insert(key, number),
            None => self.gap = Some(number),
        }
        if kept.is_gone() {
            self.bytes.1 += kept.size();
            self.bare += usize::from(kept.is_bare());
            self.gone.insert(number, kept);
        } else {
            self.bytes.0 += kept.size();
            self.there.insert(number, kept);
        }
        number
    }

    /// Takes out what has this number.
    pub fn remove(&mut self, number: u64) -> Option<Kept> {
        let kept = if let Some(kept) = self.there.remove(&number) {
            self.bytes.0 -= kept.size();
            kept
        } else {
            let kept = self.gone.remove(&number)?;
            self.bytes.1 -= kept.size();
            self.bare -= usize::from(kept.is_bare());
            kept
        };
        match kept.key {
            Some(key) => _ = self.numbers.remove(&key),
            None => self.gap = None,
        }
        Some(kept)
    }

    /// The number of what is there and changed the longest ago.
    pub fn oldest(&self) -> Option<u64> {
        self.there.first_key_value().map(|(&number, _)| number)
    }

    /// The number of what has been gone for the longest.
    pub fn oldest_gone(&self) -> Option<u64> {
        self.gone.first_key_value().map(|(&number, _)| number)
    }

    /// The number of a gap before which there is nothing, so that it says nothing of what there is.
    pub fn idle_gap(&self) -> Option<u64> {
        self.gap.filter(|&gap| self.oldest() == Some(gap))
    }

    /// What is there from `number` on.
    pub fn there(&self, number: u64) -> impl Iterator<Item = (u64, &Sent)> {
        events(self.there.range(number..))
    }

    /// What is to be sent from `number` on to one that knows what was there before `since`: some of that is gone.
    pub fn changes(&self, number: u64, since: u64) -> impl Iterator<Item = (u64, &Sent)> {
        merged(self.there(number), events(self.gone.range(number.max(since)..)))
    }

    /// How many keys are there.
    pub fn keys(&self) -> usize {
        self.numbers.len() - self.gone.len()
    }

    /// Bytes of what is there, bookkeeping included.
    pub fn bytes(&self) -> usize {
        self.bytes.0
    }

    /// Bytes of what is gone, bookkeeping included.
    pub fn gone_bytes(&self) -> usize {
        self.bytes.1
    }

    /// The part of these that counts nowhere else, since there is no event that it came with.
    pub fn bare_bytes(&self) -> usize {
        self.bare * OVERHEAD
    }
}

impl Kept {
    /// Whether its key is gone.
    pub fn is_gone(&self) -> bool {
        matches!(self.newest, Newest::Gone(_))
    }

    /// Whether it came after `other`, which comes now: it came live, and the other was read; or in another partition it was
    /// published later.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        match (self.read, other.read) {
            (None, Some(_)) => true,
            (Some((partition, time)), Some((of, at))) => partition != of && time > at,
            (_, None) => false,
        }
    }

    /// Its bytes, bookkeeping included.
    pub fn size(&self) -> usize {
        self.newest.body().map_or(0, Sent::size) + OVERHEAD
    }

    fn is_bare(&self) -> bool {
        self.newest.body().is_none()
    }
}

impl Sent {
    /// Bytes of it, and of what is known of it.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.facts.size()
    }
}

fn events<'k>(kept: Range<'k, u64, Kept>) -> impl Iterator<Item = (u64, &'k Sent)> {
    kept.filter_map(|(&number, kept)| Some((number, kept.newest.body()?)))
}

/// What two have by number, in its order.
pub fn merged<'k>(
    some: impl Iterator<Item = (u64, &'k Sent)>,
    others: impl Iterator<Item = (u64, &'k Sent)>,
) -> impl Iterator<Item = (u64, &'k Sent)> {
    let (mut some, mut others) = (some.peekable(), others.peekable());
    std::iter::from_fn(move || {
        let is_others = match (some.peek(), others.peek()) {
            (Some((at, _)), Some((other, _))) => other < at,
            (some, _) => some.is_none(),
        };
        if is_others { others.next() } else { some.next() }
    })
}

/// The number of the first key that came live.
const LIVE: u64 = 1 << 63;

/// What a key costs beside its bytes: its places, and the allocator's share.
pub const OVERHEAD: usize = 192;

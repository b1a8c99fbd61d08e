//! A generation: the newest of each key as it was at one position. It never changes, and readers share its pages by pointer.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;

use super::memory::{Memory, Reserved};
use super::position::Position;
use super::ring::Ring;
use super::run::Forms;
use super::sieve::Contents;
use crate::shape::Facts;

/// A table as it was at one position.
pub struct Generation {
    as_of: Arc<Position>,
    lacks: bool,
    made: Instant,
    entries: Box<[Bytes]>,
    /// What is known of them, where clients have filters; else empty.
    facts: Box<[Facts]>,
    pages: Box<[Page]>,
    memory: Arc<Memory>,
    _counted: Reserved,
}

/// Some of its entries in a row: made by the first reader that gets there.
struct Page {
    to: usize,
    made: OnceLock<Made>,
}

/// A page as it is sent.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its bytes.
    pub bytes: Bytes,
    /// How many events they hold.
    pub events: usize,
    /// Their packed forms.
    pub forms: Arc<Forms>,
    /// What they hold, where clients have filters.
    pub contents: Option<Arc<Contents>>,
}

/// Where a generation lies, seen from what its log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// So little has come since that whoever begins with it is soon live.
    Near,
    /// All that has come since is there.
    Within,
    /// Some of that was let go.
    Before,
}

impl Lies {
    /// That of this generation.
    pub fn of(generation: &Generation, ring: &Ring) -> Self {
        if !generation.as_of.covers_all(ring.floor_position()) {
            return Self::Before;
        }
        let since = ring.head().saturating_sub(ring.first_uncovered(&generation.as_of));
        let few = FEW.max(generation.entries.len() as u64 / 2);
        if since <= few { Self::Near } else { Self::Within }
    }
}

impl Generation {
    /// Of these events, in order, and what is known of them, if that matters.
    pub fn new(
        (entries, facts): (Box<[Bytes]>, Box<[Facts]>),
        as_of: Arc<Position>,
        lacks: bool,
        memory: &Arc<Memory>,
        made: Instant,
    ) -> Self {
        let (mut pages, mut size) = (Vec::new(), 0);
        for (at, entry) in entries.iter().enumerate() {
            if size > 0 && size + entry.len() > PAGE {
                pages.push(Page { to: at, made: OnceLock::new() });
                size = 0;
            }
            size += entry.len();
        }
        if size > 0 {
            pages.push(Page { to: entries.len(), made: OnceLock::new() });
        }
        let mut counted = memory.count();
        counted.set(size_of_val(&*entries) + size_of_val(&*facts) + size_of::<Page>() * pages.len());
        let (memory, pages) = (Arc::clone(memory), pages.into());
        Self { as_of, lacks, made, entries, facts, pages, memory, _counted: counted }
    }

    /// Where the log stood: what it has of later is what is missing here.
    pub fn as_of(&self) -> &Arc<Position> {
        &self.as_of
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// Whether keys are missing for want of room.
    pub fn lacks(&self) -> bool {
        self.lacks
    }

    /// One of its pages.
    pub fn page(&self, at: usize) -> Option<Made> {
        let page = self.pages.get(at)?;
        let from = at.checked_sub(1).map_or(0, |before| self.pages[before].to);
        let make = || Made {
            bytes: self.memory.charge(self.entries[from..page.to].concat(), OVERHEAD),
            events: page.to - from,
            forms: Forms::new(&self.memory),
            contents: self.facts.get(from..page.to).map(|facts| self.contents(from, facts)),
        };
        Some(page.made.get_or_init(make).clone())
    }

    /// Where those of its entries that begin there end on a page, and what is known of them.
    fn contents(&self, from: usize, facts: &[Facts]) -> Arc<Contents> {
        let mut end = 0;
        let place = |(entry, facts): (&Bytes, &Facts)| {
            end += entry.len() as u32;
            (end, facts.clone())
        };
        Contents::new(self.entries[from..].iter().zip(facts).map(place).collect(), &self.memory)
    }
}

/// Bytes of a page, unless a single event has more.
const PAGE: usize = 24 * 1024;

/// Events that a reader may have to read on from a generation, whatever its size.
const FEW: u64 = 100;

/// What a key, or a page, costs beside its bytes: its places, and the allocator's share.
pub const OVERHEAD: usize = 192;

//! A generation: the newest of each key as it was at one position, for all readers that begin then. It is not copied: its pages
//! are made of the table by the first reader that gets there, and what leaves the table before that is laid aside for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::time::Instant;

use super::memory::Memory;
use super::order::{OVERHEAD, Order, Sent, merged};
use super::position::Position;
use super::ring::Ring;
use super::run::Forms;
use super::sieve::Contents;

/// A table as it was at one position.
pub struct Generation {
    /// Tells it from all others of its table.
    pub number: u64,
    /// Where the table ended.
    pub end: u64,
    /// Where the log stood: what it has of later is what is missing here.
    pub as_of: Arc<Position>,
    /// Whether keys are missing for want of room.
    pub lacks: bool,
    made: Instant,
    /// What is before this number stands in pages.
    at: u64,
    /// What has left the table, and is to stand in a page.
    aside: BTreeMap<u64, Sent>,
    pages: Vec<Page>,
    /// Bytes of what is aside, and of pages.
    bytes: (usize, usize),
    walked: Arc<()>,
}

/// Some of its events in a row, as they are sent.
#[derive(Debug, Clone)]
pub struct Page {
    /// The number at which the next one begins.
    pub to: u64,
    /// The events.
    pub bytes: Bytes,
    /// How many they are.
    pub events: usize,
    /// What many clients are sent in its place.
    pub forms: Arc<Forms>,
    /// What they are, where clients have filters.
    pub contents: Option<Arc<Contents>>,
    /// Bytes that it takes, bookkeeping included.
    size: usize,
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

impl Generation {
    /// What there is at this moment.
    pub fn of(order: &Order, number: u64, as_of: Arc<Position>, lacks: bool, made: Instant) -> Self {
        let (aside, pages, walked) = (BTreeMap::new(), Vec::new(), Arc::default());
        Self { number, end: order.end(), as_of, lacks, made, at: 0, aside, pages, bytes: (0, 0), walked }
    }

    /// Where it lies.
    pub fn lies(&self, order: &Order, ring: &Ring) -> Lies {
        if !self.as_of.covers_all(ring.floor_position()) {
            return Lies::Before;
        }
        let since = ring.head().saturating_sub(ring.first_uncovered(&self.as_of));
        let few = FEW.max(order.keys() as u64 / 2);
        if since <= few { Lies::Near } else { Lies::Within }
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// A reader walks it for as long as it has this.
    pub fn walk(&self) -> Arc<()> {
        Arc::clone(&self.walked)
    }

    /// Whether somebody does.
    pub fn is_walked(&self) -> bool {
        Arc::strong_count(&self.walked) > 1
    }

    /// Lasts for as long as it does, or one who walks it.
    pub fn lasts(&self) -> Weak<()> {
        Arc::downgrade(&self.walked)
    }

    /// This event leaves the table.
    pub fn leaves(&mut self, number: u64, event: &Sent) {
        if (self.at..self.end).contains(&number) {
            self.bytes.0 += event.size() + OVERHEAD;
            self.aside.insert(number, event.clone());
        }
    }

    /// One of its pages. They are asked for one after the other.
    pub fn page(&mut self, at: usize, order: &Order, memory: &Arc<Memory>) -> Option<Page> {
        if at == self.pages.len() {
            let page = self.make(order, memory)?;
            self.bytes.1 += page.size;
            self.pages.push(page);
        }
        self.pages.get(at).cloned()
    }

    fn make(&mut self, order: &Order, memory: &Arc<Memory>) -> Option<Page> {
        let end = self.end;
        let there = order.there(self.at).take_while(|(number, _)| *number < end);
        let aside = self.aside.iter().map(|(&number, event)| (number, event));
        let (events, to) = fitting(merged(there, aside), end);
        self.at = to;
        let later = self.aside.split_off(&to);
        let used = std::mem::replace(&mut self.aside, later);
        self.bytes.0 -= used.values().map(|event| event.size() + OVERHEAD).sum::<usize>();
        (!events.is_empty()).then(|| Page::of(&events, to, memory))
    }

    /// Bytes that have left the table and are kept for it alone.
    pub fn aside(&self) -> usize {
        self.bytes.0
    }

    /// Bytes of its pages.
    pub fn paged(&self) -> usize {
        self.bytes.1
    }
}

impl Page {
    fn of(events: &[Sent], to: u64, memory: &Arc<Memory>) -> Self {
        let (bytes, contents) = joined(events, memory);
        let known = contents.as_ref().map_or(0, |contents| contents.size());
        let size = events.iter().map(Sent::size).sum::<usize>() + known + OVERHEAD;
        Self { to, bytes, events: events.len(), forms: Forms::new(memory), contents, size }
    }
}

/// As many of these events as fit into a page, one at least if there is one, and the number at which the next ones begin:
/// `end` if there are none.
pub fn fitting<'k>(there: impl Iterator<Item = (u64, &'k Sent)>, end: u64) -> (Vec<Sent>, u64) {
    let (mut events, mut size) = (Vec::<Sent>::new(), 0);
    for (number, event) in there {
        size += event.size();
        if size > PAGE && !events.is_empty() {
            return (events, number);
        }
        events.push(event.clone());
    }
    (events, end)
}

/// These events in one piece, and what they are, where they are not all for every client. What is known of them counts with
/// the piece: they may leave the table before it goes.
pub fn joined(events: &[Sent], memory: &Arc<Memory>) -> (Bytes, Option<Arc<Contents>>) {
    let (mut bytes, mut contents) = (Vec::new(), Vec::with_capacity(events.len()));
    for Sent { bytes: event, facts } in events {
        bytes.extend_from_slice(event);
        contents.push((bytes.len() as u32, facts.clone()));
    }
    let known = contents.iter().map(|(_, facts)| facts.size()).sum::<usize>();
    let bytes = memory.charge(bytes, OVERHEAD + known);
    let is_for_all = contents.iter().all(|(_, facts)| facts.are_for_all());
    (bytes, (!is_for_all).then(|| Contents::new(contents, memory)))
}

/// Bytes of a page, what is known of its events included, unless a single one has more.
const PAGE: usize = 24 * 1024;

/// Events that a reader may have to read on from a generation, whatever its size.
const FEW: u64 = 100;

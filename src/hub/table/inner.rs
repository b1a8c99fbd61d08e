//! What a table holds, under its lock: whatever is done here is bounded, however many keys there are.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{Bounds, Entered, Forgotten, Newest};
use crate::hub::generation::{Generation, Lies};
use crate::hub::memory::{Memory, Reserved};
use crate::hub::order::{Kept, Order};
use crate::hub::position::Position;
use crate::hub::ring::Ring;

pub(super) struct Inner {
    pub(super) order: Order,
    /// For what of it counts nowhere else.
    counted: Reserved,
    /// The generations that are walked, the newest at the end.
    pub(super) generations: VecDeque<Generation>,
    /// Those that are not kept any more: dropped when nobody waits for that.
    pub(super) let_go: VecDeque<Generation>,
    /// How many there were.
    made: u64,
    /// Where the table ended when each of these was made, those included that are walked no more to the end.
    pub(super) walks: VecDeque<(u64, Weak<()>)>,
    /// Where the log stood when the newest of it came.
    pub(super) as_of: Arc<Position>,
    /// Whether what the upstream held before the log has been read.
    pub(super) is_read: bool,
    /// Whether that is of several partitions: a key may be in more than one.
    pub(super) of_several: bool,
    /// Whether keys had to leave for want of room.
    pub(super) lacks: bool,
    /// Whether that was told.
    pub(super) is_told: bool,
    /// The number of the newest key that is gone which had to be forgotten, for want of room, while it had to be known.
    pub(super) forgot: Option<u64>,
}

impl Inner {
    /// Nothing yet. What has room nowhere else counts in `room`.
    pub(super) fn new(room: &Arc<Memory>) -> Self {
        Self {
            order: Order::new(),
            counted: room.count(),
            generations: VecDeque::new(),
            let_go: VecDeque::new(),
            made: 0,
            walks: VecDeque::new(),
            as_of: Arc::default(),
            is_read: true,
            of_several: false,
            lacks: false,
            is_told: false,
            forgot: None,
        }
    }

    /// Begins anew at `position`.
    pub(super) fn restart(&mut self, position: Arc<Position>, is_read: bool) -> Forgotten {
        let (order, generations) = (self.order.restart(), std::mem::take(&mut self.generations));
        (self.lacks, self.is_told, self.forgot) = (false, false, None);
        self.of_several = Position::default().behind(&position).nth(1).is_some();
        (self.as_of, self.is_read) = (position, is_read);
        self.count();
        Forgotten { _order: order, _generations: generations }
    }

    /// Takes in what became of a key.
    pub(super) fn take(&mut self, kept: Kept, bounds: Bounds) {
        let before = self.order.number(kept.key);
        if before.and_then(|number| self.order.at(number)).is_some_and(|before| before.is_newer_than(&kept)) {
            return;
        }
        before.into_iter().for_each(|number| _ = self.remove(number));
        if kept.is_gone() && !self.has_to_know(&kept) {
            return;
        }
        self.order.push(kept);
        while self.order.keys() > bounds.keys || self.order.bytes() > bounds.bytes {
            self.give_oldest();
        }
        while self.order.gone_bytes() > bounds.bytes / GONE
            && let Some(number) = self.order.oldest_gone()
        {
            self.remove(number);
            // Something older of it may be read yet, and then seem to be there.
            self.lacks |= !self.is_read;
            self.forgot = self.forgot.max(Some(number));
        }
        self.drop_idle_gap();
    }

    /// Whether it is to be known that a key is gone: because something older of it may still be read; or somebody who walks
    /// has been given it, and may have to be told.
    fn has_to_know(&mut self, gone: &Kept) -> bool {
        let may_be_older = !self.is_read && (gone.read.is_none() || self.of_several);
        may_be_older || (gone.newest.body().is_some() && self.walked_since() < u64::MAX)
    }

    /// Forgets what is there and changed the longest ago. Returns its bytes.
    pub(super) fn give_oldest(&mut self) -> usize {
        let Some(oldest) = self.order.oldest() else { return 0 };
        self.lacks = true;
        self.remove(oldest)
    }

    fn remove(&mut self, number: u64) -> usize {
        let Some(kept) = self.order.remove(number) else { return 0 };
        if let Newest::Is(event) = &kept.newest {
            self.generations.iter_mut().for_each(|walked| walked.leaves(number, event));
        }
        kept.size()
    }

    /// A gap before which there is nothing says nothing of what there is.
    pub(super) fn drop_idle_gap(&mut self) {
        if let Some(gap) = self.order.idle_gap().filter(|_| self.is_read) {
            self.remove(gap);
        }
    }

    /// Forgets some of what is gone and does not have to be known any more. Returns whether there may be more.
    pub(super) fn forget_gone(&mut self, most: usize) -> bool {
        let since = if self.is_read { self.walked_since() } else { 0 };
        for _ in 0..most {
            let Some(number) = self.order.oldest_gone().filter(|&number| number < since) else {
                return false;
            };
            self.remove(number);
        }
        true
    }

    /// The number from which on somebody who walks may know keys that are gone since.
    fn walked_since(&mut self) -> u64 {
        while self.walks.pop_front_if(|(_, walks)| walks.strong_count() == 0).is_some() {}
        self.walks.front().map_or(u64::MAX, |(end, _)| *end)
    }

    /// A reader begins to walk.
    pub(super) fn enter(&mut self, ring: &Ring, now: Instant) -> Entered {
        let lies = |walked: &Generation| walked.lies(&self.order, ring);
        if self.generations.back().is_none_or(|newest| lies(newest) != Lies::Near) {
            let is_before = self.generations.back().is_none_or(|newest| lies(newest) == Lies::Before);
            self.keep(Generation::is_walked);
            if self.generations.len() < WALKED {
                self.make(now);
            } else if is_before {
                // Whoever walks the oldest goes on without.
                self.let_go.extend(self.generations.pop_front());
                self.make(now);
            }
        }
        let newest = self.generations.back().expect("one is near, some are walked, or one was just made");
        let (generation, as_of) = (newest.number, Arc::clone(&newest.as_of));
        Entered { generation, end: newest.end, as_of, lacks: newest.lacks, _walks: newest.walk() }
    }

    fn make(&mut self, now: Instant) {
        let as_of = Arc::clone(&self.as_of);
        let made = Generation::of(&self.order, self.made, as_of, self.lacks, now);
        self.made += 1;
        self.walks.push_back((made.end, made.lasts()));
        self.generations.push_back(made);
    }

    /// Keeps those generations alone.
    pub(super) fn keep(&mut self, stays: impl Fn(&Generation) -> bool) {
        let (stay, go): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.generations).into_iter().partition(stays);
        self.generations = stay;
        self.let_go.extend(go);
    }

    /// Those that are not dropped yet.
    pub(super) fn all_generations(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter().chain(&self.let_go)
    }

    /// Counts what has changed.
    pub(super) fn count(&mut self) {
        let bytes = self.order.bare_bytes();
        self.counted.set(bytes);
    }
}

/// How many generations are walked at a time.
const WALKED: usize = 4;

/// What is gone may take up so much of the room beside what is there: a quarter.
const GONE: usize = 4;

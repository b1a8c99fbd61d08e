//! Stretches: what the upstream still gives after an id that the log does not hold, read once for all readers with that
//! id. Their numbers lie before those of the log. A stretch ends where the log is met, or leads on to another one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::table::{OVERHEAD, text};
use crate::hub::{Memory, Reason, Segment};

/// The numbers that a stretch may have: more than one read brings.
pub(super) const WIDTH: u64 = 1 << 16;

/// All of one log.
#[derive(Default)]
pub(super) struct Stretches {
    all: BTreeMap<u64, Stretch>,
    /// What begins with an id, and where else one is found.
    places: HashMap<Bytes, u64>,
    /// How many there were.
    made: u64,
    uses: u64,
}

struct Stretch {
    /// The id after which it begins.
    after: Bytes,
    came: Option<Came>,
    arrived: Arc<Notify>,
    asked: bool,
    used: u64,
}

/// What came of a stretch.
pub(super) struct Came {
    /// The events.
    pub segment: Arc<Segment>,
    /// Where other ids begin to hold; an empty one where there is none.
    pub ids: Vec<(u64, Bytes)>,
    /// What follows.
    pub end: End,
}

/// What follows a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// What follows this id, in the log or in another stretch.
    After(Bytes),
    /// Something that cannot be had, for this reason, and then all that the log holds.
    Gap(Reason),
}

/// What a reader finds.
pub(super) enum Place {
    /// Events.
    Segment(Arc<Segment>),
    /// The end of a stretch.
    End(End),
    /// Not yet: what ends the wait, and whether the upstream has to be asked.
    Wait(OwnedNotified, bool),
    /// It was let go.
    Gone,
}

impl Stretches {
    /// The number at which a reader stands that has all up to `id`; `None` where too many wait already.
    pub(super) fn place(&mut self, id: &str, memory: &Arc<Memory>) -> Option<u64> {
        if let Some(number) = self.places.get(id.as_bytes()) {
            return Some(*number);
        }
        if self.all.len() >= MOST && !self.forget_unasked() && self.reclaim(1) == 0 {
            return None;
        }
        self.made += 1;
        let (number, after) = (self.made * WIDTH, memory.charge(id.as_bytes().to_vec(), OVERHEAD));
        self.places.insert(after.clone(), number);
        let stretch = Stretch { after, came: None, arrived: Arc::default(), asked: false, used: self.made };
        self.all.insert(number, stretch);
        Some(number)
    }

    /// What there is for a reader at this number.
    pub(super) fn at(&mut self, number: u64) -> Place {
        self.uses += 1;
        let uses = self.uses;
        let Some((first, stretch)) = self.all.range_mut(..=number).next_back() else { return Place::Gone };
        if number - first >= WIDTH {
            return Place::Gone;
        }
        stretch.used = uses;
        match &stretch.came {
            None => {
                let ask = !std::mem::replace(&mut stretch.asked, true);
                Place::Wait(Arc::clone(&stretch.arrived).notified_owned(), ask)
            }
            Some(came) if number < came.segment.to.major => Place::Segment(Arc::clone(&came.segment)),
            Some(came) => Place::End(came.end.clone()),
        }
    }

    /// The id that holds at a number.
    pub(super) fn id_at(&self, number: u64) -> Option<&str> {
        let (first, stretch) = self.all.range(..=number).next_back()?;
        if number - first >= WIDTH {
            return None;
        }
        let ids = stretch.came.as_ref().map_or(&[][..], |came| &came.ids);
        let before = ids.partition_point(|(from, _)| *from <= number).checked_sub(1);
        Some(text(before.map_or(&stretch.after, |at| &ids[at].1))).filter(|id| !id.is_empty())
    }

    /// The id after which a stretch begins, if somebody still waits for it. Else the upstream is asked for it when somebody
    /// comes again.
    pub(super) fn is_waited_for(&mut self, number: u64) -> Option<Bytes> {
        let stretch = self.all.get_mut(&number)?;
        stretch.asked = Arc::strong_count(&stretch.arrived) > 1;
        stretch.asked.then(|| stretch.after.clone())
    }

    /// This came of a stretch. Returns what wakes those who wait for it.
    pub(super) fn arrived(&mut self, number: u64, came: Came) -> Option<Arc<Notify>> {
        self.uses += 1;
        let stretch = self.all.get_mut(&number)?;
        // Where the log has had what follows all along, it may have let go of it when the next one comes: who comes then
        // begins another stretch.
        if came.end == End::After(stretch.after.clone()) {
            self.places.remove(&stretch.after);
        }
        // Behind its last id another one begins.
        let last = |id: &Bytes| matches!(&came.end, End::After(last) if last == id);
        for (at, id) in came.ids.iter().filter(|(_, id)| !id.is_empty() && !last(id)) {
            self.places.entry(id.clone()).or_insert(*at);
        }
        (stretch.came, stretch.used) = (Some(came), self.uses);
        Some(Arc::clone(&stretch.arrived))
    }

    /// Bytes of what has come.
    pub(super) fn held(&self) -> usize {
        self.all.values().filter_map(|stretch| stretch.came.as_ref()).map(Came::size).sum()
    }

    /// Lets go of what has not been used for longest, until `bytes` are given.
    pub(super) fn reclaim(&mut self, bytes: usize) -> usize {
        let mut given = 0;
        while given < bytes {
            let came =
                self.all.iter().filter_map(|(at, one)| Some((one.used, *at, one.came.as_ref()?.size())));
            let Some((_, oldest, size)) = came.min() else { break };
            self.forget(oldest);
            given += size;
        }
        given
    }

    /// Lets go of the oldest for which the upstream has not been asked: its reader is gone, most likely.
    fn forget_unasked(&mut self) -> bool {
        let unasked = self.all.iter().find(|(_, stretch)| !stretch.asked).map(|(number, _)| *number);
        unasked.inspect(|number| self.forget(*number)).is_some()
    }

    fn forget(&mut self, number: u64) {
        let Some(stretch) = self.all.remove(&number) else { return };
        let ids = stretch.came.iter().flat_map(|came| &came.ids).map(|(at, id)| (*at, id));
        for (at, id) in ids.chain([(number, &stretch.after)]) {
            if self.places.get(id) == Some(&at) {
                self.places.remove(id);
            }
        }
        // Who waits for it asks again.
        stretch.arrived.notify_waiters();
    }
}

impl Came {
    fn size(&self) -> usize {
        self.segment.size() + self.ids.iter().map(|(_, id)| id.len() + OVERHEAD).sum::<usize>()
    }
}

/// How many there may be of one log.
const MOST: usize = 4_096;

//! What one reader is given of what all are: what its client's filter lets pass, at the rate of its route. What is left out for
//! it is no gap, and moves its position on; what happened to the source itself is never left out. The bytes stay those of all.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::Times;
use super::cursor::Read;
use super::memory::{Memory, Reserved};
use super::pace::Pace;
use super::run::Forms;
use crate::config::EventRate;
use crate::shape::{ClientFilter, Facts, Fault};

/// One reader's sieve.
#[derive(Debug)]
pub struct Sieve {
    filter: Option<Arc<ClientFilter>>,
    pace: Option<Pace>,
    /// Whether it has passed something since it was told an id.
    pub untold: bool,
    /// Work of the filter since the last read began.
    spent: usize,
    /// What is still to be put through, of what its state is behind already.
    rest: Option<Sift>,
    /// Whether the read goes on with what else there is.
    goes_on: bool,
    withheld: Withheld,
    /// Whether the filter has failed for this reader, which is told once.
    has_failed: bool,
}

/// What a filter has withheld from a reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Events.
    pub events: u64,
    /// Their bytes.
    pub bytes: usize,
    /// Why it could not tell of one of them, for the first one of all.
    pub why: Option<Fault>,
    /// What clients call the feed in which that was, where they read several.
    pub feed: Option<Arc<str>>,
}

impl Withheld {
    /// What both have withheld.
    pub fn and(self, other: Self) -> Self {
        let (events, bytes) = (self.events + other.events, self.bytes + other.bytes);
        let first = if self.why.is_some() { self } else { other };
        Self { events, bytes, ..first }
    }
}

/// Shared bytes to be put through a sieve, without a look at the log.
#[derive(Debug)]
pub struct Sift {
    /// The bytes.
    pub bytes: Bytes,
    /// What they hold.
    pub contents: Arc<Contents>,
    /// How many of them have been put through.
    pub from: usize,
    /// When it came about, where that is to be told.
    pub times: Option<Times>,
    /// What is sent in their place where all of it passes.
    pub forms: Option<Arc<Forms>>,
    /// The present, where the rate of the route counts.
    pub paced: Option<Instant>,
    /// Whether there is nothing else to read at the moment.
    pub is_all: bool,
}

/// Where each event of some shared bytes ends, and what is known of it.
pub struct Contents {
    list: Vec<(u32, Facts)>,
    counted: Reserved,
}

impl Sieve {
    /// For a reader with this filter and this rate; nothing where it has neither.
    pub fn new(filter: Option<Arc<ClientFilter>>, rate: Option<EventRate>) -> Option<Box<Self>> {
        (filter.is_some() || rate.is_some()).then(|| {
            let (pace, withheld) = (rate.map(Pace::new), Withheld::default());
            Box::new(Self {
                filter,
                pace,
                untold: false,
                spent: 0,
                rest: None,
                goes_on: false,
                withheld,
                has_failed: false,
            })
        })
    }

    /// Whether it has a filter.
    pub fn filters(&self) -> bool {
        self.filter.is_some()
    }

    /// How fast the reader is given events, if that is bounded.
    pub fn pace(&mut self) -> Option<&mut Pace> {
        self.pace.as_mut()
    }

    /// A look at the log begins, of a read that may have several.
    pub fn begins(&mut self) {
        if !std::mem::take(&mut self.goes_on) {
            self.spent = 0;
        }
    }

    /// Whether something is still to be put through, before it can be said where the reader stands.
    pub fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// That.
    pub fn take_rest(&mut self) -> Option<Sift> {
        self.rest.take()
    }

    /// Whether the filter has been asked so much in this read that it is to end.
    pub fn is_tired(&self) -> bool {
        self.spent >= ENOUGH
    }

    /// Whether an event of so many bytes, of which this is known, passes the filter.
    pub fn passes(&mut self, facts: &Facts, bytes: usize) -> bool {
        let Some(filter) = &self.filter else { return true };
        let passes = filter.passes(facts, &mut self.spent);
        if passes == Ok(true) {
            return true;
        }
        self.withheld.events += 1;
        self.withheld.bytes += bytes;
        if let Err(why) = passes
            && !std::mem::replace(&mut self.has_failed, true)
        {
            self.withheld.why = Some(why);
        }
        false
    }

    /// What was withheld since this was asked last.
    pub fn take_withheld(&mut self) -> Option<Withheld> {
        (self.withheld.events > 0).then(|| std::mem::take(&mut self.withheld))
    }

    /// What of these bytes the reader is given; nothing where that is for the log to say. Where asking for all of them at once is
    /// too much, a part: empty pieces, perhaps, and the rest is for the next read.
    pub fn sift(&mut self, sift: &Sift) -> Option<Read> {
        let Sift { bytes, contents, from: begun, times, forms, paced, is_all } = sift;
        let mut room = match (&mut self.pace, paced) {
            (Some(pace), Some(now)) => pace.room(*now),
            _ => u64::MAX,
        };
        let (mut pieces, mut events, mut given, mut left_out) = (Vec::new(), 0, 0, 0);
        // Where what passes began, and where the event does that is looked at.
        let begin = contents.list[..*begun].last().map_or(0, |(end, _)| *end as usize);
        let (mut from, mut at, mut looked) = (begin, begin, *begun);
        while let Some((end, facts)) = contents.list.get(looked)
            && (looked == *begun || !self.is_tired())
        {
            looked += 1;
            let end = *end as usize;
            let mut goes = self.passes(facts, end - at);
            if goes && !facts.are_for_all() {
                goes = room > 0;
                room = room.saturating_sub(1);
                given += usize::from(goes);
                left_out += u64::from(!goes);
            }
            if goes {
                events += 1;
            } else {
                if from < at {
                    pieces.push(bytes.slice(from..at));
                }
                from = end;
            }
            at = end;
        }
        self.untold = from == at;
        if let (Some(pace), Some(_)) = (&mut self.pace, paced) {
            pace.gave(given);
        }
        let is_through = looked == contents.list.len();
        if !is_through {
            let (bytes, contents) = (bytes.clone(), Arc::clone(contents));
            let (times, forms, paced) = (*times, forms.clone(), *paced);
            // More may have come meanwhile.
            self.rest = Some(Sift { bytes, contents, from: looked, times, forms, paced, is_all: false });
        }
        if events == contents.list.len() {
            return Some(Read::Slice { bytes: bytes.clone(), events, times: *times, forms: forms.clone() });
        }
        if from < at {
            pieces.push(bytes.slice(from..at));
        }
        match (events, left_out) {
            (0, 0) if is_through && *is_all => Some(Read::Pending),
            (0, 0) if is_through && !self.is_tired() => {
                self.goes_on = true;
                None
            }
            (0, 0) => Some(Read::Pieces { bytes: Vec::new(), events: 0, times: None }),
            (0, left_out) => Some(Read::LeftOut(left_out)),
            (events, left_out) => {
                self.pace.iter_mut().for_each(|pace| pace.leave_out(left_out));
                Some(Read::Pieces { bytes: pieces, events, times: *times })
            }
        }
    }
}

impl Contents {
    /// Of events that end there.
    pub fn new(list: Vec<(u32, Facts)>, memory: &Arc<Memory>) -> Arc<Self> {
        let mut contents = Self { list, counted: memory.count() };
        let size = contents.size();
        contents.counted.set(size);
        Arc::new(contents)
    }

    /// Bytes that they take. What is known of the events is theirs.
    pub fn size(&self) -> usize {
        size_of::<Self>() + ALLOCATED + self.list.capacity() * size_of::<(u32, Facts)>()
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|(end, _)| end)).finish()
    }
}

/// Of the allocator and the counts.
const ALLOCATED: usize = 48;

/// Work of a filter, in about nanoseconds, after which a read ends: while some of it is done nothing can be appended.
const ENOUGH: usize = 200_000;

#[cfg(test)]
mod tests;

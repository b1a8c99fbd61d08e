//! A reader that has joined the log: it stands before an entry, at a position that it shares with all others there, and is
//! given runs that they all are given; what its filter lets pass of them, where it has one.

use std::sync::Arc;

use super::chunk::Seq;
use super::cursor::{Read, Step, View};
use super::pace::Pace;
use super::position::Position;
use super::sieve::{Sieve, Sift};

/// A joined reader.
#[derive(Debug)]
pub struct Joined {
    next: Seq,
    /// The log's position before entry `next`, or short of it by records that made no event. The reader was told this, unless
    /// its sieve says otherwise.
    at: Arc<Position>,
}

impl Joined {
    /// Before entry `next`, at this position, which is the log's there or short of it.
    pub fn new(next: Seq, at: Arc<Position>) -> Self {
        Self { next, at }
    }

    /// The number of the entry before which it stands.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Where it stands.
    pub fn position(&self) -> &Position {
        &self.at
    }

    /// Reads on, at most `max` bytes unless a single event is larger.
    pub fn read(&mut self, view: &mut View<'_>, mut sieve: Option<&mut Sieve>, max: usize) -> Step {
        let pace = sieve.as_deref_mut().and_then(Sieve::pace);
        if let Some(left_out) = pace.and_then(Pace::take_left_out) {
            return left_out.into();
        }
        let Some(run) = view.ring.run(self.next, view.reached, max, view.now) else {
            return Read::Pending.into();
        };
        let (events, filters) = (run.events(), sieve.as_ref().is_some_and(|sieve| sieve.filters()));
        if let (false, Some(sieve)) = (filters, sieve) {
            let part = sieve.pace().and_then(|pace| pace.limit(&mut self.next, events, view, max));
            sieve.untold = part.as_ref().is_some_and(|part| !matches!(part, Read::Slice { .. }));
            if let Some(part) = part {
                // What was left out is not for it, also where it lags behind later on.
                self.at = view.ring.position_before(self.next);
                return part.into();
            }
        }
        view.ring.passed(run.taken);
        (self.next, self.at) = (run.to, run.end);
        match run.contents.filter(|_| filters) {
            Some(contents) => Step::Sift(Sift {
                bytes: run.bytes,
                contents,
                from: 0,
                times: Some(run.times),
                forms: run.forms,
                paced: Some(view.now),
                is_all: run.to >= view.reached,
            }),
            None => Read::Slice { bytes: run.bytes, events, times: Some(run.times), forms: run.forms }.into(),
        }
    }

    /// The position that it is to be told: where records that made no event have moved the log's on, and it has read all there
    /// is; or its own, if that is `untold`.
    pub fn moved_on(&mut self, view: &View<'_>, untold: bool) -> Option<&Position> {
        let position = view.ring.position();
        if self.next == view.ring.head() && !Arc::ptr_eq(&self.at, position) && self.at != *position {
            self.at = Arc::clone(position);
            return Some(&self.at);
        }
        // Within a chunk it is short of what the last id said.
        let within = || view.ring.find(self.next).is_none_or(|(_, place)| place > 0);
        (untold && (self.next == view.ring.head() || !within())).then_some(&*self.at)
    }
}

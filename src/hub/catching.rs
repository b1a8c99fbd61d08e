//! A reader that catches up in a log whose partitions are interleaved otherwise than those of the log that gave its id: it is
//! ahead of the log in some of them, and behind in others. It shares the bodies, and writes ids of its own.

use super::chunk::Seq;
use super::cursor::{Read, View};
use super::key::Lens;
use super::position::Position;
use super::ring::Ring;
use super::sieve::Sieve;
use super::viewing;
use crate::sse;

/// A reader that catches up.
#[derive(Debug)]
pub struct CatchingUp {
    next: Seq,
    /// The log's position before entry `next`.
    walked: Position,
    /// The position that the reader was told, which is ahead of `walked` in some partition.
    at: Position,
}

impl CatchingUp {
    /// Before entry `next`, where the log stands at `walked`, and the reader at `at`.
    pub fn new(next: Seq, walked: Position, at: Position) -> Self {
        Self { next, walked, at }
    }

    /// The number of the next entry to look at.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The position that the reader was told.
    pub fn position(&self) -> &Position {
        &self.at
    }

    /// Whether the log let go of what was to be read next. What this reader has anyway, it does not miss.
    pub fn lags(&mut self, ring: &Ring) -> bool {
        if self.next >= ring.floor() {
            return false;
        }
        if ring.restarted_since(self.next) || !self.at.covers_all(ring.floor_position()) {
            return true;
        }
        self.next = ring.floor();
        self.walked.merge(ring.floor_position());
        false
    }

    /// Whether the log has got to where the reader stands, so that it can join it.
    pub fn has_caught_up(&self) -> bool {
        self.walked.covers_all(&self.at)
    }

    /// Reads on, at most `max` bytes unless a single event is larger.
    pub fn read(
        &mut self,
        view: &mut View<'_>,
        lens: Option<&Lens>,
        mut sieve: Option<&mut Sieve>,
        max: usize,
    ) -> Read {
        let (mut pieces, mut events, mut size) = (Vec::new(), 0, 0);
        let mut id = String::new();
        for _ in 0..STEPS {
            if self.has_caught_up() || sieve.as_ref().is_some_and(|sieve| sieve.is_tired()) {
                break;
            }
            let Some((chunk, at)) = view.ring.find(self.next) else {
                // What made no event has been walked as well.
                self.walked.merge(view.ring.position());
                if pieces.is_empty() && !self.has_caught_up() {
                    return lens.map_or(Read::Pending, viewing::wait);
                }
                break;
            };
            let mark = chunk.entries[at].mark;
            let concerned = lens.is_none_or(|lens| chunk.concerns(at, lens.hash));
            let is_news = concerned && !self.at.covers(mark);
            let passes = |sieve: &mut Sieve| sieve.passes(chunk.facts(at), chunk.length(at));
            if is_news && !sieve.as_deref_mut().is_none_or(passes) {
                // It has all of it that it is to have.
                chunk.step(&mut self.at, at);
                sieve.iter_mut().for_each(|sieve| sieve.untold = true);
            } else if is_news {
                let mut told = self.at.clone();
                chunk.step(&mut told, at);
                id.clear();
                view.codec.encode(&told, &mut id);
                let mut block = Vec::new();
                sse::id_block(&mut block, &id);
                let body = chunk.body(at);
                size += body.len() + block.len();
                if size > max && events > 0 {
                    break;
                }
                pieces.extend([body, block.into()]);
                events += 1;
                self.at = told;
                sieve.iter_mut().for_each(|sieve| sieve.untold = false);
            }
            chunk.step(&mut self.walked, at);
            self.next += 1;
            let passed = chunk.taken_before(at + 1);
            view.ring.passed(passed);
        }
        Read::Pieces { bytes: pieces, events, times: None }
    }
}

/// Entries that a reader who catches up walks at a time: as long as it does, nothing can be appended.
const STEPS: usize = 1_000;

//! What one append to a log came to, for whoever counts it.

use crate::hub::gap::Reason;
use crate::hub::writer::{Batch, LeftOut};

/// What one append came to.
#[derive(Debug, Default)]
pub struct Appended {
    /// Entries taken in, gaps included.
    pub events: u64,
    /// Gaps among them.
    pub gaps: Vec<Reason>,
    /// Records that newer ones of their keys replaced.
    pub replaced: u64,
    /// What was left out.
    pub left_out: LeftOut,
}

impl Appended {
    /// What is known of a batch, whose notes are taken.
    pub(super) fn of(batch: &mut Batch) -> Self {
        let gaps = std::mem::take(&mut batch.notes);
        Self { events: batch.events, gaps, replaced: batch.replaced, left_out: batch.left_out }
    }

    /// What the rest of the append came to.
    pub(super) fn follow(&mut self, rest: Self) {
        self.events += rest.events;
        self.gaps.extend(rest.gaps);
        self.replaced += rest.replaced;
        self.left_out.follow(rest.left_out);
    }
}

//! What upstreams still hold, read when a reader stands before what its log holds. Reads go through a bounded
//! [`Pool`] for each upstream, whose slots are held for one read and never for a client's pace; what they bring lies
//! on a [`Shelf`] for each log, where every reader finds it, or in the log's table.

mod fill;
mod pool;
mod scan;
mod shelf;
#[cfg(test)]
mod tests;
mod wanted;

use std::future::Future;

pub use fill::{Fill, fill};
pub use pool::Pool;
pub use shelf::Shelf;

use crate::hub::{Answer, Offset, Question, Segment, SegmentDraft};

/// How the history of one source is read.
pub trait Reader: Send + Sync + 'static {
    /// Whether the difference of two offsets is a number of records, or more than that where some are gone.
    const COUNTS: bool;

    /// The source was created anew, and it is the new one that is read from now on.
    fn begins_anew(&self) {}

    /// Asks the upstream.
    fn answer(&self, question: Question) -> impl Future<Output = Result<Answer, Unreadable>> + Send;

    /// Reads into `draft` from where it stands, until it is full or has got to `until`, and hands that over; then into
    /// one that follows it, and so on until `hand_over` says that this is enough, which it does at `until` at the latest;
    /// some more may be handed over after that. Each segment ends behind where it began.
    fn read(
        &self,
        draft: SegmentDraft,
        until: Offset,
        hand_over: impl FnMut(Segment) -> bool + Send + 'static,
    ) -> impl Future<Output = Result<End, Unreadable>> + Send;
}

/// How a read ended.
pub enum End {
    /// With what it handed over.
    Read,
    /// The upstream has let go of where it was to go on; this is where its oldest begins.
    Trimmed(Offset),
}

/// Why history cannot be read at present, in words for the operator. It is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

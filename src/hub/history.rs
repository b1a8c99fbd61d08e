//! What an upstream still holds of a log's source beyond what the log itself does, as cursors see it. Answers at
//! once or names what to wait for: reading it is the business of `history`.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::gap::Reason;
use super::position::{Offset, Position};
use super::segment::Segment;
use super::table::Table;

/// The history of one log's source.
pub trait History: Send + Sync {
    /// The segment of a partition that begins at `from`, or in which `from` lies. Where it has to be read, no more
    /// of it is than up to `until`.
    fn segment(&self, partition: u32, from: Offset, until: Offset) -> Found<Sought>;

    /// Answers a question, with what was so at `after` or later.
    fn ask(&self, question: &Question, after: Instant) -> Found<Answer>;

    /// Whether that can be asked. Where it cannot, who brings no id begins as with a source that keeps nothing.
    fn is_asked(&self) -> bool {
        true
    }

    /// Since when the upstream has answered; `None` while it does not.
    fn answers_since(&self) -> Option<Instant>;

    /// Whether the difference of two offsets is a number of records, or close to it.
    fn counts(&self) -> bool;

    /// Reads all that lies before `end` into a table, once; it tells the table when that is done. Until then it is tried
    /// again, however long the upstream does not answer.
    fn scan(&self, end: &Position, into: Arc<Table>);

    /// The source was created anew: forgets everything, and reads nothing of the one before into a table.
    fn reset(&self);
}

/// Something that is there, or comes.
#[derive(Debug)]
pub enum Found<T> {
    /// There it is.
    Here(T),
    /// Ends when it is worth asking again.
    Wait(OwnedNotified),
}

/// What is there of a partition.
#[derive(Debug)]
pub enum Sought {
    /// A segment.
    Segment(Arc<Segment>),
    /// The upstream has let go of it; this is where its oldest begins.
    Trimmed(Offset),
    /// It goes on elsewhere, which may lie before: where places are found one by one and not counted by the upstream.
    Leads {
        /// Where.
        to: Offset,
        /// Why something is missing in between, if it is.
        gap: Option<Reason>,
    },
}

/// A question to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// Where does the source begin, and where does it end?
    Bounds,
    /// Where does what was published at this time or later begin?
    At(SystemTime),
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where to begin.
    pub from: Position,
    /// Where the source began when it was asked.
    pub oldest: Position,
    /// Where the source ended when it was asked.
    pub end: Position,
    /// The place before the first event that it ever had, where that is known: a reader who stands before that, and yet
    /// not at the beginning of all places, has read another source of that name.
    pub born: Option<Position>,
}

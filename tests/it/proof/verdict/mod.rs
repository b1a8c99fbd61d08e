//! The verdict: what one client saw, held against what was published. Pure, so that it can be shown what it catches.
//!
//! Two kinds of source have two kinds of law. Where events have [`placed`] places upstream that every replica knows,
//! everything published is either given or within a gap that names its place. Where a source has no history, all that
//! can be said of what is missing is when it was published: see [`timed`].

pub mod placed;
pub mod timed;

use serde_json::Value;

/// One line of a client's record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was written, in microseconds since the epoch.
    pub at: u64,
    /// What happened.
    pub seen: Seen,
}

/// What a client saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A stream opened on this replica, with this id.
    Opened(usize, Box<str>),
    /// An event with this number.
    Event(u64),
    /// A gap. It counts from the next position on: until then the client would come back to before it.
    Gap(Box<Value>),
    /// A position.
    Position,
    /// The stream ended, or could not be had; another try follows.
    Ended(Box<str>),
    /// An answer that makes `EventSource` give up.
    Refused(u16),
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Published, but neither given nor told to be missing.
    Missing(u64),
    /// Given a second time.
    Repeated(u64),
    /// Given after something that came later.
    Disordered(u64),
    /// Given, though nobody published it, not for this client, or not for good.
    Strange(u64),
    /// The gap at this place of the record has no reason to be there.
    Untrue(usize),
    /// The client was turned away with this status.
    Refused(u16),
}

/// What a gap says its reason is.
fn reason(gap: &Value) -> &str {
    gap["reason"].as_str().unwrap_or_default()
}

/// The gaps of a record that count, each at the position that made it count.
#[derive(Default)]
struct Pending<'r>(Vec<(usize, &'r Value)>);

impl<'r> Pending<'r> {
    /// Takes in the entry with this number; returns the gaps that count from here on.
    fn take_in(&mut self, at: usize, seen: &'r Seen) -> Vec<(usize, &'r Value)> {
        match seen {
            Seen::Gap(gap) => self.0.push((at, gap)),
            Seen::Position => return std::mem::take(&mut self.0),
            Seen::Opened(..) => self.0.clear(),
            Seen::Event(_) | Seen::Ended(_) | Seen::Refused(_) => {}
        }
        Vec::new()
    }
}

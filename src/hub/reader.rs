//! What a stream reads: one feed, or several as one.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::futures::OwnedNotified;

use super::cursor::Read;
use super::feed::{Feed, Subscription};
use super::merged::Merged;
use super::sieve::Withheld;

/// A subscriber of one feed or of several.
pub enum Reader {
    /// Of one.
    One(Subscription),
    /// Of several.
    Many(Box<Merged>),
}

impl Reader {
    /// Reads on, at most `max` bytes unless a single event is larger: for who takes no turns, wherever there is something.
    pub fn read(&mut self, max: usize) -> Read {
        self.read_in(!self.is_ready(false), max)
    }

    /// The same in turns. Of several feeds those are read that read `history`, which is what only an upstream still holds, or else
    /// the others.
    pub fn read_in(&mut self, history: bool, max: usize) -> Read {
        match self {
            Self::One(subscription) => subscription.read(max),
            Self::Many(merged) => merged.read_in(history, max),
        }
    }

    /// Whether it may find something there. Of several feeds some may in history, and some in memory; of one, and where nothing is
    /// to be found, it is one of both.
    pub fn is_ready(&self, history: bool) -> bool {
        match self {
            Self::One(subscription) => subscription.replays() == history,
            Self::Many(merged) => merged.is_ready(history),
        }
    }

    /// What ends the wait of a reader of one feed that finds nothing from now on. One of several has more to wait for, and does
    /// so itself: see [`Self::poll_wake`].
    pub fn wake(&self) -> Option<OwnedNotified> {
        match self {
            Self::One(subscription) => Some(subscription.feed().log.wake().next()),
            Self::Many(_) => None,
        }
    }

    /// Ready when a reader of several feeds may find something; never for one feed.
    pub fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::One(_) => Poll::Pending,
            Self::Many(merged) => merged.poll_wake(cx),
        }
    }

    /// Whether it reads what only an upstream still holds, or one of several feeds does.
    pub fn replays(&self) -> bool {
        match self {
            Self::One(subscription) => subscription.replays(),
            Self::Many(merged) => merged.replays(),
        }
    }

    /// The number of the log's entry before which it stands, where it does; of several feeds the sum of these, where it stands
    /// in all of them. See [`super::Cursor::stands`].
    pub fn stands(&self) -> Option<u64> {
        match self {
            Self::One(subscription) => subscription.stands(),
            Self::Many(merged) => merged.stands(),
        }
    }

    /// The control event that tells a position which moved on without an event, if that is news.
    pub fn moved_on(&mut self) -> Option<Bytes> {
        match self {
            Self::One(subscription) => subscription.moved_on(),
            Self::Many(merged) => merged.moved_on(),
        }
    }

    /// The same where the stream is not silent. What one feed is given next tells its position; of several one may be quiet for
    /// ever while another is busy.
    pub fn moved_on_beside(&mut self) -> Option<Bytes> {
        match self {
            Self::One(_) => None,
            Self::Many(merged) => merged.moved_on(),
        }
    }

    /// What filters of the client have withheld since this was asked last.
    pub fn take_withheld(&mut self) -> Option<Withheld> {
        match self {
            Self::One(subscription) => subscription.take_withheld(),
            Self::Many(merged) => merged.take_withheld(),
        }
    }

    /// Whether the last read was so much work for filters of the client that others are to have their turn.
    pub fn is_tired(&self) -> bool {
        match self {
            Self::One(subscription) => subscription.is_tired(),
            Self::Many(merged) => merged.is_tired(),
        }
    }

    /// Whether there are feeds of several of which it has not been told yet where it begins. Of one feed that is known by its
    /// first `stream.position`.
    pub fn is_deciding(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Many(merged) => merged.is_deciding(),
        }
    }

    /// What clients call the feeds of several that have ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<Arc<str>> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Many(merged) => merged.take_ended(),
        }
    }

    /// Whether nothing follows: all of several feeds have ended.
    pub fn is_over(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Many(merged) => merged.is_over(),
        }
    }

    /// Of several feeds none is read on before ids say something of all: for who takes what there is and leaves, and comes back
    /// with an id that has to hold all of them.
    pub fn begin_together(&mut self) {
        match self {
            Self::One(_) => {}
            Self::Many(merged) => merged.begin_together(),
        }
    }

    /// Whether ids say nothing of one of several feeds, which has not been told yet where it begins.
    pub fn lacks_place(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Many(merged) => merged.lacks_place(),
        }
    }

    /// Whether its client is to be sent away, where it has been told that it lagged.
    pub fn leaves(&self) -> bool {
        match self {
            Self::One(subscription) => subscription.leaves(),
            Self::Many(merged) => merged.leaves(),
        }
    }

    /// The feed, where it is one.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        match self {
            Self::One(subscription) => Some(subscription.feed()),
            Self::Many(_) => None,
        }
    }

    /// All feeds.
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        match self {
            Self::One(subscription) => vec![Arc::clone(subscription.feed())],
            Self::Many(merged) => merged.feeds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_feeds_cost_the_reader_of_one_nothing() {
        assert_eq!(size_of::<Option<Reader>>(), size_of::<Option<Subscription>>());
    }
}

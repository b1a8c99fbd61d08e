//! The open streams as operators see them: page by page, each with how far behind its log it is, and ended one by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::streams::{Control, End, Streams};
use crate::hub::Feed;

/// What a stream reads. Written by the stream itself, whenever it has read; whoever looks takes no lock.
#[derive(Default)]
pub struct Reading {
    feed: OnceLock<Arc<Feed>>,
    /// One more than the number of the log's entry before which the stream stands; 0 where it stands before none.
    at: AtomicU64,
}

impl Reading {
    /// From now on it reads this feed.
    pub(super) fn begin(&self, feed: &Arc<Feed>) {
        let _ = self.feed.set(Arc::clone(feed));
    }

    /// It stands before this entry, or before none that could be told.
    pub(super) fn stands(&self, at: Option<u64>) {
        self.at.store(at.map_or(0, |at| at.saturating_add(1)), Ordering::Relaxed);
    }

    /// The feed; none while it is not decided whether the client may read it.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        self.feed.get()
    }

    /// How many entries of the log, of those that readers have been woken for, the stream has not read. None where that is
    /// not known: while it reads what only the upstream holds, before its start is fixed, and for readers of a single key.
    pub fn behind(&self) -> Option<u64> {
        let at = self.at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.feed()?.log.wake().reached().saturating_sub(at))
    }
}

impl Streams {
    /// The first `most` open streams after the one with the id `after` that `which` chooses, in the order in which they
    /// were opened. Nobody who comes or goes meanwhile has to wait for it.
    pub async fn page(
        &self,
        after: Option<u64>,
        most: usize,
        which: impl Fn(&Control) -> bool,
    ) -> Vec<Arc<Control>> {
        let (mut found, mut from) = (Vec::new(), after.map_or(Some(0), |after| after.checked_add(1)));
        while let Some(begin) = from.filter(|_| found.len() < most) {
            from = self.look(begin, most, &which, &mut found);
            tokio::task::yield_now().await;
        }
        found
    }

    /// Looks at a few from `begin` on; where to go on, if there may be more.
    fn look(
        &self,
        begin: u64,
        most: usize,
        which: &impl Fn(&Control) -> bool,
        found: &mut Vec<Arc<Control>>,
    ) -> Option<u64> {
        let open = self.open.lock();
        for (looked, (&id, control)) in open.range(begin..).enumerate() {
            if looked == LOOK || found.len() == most {
                return Some(id);
            }
            if which(control) {
                found.push(Arc::clone(control));
            }
        }
        None
    }

    /// Ends a stream because someone asked for it: its client is told when to come back, and cut if it does not listen.
    /// Returns whether there was such a stream.
    pub fn end(&self, id: u64) -> bool {
        let found = self.get(id);
        found.iter().for_each(|control| self.deadlines.end(control, End::Asked));
        found.is_some()
    }
}

/// Streams that are looked at without letting go of the lock.
const LOOK: usize = 1_000;

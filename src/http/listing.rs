//! The open streams as operators see them: page by page, each with how far behind its logs it is, and ended one by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::streams::{Control, End, Registered, Streams};
use crate::hub::{Feed, Reader};

/// What a stream reads. Written by the stream itself, whenever it has read; whoever looks takes no lock. Streams of several
/// feeds are few: theirs are kept aside, so that they take no room of the others.
#[derive(Default)]
pub struct Reading {
    feed: OnceLock<Arc<Feed>>,
    /// One more than the number of the log's entry before which the stream stands, or than the sum of these; 0 where it stands
    /// before none.
    at: AtomicU64,
}

/// What a stream reads, and how far it is.
pub struct Seen {
    /// Its feeds; none while it is not decided what the client may read.
    pub feeds: Vec<Arc<Feed>>,
    /// How many entries of their logs, of those that readers have been woken for, it has not read. None where that is not
    /// known: while it reads what only an upstream holds, before each start is fixed, and for readers of a single key.
    pub behind: Option<u64>,
}

impl Reading {
    /// It stands before this entry, or before none that could be told.
    pub(super) fn stands(&self, at: Option<u64>) {
        self.at.store(at.map_or(0, |at| at.saturating_add(1)), Ordering::Relaxed);
    }

    /// The feed; none where it is not one, or not decided whether the client may read it.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        self.feed.get()
    }

    /// How many entries of the feed's log it has not read; see [`Seen`].
    pub fn behind(&self) -> Option<u64> {
        self.behind_of([self.feed()?])
    }

    fn behind_of<'f>(&self, feeds: impl IntoIterator<Item = &'f Arc<Feed>>) -> Option<u64> {
        let at = self.at.load(Ordering::Relaxed).checked_sub(1)?;
        let reached = feeds.into_iter().map(|feed| feed.log.wake().reached()).sum::<u64>();
        Some(reached.saturating_sub(at))
    }
}

impl Registered {
    /// From now on its stream reads this.
    pub(super) fn reads(&self, reader: &Reader) {
        match reader.feed() {
            Some(feed) => _ = self.control.reading.feed.set(Arc::clone(feed)),
            None => _ = self.streams().several.lock().insert(self.control.id, reader.feeds().into()),
        }
    }
}

impl Streams {
    /// What a stream reads, and how far it is.
    pub fn seen(&self, control: &Control) -> Seen {
        let feeds = match control.reading.feed() {
            Some(feed) => vec![Arc::clone(feed)],
            None => self.several.lock().get(&control.id).map(|feeds| feeds.to_vec()).unwrap_or_default(),
        };
        let behind = if feeds.is_empty() { None } else { control.reading.behind_of(&feeds) };
        Seen { feeds, behind }
    }

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

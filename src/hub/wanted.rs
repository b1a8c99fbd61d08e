//! The wanted set: which sources an upstream should be subscribed to, and for which feeds. The hub changes
//! it, the upstream's session follows it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::feed::{Feed, Source};

/// The feeds of each source.
pub type Feeds = HashMap<Source, Vec<Arc<Feed>>>;

/// The wanted set of one upstream.
#[derive(Default)]
pub struct Wanted {
    feeds: Mutex<Feeds>,
    changes: watch::Sender<()>,
}

impl Wanted {
    /// The set as it is now.
    pub fn snapshot(&self) -> Feeds {
        self.feeds.lock().clone()
    }

    /// Looks at the set as it is now, which nobody changes meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&Feeds) -> T) -> T {
        look(&self.feeds.lock())
    }

    /// The feeds of one source.
    pub fn of(&self, source: &Source) -> Vec<Arc<Feed>> {
        self.feeds.lock().get(source).cloned().unwrap_or_default()
    }

    /// Ends a wait at each change after this call.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Does something with every feed.
    pub fn for_each(&self, mut f: impl FnMut(&Arc<Feed>)) {
        self.feeds.lock().values().flatten().for_each(&mut f);
    }

    pub(super) fn add(&self, feed: &Arc<Feed>) {
        self.feeds.lock().entry(feed.key.source.clone()).or_default().push(Arc::clone(feed));
        self.changes.send_replace(());
    }

    pub(super) fn remove(&self, feed: &Arc<Feed>) {
        {
            let mut feeds = self.feeds.lock();
            if let Some(of_source) = feeds.get_mut(&feed.key.source) {
                of_source.retain(|other| !Arc::ptr_eq(other, feed));
                if of_source.is_empty() {
                    feeds.remove(&feed.key.source);
                }
            }
        }
        self.changes.send_replace(());
    }
}

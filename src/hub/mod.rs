//! The heart: a subscriber is a cursor over a shared log. Knows no network and no file, keeps no timers of its
//! own but the one ticker in [`wake`], and never waits for a subscriber.
//!
//! Reading order: [`position`], [`id`], [`gap`]; then [`chunk`], [`writer`], [`ring`], [`log`]; then
//! [`cursor`], [`feed`], and the [`Hub`] that holds all feeds.

mod chunk;
mod cursor;
mod feed;
mod gap;
mod id;
mod log;
mod memory;
mod position;
mod ring;
mod wake;
mod wanted;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use cursor::{Cursor, Read};
pub use feed::{Feed, FeedKey, Policy, Source, Subscription};
pub use gap::{Gap, Reason};
pub use id::{Decoded, Epoch, EpochCodec, IdCodec};
pub use log::{Appended, Held, Log};
pub use memory::Memory;
pub use position::{Mark, Position};
pub use ring::Bounds;
pub use wake::{Linger, Wake};
pub use wanted::{Feeds, Wanted};

use crate::config::Replay;

/// How many feeds that were let go are remembered, so that their ids are told apart from unknown ones.
const REMEMBERED: usize = 10_000;

/// Every feed of the process.
pub struct Hub {
    feeds: Mutex<HashMap<FeedKey, Arc<Feed>>>,
    let_go: Mutex<HashMap<FeedKey, Epoch>>,
    wanted: HashMap<Arc<str>, Arc<Wanted>>,
    memory: Arc<Memory>,
    linger: Arc<Linger>,
}

impl Hub {
    /// A hub without feeds, for these upstreams.
    pub fn new(upstreams: impl IntoIterator<Item = Arc<str>>, memory: Arc<Memory>) -> Self {
        let wanted = upstreams.into_iter().map(|name| (name, Arc::default())).collect();
        Self { feeds: Mutex::default(), let_go: Mutex::default(), wanted, memory, linger: Linger::new() }
    }

    /// The wanted set of an upstream; `None` if it has no upstream of that name.
    pub fn wanted(&self, upstream: &str) -> Option<&Arc<Wanted>> {
        self.wanted.get(upstream)
    }

    /// The memory budget of its logs.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The process's one ticker, to be run by a task.
    pub fn linger(&self) -> &Arc<Linger> {
        &self.linger
    }

    /// Keeps a feed for good, so that history is there before the first client.
    pub fn hold(&self, key: FeedKey, policy: &Policy) -> Arc<Feed> {
        let mut feeds = self.feeds.lock();
        let feed = self.feed(&mut feeds, key, policy);
        feed.hold();
        feed
    }

    /// Subscribes to a feed, which begins with its first subscriber. The subscriber goes on after `id`, or
    /// starts at the head where there is none.
    pub fn subscribe(
        &self,
        key: FeedKey,
        policy: &Policy,
        id: Option<String>,
        replay: Replay,
    ) -> Subscription {
        let mut feeds = self.feeds.lock();
        let feed = self.feed(&mut feeds, key, policy);
        feed.join();
        Subscription::new(feed, id, replay)
    }

    fn feed(&self, feeds: &mut HashMap<FeedKey, Arc<Feed>>, key: FeedKey, policy: &Policy) -> Arc<Feed> {
        if let Some(feed) = feeds.get(&key) {
            feed.widen(policy);
            return Arc::clone(feed);
        }
        let previous = self.let_go.lock().remove(&key);
        let wake = Wake::new(policy.linger, Arc::clone(&self.linger));
        let log = Log::new(key.shape.clone(), policy.bounds, &self.memory, wake);
        let feed = Feed::new(key.clone(), policy, log, previous);
        feeds.insert(key, Arc::clone(&feed));
        if let Some(wanted) = self.wanted.get(&feed.key.upstream) {
            wanted.add(&feed);
        }
        feed
    }

    /// Lets go of events that are too old and of feeds that nobody reads. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        let mut feeds = self.feeds.lock();
        feeds.values().for_each(|feed| feed.log.sweep(now));
        let expired: Vec<_> = feeds.extract_if(|_, feed| feed.expired(now)).collect();
        for (key, feed) in expired {
            if let Some(wanted) = self.wanted.get(&key.upstream) {
                wanted.remove(&feed);
            }
            let mut let_go = self.let_go.lock();
            if let_go.len() >= REMEMBERED {
                let_go.clear();
            }
            let_go.insert(key, feed.epoch());
        }
    }

    /// Every feed, in no order.
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        self.feeds.lock().values().cloned().collect()
    }
}

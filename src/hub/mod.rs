//! The heart: a subscriber is a cursor over a shared log. Knows no network and no file, keeps no timers of its
//! own but the one ticker in `wake`, and never waits for a subscriber.
//!
//! Reading order: `position`, `id`, `gap`; then `chunk`, `window`, `writer`, `ring`, `run`, `order`, `generation`, `table`, `log`;
//! then `cursor`, a file for each state that it can be in, `sieve`, `feed`, `merged`, `reader`, and the [`Hub`] that holds all
//! feeds.

mod binding;
mod catching;
mod chunk;
mod composite;
mod cursor;
mod decide;
mod feed;
mod gap;
mod generation;
mod history;
mod id;
mod joined;
mod key;
mod log;
mod memory;
mod merged;
mod note;
mod order;
mod pace;
mod position;
mod quota;
mod reader;
mod replay;
mod ring;
mod rows;
mod run;
mod sample;
mod segment;
mod sieve;
mod table;
mod tell;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod viewing;
mod wake;
mod walk;
mod wanted;
mod window;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

pub use binding::Binding;
pub use chunk::Times;
pub use composite::Wishes;
pub use cursor::{Cursor, Read, Terms, Wish};
pub use decide::back;
pub use feed::{Feed, FeedKey, Opens, Policy, Source, Subscription};
pub use gap::{Gap, Reason};
pub use history::{Answer, Found, History, Question, Sought};
pub use id::{Decoded, Epoch, EpochCodec, IdCodec};
pub use log::{Appended, Held, Log, Opening};
pub use memory::{Memory, Reclaim, Reserved};
pub use merged::{Merged, Part};
pub use position::{Mark, Offset, Position};
pub use quota::Quota;
pub use reader::Reader;
pub use ring::Bounds;
pub use rows::Rows;
pub use run::Forms;
pub use segment::{Segment, SegmentDraft};
pub use sieve::Withheld;
pub use table::{Table, Tabled};
pub use tell::{Refused, Tell};
pub use wake::{Linger, Wake};
pub use wanted::{Feeds, Wanted};
pub use writer::LeftOut;

/// How many feeds that were let go are remembered, so that their ids are told apart from unknown ones.
const REMEMBERED: usize = 10_000;

/// Of the memory budget, what tables may take: a half. What they let go of is missing until it changes again, and what logs
/// let go of is only further away: so nobody else takes that half from them.
const TABLES: usize = 2;

/// Every feed of the process.
pub struct Hub {
    feeds: Mutex<HashMap<FeedKey, Arc<Feed>>>,
    let_go: Mutex<HashMap<FeedKey, Epoch>>,
    wanted: RwLock<HashMap<Arc<str>, Arc<Wanted>>>,
    memory: Arc<Memory>,
    tables: Arc<Memory>,
    linger: Arc<Linger>,
}

impl Hub {
    /// A hub without feeds, for these upstreams.
    pub fn new(upstreams: impl IntoIterator<Item = Arc<str>>, memory: Arc<Memory>) -> Self {
        let wanted = upstreams.into_iter().map(|name| (name, Arc::default())).collect();
        let (wanted, linger) = (RwLock::new(wanted), Linger::new());
        let tables = memory.part(memory.limit() / TABLES);
        Self { feeds: Mutex::default(), let_go: Mutex::default(), wanted, memory, tables, linger }
    }

    /// The wanted set of an upstream; `None` if it has no upstream of that name.
    pub fn wanted(&self, upstream: &str) -> Option<Arc<Wanted>> {
        self.wanted.read().get(upstream).cloned()
    }

    /// There is another upstream. Returns what is wanted of it: nothing, but for feeds that were opened before there was one.
    pub fn add_upstream(&self, name: &Arc<str>) -> Arc<Wanted> {
        let (feeds, wanted) = (self.feeds.lock(), Arc::<Wanted>::default());
        feeds.values().filter(|feed| feed.key.upstream == *name).for_each(|feed| wanted.add(feed));
        self.wanted.write().insert(Arc::clone(name), Arc::clone(&wanted));
        wanted
    }

    /// The upstream of this name is served no more. Its feeds are left to those who read them and to its wanted set, which
    /// is not changed any more; whoever opens a feed of an upstream of this name from now on gets another one.
    pub fn retire(&self, upstream: &str) {
        let mut feeds = self.feeds.lock();
        self.wanted.write().remove(upstream);
        feeds.extract_if(|key, _| &*key.upstream == upstream).for_each(|(_, feed)| feed.let_go());
    }

    /// Keeps these feeds for good, so that history is there before the first client, and no others any more: those are let go
    /// once nobody reads them. What was held `before` with another policy is kept by just this one.
    pub fn hold_only(&self, held: &HashMap<FeedKey, Policy>, before: &HashMap<FeedKey, Policy>) {
        let mut feeds = self.feeds.lock();
        let others = feeds.values().filter(|feed| !held.contains_key(&feed.key));
        others.for_each(|feed| feed.hold_no_more());
        for (key, policy) in held {
            let feed = self.feed(&mut feeds, key.clone(), policy, None);
            feed.hold();
            if before.get(key).is_some_and(|before| before != policy) {
                feed.keep(policy);
            }
        }
    }

    /// From now on the feeds that count in one of these quotas are kept by just its policy.
    pub fn keep(&self, policies: &[(Arc<Quota>, Policy)]) {
        if policies.is_empty() {
            return;
        }
        for feed in self.feeds.lock().values() {
            let policy = policies.iter().find(|(quota, _)| feed.counts_in(quota));
            policy.iter().for_each(|(_, policy)| feed.keep(policy));
        }
    }

    /// The memory budget of its logs.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The part of it that the tables of its logs may take.
    pub fn tables(&self) -> &Arc<Memory> {
        &self.tables
    }

    /// The process's one ticker, to be run by a task.
    pub fn linger(&self) -> &Arc<Linger> {
        &self.linger
    }

    /// Keeps a feed for good.
    #[cfg(test)]
    pub fn hold(&self, key: FeedKey, policy: &Policy) -> Arc<Feed> {
        let mut feeds = self.feeds.lock();
        let feed = self.feed(&mut feeds, key, policy, None);
        feed.hold();
        feed
    }

    /// Subscribes to a feed, which begins with its first subscriber.
    pub fn subscribe(
        &self,
        feed: Opens,
        policy: &Policy,
        wish: Wish,
        terms: impl Into<Arc<Terms>>,
    ) -> Reader {
        self.open(None, feed, policy, wish, terms.into()).expect("without a quota there is room")
    }

    /// The same where a feed that is not there yet counts in `quota`. Nobody can hold its room with feeds that nobody
    /// reads: those that have been idle for the longest make way for new ones. `None` if all of them are read.
    pub fn subscribe_within(
        &self,
        quota: &Arc<Quota>,
        feed: Opens,
        policy: &Policy,
        wish: Wish,
        terms: impl Into<Arc<Terms>>,
    ) -> Option<Reader> {
        self.open(Some(quota), feed, policy, wish, terms.into())
    }

    fn open(
        &self,
        quota: Option<&Arc<Quota>>,
        mut opens: Opens,
        policy: &Policy,
        wish: Wish,
        terms: Arc<Terms>,
    ) -> Option<Reader> {
        let mut feeds = self.feeds.lock();
        let also = std::mem::take(&mut opens.also);
        if also.is_empty() {
            return self.join(&mut feeds, quota, opens, policy, wish, terms).map(Reader::One);
        }
        let (wishes, prefix) = (Wishes::new(wish), Arc::clone(&opens.feed.shape.control_prefix));
        let (mut parts, mut labels) = (Vec::with_capacity(1 + also.len()), HashSet::new());
        for opens in std::iter::once(opens).chain(also) {
            let mut label = opens.label();
            while !labels.insert(label.clone()) {
                label.push('\n');
            }
            let wish = wishes.of(&label);
            let resumes = wish.id.clone();
            // Where there is no room for one of them, those that were opened before it are left as idle ones.
            let joined = self.join(&mut feeds, quota, opens, policy, wish, Arc::clone(&terms))?;
            parts.push(Part { label: label.into(), reader: Reader::One(joined), resumes });
        }
        Some(Reader::Many(Box::new(Merged::new(parts, Tell::Nothing, prefix, Vec::new()))))
    }

    fn join(
        &self,
        feeds: &mut HashMap<FeedKey, Arc<Feed>>,
        quota: Option<&Arc<Quota>>,
        opens: Opens,
        policy: &Policy,
        wish: Wish,
        terms: Arc<Terms>,
    ) -> Option<Subscription> {
        let Opens { feed, key, start, .. } = opens;
        if let Some(quota) = quota.filter(|quota| quota.is_full() && !feeds.contains_key(&feed)) {
            self.make_way(feeds, quota);
            if quota.is_full() {
                return None;
            }
        }
        let terms = match start {
            Some(start) if start != terms.start => Arc::new(Terms { start, ..*terms }),
            _ => terms,
        };
        let feed = self.feed(feeds, feed, policy, quota);
        feed.join();
        Some(Subscription::new(feed, key, wish, terms))
    }

    /// Lets go of an eighth of the quota's idle feeds, so that looking for them is not done for each new one.
    fn make_way(&self, feeds: &mut HashMap<FeedKey, Arc<Feed>>, quota: &Arc<Quota>) {
        if !quota.has_idle() {
            return;
        }
        let idle = feeds.values().filter_map(|feed| Some((feed.idle_in(quota)?, Arc::clone(feed))));
        let mut idle: Vec<_> = idle.collect();
        if idle.is_empty() {
            return;
        }
        let last = idle.len() / 8;
        idle.select_nth_unstable_by_key(last, |(since, _)| *since);
        for (_, feed) in idle.drain(..=last) {
            feeds.remove(&feed.key);
            self.let_go(&feed);
        }
    }

    fn feed(
        &self,
        feeds: &mut HashMap<FeedKey, Arc<Feed>>,
        key: FeedKey,
        policy: &Policy,
        quota: Option<&Arc<Quota>>,
    ) -> Arc<Feed> {
        if let Some(feed) = feeds.get(&key) {
            feed.widen(policy);
            return Arc::clone(feed);
        }
        let previous = self.let_go.lock().remove(&key);
        let wake = Wake::new(policy.linger, Arc::clone(&self.linger));
        let room = (&self.memory, &self.tables);
        let log = Log::within(key.shape.clone(), key.source.is_keyed(), policy.bounds, room, wake);
        let feed = Feed::new(key.clone(), policy, log, previous, quota);
        feeds.insert(key, Arc::clone(&feed));
        if let Some(wanted) = self.wanted(&feed.key.upstream) {
            wanted.add(&feed);
        }
        feed
    }

    /// Lets go of events that are too old and of feeds that nobody reads. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        let mut feeds = self.feeds.lock();
        feeds.values().for_each(|feed| feed.log.sweep(now));
        let expired: Vec<_> = feeds.extract_if(|_, feed| feed.expired(now)).collect();
        expired.iter().for_each(|(_, feed)| self.let_go(feed));
    }

    /// What follows once a feed is not kept any more.
    fn let_go(&self, feed: &Arc<Feed>) {
        if let Some(wanted) = self.wanted(&feed.key.upstream) {
            wanted.remove(feed);
        }
        feed.let_go();
        let mut let_go = self.let_go.lock();
        if let_go.len() >= REMEMBERED {
            let_go.clear();
        }
        let_go.insert(feed.key.clone(), feed.epoch());
    }

    /// A feed that is kept.
    pub fn kept(&self, key: &FeedKey) -> Option<Arc<Feed>> {
        self.feeds.lock().get(key).cloned()
    }

    /// How many feeds there are.
    pub fn count(&self) -> usize {
        self.feeds.lock().len()
    }

    /// Every feed, in no order.
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        self.feeds.lock().values().cloned().collect()
    }
}

//! What one connection is to carry, and how far it has got: the table between those who decide what is assigned to
//! it, its [`Subscriber`](super::subscriber::Subscriber) and its reader. It alone confirms and loses feeds.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::incoming::Told;
use super::streams;
use crate::hub::{Feed, Feeds, Source};
use crate::upstream::Broken;
use crate::upstream::link::Link;

/// How long a source rests whose subscription the server has ended.
const ENDED: Duration = Duration::from_millis(500);

/// The table of one connection.
pub(super) struct Subscriptions {
    link: Arc<Link>,
    table: Mutex<Table>,
    changed: Notify,
}

struct Table {
    entries: HashMap<Source, Entry>,
    /// No longer assigned, and their end not confirmed: what still comes by them is nobody's.
    leaving: HashSet<Source>,
    /// When the connection was last known to be good: what was published before it has come in.
    alive: SystemTime,
}

struct Entry {
    feeds: Vec<Arc<Feed>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// To be subscribed to; after a refusal not before this time.
    New(Option<Instant>),
    /// Asked for. A message proves that it stands just as well as the confirmation.
    Asked,
    Stands,
}

/// What a subscriber has to do next.
pub(super) struct Work {
    pub leave: Vec<Source>,
    pub enter: Vec<Source>,
    /// When the first of those that were refused is to be tried again.
    pub again: Option<Instant>,
}

impl Subscriptions {
    pub fn new(link: &Arc<Link>) -> Self {
        let table = Table { entries: HashMap::new(), leaving: HashSet::new(), alive: SystemTime::now() };
        Self { link: Arc::clone(link), table: Mutex::new(table), changed: Notify::new() }
    }

    /// The upstream's link.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Assigns everything that is wanted, for as long as it runs.
    pub async fn follow_wanted(&self) -> Broken {
        let mut changes = self.link.changes();
        loop {
            changes.look(|| self.assign(self.link.wanted().snapshot()));
            if let Err(gone) = changes.next().await {
                return gone;
            }
        }
    }

    /// Makes `feeds` what this connection is to carry. Feeds that join a source whose subscription stands are
    /// confirmed at once.
    pub fn assign(&self, mut feeds: Feeds) {
        feeds.retain(|source, _| !streams::is_stream(source));
        let mut guard = self.table.lock();
        let table = &mut *guard;
        table.drop_all_but(|source| feeds.contains_key(source), |_| {});
        for (source, feeds) in feeds {
            let entry = match table.entries.entry(source) {
                Slot::Occupied(entry) => entry.into_mut(),
                Slot::Vacant(slot) => slot.insert(Entry { feeds: Vec::new(), state: State::New(None) }),
            };
            entry.feeds = feeds;
            if entry.state == State::Stands {
                entry.feeds.iter().for_each(|feed| self.link.confirm(feed));
            }
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// Takes away what is assigned to another connection now. Its feeds are lost as of when this connection, or the
    /// decision that it be here, was last known to be good, until the other connection confirms them.
    pub fn withdraw_all_but(&self, keep: impl Fn(&Source) -> bool, decided: SystemTime) {
        let mut table = self.table.lock();
        let since = table.alive.min(decided);
        table.drop_all_but(keep, |entry| entry.lose(since));
        drop(table);
        self.changed.notify_one();
    }

    /// The connection has ended.
    pub fn lose_all(&self, decided: Option<SystemTime>) {
        let table = self.table.lock();
        let since = decided.map_or(table.alive, |decided| table.alive.min(decided));
        table.entries.values().for_each(|entry| entry.lose(since));
    }

    /// The connection was good at this time.
    pub fn alive_at(&self, time: SystemTime) {
        self.table.lock().alive = time;
    }

    /// Ends when there may be work.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is to be done. It counts as asked for from here on.
    pub fn work(&self) -> Work {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let leave = table.leaving.iter().cloned().collect();
        let now = Instant::now();
        let (mut enter, mut again) = (Vec::new(), None::<Instant>);
        for (source, entry) in &mut table.entries {
            match entry.state {
                // One that is still leaving has to be gone first, so that what comes by it is the new one's.
                State::New(_) if table.leaving.contains(source) => {}
                State::New(Some(at)) if at > now => again = Some(again.map_or(at, |first| first.min(at))),
                State::New(_) => {
                    entry.state = State::Asked;
                    enter.push(source.clone());
                }
                State::Asked | State::Stands => {}
            }
        }
        Work { leave, enter, again }
    }

    /// These are no longer subscribed to.
    pub fn left(&self, sources: &[Source]) {
        let mut table = self.table.lock();
        table.leaving.retain(|source| !sources.contains(source));
        let again = sources.iter().any(|source| table.entries.contains_key(source));
        drop(table);
        if again {
            self.changed.notify_one();
        }
    }

    /// Whether it was asked for without an outcome so far.
    pub fn is_asked(&self, source: &Source) -> bool {
        self.table.lock().entries.get(source).is_some_and(|entry| entry.state == State::Asked)
    }

    /// The subscription was refused; to be tried again at this time.
    pub fn refused(&self, source: &Source, again: Instant) {
        if let Some(entry) = self.table.lock().entries.get_mut(source) {
            entry.state = State::New(Some(again));
        }
    }

    /// Takes what came in; returns whether the server has ended a subscription, since the slot has left it.
    pub fn take(&self, batch: &[Told]) -> bool {
        if batch.is_empty() {
            return false;
        }
        let mut ended = false;
        let mut table = self.table.lock();
        for run in batch.chunk_by(same_source) {
            match &run[0] {
                Told::Message(first) => self.deliver(&mut table, &first.source, run),
                Told::Subscribed(source) => {
                    table.standing(source, &self.link);
                }
                Told::Unsubscribed(source) => ended |= self.unsubscribed(&mut table, source),
            }
        }
        ended
    }

    fn deliver(&self, table: &mut Table, source: &Source, run: &[Told]) {
        let Some(entry) = table.standing(source, &self.link) else { return };
        let messages = || {
            run.iter().filter_map(|told| match told {
                Told::Message(message) => Some((None, message)),
                _ => None,
            })
        };
        entry.feeds.iter().for_each(|feed| self.link.deliver(feed, messages()));
    }

    /// True where we did not ask for it. It is assigned elsewhere, or tried again here should it not have gone far.
    fn unsubscribed(&self, table: &mut Table, source: &Source) -> bool {
        let alive = table.alive;
        if table.leaving.contains(source) {
            return false;
        }
        let Some(entry) = table.entries.get_mut(source) else { return false };
        entry.state = State::New(Some(Instant::now() + ENDED));
        entry.lose(alive);
        self.changed.notify_one();
        true
    }
}

impl Table {
    fn drop_all_but(&mut self, keep: impl Fn(&Source) -> bool, mut dropped: impl FnMut(&Entry)) {
        let leaving = &mut self.leaving;
        self.entries.retain(|source, entry| {
            let stays = keep(source);
            if !stays {
                dropped(entry);
                if !matches!(entry.state, State::New(_)) {
                    leaving.insert(source.clone());
                }
            }
            stays
        });
    }

    /// The entry of a source by which something came, confirmed by just that.
    fn standing(&mut self, source: &Source, link: &Link) -> Option<&Entry> {
        if self.leaving.contains(source) {
            return None;
        }
        let entry = self.entries.get_mut(source)?;
        match entry.state {
            State::New(_) => return None,
            State::Asked => {
                entry.state = State::Stands;
                entry.feeds.iter().for_each(|feed| link.confirm(feed));
            }
            State::Stands => {}
        }
        Some(entry)
    }
}

impl Entry {
    fn lose(&self, since: SystemTime) {
        self.feeds.iter().for_each(|feed| feed.lose(since));
    }
}

fn same_source(a: &Told, b: &Told) -> bool {
    match (a, b) {
        (Told::Message(a), Told::Message(b)) => a.source == b.source,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Binary;
    use crate::hub::{Bounds, FeedKey, Hub, Memory, Policy, Position};
    use crate::metrics::Metrics;
    use crate::shape::Shape;
    use crate::upstream::redis::incoming::Message;

    /// A hub with one feed of each of these shard channels, and a table that they are assigned to.
    struct Rig {
        hub: Hub,
        link: Arc<Link>,
        table: Subscriptions,
    }

    impl Rig {
        fn new(channels: &[&str]) -> Self {
            let hub = Hub::new([Arc::from("r")], Memory::new(usize::MAX));
            let wanted = hub.wanted("r").unwrap();
            let link = Link::new("r".into(), wanted, Metrics::new().upstream("r"));
            let rig = Self { table: Subscriptions::new(&link), hub, link };
            channels.iter().for_each(|channel| drop(rig.feed(channel)));
            rig.table.assign(rig.wanted());
            rig
        }

        fn feed(&self, channel: &str) -> Arc<Feed> {
            let bounds = Bounds { events: 100, bytes: 1 << 20, age: Duration::from_secs(60), buffer: 0 };
            let policy = Policy { bounds, linger: Duration::ZERO, idle_timeout: Duration::ZERO };
            let shape = Shape { control_prefix: "x".into(), ..Shape::default() };
            self.hub.hold(FeedKey { upstream: "r".into(), source: source(channel), shape }, &policy)
        }

        fn wanted(&self) -> Feeds {
            self.link.wanted().snapshot()
        }

        /// How many entries its log has had, gaps among them; `None` before it is open.
        fn entries(&self, channel: &str) -> Option<u64> {
            let position = self.feed(channel).log.position()?;
            Some((0..100).find(|n| *position == Position::new(vec![*n])).unwrap_or(0))
        }

        fn entered(&self) -> Vec<String> {
            let mut names: Vec<_> =
                self.table.work().enter.iter().map(|source| source.name().to_owned()).collect();
            names.sort();
            names
        }
    }

    fn source(channel: &str) -> Source {
        Source::ShardChannel(channel.into())
    }

    fn message(channel: &str) -> Told {
        Told::Message(Message { source: source(channel), channel: None, payload: b"x".to_vec() })
    }

    fn subscribed(channel: &str) -> Told {
        Told::Subscribed(source(channel))
    }

    fn unsubscribed(channel: &str) -> Told {
        Told::Unsubscribed(source(channel))
    }

    #[test]
    fn a_confirmation_opens_and_a_message_confirms_as_well() {
        let rig = Rig::new(&["a", "b", "c"]);
        rig.table.take(&[message("a")]);
        assert_eq!(rig.entries("a"), None, "not asked for yet, so it is not ours");
        assert_eq!(rig.entered(), ["a", "b", "c"]);
        assert!(rig.entered().is_empty(), "asked for once");
        rig.table.take(&[subscribed("a"), message("b"), message("b"), subscribed("b")]);
        assert_eq!((rig.entries("a"), rig.entries("b"), rig.entries("c")), (Some(0), Some(2), None));
        assert!(rig.table.is_asked(&source("c")) && !rig.table.is_asked(&source("b")));
    }

    #[test]
    fn what_is_leaving_is_nobodys_and_comes_back_only_once_it_has_left() {
        let rig = Rig::new(&["a"]);
        rig.entered();
        rig.table.take(&[subscribed("a"), message("a")]);
        rig.table.assign(Feeds::new());
        rig.table.assign(rig.wanted());
        let work = rig.table.work();
        assert_eq!((work.leave.len(), work.enter.len()), (1, 0));
        rig.table.take(&[message("a"), unsubscribed("a")]);
        assert_eq!(rig.entries("a"), Some(1));
        rig.table.left(&work.leave);
        assert_eq!(rig.entered(), ["a"]);
    }

    #[test]
    fn what_moves_is_lost_here_before_it_is_confirmed_there() {
        let rig = Rig::new(&["a", "b"]);
        rig.entered();
        rig.table.take(&[subscribed("a"), subscribed("b")]);
        rig.table.withdraw_all_but(|kept| *kept == source("b"), SystemTime::now());
        rig.table.take(&[message("a"), message("b")]);
        let there = Subscriptions::new(&rig.link);
        there.assign(rig.wanted().into_iter().filter(|(moved, _)| *moved == source("a")).collect());
        there.work();
        there.take(&[subscribed("a"), message("a")]);
        assert_eq!(rig.entries("a"), Some(2), "a gap and a message");
        assert_eq!(rig.entries("b"), Some(1), "a message");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_ends_is_lost_and_asked_for_again_later() {
        let rig = Rig::new(&["a", "b"]);
        rig.entered();
        assert!(!rig.table.take(&[subscribed("a"), subscribed("b")]));
        assert!(rig.table.take(&[unsubscribed("a"), message("b")]));
        assert!(rig.table.work().enter.is_empty());
        let again = rig.table.work().again.unwrap();
        tokio::time::advance(again - Instant::now()).await;
        assert_eq!(rig.entered(), ["a"]);
        rig.table.take(&[subscribed("a")]);
        assert_eq!((rig.entries("a"), rig.entries("b")), (Some(1), Some(1)), "a gap; a message");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_rests() {
        let rig = Rig::new(&["a"]);
        rig.entered();
        let again = Instant::now() + Duration::from_secs(5);
        rig.table.refused(&source("a"), again);
        let work = rig.table.work();
        assert_eq!((work.enter.len(), work.again), (0, Some(again)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(rig.entered(), ["a"]);
        rig.table.lose_all(None);
        rig.table.take(&[subscribed("a")]);
        assert_eq!(rig.entries("a"), Some(0), "it was never open, so nothing was lost");
    }

    #[test]
    fn a_feed_that_joins_a_source_that_stands_is_confirmed_at_once() {
        let rig = Rig::new(&["a"]);
        rig.entered();
        rig.table.take(&[subscribed("a")]);
        let shape =
            Shape { binary: Binary::Base64, max_event: 9, control_prefix: "x".into(), ..Shape::default() };
        let bounds = Bounds { events: 100, bytes: 1 << 20, age: Duration::from_secs(60), buffer: 0 };
        let policy = Policy { bounds, linger: Duration::ZERO, idle_timeout: Duration::ZERO };
        let key = FeedKey { upstream: "r".into(), source: source("a"), shape };
        let joined = rig.hub.hold(key, &policy);
        rig.table.assign(rig.wanted());
        assert!(joined.log.position().is_some());
    }
}

//! What one session carries of NATS proper, and how far it has got: the subscriptions, one for each subject that is
//! wanted, and whose feeds they serve. It alone confirms and loses these feeds.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::line::{FIRST_FREE, Line};
use super::wire::{self, Message};
use crate::hub::{Feed, Feeds, Source};
use crate::shape::Record;
use crate::upstream::Broken;
use crate::upstream::link::Link;

/// The subscriptions of one session. What they carried is lost when it ends.
pub(super) struct Subscriptions {
    link: Arc<Link>,
    /// How much later what was published at another server of a cluster may come in.
    slack: Duration,
    table: Mutex<Table>,
    changed: Notify,
}

struct Table {
    entries: HashMap<Arc<str>, Entry>,
    subjects: HashMap<u64, Arc<str>>,
    next: u64,
    /// When the link was last known to be good: what was published before it has come in.
    alive: SystemTime,
}

struct Entry {
    sid: u64,
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

/// What is to be said next.
#[derive(Default)]
struct Work {
    leave: Vec<u64>,
    enter: Vec<(Arc<str>, u64)>,
    /// When the first of those that were refused is to be tried again.
    again: Option<Instant>,
}

impl Subscriptions {
    /// Of a session that has just begun.
    pub fn new(link: &Arc<Link>, began: SystemTime, slack: Duration) -> Self {
        let (entries, subjects) = (HashMap::new(), HashMap::new());
        let table = Table { entries, subjects, next: FIRST_FREE, alive: began };
        Self { link: Arc::clone(link), slack, table: Mutex::new(table), changed: Notify::new() }
    }

    /// The link was good at this time.
    pub fn alive_at(&self, time: SystemTime) {
        self.table.lock().alive = time;
    }

    /// Keeps the subscriptions equal to what is wanted; says through `settled` when they are.
    pub async fn follow(&self, line: &Line, settled: impl Fn()) -> Broken {
        match self.keep_equal(line, settled).await {
            Ok(never) => match never {},
            Err(broken) => broken,
        }
    }

    async fn keep_equal(&self, line: &Line, settled: impl Fn()) -> Result<Infallible, Broken> {
        let mut changes = self.link.changes().and_now();
        changes.next().await?;
        loop {
            let left = changes.look(|| self.assign(self.link.wanted().snapshot()));
            let mut work = self.work();
            work.leave.extend(left);
            for sid in work.leave {
                line.say(wire::unsubscribe(sid)).await;
            }
            for entering in work.enter.chunks(AT_ONCE) {
                for (subject, sid) in entering {
                    line.say(wire::subscribe(subject, *sid)).await;
                }
                // What is refused is refused before the answer.
                line.ping().await?;
                self.entered(entering);
            }
            settled();
            let again = async {
                match work.again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.next() => changed?,
                () = self.changed.notified() => {}
                () = again => {}
            }
        }
    }

    /// Takes in what is wanted. Returns the subscriptions that nobody wants any more; what still comes by them is nobody's.
    fn assign(&self, feeds: Feeds) -> Vec<u64> {
        let mut guard = self.table.lock();
        let Table { entries, subjects, next, .. } = &mut *guard;
        let wanted = |subject: &Arc<str>| feeds.contains_key(&Source::Subject(Arc::clone(subject)));
        let left = entries.extract_if(|subject, _| !wanted(subject));
        let left: Vec<u64> = left.filter(|(_, entry)| entry.is_asked()).map(|(_, entry)| entry.sid).collect();
        subjects.retain(|_, subject| entries.contains_key(subject));
        for (source, feeds) in feeds {
            let Source::Subject(subject) = source else { continue };
            let entry = entries.entry(subject).or_insert_with_key(|subject| {
                let sid = *next;
                *next += 1;
                subjects.insert(sid, Arc::clone(subject));
                Entry { sid, feeds: Vec::new(), state: State::New(None) }
            });
            entry.feeds = feeds;
            if entry.state == State::Stands {
                entry.feeds.iter().for_each(|feed| self.link.confirm(feed));
            }
        }
        left
    }

    /// What is to be asked for. It counts as asked for from here on.
    fn work(&self) -> Work {
        let (mut table, now, mut work) = (self.table.lock(), Instant::now(), Work::default());
        for (subject, entry) in &mut table.entries {
            match entry.state {
                State::New(Some(at)) if at > now => {
                    work.again = Some(work.again.map_or(at, |first| first.min(at)));
                }
                State::New(_) => {
                    entry.state = State::Asked;
                    work.enter.push((Arc::clone(subject), entry.sid));
                }
                State::Asked | State::Stands => {}
            }
        }
        work
    }

    /// These have been heard of, and were not refused if they are still asked for.
    fn entered(&self, subjects: &[(Arc<str>, u64)]) {
        let mut table = self.table.lock();
        for (subject, _) in subjects {
            if let Some(entry) = table.entries.get_mut(subject).filter(|entry| entry.is_asked()) {
                entry.stand(&self.link);
            }
        }
    }

    /// The server does not let us have this subject, or no longer.
    pub fn refused(&self, subject: &str) {
        let mut table = self.table.lock();
        let alive = table.alive;
        let Some(entry) = table.entries.get_mut(subject).filter(|entry| entry.is_asked()) else { return };
        if entry.state == State::Stands {
            entry.lose(alive);
        }
        entry.state = State::New(Some(Instant::now() + REFUSED));
        drop(table);
        self.link.trouble(&format!("subscribing to {subject} was refused: NATS permits it not"));
        self.changed.notify_one();
    }

    /// Takes what came in.
    pub fn take(&self, messages: &[Message]) {
        let mut guard = self.table.lock();
        let Table { entries, subjects, .. } = &mut *guard;
        for run in messages.chunk_by(|one, other| one.sid == other.sid) {
            let entry = subjects.get(&run[0].sid).and_then(|subject| entries.get_mut(subject));
            let Some(entry) = entry.filter(|entry| entry.is_asked()) else { continue };
            entry.stand(&self.link);
            for feed in &entry.feeds {
                self.link.deliver(feed, run.iter().map(|message| (None, message)));
            }
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        let table = self.table.get_mut();
        let since = table.alive.checked_sub(self.slack).unwrap_or(SystemTime::UNIX_EPOCH);
        table.entries.values().for_each(|entry| entry.lose(since));
    }
}

impl Entry {
    fn is_asked(&self) -> bool {
        !matches!(self.state, State::New(_))
    }

    fn stand(&mut self, link: &Link) {
        if self.state == State::Asked {
            self.state = State::Stands;
            self.feeds.iter().for_each(|feed| link.confirm(feed));
        }
    }

    fn lose(&self, since: SystemTime) {
        self.feeds.iter().for_each(|feed| feed.lose(since));
    }
}

impl Record for &Message {
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.payload)
    }

    fn name(&self) -> &str {
        &self.subject
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        Message::header(self, name)
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        Message::headers(self).for_each(|(name, value)| each(&String::from_utf8_lossy(name), Some(value)));
    }
}

/// The most subjects that are asked for in one go.
const AT_ONCE: usize = 512;
/// How long a subject that the server refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);

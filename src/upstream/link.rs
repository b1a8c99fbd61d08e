//! What a session and the rest of the process know of each other: the wanted set one way, records and health
//! the other.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::changes::Changes;
use super::lag::{Behind, Lags};
use super::waiting::Waiting;
use crate::hub::{Appended, Feed, Gap, LeftOut, Mark, Reason, Source, Wanted};
use crate::metrics::{HistoryMetrics, Lag, UpstreamMetrics};
use crate::shape::Record;

/// The link to one upstream, through all its sessions.
pub struct Link {
    name: Arc<str>,
    wanted: Arc<Wanted>,
    metrics: UpstreamMetrics,
    health: Mutex<Health>,
    tried: watch::Sender<bool>,
    /// When this session came up, in milliseconds since the epoch.
    up_at: AtomicU64,
    /// Whether this session has been up.
    was_up: AtomicBool,
    /// Whether another link stands in its place.
    is_retired: AtomicBool,
    said: Mutex<Said>,
    causes: Mutex<Causes>,
    /// How far its sources are behind, where that can be known.
    lags: Mutex<Option<Lags>>,
    /// Records that wait for their schemas.
    waiting: Waiting,
    own: Weak<Self>,
}

/// How an upstream is.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whether the link is up.
    pub up: bool,
    /// Since when it has been so.
    pub since: SystemTime,
    /// Why it was lost, or could not be had, the last time.
    pub last_error: Option<(String, SystemTime)>,
    /// How often it was tried again.
    pub reconnects: u64,
}

impl Link {
    /// A link that is down and was never tried.
    pub fn new(name: Arc<str>, wanted: Arc<Wanted>, metrics: UpstreamMetrics) -> Arc<Self> {
        let since = SystemTime::now();
        // It may stand in for another one of its name.
        metrics.up.set(0);
        Arc::new_cyclic(|own| Self {
            name,
            wanted,
            metrics,
            health: Mutex::new(Health { up: false, since, last_error: None, reconnects: 0 }),
            tried: watch::Sender::new(false),
            up_at: AtomicU64::new(0),
            was_up: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            said: Mutex::default(),
            causes: Mutex::default(),
            lags: Mutex::default(),
            waiting: Waiting::default(),
            own: Weak::clone(own),
        })
    }

    /// It stands for its upstream no more, but for those who still read of it: another link has its name, and the gauge.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// What the gauge of its name shows.
    fn shows(&self, up: bool) {
        if !self.is_retired.load(Ordering::Relaxed) {
            self.metrics.up.set(up.into());
        }
    }

    /// The upstream's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// How far reading is behind its end, and which source is; `None` where that cannot be known.
    pub fn lag(&self) -> Option<(Lag, Option<Arc<str>>)> {
        let (now, health) = (SystemTime::now(), self.health());
        let down = now.duration_since(health.since).ok().filter(|_| !health.up);
        let mut lags = self.lags.lock();
        let lags = lags.as_mut()?;
        self.wanted.with(|feeds| {
            let wanted: HashSet<&str> = feeds.keys().map(Source::name).collect();
            lags.keep(|source| wanted.contains(source));
        });
        Some(lags.worst(now, down))
    }

    /// From now on it is known how far its sources are behind, which is not at all so far.
    pub(super) fn tells_lag(&self) {
        self.lags.lock().get_or_insert_default();
    }

    /// One of its sources is so far behind.
    pub(super) fn is_behind(&self, source: &Arc<str>, behind: Behind) {
        self.lags.lock().get_or_insert_default().note(source, behind);
    }

    /// The handles of reading its history.
    pub(super) fn history_metrics(&self) -> HistoryMetrics {
        self.metrics.history()
    }

    /// Events that were taken in, once for each feed.
    pub fn events_in(&self) -> u64 {
        self.metrics.events_in.get()
    }

    /// Ends once the first subscriptions have been tried, with whatever outcome.
    pub async fn tried(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.tried.subscribe().wait_for(|tried| *tried).await;
    }

    /// The sources that are wanted.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What becomes of that from now on.
    pub(super) fn changes(&self) -> Changes {
        Changes::new(self.wanted.changes())
    }

    /// The link stands.
    pub(super) fn up(&self) {
        self.was_up.store(true, Ordering::Relaxed);
        let mut health = self.health.lock();
        if !health.up {
            health.up = true;
            health.since = SystemTime::now();
            let time = health.since.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.up_at.store(time.as_millis() as u64, Ordering::Relaxed);
            self.shows(true);
            tracing::info!(upstream = %self.name, "upstream is up");
        }
    }

    /// What was wanted at first is subscribed to.
    pub(super) fn settled(&self) {
        self.tried.send_replace(true);
    }

    /// The link is down. Said once for each reason, not once for each attempt.
    pub(super) fn down(&self, cause: &str) {
        self.shows(false);
        self.settled();
        let mut health = self.health.lock();
        let news = self.causes.lock().is_news(cause, Instant::now());
        if health.up || news {
            tracing::warn!(upstream = %self.name, cause, "upstream is down; trying again until it is back");
            self.metrics.error(cause);
        } else {
            tracing::debug!(upstream = %self.name, cause, "upstream is still down");
        }
        if health.up {
            health.up = false;
            health.since = SystemTime::now();
        }
        health.last_error = Some((cause.to_owned(), SystemTime::now()));
    }

    /// Something about one source went wrong that leaves the link up. Shown, and logged once for each cause.
    pub(super) fn trouble(&self, cause: &str) {
        self.metrics.troubles.inc();
        let mut health = self.health.lock();
        if self.causes.lock().is_news(cause, Instant::now()) {
            self.metrics.error(cause);
            match self.said.lock().pass(Of::Trouble) {
                Some(unsaid) => {
                    tracing::warn!(upstream = %self.name, cause, unsaid, "trouble with an upstream");
                }
                None => self.causes.lock().unsay(cause),
            }
        }
        health.last_error = Some((cause.to_owned(), SystemTime::now()));
    }

    /// What was told of as trouble was tried again, in vain.
    pub(super) fn trouble_goes_on(&self) {
        self.metrics.troubles.inc();
    }

    /// Whether this session came up, asked once at its end.
    pub(super) fn take_was_up(&self) -> bool {
        self.was_up.swap(false, Ordering::Relaxed)
    }

    /// The session is ended from here, to be followed by one that enters in another way: no trouble.
    pub(super) fn renews(&self) {
        tracing::info!(upstream = %self.name, "upstream is entered anew");
        self.shows(false);
        // What stood in the way before is news if it still does.
        *self.causes.lock() = Causes::default();
        let mut health = self.health.lock();
        (health.up, health.since) = (false, SystemTime::now());
    }

    /// Every feed lost its link, no more than so long before now.
    pub(super) fn lose_feeds_within(&self, time: Duration) {
        let up = UNIX_EPOCH + Duration::from_millis(self.up_at.load(Ordering::Relaxed));
        let since = SystemTime::now().checked_sub(time).map_or(up, |since| since.max(up));
        self.wanted.for_each(|feed| feed.lose(since));
    }

    /// Every feed lost its link, at some time after it came up. A session that knows better has lost its feeds itself,
    /// and the first to say so counts.
    pub(super) fn lose_feeds(&self) {
        let since = UNIX_EPOCH + Duration::from_millis(self.up_at.load(Ordering::Relaxed));
        self.wanted.for_each(|feed| feed.lose(since));
    }

    /// The link is tried again.
    pub(super) fn reconnecting(&self) {
        self.metrics.reconnects.inc();
        self.health.lock().reconnects += 1;
    }

    /// The subscription behind a feed of a source without history stands.
    pub(super) fn confirm(&self, feed: &Arc<Feed>) {
        if feed.key.shape.decode.asks() && self.waiting.confirm(feed) {
            return;
        }
        self.count(&feed.confirm(), feed);
    }

    /// The same where there was something before, which the feed begins with.
    pub(super) fn begin<R: Record>(&self, feed: &Feed, before: impl IntoIterator<Item = R>) {
        self.count(&feed.begin(before), feed);
    }

    /// Hands records to a feed. Those that the log numbers are of a source that cannot pause, and wait for their schemas
    /// where they have to; who hands over others has waited: see [`schemas`](super::schemas).
    pub(super) fn deliver<R: Record>(
        &self,
        feed: &Arc<Feed>,
        records: impl IntoIterator<Item = (Option<Mark>, R)>,
    ) {
        let mut records = records.into_iter().peekable();
        if feed.key.shape.decode.asks() && records.peek().is_some_and(|(mark, _)| mark.is_none()) {
            self.waiting.deliver(self, feed, records.map(|(_, record)| record));
        } else {
            self.append(feed, records);
        }
    }

    /// Appends records to a feed's log.
    pub(super) fn append<R: Record>(
        &self,
        feed: &Feed,
        records: impl IntoIterator<Item = (Option<Mark>, R)>,
    ) {
        self.count(&feed.log.append(records), feed);
    }

    /// Takes in a gap of which the upstream itself tells, or that is of one event; it takes readers to `mark`.
    pub(super) fn deliver_gap(&self, feed: &Feed, gap: &Gap, mark: Mark) {
        self.count(&feed.log.append_gap(gap, mark), feed);
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(super) fn own(&self) -> Weak<Self> {
        Weak::clone(&self.own)
    }

    pub(super) fn count(&self, appended: &Appended, feed: &Feed) {
        self.metrics.events_in.inc_by(appended.events);
        self.metrics.conflated.inc_by(appended.replaced);
        self.metrics.sampled_out.inc_by(appended.left_out.sampled);
        self.tell_left_out(feed, &appended.left_out);
        appended.gaps.iter().for_each(|&reason| self.tell_gap(feed, reason));
    }

    fn tell_left_out(&self, feed: &Feed, left_out: &LeftOut) {
        self.metrics.filtered.inc_by(left_out.filtered);
        self.metrics.undecided.inc_by(left_out.undecided);
        let source = feed.key.source.name();
        if let Some(why) = left_out.why
            && let Some(unsaid) = self.said.lock().pass(Of::Filter)
        {
            tracing::warn!(upstream = %self.name, source, why = %why, unsaid, "a filter cannot tell of a record");
        }
        if let Some(why) = left_out.unmade
            && let Some(unsaid) = self.said.lock().pass(Of::Data)
        {
            tracing::warn!(upstream = %self.name, source, why = %why, unsaid, "data cannot be made of a payload");
        }
    }

    /// Counts and logs a gap that was appended to a feed.
    pub(super) fn tell_gap(&self, feed: &Feed, reason: Reason) {
        self.metrics.gap(reason);
        let Some(unsaid) = self.said.lock().pass(Of::Gap(reason)) else { return };
        let source = feed.key.source.name();
        tracing::warn!(upstream = %self.name, source, reason = reason.as_str(), unsaid, "gap in a source");
    }
}

/// Lets one log line a second through for each reason of gaps, for filters and data, and for other troubles, with the number of
/// those that it stands for.
#[derive(Default)]
struct Said(HashMap<Of, (Instant, u64)>);

/// What is told of.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Of {
    Trouble,
    Gap(Reason),
    Filter,
    Data,
}

impl Said {
    fn pass(&mut self, of: Of) -> Option<u64> {
        let now = Instant::now();
        match self.0.entry(of) {
            Entry::Vacant(first) => {
                first.insert((now, 0));
                Some(0)
            }
            Entry::Occupied(mut said) if now.duration_since(said.get().0) < SAID_EVERY => {
                said.get_mut().1 += 1;
                None
            }
            Entry::Occupied(mut said) => Some(said.insert((now, 0)).1),
        }
    }
}

const SAID_EVERY: Duration = Duration::from_secs(1);

/// The causes of late, each with when it was last reported. One that goes on, alone or in turn with others, is no
/// news; one that comes back after a pause is.
#[derive(Default)]
struct Causes(HashMap<String, Instant>);

impl Causes {
    fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        self.0.retain(|_, reported| now.duration_since(*reported) < FORGOTTEN);
        self.0.insert(cause.to_owned(), now).is_none()
    }

    /// It was news and could not be logged: it still is, the next time.
    fn unsay(&mut self, cause: &str) {
        self.0.remove(cause);
    }
}

/// After this long a cause is forgotten: longer than any pause between two attempts.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_goes_on_is_no_news() {
        let (mut causes, now) = (Causes::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(causes.is_news("a", now) && causes.is_news("b", now));
        for seconds in (30..300).step_by(30) {
            assert!(!causes.is_news("a", after(seconds)), "in turn with others");
        }
        assert!(causes.is_news("b", after(300)), "after a pause");
        assert_eq!(causes.0.len(), 2, "what is forgotten takes no room");
        causes.unsay("a");
        assert!(causes.is_news("a", after(301)), "it never reached the log");
    }
}

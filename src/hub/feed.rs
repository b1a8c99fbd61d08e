//! Feeds: what a subscriber opens. Two routes with the same source and shape share one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::binding::Binding;
use super::cursor::{Cursor, Read, Terms, Wish};
use super::id::{Epoch, EpochCodec};
use super::log::{Appended, Log};
use super::position::Position;
use super::quota::Quota;
use super::ring::Bounds;
use super::rows::Rows;
use super::sieve::Withheld;
use crate::config::{Partitioner, Qos, Start};
use crate::shape::{Record, Shape};

/// What a feed reads, path parameters filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A Redis or push channel.
    Channel(Arc<str>),
    /// A Redis pattern.
    Pattern(Arc<str>),
    /// A Redis shard channel.
    ShardChannel(Arc<str>),
    /// A Kafka topic.
    Topic(Arc<str>),
    /// A Kafka topic of which each reader sees one key.
    Keyed(Arc<str>, Partitioner),
    /// A Redis stream.
    Stream(Arc<str>),
    /// The ticker's only source.
    Ticker,
    /// The lines of a file, or of standard input.
    Lines,
    /// Rows of a table.
    Table(Rows),
    /// What is bound to an exchange of RabbitMQ.
    Exchange(Binding),
    /// A path of an HTTP server.
    Path(Arc<str>),
    /// A subject of NATS, wildcards included.
    Subject(Arc<str>),
    /// A stream of NATS's JetStream, and which of its subjects, if not all.
    Jetstream(Arc<str>, Option<Arc<str>>),
    /// A topic filter of MQTT.
    Filter(Arc<str>, Qos),
}

impl Source {
    /// Its name, as operators know it.
    pub fn name(&self) -> &str {
        match self {
            Self::Channel(name)
            | Self::Pattern(name)
            | Self::ShardChannel(name)
            | Self::Topic(name)
            | Self::Stream(name)
            | Self::Path(name)
            | Self::Keyed(name, _)
            | Self::Subject(name)
            | Self::Filter(name, _)
            | Self::Jetstream(_, Some(name))
            | Self::Jetstream(name, None) => name,
            Self::Ticker => "ticker",
            Self::Lines => "lines",
            Self::Table(rows) => rows.name(),
            Self::Exchange(binding) => binding.name(),
        }
    }

    /// The bytes of the longest name in it that the upstream has to take as it is.
    pub fn longest_part(&self) -> usize {
        match self {
            // Those of a table are the configuration's.
            Self::Table(_) => 0,
            Self::Exchange(binding) => binding.exchange.len().max(binding.routing_key.len()),
            other => other.name().len(),
        }
    }

    /// The key that names such a source in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Channel(_) => "channel",
            Self::Pattern(_) => "pattern",
            Self::ShardChannel(_) => "shard_channel",
            Self::Topic(_) | Self::Filter(..) => "topic",
            Self::Keyed(..) => "key",
            Self::Stream(_) => "stream",
            Self::Ticker => "ticker",
            Self::Lines => "lines",
            Self::Table(_) => "table",
            Self::Exchange(_) => "exchange",
            Self::Path(_) => "path",
            Self::Subject(_) => "subject",
            Self::Jetstream(..) => "jetstream",
        }
    }

    /// Whether each reader sees one key of it.
    pub fn is_keyed(&self) -> bool {
        matches!(self, Self::Keyed(..))
    }

    /// Whether the upstream keeps what it gave, so that nothing is lost with a link.
    fn is_kept(&self) -> bool {
        matches!(
            self,
            Self::Topic(_)
                | Self::Keyed(..)
                | Self::Stream(_)
                | Self::Lines
                | Self::Table(_)
                | Self::Jetstream(..)
        )
    }
}

/// What tells feeds apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeedKey {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// What is read from it.
    pub source: Source,
    /// How records become events.
    pub shape: Shape,
}

/// What a subscriber opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opens {
    /// The feed.
    pub feed: FeedKey,
    /// The key of which it sees the records, where the source is keyed.
    pub key: Option<Arc<[u8]>>,
    /// Where one begins that brings no id, if that is not what the terms say.
    pub start: Option<Start>,
    /// What else it reads: the other sources of a list, each of one source alone.
    pub also: Vec<Self>,
}

impl Opens {
    /// The same, begun where the terms say.
    pub fn by_terms(self) -> Self {
        let also = self.also.into_iter().map(Self::by_terms).collect();
        Self { start: None, also, ..self }
    }

    /// What ids of several feeds know it by: what is read, whatever is made of it. It stays what it is, as ids do.
    pub(super) fn label(&self) -> String {
        let FeedKey { upstream, source, .. } = &self.feed;
        let mut label = format!("{upstream}\n{}\n{}", source.kind(), source.name());
        if let Source::Jetstream(stream, Some(_)) = source {
            label.push('\n');
            label.push_str(stream);
        }
        if let Some(key) = &self.key {
            label.push('\n');
            label.push_str(&String::from_utf8_lossy(key));
        }
        label
    }
}

/// How a feed is kept. Where routes share a feed and differ, the more generous holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Room for history and lag.
    pub bounds: Bounds,
    /// How long wakes are gathered.
    pub linger: Duration,
    /// How long the feed outlives its last subscriber.
    pub idle_timeout: Duration,
}

impl Policy {
    /// The more generous of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            bounds: self.bounds.max(other.bounds),
            linger: self.linger.min(other.linger),
            idle_timeout: self.idle_timeout.max(other.idle_timeout),
        }
    }
}

/// One feed and its log.
pub struct Feed {
    /// What it reads.
    pub key: FeedKey,
    /// Where its events are.
    pub log: Arc<Log>,
    epoch: Epoch,
    previous: Option<Epoch>,
    /// What it counts in.
    quota: Option<Arc<Quota>>,
    stay: Mutex<Stay>,
    lost: Mutex<Option<SystemTime>>,
}

/// How long it stays.
#[derive(Debug)]
struct Stay {
    held: bool,
    idle_timeout: Duration,
    idle_since: Option<Instant>,
}

impl Feed {
    pub(super) fn new(
        key: FeedKey,
        policy: &Policy,
        log: Arc<Log>,
        previous: Option<Epoch>,
        quota: Option<&Arc<Quota>>,
    ) -> Arc<Self> {
        let quota = quota.inspect(|quota| quota.add()).cloned();
        let idle_since = Some(Instant::now());
        let stay = Mutex::new(Stay { held: false, idle_timeout: policy.idle_timeout, idle_since });
        Arc::new(Self { key, log, epoch: Epoch::random(), previous, quota, stay, lost: Mutex::new(None) })
    }

    /// For a source without history: its subscription stands as of now. Opens the log the first time; after a
    /// lost link it tells the gap.
    pub fn confirm(&self) -> Appended {
        self.log.open(Arc::new(self.own_ids()), Position::default());
        match self.lost.lock().take() {
            Some(since) => self.log.append_link_lost((since, SystemTime::now())),
            None => Appended::default(),
        }
    }

    /// The same where there was something before, which the log begins with.
    pub fn begin<R: Record>(&self, before: impl IntoIterator<Item = R>) -> Appended {
        self.log.open_after(Arc::new(self.own_ids()), before)
    }

    /// The ids of its log where the upstream gives none.
    pub fn own_ids(&self) -> EpochCodec {
        EpochCodec::new(self.epoch, self.previous)
    }

    /// The link is gone, and was last known to be good at `since`. Where the source has no history, that is told
    /// when the subscription stands again.
    pub fn lose(&self, since: SystemTime) {
        if !self.key.source.is_kept() && self.log.position().is_some() {
            self.lost.lock().get_or_insert(since);
        }
    }

    /// Whether it was lost and is not confirmed again.
    pub fn is_lost(&self) -> bool {
        self.lost.lock().is_some()
    }

    /// Keeps it for good.
    pub(super) fn hold(&self) {
        self.stay.lock().held = true;
    }

    /// Lets it go once nobody has read it for its time.
    pub(super) fn hold_no_more(&self) {
        let mut stay = self.stay.lock();
        if std::mem::take(&mut stay.held) && self.log.readers() == 0 {
            stay.idle_since = Some(Instant::now());
        }
    }

    /// Keeps it by just this policy, whatever was generous before.
    pub(super) fn keep(&self, policy: &Policy) {
        self.log.bound(policy.bounds);
        self.log.wake().gather(policy.linger);
        self.stay.lock().idle_timeout = policy.idle_timeout;
    }

    pub(super) fn widen(&self, policy: &Policy) {
        self.log.widen(policy.bounds);
        self.log.wake().shorten(policy.linger);
        let mut stay = self.stay.lock();
        stay.idle_timeout = stay.idle_timeout.max(policy.idle_timeout);
    }

    /// Tells it from all other feeds, those that had its key before included.
    pub fn number(&self) -> u64 {
        self.epoch.number()
    }

    /// Whether it counts in `quota`.
    pub fn counts_in(&self, quota: &Arc<Quota>) -> bool {
        self.quota.as_ref().is_some_and(|own| Arc::ptr_eq(own, quota))
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// It is kept no more.
    pub(super) fn let_go(&self) {
        self.quota.iter().for_each(|quota| quota.remove());
    }

    /// Since when it has been without subscribers, if it counts in `quota` and could be let go.
    pub(super) fn idle_in(&self, quota: &Arc<Quota>) -> Option<Instant> {
        let counts = self.counts_in(quota);
        let stay = self.stay.lock();
        stay.idle_since.filter(|_| counts && !stay.held && self.log.readers() == 0)
    }

    pub(super) fn join(&self) {
        let mut stay = self.stay.lock();
        if stay.idle_since.take().is_some() {
            self.quota.iter().for_each(|quota| quota.joined());
        }
        self.log.join();
    }

    fn leave(&self) {
        let mut stay = self.stay.lock();
        self.log.leave();
        if self.log.readers() == 0 {
            stay.idle_since = Some(Instant::now());
            self.quota.iter().for_each(|quota| quota.left());
        }
    }

    /// Whether it has been without subscribers for its time.
    pub(super) fn expired(&self, now: Instant) -> bool {
        let stay = self.stay.lock();
        let idle = stay.idle_since.map(|since| now.duration_since(since));
        !stay.held && self.log.readers() == 0 && idle.is_some_and(|idle| idle >= stay.idle_timeout)
    }
}

/// One subscriber of a feed: its cursor, and its count, which ends with it.
pub struct Subscription {
    feed: Arc<Feed>,
    cursor: Cursor,
}

impl Subscription {
    pub(super) fn new(feed: Arc<Feed>, key: Option<Arc<[u8]>>, wish: Wish, terms: Arc<Terms>) -> Self {
        Self { feed, cursor: Cursor::of_key(key, wish, terms) }
    }

    /// Reads on, at most `max` bytes unless a single event is larger.
    pub fn read(&mut self, max: usize) -> Read {
        self.feed.log.read(&mut self.cursor, max)
    }

    /// Whether it reads what only the upstream still holds.
    pub fn replays(&self) -> bool {
        self.cursor.replays()
    }

    /// The number of the log's entry before which it stands, where it does; see [`Cursor::stands`].
    pub fn stands(&self) -> Option<u64> {
        self.cursor.stands()
    }

    /// What the client's filter has withheld since this was asked last.
    pub fn take_withheld(&mut self) -> Option<Withheld> {
        self.cursor.take_withheld()
    }

    /// Whether the last read was so much work for the client's filter that others are to have their turn.
    pub fn is_tired(&self) -> bool {
        self.cursor.is_tired()
    }

    /// Whether it is to be sent away once it has been told that it lagged.
    pub fn leaves(&self) -> bool {
        self.cursor.leaves()
    }

    /// The control event that tells a position which moved on without an event, if that is news.
    pub fn moved_on(&mut self) -> Option<bytes::Bytes> {
        self.feed.log.moved_on(&mut self.cursor)
    }

    /// The feed.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.log.unwatch(&self.cursor);
        self.feed.leave();
    }
}

//! Redis pub/sub. One connection an upstream carries the subscriptions of all its feeds. Redis keeps nothing
//! of what it publishes, so a lost link is a gap.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{Instant, timeout};

use super::link::Link;
use super::{Broken, Upstream};
use crate::config;
use crate::hub::{Feed, Source};
use crate::shape::Record;

/// The most sources named in one SUBSCRIBE, and the most messages appended in one go.
const AT_ONCE: usize = 512;

/// How long a source that Redis refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);

/// A configured Redis server.
pub(super) struct Redis {
    config: config::Redis,
}

/// What this session is subscribed to, or has asked for.
type Table = Mutex<HashMap<Source, Subscribed>>;

/// The sources that Redis refused, and when each is tried again.
type Refused = HashMap<Source, Instant>;

/// The feeds of a source. Before its confirmation has come, a message proves it just as well.
#[derive(Default)]
struct Subscribed {
    feeds: Vec<Arc<Feed>>,
    confirmed: bool,
}

impl Redis {
    pub(super) fn new(config: &config::Redis) -> Arc<Self> {
        Arc::new(Self { config: config.clone() })
    }

    async fn connect(&self) -> Result<(PubSubSink, PubSubStream), Broken> {
        let client = redis::Client::open(self.config.url.expose())
            .map_err(|error| Broken::new("the Redis URL is not usable", error))?;
        let connecting = timeout(self.config.timeout, client.get_async_pubsub());
        let pubsub = connecting
            .await
            .map_err(|_| Broken(format!("connecting to Redis took longer than {:?}", self.config.timeout)))?
            .map_err(|error| Broken::new("connecting to Redis failed", error))?;
        Ok(pubsub.split())
    }

    /// Tries the link now and then, since a peer that vanished says nothing.
    async fn ping(&self, mut sink: PubSubSink, link: &Link) -> Broken {
        loop {
            tokio::time::sleep(self.config.ping_interval).await;
            // Redis answers in order: what it published before this was sent has come in when the answer is here.
            let sent = SystemTime::now();
            match timeout(self.config.timeout, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => link.alive_at(sent),
                Ok(Err(error)) => return Broken::new("the link to Redis was lost", error),
                Err(_) => {
                    return Broken(format!("Redis did not answer a ping within {:?}", self.config.timeout));
                }
            }
        }
    }
}

impl Upstream for Redis {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let (sink, stream) = match self.connect().await {
            Ok(connected) => connected,
            Err(broken) => return broken,
        };
        link.up();
        let table = Table::default();
        tokio::select! {
            broken = follow(sink.clone(), &link, &table) => broken,
            broken = receive(stream, &link, &table) => broken,
            broken = self.ping(sink, &link) => broken,
        }
    }
}

/// Keeps the subscriptions equal to the wanted set.
async fn follow(mut sink: PubSubSink, link: &Link, table: &Table) -> Broken {
    let mut changes = link.wanted().changes();
    let mut refused = Refused::new();
    loop {
        if let Err(error) = adjust(&mut sink, link, table, &mut refused).await {
            return Broken::new("subscribing at Redis failed", error);
        }
        link.settled();
        let next = refused.values().min().copied();
        let again = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return Broken("the wanted set is gone".to_owned());
            },
            () = again => {}
        }
    }
}

/// Makes them equal once. A source that Redis refuses, by an ACL for example, waits alone.
async fn adjust(
    sink: &mut PubSubSink,
    link: &Link,
    table: &Table,
    refused: &mut Refused,
) -> redis::RedisResult<()> {
    let (leave, mut enter) = compare(link, table);
    let now = Instant::now();
    refused.retain(|source, _| enter.contains(source));
    enter.retain(|source| refused.get(source).is_none_or(|again| *again <= now));
    for (channels, patterns) in batches(&leave) {
        if !channels.is_empty() {
            sink.unsubscribe(channels).await?;
        }
        if !patterns.is_empty() {
            sink.punsubscribe(patterns).await?;
        }
    }
    for sources in enter.chunks(AT_ONCE) {
        if subscribe(sink, sources).await?.is_ok() {
            refused.retain(|source, _| !sources.contains(source));
            confirm(sources, link, table);
            continue;
        }
        for source in sources {
            match subscribe(sink, std::slice::from_ref(source)).await? {
                Ok(()) => {
                    refused.remove(source);
                    confirm(std::slice::from_ref(source), link, table);
                }
                Err(error) => {
                    // Said once, not at each attempt.
                    if refused.insert(source.clone(), Instant::now() + REFUSED).is_none() {
                        link.trouble(&format!("subscribing to {} was refused: {error}", source.name()));
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is subscribed to and no longer wanted, and what is wanted and not subscribed to. Feeds that join a source
/// which is subscribed to are confirmed at once.
fn compare(link: &Link, table: &Table) -> (Vec<Source>, Vec<Source>) {
    let wanted = link.wanted().snapshot();
    let (mut leave, mut enter) = (Vec::new(), Vec::new());
    let mut table = table.lock();
    table.retain(|source, _| {
        let stays = wanted.contains_key(source);
        if !stays {
            leave.push(source.clone());
        }
        stays
    });
    for (source, feeds) in wanted {
        let subscribed = table.entry(source.clone()).or_default();
        if subscribed.confirmed {
            feeds.iter().for_each(|feed| link.confirm(feed));
        } else {
            enter.push(source);
        }
        subscribed.feeds = feeds;
    }
    (leave, enter)
}

/// Subscribes to all of `sources`. The outer error is the link's, the inner one Redis's own no.
async fn subscribe(sink: &mut PubSubSink, sources: &[Source]) -> redis::RedisResult<redis::RedisResult<()>> {
    for (channels, patterns) in batches(sources) {
        let mut answers = Vec::new();
        if !channels.is_empty() {
            answers.push(sink.subscribe(channels).await);
        }
        if !patterns.is_empty() {
            answers.push(sink.psubscribe(patterns).await);
        }
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            return if error.is_unrecoverable_error() { Err(error) } else { Ok(Err(error)) };
        }
    }
    Ok(Ok(()))
}

fn confirm(sources: &[Source], link: &Link, table: &Table) {
    let mut table = table.lock();
    for source in sources {
        if let Some(subscribed) = table.get_mut(source) {
            subscribed.confirm(link);
        }
    }
}

/// Sources as SUBSCRIBE and PSUBSCRIBE take them, not too many at a time.
fn batches(sources: &[Source]) -> impl Iterator<Item = (Vec<&str>, Vec<&str>)> {
    sources.chunks(AT_ONCE).map(|sources| {
        let (patterns, channels): (Vec<_>, Vec<_>) =
            sources.iter().partition(|source| matches!(source, Source::Pattern(_)));
        (names(channels), names(patterns))
    })
}

fn names(sources: Vec<&Source>) -> Vec<&str> {
    sources.into_iter().map(Source::name).collect()
}

impl Subscribed {
    fn confirm(&mut self, link: &Link) {
        if !self.confirmed {
            self.confirmed = true;
            self.feeds.iter().for_each(|feed| link.confirm(feed));
        }
    }
}

/// Appends what comes in, as many at a time as are there.
async fn receive(mut stream: PubSubStream, link: &Link, table: &Table) -> Broken {
    while let Some(message) = stream.next().await {
        let mut messages = vec![message];
        while messages.len() < AT_ONCE
            && let Some(Some(message)) = stream.next().now_or_never()
        {
            messages.push(message);
        }
        let mut table = table.lock();
        for run in messages.chunk_by(|a, b| source(a) == source(b)) {
            let Some(subscribed) = table.get_mut(&source(&run[0])) else { continue };
            subscribed.confirm(link);
            for feed in &subscribed.feeds {
                link.deliver(feed, run.iter().map(|message| (None, Message(message))));
            }
        }
    }
    Broken("Redis closed the link".to_owned())
}

fn source(message: &Msg) -> Source {
    if message.from_pattern() {
        Source::Pattern(message.get_pattern::<String>().unwrap_or_default().into())
    } else {
        Source::Channel(message.get_channel_name().into())
    }
}

struct Message<'a>(&'a Msg);

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.0.get_payload_bytes())
    }

    fn name(&self) -> &str {
        self.0.get_channel_name()
    }
}

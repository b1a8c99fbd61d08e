//! Streams of RabbitMQ: a source with history, whose positions are offsets. Each stream that is wanted is read on channels of
//! its own, since RabbitMQ closes one on which it says no; nothing is lost with a link, since each log says where to read on.
//!
//! Reading order: `id`, `place`; then `reader`; and `asker`, `history`.

mod asker;
mod history;
mod id;
mod place;
mod reader;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

use self::asker::Askers;
use self::history::StreamReader;
pub use self::id::OffsetCodec;
use self::reader::Reading;
use super::connection::{Connection, Dialer};
use crate::history::Pool;
use crate::hub::{Feeds, Source};
use crate::upstream::link::Link;
use crate::upstream::{Broken, Histories};

/// The streams of one upstream, through all sessions.
pub(super) struct Streams {
    askers: Arc<Askers>,
    pool: Arc<Pool<StreamReader>>,
    facts: Mutex<HashMap<Arc<str>, Arc<Facts>>>,
    settled: Notify,
}

/// What outlives a session of a stream.
#[derive(Default)]
struct Facts {
    /// How often it was seen to begin anew.
    count: AtomicU32,
    /// Whether it was gone, so that what comes by its name is another one.
    gone: AtomicBool,
}

impl Streams {
    pub(super) fn new(link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let (own, memory) = (Arc::clone(link), Arc::clone(&histories.memory));
        let trouble = move |cause: &str| own.trouble(cause);
        Arc::new(Self {
            askers: Arc::default(),
            pool: Pool::new(histories.concurrency, memory, link.history_metrics(), trouble),
            facts: Mutex::default(),
            settled: Notify::new(),
        })
    }

    /// Serves those who read history; never ends.
    pub(super) async fn serve_history(&self) {
        Arc::clone(&self.pool).run().await;
    }

    /// Ends once what was wanted at first is read, or refused.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// Reads all streams that are wanted until the link ends.
    pub(super) async fn session(
        self: &Arc<Self>,
        dialer: &Dialer,
        connection: &Arc<Connection>,
        every: Duration,
        link: &Arc<Link>,
    ) -> Broken {
        self.askers.ask_at(dialer);
        let (mut read, mut tasks) = (HashMap::<Arc<str>, AbortHandle>::new(), JoinSet::new());
        let mut changes = link.changes().and_now();
        // One permit for each task that has begun, and how many of those are waited for that were wanted at first.
        let (begun, mut first) = (Arc::new(Semaphore::new(0)), None);
        loop {
            tokio::select! {
                changed = changes.next() => if let Err(gone) = changed { return gone },
                _ = begun.acquire_many(first.unwrap_or_default()), if first.is_some_and(|first| first > 0) => {
                    first = Some(0);
                    self.settled.notify_one();
                    continue;
                }
                Some(ended) = tasks.join_next() => match ended {
                    Ok(broken) => return broken,
                    // It was not wanted any more.
                    Err(ended) if ended.is_cancelled() => continue,
                    Err(panic) => return Broken::new("a defect in ssegate", panic),
                },
            }
            let wanted = changes.look(|| link.wanted().with(streams));
            read.extract_if(|stream, _| !wanted.contains(stream)).for_each(|(_, task)| task.abort());
            for stream in wanted {
                if read.contains_key(&stream) {
                    continue;
                }
                let reading = Reading {
                    streams: Arc::clone(self),
                    facts: Arc::clone(self.facts.lock().entry(Arc::clone(&stream)).or_default()),
                    stream: Arc::clone(&stream),
                    connection: Arc::clone(connection),
                    dialer: dialer.clone(),
                    link: Arc::clone(link),
                    changes: link.changes(),
                    every,
                };
                read.insert(stream, tasks.spawn(reading.run(Arc::clone(&begun))));
            }
            if first.is_none() {
                first = Some(read.len() as u32);
                if read.is_empty() {
                    self.settled.notify_one();
                }
            }
        }
    }
}

/// The streams that feeds read.
fn streams(feeds: &Feeds) -> HashSet<Arc<str>> {
    let stream = |source: &Source| match source {
        Source::Stream(name) => Some(Arc::clone(name)),
        _ => None,
    };
    feeds.keys().filter_map(stream).collect()
}

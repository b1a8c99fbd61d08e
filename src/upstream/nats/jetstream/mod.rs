//! Streams of JetStream: a source with history, whose ids are sequence numbers. Each stream that is wanted, and each part
//! of one, is read by a consumer that is made for it and gone soon after; no name is left behind. Nothing is lost with a
//! link: each log says where to read on.
//!
//! Reading order: `id`; `api`, `consumer`; then `history`, `fill`, `live`.

mod api;
mod consumer;
mod fill;
mod history;
mod id;
mod live;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::history::StreamReader;
use self::id::Incarnation;
pub use self::id::StreamCodec;
use self::live::Reading;
use super::line::Line;
use crate::history::Pool;
use crate::hub::{Feed, Source};
use crate::upstream::doubt::Doubt;
use crate::upstream::link::Link;
use crate::upstream::{Broken, Histories};

/// A stream, and which of its subjects, if not all.
type Part = (Arc<str>, Option<Arc<str>>);

/// The line of the session there is, if there is one.
type Lines = Arc<Mutex<Option<Arc<Line>>>>;

/// The incarnation of a stream that the logs of one part have read.
type Facts = Arc<Mutex<Option<Incarnation>>>;

/// The streams of one upstream, through all sessions.
pub(super) struct Streams {
    pool: Arc<Pool<StreamReader>>,
    lines: Lines,
    facts: Mutex<HashMap<Part, Facts>>,
}

impl Streams {
    pub(super) fn new(link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        Arc::new(Self { pool: histories.pool(link), lines: Arc::default(), facts: Mutex::default() })
    }

    /// Serves those who read history; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        Arc::clone(&self.pool).run().await;
    }

    /// Reads by this line from now on, until the result is dropped.
    pub(super) fn open(self: &Arc<Self>, line: &Arc<Line>, link: &Arc<Link>, wait: Duration) -> Open {
        *self.lines.lock() = Some(Arc::clone(line));
        Open {
            streams: Arc::clone(self),
            link: Arc::clone(link),
            line: Arc::clone(line),
            wait: wait.min(LONGEST_WAIT),
            progress: Arc::default(),
            subscribed: AtomicBool::new(false),
        }
    }
}

/// The streams of one session.
pub(super) struct Open {
    streams: Arc<Streams>,
    link: Arc<Link>,
    line: Arc<Line>,
    wait: Duration,
    progress: Arc<Notify>,
    /// Whether the subjects of NATS proper have been subscribed to.
    subscribed: AtomicBool,
}

/// The reading of one part.
struct Running {
    feeds: watch::Sender<Vec<Arc<Feed>>>,
    tried: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Open {
    /// The subjects of NATS proper have been subscribed to, or refused.
    pub fn subscribed(&self) {
        self.subscribed.store(true, Ordering::Relaxed);
        self.progress.notify_one();
    }

    /// Reads what is wanted, while that changes.
    pub async fn follow(&self) -> Broken {
        let (mut running, mut tasks) = (HashMap::<Part, Running>::new(), JoinSet::new());
        let mut changes = self.link.changes().and_now();
        loop {
            tokio::select! {
                changed = changes.next() => match changed {
                    Ok(()) => changes.look(|| self.assign(&mut running, &mut tasks)),
                    Err(gone) => return gone,
                },
                () = self.progress.notified() => {}
                Some(Err(ended)) = tasks.join_next() => {
                    if ended.is_panic() {
                        return Broken::new("a defect in ssegate", ended);
                    }
                    continue;
                }
            }
            let tried = running.values().all(|running| running.tried.load(Ordering::Relaxed));
            if tried && self.subscribed.load(Ordering::Relaxed) {
                self.link.settled();
            }
        }
    }

    fn assign(&self, running: &mut HashMap<Part, Running>, tasks: &mut JoinSet<()>) {
        let mut wanted = HashMap::<Part, Vec<Arc<Feed>>>::new();
        self.link.wanted().with(|feeds| {
            for (source, feeds) in feeds {
                if let Source::Jetstream(stream, subject) = source {
                    wanted.insert((Arc::clone(stream), subject.clone()), feeds.clone());
                }
            }
        });
        for (_, left) in running.extract_if(|part, _| !wanted.contains_key(part)) {
            left.task.abort();
        }
        self.streams.facts.lock().retain(|part, _| wanted.contains_key(part));
        for (part, feeds) in wanted {
            if let Some(running) = running.get(&part) {
                running.feeds.send_if_modified(|own| {
                    let same = own.len() == feeds.len()
                        && own.iter().zip(&feeds).all(|(own, feed)| Arc::ptr_eq(own, feed));
                    *own = feeds;
                    !same
                });
                continue;
            }
            let (sender, feeds) = watch::channel(feeds);
            let tried = Arc::<AtomicBool>::default();
            let facts = Arc::clone(self.streams.facts.lock().entry(part.clone()).or_default());
            let reading = Reading {
                streams: Arc::clone(&self.streams),
                link: Arc::clone(&self.link),
                line: Arc::clone(&self.line),
                stream: Arc::clone(&part.0),
                subject: part.1.clone(),
                feeds,
                facts,
                wait: self.wait,
                tried: (Arc::clone(&tried), Arc::clone(&self.progress)),
                doubt: Doubt::default(),
                trouble: None,
            };
            self.link.tells_lag();
            let task = tasks.spawn(reading.run());
            running.insert(part, Running { feeds: sender, tried, task });
        }
    }
}

/// Well below the time after which a consumer is gone that nobody asks.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

impl Drop for Open {
    fn drop(&mut self) {
        *self.streams.lines.lock() = None;
        self.line.end();
    }
}

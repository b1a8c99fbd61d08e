//! Streams of RabbitMQ: a source with history, whose positions are offsets. Each stream that is wanted is read on channels of
//! its own, since RabbitMQ closes one on which it says no; nothing is lost with a link, since each log says where to read on.
//!
//! Reading order: `id`, `prefetch`, `place`, `look`; then `reader`; and `asker`, `history`.

mod asker;
mod history;
mod id;
mod look;
mod place;
mod prefetch;
mod reader;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use self::asker::Askers;
use self::history::StreamReader;
pub use self::id::OffsetCodec;
use self::reader::Reading;
use super::connection::{Connection, Dialer};
use crate::history::Pool;
use crate::hub::{Feeds, Source};
use crate::upstream::begun::Begun;
use crate::upstream::doubt::Doubt;
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
    /// Whether it is another one, since it ends before what has been read of it.
    doubt: Mutex<Doubt>,
}

impl Streams {
    pub(super) fn new(link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        Arc::new(Self {
            askers: Arc::default(),
            pool: histories.pool(link),
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
        let (mut changes, mut begun) = (link.changes().and_now(), Begun::new());
        loop {
            tokio::select! {
                changed = changes.next() => if let Err(gone) = changed { return gone },
                () = begun.all() => {
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
            self.forget(&wanted);
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
                read.insert(stream, tasks.spawn(reading.run(begun.begins())));
            }
            begun.are(read.len());
        }
    }

    /// Forgets the streams that nobody reads, but for some of those that were made anew: their ids say how often, and who was
    /// away for a while is to come back with one.
    fn forget(&self, wanted: &HashSet<Arc<str>>) {
        let (mut facts, mut room) = (self.facts.lock(), REMEMBERED);
        facts.retain(|stream, facts| {
            let is_kept = wanted.contains(stream) || (facts.is_anew() && room > 0);
            room -= usize::from(is_kept && !wanted.contains(stream));
            is_kept
        });
    }
}

impl Facts {
    fn is_anew(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }
}

/// Streams that nobody reads and that were made anew, of which that is remembered.
const REMEMBERED: usize = 1_000;

/// The streams that feeds read.
fn streams(feeds: &Feeds) -> HashSet<Arc<str>> {
    let stream = |source: &Source| match source {
        Source::Stream(name) => Some(Arc::clone(name)),
        _ => None,
    };
    feeds.keys().filter_map(stream).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, Memory};
    use crate::metrics::Metrics;

    #[test]
    fn streams_that_nobody_reads_are_forgotten() {
        let hub = Hub::new([Arc::from("u")], Memory::new(usize::MAX));
        let link = Link::new("u".into(), hub.wanted("u").unwrap(), Metrics::new().upstream("u"));
        let streams = Streams::new(&link, &Histories { memory: Memory::new(usize::MAX), concurrency: 1 });
        let names = (0..2 * REMEMBERED).map(|n| Arc::from(n.to_string()));
        streams.facts.lock().extend(names.map(|name: Arc<str>| (name, Arc::<Facts>::default())));
        let read = Arc::<str>::from("7");
        streams.forget(&HashSet::from([Arc::clone(&read)]));
        assert!(streams.facts.lock().keys().eq([&read]));
        for n in 0..2 * REMEMBERED {
            let facts = Arc::new(Facts { count: AtomicU32::new(1), ..Facts::default() });
            streams.facts.lock().insert(n.to_string().into(), facts);
        }
        streams.forget(&HashSet::new());
        assert_eq!(streams.facts.lock().len(), REMEMBERED, "some of those that were made anew");
    }
}

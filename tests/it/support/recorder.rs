//! An `EventSource` that runs by itself: reads, is cut at random places, waits `retry`, reconnects,
//! and writes down everything in order. For tests in which many clients live through trouble.
//!
//! It follows WHATWG HTML 9.2.3: the network failing or the stream ending means another try, any
//! answer that is not an event stream means giving up for good.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::eventsource::{End, Event, EventSource, Options};
use super::wait::DEADLINE;

/// When the client's connection is cut, and how long it waits before it reconnects.
#[derive(Clone)]
pub struct Habits {
    /// Cut each connection after so many bytes of its body, drawn at random; `None` never cuts.
    pub cut_after: Option<Range<u64>>,
    /// Where the random numbers come from: same seed, same cuts.
    pub seed: u64,
    /// Wait at most this long before reconnecting, whatever `retry` says, so that tests end.
    pub longest_retry: Duration,
}

impl Habits {
    /// Never cut by itself; reconnects 20 ms after an end.
    pub fn steady() -> Self {
        Self { cut_after: None, seed: 0, longest_retry: Duration::from_millis(20) }
    }

    /// Cut after a random number of bytes out of `bytes`, again and again.
    pub fn cut(bytes: Range<u64>, seed: u64) -> Self {
        Self { cut_after: Some(bytes), seed, ..Self::steady() }
    }
}

/// One entry of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A stream opened; the id that was sent with the request, or "".
    Opened(String),
    /// An event.
    Event(Event),
    /// The stream ended; another try follows.
    Ended(End),
    /// The connection could not be made; another try follows.
    Refused(String),
    /// An answer that makes `EventSource` give up.
    Failed(u16),
}

/// The running client. Dropping it ends it.
pub struct Recorder {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    url: String,
    seen: Mutex<Vec<Seen>>,
    /// The record's length, to wait on.
    progress: watch::Sender<usize>,
    cutting: watch::Sender<bool>,
}

impl Recorder {
    /// Starts a client on the current runtime.
    pub fn start(url: impl Into<String>, options: Options, habits: Habits) -> Self {
        let shared = Arc::new(Shared {
            url: url.into(),
            seen: Mutex::default(),
            progress: watch::Sender::new(0),
            cutting: watch::Sender::new(true),
        });
        let task = tokio::spawn(live(shared.clone(), options, habits));
        Self { shared, task }
    }

    /// A copy of the record.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        let event = |seen: &Seen| if let Seen::Event(event) = seen { Some(event.clone()) } else { None };
        self.shared.seen.lock().unwrap().iter().filter_map(event).collect()
    }

    /// All events so far that are not control events.
    pub fn messages(&self) -> Vec<Event> {
        self.events().into_iter().filter(|event| !event.event.starts_with("stream.")).collect()
    }

    /// The data of all `stream.gap` events so far.
    pub fn gaps(&self) -> Vec<serde_json::Value> {
        let gaps = self.events().into_iter().filter(|event| event.event == "stream.gap");
        gaps.map(|gap| serde_json::from_str(&gap.data).expect("a gap is JSON")).collect()
    }

    /// How many streams were opened so far.
    pub fn opened(&self) -> usize {
        self.count(|seen| matches!(seen, Seen::Opened(_)))
    }

    /// How many streams ended so far.
    pub fn ended(&self) -> usize {
        self.count(|seen| matches!(seen, Seen::Ended(_)))
    }

    /// Waits until it is told where it begins.
    pub async fn until_begun(&self) {
        let is_position =
            |seen: &Seen| matches!(seen, Seen::Event(event) if event.event == "stream.position");
        self.wait_for("a position", |seen| seen.iter().any(is_position)).await;
    }

    /// Waits until the record satisfies `enough`, and panics where that takes [`DEADLINE`] without
    /// anything new being recorded.
    pub async fn wait_for(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        loop {
            progress.borrow_and_update();
            if enough(&self.shared.seen.lock().unwrap()) {
                return;
            }
            if timeout_at(Instant::now() + DEADLINE, progress.changed()).await.is_err() {
                panic!("{}: nothing new while waiting for {what}; {}", self.shared.url, self.summary());
            }
        }
    }

    /// Waits until `count` messages (not control events) have come in all.
    pub async fn wait_messages(&self, count: usize) {
        let is_message = |seen: &&Seen| matches!(seen, Seen::Event(e) if !e.event.starts_with("stream."));
        let what = format!("{count} messages");
        self.wait_for(&what, |seen| seen.iter().filter(is_message).count() >= count).await;
    }

    /// Waits until `count` streams have been opened in all.
    pub async fn wait_opened(&self, count: usize) {
        let is_opened = |seen: &&Seen| matches!(seen, Seen::Opened(_));
        let what = format!("{count} opened streams");
        self.wait_for(&what, |seen| seen.iter().filter(is_opened).count() >= count).await;
    }

    /// From the next connection on, no more cuts.
    pub fn stop_cutting(&self) {
        self.shared.cutting.send_replace(false);
    }

    /// Ends the client and returns the record.
    pub async fn stop(mut self) -> Vec<Seen> {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.seen()
    }

    fn count(&self, wanted: impl Fn(&Seen) -> bool) -> usize {
        self.shared.seen.lock().unwrap().iter().filter(|seen| wanted(seen)).count()
    }

    fn summary(&self) -> String {
        let seen = self.shared.seen.lock().unwrap();
        let last: Vec<String> =
            seen.iter().rev().take(10).rev().map(|seen| format!("  {seen:.300?}")).collect();
        format!("{} entries, the last are\n{}", seen.len(), last.join("\n"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn note(&self, seen: Seen) {
        let mut all = self.seen.lock().unwrap();
        all.push(seen);
        self.progress.send_replace(all.len());
    }
}

async fn live(shared: Arc<Shared>, options: Options, habits: Habits) {
    let mut random = StdRng::seed_from_u64(habits.seed);
    let mut source = EventSource::new(&shared.url, options);
    loop {
        let id = source.last_event_id().to_owned();
        match source.try_open().await {
            Ok(()) if !source.is_streaming() => return shared.note(Seen::Failed(source.status().as_u16())),
            Ok(()) => {
                shared.note(Seen::Opened(id));
                if let (Some(range), true) = (&habits.cut_after, *shared.cutting.borrow()) {
                    source.cut_after(random.random_range(range.clone()));
                }
                read(&shared, &mut source).await;
            }
            Err(error) => shared.note(Seen::Refused(error.to_string())),
        }
        sleep(source.retry().unwrap_or(Duration::MAX).min(habits.longest_retry)).await;
    }
}

/// Reads one stream to its end.
async fn read(shared: &Shared, source: &mut EventSource) {
    while let Some(event) = source.try_next().await {
        shared.note(Seen::Event(event));
    }
    shared.note(Seen::Ended(source.end().expect("a stream that gives no more events has ended").clone()));
}

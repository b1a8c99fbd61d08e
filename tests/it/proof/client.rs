//! A recording client: an `EventSource` that is cut, leaves, stays away, comes back to the same replica or to another,
//! and writes down everything. The client of a proof.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::verdict::{Entry, Seen};
use crate::support::eventsource::{Event, EventSource, Options};
use crate::support::wait::within;

/// The running client. Dropping it ends it.
pub struct Client {
    record: Arc<Record>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Record {
    entries: Mutex<Vec<Entry>>,
    /// Whether a stream is open and has told where it is.
    reading: watch::Sender<bool>,
}

/// What a client is like.
pub struct Habits {
    /// The first part of its URLs, one for each replica.
    pub replicas: Vec<String>,
    /// The path it reads.
    pub path: String,
    /// How it connects.
    pub options: Options,
    /// Where its random numbers come from.
    pub seed: u64,
    /// Whether it may leave and be cut; once false, it stays where it is.
    pub restless: watch::Receiver<bool>,
}

impl Client {
    /// Starts on the current runtime.
    pub fn start(habits: Habits) -> Self {
        let record = Arc::<Record>::default();
        let task = tokio::spawn(live(Arc::clone(&record), habits));
        Self { record, task }
    }

    /// Waits until it has an open stream, of which it knows the position.
    pub async fn until_reading(&self) {
        let mut reading = self.record.reading.subscribe();
        let told = within("a client to read", reading.wait_for(|reading| *reading)).await;
        told.expect("the record lives as long as the client");
    }

    /// Looks at the record.
    pub fn with_record<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.record.entries.lock().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Microseconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

impl Record {
    fn note(&self, seen: Seen) {
        match seen {
            // Of several sources events may come first, whose ids tell it as well.
            Seen::Position | Seen::Event(_) => self.reading.send_replace(true),
            Seen::Ended(_) => self.reading.send_replace(false),
            _ => false,
        };
        self.entries.lock().unwrap().push(Entry { at: now(), seen });
    }
}

async fn live(record: Arc<Record>, mut habits: Habits) {
    let mut random = StdRng::seed_from_u64(habits.seed);
    let mut replica = random.random_range(0..habits.replicas.len());
    let mut source = EventSource::new("", habits.options.clone());
    loop {
        source.move_to(format!("{}{}", habits.replicas[replica], habits.path));
        let id = source.last_event_id().into();
        match source.try_open().await {
            Ok(()) if !source.is_streaming() => return record.note(Seen::Refused(source.status().as_u16())),
            Ok(()) => {
                record.note(Seen::Opened(replica, id));
                read(&record, &mut source, &mut habits.restless, &mut random).await;
                record.note(Seen::Ended(format!("{:?}", source.end()).into()));
            }
            Err(error) => record.note(Seen::Ended(error.to_string().into())),
        }
        let restless = *habits.restless.borrow();
        sleep(if restless { away(&mut random) } else { SOON }).await;
        if restless && random.random_bool(0.5) {
            replica = (replica + 1) % habits.replicas.len();
        }
    }
}

/// Reads one stream until it ends, or until it is time to leave.
async fn read(
    record: &Record,
    source: &mut EventSource,
    restless: &mut watch::Receiver<bool>,
    random: &mut StdRng,
) {
    let leave = Instant::now() + Duration::from_millis(random.random_range(500..5_000));
    let resets = random.random_bool(0.5);
    if *restless.borrow_and_update() && random.random_bool(0.3) {
        source.cut_after(random.random_range(200..100_000));
    }
    loop {
        tokio::select! {
            biased;
            Ok(()) = restless.changed() => source.cut_after(u64::MAX),
            () = sleep_until(leave), if *restless.borrow() && source.end().is_none() => {
                if resets { source.cut() } else { source.close() }
            }
            event = source.try_next() => match event {
                Some(event) => record.note(seen(&event)),
                None => return,
            },
        }
        source.forget();
    }
}

fn seen(event: &Event) -> Seen {
    match event.event.as_str() {
        "stream.position" => Seen::Position,
        "stream.gap" => Seen::Gap(serde_json::from_str(&event.data).expect("a gap is JSON")),
        // What is no number was published by nobody.
        _ => Seen::Event(event.data.parse().unwrap_or(u64::MAX)),
    }
}

/// Mostly a moment, at times so long that memory no longer holds what comes meanwhile.
fn away(random: &mut StdRng) -> Duration {
    let most = [50, 50, 50, 500, 500, 3_000][random.random_range(0..6)];
    Duration::from_millis(random.random_range(10..=most))
}

const SOON: Duration = Duration::from_millis(20);

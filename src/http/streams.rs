//! The registry of open streams, and what ends one from outside: drain, and a client that stopped reading.
//! A stream is polled only when its socket can take more, so none of this can live in the stream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::router::Route;
use super::supervise::Slot;
use super::turns::Turns;
use crate::hub::Memory;

/// Every open stream.
pub struct Streams {
    open: Mutex<HashMap<u64, Arc<Control>>>,
    count: watch::Sender<usize>,
    write_stall: Duration,
    epoch: Instant,
    next: AtomicU64,
    draining: AtomicBool,
    /// Who reads on of those that are behind what memory holds.
    pub turns: Turns,
    /// Who reads on of those that read what only the upstream still holds.
    pub replay_turns: Turns,
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The client went away.
    Client = 1,
    /// The process is going away.
    Drain,
    /// The client fell behind, and the route says `on_lag: disconnect`.
    Lagged,
    /// The client took nothing for `limits.write_stall`.
    Stalled,
    /// Someone asked for it.
    Asked,
}

impl End {
    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Drain => "drain",
            Self::Lagged => "lagged",
            Self::Stalled => "stalled",
            Self::Asked => "asked",
        }
    }

    fn from_u8(value: u8) -> Option<Self> {
        let all = [Self::Client, Self::Drain, Self::Lagged, Self::Stalled, Self::Asked];
        all.into_iter().find(|end| *end as u8 == value)
    }
}

/// What is known of one stream outside its body.
pub struct Control {
    /// Its route.
    pub route: Arc<Route>,
    /// The client's address.
    pub client: SocketAddr,
    /// When it was opened.
    pub opened: Instant,
    /// Events handed over.
    pub events: AtomicU64,
    /// Bytes handed over.
    pub bytes: AtomicU64,
    /// Milliseconds, counted by [`Streams`], at which bytes were handed over that the client's connection has
    /// not asked to follow up yet; 0 while the body waits for events.
    handed: AtomicU64,
    ending: AtomicU8,
    task: Arc<Slot>,
}

impl Control {
    /// Why the stream is to end, if it is. Its task is woken when that changes.
    pub fn ending(&self) -> Option<End> {
        End::from_u8(self.ending.load(Ordering::Acquire))
    }

    /// The stream is to end; the first reason counts.
    pub fn end(&self, why: End) {
        let _ = self.ending.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.task.wake();
    }

    /// The stream ends now, without a word: its task is dropped, which on HTTP/2 resets this stream alone.
    fn kill(&self, why: End) {
        let _ = self.ending.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.task.kill();
    }

    /// The body has nothing to send.
    pub fn waiting(&self) {
        self.handed.store(0, Ordering::Relaxed);
    }
}

impl Streams {
    /// No stream yet. A client that takes nothing for `write_stall` will be ended.
    pub fn new(write_stall: Duration) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            count: watch::Sender::new(0),
            write_stall,
            epoch: Instant::now(),
            next: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            turns: Turns::on_all_cores(),
            replay_turns: Turns::on_half_the_cores(),
        })
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether new streams are to be sent away.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Registers a stream that the task of `task` serves.
    pub fn open(self: &Arc<Self>, route: &Arc<Route>, client: SocketAddr, task: Arc<Slot>) -> Registered {
        let control = Arc::new(Control {
            route: Arc::clone(route),
            client,
            opened: Instant::now(),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            ending: AtomicU8::new(0),
            task,
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.insert(id, Arc::clone(&control));
        self.count.send_replace(open.len());
        route.metrics.subscribers.inc();
        Registered { control, id, streams: Arc::clone(self) }
    }

    /// Ends, for as long as it runs, the streams of clients that take nothing. While logs and what such clients hold
    /// of them are over `memory`, these have little time.
    pub async fn supervise(&self, memory: &Memory) {
        let mut ticks =
            tokio::time::interval((self.write_stall / 8).clamp(Duration::from_millis(50), MAX_TICK));
        loop {
            ticks.tick().await;
            let now = self.millis(Instant::now());
            let pressed = memory.used() > memory.limit();
            let limit = if pressed { self.write_stall.min(PRESSED) } else { self.write_stall };
            let limit = limit.as_millis() as u64;
            let stalled = |control: &&Arc<Control>| {
                let handed = control.handed.load(Ordering::Relaxed);
                handed != 0 && now.saturating_sub(handed) > limit
            };
            self.open.lock().values().filter(stalled).for_each(|control| control.kill(End::Stalled));
        }
    }

    /// Cuts the streams that `which` chooses, without a word. Returns how many there were.
    pub fn cut(&self, which: impl Fn(&Control) -> bool) -> usize {
        let open = self.open.lock();
        open.values().filter(|control| which(control)).inspect(|control| control.kill(End::Asked)).count()
    }

    /// From now on new streams are sent away.
    pub fn refuse_new(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends every stream at a random moment within `window`, and those that have not ended a little later.
    /// Returns when none is left, with the number of those that had to be cut.
    pub async fn drain(&self, window: Duration) -> usize {
        let began = Instant::now();
        let mut due: Vec<_> = self
            .open
            .lock()
            .values()
            .map(|control| (began + window.mul_f64(rand::random_range(0.0..1.0)), Arc::clone(control)))
            .collect();
        due.sort_unstable_by_key(|(at, _)| *at);
        for (at, control) in due {
            tokio::time::sleep_until(at).await;
            control.end(End::Drain);
        }
        // Those that slipped in while the flag was being set.
        self.open.lock().values().for_each(|control| control.end(End::Drain));
        if tokio::time::timeout(GRACE, self.none_left()).await.is_ok() {
            return 0;
        }
        let left: Vec<_> = self.open.lock().values().cloned().collect();
        left.iter().for_each(|control| control.kill(End::Drain));
        let _ = tokio::time::timeout(GRACE, self.none_left()).await;
        left.len()
    }

    async fn none_left(&self) {
        let _ = self.count.subscribe().wait_for(|&count| count == 0).await;
    }

    fn millis(&self, now: Instant) -> u64 {
        // Never 0, which means waiting.
        now.duration_since(self.epoch).as_millis() as u64 + 1
    }
}

/// A stream's entry in the registry, which ends with it.
pub struct Registered {
    /// What is known of it.
    pub control: Arc<Control>,
    id: u64,
    streams: Arc<Streams>,
}

impl Registered {
    /// The registry.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Bytes were handed over, and so many were put in their place before they were coded; until the body is polled
    /// again the client is slow, or gone.
    pub fn handed(&self, bytes: usize, plain: usize, now: Instant) {
        self.control.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.control.route.metrics.bytes_out.inc_by(bytes as u64);
        self.control.route.metrics.plain_out.inc_by(plain as u64);
        self.control.handed.store(self.streams.millis(now), Ordering::Relaxed);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        open.remove(&self.id);
        self.streams.count.send_replace(open.len());
        drop(open);
        let control = &self.control;
        let why = End::from_u8(control.ending.load(Ordering::Acquire)).unwrap_or(End::Client).as_str();
        control.route.metrics.subscribers.dec();
        control.route.metrics.ended(why);
        tracing::info!(
            route = control.route.name,
            client = %control.client.ip(),
            seconds = control.opened.elapsed().as_millis() as f64 / 1000.0,
            events = control.events.load(Ordering::Relaxed),
            bytes = control.bytes.load(Ordering::Relaxed),
            why,
            "stream ended"
        );
    }
}

/// How long a client may take nothing while memory is short.
const PRESSED: Duration = Duration::from_secs(1);

/// The longest time between two looks for stalled streams.
const MAX_TICK: Duration = Duration::from_secs(1);

/// How long a stream may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(1);

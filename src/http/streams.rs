//! The registry of open streams, and what ends one from outside: drain, and a client that stopped reading.
//! A stream is polled only when its socket can take more, so none of this can live in the stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::Client;
use super::lease::{Deadlines, Lease};
use super::limits::Place;
use super::listing::Reading;
use super::router::Route;
use super::supervise::Slot;
use super::traced::Traced;
use super::turns::Turns;
use crate::auth::{Grant, Signer};
use crate::hub::{Feed, Memory, Reader, Reason};

/// Every open stream.
pub struct Streams {
    /// In the order in which they were opened, which is how operators page through them.
    pub(super) open: Mutex<BTreeMap<u64, Arc<Control>>>,
    /// What those read that read several feeds.
    pub(super) several: Mutex<HashMap<u64, Box<[Arc<Feed>]>>>,
    count: watch::Sender<usize>,
    /// In milliseconds.
    write_stall: AtomicU64,
    epoch: Instant,
    next: AtomicU64,
    draining: AtomicBool,
    /// When streams end that do not last for ever.
    pub deadlines: Deadlines,
    /// Signs the links by which they are renewed.
    pub(super) renewals: Signer,
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
    /// The client's credential has ended.
    Expired,
    /// The client's credential was withdrawn.
    Revoked,
    /// It was held, and then the client was not let in; or each of its several feeds was ended.
    Refused,
    /// It has lasted for the route's `max_age`.
    Age,
    /// It was held, and it could not be told in time whether the client may read.
    Undecided,
    /// It was held, and then there was no room for what it reads.
    NoRoom,
    /// Its route is gone, or reads something else.
    Reload,
    /// Its client's credential was renewed, and makes the route's filter another one for it.
    Claims,
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
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
            Self::Age => "max_age",
            Self::Undecided => "undecided",
            Self::NoRoom => "no_room",
            Self::Reload => "reload",
            Self::Claims => "claims",
        }
    }

    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let first = [Self::Client, Self::Drain, Self::Lagged, Self::Stalled, Self::Asked];
        let auth = [Self::Expired, Self::Revoked, Self::Refused, Self::Age];
        let others = [Self::Undecided, Self::NoRoom, Self::Reload, Self::Claims];
        first.into_iter().chain(auth).chain(others)
    }

    fn from_u8(value: u8) -> Option<Self> {
        Self::all().find(|end| *end as u8 == value)
    }
}

/// What is known of one stream outside its body.
pub struct Control {
    /// Tells it from all others of the process.
    pub id: u64,
    /// Its route.
    pub route: Arc<Route>,
    /// The client.
    pub client: Client,
    /// When it was opened.
    pub opened: Instant,
    /// Events handed over.
    pub events: AtomicU64,
    /// Bytes handed over.
    pub bytes: AtomicU64,
    /// What it reads, and how far it is.
    pub reading: Reading,
    /// Milliseconds, counted by [`Streams`], at which bytes were handed over that the client's connection has
    /// not asked to follow up yet; 0 while the body waits for events.
    handed: AtomicU64,
    ending: AtomicU8,
    task: Arc<Slot>,
    /// How long it lasts, where that is not for ever.
    pub(super) lease: Mutex<Option<Box<Lease>>>,
    /// Whether the client is to be told that it ends soon.
    pub(super) expiring: AtomicBool,
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
    pub(super) fn kill(&self, why: End) {
        let _ = self.ending.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        self.task.kill();
    }

    /// Has the task polled, which will see what was written before.
    pub(super) fn wake(&self) {
        self.task.wake();
    }

    /// The body has nothing to send.
    pub fn waiting(&self) {
        self.handed.store(0, Ordering::Relaxed);
    }

    /// Whether its client has taken all that there was.
    pub fn has_given_all(&self) -> bool {
        self.reading.behind() == Some(0) && self.handed.load(Ordering::Relaxed) == 0
    }
}

impl Streams {
    /// No stream yet. A client that takes nothing for `write_stall` will be ended.
    pub fn new(write_stall: Duration) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            several: Mutex::default(),
            count: watch::Sender::new(0),
            write_stall: AtomicU64::new(write_stall.as_millis() as u64),
            epoch: Instant::now(),
            next: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            deadlines: Deadlines::default(),
            renewals: Signer::of_this_process("ssegate renewal 1"),
            turns: Turns::on_all_cores(),
            replay_turns: Turns::on_half_the_cores(),
        })
    }

    /// The turns of those who read what memory holds, and of those who read what only an upstream still holds.
    pub fn turns(&self) -> (&Turns, &Turns) {
        (&self.turns, &self.replay_turns)
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether new streams are to be sent away.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Registers a stream that the task of `task` serves, with the place that it has taken.
    pub fn open(
        self: &Arc<Self>,
        route: &Arc<Route>,
        client: Client,
        place: Option<Place>,
        task: Arc<Slot>,
    ) -> Registered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let control = Arc::new(Control {
            id,
            route: Arc::clone(route),
            client,
            opened: Instant::now(),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            reading: Reading::default(),
            handed: AtomicU64::new(0),
            ending: AtomicU8::new(0),
            task,
            lease: Mutex::default(),
            expiring: AtomicBool::new(false),
        });
        let mut open = self.open.lock();
        open.insert(id, Arc::clone(&control));
        self.count.send_replace(open.len());
        route.metrics.subscribers.inc();
        drop(open);
        self.deadlines.begin(&control);
        // Who looked for the route's streams when it ended has not found this one.
        if route.kept.is_over() {
            self.deadlines.end(&control, End::Reload);
        }
        Registered {
            control,
            streams: Arc::clone(self),
            replays: false,
            traced: None,
            _place: place,
            of_feeds: Box::default(),
        }
    }

    /// Ends, for as long as it runs, the streams of clients that take nothing. While logs and what such clients hold
    /// of them are over `memory`, these have little time.
    pub async fn supervise(&self, memory: &Memory) {
        loop {
            let write_stall = Duration::from_millis(self.write_stall.load(Ordering::Relaxed));
            tokio::time::sleep((write_stall / 8).clamp(Duration::from_millis(50), MAX_TICK)).await;
            let now = self.millis(Instant::now());
            memory.settle_now();
            let pressed = memory.used() > memory.limit();
            let limit = if pressed { write_stall.min(PRESSED) } else { write_stall };
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

    /// An open stream.
    pub fn get(&self, id: u64) -> Option<Arc<Control>> {
        self.open.lock().get(&id).cloned()
    }

    /// Ends the streams of those whose grant is one that `withdrawn` finds. Returns how many there are.
    pub fn revoke(&self, withdrawn: impl Fn(&Grant) -> bool) -> usize {
        let is_withdrawn = |control: &&Arc<Control>| {
            let lease = control.lease.lock();
            lease.as_ref().is_some_and(|lease| lease.grants().any(|grant| withdrawn(grant)))
        };
        let open = self.open.lock();
        open.values()
            .filter(is_withdrawn)
            .inspect(|control| self.deadlines.end(control, End::Revoked))
            .count()
    }

    /// A client that takes nothing for so long will be ended.
    pub fn set_write_stall(&self, write_stall: Duration) {
        self.write_stall.store(write_stall.as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends the streams that `which` chooses, each at a random moment within `window`, while others come and go. Returns how
    /// many there are.
    pub fn end_within(&self, window: Duration, which: impl Fn(&Control) -> bool) -> usize {
        let now = Instant::now();
        let open = self.open.lock();
        let chosen = open.values().filter(|control| which(control));
        let end = |control: &&Arc<Control>| {
            self.deadlines.end_at(control, now + window.mul_f64(rand::random_range(0.0..1.0)));
        };
        chosen.inspect(end).count()
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
    streams: Arc<Streams>,
    /// Whether it counts among those that read what only the upstream still holds.
    replays: bool,
    /// What is told of it, if it is traced.
    traced: Option<Box<Traced>>,
    _place: Option<Place>,
    /// Those that it has taken of the routes of its feeds, where it has several.
    of_feeds: Box<[OfFeed]>,
}

/// The place that a stream of several feeds has taken of the route of the one that its client calls so.
pub type OfFeed = (Arc<str>, Place);

impl Registered {
    /// The registry.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// It is traced.
    pub fn trace(&mut self, traced: Traced) {
        self.traced = Some(Box::new(traced));
    }

    /// It has taken these places of the routes of its feeds.
    pub fn takes(&mut self, of_feeds: Vec<OfFeed>) {
        self.of_feeds = of_feeds.into();
    }

    /// It gives back those of the feeds that have ended.
    pub fn gives_back(&mut self, ended: &[Arc<str>]) {
        let mut of_feeds = std::mem::take(&mut self.of_feeds).into_vec();
        of_feeds.retain(|(label, _)| !ended.contains(label));
        self.of_feeds = of_feeds.into();
    }

    /// Its client is told where it stands, and what it cannot be given any more.
    pub fn stands(&mut self, gaps: &[Reason], reader: &Reader) {
        let Some(traced) = self.traced.as_mut().filter(|traced| !traced.is_fixed()) else { return };
        traced.misses(gaps);
        // Of several feeds some may begin long before others.
        if !reader.is_deciding() {
            traced.fixed(&self.control);
        }
    }

    /// Whether it reads what only the upstream still holds.
    pub fn replays(&mut self, replays: bool) {
        if replays != std::mem::replace(&mut self.replays, replays) {
            self.control.route.metrics.replaying.inc_by(if replays { 1 } else { -1 });
        }
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
        self.replays(false);
        let control = &self.control;
        self.streams.deadlines.forget(control);
        if control.reading.feed().is_none() {
            self.streams.several.lock().remove(&control.id);
        }
        let end = control.ending().unwrap_or(End::Client);
        let why = end.as_str();
        let trace_id = self.traced.as_ref().map(|traced| traced.id());
        if let Some(traced) = self.traced.take() {
            traced.ended(control, end);
        }
        control.route.metrics.subscribers.dec();
        control.route.metrics.ended(why);
        tracing::info!(
            stream = control.id,
            route = control.route.name,
            client = %control.client.addr.ip(),
            certificate = control.client.certificate.as_ref().map(|certificate| &*certificate.subject),
            seconds = control.opened.elapsed().as_millis() as f64 / 1000.0,
            events = control.events.load(Ordering::Relaxed),
            bytes = control.bytes.load(Ordering::Relaxed),
            trace_id,
            why,
            "stream ended"
        );
        // Last, since with the last one the process goes, and what is not counted and told by then is not.
        let mut open = self.streams.open.lock();
        open.remove(&control.id);
        self.streams.count.send_replace(open.len());
    }
}

/// How long a client may take nothing while memory is short.
const PRESSED: Duration = Duration::from_secs(1);

/// The longest time between two looks for stalled streams.
const MAX_TICK: Duration = Duration::from_secs(1);

/// How long a stream may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(1);

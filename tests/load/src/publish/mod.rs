//! Sends the events: at a steady pace, numbered and stamped, on a [`road`] to the server.

pub mod road;
mod zmtp;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::net::{RecvFlags, recv};

use crate::client::unix_nanos;
use crate::payload::payload_of;
use crate::publish::road::{Road, http_answer};
use crate::server::start::channel;

/// What is published.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Events a second.
    pub rate: u32,
    /// The number of the first.
    pub first: u64,
    /// How many they are; without end at `u64::MAX`.
    pub events: u64,
    /// Channels that they go to in turn, numbered within each.
    pub feeds: u64,
    /// Bytes of a payload.
    pub payload: usize,
}

/// How the publishing went.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// The number after the last one's.
    pub events: u64,
    /// How late the latest was, by the schedule.
    pub late: Duration,
    /// How long it all took.
    pub took: Duration,
}

/// Events on their way, sent by a thread of their own; ended when dropped.
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<anyhow::Result<Published>>>,
}

/// What the thread is told and tells.
struct Shared {
    sent: AtomicU64,
    /// Events that may be sent, so that nobody is left behind.
    allowed: AtomicU64,
    stop: AtomicBool,
}

impl Publisher {
    /// Begins.
    pub fn start(road: Road, pace: Pace) -> Self {
        Self::begin(road, pace, None)
    }

    /// The same with events that all go to one channel, whatever the pace says of feeds, and each name one of so many symbols
    /// in turn.
    pub fn of_symbols(road: Road, pace: Pace, symbols: u64) -> Self {
        Self::begin(road, pace, Some(symbols))
    }

    fn begin(road: Road, pace: Pace, symbols: Option<u64>) -> Self {
        let shared = Shared {
            sent: AtomicU64::new(0),
            allowed: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let own = Arc::clone(&shared);
        Self { shared, thread: Some(thread::spawn(move || publish(road, &pace, symbols, &own))) }
    }

    /// The number after that of the last one sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// From now on sends only those below this number, until more are allowed.
    pub fn allow(&self, events: u64) {
        self.shared.allowed.store(events, Ordering::Relaxed);
    }

    /// Whether all is sent, or the server takes no more.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends no more. Returns how it went.
    ///
    /// # Errors
    /// Where the connection failed, or an event was refused or reached nobody.
    pub fn end(mut self) -> anyhow::Result<Published> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it was ended before")?;
        thread.join().expect("the publisher does not panic")
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn publish(road: Road, pace: &Pace, symbols: Option<u64>, shared: &Shared) -> anyhow::Result<Published> {
    let mut sender = Sender::connect(road)?;
    let interval = Duration::from_secs(1) / pace.rate;
    let began = Instant::now();
    let (mut late, mut events) = (Duration::ZERO, pace.first);
    let end = pace.first.saturating_add(pace.events);
    while events < end && !shared.stop.load(Ordering::Relaxed) {
        if events >= shared.allowed.load(Ordering::Relaxed) {
            sender.receive(RecvFlags::DONTWAIT)?;
            sleep(HELD);
            continue;
        }
        let due = began + interval.mul_f64((events - pace.first) as f64);
        sleep(due.saturating_duration_since(Instant::now()));
        late = late.max(due.elapsed());
        if late > BEHIND {
            bail!("the server takes events too slowly: {events} in {:?}", began.elapsed());
        }
        let (feed, seq) = (events % pace.feeds, events / pace.feeds);
        let symbol = symbols.map(|symbols| events % symbols);
        let channel = channel(feed, if symbol.is_some() { 1 } else { pace.feeds });
        sender.send(&channel, &payload_of(symbol, seq, unix_nanos(), pace.payload))?;
        events += 1;
        shared.sent.store(events, Ordering::Relaxed);
    }
    while sender.waiting > 0 {
        sender.receive(RecvFlags::empty())?;
    }
    Ok(Published { events, late, took: began.elapsed() })
}

/// A connection on which requests are sent without waiting for the answers to those before.
struct Sender {
    road: Road,
    socket: TcpStream,
    answers: Vec<u8>,
    waiting: usize,
}

impl Sender {
    fn connect(road: Road) -> anyhow::Result<Self> {
        let addr = road.addr();
        let mut socket = TcpStream::connect(addr).with_context(|| format!("cannot publish at {addr}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        if matches!(road, Road::Pushpin { .. }) {
            zmtp::greet(&mut socket)?;
        }
        Ok(Self { road, socket, answers: Vec::new(), waiting: 0 })
    }

    fn send(&mut self, channel: &str, payload: &str) -> anyhow::Result<()> {
        self.socket.write_all(&self.road.request(channel, payload)).context("cannot publish")?;
        if !self.road.answers() {
            return Ok(());
        }
        self.waiting += 1;
        self.receive(RecvFlags::DONTWAIT)?;
        while self.waiting >= AHEAD {
            self.receive(RecvFlags::empty())?;
        }
        Ok(())
    }

    /// Takes in the answers that are there.
    fn receive(&mut self, flags: RecvFlags) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let read = match recv(&self.socket, &mut buffer, flags).map_err(io::Error::from) {
            Ok((0, _)) => bail!("the connection that publishes was closed"),
            Ok((read, _)) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock && flags == RecvFlags::DONTWAIT => {
                return Ok(());
            }
            Err(error) => return Err(error).context("no answer to a published event"),
        };
        self.answers.extend_from_slice(&buffer[..read]);
        let mut taken = 0;
        while let Some(length) = self.road.answer(&self.answers[taken..])? {
            taken += length;
            self.waiting -= 1;
        }
        self.answers.drain(..taken);
        Ok(())
    }
}

/// Reads the answer to one request, for probes such as readiness.
///
/// # Errors
/// Where there is none, or it is no success.
pub fn probe(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    http_answer(&answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Requests sent ahead of their answers.
const AHEAD: usize = 256;

/// How far publishing may fall behind its schedule.
const BEHIND: Duration = Duration::from_secs(90);

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether more may be sent.
const HELD: Duration = Duration::from_micros(200);

//! Many clients on one thread: an epoll loop, one read a turn for each socket that has something.

use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{Timespec, epoll};

use crate::client::Client;
use crate::dial::Dial;
use crate::kafka::share;
use crate::sse::Subscriber;
use crate::tally::Tally;

/// The clients of one server.
pub struct Fleet {
    /// What has arrived.
    pub tally: Tally,
    dial: Dial,
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    /// Clients whose streams stand.
    joined: usize,
    /// Clients that are open, standing or not.
    open: usize,
    /// Those whose connection has ended; what they missed counts.
    gone: Vec<Subscriber>,
    events: Vec<MaybeUninit<epoll::Event>>,
    buffer: Vec<u8>,
}

/// What many short connections came to.
#[derive(Debug, Clone, Default)]
pub struct Cycled {
    /// Connections that were made.
    pub connects: usize,
    /// How many of them resumed a TLS session.
    pub resumed: usize,
    /// The key exchange of the last one.
    pub key_exchange: String,
}

impl Fleet {
    /// No client yet.
    ///
    /// # Errors
    /// Where the system has no epoll to give.
    pub fn new(dial: Dial) -> anyhow::Result<Self> {
        Ok(Self {
            tally: Tally::new(),
            dial,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            joined: 0,
            open: 0,
            gone: Vec::new(),
            events: vec![MaybeUninit::uninit(); 1024],
            buffer: vec![0; 128 * 1024],
        })
    }

    /// Opens so many streams more, with at most `concurrency` connections on the way, and returns when all
    /// stand.
    ///
    /// # Errors
    /// Where one is refused, or no progress is made for a while.
    pub fn open(&mut self, streams: usize, concurrency: usize) -> anyhow::Result<()> {
        let streams = streams.next_multiple_of(self.dial.h2.unwrap_or(1));
        self.open_for((0..streams).map(|_| Subscriber::default()).collect(), concurrency)
    }

    /// The same for these subscribers.
    ///
    /// # Errors
    /// As above.
    pub fn open_for(&mut self, subscribers: Vec<Subscriber>, concurrency: usize) -> anyhow::Result<()> {
        let each = self.dial.h2.unwrap_or(1);
        let wanted = self.open + subscribers.len().div_ceil(each);
        let mut subscribers = subscribers.into_iter();
        let mut progress = (Instant::now(), self.joined);
        while self.joined < wanted {
            while self.open < wanted && self.open - self.joined < concurrency {
                self.connect(subscribers.by_ref().take(each).collect())?;
            }
            self.turn(TURN, None)?;
            if let Some((reason, _)) = self.tally.ended.first_key_value() {
                bail!("a client could not be opened: {reason}");
            }
            if self.joined > progress.1 {
                progress = (Instant::now(), self.joined);
            } else if progress.0.elapsed() > PATIENCE {
                bail!("{} of {wanted} connections stand, and no more since {PATIENCE:?}", self.joined);
            }
        }
        Ok(())
    }

    /// Opens `connects` connections, `concurrency` at a time, each closed as soon as its stream stands. The time
    /// that takes is recorded as latency.
    ///
    /// # Errors
    /// Where no progress is made for a while. Connections that fail are counted in the tally.
    pub fn cycle(&mut self, connects: usize, concurrency: usize) -> anyhow::Result<Cycled> {
        let mut left = connects;
        let mut cycled = Cycled::default();
        let mut progress = Instant::now();
        while left > 0 || self.open > 0 {
            while left > 0 && self.open < concurrency {
                self.connect((0..self.dial.h2.unwrap_or(1)).map(|_| Subscriber::default()).collect())?;
                left -= 1;
            }
            let before = self.open;
            self.turn(TURN, Some(&mut cycled))?;
            if self.open < before {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                bail!("{} connections do not come to stand", self.open);
            }
        }
        Ok(cycled)
    }

    /// Goes on reading until `done` says so, which is asked after each turn, or `limit` has passed.
    ///
    /// # Errors
    /// Where the system's epoll fails.
    pub fn read_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Tally) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() || done(&self.tally) {
                return Ok(());
            }
            self.turn(left.min(TURN), None)?;
        }
    }

    /// Closes every connection.
    pub fn close(&mut self) {
        let clients = self.clients.drain(..).flatten();
        self.gone.extend(clients.flat_map(|client| client.subscribers));
        (self.joined, self.open) = (0, 0);
    }

    /// Has so many of the clients stop reading, every so-manieth of all. They are not counted from now on; dropped, they
    /// close their connections.
    pub fn stall(&mut self, count: usize) -> Vec<TcpStream> {
        let step = (self.clients.len() / count.max(1)).max(1);
        let places = (0..self.clients.len()).step_by(step).take(count);
        places.filter_map(|place| self.take(place)).collect()
    }

    /// The connections of all clients but the first few, to be read by others, who see no events in them.
    pub fn split_off(&mut self, keep: usize) -> Vec<TcpStream> {
        (keep..self.clients.len()).filter_map(|place| self.take(place)).collect()
    }

    fn take(&mut self, place: usize) -> Option<TcpStream> {
        let client = self.clients[place].take()?;
        let _ = epoll::delete(&self.epoll, &client.socket);
        self.open -= 1;
        self.joined -= usize::from(client.joined());
        Some(client.socket)
    }

    /// How many of the numbers below `end` the clients have missed, all together.
    pub fn missing(&self, end: u64) -> u64 {
        self.subscribers().map(|subscriber| subscriber.missing(&[end])).sum()
    }

    /// The same of events that go to so many feeds in turn, of which each client reads one.
    pub fn missing_of(&self, events: u64, feeds: u64) -> u64 {
        self.subscribers().map(|one| one.missing(&[share(events, one.feed, feeds)])).sum()
    }

    /// Every client that there is or was.
    pub fn subscribers(&self) -> impl Iterator<Item = &Subscriber> {
        self.clients.iter().flatten().flat_map(|client| &client.subscribers).chain(&self.gone)
    }

    /// Gives them up, connections and all.
    pub fn into_subscribers(mut self) -> (Tally, Vec<Subscriber>) {
        self.close();
        (self.tally, self.gone)
    }

    /// How it speaks, for people.
    pub fn protocol(&self) -> String {
        self.dial.protocol()
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.open * self.dial.h2.unwrap_or(1)
    }

    fn connect(&mut self, subscribers: Vec<Subscriber>) -> anyhow::Result<()> {
        let client = Client::connect(&self.dial, subscribers)?;
        let place = self.clients.len() as u64;
        let data = epoll::EventData::new_u64(place);
        epoll::add(&self.epoll, &client.socket, data, epoll::EventFlags::IN).context("watching a socket")?;
        self.clients.push(Some(client));
        self.open += 1;
        Ok(())
    }

    /// Waits until a socket has something, and reads all that have. With `cycled`, clients are closed and
    /// counted there once their stream stands.
    fn turn(&mut self, timeout: Duration, mut cycled: Option<&mut Cycled>) -> anyhow::Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let (ready, _) = match epoll::wait(&self.epoll, &mut self.events[..], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            waited => waited?,
        };
        for event in ready {
            let place = event.data.u64() as usize;
            let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { continue };
            let stood = client.joined();
            let outcome = client.ready(&mut self.buffer, &mut self.tally);
            let stands = client.joined();
            if stands && !stood {
                self.joined += 1;
            }
            let leave = stands && cycled.is_some();
            if leave && let Some(cycled) = &mut cycled {
                self.tally.latency.saturating_record(client.began.elapsed().as_micros() as u64);
                cycled.connects += 1;
                cycled.resumed += usize::from(client.resumed());
                cycled.key_exchange = client.key_exchange();
            } else if let Err(error) = &outcome {
                *self.tally.ended.entry(format!("{error:#}")).or_default() += 1;
            }
            if leave || outcome.is_err() {
                self.joined -= usize::from(stands);
                self.open -= 1;
                // Its socket leaves the epoll by being closed.
                let client = self.clients[place].take();
                self.gone.extend(client.into_iter().flat_map(|client| client.subscribers));
            }
        }
        Ok(())
    }
}

/// The longest wait for a socket.
const TURN: Duration = Duration::from_millis(20);

/// How long nothing may happen while connections are opened. A server may do thousands of handshakes before it answers
/// the first request.
const PATIENCE: Duration = Duration::from_secs(60);

//! The attacker: a process of its own, so that its descriptors and its time are not those of the clients that are measured.
//! One epoll loop that begins connections at a steady pace, has each send what its kind of attack sends, and begins
//! another for each that ends.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, stdin};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::dial::Dial;
use crate::scenario::attack::foe::Foe;
use crate::scenario::attack::kind::{Kind, Plan, Wire};
use crate::server::ssegate::PATH;

/// Whom to attack, and how.
#[derive(Debug, Clone, Copy, Args)]
pub struct Order {
    /// How.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Where the server listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub at: SocketAddr,
}

/// What an attack came to, by the attacker's own count.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Fought {
    /// Connections that it began.
    pub begun: u64,
    /// Of them, how many the server ended.
    pub ended: u64,
    /// The most that were open at a time.
    pub most: u64,
}

/// Attacks until its input ends, and tells what that came to.
///
/// # Errors
/// Where it has no connection to begin, as where nobody listens.
pub fn serve(order: &Order, options: &Options) -> anyhow::Result<()> {
    let mut attacker = Attacker::new(order, options)?;
    let over = thread::spawn(|| stdin().read_to_end(&mut Vec::new()));
    while !over.is_finished() {
        attacker.turn()?;
    }
    println!("{}", serde_json::to_string(&attacker.fought)?);
    Ok(())
}

struct Attacker {
    kind: Kind,
    plan: Plan,
    dial: Dial,
    epoll: OwnedFd,
    foes: HashMap<u64, Foe>,
    /// Whose turn it is to send, and when; in that order, as all wait for the same time.
    due: VecDeque<(Instant, u64)>,
    /// When the next connection may begin.
    next: Instant,
    fought: Fought,
    events: Vec<MaybeUninit<epoll::Event>>,
    buffer: Vec<u8>,
}

impl Attacker {
    fn new(order: &Order, options: &Options) -> anyhow::Result<Self> {
        let plan = order.kind.plan();
        let h2 = plan.wire == Wire::Http2;
        let mut dial =
            Dial::new(order.at, PATH, &Options { h2, plain: false, resume: false, ..options.clone() })?;
        if plan.wire == Wire::Tcp {
            dial.tls = None;
        }
        Ok(Self {
            kind: order.kind,
            plan,
            dial,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            foes: HashMap::new(),
            due: VecDeque::new(),
            next: Instant::now(),
            fought: Fought::default(),
            events: vec![MaybeUninit::uninit(); 1024],
            buffer: vec![0; 64 * 1024],
        })
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        self.begin()?;
        self.take_in()?;
        self.send();
        Ok(())
    }

    /// Begins the connections that are due.
    fn begin(&mut self) -> anyhow::Result<()> {
        let (now, pace) = (Instant::now(), Duration::from_secs(1) / self.plan.begin);
        // What it could not do in time it does not make up for.
        self.next = self.next.max(now.checked_sub(LAG).unwrap_or(now));
        while self.next <= now && self.foes.len() < self.plan.hold {
            let number = self.fought.begun;
            let foe = Foe::begin(&self.dial, self.kind, number).context("no connection to attack on")?;
            let data = epoll::EventData::new_u64(number);
            epoll::add(&self.epoll, foe.socket(), data, epoll::EventFlags::IN)
                .context("watching a socket")?;
            self.foes.insert(number, foe);
            self.due.push_back((now + self.plan.every, number));
            self.next += pace;
            self.fought.begun += 1;
            self.fought.most = self.fought.most.max(self.foes.len() as u64);
        }
        Ok(())
    }

    /// Waits a moment, and has those read whose sockets have something.
    fn take_in(&mut self) -> anyhow::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: TURN.subsec_nanos().into() };
        let (ready, _) = match epoll::wait(&self.epoll, &mut self.events[..], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            waited => waited?,
        };
        for event in ready {
            let number = event.data.u64();
            let Some(foe) = self.foes.get_mut(&number) else { continue };
            if foe.ready(&self.dial, &mut self.buffer).is_err() {
                // Its socket leaves the epoll by being closed.
                self.foes.remove(&number);
                self.fought.ended += 1;
            } else if foe.is_deaf() {
                // It is told of the socket's end alone.
                let data = epoll::EventData::new_u64(number);
                epoll::modify(&self.epoll, foe.socket(), data, epoll::EventFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Has those send whose turn it is.
    fn send(&mut self) {
        let now = Instant::now();
        while let Some((_, number)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            let Some(foe) = self.foes.get_mut(&number) else { continue };
            if self.plan.lasts.is_some_and(|lasts| foe.age() > lasts) {
                self.foes.remove(&number);
            } else if foe.go_on(&self.dial).is_err() {
                self.foes.remove(&number);
                self.fought.ended += 1;
            } else {
                self.due.push_back((now + self.plan.every, number));
            }
        }
    }
}

/// The longest wait for a socket.
const TURN: Duration = Duration::from_millis(5);

/// How far it may be behind with connections that are to begin.
const LAG: Duration = Duration::from_millis(50);

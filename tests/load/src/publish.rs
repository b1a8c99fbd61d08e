//! Sends the events: at a steady pace, numbered and stamped, through the server's `push` upstream or a Redis.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::net::{RecvFlags, recv};

use crate::args::Plan;
use crate::client::unix_nanos;
use crate::sse::{head_end, payload};

/// The way that events take.
#[derive(Debug, Clone)]
pub enum Road {
    /// HTTP requests, one after the other on one connection.
    Post {
        /// Of the listener.
        addr: SocketAddr,
        /// Of the request.
        path: String,
    },
    /// `PUBLISH` commands to a Redis.
    Redis {
        /// Of the Redis.
        addr: SocketAddr,
        /// The channel.
        channel: String,
    },
}

/// How the publishing went.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Events sent.
    pub events: u64,
    /// How late the latest was, by the schedule.
    pub late: Duration,
    /// How long it all took.
    pub took: Duration,
}

impl Road {
    /// Publishes what the plan says, numbered from 0.
    ///
    /// # Errors
    /// Where the connection fails, or an event is refused or reaches nobody.
    pub fn publish(&self, plan: &Plan) -> anyhow::Result<Published> {
        let mut sender = Sender::connect(self.clone())?;
        let pace = Duration::from_secs(1) / plan.rate;
        let began = Instant::now();
        let mut late = Duration::ZERO;
        for seq in 0..plan.events() {
            let due = began + pace * seq as u32;
            sleep(due.saturating_duration_since(Instant::now()));
            late = late.max(due.elapsed());
            if late > BEHIND {
                bail!("the server takes events too slowly: {seq} in {:?}", began.elapsed());
            }
            sender.send(payload(seq, unix_nanos(), plan.payload).as_bytes())?;
        }
        while sender.waiting > 0 {
            sender.receive(RecvFlags::empty())?;
        }
        Ok(Published { events: plan.events(), late, took: began.elapsed() })
    }
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
        let (Road::Post { addr, .. } | Road::Redis { addr, .. }) = &road;
        let socket = TcpStream::connect(addr).with_context(|| format!("cannot publish at {addr}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { road, socket, answers: Vec::new(), waiting: 0 })
    }

    fn send(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let mut request = match &self.road {
            Road::Post { addr, path } => {
                format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: {}\r\n\r\n", payload.len())
            }
            Road::Redis { channel, .. } => {
                format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len())
            }
        }
        .into_bytes();
        request.extend_from_slice(payload);
        if matches!(self.road, Road::Redis { .. }) {
            request.extend_from_slice(b"\r\n");
        }
        self.socket.write_all(&request).context("cannot publish")?;
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

impl Road {
    /// The length of the answer that `bytes` begin with, if it is whole.
    fn answer(&self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        match self {
            Self::Post { .. } => http_answer(bytes),
            Self::Redis { .. } => {
                let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
                match bytes[..=end].strip_prefix(b":") {
                    Some(b"0\r\n") => bail!("an event was published to nobody: the server is not subscribed"),
                    Some(_) => Ok(Some(end + 1)),
                    None => bail!("Redis says {}", String::from_utf8_lossy(&bytes[..end])),
                }
            }
        }
    }
}

fn http_answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = head_end(bytes) else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 2") {
        bail!("an event was refused: {}", head.lines().next().unwrap_or_default());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    Ok((bytes.len() >= end + length).then_some(end + length))
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

//! All that a server can send to few clients, on one core and then on two. Where the tool shares a core with the server
//! it does as little as it can: most clients throw away what they get, unread; a few check it.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};

use crate::args::{Options, Via};
use crate::fleet::Fleet;
use crate::publish::{Pace, Publisher};
use crate::report::Report;
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::report::row::Row;
use crate::scenario::fanout::readers;
use crate::scenario::{SETTLE, note};
use crate::server::target::Target;
use crate::server::usage::Watch;

/// A server that sends as much as it can.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workers {
    pub server: String,
    pub protocol: String,
    pub via: String,
    pub cores: usize,
    pub clients: usize,
    pub linger_ms: u32,
    pub seconds: f64,
    /// Of all clients: those that do not check are counted by the bytes that they threw away.
    pub deliveries_per_second: f64,
    pub events_per_second: f64,
    pub cpu_us_per_delivery: f64,
    /// Of the clients that check.
    pub latency_ms: [f64; 3],
    pub checked: Checked,
    pub noise: Noise,
}

/// On one core, then on two.
///
/// # Errors
/// Where the server, or a client, cannot do its work.
pub fn run_each(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let one = options.server_core[0];
    for cores in [vec![one], vec![one, options.load_core]] {
        report.add(Row::Workers(run(&Options { server_core: cores, no_pin: false, ..options.clone() })?));
    }
    Ok(())
}

fn run(options: &Options) -> anyhow::Result<Workers> {
    let (clients, linger) = (options.clients.unwrap_or(200), options.linger.unwrap_or(20));
    let seconds = Duration::from_secs(options.seconds.unwrap_or(10).into());
    note(&format!("workers: {clients} clients, {} cores", options.server_core.len()));
    let target = Target::new(options, Via::Push, linger)?;
    let mut fleet = Fleet::new(target.dial.clone())?;
    fleet.open_for(readers(&target, clients, 1), options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;
    let mut blind = Blind { sockets: fleet.split_off(CHECKING), buffer: vec![0; GULP], bytes: 0 };
    for socket in &blind.sockets {
        set_socket_recv_buffer_size(socket, ROOM)?;
    }

    let pace = Pace { rate: OFFERED, first: 0, events: u64::MAX, feeds: 1, payload: options.payload };
    let publisher = Publisher::start(target.road()?, pace);
    drive(&mut fleet, &mut blind, &publisher, SETTLE)?;
    fleet.tally.begin();
    blind.bytes = 0;
    let watch = Watch::begin(target.processes.clone(), &options.server_core)?;
    drive(&mut fleet, &mut blind, &publisher, seconds)?;
    let spent = watch.end()?;
    let (seen, bytes) = (fleet.tally.delivered, fleet.tally.bytes.max(1));
    let sent = publisher.end()?.events;
    fleet.read_until(SETTLE, |_| false)?;
    let deliveries = seen as f64 * (1.0 + blind.bytes as f64 / bytes as f64);
    Ok(Workers {
        server: target.name.clone(),
        protocol: fleet.protocol(),
        via: target.via.to_owned(),
        cores: options.server_core.len(),
        clients,
        linger_ms: linger,
        seconds: spent.elapsed.as_secs_f64(),
        deliveries_per_second: deliveries / spent.elapsed.as_secs_f64(),
        events_per_second: seen as f64 / CHECKING as f64 / spent.elapsed.as_secs_f64(),
        cpu_us_per_delivery: spent.cpu.as_secs_f64() * 1e6 / deliveries.max(1.0),
        latency_ms: quantiles(&fleet.tally.latency),
        checked: Checked::of(&fleet.tally, fleet.missing(sent)),
        noise: Noise::of(&spent),
    })
}

/// Has everybody read for a while. The publisher stays so close ahead of the slowest client that checks that nothing is
/// lost, and so far that the server always has something to send.
fn drive(fleet: &mut Fleet, blind: &mut Blind, publisher: &Publisher, time: Duration) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    while began.elapsed() < time && !publisher.is_over() {
        let sent = publisher.sent();
        let behind = fleet.subscribers().map(|one| one.missing(&[sent])).max().unwrap_or(0);
        publisher.allow(sent - behind + AHEAD);
        fleet.read_until(TURN, |_| false)?;
        blind.read()?;
    }
    Ok(())
}

/// Connections whose bytes are counted and thrown away.
struct Blind {
    sockets: Vec<TcpStream>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Blind {
    /// With MSG_TRUNC the kernel copies nothing (tcp(7)).
    fn read(&mut self) -> anyhow::Result<()> {
        for socket in &self.sockets {
            match recv(socket, &mut self.buffer[..], RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
                Ok((0, 0)) => anyhow::bail!("closed by the server"),
                Ok((_, read)) => self.bytes += read as u64,
                Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Clients that check what they get.
const CHECKING: usize = 2;

/// Events a second that are offered: more than any server sends to so many.
const OFFERED: u32 = 1_000_000;

/// How far the publisher may be ahead.
const AHEAD: u64 = 3_000;

/// Between two reads of those that do not check.
const TURN: Duration = Duration::from_millis(100);

/// What the kernel keeps of a connection between two reads, so that it is never the clients who hold the server up.
const ROOM: usize = 1 << 20;

/// Bytes of a read, at most.
const GULP: usize = 4 << 20;

pub const HEAD: &str = "| all it can | by | cores | clients | linger | deliveries/s | events/s | CPU a delivery | p50, p99, max | delivered to those that check | wrong | core: server / others / tool |";

impl Workers {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { server, protocol, via, cores, clients, linger_ms, deliveries_per_second, .. } = self;
        let Self { events_per_second, cpu_us_per_delivery, latency_ms, checked, noise, .. } = self;
        format!(
            "| {server} | {via}; {protocol} | {cores} | {clients} | {linger_ms} ms | {deliveries_per_second:.0} \
             | {events_per_second:.0} | {cpu_us_per_delivery:.2} µs | {} | {} | {} |",
            millis(latency_ms),
            checked.cells(),
            noise.cells()
        )
    }
}

//! One number of clients: what it took to let them in, what they hold, and what an event to all of them costs.

use std::io::{Write as _, stdin, stdout};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::args::{Options, Via};
use crate::fleet::Fleet;
use crate::publish::{Pace, Publisher};
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::fanout::readers;
use crate::scenario::{GRACE, SETTLE, note};
use crate::server::kernel::Kernel;
use crate::server::target::Target;
use crate::server::usage::Watch;

/// A number of clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    pub part: String,
    pub protocol: String,
    pub via: String,
    pub servers: usize,
    pub clients: usize,
    pub feeds: u64,
    pub rate: u32,
    pub linger_ms: u32,
    /// Of letting all in, full handshakes included.
    pub connect_cpu_us: f64,
    pub opened_in_s: f64,
    /// Proportional set size, beyond that of a server without clients.
    pub pss_kib: f64,
    /// Half of what the kernel holds for both ends.
    pub kernel_kib: f64,
    /// Of that half, what was queued on sockets.
    pub queued_kib: f64,
    pub deliveries: u64,
    pub cpu_us_per_delivery: f64,
    pub cpu_us_per_event: f64,
    /// With TLS, chunks and ids; headers of TCP and IP come on top.
    pub bytes_per_delivery: f64,
    pub latency_ms: [f64; 3],
    pub lost: u64,
    /// While all came in, and while events went out.
    pub connecting: Noise,
    pub noise: Noise,
}

/// What is held, and by whom.
#[derive(Debug, Clone)]
pub struct Size {
    /// What is measured, for the report.
    pub part: &'static str,
    /// How many.
    pub clients: usize,
    /// Over so many feeds.
    pub feeds: u64,
    /// Events a second, over all feeds.
    pub rate: u32,
}

/// Clients that stand.
pub struct Standing {
    target: Target,
    fleet: Fleet,
    point: Point,
    cores: Vec<usize>,
    rate: u32,
    seconds: u32,
    payload: usize,
}

/// Opens the clients of a server made for them.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn stand(options: &Options, via: Via, size: &Size) -> anyhow::Result<Standing> {
    note(&format!("scale: {} clients, {} feeds", size.clients, size.feeds));
    let linger = options.linger.unwrap_or(10);
    let target = Target::new(options, via, linger)?;
    let mut fleet = Fleet::new(target.dial.clone())?;
    thread::sleep(SETTLE);
    let (empty, before) = (target.processes.memory()?, Kernel::now()?);
    let watch = Watch::begin(target.processes.clone(), &options.server_core)?;
    fleet.open_for(readers(&target, size.clients, size.feeds), options.concurrency)?;
    let connecting = watch.end()?;
    fleet.read_until(SETTLE, |_| false)?;
    let (full, after) = (target.processes.memory()?, Kernel::now()?);
    let half = |after: u64, before: u64| after.saturating_sub(before) as f64 / 2.0 / 1024.0;
    let queued = half(after.buffers, before.buffers);
    let point = Point {
        part: size.part.to_owned(),
        protocol: fleet.protocol(),
        via: target.via.to_owned(),
        servers: 1,
        clients: fleet.streams(),
        feeds: size.feeds,
        rate: size.rate,
        linger_ms: linger,
        connect_cpu_us: connecting.cpu.as_secs_f64() * 1e6,
        opened_in_s: connecting.elapsed.as_secs_f64(),
        pss_kib: full.pss.saturating_sub(empty.pss) as f64 / 1024.0,
        kernel_kib: half(after.objects, before.objects) + queued,
        queued_kib: queued,
        deliveries: 0,
        cpu_us_per_delivery: 0.0,
        cpu_us_per_event: 0.0,
        bytes_per_delivery: 0.0,
        latency_ms: [0.0; 3],
        lost: 0,
        connecting: Noise::of(&connecting),
        noise: Noise::of(&connecting),
    };
    let (seconds, payload) = (options.seconds.unwrap_or(10), options.payload);
    Ok(Standing {
        target,
        fleet,
        point,
        cores: options.server_core.clone(),
        rate: size.rate,
        seconds,
        payload,
    })
}

impl Standing {
    /// Publishes to them for a while.
    ///
    /// # Errors
    /// Where the server or a client cannot do its work.
    pub fn live(mut self) -> anyhow::Result<Point> {
        let (feeds, clients) = (self.point.feeds, self.fleet.streams() as u64);
        // What is done once for each feed or client is no part of a delivery.
        let warm = self.publish(0, u64::from(self.rate).max(feeds))?;
        self.fleet.tally.begin();
        let watch = Watch::begin(self.target.processes.clone(), &self.cores)?;
        let end = self.publish(warm, u64::from(self.rate) * u64::from(self.seconds))?;
        let (spent, tally) = (watch.end()?, &self.fleet.tally);
        let cpu = spent.cpu.as_secs_f64() * 1e6;
        let deliveries = tally.delivered.max(1) as f64;
        Ok(Point {
            deliveries: tally.delivered,
            cpu_us_per_delivery: cpu / deliveries,
            cpu_us_per_event: cpu / deliveries * clients as f64 / feeds as f64,
            bytes_per_delivery: tally.bytes as f64 / deliveries,
            latency_ms: quantiles(&tally.latency),
            lost: Checked::of(tally, self.fleet.missing_of(end, feeds)).lost,
            noise: Noise::of(&spent),
            ..self.point
        })
    }

    /// Publishes so many events, and waits until all have them. Returns the number after the last one's.
    fn publish(&mut self, first: u64, events: u64) -> anyhow::Result<u64> {
        let feeds = self.point.feeds;
        let rate = if first == 0 && feeds > 1 { self.rate.max(WARM_UP) } else { self.rate };
        let pace = Pace { rate, first, events, feeds, payload: self.payload };
        let before = self.fleet.tally.delivered;
        let publisher = Publisher::start(self.target.road()?, pace);
        self.fleet.read_until(Duration::MAX, |_| publisher.is_over())?;
        let end = publisher.end()?.events;
        let owed = before + events * self.fleet.streams() as u64 / feeds;
        self.fleet.read_until(GRACE, |tally| tally.delivered >= owed)?;
        Ok(end)
    }
}

/// A server and its clients that are measured beside others, each pair with a tool of its own: tells when its clients
/// stand, waits for a line, publishes, tells what that came to, and stays until its input ends.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn serve(options: &Options, size: &Size) -> anyhow::Result<()> {
    let via = *options.via.first().context("--via names how events reach the server")?;
    let mut standing = stand(options, via, size)?;
    say(&standing.point)?;
    // What clients do not read would be held by the kernel, and be taken for memory of the clients of others.
    let told = thread::spawn(|| stdin().lines().next().is_some());
    standing.fleet.read_until(Duration::MAX, |_| told.is_finished())?;
    if !told.join().expect("reading a line does not panic") {
        return Ok(());
    }
    say(&standing.live()?)?;
    stdin().lines().next().transpose()?;
    Ok(())
}

fn say(point: &Point) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(point)?);
    Ok(stdout().flush()?)
}

/// Events a second that feeds are warmed up with, one each.
const WARM_UP: u32 = 1_000;

pub const HEAD: &str = "| scale | by | servers | clients | feeds | CPU to connect one | process, each | kernel, each | events/s | CPU a delivery | bytes | p50, p99, max | lost | core: server / others / tool |";

impl Point {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self {
            part, protocol, via, servers, clients, feeds, rate, bytes_per_delivery, lost, noise, ..
        } = self;
        let each = |all: f64| all / *clients as f64;
        format!(
            "| {part} | {via}; {protocol} | {servers} | {clients} | {feeds} | {:.0} µs | {:.2} KiB | {:.2} KiB | {rate} \
             | {:.2} µs | {bytes_per_delivery:.0} | {} | {lost} | {} |",
            each(self.connect_cpu_us),
            each(self.pss_kib),
            each(self.kernel_kib),
            self.cpu_us_per_delivery,
            millis(&self.latency_ms),
            noise.cells()
        )
    }
}

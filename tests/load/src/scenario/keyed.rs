//! Streams of one key each, of one topic: what an idle one holds, what a record costs, and the return of all after the
//! server was killed.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::kafka::{Kafka, key_name};
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::history::PATIENCE;
use crate::scenario::{GRACE, LOOK, MIB, SETTLE, note};
use crate::server::scratch::Scratch;
use crate::server::ssegate::Serving;
use crate::server::usage::{Processes, Watch};
use crate::sse::Subscriber;

/// Streams of one key each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keyed {
    pub protocol: String,
    pub streams: usize,
    pub partitions: u32,
    pub rate: u32,
    pub opened_in_s: f64,
    /// Of the second half of the streams, before anything was sent.
    pub pss_kib_per_stream: f64,
    pub pss_mib: f64,
    pub live: Checked,
    pub live_ms: [f64; 3],
    pub cpu_share: f64,
    pub publisher_late_ms: f64,
    pub back: Back,
    pub noise: Noise,
}

/// The return of all streams after the server was killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Back {
    /// Of the server, after its start.
    pub listens_s: f64,
    pub all_told_s: f64,
    pub all_live_s: f64,
    /// What the server received from Kafka by then, and the size of all that was ever sent to it.
    pub read_mib: f64,
    pub topic_mib: f64,
    pub pss_mib: f64,
    pub checked: Checked,
}

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Keyed> {
    let (streams, rate) = (options.clients.unwrap_or(100_000), options.rate.unwrap_or(5_000));
    let (partitions, seconds) = (options.partitions.unwrap_or(4), options.seconds.unwrap_or(30));
    let keys = streams as u64;
    note(&format!("keyed: {streams} streams of a key each, {rate} records/s in {partitions} partitions"));
    let scratch = Scratch::new()?;
    let kafka = Kafka::start(options, scratch.path()?)?;
    let topic = kafka.topic(partitions, Some(keys), options.payload)?;
    let rest = configuration(options, &kafka, &topic.name);
    let start = || Serving::start(options, scratch.path()?, &rest);
    let mut serving = start()?;
    thread::sleep(SETTLE);

    let began = Instant::now();
    let pid = serving.server.pid();
    let mut fleet = Fleet::new(Dial::new(serving.public, "/", options)?)?;
    let all = (0..keys)
        .map(|number| Subscriber::of(number, format!("/k/{}", key_name(number))))
        .collect::<Vec<_>>();
    let mut all = all.into_iter();
    fleet.open_for(all.by_ref().take(streams / 2).collect(), options.concurrency)?;
    thread::sleep(SETTLE);
    let half = Processes::from(pid).memory()?;
    fleet.open_for(all.collect(), options.concurrency)?;
    let opened = began.elapsed() - SETTLE;
    thread::sleep(SETTLE);
    let full = Processes::from(pid).memory()?;
    note(&format!("{streams} streams stand after {opened:.1?}"));

    let sent = topic.sent.clone();
    let owed = |fleet: &Fleet, sent: u64| fleet.missing_of(sent, keys);
    let watch = Watch::begin(pid, &options.server_core)?;
    let pacing = topic.pace(rate);
    fleet.read_until(Duration::from_secs(seconds.into()), |_| pacing.is_over())?;
    let spent = watch.end()?;
    let (topic, late) = pacing.end()?;
    let total = sent.load(Ordering::Relaxed);
    fleet.read_until(GRACE, |tally| tally.delivered >= total)?;
    let live = Checked::of(&fleet.tally, owed(&fleet, total));
    let (live_ms, protocol) = (quantiles(&fleet.tally.latency), fleet.protocol());
    note(&format!("live: {live_ms:.1?} ms, {} of {total} lost", live.lost));

    // Records go on coming while there is no server.
    let pacing = topic.pace(rate);
    fleet.read_until(SETTLE, |_| false)?;
    serving.server.kill()?;
    let (_, gone) = fleet.into_subscribers();
    thread::sleep(DOWN);
    let began = Instant::now();
    let serving = start()?;
    let (pid, listens) = (serving.server.pid(), began.elapsed());
    let mut fleet = Fleet::new(Dial::new(serving.public, "/", options)?)?;
    fleet.open_for(gone.into_iter().map(Subscriber::again).collect(), options.concurrency)?;
    let (told, until) = (began.elapsed(), sent.load(Ordering::Relaxed));
    note(&format!("all are told where they begin after {told:.1?}"));
    let mut left = u64::MAX;
    while left > 0 && began.elapsed() < PATIENCE {
        fleet.read_until(LOOK, |_| false)?;
        left = owed(&fleet, until);
    }
    let back = began.elapsed();
    let (read, whole) = (kafka.read_by(pid)?, sent.load(Ordering::Relaxed));
    let (topic, _) = pacing.end()?;
    let total = sent.load(Ordering::Relaxed);
    fleet.read_until(GRACE, |_| false)?;
    Ok(Keyed {
        protocol,
        streams,
        partitions,
        rate,
        opened_in_s: opened.as_secs_f64(),
        pss_kib_per_stream: full.pss.saturating_sub(half.pss) as f64 / (streams as f64 / 2.0) / 1024.0,
        pss_mib: full.pss as f64 / MIB,
        live,
        live_ms,
        cpu_share: spent.cpu.as_secs_f64() / spent.elapsed.as_secs_f64(),
        publisher_late_ms: late.as_secs_f64() * 1e3,
        back: Back {
            listens_s: listens.as_secs_f64(),
            all_told_s: told.as_secs_f64(),
            all_live_s: back.as_secs_f64(),
            topic_mib: topic.bytes as f64 * whole as f64 / total as f64 / MIB,
            read_mib: read as f64 / MIB,
            pss_mib: Processes::from(pid).memory()?.pss as f64 / MIB,
            checked: Checked::of(&fleet.tally, owed(&fleet, total)),
        },
        noise: Noise::of(&spent),
    })
}

/// The defaults, but for what a replay may span.
fn configuration(options: &Options, kafka: &Kafka, topic: &str) -> String {
    format!(
        "upstreams: {{ source: {{ kafka: {{ brokers: [\"{}\"] }} }} }}
defaults:
  replay: {{ max_events: 1000000000, timeout: 10m, concurrency: {} }}
routes:
  - {{ path: \"/k/{{name}}\", from: {{ upstream: source, topic: {topic}, key: \"{{name}}\" }} }}
",
        kafka.addr, options.slots
    )
}

/// How long there is no server.
const DOWN: Duration = Duration::from_secs(2);

pub const HEAD: &str = "| keyed | streams | records/s | opened in | a stream (PSS) | p50, p99, max | server's CPU | delivered | wrong | tool | killed: listens, told, live again | read / range | delivered | wrong |";

impl Keyed {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { protocol, streams, rate, opened_in_s, pss_kib_per_stream, live, live_ms, .. } = self;
        let Self { cpu_share, noise, back, .. } = self;
        let Back { listens_s, all_told_s, all_live_s, topic_mib, read_mib, checked, .. } = back;
        format!(
            "| {protocol} | {streams} | {rate} | {opened_in_s:.1} s | {pss_kib_per_stream:.2} KiB | {} | {:.0} % | {} \
             | {:.0} % | {listens_s:.1}, {all_told_s:.1}, {all_live_s:.1} s | {read_mib:.1} / {topic_mib:.1} MiB | {} |",
            millis(live_ms),
            cpu_share * 100.0,
            live.cells(),
            noise.tool * 100.0,
            checked.cells(),
        )
    }
}

//! Streams of one key each, of one topic: what an idle one holds, what a record costs, and the return of all after the
//! server was killed.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::herd::quantiles;
use crate::history::PATIENCE;
use crate::kafka::{Kafka, key_name, share};
use crate::report::{Back, Checked, Keyed, Noise};
use crate::scenario::{MIB, SETTLE, note};
use crate::scratch::Scratch;
use crate::sse::Subscriber;
use crate::ssegate::Serving;
use crate::usage::{Memory, Watch};

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Keyed> {
    let (streams, rate) = (options.clients.unwrap_or(100_000), options.rate.unwrap_or(5_000));
    let (partitions, seconds) = (options.partitions.unwrap_or(4), options.seconds.unwrap_or(30));
    let keys = streams as u64;
    note(&format!("keyed: {streams} streams of a key each, {rate} records/s in {partitions} partitions"));
    let server = options.server.as_deref().context("name a server: --server")?;
    let scratch = Scratch::new()?;
    let kafka = Kafka::start(options, scratch.path()?)?;
    let topic = kafka.topic(partitions, Some(keys), options.payload)?;
    let rest = configuration(options, &kafka, &topic.name);
    let start = || Serving::start(server, options, scratch.path()?, &rest);
    let mut serving = start()?;
    thread::sleep(SETTLE);

    let began = Instant::now();
    let pid = serving.server.pid();
    let mut fleet = Fleet::new(Dial::new(serving.public, "/", options)?)?;
    let all = (0..keys).map(|number| Subscriber::of(format!("/k/{}", key_name(number)))).collect::<Vec<_>>();
    let mut all = all.into_iter();
    fleet.open_for(all.by_ref().take(streams / 2).collect(), options.concurrency)?;
    thread::sleep(SETTLE);
    let half = Memory::of(pid)?;
    fleet.open_for(all.collect(), options.concurrency)?;
    let opened = began.elapsed() - SETTLE;
    thread::sleep(SETTLE);
    let full = Memory::of(pid)?;
    note(&format!("{streams} streams stand after {opened:.1?}"));

    let sent = topic.sent.clone();
    let owed = |fleet: &Fleet, sent: u64| -> u64 {
        fleet.subscribers().map(|one| one.missing(&[share(sent, number(one), keys)])).sum()
    };
    let watch = Watch::begin(pid, options.server_core)?;
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
            pss_mib: Memory::of(pid)?.pss as f64 / MIB,
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

/// The number of the key that it reads.
fn number(subscriber: &Subscriber) -> u64 {
    let path = subscriber.path.as_deref().unwrap_or_default();
    path.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
}

/// How long the last events may take.
const GRACE: Duration = Duration::from_secs(5);

/// How long there is no server.
const DOWN: Duration = Duration::from_secs(2);

/// Between two looks whether all have everything.
const LOOK: Duration = Duration::from_millis(200);

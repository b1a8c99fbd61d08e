//! From a record's sending to Kafka until clients have it, beside a plain consumer that fetches the same records with
//! the same settings: what lies between the two is the server's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::nice;
use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::client::unix_nanos;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::kafka::{Kafka, Topic};
use crate::payload::Stamp;
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::scenario::{GRACE, SETTLE, note};
use crate::server::scratch::Scratch;
use crate::server::ssegate::{PATH, Serving};
use crate::server::usage::Watch;

/// Delays of records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delay {
    pub protocol: String,
    pub clients: usize,
    pub rate: u32,
    /// From sending to the plain consumer, and to the clients.
    pub fetch_ms: [f64; 3],
    pub client_ms: [f64; 3],
    /// Record by record, how much later clients had it than the plain consumer.
    pub beyond_ms: [f64; 3],
    /// Deliveries that came before the plain consumer had the record; counted as no delay beyond.
    pub earlier: u64,
    pub checked: Checked,
    pub noise: Noise,
}

/// Runs it.
///
/// # Errors
/// Where there is no Kafka, or a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Delay> {
    let (clients, rate) = (options.clients.unwrap_or(200), options.rate.unwrap_or(1_000));
    let seconds = Duration::from_secs(options.seconds.unwrap_or(15).into());
    note(&format!("delay: {clients} clients, {rate} records/s"));
    let scratch = Scratch::new()?;
    let kafka = Kafka::start(options, scratch.path()?)?;
    let topic = kafka.topic(1, None, options.payload)?;
    let serving = Serving::start(options, scratch.path()?, &configuration(&kafka, &topic))?;
    let mut fleet = Fleet::new(Dial::new(serving.public, PATH, options)?)?;
    fleet.open(clients, options.concurrency)?;
    let plain = Plain::start(&kafka, &topic)?;
    ahead_of_the_broker();
    fleet.read_until(SETTLE, |_| false)?;

    let sent = topic.sent.clone();
    let pacing = topic.pace(rate);
    fleet.read_until(WARM_UP, |_| pacing.is_over())?;
    let first = sent.load(Ordering::Relaxed);
    fleet.tally.begin();
    fleet.tally.arrivals = Some(Vec::new());
    let watch = Watch::begin(serving.server.pid(), &options.server_core)?;
    fleet.read_until(seconds, |_| pacing.is_over())?;
    let spent = watch.end()?;
    let (topic, _) = pacing.end()?;
    let total = topic.sent.load(Ordering::Relaxed);
    // What was under way when measuring began counts as delivered, too: the last come a moment after.
    fleet.read_until(GRACE, |tally| tally.delivered >= (total - first) * clients as u64)?;
    fleet.read_until(SETTLE, |_| false)?;

    let plain = plain.end(total)?;
    let arrivals = fleet.tally.arrivals.take().unwrap_or_default();
    let [mut fetch, mut beyond] = [(); 2].map(|()| fleet.tally.latency.clone());
    fetch.reset();
    beyond.reset();
    let measured = plain.iter().filter(|fetched| fetched.seq >= first);
    measured.for_each(|fetched| record(&mut fetch, fetched.arrived, fetched.at));
    let mut earlier = 0;
    for (seq, arrived) in arrivals.into_iter().filter(|(seq, _)| *seq >= first) {
        let at = plain.get(seq as usize).context("the plain consumer has not seen all")?.arrived;
        earlier += u64::from(arrived < at);
        record(&mut beyond, arrived, at);
    }
    Ok(Delay {
        protocol: fleet.protocol(),
        clients,
        rate,
        fetch_ms: quantiles(&fetch),
        client_ms: quantiles(&fleet.tally.latency),
        beyond_ms: quantiles(&beyond),
        earlier,
        checked: Checked::of(&fleet.tally, fleet.missing(total)),
        noise: Noise::of(&spent),
    })
}

fn record(histogram: &mut Histogram<u64>, now: u64, before: u64) {
    histogram.saturating_record(now.saturating_sub(before) / 1_000);
}

/// Everything by default.
fn configuration(kafka: &Kafka, topic: &Topic) -> String {
    format!(
        "upstreams: {{ source: {{ kafka: {{ brokers: [\"{}\"] }} }} }}
routes: [{{ path: {PATH}, from: {{ upstream: source, topic: {} }} }}]
",
        kafka.addr, topic.name
    )
}

/// This thread has the core before the broker, which shares it: what arrives is stamped when it does.
fn ahead_of_the_broker() {
    // Without the right to, the figures have the broker's work in them, on both sides.
    let _ = nice(-10);
}

/// A consumer that only notes when records come, in a thread of its own.
struct Plain {
    /// How many records there are, once that is known; it ends with the last.
    total: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Vec<Fetched>>>,
}

/// A record as the plain consumer got it; times in nanoseconds since the epoch.
struct Fetched {
    seq: u64,
    at: u64,
    arrived: u64,
}

impl Plain {
    fn start(kafka: &Kafka, topic: &Topic) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.addr.to_string());
        for (name, value) in AS_OURS {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&topic.name, 0, Offset::Beginning)?;
        consumer.assign(&all)?;
        let total = Arc::new(AtomicU64::new(u64::MAX));
        let expected = Arc::clone(&total);
        let thread = thread::spawn(move || {
            ahead_of_the_broker();
            let mut fetched = Vec::new();
            let mut last = Instant::now();
            while (fetched.len() as u64) < expected.load(Ordering::Relaxed) {
                let Some(message) = consumer.poll(POLL) else {
                    ensure!(
                        last.elapsed() < SILENCE,
                        "the plain consumer got {} records, then none",
                        fetched.len()
                    );
                    continue;
                };
                last = Instant::now();
                let (message, arrived) = (message?, unix_nanos());
                let stamp = Stamp::read(message.payload().unwrap_or_default());
                let Stamp { seq, at } = stamp.context("a record without a stamp")?;
                fetched.push(Fetched { seq, at, arrived });
            }
            Ok(fetched)
        });
        Ok(Self { total, thread })
    }

    /// What it has got, by number, once that is all of `total`.
    fn end(self, total: u64) -> anyhow::Result<Vec<Fetched>> {
        self.total.store(total, Ordering::Relaxed);
        self.thread.join().expect("the consumer does not panic")
    }
}

/// How the product's own consumer fetches: src/upstream/kafka/client.rs.
const AS_OURS: &[(&str, &str)] = &[
    ("group.id", "ssegate-load"),
    ("enable.auto.commit", "false"),
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "10000"),
    ("fetch.queue.backoff.ms", "10"),
    ("isolation.level", "read_committed"),
];

/// Records before the measured ones are for warming up.
const WARM_UP: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(100);

/// For how long no record may come.
const SILENCE: Duration = Duration::from_secs(30);

pub const HEAD: &str = "| Kafka to client | clients | records/s | plain consumer: p50, p99, max | clients | beyond it, record by record | p99 less p99 | delivered | wrong | core: server / others / tool |";

impl Delay {
    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { protocol, clients, rate, fetch_ms, client_ms, beyond_ms, checked, noise, .. } = self;
        format!(
            "| {protocol} | {clients} | {rate} | {} | {} | {} | {:.1} ms | {} | {} |",
            millis(fetch_ms),
            millis(client_ms),
            millis(beyond_ms),
            client_ms[1] - fetch_ms[1],
            checked.cells(),
            noise.cells()
        )
    }
}

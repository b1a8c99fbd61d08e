//! An Apache Kafka for one run, on the core of the load, or one that runs already; and topics in it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::Options;
use crate::client::unix_nanos;
use crate::payload::payload;
use crate::server::child::Child;
use crate::server::start::free_address;
use crate::sse::LANE;
use crate::wire::{Record, Wire, partition_of};

/// A broker, ended when dropped if it was started here.
pub struct Kafka {
    /// Where it listens.
    pub addr: SocketAddr,
    _server: Option<Child>,
}

impl Kafka {
    /// The one that the options name, or a new one with its data in `folder`.
    ///
    /// # Errors
    /// Where there is no Kafka to be started, or it does not come up.
    pub fn start(options: &Options, folder: &str) -> anyhow::Result<Self> {
        if let Some(addr) = options.kafka {
            return Ok(Self { addr, _server: None });
        }
        let path = &options.kafka_classpath;
        let classpath = fs::read_to_string(path).with_context(|| {
            format!("no class path of Kafka at {}; the tests of Kafka leave it there", path.display())
        })?;
        let (addr, controller) = (free_address()?, free_address()?);
        let settings = prepare(folder, addr, controller)?;
        let log = File::create(format!("{folder}/kafka.log"))?;
        let arguments: Vec<_> = ["java"]
            .iter()
            .chain(JVM)
            .copied()
            .chain(["-cp", classpath.trim(), "kafka.Kafka", &settings])
            .collect();
        let mut server = Child::start(&arguments, options.load_cores(), |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)
        })?;
        let deadline = Instant::now() + START;
        while Wire::connect(addr).and_then(|mut wire| wire.create_topic("ready", 1)).is_err() {
            if let Some(status) = server.ended()? {
                bail!("Kafka ended at once ({status})");
            }
            if Instant::now() > deadline {
                bail!("Kafka is not ready after {START:?}");
            }
            sleep(Duration::from_millis(100));
        }
        Ok(Self { addr, _server: Some(server) })
    }

    /// Creates a topic of its own for this run, whose records' keys, if it has any, are so many.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub fn topic(&self, partitions: u32, keys: Option<u64>, size: usize) -> anyhow::Result<Topic> {
        let name = format!("load-{}-{}", std::process::id(), unix_nanos() / 1_000_000);
        let mut wire = Wire::connect(self.addr)?;
        wire.create_topic(&name, partitions)?;
        let sent = Arc::default();
        let mut topic = Topic { name, partitions, keys, size, sent, bytes: 0, wire, waiting: Vec::new() };
        topic.waiting.resize_with(partitions as usize, Vec::new);
        // Leaders are found a moment later.
        sleep(Duration::from_secs(1));
        Ok(topic)
    }

    /// Bytes that process `pid` has received from the broker over connections that are still open.
    ///
    /// # Errors
    /// Where `ss`, of iproute2, does not tell.
    pub fn read_by(&self, pid: u32) -> anyhow::Result<u64> {
        let port = format!(":{}", self.addr.port());
        let output =
            Command::new("ss").args(["-tinpHO", "dst", &port]).output().context("ss does not run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let own = format!("pid={pid},");
        let received = |line: &str| -> Option<u64> {
            line.split("bytes_received:").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        Ok(text.lines().filter(|line| line.contains(&own)).filter_map(received).sum())
    }
}

/// A topic, and what was sent to it.
pub struct Topic {
    /// Its name.
    pub name: String,
    partitions: u32,
    keys: Option<u64>,
    size: usize,
    /// Records sent so far.
    pub sent: Arc<AtomicU64>,
    /// Their size, as they are stored.
    pub bytes: u64,
    wire: Wire,
    waiting: Vec<Vec<Record>>,
}

impl Topic {
    /// Sends `count` records, as fast as the broker takes them.
    ///
    /// # Errors
    /// Where it does not.
    pub fn fill(&mut self, count: u64) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let some = left.min(u64::from(self.partitions) * BATCH);
            self.send(some)?;
            left -= some;
        }
        Ok(())
    }

    /// Sends `rate` records a second from now on, in a thread of its own.
    pub fn pace(mut self, rate: u32) -> Pacing {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let late = self.pace_until(rate, &asked)?;
            Ok((self, late))
        });
        Pacing { stop, thread: Some(thread) }
    }

    /// Returns how late it was at most.
    fn pace_until(&mut self, rate: u32, stop: &AtomicBool) -> anyhow::Result<Duration> {
        // Each partition is a request of its own, and a broker on a busy core answers some 500 a second.
        let at_a_time = (u64::from(rate) * u64::from(self.partitions) / 200).max(1);
        let pace = Duration::from_secs_f64(at_a_time as f64 / f64::from(rate));
        let (mut due, mut late) = (Instant::now(), Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            sleep(due.saturating_duration_since(Instant::now()));
            late = late.max(due.elapsed());
            self.send(at_a_time)?;
            due += pace;
        }
        Ok(late)
    }

    /// The record with this number belongs to the key, or the partition, that is next in turn, and is numbered within
    /// that.
    fn send(&mut self, count: u64) -> anyhow::Result<()> {
        let (first, now) = (self.sent.load(Ordering::Relaxed), unix_nanos());
        for number in first..first + count {
            let (partition, key, seq) = match self.keys {
                Some(keys) => {
                    let key = key_name(number % keys);
                    (partition_of(&key, self.partitions), Some(key), number / keys)
                }
                None => {
                    let partition = number % u64::from(self.partitions);
                    (partition as u32, None, partition * LANE + number / u64::from(self.partitions))
                }
            };
            let value = payload(seq, now, self.size);
            self.waiting[partition as usize].push(Record { partition, key, value });
        }
        for records in &mut self.waiting {
            self.bytes += self.wire.produce(&self.name, records, now)? as u64;
            records.clear();
        }
        self.sent.store(first + count, Ordering::Relaxed);
        Ok(())
    }
}

/// A topic to which records are sent; ended when dropped.
pub struct Pacing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<(Topic, Duration)>>>,
}

impl Pacing {
    /// Whether it has come to an end by itself, as where the broker does.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it. Returns the topic, and how late it was at most.
    ///
    /// # Errors
    /// Where the broker did not take records.
    pub fn end(mut self) -> anyhow::Result<(Topic, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it was ended before")?;
        thread.join().expect("the publisher does not panic")
    }
}

impl Drop for Pacing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Of `sent` records, how many went to the key, or the partition, with this number, of so many.
pub fn share(sent: u64, number: u64, of: u64) -> u64 {
    (sent + of - 1 - number) / of
}

/// What the key with this number is called.
pub fn key_name(number: u64) -> String {
    format!("key-{number}")
}

/// Writes the settings, and "formats" the data directory as Kafka's own tool does.
fn prepare(folder: &str, addr: SocketAddr, controller: SocketAddr) -> anyhow::Result<String> {
    let data = format!("{folder}/data");
    fs::create_dir_all(&data)?;
    // A cluster's id is 16 bytes in base64url.
    fs::write(
        format!("{data}/meta.properties"),
        "version=1\ncluster.id=c3NlZ2F0ZS1sb2FkLWNsdA\nnode.id=1\n",
    )?;
    let settings = format!("{folder}/server.properties");
    fs::write(
        &settings,
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{addr},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{addr}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
{SETTINGS}"
        ),
    )?;
    Ok(settings)
}

/// With the first compiler alone: the second goes on for minutes, on the core that clients are on.
const JVM: &[&str] = &[
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
];

const SETTINGS: &str = "\
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
controlled.shutdown.enable=false
num.network.threads=2
num.io.threads=2
";

/// Records of a batch when a topic is filled: with 200 bytes each about 16 KiB, what Kafka's producers send by default.
const BATCH: u64 = 70;

/// How long Kafka may take until it is ready.
const START: Duration = Duration::from_secs(60);

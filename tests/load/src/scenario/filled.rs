//! A topic that was filled before anybody came, and what serves it with hardly any of it in memory.

use crate::args::Options;
use crate::kafka::{Kafka, Topic, share};
use crate::server::scratch::Scratch;
use crate::server::ssegate::{PATH, Serving};

/// A broker with a filled topic.
pub struct Filled {
    /// The broker.
    pub kafka: Kafka,
    /// The topic.
    pub topic: Topic,
    configuration: String,
    /// Their files; removed when they are not needed any more.
    pub scratch: Scratch,
}

impl Filled {
    /// With so many events.
    ///
    /// # Errors
    /// Where there is no Kafka.
    pub fn new(options: &Options, partitions: u32, events: u64) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let kafka = Kafka::start(options, scratch.path()?)?;
        let mut topic = kafka.topic(partitions, None, options.payload)?;
        topic.fill(events)?;
        let configuration = configuration(options, &kafka, &topic.name);
        Ok(Self { kafka, topic, configuration, scratch })
    }

    /// Starts an ssegate that serves it: clients without an id begin at its end, or at its first record on `/all`.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(&self, options: &Options) -> anyhow::Result<Serving> {
        Serving::start(options, self.scratch.path()?, &self.configuration)
    }
}

/// Where each of so many partitions ends after `sent` events.
pub fn ends(sent: u64, partitions: u32) -> Vec<u64> {
    (0..partitions.into()).map(|partition| share(sent, partition, partitions.into())).collect()
}

/// What is read, and how, for people.
pub fn source(options: &Options, partitions: u32) -> String {
    format!("Kafka, {partitions} partitions, {} slots", options.slots)
}

fn configuration(options: &Options, kafka: &Kafka, topic: &str) -> String {
    let route = |path: &str, start: &str| {
        format!("  - {{ path: {path}, from: {{ upstream: source, topic: {topic}, start: {start} }} }}\n")
    };
    format!(
        "upstreams: {{ source: {{ kafka: {{ brokers: [\"{}\"] }} }} }}
defaults:
  history: {{ events: 10 }}
  replay: {{ max_events: 1000000000, timeout: 10m, concurrency: {} }}
routes:
{}{}",
        kafka.addr,
        options.slots,
        route(PATH, "latest"),
        route("/all", "earliest")
    )
}

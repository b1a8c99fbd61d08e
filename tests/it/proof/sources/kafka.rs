//! A Kafka topic, read as a whole or by key; some routes keep nearly nothing in memory. What it holds in the end, or
//! held before some of it was taken away, is read by a consumer of the rig's own: that is what was published.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, SHORT, Source, View, all_and_short};
use crate::proof::verdict::placed::{Place, Placed};
use crate::support::kafka::{Kafka, Placed as Stored, Producer, Record, Transactional};
use crate::support::proxy::Proxy;
use crate::support::wait::{DEADLINE, eventually};

/// One topic on a broker of its own, read as a whole or by key; the first replica reads it through a proxy.
pub struct KafkaTopic<const KEYED: bool> {
    kafka: Kafka,
    link: Proxy,
    published: Placed,
    /// Up to where each partition of this era has been read, which is their number as well.
    read: Vec<i64>,
}

/// Two producers, an idempotent one and one of transactions, some of which it aborts.
pub struct KafkaPen {
    plain: Producer,
    transactional: Option<Transactional>,
    config: ClientConfig,
    batches: u64,
    /// Where the broker said that it had stored a record for good.
    stored: HashMap<u64, Stored>,
}

impl<const KEYED: bool> Source for KafkaTopic<KEYED> {
    const NAME: &'static str = if KEYED { "kafka-keys" } else { "kafka-topic" };
    const MENU: &'static [(Kind, usize)] = if KEYED { KEYS_MENU } else { TOPIC_MENU };
    const NUMBERS: (u64, u64) = if KEYED { (60_000, 700) } else { (100_000, 1_000) };

    type Pen = KafkaPen;

    async fn start() -> Option<Self> {
        let kafka = Kafka::start().await;
        if kafka.is_mock() {
            return None;
        }
        kafka.create_topic_with(TOPIC, PARTITIONS as i32, &[SEGMENTS]).await;
        let link = kafka.link().await;
        let published = Placed { eras: 1, ..Placed::default() };
        Some(Self { kafka, link, published, read: vec![0; PARTITIONS] })
    }

    fn config(&self, replica: usize) -> String {
        let broker = if replica == 0 { self.kafka.link_bootstrap() } else { self.kafka.bootstrap() };
        let keyed = format!("{{ upstream: up, topic: {TOPIC}, key: \"{{id}}\", partitioner: crc32 }}");
        let routes = all_and_short(&format!("from: {{ upstream: up, topic: {TOPIC} }}"));
        format!(
            r#"
upstreams: {{ up: {{ kafka: {{ brokers: ["{broker}"], properties: {{ topic.metadata.refresh.interval.ms: 500 }} }} }} }}
{routes}  - {{ path: "/key/{{id}}", from: {keyed} }}
  - {{ path: "/short/{{id}}", from: {keyed}, {SHORT} }}
"#
        )
    }

    fn views(&self) -> Vec<View> {
        if !KEYED {
            return View::all_and_short(8);
        }
        let of_key = |key: u64| {
            let path = format!("/{}/{key}", if key.is_multiple_of(2) { "key" } else { "short" });
            View { path, share: Some((KEYS, key)) }
        };
        (0..KEYS).map(of_key).collect()
    }

    async fn pen(&self) -> KafkaPen {
        let (plain, config) = (self.kafka.producer(), self.kafka.client_config());
        KafkaPen { plain, transactional: None, config, batches: 0, stored: HashMap::new() }
    }

    async fn suffer(&mut self, fault: Fault, pen: &Mutex<KafkaPen>, replicas: &Replicas) {
        match fault {
            Fault::Trimmed(part) => self.trim(part).await,
            Fault::TrimmedBehind => {
                self.link.pause();
                sleep(Duration::from_secs(1)).await;
                self.trim(1.0).await;
                self.link.cut_all();
                self.link.resume();
            }
            Fault::Expired => self.expire(pen, "1", |(low, high), _| low == high).await,
            Fault::Shortened => self.expire(pen, "2000", |(low, _), before| low > before).await,
            Fault::Widened => {
                let total = self.read.len() + 1;
                self.kafka.add_partitions(TOPIC, total).await;
                self.read.push(0);
            }
            Fault::Recreated => self.recreate(pen, replicas).await,
            other => {
                harm(&mut self.kafka, &self.link, other).await;
                // It may have been given up meanwhile.
                self.bounds().await;
            }
        }
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, pen: KafkaPen) -> Published {
        self.close_era().await;
        for (number, stored) in &pen.stored {
            let (partition, offset) = (stored.partition as u32, (stored.offset as u64, 0));
            let place = self.published.places.get(number).copied();
            let same = place.is_some_and(|place| (place.partition, place.offset) == (partition, offset));
            assert!(same, "the broker said that it stored {number} at {stored:?}, and has it at {place:?}");
        }
        Published::Placed(std::mem::take(&mut self.published))
    }
}

impl<const KEYED: bool> KafkaTopic<KEYED> {
    /// Deletes this part of what each partition is known to hold.
    async fn trim(&mut self, part: f64) {
        let lows = self.read_on().await;
        for (partition, (low, end)) in (0..).zip(lows.into_iter().zip(self.read.clone())) {
            let before = low + ((end - low) as f64 * part) as i64;
            self.kafka.delete_records(TOPIC, partition, before).await;
            self.begins(partition as u32, before);
        }
    }

    /// Shortens retention to these milliseconds, until it has taken enough of a partition that holds something, and of as
    /// many others; while nobody publishes. Enough is told by where the partition begins and ends, and where it began.
    async fn expire(&mut self, pen: &Mutex<KafkaPen>, millis: &str, enough: fn((i64, i64), i64) -> bool) {
        let _nobody_publishes = pen.lock().await;
        let before = self.read_on().await;
        self.kafka.set_topic(TOPIC, &[SEGMENTS, ("retention.ms", millis)]).await;
        eventually("retention to take enough", async || {
            let bounds = self.bounds().await;
            let mut holding = bounds.iter().zip(&before).filter(|((_, high), before)| high > before);
            if holding.all(|(bounds, before)| enough(*bounds, *before)) {
                Ok(())
            } else {
                Err(format!("{bounds:?}"))
            }
        })
        .await;
        self.kafka.set_topic(TOPIC, &[SEGMENTS]).await;
        for (partition, (low, _)) in (0..).zip(self.bounds().await) {
            self.begins(partition, low);
        }
    }

    /// Both replicas have to see that the topic is gone.
    async fn recreate(&mut self, pen: &Mutex<KafkaPen>, replicas: &Replicas) {
        let mut pen = pen.lock().await;
        self.close_era().await;
        let deleted = SystemTime::now();
        self.kafka.delete_topic(TOPIC).await;
        replicas.until_told(&format!("topic {TOPIC} "), deleted).await;
        self.kafka.create_topic_with(TOPIC, PARTITIONS as i32, &[SEGMENTS]).await;
        self.published.eras += 1;
        self.read = vec![0; PARTITIONS];
        // Producers know a topic by more than its name.
        let stored = std::mem::take(&mut pen.stored);
        *pen = KafkaPen { stored, ..self.pen().await };
    }

    /// Reads what the topic holds up to now, and where it begins.
    async fn close_era(&mut self) {
        for (partition, low) in (0..).zip(self.read_on().await) {
            self.begins(partition, low);
        }
    }

    /// A partition begins here, or did: a broker that is killed soon after records were deleted has them again.
    fn begins(&mut self, partition: u32, low: i64) {
        let known = self.published.lows.entry((self.published.eras - 1, partition)).or_default();
        *known = (low as u64, 0).max(*known);
    }

    /// Notes what has been published since this was asked last. Returns where each partition begins.
    async fn read_on(&mut self) -> Vec<i64> {
        let (config, era) = (self.consumer_config(), self.published.eras - 1);
        let lows: Vec<_> = self.bounds().await.into_iter().map(|(low, _)| low).collect();
        let from = self.read.iter().zip(&lows).map(|(&read, &low)| read.max(low)).collect();
        let reading = tokio::task::spawn_blocking(move || read(&config, from));
        let (found, ends) = reading.await.expect("no panic");
        self.read = ends;
        for (number, partition, offset) in found {
            let place = Place { era, partition, offset: (offset, 0) };
            let twice = self.published.places.insert(number, place);
            assert_eq!(twice, None, "the broker stored {number} twice");
        }
        lows
    }

    async fn bounds(&self) -> Vec<(i64, i64)> {
        bounds(self.consumer_config(), self.read.len()).await
    }

    fn consumer_config(&self) -> ClientConfig {
        let mut config = self.kafka.client_config();
        config.set("group.id", "proof").set("isolation.level", "read_committed");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        config
    }
}

impl Pen for KafkaPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        self.batches += 1;
        let record =
            |number: u64| Record::to(TOPIC).key((number % KEYS).to_string()).payload(number.to_string());
        let records: Vec<_> = numbers.clone().map(record).collect();
        if !self.batches.is_multiple_of(4) {
            let outcomes = self.plain.try_send_all(records).await;
            let stored = numbers.zip(outcomes).filter_map(|(number, outcome)| Some((number, outcome.ok()?)));
            return self.stored.extend(stored);
        }
        let transactional = match self.transactional.take() {
            Some(transactional) => transactional,
            None => Transactional::new(&self.config, "proof").await,
        };
        let commit = !self.batches.is_multiple_of(16);
        if let Ok(stored) = transactional.try_transaction(records, commit).await {
            self.transactional = Some(transactional);
            if commit {
                self.stored.extend(numbers.zip(stored));
            }
        }
    }
}

/// Where each partition begins and ends.
async fn bounds(config: ClientConfig, partitions: usize) -> Vec<(i64, i64)> {
    eventually("the topic's ends", async || {
        let config = config.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create()?;
            let ask = |partition| consumer.fetch_watermarks(TOPIC, partition as i32, DEADLINE);
            (0..partitions).map(ask).collect::<Result<_, KafkaError>>()
        });
        asking.await.expect("no panic")
    })
    .await
}

/// Number, partition and offset of each record from `from` on, and up to where they have been read. Blocking.
fn read(config: &ClientConfig, from: Vec<i64>) -> (Vec<(u64, u32, u64)>, Vec<i64>) {
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for (partition, &offset) in from.iter().enumerate() {
        list.add_partition_offset(TOPIC, partition as i32, Offset::Offset(offset)).expect("an offset");
    }
    consumer.assign(&list).expect("partitions");
    let (mut found, mut ends) = (Vec::new(), from);
    let mut open: HashSet<_> = (0..ends.len() as i32).collect();
    let deadline = Instant::now() + DEADLINE;
    while !open.is_empty() {
        assert!(Instant::now() < deadline, "the topic is not read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if open.contains(&message.partition()) => {
                let (partition, offset) = (message.partition(), message.offset());
                let payload = message.payload_view::<str>().expect("a payload").expect("text");
                found.push((payload.parse().expect("a number"), partition as u32, offset as u64));
                ends[partition as usize] = offset + 1;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            // It is read on when the broker answers again.
            Some(Ok(_) | Err(_)) | None => {}
        }
    }
    (found, ends)
}

const TOPIC: &str = "numbers";
const PARTITIONS: usize = 4;
const KEYS: u64 = 8;
/// Small, since retention takes whole ones: some seconds of a partition each.
const SEGMENTS: (&str, &str) = ("segment.bytes", "65536");

const TOPIC_MENU: &[(Kind, usize)] = &[
    (Kind::BrokerKilled, 2),
    (Kind::BrokerStopped, 3),
    (Kind::LinkReset, 4),
    (Kind::LinkSilent, 3),
    (Kind::ReplicaKilled, 6),
    (Kind::Trimmed, 3),
    (Kind::TrimmedBehind, 3),
    (Kind::Expired, 1),
    (Kind::Shortened, 2),
    (Kind::Widened, 2),
    (Kind::Recreated, 1),
];

const KEYS_MENU: &[(Kind, usize)] = &[
    (Kind::BrokerKilled, 2),
    (Kind::BrokerStopped, 2),
    (Kind::LinkReset, 3),
    (Kind::LinkSilent, 2),
    (Kind::ReplicaKilled, 5),
    (Kind::Trimmed, 2),
    (Kind::TrimmedBehind, 2),
    (Kind::Expired, 1),
    (Kind::Shortened, 2),
    (Kind::Widened, 2),
    (Kind::Recreated, 1),
];

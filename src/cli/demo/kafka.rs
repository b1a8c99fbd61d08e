//! A Kafka within the process: librdkafka's mock cluster, which speaks the real protocol on a port of its own,
//! and a producer that fills its topic. Both live on one thread, since the cluster must not leave it.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::orders::Orders;

/// A running cluster. What is produced ends when this is dropped.
pub(super) struct Kafka {
    brokers: String,
    /// Its thread begins to produce when told so, and ends when this is hung up.
    orders: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kafka {
    /// Starts the cluster, its topic still empty.
    pub(super) fn start() -> anyhow::Result<Self> {
        let (orders, told_to_produce) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let serve = move || match Cluster::new() {
            Ok(cluster) => {
                let _ = tell.send(Ok(cluster.cluster.bootstrap_servers()));
                cluster.produce(&told_to_produce);
                // It ends with the process: the upstream's client is still closing, and would complain.
                std::mem::forget(cluster.cluster);
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("demo-kafka".to_owned()).spawn(serve)?;
        let brokers = told.recv()?.context("the Kafka within the process does not start")?;
        Ok(Self { brokers, orders: Some(orders), thread: Some(thread) })
    }

    /// Begins to fill the topic. Where orders come while its partitions are still being opened one by one, what
    /// is read first has holes.
    pub(super) fn produce(&self) {
        let _ = self.orders.as_ref().map(|orders| orders.send(()));
    }

    /// Where it listens: `host:port`.
    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.orders.take());
        // A panic there was told by the thread itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The cluster and what fills it.
struct Cluster {
    producer: BaseProducer,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Cluster {
    fn new() -> KafkaResult<Self> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(TOPIC, PARTITIONS, 1)?;
        let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create()?;
        Ok(Self { producer, cluster })
    }

    /// Produces from the first word on `told` until that is hung up.
    fn produce(&self, told: &mpsc::Receiver<()>) {
        if told.recv().is_err() {
            return;
        }
        let mut orders = Orders::default();
        loop {
            let pause = PAUSE.mul_f64(rand::random_range(0.5..1.5));
            if told.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Disconnected) {
                break;
            }
            let message = orders.next();
            let headers = OwnedHeaders::new().insert(Header { key: "type", value: Some(message.kind) });
            let record = BaseRecord::to(TOPIC).key(&message.key).payload(&message.payload).headers(headers);
            if let Err((error, _)) = self.producer.send(record) {
                tracing::warn!(%error, "an order of the demo was not sent");
            }
            self.producer.poll(Duration::ZERO);
        }
        // Nothing that waits is worth a moment at the end.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;
/// The mean time between two orders.
const PAUSE: Duration = Duration::from_secs(1);

//! Kafka for the tests: a real Apache Kafka, one node in KRaft mode, as a child process.
//!
//! Most tests share one broker ([`Kafka::shared`]) and use topics of their own; a test that kills its
//! broker starts its own ([`Kafka::start`]). Where Java or Maven cannot be had, librdkafka's
//! in-process mock cluster takes the broker's place and says so on stderr, unless
//! `SSEGATE_REQUIRE_KAFKA=1` forbids it. The mock has one broker too; what it cannot do is named at
//! each method, and [`Kafka::is_mock`] tells.

mod admin;
mod broker;
mod install;
mod mock;
mod producer;
mod security;
mod tools;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use rdkafka::ClientConfig;
use tokio::sync::OnceCell;

pub use self::install::say;
pub use self::producer::{Placed, Producer, Record, Transactional};
pub use self::security::{CERTIFIED, PLAIN, Security};
use super::proxy::Proxy;
use broker::Broker;
use mock::Mock;

/// A one-node cluster.
pub struct Kafka {
    backend: Backend,
    producer: OnceLock<Producer>,
}

enum Backend {
    Real(Box<Broker>),
    Mock(Mock),
}

impl Kafka {
    /// The cluster that all tests of this binary share. Nobody may stop it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// The cluster that all tests of TLS, SASL and ACLs share, with such listeners beside the plain one. Nobody may
    /// stop it. `None` where there is only the mock, which knows nothing of these.
    pub async fn secured() -> Option<&'static Self> {
        static SECURED: OnceCell<Kafka> = OnceCell::const_new();
        let kafka = SECURED.get_or_init(|| Self::start_with(Some(Security::new()))).await;
        (!kafka.is_mock()).then_some(kafka)
    }

    /// A cluster of the test's own.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(security: Option<Security>) -> Self {
        let classpath = tokio::task::spawn_blocking(|| CLASSPATH.clone()).await.expect("no panic");
        let backend = match classpath {
            Ok(classpath) => Backend::Real(Box::new(Broker::start(classpath, security).await)),
            Err(reason) => {
                assert!(!is_required(), "SSEGATE_REQUIRE_KAFKA=1, but there is no Apache Kafka: {reason}");
                Backend::Mock(Mock::start())
            }
        };
        Self { backend, producer: OnceLock::new() }
    }

    /// Whether this is librdkafka's mock cluster.
    pub fn is_mock(&self) -> bool {
        matches!(self.backend, Backend::Mock(_))
    }

    /// `host:port` for `brokers` in the configuration and for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        match &self.backend {
            Backend::Real(broker) => broker.bootstrap(),
            Backend::Mock(mock) => mock.bootstrap(),
        }
    }

    /// A second way in, through a proxy that the test may cut, pause or slow: its address is what the
    /// broker advertises to clients that come this way, so all their connections pass through it. One
    /// at a time; not on the mock.
    pub async fn link(&self) -> Proxy {
        match &self.backend {
            Backend::Real(broker) => Proxy::start_on(broker.link_advertised(), broker.link_target()).await,
            Backend::Mock(_) => panic!("the mock cluster cannot advertise a proxy: check is_mock() first"),
        }
    }

    /// `bootstrap` of the cluster as seen through [`Self::link`].
    pub fn link_bootstrap(&self) -> String {
        match &self.backend {
            Backend::Real(broker) => broker.link_advertised().to_string(),
            Backend::Mock(_) => panic!("the mock cluster cannot advertise a proxy: check is_mock() first"),
        }
    }

    /// SIGKILL. On the mock: the broker drops its connections and refuses new ones.
    pub fn kill(&mut self) {
        match &mut self.backend {
            Backend::Real(broker) => broker.kill(),
            Backend::Mock(mock) => mock.set_up(false),
        }
    }

    /// An orderly shutdown (SIGTERM), waited for. On the mock the same as [`Self::kill`].
    pub async fn stop(&mut self) {
        match &mut self.backend {
            Backend::Real(broker) => broker.stop().await,
            Backend::Mock(mock) => mock.set_up(false),
        }
    }

    /// Brings it back on the same port with the same data, and waits until it answers.
    pub async fn restart(&mut self) {
        match &mut self.backend {
            Backend::Real(broker) => broker.restart().await,
            Backend::Mock(mock) => mock.set_up(true),
        }
    }

    /// SIGSTOP: connections stay open, nothing answers. Not on the mock.
    pub fn pause(&mut self) {
        self.broker("pause").pause();
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.broker("resume").resume();
    }

    /// Creates a topic and waits until all its partitions have a leader.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]).await;
    }

    /// The same with topic settings such as `cleanup.policy`; the mock ignores them.
    pub async fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        match &self.backend {
            Backend::Real(broker) => {
                admin::create_topic(&broker.bootstrap(), name, partitions, settings).await
            }
            Backend::Mock(mock) => mock.create_topic(name, partitions),
        }
    }

    /// Deletes a topic and waits until it is gone. Not on the mock.
    pub async fn delete_topic(&self, name: &str) {
        admin::delete_topic(&self.real("delete_topic").bootstrap(), name).await;
    }

    /// Raises a topic's partitions to `total`, and waits for their leaders. Not on the mock.
    pub async fn add_partitions(&self, name: &str, total: usize) {
        admin::add_partitions(&self.real("add_partitions").bootstrap(), name, total).await;
    }

    /// Trims a partition: records before `offset` are gone, as when retention passed. Not on the mock.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        admin::delete_records(&self.real("delete_records").bootstrap(), topic, partition, offset).await;
    }

    /// Gives a topic these settings and resets all others. Not on the mock.
    pub async fn set_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        admin::set_topic(&self.real("set_topic").bootstrap(), topic, settings).await;
    }

    /// The secured listeners; of [`Self::secured`] alone.
    pub fn security(&self) -> &Security {
        self.real("security").security().expect("a secured broker")
    }

    /// Gives a user of SASL SCRAM-SHA-512 this password, and makes the user where there is none.
    pub async fn set_password(&self, user: &str, password: &str) {
        self.real("set_password").tools().set_password(user, password).await;
    }

    /// Lets the user do these `operations`, such as `Read`, on the topic.
    pub async fn allow(&self, user: &str, topic: &str, operations: &[&str]) {
        self.real("allow").tools().set_acls("--add", user, topic, operations).await;
    }

    /// Takes back what [`Self::allow`] gave.
    pub async fn disallow(&self, user: &str, topic: &str, operations: &[&str]) {
        self.real("disallow").tools().set_acls("--remove", user, topic, operations).await;
    }

    /// Another client that produces, beside the cluster's own.
    pub fn producer(&self) -> Producer {
        Producer::new(&self.client_config())
    }

    /// A producer of transactions. On the mock, aborted records are not hidden from readers.
    pub async fn transactional(&self, id: &str) -> Transactional {
        Transactional::new(&self.client_config(), id).await
    }

    /// Sends one record and waits until it is stored.
    pub async fn produce(&self, record: Record) -> Placed {
        self.own_producer().send(record).await
    }

    /// Sends many and waits until all are stored. Within a partition they keep this order.
    pub async fn produce_all(&self, records: impl IntoIterator<Item = Record>) -> Vec<Placed> {
        self.own_producer().send_all(records).await
    }

    /// What every rdkafka client of the rig starts from.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        // A broker that comes back is found again soon.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
        // So is a partition that was added.
        config.set("topic.metadata.refresh.interval.ms", "1000");
        config
    }

    fn own_producer(&self) -> &Producer {
        self.producer.get_or_init(|| self.producer())
    }

    fn real(&self, what: &str) -> &Broker {
        match &self.backend {
            Backend::Real(broker) => broker,
            Backend::Mock(_) => panic!("the mock cluster cannot {what}: check is_mock() first"),
        }
    }

    fn broker(&mut self, what: &str) -> &mut Broker {
        match &mut self.backend {
            Backend::Real(broker) => broker,
            Backend::Mock(_) => panic!("the mock cluster cannot {what}: check is_mock() first"),
        }
    }
}

/// A topic name that no other test of this run uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Found once per run; an error is the reason for the mock, said aloud once.
static CLASSPATH: LazyLock<Result<String, String>> = LazyLock::new(|| {
    let found = install::classpath();
    if let (Err(reason), false) = (&found, is_required()) {
        install::say(&format!(
            "NO REAL KAFKA: the tests use librdkafka's mock cluster instead, because {reason}"
        ));
    }
    found
});

fn is_required() -> bool {
    std::env::var_os("SSEGATE_REQUIRE_KAFKA").is_some_and(|value| value == "1")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

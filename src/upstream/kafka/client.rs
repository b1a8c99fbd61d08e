//! The librdkafka consumer: its properties, and what it says about itself.

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::cause;
use super::lag::Ends;
use crate::config;
use crate::upstream::Broken;

/// A consumer that tells us how it is.
pub(super) type Consumer = BaseConsumer<Context>;

/// What librdkafka tells about itself.
#[derive(Default)]
pub(super) struct Context {
    news: Mutex<News>,
    ends: Mutex<Option<Ends>>,
}

/// How the cluster is, by what librdkafka told.
#[derive(Debug, Default, Clone)]
pub(super) struct News {
    /// Why the newest failed attempt at a broker failed.
    pub(super) error: Option<String>,
    /// Whether no broker was left, since this was asked last.
    pub(super) all_down: bool,
}

impl Context {
    /// What went wrong before is over.
    pub(super) fn clear(&self) {
        *self.news.lock() = News::default();
    }

    /// Why the newest failed attempt at a broker failed.
    pub(super) fn error(&self) -> Option<String> {
        self.news.lock().error.clone()
    }

    /// How it stands.
    pub(super) fn news(&self) -> News {
        let mut news = self.news.lock();
        let told = news.clone();
        news.all_down = false;
        told
    }
}

impl Context {
    /// Where partitions end, if there is news of that.
    pub(super) fn take_ends(&self) -> Option<Ends> {
        self.ends.lock().take()
    }
}

impl ClientContext for Context {
    fn stats_raw(&self, statistics: &[u8]) {
        *self.ends.lock() = Ends::parse(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut news = self.news.lock();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            news.all_down = true;
            news.error.get_or_insert_with(|| reason.to_owned());
        } else {
            news.error = Some(cause::of_attempt(reason));
        }
    }

    /// A link that a broker closes, as one does that wants TLS where none is spoken, is no error to librdkafka and
    /// is told here alone.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.news.lock().error = Some(cause::of_attempt(message));
        }
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }
}

impl ConsumerContext for Context {}

/// How often to look for new partitions.
pub(super) fn refresh_interval(config: &config::Kafka) -> Duration {
    let millis = config.properties.get(METADATA_REFRESH).and_then(|value| value.expose().parse().ok());
    // librdkafka's -1 switches it off; a look now and then still costs nothing.
    millis.map_or(DEFAULT_REFRESH, Duration::from_millis)
}

/// A consumer for the configured cluster. Nothing is connected yet.
pub(super) fn consumer(config: &config::Kafka) -> Result<Consumer, Broken> {
    with(config, &[])
}

/// A client that reads nothing and asks.
pub(super) fn asker(config: &config::Kafka) -> Result<Consumer, Broken> {
    with(config, &[(STATISTICS, "0")])
}

/// A consumer that reads a stretch of one partition at a time.
pub(super) fn history_consumer(config: &config::Kafka) -> Result<Consumer, Broken> {
    with(config, HISTORY)
}

/// Lets go of consumers on a thread of its own, since closing one can take long.
///
/// Also of those that knew a topic which was created anew: librdkafka remembers the epoch of each partition's leader and
/// takes a lower one for old news, so that it would not read the new topic before that has had as many leaders.
pub(super) fn let_go(consumers: impl Send + 'static) {
    drop(std::thread::Builder::new().name("kafka-let-go".to_owned()).spawn(move || drop(consumers)));
}

fn with(config: &config::Kafka, more: &[(&str, &str)]) -> Result<Consumer, Broken> {
    let mut properties = ClientConfig::new();
    for (name, value) in DEFAULTS {
        properties.set(*name, *value);
    }
    for (name, value) in &config.properties {
        properties.set(name, value.expose());
    }
    properties.set("bootstrap.servers", config.brokers.join(","));
    for (name, value) in FIXED.iter().chain(more) {
        properties.set(*name, *value);
    }
    // What the log says of failures is needed, whether or not it is shown.
    if !matches!(properties.log_level, RDKafkaLogLevel::Debug) {
        properties.set_log_level(RDKafkaLogLevel::Info);
    }
    let made = properties.create_with_context(Context::default());
    made.map_err(|error| Broken::new("librdkafka does not accept the properties", error))
}

/// Takes in what the client has to tell of itself, where its records are not polled for.
pub(super) fn serve(client: &Consumer) {
    // Without a timeout, a poll ends after one event.
    while client.poll(SERVE).is_some() {}
}

/// How often the cluster is asked for its topics and partitions, in milliseconds.
pub(super) const METADATA_REFRESH: &str = "topic.metadata.refresh.interval.ms";

/// How often the consumer tells where partitions end, in milliseconds.
const STATISTICS: &str = "statistics.interval.ms";

/// What `properties` may change.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "ssegate"),
    // Manual assignment commits nothing, but librdkafka wants a group all the same.
    ("group.id", "ssegate"),
    // The vendored OpenSSL would look for public certificates where no system keeps them.
    ("ssl.ca.location", "probe"),
    ("socket.keepalive.enable", "true"),
    // Also how often new partitions are looked for.
    (METADATA_REFRESH, "30000"),
    (STATISTICS, "5000"),
    // A broker that comes back is noticed soon.
    ("reconnect.backoff.max.ms", "2000"),
    // The logs are the buffer; librdkafka's own may be small (its defaults are 64 MiB and 100,000).
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "10000"),
    // How long fetching rests once that is full. The default, a second, would leave it empty for most of that time.
    ("fetch.queue.backoff.ms", "10"),
    ("isolation.level", "read_committed"),
];

/// What resuming depends on; the configuration refuses to change these.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    ("allow.auto.create.topics", "false"),
    // Anything else would skip to one end in silence.
    ("auto.offset.reset", "error"),
];

/// What is different where history is read.
const HISTORY: &[(&str, &str)] = &[
    (STATISTICS, "0"),
    // Says that there is nothing but holes up to the end.
    ("enable.partition.eof", "true"),
    // A replica near by might end before the leader does.
    ("client.rack", ""),
    // What it fetches ahead is of use only if the next read goes on here.
    ("fetch.message.max.bytes", "262144"),
    ("queued.max.messages.kbytes", "256"),
    ("fetch.queue.backoff.ms", "1"),
    // A slot that is sent elsewhere waits for the answer to what it asked before, which at the end comes late.
    ("fetch.wait.max.ms", "100"),
];

const DEFAULT_REFRESH: Duration = Duration::from_secs(30);

const SERVE: Duration = Duration::from_millis(1);

/// How long a question to the cluster may take.
pub(super) const ASK: Duration = Duration::from_secs(3);

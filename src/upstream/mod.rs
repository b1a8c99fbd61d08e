//! Upstreams: where records come from. Each kind is one file and a few lines in [`Running`]; what they have in
//! common, above all reconnecting, is the `runner`'s.

mod amqp;
mod askers;
mod begun;
mod changes;
mod doubt;
mod entry;
mod http;
mod kafka;
mod lag;
mod lines;
mod link;
mod mqtt;
mod nats;
mod numbered;
mod pace;
mod paths;
mod postgres;
mod push;
mod redis;
mod runner;
mod schemas;
mod socket;
mod sse;
#[cfg(test)]
mod tests;
mod ticker;
mod turns;
mod waiting;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use amqp::OffsetCodec;
pub use kafka::{Incarnation, KeyedCodec, TopicCodec};
pub use lines::stdin_ended;
pub use link::{Health, Link};
pub use nats::StreamCodec;
pub use postgres::RowCodec;
pub use push::Push;
pub use redis::EntryCodec;

use crate::config::{Upstream as Config, UpstreamKind};
use crate::history::{Pool, Reader};
use crate::hub::Memory;

/// A kind of upstream.
trait Upstream: Send + Sync + 'static {
    /// Whether what is published while the link is down is lost for good, and must be told as a gap.
    const LOSSY: bool;

    /// One link from its beginning to its end: connects, keeps its subscriptions equal to the wanted set
    /// while that changes, hands records over, and returns why it ended. Ended from outside by dropping.
    fn session(self: Arc<Self>, link: Arc<Link>) -> impl Future<Output = Broken> + Send;

    /// A session was ended while its link stood: notes what may be missed until the next one stands.
    fn leaves(&self, _link: &Link) {}
}

/// Why a link ended, in words for the operator; holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

impl Broken {
    /// `doing` failed because of `cause`.
    fn new(doing: &str, cause: impl std::fmt::Display) -> Self {
        Self(format!("{doing}: {cause}"))
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// The upstream says no to it, or took too long for it. Others are not concerned.
    #[error("{0}")]
    Refused(String),
    /// The link does not do.
    #[error("{0}")]
    Broken(Broken),
}

/// What reading the history of upstreams may take.
pub struct Histories {
    /// Room for what was read.
    pub memory: Arc<Memory>,
    /// How many reads each upstream serves at a time.
    pub concurrency: usize,
}

impl Histories {
    /// For those who read the history of the upstream behind `link`.
    fn pool<R: Reader>(&self, link: &Arc<Link>) -> Arc<Pool<R>> {
        let (own, memory) = (Arc::clone(link), Arc::clone(&self.memory));
        Pool::new(self.concurrency, memory, link.history_metrics(), move |cause| own.trouble(cause))
    }
}

/// An upstream that is served: keeps its link up, and serves its history. Ends when this is dropped.
pub struct Running {
    link: Arc<Link>,
    kind: Kind,
    anew: Arc<Notify>,
    _tasks: JoinSet<()>,
}

enum Kind {
    Redis(Arc<redis::Redis>),
    Kafka(Arc<kafka::Kafka>),
    Ticker(Arc<ticker::Ticker>),
    Push,
    /// Standard input, or a file: another one is another system.
    Lines,
    Postgres(Arc<postgres::Postgres>),
    Amqp(Arc<amqp::Amqp>),
    Sse(Arc<sse::Sse>),
    Http(Arc<http::Http>),
    Nats(Arc<nats::Nats>),
    Mqtt(Arc<mqtt::Mqtt>),
}

impl Running {
    /// Starts to keep `link` up, of which no event has more bytes than `max_event`. Only `push` needs more: its entry.
    pub fn start(
        config: &Config,
        link: &Arc<Link>,
        push: &Arc<Push>,
        histories: &Histories,
        max_event: usize,
    ) -> Self {
        let (mut tasks, anew) = (JoinSet::new(), Arc::<Notify>::default());
        let (own, told) = (Arc::clone(link), Arc::clone(&anew));
        let kind = match &config.kind {
            UpstreamKind::Redis(redis) => {
                let redis = redis::Redis::new(redis, link, histories);
                tasks.spawn(Arc::clone(&redis).serve_history());
                tasks.spawn(runner::run(Arc::clone(&redis), own, told));
                Kind::Redis(redis)
            }
            UpstreamKind::Kafka(kafka) => {
                let kafka = kafka::Kafka::new(kafka, link, histories);
                tasks.spawn(Arc::clone(&kafka).serve_history());
                tasks.spawn(runner::run(Arc::clone(&kafka), own, told));
                Kind::Kafka(kafka)
            }
            UpstreamKind::Ticker(ticker) => {
                let ticker = ticker::Ticker::new(ticker);
                tasks.spawn(runner::run(Arc::clone(&ticker), own, told));
                Kind::Ticker(ticker)
            }
            UpstreamKind::Push => {
                push.goes_to(link);
                tasks.spawn(runner::run(Arc::clone(push), own, told));
                Kind::Push
            }
            UpstreamKind::File(path) => {
                tasks.spawn(runner::run(lines::File::new(path), own, told));
                Kind::Lines
            }
            UpstreamKind::Stdin => {
                tasks.spawn(runner::run(Arc::new(lines::Stdin), own, told));
                Kind::Lines
            }
            UpstreamKind::Postgres(postgres) => {
                let postgres = postgres::Postgres::new(postgres, link, histories);
                tasks.spawn(Arc::clone(&postgres).serve_history());
                tasks.spawn(runner::run(Arc::clone(&postgres), own, told));
                Kind::Postgres(postgres)
            }
            UpstreamKind::Amqp(amqp) => {
                let amqp = amqp::Amqp::new(amqp, link, histories, max_event);
                tasks.spawn(Arc::clone(&amqp).serve_history());
                tasks.spawn(runner::run(Arc::clone(&amqp), own, told));
                Kind::Amqp(amqp)
            }
            UpstreamKind::Sse(sse) => {
                let sse = sse::Sse::new(sse, histories);
                tasks.spawn(Arc::clone(&sse).serve_history(Arc::clone(link)));
                tasks.spawn(runner::run(Arc::clone(&sse), own, told));
                Kind::Sse(sse)
            }
            UpstreamKind::Http(http) => {
                let http = http::Http::new(http);
                tasks.spawn(runner::run(Arc::clone(&http), own, told));
                Kind::Http(http)
            }
            UpstreamKind::Nats(nats) => {
                let nats = nats::Nats::new(nats, link, histories);
                tasks.spawn(Arc::clone(&nats).serve_history());
                tasks.spawn(runner::run(Arc::clone(&nats), own, told));
                Kind::Nats(nats)
            }
            UpstreamKind::Mqtt(mqtt) => {
                let mqtt = mqtt::Mqtt::new(mqtt, max_event);
                tasks.spawn(runner::run(Arc::clone(&mqtt), own, told));
                Kind::Mqtt(mqtt)
            }
        };
        Self { link: Arc::clone(link), kind, anew, _tasks: tasks }
    }

    /// Enters the same system in another way. Its logs go on where they stand: nothing is lost where it keeps what it gives,
    /// and what may be is told.
    pub fn enter(&self, config: &Config) {
        match (&self.kind, &config.kind) {
            (Kind::Redis(redis), UpstreamKind::Redis(config)) => redis.configure(config),
            (Kind::Kafka(kafka), UpstreamKind::Kafka(config)) => kafka.configure(config),
            (Kind::Ticker(ticker), UpstreamKind::Ticker(config)) => ticker.configure(config),
            (Kind::Postgres(postgres), UpstreamKind::Postgres(config)) => postgres.configure(config),
            (Kind::Amqp(amqp), UpstreamKind::Amqp(config)) => amqp.configure(config),
            (Kind::Sse(sse), UpstreamKind::Sse(config)) => sse.configure(config),
            (Kind::Http(http), UpstreamKind::Http(config)) => http.configure(config),
            (Kind::Nats(nats), UpstreamKind::Nats(config)) => nats.configure(config),
            (Kind::Mqtt(mqtt), UpstreamKind::Mqtt(config)) => mqtt.configure(config),
            _ => return,
        }
        self.anew.notify_one();
    }

    /// Its link.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

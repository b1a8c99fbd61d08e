//! Upstreams: where records come from. Each kind is one file and one line in `start`; what they have in
//! common, above all reconnecting, is the `runner`'s.

mod changes;
mod kafka;
mod lag;
mod link;
mod push;
mod redis;
mod runner;
mod ticker;

use std::sync::Arc;

use tokio::task::JoinSet;

pub use kafka::{Incarnation, KeyedCodec, TopicCodec};
pub use link::{Health, Link};
pub use push::Push;
pub use redis::EntryCodec;

use crate::config::{Upstream as Config, UpstreamKind};
use crate::hub::Memory;

/// A kind of upstream.
trait Upstream: Send + Sync + 'static {
    /// Whether what is published while the link is down is lost for good, and must be told as a gap.
    const LOSSY: bool;

    /// One link from its beginning to its end: connects, keeps its subscriptions equal to the wanted set
    /// while that changes, hands records over, and returns why it ended. Ended from outside by dropping.
    fn session(self: Arc<Self>, link: Arc<Link>) -> impl Future<Output = Broken> + Send;
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

/// What reading the history of upstreams may take.
pub struct Histories {
    /// Room for what was read.
    pub memory: Arc<Memory>,
    /// How many reads each upstream serves at a time.
    pub concurrency: usize,
}

/// Starts the tasks that keep `link` up and serve the upstream's history, for as long as they run. Only `push` needs
/// more: its entry.
pub fn start(
    config: &Config,
    link: &Arc<Link>,
    push: &Arc<Push>,
    histories: &Histories,
    tasks: &mut JoinSet<()>,
) {
    let link = Arc::clone(link);
    match &config.kind {
        UpstreamKind::Redis(redis) => {
            let redis = redis::Redis::new(redis, &link, histories);
            tasks.spawn(Arc::clone(&redis).serve_history());
            tasks.spawn(runner::run(redis, link))
        }
        UpstreamKind::Kafka(kafka) => {
            let kafka = kafka::Kafka::new(kafka, &link, histories);
            tasks.spawn(Arc::clone(&kafka).serve_history());
            tasks.spawn(runner::run(kafka, link))
        }
        UpstreamKind::Ticker(ticker) => tasks.spawn(runner::run(ticker::Ticker::new(ticker), link)),
        UpstreamKind::Push => tasks.spawn(runner::run(Arc::clone(push), link)),
    };
}

//! Redis pub/sub: channels, patterns and shard channels of one server, of the master that sentinels name, or of a
//! cluster. Redis keeps nothing of what it publishes, so a lost subscription is a gap. Streams, of which it keeps all,
//! are read beside it: [`streams`].
//!
//! From below: [`connection`] speaks to one server, [`subscriptions`] is what one connection carries, [`subscriber`]
//! keeps the two equal. [`sentinel`] and [`cluster`] decide which servers that are; [`slots`] is the map of a cluster.

mod cluster;
mod connection;
mod incoming;
mod output_limit;
mod sentinel;
mod slots;
mod streams;
mod subscriber;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use self::connection::Dialer;
use self::output_limit::Disconnections;
pub use self::streams::EntryCodec;
use self::streams::Streams;
use self::subscriber::Subscriber;
use self::subscriptions::Subscriptions;
use super::entry::Entry;
use super::link::Link;
use super::{Broken, Histories, Upstream};
use crate::config::{self, Deployment, Endpoint};

/// A configured Redis.
pub(super) struct Redis {
    entry: Entry<config::Redis>,
    disconnections: Arc<Disconnections>,
    streams: Arc<Streams>,
}

impl Redis {
    pub(super) fn new(config: &config::Redis, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let streams = Streams::new(config, link, histories);
        Arc::new(Self { entry: Entry::new(config), disconnections: Arc::default(), streams })
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &config::Redis) {
        self.entry.configure(config);
        self.streams.ping_every(config.ping_interval);
    }

    fn ping_interval(&self) -> Duration {
        self.entry.config().ping_interval
    }

    /// Serves those who read the history of streams; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        Arc::clone(&self.streams).serve_history().await;
    }

    fn subscriber(&self, dialer: &Dialer, endpoint: Endpoint, must_be_master: bool) -> Subscriber {
        Subscriber {
            dialer: dialer.clone(),
            endpoint,
            ping_interval: self.ping_interval(),
            must_be_master,
            disconnections: Arc::clone(&self.disconnections),
        }
    }

    /// One connection that carries everything that is wanted.
    async fn single(&self, dialer: &Dialer, endpoint: &Endpoint, link: &Arc<Link>) -> Broken {
        let table = Subscriptions::new(link);
        let subscriber = self.subscriber(dialer, endpoint.clone(), false);
        let broken = tokio::select! {
            broken = subscriber.run_when_wanted(&table, link) => broken,
            broken = table.follow_wanted() => broken,
            broken = self.streams.session(dialer, endpoint, link) => broken,
        };
        table.lose_all(None);
        broken
    }
}

impl Upstream for Redis {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config = self.entry.config();
        let dialer = match Dialer::new(&config, config.deployment.endpoints()) {
            Ok(dialer) => dialer,
            Err(broken) => return broken,
        };
        match &config.deployment {
            Deployment::Single(endpoint) => self.single(&dialer, endpoint, &link).await,
            Deployment::Sentinel { master, sentinels } => {
                sentinel::session(&self, &dialer, master, sentinels, &link).await
            }
            Deployment::Cluster(nodes) => cluster::session(&self, &dialer, nodes, &link).await,
        }
    }

    fn leaves(&self, link: &Link) {
        self.entry.leaves(link);
    }
}

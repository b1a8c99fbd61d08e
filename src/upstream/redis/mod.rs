//! Redis pub/sub: channels, patterns and shard channels of one server, of the master that sentinels name, or of a
//! cluster. Redis keeps nothing of what it publishes, so a lost subscription is a gap.
//!
//! From below: [`connection`] speaks to one server, [`subscriptions`] is what one connection carries, [`subscriber`]
//! keeps the two equal. [`sentinel`] and [`cluster`] decide which servers that are.

mod cluster;
mod connection;
mod incoming;
mod output_limit;
mod sentinel;
mod subscriber;
mod subscriptions;

use std::sync::Arc;

use self::connection::Dialer;
use self::output_limit::Disconnections;
use self::subscriber::Subscriber;
use self::subscriptions::Subscriptions;
use super::link::Link;
use super::{Broken, Upstream};
use crate::config::{self, Deployment, Endpoint};

/// A configured Redis.
pub(super) struct Redis {
    config: config::Redis,
    disconnections: Arc<Disconnections>,
}

impl Redis {
    pub(super) fn new(config: &config::Redis) -> Arc<Self> {
        Arc::new(Self { config: config.clone(), disconnections: Arc::default() })
    }

    fn subscriber(&self, dialer: &Dialer, endpoint: Endpoint, must_be_master: bool) -> Subscriber {
        Subscriber {
            dialer: dialer.clone(),
            endpoint,
            ping_interval: self.config.ping_interval,
            must_be_master,
            disconnections: Arc::clone(&self.disconnections),
        }
    }

    /// One connection that carries everything that is wanted.
    async fn single(&self, dialer: &Dialer, endpoint: &Endpoint, link: &Arc<Link>) -> Broken {
        let table = Subscriptions::new(link);
        let subscriber = self.subscriber(dialer, endpoint.clone(), false);
        let broken = tokio::select! {
            broken = subscriber.run(&table, |news| news.to(link)) => broken,
            broken = table.follow_wanted() => broken,
        };
        table.lose_all(None);
        broken
    }
}

impl Upstream for Redis {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let endpoints = self.config.deployment.endpoints();
        let dialer = match Dialer::new(&self.config, endpoints) {
            Ok(dialer) => dialer,
            Err(broken) => return broken,
        };
        match &self.config.deployment {
            Deployment::Single(endpoint) => self.single(&dialer, endpoint, &link).await,
            Deployment::Sentinel { master, sentinels } => {
                sentinel::session(&self, &dialer, master, sentinels, &link).await
            }
            Deployment::Cluster(nodes) => cluster::session(&self, &dialer, nodes, &link).await,
        }
    }
}

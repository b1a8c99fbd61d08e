//! RabbitMQ, by AMQP 0-9-1: what is published to exchanges, of which it keeps nothing for ssegate, and [`streams`], of which it
//! keeps all. It never reads a queue that others have: what one edge takes of it, no other would be given.

mod connection;
mod exchanges;
mod message;
mod net;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::connection::Dialer;
use self::exchanges::Exchanges;
pub use self::streams::OffsetCodec;
use self::streams::Streams;
use super::link::Link;
use super::{Broken, Histories, Upstream};
use crate::config;

/// A configured RabbitMQ.
pub(super) struct Amqp {
    config: Mutex<config::Amqp>,
    /// How long ago all that was published may have come in the last time, in the session that was configured before.
    alive_within: Mutex<Duration>,
    streams: Arc<Streams>,
}

impl Amqp {
    pub(super) fn new(config: &config::Amqp, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let (config, alive_within) = (Mutex::new(config.clone()), Mutex::default());
        Arc::new(Self { config, alive_within, streams: Streams::new(link, histories) })
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &config::Amqp) {
        let before = std::mem::replace(&mut *self.config.lock(), config.clone());
        *self.alive_within.lock() = before.ping_interval + 2 * before.timeout;
    }

    /// Serves those who read the history of streams; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        self.streams.serve_history().await;
    }
}

impl Upstream for Amqp {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config = self.config.lock().clone();
        let dialer = match Dialer::new(&config) {
            Ok(dialer) => dialer,
            Err(broken) => return broken,
        };
        let connection = match dialer.connect().await {
            Ok(connection) => Arc::new(connection),
            Err(broken) => return broken,
        };
        link.up();
        let every = config.ping_interval;
        let exchanges = Arc::new(Exchanges::new(&link, &dialer, every));
        let settle = async {
            exchanges.settled.notified().await;
            self.streams.settled().await;
            link.settled();
            std::future::pending().await
        };
        let broken = tokio::select! {
            broken = exchanges.run(&connection) => broken,
            broken = self.streams.session(&dialer, &connection, every, &link) => broken,
            broken = settle => broken,
        };
        exchanges.lose_all();
        broken
    }

    fn leaves(&self, link: &Link) {
        link.lose_feeds_within(*self.alive_within.lock());
    }
}

//! RabbitMQ, by AMQP 0-9-1: what is published to exchanges, of which it keeps nothing for ssegate, and [`streams`], of which it
//! keeps all. It never reads a queue that others have: what one edge takes of it, no other would be given.

mod connection;
mod cut;
mod exchanges;
mod message;
mod net;
mod streams;

use std::sync::Arc;

use self::connection::Dialer;
use self::exchanges::Exchanges;
pub use self::streams::OffsetCodec;
use self::streams::Streams;
use super::entry::Entry;
use super::link::Link;
use super::{Broken, Histories, Upstream};
use crate::config;

/// A configured RabbitMQ.
pub(super) struct Amqp {
    entry: Entry<config::Amqp>,
    max_event: usize,
    streams: Arc<Streams>,
}

impl Amqp {
    /// Messages have `max_event` bytes at most, whatever routes say.
    pub(super) fn new(
        config: &config::Amqp,
        link: &Arc<Link>,
        histories: &Histories,
        max_event: usize,
    ) -> Arc<Self> {
        Arc::new(Self { entry: Entry::new(config), max_event, streams: Streams::new(link, histories) })
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &config::Amqp) {
        self.entry.configure(config);
    }

    /// Serves those who read the history of streams; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        self.streams.serve_history().await;
    }
}

impl Upstream for Amqp {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config = self.entry.config();
        let dialer = match Dialer::new(&config, self.max_event) {
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
        self.entry.leaves(link);
    }
}

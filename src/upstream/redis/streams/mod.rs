//! Redis Streams: a source with history, whose ids are the ids of its entries. One connection an upstream waits for
//! entries of all wanted streams, a second asks whatever does not wait; both are made when a stream is wanted. Nothing
//! is lost with a link: each log says where to read on.
//!
//! Reading order: `id`, `info`; then `reply`, `asker`; then `table`, `begin`, `fill`, `reader`; and `history`.

mod asker;
mod begin;
mod connect;
mod fill;
mod history;
mod id;
mod info;
mod pace;
mod reader;
mod reply;
mod table;

use std::sync::Arc;

use self::asker::Asker;
use self::history::StreamReader;
use crate::config::{self, Endpoint};
use crate::history::Pool;
use crate::hub::{Feeds, Memory, Source};
use crate::upstream::link::Link;
use crate::upstream::redis::connection::Dialer;
use crate::upstream::{Broken, Histories};

/// The streams of one Redis server, through all sessions.
pub(super) struct Streams {
    config: config::Redis,
    asker: Arc<Asker>,
    pool: Arc<Pool<StreamReader>>,
    memory: Arc<Memory>,
}

impl Streams {
    pub(super) fn new(config: &config::Redis, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let (link, memory) = (Arc::clone(link), Arc::clone(&histories.memory));
        Arc::new(Self {
            config: config.clone(),
            asker: Arc::new(Asker::new()),
            pool: Pool::new(histories.concurrency, Arc::clone(&memory), move |cause| link.trouble(cause)),
            memory,
        })
    }

    /// Serves those who read history; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        Arc::clone(&self.pool).run().await;
    }

    /// Reads streams of this server from when the first is wanted until the link ends.
    pub(super) async fn session(
        self: &Arc<Self>,
        dialer: &Dialer,
        endpoint: &Endpoint,
        link: &Arc<Link>,
    ) -> Broken {
        until_wanted(link, |feeds| feeds.keys().any(is_stream)).await;
        self.asker.ask_at(dialer, endpoint).await;
        reader::run(self, dialer, endpoint, link).await
    }
}

/// Says, once one is wanted, that streams of a cluster are not read; never ends.
pub(super) async fn refuse(link: &Link) -> Broken {
    until_wanted(link, |feeds| feeds.keys().any(is_stream)).await;
    link.trouble("streams of a Redis Cluster are not read; name one of its servers without `cluster: true`");
    std::future::pending().await
}

/// Ends once messages of channels are wanted, or nothing is, so that a link shows how the server is.
pub(super) async fn until_messages_are_wanted(link: &Link) {
    until_wanted(link, |feeds| feeds.is_empty() || !feeds.keys().all(is_stream)).await;
}

async fn until_wanted(link: &Link, is_it: impl Fn(&Feeds) -> bool) {
    let mut changes = link.wanted().changes();
    while !is_it(&link.wanted().snapshot()) {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether a source is a stream, and not what the pub/sub connection carries.
pub(super) fn is_stream(source: &Source) -> bool {
    matches!(source, Source::Stream(_))
}

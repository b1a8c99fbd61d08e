//! Redis Streams: a source with history, whose ids are the ids of its entries. What is read on one connection is a
//! [`Place`]: all streams of a server, or those of a slot of a cluster, where one command cannot name more. Another
//! connection to each server asks whatever does not wait. All are made when a stream is wanted. Nothing is lost with a
//! link: each log says where to read on.
//!
//! Reading order: `id`, `info`; then `reply`, `line`, `asker`; then `stream`, `table`, `begin`, `fill`; then `turns`,
//! `wait`, `reader`; and `history`.

mod asker;
mod begin;
mod connect;
mod fill;
mod history;
mod id;
mod info;
mod line;
mod reader;
mod reply;
mod stream;
mod table;
mod turns;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::asker::Asker;
pub(super) use self::asker::Servers;
use self::history::StreamReader;
pub use self::id::EntryCodec;
pub(super) use self::stream::Carried;
pub(super) use self::table::Table;
use crate::config::{self, Endpoint};
use crate::history::Pool;
use crate::hub::{Feeds, Memory, Source};
use crate::upstream::link::Link;
use crate::upstream::redis::connection::Dialer;
use crate::upstream::redis::subscriber::News;
use crate::upstream::{Broken, Histories};

/// What one connection reads.
pub(super) struct Place {
    pub dialer: Dialer,
    /// The server that has it.
    pub endpoint: Endpoint,
    pub way: Way,
    pub table: Arc<Table>,
}

/// How streams are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By one command for all of them, of a server that is no node of a cluster.
    All,
    /// By one command, since they are of one slot.
    Slot,
    /// In turns, one command for each slot.
    Slots,
}

/// The streams of one upstream, through all sessions.
pub(super) struct Streams {
    ping_interval: Mutex<Duration>,
    asker: Arc<Asker>,
    pool: Arc<Pool<StreamReader>>,
    memory: Arc<Memory>,
}

impl Streams {
    pub(super) fn new(config: &config::Redis, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        Arc::new(Self {
            ping_interval: Mutex::new(config.ping_interval),
            asker: Arc::new(Asker::new()),
            pool: histories.pool(link),
            memory: Arc::clone(&histories.memory),
        })
    }

    /// From now on links are tried so often.
    pub(super) fn ping_every(&self, interval: Duration) {
        *self.ping_interval.lock() = interval;
    }

    fn ping_interval(&self) -> Duration {
        *self.ping_interval.lock()
    }

    /// Serves those who read history; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        Arc::clone(&self.pool).run().await;
    }

    /// Reads all streams of one server from when the first is wanted until the link ends.
    pub(super) async fn session(
        self: &Arc<Self>,
        dialer: &Dialer,
        endpoint: &Endpoint,
        link: &Arc<Link>,
    ) -> Broken {
        until_wanted(link, |feeds| feeds.keys().any(is_stream)).await;
        self.ask_at(Servers { dialer: dialer.clone(), endpoint: endpoint.clone(), map: None });
        let table = Arc::<Table>::default();
        let place = Place {
            dialer: dialer.clone(),
            endpoint: endpoint.clone(),
            way: Way::All,
            table: Arc::clone(&table),
        };
        tokio::select! {
            // What is wanted is assigned first.
            biased;
            broken = table.follow_wanted(link) => broken,
            broken = self.read(&place, link, |news| news.to(link)) => broken,
        }
    }

    /// From now on these servers are asked.
    pub(super) fn ask_at(&self, servers: Servers) {
        self.asker.ask_at(servers);
    }

    /// Reads what is assigned to a place until the link ends.
    pub(super) async fn read(
        self: &Arc<Self>,
        place: &Place,
        link: &Arc<Link>,
        tell: impl Fn(News),
    ) -> Broken {
        reader::run(self, place, link, tell).await
    }
}

/// Ends once messages of channels are wanted, or nothing is, so that a link shows how the server is.
pub(super) async fn until_messages_are_wanted(link: &Link) {
    until_wanted(link, |feeds| feeds.is_empty() || !feeds.keys().all(is_stream)).await;
}

async fn until_wanted(link: &Link, is_it: impl Fn(&Feeds) -> bool) {
    let mut changes = link.changes();
    while !changes.look(|| link.wanted().with(&is_it)) {
        if changes.next().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether a source is a stream, and not what the pub/sub connection carries.
pub(super) fn is_stream(source: &Source) -> bool {
    matches!(source, Source::Stream(_))
}

//! Postgres: channels (LISTEN and NOTIFY), of which it keeps nothing, and tables to which applications add rows, which are
//! read by their ids: [`tables`]. One connection listens, one reads tables once one is wanted, and history has a bounded
//! few.

mod connection;
mod listening;
mod tables;

use std::sync::Arc;

use self::connection::Dialer;
use self::listening::Listening;
pub use self::tables::RowCodec;
use self::tables::Tables;
use super::entry::Entry;
use super::link::Link;
use super::{Broken, Histories, Upstream};
use crate::config;

/// A configured Postgres.
pub(super) struct Postgres {
    entry: Entry<config::Postgres>,
    tables: Arc<Tables>,
}

impl Postgres {
    pub(super) fn new(config: &config::Postgres, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        Arc::new(Self { entry: Entry::new(config), tables: Tables::new(link, histories) })
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &config::Postgres) {
        self.entry.configure(config);
    }

    /// Serves those who read the history of tables; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        self.tables.serve_history().await;
    }
}

impl Upstream for Postgres {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config = self.entry.config();
        let dialer = match Dialer::new(&config) {
            Ok(dialer) => dialer,
            Err(broken) => return broken,
        };
        let listening = Arc::new(Listening::new(&link));
        let (client, messages) = match dialer.open().await {
            Ok(opened) => opened,
            Err(broken) => return broken,
        };
        link.up();
        let settle = async {
            listening.settled.notified().await;
            self.tables.settled().await;
            link.settled();
            std::future::pending().await
        };
        let broken = tokio::select! {
            broken = listening.run(client, messages, &dialer, config.ping_interval) => broken,
            broken = self.tables.session(&dialer, &listening, &link) => broken,
            broken = settle => broken,
        };
        listening.lose_all();
        broken
    }

    fn leaves(&self, link: &Link) {
        self.entry.leaves(link);
    }
}

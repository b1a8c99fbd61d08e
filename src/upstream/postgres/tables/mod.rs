//! Tables to which applications add rows: a source with history, whose ids are those of the rows. One connection reads all
//! tables that are wanted, each by a task of its own; nothing is lost with a link, since each log says where to read on.
//!
//! Reading order: `id`, `horizon`; then `query`, `row`, `known`; then `begin`, `reader`; and `asker`, `history`.

mod asker;
mod begin;
mod history;
mod horizon;
mod id;
mod known;
mod query;
mod reader;
mod row;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use self::asker::{Asker, Askers};
use self::history::RowReader;
pub use self::id::RowCodec;
use self::known::Known;
use self::reader::TableReader;
use super::connection::Dialer;
use super::listening::Listening;
use crate::config::Table;
use crate::history::Pool;
use crate::hub::{Feeds, Memory, Source};
use crate::upstream::link::Link;
use crate::upstream::{Broken, Histories};

/// The tables of one upstream, through all sessions.
pub(super) struct Tables {
    askers: Arc<Askers>,
    pool: Arc<Pool<RowReader>>,
    memory: Arc<Memory>,
    facts: Mutex<HashMap<Arc<Table>, Arc<Facts>>>,
    settled: Notify,
}

/// What outlives a session of a table.
#[derive(Default)]
struct Facts {
    /// Which one its logs have read.
    known: Mutex<Option<Arc<Known>>>,
    /// Up to where: nothing more comes before that. What lies behind may look as if its beginning were gone.
    settled: AtomicU64,
}

impl Facts {
    fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().clone()
    }

    fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    fn settles(&self, at: u64) {
        self.settled.store(at, Ordering::Release);
    }
}

impl Tables {
    pub(super) fn new(link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let (own, memory) = (Arc::clone(link), Arc::clone(&histories.memory));
        let trouble = move |cause: &str| own.trouble(cause);
        Arc::new(Self {
            askers: Arc::default(),
            pool: Pool::new(histories.concurrency, Arc::clone(&memory), link.history_metrics(), trouble),
            memory,
            facts: Mutex::default(),
            settled: Notify::new(),
        })
    }

    /// Serves those who read history; never ends.
    pub(super) async fn serve_history(&self) {
        Arc::clone(&self.pool).run().await;
    }

    /// Ends once what was wanted at first is read, or refused.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// Reads all tables that are wanted until the link ends.
    pub(super) async fn session(
        self: &Arc<Self>,
        dialer: &Dialer,
        listening: &Arc<Listening>,
        link: &Arc<Link>,
    ) -> Broken {
        self.askers.ask_at(dialer);
        let mut reading: Option<Arc<Asker>> = None;
        let (mut read, mut tasks) = (HashSet::new(), JoinSet::new());
        let mut changes = link.changes().and_now();
        // One permit for each task that has begun, and how many of those are waited for that were wanted at first.
        let (begun, mut first) = (Arc::new(Semaphore::new(0)), None);
        loop {
            tokio::select! {
                changed = changes.next() => if let Err(gone) = changed { return gone },
                _ = begun.acquire_many(first.unwrap_or_default()), if first.is_some_and(|first| first > 0) => {
                    first = Some(0);
                    self.settled.notify_one();
                    continue;
                }
                Some(ended) = tasks.join_next() => {
                    return ended.unwrap_or_else(|panic| Broken::new("a defect in ssegate", panic));
                }
            }
            let wanted = changes.look(|| link.wanted().with(tables));
            for table in wanted {
                if !read.insert(Arc::clone(&table)) {
                    continue;
                }
                let asker = match &reading {
                    Some(asker) => Arc::clone(asker),
                    None => match Asker::connect(dialer).await {
                        Ok(asker) => Arc::clone(reading.insert(Arc::new(asker))),
                        Err(broken) => return broken,
                    },
                };
                let facts = Arc::clone(self.facts.lock().entry(Arc::clone(&table)).or_default());
                let bell = table.notify.as_ref().map(|channel| listening.bell(channel));
                let reader = TableReader::new(self, table, facts, asker, link, bell);
                tasks.spawn(reader.run(Arc::clone(&begun)));
            }
            if first.is_none() {
                first = Some(read.len() as u32);
                if read.is_empty() {
                    self.settled.notify_one();
                }
            }
        }
    }
}

/// The tables that feeds read.
fn tables(feeds: &Feeds) -> HashSet<Arc<Table>> {
    let table = |source: &Source| match source {
        Source::Table(rows) => Some(Arc::clone(&rows.table)),
        _ => None,
    };
    feeds.keys().filter_map(table).collect()
}

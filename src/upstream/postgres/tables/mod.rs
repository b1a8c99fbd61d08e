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
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
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
use crate::upstream::askers::Asker as _;
use crate::upstream::begun::Begun;
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
    /// The newest of the ids that its rows were seen to have and its sequence to have given.
    seen: AtomicU64,
    /// How often its ids went back behind that.
    count: AtomicU32,
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

    /// There is another one, of which nothing was read yet.
    fn begins_anew(&self, at: u64) {
        self.settles(at);
        self.seen.store(0, Ordering::Relaxed);
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes in the newest row that was seen, and the newest id that its sequence had `given` after that. Whether ids went back:
    /// the sequence is to give once more what rows had, since it was set back, or its server is another one by now that had
    /// less. Rows whose ids it did not give say nothing of it, and neither does what it gave to nobody whose row was seen: of
    /// that a server may forget some when it crashes.
    fn went_back(&self, row: Option<u64>, given: Option<u64>) -> bool {
        let Some(given) = given else { return false };
        if given < self.seen.load(Ordering::Relaxed) {
            self.count.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.seen.fetch_max(row.unwrap_or_default().min(given), Ordering::Relaxed);
        false
    }
}

impl Tables {
    pub(super) fn new(link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        Arc::new(Self {
            askers: Arc::default(),
            pool: histories.pool(link),
            memory: Arc::clone(&histories.memory),
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
        let (mut changes, mut begun) = (link.changes().and_now(), Begun::new());
        loop {
            tokio::select! {
                changed = changes.next() => if let Err(gone) = changed { return gone },
                () = begun.all() => {
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
                tasks.spawn(reader.run(begun.begins()));
            }
            begun.are(read.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_go_back_are_noticed_and_nothing_else_is_taken_for_that() {
        let facts = Facts::default();
        for (row, given) in [
            (None, None),
            (Some(3), None),
            (Some(3), Some(3)),
            (None, Some(9)),
            // A server that crashed has forgotten what it gave to nobody who committed.
            (None, Some(3)),
            // Of an application, and not of the sequence.
            (Some(1_000), Some(4)),
            (None, Some(4)),
            // It is not to be known, or it gives its first next.
            (None, None),
        ] {
            assert!(!facts.went_back(row, given), "{row:?} {given:?}");
        }
        assert!(facts.went_back(None, Some(2)));
        assert_eq!(facts.count(), 1);
        facts.begins_anew(0);
        assert!(!facts.went_back(Some(2), Some(2)), "that is the next one");
        assert!(facts.went_back(Some(5), Some(1)));
    }
}

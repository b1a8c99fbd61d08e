//! Kafka. One consumer a cluster reads every wanted topic, all partitions by manual assignment: with a consumer
//! group, replicas of ssegate would split the partitions, and each would serve a part. Offsets are exact, so a
//! lost link loses nothing.

mod asker;
mod cause;
mod client;
mod fill;
mod headers;
mod held;
mod history;
mod id;
mod keyed;
mod known;
mod lag;
mod offsets;
mod partitioner;
mod proof;
mod reader;
mod record;
mod slots;
mod topic_id;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::fill::Past;
use self::history::TopicReader;
pub use self::id::{Incarnation, TopicCodec};
pub use self::keyed::KeyedCodec;
use self::known::Known;
use self::slots::Slots;
use super::link::Link;
use super::{Broken, Histories, Upstream};
use crate::config;
use crate::history::Pool;

/// A configured cluster.
pub(super) struct Kafka {
    config: Mutex<config::Kafka>,
    pool: Arc<Pool<TopicReader>>,
    slots: Arc<Slots>,
    known: Arc<Known>,
    /// Held by the thread that reads: the one of a session that was ended may have to finish what it is at.
    turn: Arc<Turn>,
}

/// One thread at a time feeds logs and tells how the link is.
type Turn = tokio::sync::Mutex<()>;

impl Kafka {
    pub(super) fn new(config: &config::Kafka, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let (pool, slots) = (histories.pool(link), Slots::new(config));
        link.tells_lag();
        Arc::new(Self {
            config: Mutex::new(config.clone()),
            pool,
            slots,
            known: Arc::default(),
            turn: Arc::default(),
        })
    }

    /// From the next session on it is entered so, and history from the next read.
    pub(super) fn configure(&self, config: &config::Kafka) {
        *self.config.lock() = config.clone();
        self.slots.configure(config);
    }

    /// Serves those who read history; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        Arc::clone(&self.pool).run().await;
    }
}

impl Upstream for Kafka {
    const LOSSY: bool = false;

    /// librdkafka blocks, in particular when a consumer is dropped, so a session has a thread of its own.
    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let stop = Stop::default();
        let (told, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("kafka-{}", link.name()));
        let stopped = Arc::clone(&stop.0);
        let past = Past {
            pool: Arc::clone(&self.pool),
            slots: Arc::clone(&self.slots),
            known: Arc::clone(&self.known),
            runtime: Handle::current(),
        };
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let config = self.config.lock().clone();
        let spawned = thread.spawn(move || reader::run(&config, past, &link, (turn, &stopped), told));
        match spawned {
            Ok(_) => ended.await.unwrap_or_else(|_| Broken("the reader of Kafka panicked".to_owned())),
            Err(error) => Broken::new("no thread for reading Kafka", error),
        }
    }
}

/// Ends the thread when the session is dropped.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

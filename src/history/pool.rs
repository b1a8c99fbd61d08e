//! The pool: so many reads at a time for each upstream, shared fairly by the logs that want some.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::shelf::{Job, Shelf};
use super::{Reader, Unreadable};
use crate::hub::{FeedKey, IdCodec, Memory};
use crate::metrics::HistoryMetrics;

/// The wait before a read that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// The slots of one upstream.
pub struct Pool<R> {
    memory: Arc<Memory>,
    /// Shelves with something to do: one entry for each thing, in the order in which they came.
    queue: Mutex<VecDeque<Arc<Shelf<R>>>>,
    queued: Semaphore,
    /// How many reads there are at a time, whether for readers or for a log that begins.
    at_a_time: usize,
    slots: Semaphore,
    /// Since when reads succeed; `None` while they fail.
    answers: Mutex<Option<Instant>>,
    metrics: HistoryMetrics,
    trouble: Box<dyn Fn(&str) + Send + Sync>,
}

impl<R> Drop for Pool<R> {
    fn drop(&mut self) {
        // They are nobody's any more; another pool may have these figures.
        self.metrics.queued.dec_by(i64::try_from(self.queue.lock().len()).unwrap_or_default());
    }
}

impl<R: Reader> Pool<R> {
    /// A pool of so many slots, whose shelves take their room from `memory`, and which says through `trouble` what is
    /// in the way.
    pub fn new(
        slots: usize,
        memory: Arc<Memory>,
        metrics: HistoryMetrics,
        trouble: impl Fn(&str) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            memory,
            queue: Mutex::default(),
            queued: Semaphore::new(0),
            at_a_time: slots,
            slots: Semaphore::new(slots),
            answers: Mutex::new(Some(Instant::now())),
            metrics,
            trouble: Box::new(trouble),
        })
    }

    /// An empty shelf for the log of this feed, which has this codec.
    pub fn shelf(self: &Arc<Self>, reader: R, feed: &FeedKey, codec: &Arc<dyn IdCodec>) -> Arc<Shelf<R>> {
        Shelf::new(reader, &feed.shape, codec, feed.source.is_keyed(), &self.memory, self)
    }

    /// Serves all shelves. Ends only by being dropped.
    pub async fn run(self: Arc<Self>) {
        let mut workers = JoinSet::new();
        for _ in 0..self.slots() {
            workers.spawn(Arc::clone(&self).work());
        }
        while workers.join_next().await.is_some() {}
    }

    async fn work(self: Arc<Self>) {
        while let Ok(permit) = self.queued.acquire().await {
            permit.forget();
            let Some(shelf) = self.queue.lock().pop_front() else { continue };
            let slot = self.slot().await;
            self.metrics.queued.dec();
            let Some(job) = shelf.take_job() else { continue };
            let served = self.serve(&shelf, job).await;
            drop(slot);
            self.count(served.is_ok());
            if let Err(error) = served {
                *self.answers.lock() = None;
                (self.trouble)(&error.0);
                tokio::time::sleep(AGAIN).await;
                self.queue(shelf);
            } else {
                self.answers.lock().get_or_insert_with(Instant::now);
            }
        }
    }

    /// A task of its own, so that a defect in one read costs that read alone.
    async fn serve(&self, shelf: &Arc<Shelf<R>>, job: Job) -> Result<(), Unreadable> {
        let mut task = JoinSet::new();
        let own = Arc::clone(shelf);
        task.spawn(async move { own.serve(job).await });
        match task.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(Unreadable(format!("a defect in ssegate: {panic}"))),
            None => Ok(()),
        }
    }

    /// A shelf has one more thing to do.
    pub(super) fn queue(&self, shelf: Arc<Shelf<R>>) {
        self.queue.lock().push_back(shelf);
        self.metrics.queued.inc();
        self.queued.add_permits(1);
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.at_a_time
    }

    /// Waits for a slot. Who waits longest gets the next.
    pub(super) async fn slot(&self) -> Slot<'_> {
        let permit = self.slots.acquire().await.expect("slots are never closed");
        self.metrics.running.inc();
        Slot { running: &self.metrics.running, _permit: permit }
    }

    /// Counts a read that has ended.
    pub(super) fn count(&self, succeeded: bool) {
        if succeeded { &self.metrics.read } else { &self.metrics.failed }.inc();
    }

    /// Since when reads succeed.
    pub(super) fn answers_since(&self) -> Option<Instant> {
        *self.answers.lock()
    }
}

/// One of the slots, until it is dropped.
pub(super) struct Slot<'p> {
    running: &'p Gauge,
    _permit: SemaphorePermit<'p>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.running.dec();
    }
}

//! Filling the logs of a topic from its history, before it is read on.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::history::TopicReader;
use super::known::{Facts, Known};
use super::offsets::Bounds;
use super::slots::Slots;
use crate::history::{self, Fill, Pool, Shelf};
use crate::hub::{Feed, IdCodec, Opening, Position};

/// What lasts over all sessions with one cluster, and what reading its history takes.
#[derive(Clone)]
pub(super) struct Past {
    /// Where shelves are made, and who serves them.
    pub pool: Arc<Pool<TopicReader>>,
    /// The consumers.
    pub slots: Arc<Slots>,
    /// What is known of topics.
    pub known: Arc<Known>,
    /// Where tasks are run.
    pub runtime: Handle,
}

/// A feed whose log is to be opened, with its codec and the history of its source.
pub(super) type Shelved = (Arc<Feed>, Arc<dyn IdCodec>, Arc<Shelf<TopicReader>>);

/// A topic that can be read.
pub(super) struct Found {
    /// All feeds that want it, also those that come while their logs are filled.
    pub feeds: Vec<Arc<Feed>>,
    /// Whether it was read before and then was gone.
    pub was_gone: bool,
    /// What it held when it was found.
    pub bounds: Bounds,
    /// What is known of it.
    pub facts: Arc<Facts>,
}

/// A topic whose logs are being filled.
pub(super) struct Filling {
    /// The topic.
    pub topic: Found,
    shelves: Vec<Shelved>,
    task: Task,
}

/// Ends with its owner.
struct Task(JoinHandle<Vec<Fill>>);

impl Filling {
    /// Starts to read from `from` to the end, for each of `shelves`.
    pub(super) fn start(past: &Past, shelves: Vec<Shelved>, from: Position, topic: Found) -> Self {
        let (end, pool) = (topic.bounds.high.clone(), Arc::clone(&past.pool));
        let wanted: Vec<_> =
            shelves.iter().map(|(feed, _, shelf)| (Arc::clone(shelf), feed.log.bounds().bytes)).collect();
        let task = past.runtime.spawn(async move {
            let mut fills = Vec::new();
            for (shelf, bytes) in wanted {
                fills.push(history::fill(&pool, &shelf, &from, &end, bytes).await);
            }
            fills
        });
        Self { topic, shelves, task: Task(task) }
    }

    /// The feeds of the topic; nothing is filled any more.
    pub(super) fn into_feeds(self) -> Vec<Arc<Feed>> {
        self.topic.feeds
    }

    /// Whether the logs can be opened.
    pub(super) fn is_done(&mut self) -> bool {
        self.task.0.is_finished()
    }

    /// Opens the logs with what was read, and returns the topic.
    pub(super) fn open_logs(mut self, past: &Past) -> Found {
        let fills = past.runtime.block_on(&mut self.task.0);
        let high = &self.topic.bounds.high;
        let fills = fills.unwrap_or_else(|_| self.shelves.iter().map(|_| Fill::none(high)).collect());
        for ((feed, codec, history), fill) in self.shelves.into_iter().zip(fills) {
            let Fill { segments, start } = fill;
            let end = high.clone();
            feed.log.open_filled(Opening { codec, history, segments: &segments, start, end });
        }
        self.topic
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! Kafka. One consumer a cluster reads every wanted topic, all partitions by manual assignment: with a consumer
//! group, replicas of ssegate would split the partitions, and each would serve a part. Offsets are exact, so a
//! lost link loses nothing.

mod client;
mod id;
mod reader;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::link::Link;
use super::{Broken, Upstream};
use crate::config;

/// A configured cluster.
pub(super) struct Kafka {
    config: config::Kafka,
}

impl Kafka {
    pub(super) fn new(config: &config::Kafka) -> Arc<Self> {
        Arc::new(Self { config: config.clone() })
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
        let spawned = thread.spawn(move || reader::run(&self.config, &link, &stopped, told));
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

//! The ticker: an upstream inside the process, which gives the same event at a steady pace. For demos and for
//! trying a front end.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::link::Link;
use super::{Broken, Upstream};
use crate::config;
use crate::shape::Record;

/// A running ticker.
pub(super) struct Ticker(Mutex<config::Ticker>);

impl Ticker {
    pub(super) fn new(config: &config::Ticker) -> Arc<Self> {
        Arc::new(Self(Mutex::new(config.clone())))
    }

    /// From the next session on it gives this.
    pub(super) fn configure(&self, config: &config::Ticker) {
        *self.0.lock() = config.clone();
    }
}

impl Upstream for Ticker {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config::Ticker { every, data } = self.0.lock().clone();
        link.up();
        let mut changes = link.changes().and_now();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = changes.next() => changes.look(|| link.wanted().for_each(|feed| link.confirm(feed))),
                _ = ticks.tick() => link.wanted().for_each(|feed| link.deliver(feed, [(None, Tick(&data))])),
            }
            link.settled();
        }
    }
}

struct Tick<'a>(&'a str);

impl Record for Tick<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }

    fn name(&self) -> &str {
        "ticker"
    }
}

//! The ticker: an upstream inside the process, which gives the same event at a steady pace. For demos and for
//! trying a front end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::link::Link;
use super::{Broken, Upstream};
use crate::config;
use crate::shape::Record;

/// A running ticker.
pub(super) struct Ticker {
    every: Duration,
    data: Arc<str>,
}

impl Ticker {
    pub(super) fn new(config: &config::Ticker) -> Arc<Self> {
        Arc::new(Self { every: config.every, data: Arc::clone(&config.data) })
    }
}

impl Upstream for Ticker {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        link.up();
        let mut changes = link.changes().and_now();
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = changes.next() => changes.look(|| link.wanted().for_each(|feed| link.confirm(feed))),
                _ = ticks.tick() => link.wanted().for_each(|feed| link.deliver(feed, [(None, Tick(&self.data))])),
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

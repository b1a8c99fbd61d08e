//! MQTT, 3.1.1 and 5: topic filters of one broker, which keeps nothing for us but what it has retained, so that a lost link
//! is a gap. Sessions end with their link.
//!
//! One connection carries everything where subscriptions have ids (MQTT 5), by which a message says to whom it goes. Where
//! they have none, a broker may send a message once for each filter that it matches, or once for all of them, and nobody
//! can tell. There filters that overlap are on different connections: as many as there are routes at most, since those
//! that differ in parameters alone have nothing in common.
//!
//! From below: [`filter`], [`cut`], [`packets`]; [`subscriptions`] is what one connection carries, and [`connection`] keeps the two equal.

mod connection;
mod cut;
mod filter;
mod packets;
mod subscriptions;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;

use self::connection::Connection;
use self::subscriptions::Subscriptions;
use super::link::Link;
use super::{Broken, Upstream};
use crate::config::{self, Qos};
use crate::hub::{Feed, Source};

/// A configured MQTT broker.
pub(super) struct Mqtt {
    config: Mutex<config::Mqtt>,
    max_event: usize,
}

impl Mqtt {
    /// Payloads have `max_event` bytes at most, whatever routes say.
    pub(super) fn new(config: &config::Mqtt, max_event: usize) -> Arc<Self> {
        Arc::new(Self { config: Mutex::new(config.clone()), max_event })
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &config::Mqtt) {
        *self.config.lock() = config.clone();
    }
}

impl Upstream for Mqtt {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config = self.config.lock().clone();
        let first = match Connection::enter(&config, 0, self.max_event).await {
            Ok(connection) => connection,
            Err(broken) => return broken,
        };
        link.up();
        let ids = first.ids;
        let lanes = Mutex::new(vec![Arc::new(Subscriptions::new(&link, config.timeout))]);
        let settled = || {
            if lanes.lock().iter().all(|lane| lane.is_settled()) {
                link.settled();
            }
        };
        let mut changes = link.changes().and_now();
        // Before anything is said to be settled, what is wanted is known.
        if let Err(gone) = changes.next().await {
            return gone;
        }
        changes.look(|| assign(&link, &mut lanes.lock(), ids, &config));
        let (own, mut begun) = (Arc::clone(&lanes.lock()[0]), 1);
        let first = first.run(&own, &settled);
        tokio::pin!(first);
        let mut others = FuturesUnordered::new();
        loop {
            while begun < lanes.lock().len() {
                let lane = Arc::clone(&lanes.lock()[begun]);
                others.push(carry(&config, begun, self.max_event, lane, &settled));
                begun += 1;
            }
            tokio::select! {
                broken = &mut first => return broken,
                Some(broken) = others.next() => return broken,
                changed = changes.next() => match changed {
                    Ok(()) => changes.look(|| assign(&link, &mut lanes.lock(), ids, &config)),
                    Err(gone) => return gone,
                },
            }
        }
    }
}

/// Opens one more connection, and carries on it what it is to.
async fn carry(
    config: &config::Mqtt,
    nth: usize,
    max_event: usize,
    lane: Arc<Subscriptions>,
    settled: impl Fn(),
) -> Broken {
    match Connection::enter(config, nth, max_event).await {
        Ok(connection) => connection.run(&lane, settled).await,
        Err(broken) => broken,
    }
}

/// Makes what is wanted what the connections carry; adds one where a filter has no place in those there are.
fn assign(link: &Arc<Link>, lanes: &mut Vec<Arc<Subscriptions>>, ids: bool, config: &config::Mqtt) {
    let mut wanted = HashMap::<(Arc<str>, Qos), Vec<Arc<Feed>>>::new();
    link.wanted().with(|feeds| {
        for (source, feeds) in feeds {
            if let Source::Filter(topic, qos) = source {
                wanted.insert((Arc::clone(topic), *qos), feeds.clone());
            }
        }
    });
    for lane in lanes.iter() {
        lane.keep(|topic, qos| wanted.contains_key(&(Arc::clone(topic), qos)));
    }
    for ((topic, qos), feeds) in wanted {
        let here = lanes.iter().position(|lane| lane.has(&topic, qos));
        let place = here.or_else(|| lanes.iter().position(|lane| lane.takes(&topic, qos, ids)));
        let lane = place.unwrap_or_else(|| {
            lanes.push(Arc::new(Subscriptions::new(link, config.timeout)));
            lanes.len() - 1
        });
        lanes[lane].serve(&topic, qos, &feeds);
    }
}

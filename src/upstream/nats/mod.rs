//! NATS: subjects, of which it keeps nothing, so that a lost link is a gap; and the streams of JetStream, of which it keeps
//! what they are to hold ([`jetstream`]). One connection carries everything, to whichever of the servers lets us in.
//!
//! NATS is spoken by hand. Its own client (async-nats 0.51) queues for each subscription by number and not by bytes, and
//! drops what has no room; here what is not read stays with the server, which cuts a subscriber that falls behind. It
//! reconnects by itself, which cannot be turned off; with an authority of one's own it still fails where the system's are
//! odd; and it logs each refusal by itself.
//!
//! From below: [`wire`] has the bytes, [`dial`] enters, [`mod@line`] is spoken and read, [`subscriptions`] has the subscriptions.

mod dial;
mod jetstream;
mod line;
mod subscriptions;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

pub use self::jetstream::StreamCodec;
use self::jetstream::Streams;
use self::line::{Line, Told};
use self::subscriptions::Subscriptions;
use super::link::Link;
use super::{Broken, Histories, Upstream};
use crate::config;

/// A configured NATS.
pub(super) struct Nats {
    config: Mutex<config::Nats>,
    streams: Arc<Streams>,
}

impl Nats {
    pub(super) fn new(config: &config::Nats, link: &Arc<Link>, histories: &Histories) -> Arc<Self> {
        let streams = Streams::new(link, histories);
        Arc::new(Self { config: Mutex::new(config.clone()), streams })
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &config::Nats) {
        *self.config.lock() = config.clone();
    }

    /// Serves those who read the history of streams; never ends.
    pub(super) async fn serve_history(self: Arc<Self>) {
        Arc::clone(&self.streams).serve_history().await;
    }
}

impl Upstream for Nats {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let config = self.config.lock().clone();
        let began = SystemTime::now();
        let entered = match dial::enter_any(&config).await {
            Ok(entered) => entered,
            Err(broken) => return broken,
        };
        let slack = if entered.info.cluster.is_some() { config.timeout } else { Duration::ZERO };
        let (line, driver) = Line::new(entered, config.timeout);
        link.up();
        let subscriptions = Subscriptions::new(&link, began, slack);
        let open = self.streams.open(&line, &link, config.ping_interval);
        let tell = |told| match told {
            Told::Messages(messages) => subscriptions.take(&messages),
            Told::Refused(subject) => subscriptions.refused(&subject),
            Told::Forbidden(why) => link.trouble(&format!("NATS at {}: {why}", line.address())),
        };
        tokio::select! {
            // What has come in counts first.
            biased;
            broken = driver.drive(tell) => broken,
            broken = line.keep_alive(config.ping_interval, |sent| subscriptions.alive_at(sent)) => broken,
            broken = subscriptions.follow(&line, || open.subscribed()) => broken,
            broken = open.follow() => broken,
        }
    }
}

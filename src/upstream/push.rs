//! Push: an upstream inside the process, fed by `POST /publish/<channel>` on the admin listener. For demos,
//! tests and small uses; the main road is what applications publish to Redis or Kafka anyway.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::link::Link;
use super::{Broken, Upstream};
use crate::hub::Source;
use crate::shape::Record;

/// The entry for what is published. At most one a process.
#[derive(Default)]
pub struct Push {
    /// Of the upstream that is configured, if one is.
    link: Mutex<Weak<Link>>,
}

impl Push {
    /// Appends `payload` to the feeds of `channel`, and returns how many there are; `None` if no `push`
    /// upstream is configured. A feed with parameters exists only while it has clients, or had some lately.
    pub fn publish(&self, channel: &str, event: Option<&str>, payload: &[u8]) -> Option<usize> {
        let link = self.link.lock().upgrade()?;
        let feeds = link.wanted().of(&Source::Channel(channel.into()));
        for feed in &feeds {
            link.confirm(feed);
            link.deliver(feed, [(None, Message { channel, event, payload })]);
        }
        Some(feeds.len())
    }
}

impl Upstream for Push {
    const LOSSY: bool = true;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        *self.link.lock() = Arc::downgrade(&link);
        link.up();
        let mut changes = link.changes();
        loop {
            changes.look(|| link.wanted().for_each(|feed| link.confirm(feed)));
            link.settled();
            if changes.next().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct Message<'a> {
    channel: &'a str,
    event: Option<&'a str>,
    payload: &'a [u8],
}

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.payload)
    }

    fn name(&self) -> &str {
        self.channel
    }

    fn event(&self) -> Option<&str> {
        self.event
    }
}

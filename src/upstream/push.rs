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
    /// What is published from now on goes to the feeds of this link. Not for its session to say: that begins in its own time,
    /// and whoever is told that the process listens, or is reloaded, may publish at once.
    pub(super) fn goes_to(&self, link: &Arc<Link>) {
        *self.link.lock() = Arc::downgrade(link);
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Upstream as Config, UpstreamKind};
    use crate::hub::Memory;
    use crate::metrics::Metrics;
    use crate::upstream::{Histories, Running};

    #[tokio::test]
    async fn there_is_somebody_to_publish_to_before_the_session_has_its_turn() {
        let (push, config) =
            (Arc::<Push>::default(), Config { name: "lobby".into(), kind: UpstreamKind::Push });
        assert_eq!(push.publish("a", None, b"x"), None, "no upstream is configured");
        let link = Link::new("lobby".into(), Arc::default(), Metrics::new().upstream("lobby"));
        let histories = Histories { memory: Memory::new(usize::MAX), concurrency: 1 };
        let _running = Running::start(&config, &link, &push, &histories, usize::MAX);
        assert_eq!(push.publish("a", None, b"x"), Some(0));
    }
}

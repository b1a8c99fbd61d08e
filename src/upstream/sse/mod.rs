//! Servers that send events over HTTP, another ssegate among them. Each path that is wanted is read on one stream for all
//! of its feeds; event ids are the server's own, and what a log does not hold the server is asked for. Where it gives no
//! ids, what is sent between two streams is lost.
//!
//! Reading order: `step`, `table`, `stretches`, `ids`; then `server`, `reader`, `source`; and `past`.

mod ids;
mod past;
mod reader;
mod server;
mod source;
mod step;
mod stretches;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use self::ids::{Ids, Job, Takes};
use self::server::Server;
use self::source::Source;
use super::link::Link;
use super::paths::Paths;
use super::{Broken, Histories, Upstream};
use crate::config;
use crate::hub::{Feed, Memory};

/// A server.
pub(super) struct Sse {
    shared: Arc<Shared>,
    paths: Paths<Source>,
    /// Until history is served.
    asked: Mutex<Option<UnboundedReceiver<Job>>>,
}

/// What its paths have in common.
struct Shared {
    server: Mutex<Arc<Server>>,
    takes: Takes,
    memory: Arc<Memory>,
    at_a_time: usize,
    jobs: UnboundedSender<Job>,
}

impl Sse {
    pub(super) fn new(config: &config::Sse, histories: &Histories) -> Arc<Self> {
        let (jobs, asked) = mpsc::unbounded_channel();
        let takes = match (&config.relay, config.resume) {
            (Some(_), _) => Takes::Any,
            (None, true) => Takes::Own,
            (None, false) => Takes::None,
        };
        let (memory, at_a_time) = (Arc::clone(&histories.memory), histories.concurrency);
        let server = Mutex::new(Arc::new(Server::new(config, at_a_time)));
        let shared = Arc::new(Shared { server, takes, memory, at_a_time, jobs });
        Arc::new(Self { shared, paths: Paths::default(), asked: Mutex::new(Some(asked)) })
    }

    /// From the next session on it is entered like this.
    pub(super) fn configure(&self, config: &config::Sse) {
        *self.shared.server.lock() = Arc::new(Server::new(config, self.shared.at_a_time));
    }

    /// Serves those who read what was before; never ends.
    pub(super) async fn serve_history(self: Arc<Self>, link: Arc<Link>) {
        let asked = self.asked.lock().take();
        if let Some(asked) = asked {
            past::serve(Arc::clone(&self.shared), asked, link).await;
        }
    }
}

impl Upstream for Sse {
    /// Where something is lost, the source knows.
    const LOSSY: bool = false;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        self.paths.session(&link, |path| Source::new(path, &self.shared)).await
    }
}

impl Shared {
    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.lock())
    }

    /// The ids of the log of a feed, which begins where this id was given last.
    fn ids(&self, feed: &Feed, path: &Arc<str>, id: Option<&str>) -> Arc<Ids> {
        Ids::new(feed, path, self.takes, id, &self.memory, &self.jobs)
    }
}

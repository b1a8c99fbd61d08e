//! Servers that answer with data and not with events: asked again and again, of which changes are events; or whose answer
//! does not end, of which each line is one. They give no ids, and what nobody has asked for is gone.

mod items;
mod lines;
mod source;

use std::sync::Arc;

use parking_lot::Mutex;

use self::source::Source;
use super::link::Link;
use super::paths::{Paths, Web};
use super::{Broken, Upstream};
use crate::config;

/// A server.
pub(super) struct Http {
    server: Arc<Mutex<Arc<Server>>>,
    paths: Paths<Source>,
}

/// The server as it is configured, and the connections to it.
struct Server {
    config: config::Http,
    web: Web,
}

impl Http {
    pub(super) fn new(config: &config::Http) -> Arc<Self> {
        Arc::new(Self { server: Arc::new(Mutex::new(Server::new(config))), paths: Paths::default() })
    }

    /// From the next session on it is entered like this.
    pub(super) fn configure(&self, config: &config::Http) {
        *self.server.lock() = Server::new(config);
    }
}

impl Server {
    fn new(config: &config::Http) -> Arc<Self> {
        Arc::new(Self { config: config.clone(), web: Web::new(&config.server, config.server.connections) })
    }
}

impl Upstream for Http {
    /// Where something is lost, the source knows.
    const LOSSY: bool = false;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        self.paths.session(&link, |path| Source::new(path, &self.server)).await
    }
}

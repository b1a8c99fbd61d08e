//! How an upstream is entered whose link is tried now and then, and what is lost where it is entered anew.

use std::time::Duration;

use parking_lot::Mutex;

use super::link::Link;
use crate::config;

/// The way in, and how well the session before knew that its link was good.
pub(super) struct Entry<C> {
    config: Mutex<C>,
    /// How long ago the last try may have been sent that was answered, in the session that was configured before.
    alive_within: Mutex<Duration>,
}

/// Says how often a link is tried.
pub(super) trait Tried: Clone {
    fn ping_interval(&self) -> Duration;
    fn timeout(&self) -> Duration;
}

impl<C: Tried> Entry<C> {
    pub(super) fn new(config: &C) -> Self {
        Self { config: Mutex::new(config.clone()), alive_within: Mutex::default() }
    }

    /// From the next session on it is entered so.
    pub(super) fn configure(&self, config: &C) {
        let before = std::mem::replace(&mut *self.config.lock(), config.clone());
        *self.alive_within.lock() = before.ping_interval() + 2 * before.timeout();
    }

    /// How it is entered now.
    pub(super) fn config(&self) -> C {
        self.config.lock().clone()
    }

    /// A session was ended while its link stood, since another way was configured.
    pub(super) fn leaves(&self, link: &Link) {
        link.lose_feeds_within(*self.alive_within.lock());
    }
}

impl Tried for config::Amqp {
    fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Tried for config::Redis {
    fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Tried for config::Postgres {
    fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

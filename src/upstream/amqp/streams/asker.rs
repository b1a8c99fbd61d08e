//! Connections on which the history of streams is asked for: one for each read that is going on, whose number the pool
//! bounds, and one that waits for the next.

use lapin::Channel;
use parking_lot::Mutex;

use super::place::PREFETCH;
use crate::upstream::Broken;
use crate::upstream::amqp::connection::{Connection, Dialer, Unanswered};

/// Those of one upstream.
#[derive(Default)]
pub(super) struct Askers {
    /// How they are made, once a session has found out.
    dialer: Mutex<Option<Dialer>>,
    idle: Mutex<Option<Asker>>,
}

/// A connection that asks one question after the other.
pub(super) struct Asker {
    connection: Connection,
    dialer: Dialer,
}

impl Asker {
    /// A channel for one question: who consumes on it closes it.
    pub(super) async fn channel(&self) -> Result<Channel, Unanswered> {
        self.dialer.channel(&self.connection, PREFETCH).await
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }
}

impl Askers {
    /// From now on this is asked.
    pub(super) fn ask_at(&self, dialer: &Dialer) {
        *self.dialer.lock() = Some(dialer.clone());
        *self.idle.lock() = None;
    }

    /// One to ask with, which is given back if all went well.
    pub(super) async fn take(&self) -> Result<Asker, Unanswered> {
        let idle = self.idle.lock().take().filter(|asker| asker.connection.is_open());
        if let Some(asker) = idle {
            return Ok(asker);
        }
        let unknown = || Unanswered::Broken(Broken("the broker has not been reached yet".to_owned()));
        let dialer = self.dialer.lock().clone().ok_or_else(unknown)?;
        let connection = dialer.connect().await.map_err(Unanswered::Broken)?;
        Ok(Asker { connection, dialer })
    }

    /// It has answered. A second one that has nothing to do goes.
    pub(super) fn put_back(&self, asker: Asker) {
        self.idle.lock().get_or_insert(asker);
    }
}

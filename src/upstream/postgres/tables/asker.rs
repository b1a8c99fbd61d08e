//! Connections on which the history of tables is asked for: one for each read that is going on, whose number the pool bounds,
//! and one that waits for the next.

use parking_lot::Mutex;

use super::known::Asked;
use crate::upstream::Broken;
use crate::upstream::postgres::connection::{Connection, Dialer, Unanswered};

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
    pub(super) async fn connect(dialer: &Dialer) -> Result<Self, Broken> {
        Ok(Self { connection: dialer.connect().await?, dialer: dialer.clone() })
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { client: &self.connection.client, dialer: &self.dialer }
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
        let idle = self.idle.lock().take().filter(|asker| !asker.connection.client.is_closed());
        if let Some(asker) = idle {
            return Ok(asker);
        }
        let unknown = || Unanswered::Broken(Broken("the database has not been reached yet".to_owned()));
        let dialer = self.dialer.lock().clone().ok_or_else(unknown)?;
        Asker::connect(&dialer).await.map_err(Unanswered::Broken)
    }

    /// It has answered. A second one that has nothing to do goes.
    pub(super) fn put_back(&self, asker: Asker) {
        self.idle.lock().get_or_insert(asker);
    }
}

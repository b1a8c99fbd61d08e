//! The connections on which tables are read, and their history is asked for.

use super::known::Asked;
use crate::upstream::postgres::connection::{Connection, Dialer};
use crate::upstream::{Broken, askers};

/// Those of one upstream for its history.
pub(super) type Askers = askers::Askers<Asker>;

/// A connection that asks one question after the other.
pub(super) struct Asker {
    connection: Connection,
    dialer: Dialer,
}

impl Asker {
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { client: &self.connection.client, dialer: &self.dialer }
    }
}

impl askers::Asker for Asker {
    type Dialer = Dialer;

    async fn connect(dialer: &Dialer) -> Result<Self, Broken> {
        Ok(Self { connection: dialer.connect().await?, dialer: dialer.clone() })
    }

    fn is_open(&self) -> bool {
        !self.connection.client.is_closed()
    }
}

//! The connections on which the history of streams is asked for.

use super::place::Stream;
use crate::upstream::amqp::connection::{Connection, Dialer};
use crate::upstream::{Broken, askers};

/// Those of one upstream.
pub(super) type Askers = askers::Askers<Asker>;

/// A connection that asks one question after the other.
pub(super) struct Asker {
    connection: Connection,
    dialer: Dialer,
}

impl Asker {
    /// A stream, as it is read on this connection.
    pub(super) fn stream<'s>(&'s self, name: &'s str) -> Stream<'s> {
        Stream { dialer: &self.dialer, connection: &self.connection, name }
    }
}

impl askers::Asker for Asker {
    type Dialer = Dialer;

    async fn connect(dialer: &Dialer) -> Result<Self, Broken> {
        Ok(Self { connection: dialer.connect().await?, dialer: dialer.clone() })
    }

    fn is_open(&self) -> bool {
        self.connection.is_open()
    }
}

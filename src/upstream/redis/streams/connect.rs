//! Connections for streams: one to wait on, one to ask with. The redis crate's own, over our socket: nothing comes in here
//! unasked, so that its counting of answers does.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Endpoint;
use crate::upstream::Broken;
use crate::upstream::redis::connection::Dialer;

/// A connection, and what drives it for as long as it lives.
pub(super) struct Connection {
    /// To be asked.
    pub asked: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens a connection, whose answers must come within `answer`, where that is bounded.
pub(super) async fn open(
    dialer: &Dialer,
    endpoint: &Endpoint,
    answer: Option<Duration>,
) -> Result<Connection, Broken> {
    let address = endpoint.address();
    let connecting = async {
        let socket = dialer.connect(endpoint).await.map_err(|error| error.to_string())?;
        let settings = AsyncConnectionConfig::new().set_response_timeout(answer);
        let whom = as_whom(endpoint);
        let made = MultiplexedConnection::new_with_config(&whom, socket, settings).await;
        let (asked, driver) = made.map_err(|error| error.to_string())?;
        Ok(Connection { asked, driver: tokio::spawn(driver) })
    };
    timeout(dialer.timeout(), connecting)
        .await
        .map_err(|_| {
            Broken(format!("connecting to Redis at {address} took longer than {:?}", dialer.timeout()))
        })?
        .map_err(|error: String| Broken::new(&format!("connecting to Redis at {address} failed"), error))
}

fn as_whom(endpoint: &Endpoint) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        .set_db(i64::from(endpoint.database))
        .set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = &endpoint.user {
        info = info.set_username(user.as_str());
    }
    if let Some(password) = &endpoint.password {
        info = info.set_password(password.expose());
    }
    info
}

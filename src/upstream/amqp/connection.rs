//! One connection to one RabbitMQ: TCP, TLS, and errors in words. Knows nothing of feeds.
//!
//! lapin has a thread for each connection, which ends with its socket and not before: so the socket is cut when nobody
//! has the connection any more, or has waited for it in vain.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use lapin::protocol::AMQPErrorKind;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, ConnectionProperties, Error, ErrorKind};
use parking_lot::Mutex;
use socket2::Socket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::net;
use crate::config;
use crate::upstream::{Broken, Unanswered};

/// How the broker of one upstream is reached.
#[derive(Clone)]
pub(super) struct Dialer {
    uri: AMQPUri,
    tls: Option<TlsConnector>,
    timeout: Duration,
    user_timeout: Duration,
    max_event: usize,
    /// The virtual host, as messages name it.
    place: String,
}

/// A connection for as long as it lives.
pub(super) struct Connection {
    own: lapin::Connection,
    _cut: Cut,
}

impl Connection {
    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.own.status().connected()
    }
}

impl Dialer {
    /// Of the body of a message no more comes in than tells that it has more bytes than `max_event`. Reads the system's
    /// authorities where they are needed.
    pub fn new(config: &config::Amqp, max_event: usize) -> Result<Self, Broken> {
        let tls = config.tls.as_ref().map(|tls| tls.config().map(Arc::new).map_err(Broken)).transpose()?;
        // Pings are for those who wait; this is for the thread and the socket.
        let heartbeat = u16::try_from(2 * config.ping_interval.as_secs()).unwrap_or(u16::MAX).max(HEARTBEAT);
        let uri = AMQPUri {
            scheme: if config.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: config.user.clone(),
                    password: config.password.expose().to_owned(),
                },
                host: config.host.clone(),
                port: config.port,
            },
            vhost: config.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(heartbeat), ..AMQPQueryString::default() },
        };
        let user_timeout = config.ping_interval + config.timeout;
        Ok(Self {
            uri,
            tls: tls.map(TlsConnector::from),
            timeout: config.timeout,
            user_timeout,
            max_event,
            place: config.to_string(),
        })
    }

    /// Connects, and enters the virtual host.
    pub async fn connect(&self) -> Result<Connection, Broken> {
        let cut = Cut::default();
        let (tls, socket, user_timeout) = (self.tls.clone(), Arc::clone(&cut.0), self.user_timeout);
        let (patience, most) = (self.timeout, self.max_event.saturating_add(1));
        let connecting = async {
            let properties = ConnectionProperties::default().with_connection_name("ssegate".into());
            let dial = async move |uri: AMQPUri, _: net::Runtime| {
                let (host, port) = (uri.authority.host, uri.authority.port);
                let own = |opened| *socket.lock() = Some(opened);
                let dialled = net::dial(&host, port, tls.as_ref(), user_timeout, most, own);
                let late = || io::Error::from(io::ErrorKind::TimedOut);
                Ok(timeout(patience, dialled).await.unwrap_or_else(|_| Err(late()))?)
            };
            lapin::Connection::connector(self.uri.clone(), net::runtime(), dial, properties).await
        };
        match timeout(self.timeout, connecting).await {
            Ok(Ok(own)) => Ok(Connection { own, _cut: cut }),
            Ok(Err(error)) => Err(Broken(format!("connecting to {} failed: {}", self.place, words(&error)))),
            Err(_) => {
                Err(Broken(format!("connecting to {} took longer than {:?}", self.place, self.timeout)))
            }
        }
    }

    /// The bytes of the largest event.
    pub fn max_event(&self) -> usize {
        self.max_event
    }

    /// Waits for the answer to a question.
    pub async fn answer<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Unanswered> {
        match timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_refusal(&error) => Err(Unanswered::Refused(words(&error))),
            Ok(Err(error)) => Err(Unanswered::Broken(self.lost(&error))),
            Err(_) => Err(Unanswered::Broken(Broken(format!(
                "{} did not answer within {:?}",
                self.place, self.timeout
            )))),
        }
    }

    /// The link ended with this.
    pub fn lost(&self, error: &Error) -> Broken {
        Broken(format!("the link to {} was lost: {}", self.place, words(error)))
    }

    /// A channel of a connection, on which so many messages of each consumer may be under way.
    pub async fn channel(&self, connection: &Connection, prefetch: u16) -> Result<Channel, Unanswered> {
        let channel = self.answer(connection.own.create_channel()).await?;
        self.answer(channel.basic_qos(prefetch, Default::default())).await?;
        Ok(channel)
    }
}

/// Seconds: less, and a broker that is merely slow is taken for dead.
const HEARTBEAT: u16 = 10;

/// Cuts the socket when it is dropped.
#[derive(Default)]
struct Cut(Arc<Mutex<Option<Socket>>>);

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(socket) = self.0.lock().take() {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Whether RabbitMQ says no, or has no channel left, and the connection stands.
fn is_refusal(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => matches!(error.kind(), AMQPErrorKind::Soft(_)),
        ErrorKind::ChannelsLimitReached => true,
        _ => false,
    }
}

/// An error in RabbitMQ's own words, or in those of what is below.
fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    }
}

//! One connection to one database: TCP or a Unix socket, TLS, the settings that hold for all of its statements, and errors
//! in words. Knows nothing of feeds.

use std::error::Error as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{self, PostgresServer};
use crate::upstream::{Broken, Unanswered};

/// How the database of one upstream is reached.
#[derive(Clone)]
pub(super) struct Dialer {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    timeout: Duration,
    /// The database, as messages name it.
    place: String,
}

/// What the server says unasked. Answers to questions come while this is read.
pub(super) type Messages = BoxStream<'static, Result<AsyncMessage, Error>>;

/// A connection that is driven for as long as it lives.
pub(super) struct Connection {
    /// To be asked.
    pub client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Dialer {
    /// Reads the system's authorities where they are needed.
    pub fn new(config: &config::Postgres) -> Result<Self, Broken> {
        let mut dialed = tokio_postgres::Config::new();
        dialed.user(&config.user).dbname(&config.database).application_name("ssegate");
        match &config.server {
            PostgresServer::Tcp(host, port) => dialed.host(host).port(*port),
            PostgresServer::Socket(folder, port) => dialed.host_path(folder).port(*port),
        };
        if let Some(password) = &config.password {
            dialed.password(password.expose());
        }
        // Pings notice a peer that vanished. Should the kernel be the first to know, so much the better.
        dialed.tcp_user_timeout(config.ping_interval + config.timeout);
        dialed.ssl_mode(if config.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let tls = config.tls.as_ref().map(|tls| tls.config().map(MakeRustlsConnect::new).map_err(Broken));
        Ok(Self { config: dialed, tls: tls.transpose()?, timeout: config.timeout, place: config.to_string() })
    }

    /// Connects, for who reads what the server says unasked.
    pub async fn open(&self) -> Result<(Client, Messages), Broken> {
        let opening = async {
            let (client, mut messages, encoding) = match &self.tls {
                Some(tls) => split(self.config.connect(tls.clone()).await?),
                None => split(self.config.connect(NoTls).await?),
            };
            let settings = self.settings(encoding);
            tokio::select! {
                set = client.batch_execute(&settings) => set?,
                // It ends with an error, which the question is told as well; or never while that is open.
                () = drive(&mut messages) => client.check_connection().await?,
            }
            Ok((client, messages))
        };
        match timeout(self.timeout, opening).await {
            Ok(opened) => opened.map_err(|error: Error| {
                Broken(format!("connecting to {} failed: {}", self.place, words(&error)))
            }),
            Err(_) => {
                Err(Broken(format!("connecting to {} took longer than {:?}", self.place, self.timeout)))
            }
        }
    }

    /// Connects, for who asks alone.
    pub async fn connect(&self) -> Result<Connection, Broken> {
        let (client, mut messages) = self.open().await?;
        Ok(Connection { client, driver: tokio::spawn(async move { drive(&mut messages).await }) })
    }

    /// Waits for the answer to a question. The server gives up before.
    pub async fn answer<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Unanswered> {
        match timeout(2 * self.timeout, answer).await {
            Ok(answer) => self.said(answer),
            Err(_) => Err(Unanswered::Broken(Broken(format!(
                "{} did not answer within {:?}",
                self.place,
                2 * self.timeout
            )))),
        }
    }

    /// What the server said.
    pub fn said<T>(&self, answer: Result<T, Error>) -> Result<T, Unanswered> {
        answer.map_err(|error| match is_refusal(&error) {
            true => Unanswered::Refused(words(&error)),
            false => Unanswered::Broken(self.lost(&error)),
        })
    }

    /// The link ended with this.
    pub fn lost(&self, error: &Error) -> Broken {
        Broken(format!("the link to {} was lost: {}", self.place, words(error)))
    }

    /// The link was ended by the server, without a word.
    pub fn ended(&self) -> Broken {
        Broken(format!("{} ended the link", self.place))
    }

    /// No statement writes, each sees what was committed before it began, and none takes longer than an answer may.
    fn settings(&self, encoding: Encoding) -> String {
        let settings = format!(
            "SET default_transaction_read_only = on; SET default_transaction_isolation = 'read committed'; \
             SET statement_timeout = {}",
            self.timeout.as_millis()
        );
        match encoding {
            Encoding::Known => settings,
            // Otherwise Postgres refuses all of an answer for one text in it that is not UTF-8.
            Encoding::None => settings + "; SET client_encoding = 'SQL_ASCII'",
        }
    }
}

/// What texts of a database are.
#[derive(Clone, Copy)]
enum Encoding {
    /// Postgres sends them as UTF-8.
    Known,
    /// Bytes, whatever they mean: SQL_ASCII.
    None,
}

fn split<S, T>(
    (client, mut connection): (Client, tokio_postgres::Connection<S, T>),
) -> (Client, Messages, Encoding)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let encoding = match connection.parameter("server_encoding") {
        Some("SQL_ASCII") => Encoding::None,
        _ => Encoding::Known,
    };
    (client, stream::poll_fn(move |cx| connection.poll_message(cx)).boxed(), encoding)
}

/// Reads until the link ends. Nothing comes unasked that concerns anybody.
async fn drive(messages: &mut Messages) {
    while let Some(Ok(_)) = messages.next().await {}
}

/// Whether Postgres says no, and the link stands.
fn is_refusal(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// An error in Postgres's own words, or in those of what is below.
pub(super) fn words(error: &Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        (None, Some(cause)) if cause.to_string() == NO_TLS => {
            format!("{error}: {cause}; where it need not, add `?sslmode=disable` to `url`")
        }
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// What the client says of a server that answers to be without it.
const NO_TLS: &str = "server does not support TLS";

/// An identifier as it stands in a statement, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_cannot_end_itself() {
        assert_eq!(quoted("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }
}

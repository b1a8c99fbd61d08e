//! The asker: every question about streams that does not wait, on one connection for all of an upstream, which is
//! made when it is needed and again when it broke. Sessions and those who read history share it.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::sync::Mutex;

use super::connect::{self, Connection};
use super::id::{self, END};
use super::info::Info;
use super::reply::{self, Entry, Malformed};
use crate::config::Endpoint;
use crate::hub::Offset;
use crate::upstream::Broken;
use crate::upstream::redis::connection::Dialer;

/// The connection to ask with.
pub(super) struct Asker {
    /// Where the server is, once a session has found it.
    server: parking_lot::Mutex<Option<(Dialer, Endpoint)>>,
    connection: Mutex<Option<Connection>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Redis refuses this stream: it is no stream, or an ACL forbids it. Others are not concerned.
    #[error("{0}")]
    Refused(RedisError),
    /// The link does not do.
    #[error("{0}")]
    Broken(Broken),
}

impl From<RedisError> for Unanswered {
    fn from(error: RedisError) -> Self {
        if is_refusal(&error) {
            return Self::Refused(error);
        }
        Self::Broken(Broken::new("asking Redis about a stream failed", error))
    }
}

/// Whether Redis says no because of one of the streams.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGTYPE" | "NOPERM"))
}

impl From<Malformed> for Unanswered {
    fn from(malformed: Malformed) -> Self {
        Self::Broken(Broken(malformed.to_string()))
    }
}

impl Asker {
    /// Not connected so far.
    pub(super) fn new() -> Self {
        Self { server: parking_lot::Mutex::default(), connection: Mutex::default() }
    }

    /// From now on this server is asked.
    pub(super) async fn ask_at(&self, dialer: &Dialer, endpoint: &Endpoint) {
        *self.server.lock() = Some((dialer.clone(), endpoint.clone()));
        self.forget().await;
    }

    /// What there is about a stream; `None` if it is not there.
    pub(super) async fn info(&self, stream: &str) -> Result<Option<Info>, Unanswered> {
        let mut question = redis::pipe();
        question.cmd("XINFO").arg("STREAM").arg(stream);
        let [info] = self.ask(question).await?;
        found(info)
    }

    /// Whether a stream may be read, whatever it holds: asks for what follows the largest id, which is nothing.
    pub(super) async fn may_read(&self, stream: &str) -> Result<(), Unanswered> {
        let mut question = redis::pipe();
        question.cmd("XREAD").arg("STREAMS").arg(stream).arg(id::show(END));
        let [answer] = self.ask(question).await?;
        Ok(answer.map(drop)?)
    }

    /// At most `count` entries from `from` on up to `to`, both included, and what there is about the stream after
    /// they were read; `None` if it is not there.
    pub(super) async fn range(
        &self,
        stream: &str,
        from: Offset,
        to: Offset,
        count: usize,
    ) -> Result<(Vec<Entry>, Option<Info>), Unanswered> {
        let mut both = redis::pipe();
        both.cmd("XRANGE").arg(stream).arg(id::show(from)).arg(id::show(to)).arg("COUNT").arg(count);
        both.cmd("XINFO").arg("STREAM").arg(stream);
        let [entries, info] = self.ask(both).await?;
        Ok((reply::entries(entries?)?, found(info)?))
    }

    /// At most `count` entries from `from` back, which is included; the newest comes first.
    pub(super) async fn range_back(
        &self,
        stream: &str,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Entry>, Unanswered> {
        let mut question = redis::pipe();
        question.cmd("XREVRANGE").arg(stream).arg(id::show(from)).arg("-").arg("COUNT").arg(count);
        let [entries] = self.ask(question).await?;
        Ok(reply::entries(entries?)?)
    }

    /// Ends the wait of another connection, if it waits.
    pub(super) async fn unblock(&self, client: i64) -> Result<(), Unanswered> {
        let mut question = redis::pipe();
        question.cmd("CLIENT").arg("UNBLOCK").arg(client);
        let [answer] = self.ask(question).await?;
        Ok(answer.map(drop)?)
    }

    /// Asks so many questions. The outer error is the link's, the inner ones are Redis's own no.
    async fn ask<const N: usize>(
        &self,
        mut questions: Pipeline,
    ) -> Result<[RedisResult<Value>; N], Unanswered> {
        questions.ignore_errors();
        let (mut connection, was_open) = self.connection().await?;
        let mut answers = questions.query_async::<Vec<_>>(&mut connection).await;
        if let Err(error) = &answers {
            self.forget().await;
            // A link that was not needed may be gone without anybody having noticed: no cause to end a session whose
            // other links are new.
            if was_open && !error.is_timeout() {
                let (mut connection, _) = self.connection().await?;
                answers = questions.query_async(&mut connection).await;
            }
        }
        match answers {
            Ok(answers) => Ok(answers.try_into().map_err(|_| Malformed)?),
            Err(error) => {
                self.forget().await;
                Err(error.into())
            }
        }
    }

    /// The connection, and whether it was open already.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), Unanswered> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = &*connection {
            return Ok((open.asked.clone(), true));
        }
        let server = self.server.lock().clone();
        let Some((dialer, endpoint)) = server else {
            return Err(Unanswered::Broken(Broken("no Redis server has been found yet".to_owned())));
        };
        let opened = connect::open(&dialer, &endpoint, Some(dialer.timeout())).await;
        Ok((connection.insert(opened.map_err(Unanswered::Broken)?).asked.clone(), false))
    }

    async fn forget(&self) {
        *self.connection.lock().await = None;
    }
}

/// The answer to XINFO STREAM, for which a stream that is not there is an error.
fn found(answer: RedisResult<Value>) -> Result<Option<Info>, Unanswered> {
    match answer {
        Err(error) if error.detail() == Some("no such key") => Ok(None),
        answer => Ok(Some(Info::parse(&answer?)?)),
    }
}

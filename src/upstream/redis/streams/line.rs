//! A line: one connection to one server for questions that do not wait, made when it is needed and again when it
//! broke. Whoever has a question shares it.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value, cmd};
use tokio::sync::Mutex;

use super::asker::Unanswered;
use super::connect::{self, Connection};
use super::reply::Malformed;
use crate::config::Endpoint;
use crate::upstream::Broken;
use crate::upstream::redis::connection::Dialer;

/// The connection to ask one server with.
pub(super) struct Line {
    dialer: Dialer,
    endpoint: Endpoint,
    /// Held while it is made, so that one is.
    connection: Mutex<Option<Connection>>,
}

impl Line {
    /// Not connected so far.
    pub(super) fn new(dialer: &Dialer, endpoint: Endpoint) -> Self {
        Self { dialer: dialer.clone(), endpoint, connection: Mutex::default() }
    }

    /// Asks so many questions. The outer error is the line's, the inner ones are Redis's own no. `asking` is for a
    /// node that is about to take the slot over, and answers only those who know.
    pub(super) async fn ask<const N: usize>(
        &self,
        questions: &[Cmd; N],
        asking: bool,
    ) -> Result<[RedisResult<Value>; N], Unanswered> {
        let questions = pipeline(questions, asking);
        let (mut connection, was_open) = self.connection().await?;
        let mut answers = questions.query_async::<Vec<_>>(&mut connection).await;
        if let Err(error) = &answers {
            self.forget().await;
            // A line that was not needed may be gone without anybody having noticed: no cause to end a session whose
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
                let doing = format!("asking Redis at {} about a stream failed", self.endpoint.address());
                Err(Unanswered::Broken(Broken::new(&doing, error)))
            }
        }
    }

    /// The connection, and whether it was open already.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), Unanswered> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = &*connection {
            return Ok((open.asked.clone(), true));
        }
        let opened = connect::open(&self.dialer, &self.endpoint, Some(self.dialer.timeout())).await;
        Ok((connection.insert(opened.map_err(Unanswered::Broken)?).asked.clone(), false))
    }

    async fn forget(&self) {
        *self.connection.lock().await = None;
    }
}

/// The questions as they are sent; one fails without the others.
fn pipeline(questions: &[Cmd], asking: bool) -> Pipeline {
    let mut pipeline = redis::pipe();
    for question in questions {
        if asking {
            pipeline.add_command(cmd("ASKING")).ignore();
        }
        pipeline.add_command(question.clone());
    }
    pipeline.ignore_errors();
    pipeline
}

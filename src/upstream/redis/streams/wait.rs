//! The connection that entries are read on. Where one command can name all streams it waits in Redis for them
//! (XREAD BLOCK); where it cannot, it asks once for each slot, and waiting is for the caller.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value, cmd};
use tokio::time::timeout;

use super::Place;
use super::asker::{Asker, Unanswered};
use super::connect::{self, Connection};
use super::id;
use super::reply::Malformed;
use super::stream::Reading;
use crate::upstream::Broken;
use crate::upstream::redis::slots::Node;

/// An open connection to read entries on.
pub(super) struct Waiter {
    connection: Connection,
    server: Node,
    address: String,
    /// How Redis calls the connection.
    client: i64,
    timeout: Duration,
}

impl Waiter {
    /// Connects to the place's server.
    pub(super) async fn connect(place: &Place) -> Result<Self, Broken> {
        let connection = connect::open(&place.dialer, &place.endpoint, None).await?;
        let (server, address) = (Node::of(&place.endpoint), place.endpoint.address());
        let mut waiter = Self { connection, server, address, client: 0, timeout: place.dialer.timeout() };
        let client = waiter.ask(cmd("CLIENT").arg("ID").take()).await?;
        let client = client.and_then(|id| Ok(redis::from_redis_value(id)?));
        waiter.client = client.map_err(|error| {
            Broken::new(&format!("Redis at {} did not tell the id of a link", waiter.address), error)
        })?;
        Ok(waiter)
    }

    /// Tries the link.
    pub(super) async fn ping(&self) -> Result<(), Broken> {
        self.ask(cmd("PING")).await.map(drop)
    }

    /// Reads on, at most `count` entries of each stream; each group of streams has an answer of its own. Waits for
    /// so long until there is something, if at all, and then there is one group.
    pub(super) async fn read(
        &self,
        groups: &[Vec<Reading>],
        count: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<RedisResult<Value>>, Broken> {
        let commands = groups.iter().map(|group| xread(group, count, wait));
        self.ask_all(commands, wait.unwrap_or_default()).await
    }

    /// Ends the wait; again and again, since Redis may not have come to it yet. Returns why it cannot be ended.
    pub(super) async fn unblock(&self, asker: &Asker) -> Unanswered {
        loop {
            if let Err(why) = asker.unblock(&self.server, self.client).await {
                return why;
            }
            tokio::time::sleep(UNBLOCK_AGAIN).await;
        }
    }

    async fn ask(&self, question: Cmd) -> Result<RedisResult<Value>, Broken> {
        let answer = self.ask_all([question], Duration::ZERO).await?.pop();
        answer.ok_or_else(|| Broken(Malformed.to_string()))
    }

    async fn ask_all(
        &self,
        commands: impl IntoIterator<Item = Cmd>,
        wait: Duration,
    ) -> Result<Vec<RedisResult<Value>>, Broken> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        commands.into_iter().for_each(|command| _ = pipeline.add_command(command));
        let mut asked = self.connection.asked.clone();
        match timeout(self.timeout + wait, pipeline.query_async(&mut asked)).await {
            Ok(answers) => answers.map_err(|error| {
                Broken::new(
                    &format!("the reader of streams lost its link to Redis at {}", self.address),
                    error,
                )
            }),
            Err(_) => Err(Broken(format!(
                "Redis at {} did not answer the reader of streams within {:?}",
                self.address, self.timeout
            ))),
        }
    }
}

fn xread(group: &[Reading], count: usize, wait: Option<Duration>) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count);
    if let Some(wait) = wait {
        command.arg("BLOCK").arg(wait.as_millis() as u64);
    }
    command.arg("STREAMS");
    group.iter().for_each(|reading| _ = command.arg(&*reading.stream));
    group.iter().for_each(|reading| _ = command.arg(id::show(reading.at)));
    command
}

/// The wait before an attempt to end a wait is made again.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(5);

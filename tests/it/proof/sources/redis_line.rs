//! What pens publish by on a server of Redis itself: one connection at a time, another one after each that broke.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, RedisResult};

use crate::support::redis::Redis;
use crate::support::wait::DEADLINE;

/// The connection, once there has been something to publish.
pub struct Line {
    client: Client,
    connection: Option<MultiplexedConnection>,
}

impl Line {
    pub fn new(redis: &Redis) -> Self {
        Self { client: Client::open(redis.url()).expect("a URL"), connection: None }
    }

    /// What a pipeline comes to, as long as it takes. One that breaks takes the connection with it.
    pub async fn query<T: FromRedisValue>(&mut self, batch: &Pipeline) -> RedisResult<T> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.client).await?),
        };
        let done = batch.query_async(connection).await;
        if done.is_err() {
            self.connection = None;
        }
        done
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(DEADLINE))
        .set_response_timeout(Some(DEADLINE));
    client.get_multiplexed_async_connection_with_config(&config).await
}

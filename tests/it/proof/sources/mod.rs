//! The sources that are proven.

mod kafka;
mod redis_channel;
mod redis_stream;

pub use kafka::KafkaTopic;
pub use redis_channel::RedisChannel;
pub use redis_stream::RedisStream;

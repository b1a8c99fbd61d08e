//! The sources that are proven.

mod kafka;
mod redis_channel;

pub use kafka::KafkaTopic;
pub use redis_channel::RedisChannel;

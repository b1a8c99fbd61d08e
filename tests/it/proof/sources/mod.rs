//! The sources that are proven.

mod kafka;
mod redis;

pub use kafka::KafkaTopic;
pub use redis::RedisChannel;

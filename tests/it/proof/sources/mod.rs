//! The sources that are proven.

mod events;
mod kafka;
mod redis_channel;
mod redis_stream;
mod relay;

pub use events::Events;
pub use kafka::KafkaTopic;
pub use redis_channel::RedisChannel;
pub use redis_stream::RedisStream;
pub use relay::Relay;

//! The sources that are proven.

mod jetstream;
mod kafka;
mod mqtt;
mod nats_subject;
mod redis_channel;
mod redis_stream;

pub use jetstream::JetstreamStream;
pub use kafka::KafkaTopic;
pub use mqtt::MqttTopic;
pub use nats_subject::NatsSubject;
pub use redis_channel::RedisChannel;
pub use redis_stream::RedisStream;

//! The sources that are proven.

mod events;
mod jetstream;
mod kafka;
mod mqtt;
mod nats_subject;
mod postgres_channel;
mod postgres_table;
mod rabbitmq_exchange;
mod rabbitmq_stream;
mod redis_channel;
mod redis_line;
mod redis_stream;
mod relay;
mod several_feeds;
mod two_streams;

pub use events::Events;
pub use jetstream::JetstreamStream;
pub use kafka::KafkaTopic;
pub use mqtt::MqttTopic;
pub use nats_subject::NatsSubject;
pub use postgres_channel::PostgresChannel;
pub use postgres_table::PostgresTable;
pub use rabbitmq_exchange::RabbitMqExchange;
pub use rabbitmq_stream::RabbitMqStream;
pub use redis_channel::RedisChannel;
pub use redis_stream::RedisStream;
pub use relay::Relay;
pub use several_feeds::SeveralFeeds;
pub use two_streams::TwoStreams;

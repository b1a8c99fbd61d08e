//! The proof: recording clients and a recording publisher, against the real brokers, under a script of faults. Of all
//! that was published nothing is missing unannounced, nothing is given twice, and each partition's order is kept.
//!
//! [`run`] is the whole of it; [`source`] says how another source is plugged in. The script and all habits come from one
//! seed, which is printed, and can be set by `SSEGATE_PROOF_SEED`. Clients that lose or repeat something leave all
//! records in a directory that the failure names.

mod beyond_memory;
mod client;
mod faults;
mod harm;
mod replicas;
mod run;
mod source;
mod sources;
mod verdict;

use std::time::Instant;

use self::run::prove;
use self::source::Source;
use self::sources::{
    Events, JetstreamStream, KafkaTopic, MqttTopic, NatsSubject, PostgresChannel, PostgresTable,
    RabbitMqExchange, RabbitMqStream, RedisChannel, RedisStream, Relay, SeveralFeeds, TwoStreams,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_kafka_topic_lose_and_repeat_nothing_whatever_happens() {
    prove::<KafkaTopic<false>>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_keys_of_a_kafka_topic_lose_and_repeat_nothing_whatever_happens() {
    prove::<KafkaTopic<true>>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_redis_channel_lose_nothing_unannounced_whatever_happens() {
    prove::<RedisChannel>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_redis_stream_lose_and_repeat_nothing_whatever_happens() {
    prove::<RedisStream>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_postgres_channel_lose_nothing_unannounced_whatever_happens() {
    prove::<PostgresChannel>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_postgres_table_lose_and_repeat_nothing_however_late_transactions_commit() {
    prove::<PostgresTable>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_rabbitmq_exchange_lose_nothing_unannounced_whatever_happens() {
    prove::<RabbitMqExchange>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_rabbitmq_stream_lose_and_repeat_nothing_whatever_happens() {
    prove::<RabbitMqStream>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_server_of_events_lose_and_repeat_nothing_whatever_happens() {
    prove::<Events>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_relay_tier_lose_and_repeat_nothing_whatever_happens() {
    prove::<Relay>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_nats_subject_lose_nothing_unannounced_whatever_happens() {
    prove::<NatsSubject>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_stream_of_jetstream_lose_and_repeat_nothing_whatever_happens() {
    prove::<JetstreamStream>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_an_mqtt_topic_lose_nothing_unannounced_whatever_happens() {
    prove::<MqttTopic>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_two_streams_in_one_feed_lose_and_repeat_nothing_whatever_happens() {
    prove::<TwoStreams>(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_several_feeds_on_one_connection_lose_and_repeat_nothing_whatever_happens() {
    prove::<SeveralFeeds>(seed()).await;
}

/// The same with one seed after another, for as long as `SSEGATE_SOAK` says, such as `8h`: `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "for `make soak`"]
async fn soak() {
    let length = std::env::var("SSEGATE_SOAK").unwrap_or("30m".into());
    let end =
        Instant::now() + humantime::parse_duration(&length).expect("SSEGATE_SOAK is a duration, such as 8h");
    let mut seed = seed();
    while Instant::now() < end {
        tokio::join!(
            prove::<KafkaTopic<false>>(seed),
            prove::<KafkaTopic<true>>(seed),
            prove::<RedisChannel>(seed),
            prove::<RedisStream>(seed),
            prove::<PostgresChannel>(seed),
            prove::<PostgresTable>(seed),
            prove::<RabbitMqExchange>(seed),
            prove::<RabbitMqStream>(seed),
            prove::<Events>(seed),
            prove::<Relay>(seed),
            prove::<NatsSubject>(seed),
            prove::<JetstreamStream>(seed),
            prove::<MqttTopic>(seed),
            prove::<TwoStreams>(seed),
            prove::<SeveralFeeds>(seed)
        );
        seed += 1;
    }
}

#[test]
fn a_run_is_as_large_as_is_promised() {
    fn size<S: Source>() -> (u64, usize) {
        (S::NUMBERS.0, S::MENU.iter().map(|(_, count)| count).sum())
    }
    let sizes = [
        size::<KafkaTopic<false>>(),
        size::<KafkaTopic<true>>(),
        size::<RedisChannel>(),
        size::<RedisStream>(),
        size::<PostgresChannel>(),
        size::<PostgresTable>(),
        size::<RabbitMqExchange>(),
        size::<RabbitMqStream>(),
    ];
    assert!(sizes.iter().map(|(numbers, _)| numbers).sum::<u64>() >= 200_000);
    assert!(sizes.iter().map(|(_, faults)| faults).sum::<usize>() >= 50);
}

fn seed() -> u64 {
    match std::env::var("SSEGATE_PROOF_SEED") {
        Ok(seed) => seed.parse().expect("SSEGATE_PROOF_SEED is a number"),
        Err(_) => u64::from(rand::random::<u32>()),
    }
}

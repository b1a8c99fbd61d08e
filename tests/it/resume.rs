//! The promise: 10,000 numbered messages while clients are cut at random; each that resumes within history has
//! all of them, once and in order.

use std::time::Duration;

use crate::support::eventsource::Options;
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::recorder::{Habits, Recorder};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;

const MESSAGES: usize = 10_000;
const CLIENTS: u64 = 12;

fn config(upstream: &str, from: &str) -> String {
    format!(
        r#"
upstreams: {{ up: {upstream} }}
defaults: {{ history: {{ events: 20000, bytes: 64MiB }}, retry: 100ms }}
routes: [ {{ path: /m, from: {{ upstream: up, {from} }} }} ]
"#
    )
}

/// Half of the clients on each protocol; each connection is cut after some random kilobytes.
async fn clients(ssegate: &Ssegate) -> Vec<Recorder> {
    let mut clients = Vec::new();
    for seed in 0..CLIENTS {
        let options = if seed % 2 == 0 { Options::http1() } else { Options::http2() };
        let habits = Habits { longest_retry: Duration::from_millis(20), ..Habits::cut(2_000..60_000, seed) };
        let client = Recorder::start(ssegate.url("/m"), options, habits);
        client.until_begun().await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_of_redis_reach_every_client_once_and_in_order() {
    let redis = Redis::start().await;
    let upstream = format!("{{ redis: {{ url: \"{}\" }} }}", redis.url());
    let ssegate = Ssegate::start(config(&upstream, "channel: numbers")).await;
    redis.until_subscribed("numbers", 1).await;
    let clients = clients(&ssegate).await;
    for block in 0..100 {
        redis.publish_all("numbers", (0..100).map(|n| (block * 100 + n).to_string())).await;
    }
    for client in clients {
        client.wait_messages(MESSAGES).await;
        let numbers: Vec<usize> = client.messages().iter().map(|event| event.data.parse().unwrap()).collect();
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
        assert_eq!(client.gaps(), [] as [serde_json::Value; 0]);
        assert!(client.opened() > 3, "it was cut: {}", client.opened());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_of_kafka_reach_every_client_once_and_in_order() {
    let kafka = Kafka::shared().await;
    let topic = unique("numbers");
    kafka.create_topic(&topic, 6).await;
    let upstream = format!("{{ kafka: {{ brokers: [\"{}\"] }} }}", kafka.bootstrap());
    let ssegate = Ssegate::start(config(&upstream, &format!("topic: {topic}"))).await;
    let clients = clients(&ssegate).await;
    // Several producers, one of them transactional, each with partitions of its own.
    let plain = [kafka.producer(), kafka.producer()];
    let transactional = kafka.transactional(&unique("tx")).await;
    let record = |n: usize| Record::to(&topic).partition((n % 6) as i32).payload(n.to_string());
    for block in 0..20 {
        let numbers = |wanted: &'static [usize]| {
            (block * 500..(block + 1) * 500).filter(move |n| wanted.contains(&(n % 6))).map(record)
        };
        transactional.begin().await;
        transactional.send_all(numbers(&[4, 5])).await;
        transactional.commit().await;
        tokio::join!(plain[0].send_all(numbers(&[0, 1])), plain[1].send_all(numbers(&[2, 3])));
    }
    for client in clients {
        client.wait_messages(MESSAGES).await;
        let mut numbers: Vec<usize> =
            client.messages().iter().map(|event| event.data.parse().unwrap()).collect();
        for partition in 0..6 {
            assert!(numbers.iter().filter(|n| *n % 6 == partition).is_sorted(), "partition {partition}");
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
        assert_eq!(client.gaps(), [] as [serde_json::Value; 0]);
        assert!(client.opened() > 3, "it was cut: {}", client.opened());
    }
}

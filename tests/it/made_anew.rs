//! Sources that are deleted and created again, or get partitions, where one replica sees that before the other: what ids
//! mean to a process that is behind, and what is told of a stream that was made anew while nobody looked.

use redis::cmd;

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;

fn kafka_config(bootstrap: &str, topic: &str) -> String {
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"], properties: {{ topic.metadata.refresh.interval.ms: 500 }} }} }} }}
routes: [ {{ path: /t, from: {{ upstream: bus, topic: {topic} }} }} ]
"#
    )
}

/// Two replicas on one topic, the second behind a link that can be silent, and a client that has read five records.
async fn on_two_replicas(kafka: &Kafka, topic: &str) -> (Proxy, [Ssegate; 2], EventSource) {
    kafka.create_topic(topic, 1).await;
    let link = kafka.link().await;
    let ahead = Ssegate::start(kafka_config(&kafka.bootstrap(), topic)).await;
    let behind = Ssegate::start(kafka_config(&kafka.link_bootstrap(), topic)).await;
    for replica in [&ahead, &behind] {
        let mut stream = EventSource::connect(replica.url("/t"), Options::http1()).await;
        stream.next_named("stream.position").await;
    }
    let mut stream = EventSource::connect(ahead.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    kafka.produce_all((0..5).map(|n| Record::to(topic).payload(n.to_string()))).await;
    stream.next_data(5).await;
    (link, [ahead, behind], stream)
}

#[tokio::test]
async fn an_id_of_the_new_topic_waits_where_it_is_not_known_yet() {
    let kafka = Kafka::start().await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot delete topics");
    }
    let topic = unique("anew");
    let (link, [_ahead, behind], mut stream) = on_two_replicas(&kafka, &topic).await;
    link.pause();
    kafka.delete_topic(&topic).await;
    kafka.create_topic(&topic, 1).await;
    kafka.producer().send_all((10..13).map(|n| Record::to(&topic).payload(n.to_string()))).await;
    assert_eq!(stream.next_gap().await["reason"], "recreated");
    assert_eq!(stream.next_data(3).await, ["10", "11", "12"]);
    stream.close();

    stream.move_to(behind.url("/t"));
    stream.forget();
    stream.reconnect().await;
    // Its log still holds the old topic, and the link says nothing.
    stream.until_comments(1).await;
    assert!(stream.events().is_empty(), "{:?}", stream.events());
    link.resume();
    assert_eq!(stream.next().await.event, "stream.position");
    kafka.producer().send(Record::to(&topic).payload("13")).await;
    assert_eq!(stream.next().await.data, "13");
}

#[tokio::test]
async fn an_id_may_know_of_a_partition_that_the_replica_has_not_seen() {
    let kafka = Kafka::start().await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it has no second way in");
    }
    let topic = unique("grown");
    let (_link, [_ahead, behind], mut stream) = on_two_replicas(&kafka, &topic).await;
    let slow = kafka_config(&kafka.bootstrap(), &topic).replace("interval.ms: 500", "interval.ms: 3000");
    let slow = Ssegate::start(slow).await;
    let mut there = EventSource::connect(slow.url("/t"), Options::http1()).await;
    there.next_named("stream.position").await;
    drop(behind);
    kafka.add_partitions(&topic, 2).await;
    kafka.producer().send(Record::to(&topic).partition(1).payload("5")).await;
    assert_eq!(stream.next_data(1).await, ["5"]);
    stream.close();

    stream.move_to(slow.url("/t"));
    stream.forget();
    stream.reconnect().await;
    assert_eq!(stream.next().await.event, "stream.position");
    kafka.producer().send(Record::to(&topic).partition(1).payload("6")).await;
    assert_eq!(stream.next().await.data, "6");
    assert_eq!(there.next_data(2).await, ["5", "6"]);
}

fn redis_config(url: &str) -> String {
    format!(
        r#"
upstreams: {{ up: {{ redis: {{ url: "{url}", ping_interval: 100ms, timeout: 3s }} }} }}
routes:
  - {{ path: /s, from: {{ upstream: up, stream: audit }}, data: "{{field.n}}" }}
  - {{ path: /short, from: {{ upstream: up, stream: audit }}, data: "{{field.n}}", event: short, history: {{ events: 3 }}, buffer: 64KiB }}
"#
    )
}

/// What is new, and a gap before that, as those get it who read at `path` from `id` on.
async fn is_told(ssegate: &Ssegate, path: &str, id: &str, numbers: &[&str]) {
    let mut stream = EventSource::connect(ssegate.url(path), Options::http1().resume(id)).await;
    assert_eq!(stream.next_gap().await["reason"], "recreated", "{path}");
    stream.next_named("stream.position").await;
    for number in numbers {
        assert_eq!(stream.next_message().await.data, *number, "{path}");
    }
}

/// Its ids go on with the time, so that those of the old one mean a place before the first of the new one.
#[tokio::test]
async fn a_stream_made_anew_while_nobody_looked_is_told() {
    let redis = Redis::start().await;
    let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    let ssegate = Ssegate::start(redis_config(&format!("redis://{}", link.addr()))).await;
    let mut stream = EventSource::connect(ssegate.url("/s"), Options::http1()).await;
    stream.next_named("stream.position").await;
    redis.xadd_numbers("audit", 0..3).await;
    stream.next_data(3).await;
    let id = stream.last_event_id().to_owned();
    link.pause();
    // The reader has them on their way at best, and its session is over before it looks again.
    redis.xadd_numbers("audit", 3..6).await;
    redis.command::<()>(cmd("DEL").arg("audit")).await;
    redis.xadd_numbers("audit", 10..13).await;
    link.cut_all();
    link.resume();
    assert_eq!(stream.next_gap().await["reason"], "recreated");
    stream.next_named("stream.position").await;
    assert_eq!(stream.next_data(3).await, ["10", "11", "12"]);
    for path in ["/s", "/short"] {
        is_told(&ssegate, path, &id, &["10", "11", "12"]).await;
    }

    // Nor does a process take the old ids for the new one's that has seen only that, be it from its first entry on.
    let other = Ssegate::start(redis_config(&redis.url())).await;
    is_told(&other, "/s", &id, &["10", "11", "12"]).await;
    redis.command::<()>(cmd("DEL").arg("audit")).await;
    let early = Ssegate::start(redis_config(&redis.url())).await;
    let mut first = EventSource::connect(early.url("/s"), Options::http1()).await;
    assert_eq!(first.next_named("stream.position").await.id, "0-0");
    redis.xadd_numbers("audit", 20..22).await;
    first.next_data(2).await;
    is_told(&early, "/s", &id, &["20", "21"]).await;
}

#[tokio::test]
async fn an_id_of_the_new_stream_is_one_where_it_is_not_known_yet() {
    let redis = Redis::start().await;
    let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    let ahead = Ssegate::start(redis_config(&redis.url())).await;
    let behind = Ssegate::start(redis_config(&format!("redis://{}", link.addr()))).await;
    let mut stream = EventSource::connect(ahead.url("/s"), Options::http1()).await;
    let mut stays = EventSource::connect(behind.url("/s"), Options::http1()).await;
    stream.next_named("stream.position").await;
    stays.next_named("stream.position").await;
    redis.xadd_numbers("audit", 0..3).await;
    stream.next_data(3).await;
    stays.next_data(3).await;
    link.pause();
    redis.command::<()>(cmd("DEL").arg("audit")).await;
    redis.xadd_numbers("audit", 10..13).await;
    assert_eq!(stream.next_gap().await["reason"], "recreated");
    assert_ne!(stream.next_named("stream.position").await.id, "0-0", "that is the beginning of the old one");
    assert_eq!(stream.next_data(3).await, ["10", "11", "12"]);
    stream.close();

    stream.move_to(behind.url("/s"));
    stream.forget();
    stream.reconnect().await;
    link.resume();
    assert_eq!(stays.next_gap().await["reason"], "recreated");
    redis.xadd_numbers("audit", 13..14).await;
    assert_eq!(stream.next_message().await.data, "13");
    assert!(stream.events().iter().all(|event| event.event != "stream.gap"), "{:?}", stream.events());
}

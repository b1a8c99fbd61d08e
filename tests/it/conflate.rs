//! Routes with `conflate`, of each key the newest in windows, with `sample` and with `rate`: from real upstreams, and exact
//! over replicas.

use std::collections::BTreeMap;

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// Reads until each of `newest` is there: what was seen of each key, and the last id.
async fn until_newest(
    stream: &mut EventSource,
    newest: &BTreeMap<String, i32>,
) -> (BTreeMap<String, Vec<i32>>, String) {
    let (mut seen, mut id) = (BTreeMap::<String, Vec<i32>>::new(), String::new());
    let is_newest = |seen: &BTreeMap<String, Vec<i32>>| {
        newest.iter().all(|(key, newest)| seen.get(key).and_then(|seen| seen.last()) == Some(newest))
    };
    while !is_newest(&seen) {
        let event = stream.next().await;
        assert_ne!(event.event, "stream.gap", "what was replaced is no gap: {}", event.data);
        if event.event != "stream.position" {
            let (key, number) = event.data.split_once(' ').unwrap();
            seen.entry(key.to_owned()).or_default().push(number.parse().unwrap());
            id = event.id;
        }
    }
    (seen, id)
}

fn newest(keys: i32, to: i32) -> BTreeMap<String, i32> {
    (0..keys).map(|key| (key.to_string(), (0..to).rev().find(|n| n % keys == key).unwrap())).collect()
}

fn config(bootstrap: &str, topic: &str) -> String {
    let conflate = "conflate: { by: key, every: 300ms }";
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"] }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: /newest, from: {{ upstream: bus, topic: {topic} }}, {conflate} }}
  - {{ path: /short, from: {{ upstream: bus, topic: {topic} }}, event: short, history: {{ events: 3 }}, buffer: 64KiB, {conflate} }}
  - {{ path: "/k/{{id}}", from: {{ upstream: bus, topic: {topic}, key: "{{id}}", partitioner: crc32 }}, {conflate} }}
  - {{ path: /all, from: {{ upstream: bus, topic: {topic} }} }}
"#
    )
}

async fn publish(kafka: &Kafka, topic: &str, keys: i32, from: i32, to: i32) {
    let record = |n: i32| Record::to(topic).key((n % keys).to_string()).payload(format!("{} {n}", n % keys));
    kafka.produce_all((from..to).map(record)).await;
}

#[tokio::test]
async fn each_key_comes_to_its_newest_and_an_id_resumes_on_another_replica() {
    let kafka = Kafka::shared().await;
    let topic = unique("conflate");
    kafka.create_topic(&topic, 3).await;
    let first = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let second = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut streams = Vec::new();
    for ssegate in [&first, &second] {
        let mut stream = EventSource::connect(ssegate.url("/newest"), Options::http2()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    let mut all = EventSource::connect(first.url("/all"), Options::http1()).await;
    let mut one = EventSource::connect(first.url("/k/7"), Options::http1()).await;
    all.next_named("stream.position").await;
    one.next_named("stream.position").await;
    publish(kafka, &topic, 20, 0, 4_000).await;

    let mut ids = Vec::new();
    for stream in &mut streams {
        let (seen, id) = until_newest(stream, &newest(20, 4_000)).await;
        assert!(seen.values().all(|numbers| numbers.is_sorted()), "in order: {seen:?}");
        let count: usize = seen.values().map(Vec::len).sum();
        assert!(count < 2_000, "most of 4,000 were replaced, and {count} came");
        ids.push(id);
    }
    let whole = until_newest(&mut all, &newest(20, 4_000)).await.0;
    assert_eq!(whole.values().map(Vec::len).sum::<usize>(), 4_000, "other routes have them all");
    let of_one = until_newest(&mut one, &BTreeMap::from([("7".to_owned(), 3_987)])).await.0;
    assert!(of_one["7"].len() < 200, "a key is conflated, too: {of_one:?}");

    // Each goes on where the other was, and no key is missed.
    streams.clear();
    publish(kafka, &topic, 20, 4_000, 5_000).await;
    for (ssegate, id) in [(&second, &ids[0]), (&first, &ids[1])] {
        for path in ["/newest", "/short"] {
            let mut back = EventSource::connect(ssegate.url(path), Options::http1().resume(id)).await;
            assert_eq!(back.next_named("stream.position").await.id, *id, "{path}");
            let (seen, _) = until_newest(&mut back, &newest(20, 5_000)).await;
            assert!(seen.values().flatten().all(|&n| n >= 4_000), "nothing comes twice: {seen:?}");
        }
    }
    let conflated = first.metrics().await.sum("ssegate_events_conflated_total", &[("upstream", "bus")]);
    assert!(conflated > 4_000.0, "{conflated} on three routes");
    let status = first.status().await;
    let feeds = status["feeds"].as_array().unwrap();
    assert!(feeds.iter().any(|feed| feed["conflated"].as_u64().is_some_and(|conflated| conflated > 1_000)));
    assert!(feeds.iter().any(|feed| feed["conflated"].is_null()), "one of them keeps all: {status:#}");
}

#[tokio::test]
async fn the_last_window_ends_by_time_and_a_lost_link_loses_nothing_of_a_stream() {
    let mut redis = Redis::start_durable().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 200ms, timeout: 2s }} }} }}
routes:
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: "{{field.n}}", conflate: {{ by: "{{field.id}}", every: 2s }} }}
"#,
        redis.url()
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/s"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let add = async |redis: &Redis, n: i32| {
        let id = (n % 5).to_string();
        redis.xadd("s", "*", &[("id", &id), ("n", &format!("{id} {n}"))]).await;
    };
    for n in 0..50 {
        add(&redis, n).await;
    }
    // The link is lost while a window is open: what waits is neither lost nor read again.
    eventually("some to wait", async || {
        let conflated = ssegate.metrics().await.sum("ssegate_events_conflated_total", &[]);
        if conflated > 30.0 { Ok(()) } else { Err(conflated) }
    })
    .await;
    redis.restart().await;
    for n in 50..60 {
        add(&redis, n).await;
    }
    let (seen, id) = until_newest(&mut stream, &newest(5, 60)).await;
    assert!(seen.values().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "each once, in order: {seen:?}");
    let mut back = EventSource::connect(ssegate.url("/s"), Options::http2().resume(&id)).await;
    assert_eq!(back.next().await.id, id);
    add(&redis, 60).await;
    assert_eq!(back.next_message().await.data, "0 60");
}

#[tokio::test]
async fn the_channels_of_a_pattern_are_keys() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: /p, from: {{ upstream: cache, pattern: "price.*" }}, conflate: {{ by: key, every: 200ms }} }}
"#,
        redis.url()
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/p"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let prices: Vec<_> =
        (0..1_000).map(|n| (format!("price.{}", n % 10), format!("{} {n}", n % 10))).collect();
    redis.publish_each(&prices).await;
    let (seen, id) = until_newest(&mut stream, &newest(10, 1_000)).await;
    let count: usize = seen.values().map(Vec::len).sum();
    assert!(count < 800, "{count} of 1,000 came");
    let number: usize = id.split_once('-').unwrap().1.parse().unwrap();
    assert_eq!(number, count, "ids count what is sent");
}

#[tokio::test]
async fn a_sample_is_the_same_on_every_replica_and_of_history() {
    let kafka = Kafka::shared().await;
    let topic = unique("sample");
    kafka.create_topic(&topic, 3).await;
    let config = format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{}"] }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: /some, from: {{ upstream: bus, topic: {topic} }}, sample: 10% }}
  - {{ path: /short, from: {{ upstream: bus, topic: {topic} }}, sample: {{ every: 10 }}, event: short, history: {{ events: 3 }}, buffer: 64KiB }}
"#,
        kafka.bootstrap()
    );
    let (first, second) = (Ssegate::start(config.clone()).await, Ssegate::start(config).await);
    let mut live = EventSource::connect(first.url("/some"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    publish(kafka, &topic, 20, 0, 3_000).await;
    let mut kept = Vec::new();
    eventually("all to be taken in", async || {
        let out = first.metrics().await.sum("ssegate_events_sampled_out_total", &[]);
        let taken = first.metrics().await.sum("ssegate_events_in_total", &[]);
        if out + taken == 6_000.0 { Ok(()) } else { Err(out + taken) }
    })
    .await;
    let of_one = first.metrics().await.sum("ssegate_events_in_total", &[]) / 2.0;
    assert!((200.0..400.0).contains(&of_one), "{of_one} of 3,000");
    while kept.len() < of_one as usize {
        kept.push(live.next_message().await.data);
    }
    for (ssegate, path) in [(&second, "/some"), (&first, "/short"), (&second, "/short")] {
        let mut back = EventSource::connect(ssegate.url(path), Options::http1().resume(&start)).await;
        let mut same = back.next_data(kept.len()).await;
        let mut expected = kept.clone();
        same.sort();
        expected.sort();
        assert_eq!(same, expected, "{path}");
    }
}

#[tokio::test]
async fn what_is_beyond_a_clients_rate_is_left_out_for_it_and_its_position_moves() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: /few, from: {{ upstream: cache, channel: c }}, rate: {{ events: 50, every: 1h }} }}
  - {{ path: /all, from: {{ upstream: cache, channel: c }} }}
"#,
        redis.url()
    ))
    .await;
    let mut few = EventSource::connect(ssegate.url("/few"), Options::http1()).await;
    let mut all = EventSource::connect(ssegate.url("/all"), Options::http2()).await;
    few.next_named("stream.position").await;
    all.next_named("stream.position").await;
    redis.publish_all("c", (0..500).map(|n| n.to_string())).await;
    let numbers = |to: u32| (0..to).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(few.next_data(50).await, numbers(50));
    assert_eq!(all.next_data(500).await, numbers(500), "others have them all");
    let last = all.last_event_id().to_owned();
    // In the place of a keepalive.
    while few.next_named("stream.position").await.id != last {}
    ssegate.until_counted("ssegate_events_left_out_total", &[("route", "/few")], 450.0).await;
    let mut back = EventSource::connect(ssegate.url("/few"), Options::http1().resume(&last)).await;
    assert_eq!(back.next().await.id, last);
    redis.publish("c", "500").await;
    assert_eq!(back.next_message().await.data, "500");
}

#[tokio::test]
async fn each_client_of_a_key_has_a_rate_of_its_own() {
    let (kafka, topic) = (Kafka::shared().await, unique("rate"));
    kafka.create_topic(&topic, 3).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: "{}" }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: "/few/{{id}}", from: {{ upstream: bus, topic: "{topic}", key: "{{id}}", partitioner: crc32 }}, rate: {{ events: 5, every: 1h }} }}
  - {{ path: "/all/{{id}}", from: {{ upstream: bus, topic: "{topic}", key: "{{id}}", partitioner: crc32 }} }}
"#,
        kafka.bootstrap()
    ))
    .await;
    let mut few = EventSource::ready(ssegate.url("/few/a"), Options::http1()).await;
    let mut all = EventSource::ready(ssegate.url("/all/a"), Options::http2()).await;
    let mut other = EventSource::ready(ssegate.url("/few/b"), Options::http1()).await;
    let numbers = |to: u32| (0..to).map(|n| n.to_string()).collect::<Vec<_>>();
    let of = |key: &str, n: u32| Record::to(&topic).key(key).payload(n.to_string());
    kafka.produce_all((0..20).map(|n| of("a", n))).await;
    assert_eq!(few.next_data(5).await, numbers(5));
    assert_eq!(all.next_data(20).await, numbers(20), "others have them all");
    let last = all.last_event_id().to_owned();
    // In the place of a keepalive.
    while few.next_named("stream.position").await.id != last {}
    ssegate.until_counted("ssegate_events_left_out_total", &[("route", "/few/{id}")], 15.0).await;
    kafka.produce_all((0..3).map(|n| of("b", n))).await;
    assert_eq!(other.next_data(3).await, numbers(3), "another key has a rate of its own");
    let mut back = EventSource::connect(ssegate.url("/few/a"), Options::http1().resume(&last)).await;
    assert_eq!(back.next_named("stream.position").await.id, last);
    kafka.produce(of("a", 20)).await;
    assert_eq!(back.next_message().await.data, "20", "what was left out is not given later");
}

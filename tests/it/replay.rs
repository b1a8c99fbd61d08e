//! What a client is given that its log no longer holds, or never did: the log filled from Kafka at the start, and
//! history read from Kafka beyond memory.

use serde_json::json;

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::ssegate::Ssegate;

/// `/t` keeps what is usual, `/short` next to nothing.
fn config(bootstrap: &str, topic: &str) -> String {
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"], properties: {{ topic.metadata.refresh.interval.ms: 1000 }} }} }} }}
routes:
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }} }}
  - {{ path: /short, from: {{ upstream: bus, topic: {topic} }}, event: short, history: {{ events: 3 }}, buffer: 64KiB }}
  - {{ path: /few, from: {{ upstream: bus, topic: {topic} }}, event: few, history: {{ events: 3 }}, buffer: 64KiB, replay: {{ max_events: 40 }} }}
  - {{ path: /bytes, from: {{ upstream: bus, topic: {topic} }}, event: bytes, history: {{ events: 3 }}, buffer: 64KiB, replay: {{ max_bytes: 64KiB }} }}
  - {{ path: /young, from: {{ upstream: bus, topic: {topic} }}, event: young, history: {{ events: 0 }}, buffer: 64KiB, replay: {{ max_age: 30m }} }}
  - {{ path: /earliest, from: {{ upstream: bus, topic: {topic}, start: earliest }}, event: short, history: {{ events: 3 }}, buffer: 64KiB }}
  - {{ path: /since, from: {{ upstream: bus, topic: {topic}, start: {{ since: 1h }} }}, event: short, history: {{ events: 3 }}, buffer: 64KiB }}
"#
    )
}

async fn topic(partitions: i32) -> Option<(&'static Kafka, String)> {
    let kafka = Kafka::shared().await;
    if kafka.is_mock() {
        eprintln!("skipped on the mock cluster: it tells no offsets by time");
        return None;
    }
    let topic = unique("replay");
    kafka.create_topic(&topic, partitions).await;
    Some((kafka, topic))
}

/// Publishes the numbers from `from` up to `to`, each to the partition of its remainder.
async fn publish(kafka: &Kafka, topic: &str, partitions: i32, from: i32, to: i32) {
    let filling = "x".repeat(100);
    let record = |n: i32| Record::to(topic).partition(n % partitions).payload(format!("{n} {filling}"));
    kafka.produce_all((from..to).map(record)).await;
}

async fn numbers(stream: &mut EventSource, name: &str, count: usize) -> Vec<i32> {
    numbers_up_to(stream, name, count).await.0
}

/// The next numbers, and the id of the last.
async fn numbers_up_to(stream: &mut EventSource, name: &str, count: usize) -> (Vec<i32>, String) {
    let (mut numbers, mut id) = (Vec::new(), String::new());
    while numbers.len() < count {
        let event = stream.next().await;
        assert_eq!(event.event, name, "{event:?}");
        numbers.push(event.data.split(' ').next().unwrap().parse().unwrap());
        id = event.id;
    }
    (numbers, id)
}

fn each_once(mut numbers: Vec<i32>, partitions: i32, from: i32, to: i32) {
    for partition in 0..partitions {
        let own: Vec<_> = numbers.iter().filter(|n| *n % partitions == partition).collect();
        assert!(own.is_sorted(), "partition {partition}: {own:?}");
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (from..to).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_log_is_filled_at_the_start_so_that_a_client_resumes_after_a_deploy() {
    let Some((kafka, topic)) = topic(3).await else { return };
    let mut first = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(first.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    publish(kafka, &topic, 3, 0, 30).await;
    let (mut seen, id) = numbers_up_to(&mut stream, "message", 17).await;
    stream.close();
    first.kill();
    publish(kafka, &topic, 3, 30, 60).await;

    let second = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(second.url("/t"), Options::http2().resume(&id)).await;
    assert_eq!(stream.next_named("stream.position").await.id, id);
    seen.extend(numbers(&mut stream, "message", 43).await);
    each_once(seen, 3, 0, 60);
    let status = second.status().await;
    let feed = status["feeds"].as_array().unwrap().iter().find(|feed| feed["event"].is_null()).unwrap();
    assert_eq!(feed["history"]["events"], 60);
}

#[tokio::test]
async fn what_memory_no_longer_holds_is_read_from_the_broker() {
    let Some((kafka, topic)) = topic(3).await else { return };
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    publish(kafka, &topic, 3, 0, 9_000).await;
    // By then the log has let go of nearly all.
    let mut count = 9_000;
    each_once(numbers(&mut live, "short", 9_000).await, 3, 0, count);
    for options in [Options::http1(), Options::http2()] {
        let mut stream = EventSource::connect(ssegate.url("/short"), options.resume(&start)).await;
        stream.next_named("stream.position").await;
        // Somewhere in the middle, then live.
        let (mut seen, id) = numbers_up_to(&mut stream, "short", 4_000).await;
        stream.close();
        let mut stream = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&id)).await;
        assert_eq!(stream.next_named("stream.position").await.id, id);
        seen.extend(numbers(&mut stream, "short", (count - 4_000) as usize).await);
        publish(kafka, &topic, 3, count, count + 30).await;
        seen.extend(numbers(&mut stream, "short", 30).await);
        count += 30;
        each_once(seen, 3, 0, count);
    }
}

#[tokio::test]
async fn earliest_since_and_the_query_begin_in_the_past() {
    let Some((kafka, topic)) = topic(2).await else { return };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let ago = |minutes: i64| now - minutes * 60_000;
    // One in each partition, three hours ago and so on.
    for (age, base) in [(180, 0), (50, 2), (10, 4)] {
        let record = |n: i32| Record::to(&topic).partition(n % 2).timestamp(ago(age)).payload(n.to_string());
        kafka.produce_all((base..base + 2).map(record)).await;
    }
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let time = humantime(ago(60));
    for (path, from) in [
        ("/earliest".to_owned(), 0),
        ("/since".to_owned(), 2),
        ("/short?since=15m".to_owned(), 4),
        (format!("/short?since={time}"), 2),
        ("/earliest?since=15m".to_owned(), 4),
    ] {
        let mut stream = EventSource::connect(ssegate.url(&path), Options::http1()).await;
        stream.next_named("stream.position").await;
        each_once(numbers(&mut stream, "short", (6 - from) as usize).await, 2, from, 6);
    }
    // What is older than it may be is told.
    let mut stream = EventSource::connect(ssegate.url("/young?since=24h"), Options::http1()).await;
    let gap = stream.next_gap().await;
    assert_eq!(
        (&gap["reason"], &gap["from"], &gap["to"]),
        (&json!("replay_limit"), &json!({"0": 0, "1": 0}), &json!({"0": 2, "1": 2}))
    );
    stream.next_named("stream.position").await;
    each_once(numbers(&mut stream, "young", 2).await, 2, 4, 6);
    let refused = EventSource::request(ssegate.url("/t?since=yesterday"), Options::http1()).await;
    assert_eq!(refused.status(), 400);
}

fn humantime(millis: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis as u64);
    humantime::format_rfc3339_millis(time).to_string()
}

#[tokio::test]
async fn what_goes_beyond_max_events_or_retention_is_told_with_its_ranges() {
    let Some((kafka, topic)) = topic(2).await else { return };
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut live = EventSource::connect(ssegate.url("/few"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    publish(kafka, &topic, 2, 0, 1_200).await;
    numbers(&mut live, "few", 1_200).await;
    let mut stream = EventSource::connect(ssegate.url("/few"), Options::http1().resume(&start)).await;
    let gap = stream.next_gap().await;
    assert_eq!(gap["reason"], "replay_limit");
    assert_eq!((&gap["from"], &gap["to"]), (&json!({"0": 0, "1": 0}), &json!({"0": 580, "1": 580})));
    stream.next_named("stream.position").await;
    each_once(numbers(&mut stream, "few", 40).await, 2, 1_160, 1_200);

    let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
    live.next_named("stream.position").await;
    kafka.delete_records(&topic, 0, 100).await;
    // A position of one route is one of every other that reads the topic the same way.
    let mut stream = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&start)).await;
    let gap = stream.next_gap().await;
    assert_eq!(gap["reason"], "trimmed");
    assert_eq!((&gap["from"], &gap["to"]), (&json!({"0": 0}), &json!({"0": 100})));
    stream.next_named("stream.position").await;
    let seen = numbers(&mut stream, "short", 1_100).await;
    assert_eq!(seen.iter().filter(|n| *n % 2 == 0).min(), Some(&200));
    assert_eq!(seen.iter().filter(|n| *n % 2 == 1).min(), Some(&1));
}

/// A client can order no more of the topic than that; what it is not given is told.
#[tokio::test]
async fn one_stream_is_given_so_many_bytes_of_history_and_no_more() {
    let Some((kafka, topic)) = topic(1).await else { return };
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    // Of another route: who reads this one and falls behind is given no more either.
    let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    publish(kafka, &topic, 1, 0, 9_000).await;
    numbers(&mut live, "short", 9_000).await;
    let mut stream = EventSource::connect(ssegate.url("/bytes"), Options::http1().resume(&start)).await;
    let gap = stream.next_gap().await;
    let given: Vec<_> = stream.events().iter().filter(|event| event.event == "bytes").collect();
    assert_eq!(gap["reason"], "replay_limit");
    assert_eq!(gap["from"], json!({ "0": given.len() }));
    let bytes: usize = given.iter().map(|event| event.data.len() + event.id.len()).sum();
    assert!((32 << 10..=96 << 10).contains(&bytes), "64 KiB, and at most one read of 32 more: {bytes}");
    stream.next_named("stream.position").await;
    let next = gap["to"]["0"].as_i64().unwrap() as i32;
    assert_eq!(
        numbers(&mut stream, "bytes", (9_000 - next) as usize).await,
        (next..9_000).collect::<Vec<_>>()
    );
}

/// Until segments that hold nothing else have gone, the broker finds nothing when it is asked for what is that young.
#[tokio::test]
async fn what_was_deleted_by_offset_a_moment_ago_is_no_limit_of_age() {
    let kafka = Kafka::shared().await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot trim topics");
    }
    let producer = kafka.transactional(&unique("tx")).await;
    // They go twice a second here: it is not met with every time. What is left is ten records, or what was aborted.
    for aborted in [false, true].into_iter().cycle().take(8) {
        let topic = unique("replay");
        kafka.create_topic_with(&topic, 1, &[("segment.bytes", "16384")]).await;
        let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
        let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
        let start = live.next_named("stream.position").await.id;
        for from in (0..500).step_by(50) {
            // A batch has to fit into a segment. Were the reader left behind, it would read some of them as history, and
            // they would be there for others after their end.
            publish(kafka, &topic, 1, from, from + 50).await;
            numbers(&mut live, "short", 50).await;
        }
        let first = if aborted { 500 } else { 490 };
        if aborted {
            producer.begin().await;
            producer.send_all((0..10).map(|_| Record::to(&topic).partition(0).payload("aborted"))).await;
            producer.abort().await;
        }
        kafka.delete_records(&topic, 0, first).await;
        let mut back = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&start)).await;
        let gap = back.next_gap().await;
        assert_eq!((&gap["reason"], &gap["to"]), (&json!("trimmed"), &json!({ "0": first })), "{gap}");
        back.next_named("stream.position").await;
        publish(kafka, &topic, 1, 500, 501).await;
        let left = if aborted { 500..501 } else { 490..501 };
        assert_eq!(numbers(&mut back, "short", left.len()).await, left.collect::<Vec<_>>());
    }
}

/// Holes in the offsets, by aborted transactions and their markers, are no gaps in history either.
#[tokio::test]
async fn holes_in_history_are_no_gaps() {
    let Some((kafka, topic)) = topic(1).await else { return };
    let producer = kafka.transactional(&unique("tx")).await;
    let filling = "x".repeat(100);
    for block in 0..40 {
        producer.begin().await;
        let numbers = (block * 100..(block + 1) * 100).map(|n| format!("{n} {filling}"));
        producer.send_all(numbers.map(|data| Record::to(&topic).partition(0).payload(data))).await;
        if block % 2 == 0 { producer.commit().await } else { producer.abort().await }
    }
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(ssegate.url("/earliest"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let expected: Vec<i32> = (0..4_000).filter(|n| n / 100 % 2 == 0).collect();
    assert_eq!(numbers(&mut stream, "short", 2_000).await, expected);
    publish(kafka, &topic, 1, 4_000, 4_001).await;
    assert_eq!(numbers(&mut stream, "short", 1).await, [4_000]);
}

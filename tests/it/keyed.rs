//! Routes on one key of a Kafka topic: each client sees its key alone, and resumes exactly.

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// `/k/…` keeps what is usual, `/short/…` next to nothing.
fn config(bootstrap: &str, topic: &str, partitioner: &str) -> String {
    let key = format!("topic: {topic}, key: \"{{id}}\", partitioner: {partitioner}");
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"], properties: {{ topic.metadata.refresh.interval.ms: 1000 }} }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: "/k/{{id}}", from: {{ upstream: bus, {key} }} }}
  - {{ path: "/earliest/{{id}}", from: {{ upstream: bus, {key}, start: earliest }} }}
  - {{ path: "/short/{{id}}", from: {{ upstream: bus, {key} }}, event: "of {{key}}", history: {{ events: 3 }}, buffer: 64KiB }}
"#
    )
}

async fn start(partitions: i32, partitioner: &str) -> Option<(&'static Kafka, String, Ssegate)> {
    let kafka = Kafka::shared().await;
    if kafka.is_mock() {
        eprintln!("skipped on the mock cluster: it tells no offsets by time");
        return None;
    }
    let topic = unique("keyed");
    kafka.create_topic(&topic, partitions).await;
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic, partitioner)).await;
    Some((kafka, topic, ssegate))
}

/// Publishes the numbers from `from` up to `to`; the key of each is its remainder by `keys`. The producer chooses the
/// partition: librdkafka does so by CRC-32.
async fn publish(kafka: &Kafka, topic: &str, keys: i32, from: i32, to: i32) {
    let filling = "x".repeat(100);
    let record = |n: i32| Record::to(topic).key((n % keys).to_string()).payload(format!("{n} {filling}"));
    kafka.produce_all((from..to).map(record)).await;
}

/// The next numbers, and the id of the last.
async fn numbers(stream: &mut EventSource, count: usize) -> (Vec<i32>, String) {
    let (mut numbers, mut id) = (Vec::new(), String::new());
    while numbers.len() < count {
        let event = stream.next().await;
        if event.event == "stream.position" {
            continue;
        }
        numbers.push(event.data.split(' ').next().unwrap().parse().unwrap());
        id = event.id;
    }
    (numbers, id)
}

fn own(keys: i32, key: i32, from: i32, to: i32) -> Vec<i32> {
    (from..to).filter(|n| n % keys == key).collect()
}

#[tokio::test]
async fn each_client_sees_its_key_alone_and_resumes_on_any_replica() {
    for (key, options) in [(3, Options::http1()), (4, Options::http2())] {
        let Some((kafka, topic, first)) = start(6, "crc32").await else { return };
        let second = Ssegate::start(config(&kafka.bootstrap(), &topic, "crc32")).await;
        EventSource::connect(second.url("/k/0"), Options::http1()).await.next_named("stream.position").await;
        let mut stream = EventSource::connect(first.url(&format!("/k/{key}")), options).await;
        let start = stream.next_named("stream.position").await.id;
        publish(kafka, &topic, 10, 0, 100).await;
        let (mut seen, id) = numbers(&mut stream, 7).await;
        assert!(id.len() < 24, "only one partition is in it: {id}");
        stream.close();
        publish(kafka, &topic, 10, 100, 200).await;
        let mut stream =
            EventSource::connect(second.url(&format!("/k/{key}")), Options::http1().resume(&id)).await;
        assert_eq!(stream.next_named("stream.position").await.id, id);
        seen.extend(numbers(&mut stream, 13).await.0);
        assert_eq!(seen, own(10, key, 0, 200));
        let mut again =
            EventSource::connect(second.url(&format!("/k/{key}")), Options::http2().resume(&start)).await;
        assert_eq!(numbers(&mut again, 20).await.0, own(10, key, 0, 200));
        // One log serves them all.
        let feeds = first.status().await["feeds"].as_array().unwrap().len();
        assert_eq!(feeds, 2, "of the three routes two have the same source and shape");
    }
}

#[tokio::test]
async fn what_memory_no_longer_holds_of_a_key_is_read_from_the_broker() {
    let Some((kafka, topic, ssegate)) = start(3, "crc32").await else { return };
    let mut streams = Vec::new();
    for key in 0..20 {
        let mut stream = EventSource::connect(ssegate.url(&format!("/short/{key}")), Options::http1()).await;
        let id = stream.next_named("stream.position").await.id;
        streams.push((stream, id));
    }
    publish(kafka, &topic, 20, 0, 8_000).await;
    for (key, (mut live, id)) in (0..).zip(streams) {
        assert_eq!(numbers(&mut live, 400).await.0, own(20, key, 0, 8_000));
        let mut back =
            EventSource::connect(ssegate.url(&format!("/short/{key}")), Options::http2().resume(&id)).await;
        assert_eq!(back.next_named("stream.position").await.id, id);
        assert_eq!(numbers(&mut back, 400).await.0, own(20, key, 0, 8_000));
        kafka.produce(Record::to(&topic).key(key.to_string()).payload((8_000 + key).to_string())).await;
        assert_eq!(numbers(&mut back, 1).await.0, [8_000 + key]);
    }
    let mut all = EventSource::connect(ssegate.url("/earliest/7"), Options::http1()).await;
    assert_eq!(numbers(&mut all, 401).await.0, own(20, 7, 0, 8_020));
}

#[tokio::test]
async fn a_quiet_key_is_told_how_far_its_partition_has_got() {
    let Some((kafka, topic, ssegate)) = start(1, "murmur2").await else { return };
    let mut quiet = EventSource::connect(ssegate.url("/short/quiet"), Options::http1()).await;
    let start = quiet.next_named("stream.position").await.id;
    publish(kafka, &topic, 1, 0, 1_000).await;
    let moved = quiet.next_named("stream.position").await;
    assert_ne!(moved.id, start, "told when a comment would be due");
    // What came and went meanwhile was not its own: it missed nothing.
    kafka.produce(Record::to(&topic).key("quiet").payload("at last")).await;
    let event = loop {
        let event = quiet.next().await;
        if event.event != "stream.position" {
            break event;
        }
    };
    assert_eq!((event.event.as_str(), event.data.as_str()), ("of quiet", "at last"));
}

#[tokio::test]
async fn ids_of_other_keys_are_unknown_unless_they_live_together() {
    let Some((_, _, ssegate)) = start(50, "murmur2").await else { return };
    let mut stream = EventSource::connect(ssegate.url("/k/a"), Options::http1()).await;
    let id = stream.next_named("stream.position").await.id;
    let mut unknown = 0;
    for key in 0..5 {
        let mut other =
            EventSource::connect(ssegate.url(&format!("/k/{key}")), Options::http1().resume(&id)).await;
        let told = other.next().await;
        unknown += usize::from(told.event == "stream.gap" && told.data.contains("unknown_id"));
    }
    assert!(unknown >= 4, "{unknown} of 5");
}

#[tokio::test]
async fn keys_in_any_partition_are_found_whatever_the_partitioner_says() {
    for partitioner in ["any", "murmur2"] {
        // The producer puts them where CRC-32 says, which is not where murmur2 does.
        let Some((kafka, topic, ssegate)) = start(4, partitioner).await else { return };
        let mut streams = Vec::new();
        for key in 0..8 {
            let mut stream =
                EventSource::connect(ssegate.url(&format!("/short/{key}")), Options::http1()).await;
            let id = stream.next_named("stream.position").await.id;
            streams.push((stream, id));
        }
        publish(kafka, &topic, 8, 0, 800).await;
        for (key, (mut live, id)) in (0..).zip(streams) {
            let (seen, last) = numbers(&mut live, 100).await;
            assert_eq!(seen, own(8, key, 0, 800));
            let mut back =
                EventSource::connect(ssegate.url(&format!("/short/{key}")), Options::http2().resume(&id))
                    .await;
            assert_eq!(numbers(&mut back, 100).await.0, own(8, key, 0, 800), "{partitioner}");
            let mut end =
                EventSource::connect(ssegate.url(&format!("/short/{key}")), Options::http1().resume(&last))
                    .await;
            end.next_named("stream.position").await;
            kafka.produce(Record::to(&topic).key(key.to_string()).payload((800 + key).to_string())).await;
            assert_eq!(numbers(&mut end, 1).await.0, [800 + key], "{partitioner}");
        }
    }
}

#[tokio::test]
async fn a_key_moves_with_the_number_of_partitions_and_is_followed() {
    let Some((kafka, topic, ssegate)) = start(1, "crc32").await else { return };
    let mut streams = Vec::new();
    for key in 0..6 {
        let mut stream = EventSource::connect(ssegate.url(&format!("/k/{key}")), Options::http1()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    publish(kafka, &topic, 6, 0, 60).await;
    let mut ids = Vec::new();
    for (key, stream) in (0..).zip(&mut streams) {
        let (seen, id) = numbers(stream, 10).await;
        assert_eq!(seen, own(6, key, 0, 60));
        ids.push(id);
    }
    kafka.add_partitions(&topic, 5).await;
    ssegate.wait_log("that partitions were added", |line| line["message"] == "partitions were added").await;
    // A producer of its own, which knows the new number.
    let producer = kafka.producer();
    let record = |n: i32| Record::to(&topic).key((n % 6).to_string()).payload(n.to_string());
    producer.send_all((60..120).map(record)).await;
    let restarted = Ssegate::start(config(&kafka.bootstrap(), &topic, "crc32")).await;
    for (key, (stream, id)) in (0..).zip(streams.iter_mut().zip(&ids)) {
        assert_eq!(numbers(stream, 10).await.0, own(6, key, 60, 120));
        for ssegate in [&ssegate, &restarted] {
            let mut back =
                EventSource::connect(ssegate.url(&format!("/k/{key}")), Options::http1().resume(id)).await;
            back.next_named("stream.position").await;
            assert_eq!(numbers(&mut back, 10).await.0, own(6, key, 60, 120), "from before they were added");
        }
    }
}

#[tokio::test]
async fn a_topic_made_anew_with_fewer_partitions_gives_ids_that_resume() {
    let Some((kafka, topic, ssegate)) = start(20, "crc32").await else { return };
    let mut streams = Vec::new();
    for key in 0..6 {
        let mut stream = EventSource::connect(ssegate.url(&format!("/k/{key}")), Options::http1()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    kafka.delete_topic(&topic).await;
    eventually("ssegate to find the topic gone", async || {
        let error = ssegate.status().await["upstreams"][0]["last_error"]["error"].to_string();
        if error.contains(&topic) { Ok(()) } else { Err(error) }
    })
    .await;
    kafka.create_topic(&topic, 2).await;
    let mut ids = Vec::new();
    for stream in &mut streams {
        assert_eq!(stream.next_gap().await["reason"], "recreated");
        ids.push(stream.next_named("stream.position").await.id);
    }
    publish(kafka, &topic, 6, 0, 60).await;
    for (key, (stream, id)) in (0..).zip(streams.iter_mut().zip(&ids)) {
        assert_eq!(numbers(stream, 10).await.0, own(6, key, 0, 60));
        let mut back =
            EventSource::connect(ssegate.url(&format!("/k/{key}")), Options::http2().resume(id)).await;
        assert_eq!(back.next().await.event, "stream.position", "no gap is told");
        assert_eq!(numbers(&mut back, 10).await.0, own(6, key, 0, 60));
    }
}

/// Its reader has been told positions in all partitions, which it must not lose when it goes on in history.
#[tokio::test]
async fn a_reader_of_a_key_that_moved_misses_and_repeats_nothing_where_it_lags() {
    let Some((kafka, topic, ssegate)) = start(1, "crc32").await else { return };
    let mut streams = Vec::new();
    for key in 0..6 {
        let mut stream = EventSource::connect(ssegate.url(&format!("/short/{key}")), Options::http1()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    publish(kafka, &topic, 6, 0, 60).await;
    for (key, stream) in (0..).zip(&mut streams) {
        assert_eq!(numbers(stream, 10).await.0, own(6, key, 0, 60));
    }
    kafka.add_partitions(&topic, 5).await;
    ssegate.wait_log("that partitions were added", |line| line["message"] == "partitions were added").await;
    let producer = kafka.producer();
    let filling = "x".repeat(100);
    // The second time so many at once that the log lets go of them before they are read.
    for (from, to) in [(60, 360), (360, 12_360)] {
        let record = |n: i32| Record::to(&topic).key((n % 6).to_string()).payload(format!("{n} {filling}"));
        producer.send_all((from..to).map(record)).await;
        for (key, stream) in (0..).zip(&mut streams) {
            let expected = own(6, key, from, to);
            assert_eq!(numbers(stream, expected.len()).await.0, expected);
        }
    }
}

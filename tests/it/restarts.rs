//! Upstreams that die and come back under 100 open streams: no stream ends, Kafka loses nothing, Redis tells
//! the gap.

use crate::support::eventsource::Options;
use crate::support::kafka::{Kafka, Record};
use crate::support::recorder::{Habits, Recorder};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;

const STREAMS: usize = 100;

async fn open(ssegate: &Ssegate) -> Vec<Recorder> {
    let start = |n| {
        let options = if n % 2 == 0 { Options::http1() } else { Options::http2() };
        Recorder::start(ssegate.url("/m"), options, Habits::steady())
    };
    let streams: Vec<_> = (0..STREAMS).map(start).collect();
    for stream in &streams {
        stream.until_begun().await;
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_is_killed_and_restarted_under_a_hundred_streams() {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("m", 6).await;
    let ssegate = Ssegate::start(format!(
        "upstreams: {{ up: {{ kafka: {{ brokers: [\"{}\"] }} }} }}\nroutes: [ {{ path: /m, from: {{ upstream: up, topic: m }} }} ]\n",
        kafka.bootstrap()
    ))
    .await;
    let streams = open(&ssegate).await;
    for round in 0..3 {
        let records = (0..200).map(|n| Record::to("m").partition(n % 6).payload(format!("{round}:{n}")));
        kafka.produce_all(records).await;
        if round < 2 {
            kafka.kill();
            kafka.restart().await;
        }
    }
    for stream in &streams {
        stream.wait_messages(600).await;
        let mut data: Vec<_> = stream.messages().into_iter().map(|event| event.data).collect();
        data.sort();
        data.dedup();
        assert_eq!(data.len(), 600, "nothing is missing, nothing comes twice");
        assert_eq!((stream.opened(), stream.ended()), (1, 0), "no stream ended");
        assert_eq!(stream.gaps(), [] as [serde_json::Value; 0]);
    }
    let is_down = |line: &serde_json::Value| line["message"].as_str().is_some_and(|m| m.contains("is down"));
    let downs: Vec<_> = ssegate.log().into_iter().filter(is_down).collect();
    assert!((1..=4).contains(&downs.len()), "that it is down is said once or twice each time: {downs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_restarted_under_a_hundred_streams() {
    let mut redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        "upstreams: {{ up: {{ redis: {{ url: \"{}\" }} }} }}\nroutes: [ {{ path: /m, from: {{ upstream: up, channel: m }} }} ]\n",
        redis.url()
    ))
    .await;
    let streams = open(&ssegate).await;
    redis.publish_all("m", (0..100).map(|n| format!("before {n}"))).await;
    for stream in &streams {
        stream.wait_messages(100).await;
    }
    redis.kill();
    redis.restart().await;
    redis.until_subscribed("m", 1).await;
    redis.publish_all("m", (0..100).map(|n| format!("after {n}"))).await;
    for stream in &streams {
        stream.wait_messages(200).await;
        let gaps = stream.gaps();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0]["reason"], "upstream_lost");
        assert!(gaps[0]["since"].is_string() && gaps[0]["until"].is_string());
        assert_eq!((stream.opened(), stream.ended()), (1, 0), "no stream ended");
        assert_eq!(stream.messages().len(), 200);
    }
}

//! Payloads that are decoded.

use std::path::Path;

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, unique};
use crate::support::redis::Redis;
use crate::support::registry::Registry;
use crate::support::ssegate::Ssegate;
use crate::support::writer::write;

/// What a command of an example's head, which is a line of it, prints by `printf`.
fn printed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let text = std::fs::read_to_string(path).expect("the example is there");
    let line = text.lines().find_map(|line| line.split_once("printf '")).expect("it prints something").1;
    let format = line.split_once('\'').expect("it ends").0;
    let output = std::process::Command::new("printf").arg(format).output().expect("printf");
    output.stdout
}

async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http1()).await
}

#[tokio::test]
async fn avro() {
    let ssegate = start("avro.yaml", &[]).await;
    let mut stream = open(&ssegate, "/orders").await;
    ssegate.publish("orders", printed("avro.yaml")).await;
    assert_eq!(
        stream.next_message().await.data,
        r#"{"id":1,"total":"123.45","at":"2026-01-31T12:00:00Z","note":null,"items":["pen"]}"#
    );
}

#[tokio::test]
async fn protobuf() {
    let ssegate = start("protobuf.yaml", &[]).await;
    let mut stream = open(&ssegate, "/orders").await;
    ssegate.publish("orders", printed("protobuf.yaml")).await;
    assert_eq!(stream.next_message().await.data, r#"{"id":"7","items":[{"name":"pen"}]}"#);
}

#[tokio::test]
async fn msgpack() {
    let redis = Redis::start().await;
    let ssegate = start("msgpack.yaml", &[("redis://localhost:6379", &redis.url())]).await;
    let (mut sensors, mut readings) = (open(&ssegate, "/sensors").await, open(&ssegate, "/readings").await);
    let reading = printed("msgpack.yaml");
    redis.publish("sensors", &reading).await;
    let add = redis::cmd("XADD").arg("readings").arg("*").arg("payload").arg(&reading).take();
    redis.command::<String>(&add).await;
    for stream in [&mut sensors, &mut readings] {
        assert_eq!(stream.next_message().await.data, r#"{"id":7,"temp":21.5}"#);
    }
}

#[tokio::test]
async fn registry() {
    let (kafka, registry, topic) = (Kafka::shared().await, Registry::shared().await, unique("orders"));
    kafka.create_topic(&topic, 1).await;
    let places = [
        ("localhost:9092", &*kafka.bootstrap()),
        ("http://localhost:8081", &*registry.url()),
        ("topic: orders", &*format!("topic: {topic}")),
    ];
    let ssegate = start("registry.yaml", &places).await;
    let mut stream = open(&ssegate, "/orders").await;
    for record in write("protobuf", &[&registry.url(), &topic]).await {
        kafka.produce(record.to(&topic)).await;
    }
    assert!(
        stream.next_message().await.data.contains(r#""items":[{"name":"pen","count":2},{"name":"ink"}]"#)
    );
    assert_eq!(stream.next_message().await.data, r#"{"id":"7","reasons":{"why":"late"}}"#);
}

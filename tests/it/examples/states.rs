//! Routes that keep of their records what is asked for.

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;

#[tokio::test]
async fn ticker_conflate() {
    let redis = Redis::start().await;
    let ssegate = start("ticker-conflate.yaml", &[("redis://localhost:6379", &redis.url())]).await;
    let mut stream = EventSource::connect(ssegate.url("/prices"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let burst = |price: u32| [("price.ACME", price), ("price.INIT", 2 * price)];
    let text = |(symbol, price): (&str, u32)| (symbol.to_owned(), price.to_string());
    let prices: Vec<_> = (0..200).flat_map(burst).map(text).collect();
    redis.publish_each(&prices).await;
    let mut last = [("price.ACME", String::new()), ("price.INIT", String::new())];
    while last[0].1 != "199" || last[1].1 != "398" {
        let event = stream.next().await;
        last.iter_mut()
            .filter(|(symbol, _)| *symbol == event.event)
            .for_each(|last| last.1 = event.data.clone());
    }
    assert!(stream.events().len() < prices.len() / 2, "most were replaced: {stream}");
}

#[tokio::test]
async fn snapshot() {
    let kafka = Kafka::shared().await;
    let topic = unique("stock");
    kafka.create_topic_with(&topic, 1, &[("cleanup.policy", "compact")]).await;
    let put = |id: &str, count: u32| {
        Record::to(&topic).key(id).payload(format!(r#"{{"id":"{id}","count":{count}}}"#))
    };
    kafka.produce_all([put("apples", 3), put("pears", 5), put("apples", 2), put("plums", 1)]).await;
    kafka.produce(Record::to(&topic).key("plums")).await;
    let (bootstrap, source) = (kafka.bootstrap(), format!("topic: {topic}"));
    let ssegate = start("snapshot.yaml", &[("localhost:9092", &bootstrap), ("topic: stock", &source)]).await;
    let mut stream = EventSource::connect(ssegate.url("/stock"), Options::http1()).await;
    let mut told = Vec::new();
    while told.len() < 5 {
        let event = stream.next().await;
        told.push((event.event, event.data));
    }
    let stock = |data: &str| ("stock".to_owned(), data.to_owned());
    let control = |name: &str| (format!("stream.{name}"), "{}".to_owned());
    let expected = [
        control("snapshot-start"),
        stock(r#"{"id":"pears","count":5}"#),
        stock(r#"{"id":"apples","count":2}"#),
        control("snapshot-end"),
        control("position"),
    ];
    assert_eq!(told, expected);
    kafka.produce(Record::to(&topic).key("pears")).await;
    let gone = stream.next().await;
    assert_eq!((gone.event.as_str(), gone.data.as_str()), ("gone", "pears"));
}

#[tokio::test]
async fn sample_and_rate() {
    let redis = Redis::start().await;
    // However long it takes here, it is one window.
    let places = [("redis://localhost:6379", &*redis.url()), ("every: 1s", "every: 1h")];
    let ssegate = start("sample-and-rate.yaml", &places).await;
    let mut sample = EventSource::connect(ssegate.url("/measures/sample"), Options::http1()).await;
    let mut calm = EventSource::connect(ssegate.url("/measures/calm"), Options::http2()).await;
    let mut short = EventSource::connect(ssegate.url("/measures/short"), Options::http1()).await;
    for stream in [&mut sample, &mut calm, &mut short] {
        stream.next_named("stream.position").await;
    }
    let measure = |n: u32| format!(r#"{{"n": {n}, "sensor": "roof", "raw": "..."}}"#);
    redis.publish_all("measures", (0..1_000).map(measure)).await;
    redis.publish("measures", &format!(r#"{{"n": 1000, "raw": "{}"}}"#, "x".repeat(2_000))).await;
    assert_eq!(sample.next_data(100).await.len(), 100);
    assert_eq!(short.next_data(1_000).await[999], r#"{"n":999,"sensor":"roof"}"#);
    assert_eq!(short.next_gap().await["reason"], "too_large");
    assert_eq!(calm.next_data(20).await, (0..20).map(measure).collect::<Vec<_>>());
    let calm = [("route", "/measures/calm")];
    ssegate.until_counted("ssegate_events_left_out_total", &calm, 981.0).await;
}

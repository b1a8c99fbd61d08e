//! Filters, projections and wraps.

use serde_json::{Value, json};

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;

#[tokio::test]
async fn filter() {
    let kafka = Kafka::shared().await;
    let topic = unique("orders");
    kafka.create_topic(&topic, 1).await;
    let places = [("localhost:9092", &*kafka.bootstrap()), ("topic: orders", &*format!("topic: {topic}"))];
    let ssegate = start("filter.yaml", &places).await;
    let mut large = EventSource::connect(ssegate.url("/orders/large"), Options::http1()).await;
    let mut of_ada = EventSource::connect(ssegate.url("/orders/of/Ada"), Options::http2()).await;
    large.next_named("stream.position").await;
    of_ada.next_named("stream.position").await;
    for (id, price, count, name) in [(1, 60.5, 2, "Ada"), (2, 1.5, 2, "Ada"), (3, 200.0, 1, "Bob")] {
        let customer = json!({ "name": name, "email": "x@example.com" });
        let order = json!({ "id": id, "price": price, "count": count, "kind": "sold", "customer": customer });
        kafka.produce(Record::to(&topic).payload(order.to_string())).await;
    }
    for (id, total) in [(1, 121.0), (3, 200.0)] {
        let event = large.next_message().await;
        assert_eq!(event.event, "sold");
        assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), json!({ "id": id, "total": total }));
    }
    for id in [1, 2] {
        let order: Value = serde_json::from_str(&of_ada.next_message().await.data).unwrap();
        assert_eq!((&order["id"], &order["customer"]), (&id.into(), &json!({ "name": "Ada" })));
    }
}

#[tokio::test]
async fn wrap() {
    let redis = Redis::start().await;
    let ssegate = start("wrap.yaml", &[("redis://localhost:6379", &redis.url())]).await;
    let mut envelope = EventSource::connect(ssegate.url("/envelope"), Options::http1()).await;
    let mut cloudevents = EventSource::connect(ssegate.url("/cloudevents"), Options::http1()).await;
    envelope.next_named("stream.position").await;
    cloudevents.next_named("stream.position").await;
    redis.publish("news", r#"{"headline": "It works"}"#).await;
    assert_eq!(envelope.next_message().await.data, r#"{"channel":"news","data":{"headline": "It works"}}"#);
    let event = cloudevents.next_message().await;
    let expected = json!({
        "specversion": "1.0",
        "id": event.id,
        "source": "/cache/news",
        "type": "headline",
        "datacontenttype": "application/json",
        "data": { "headline": "It works" },
    });
    assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), expected);
}

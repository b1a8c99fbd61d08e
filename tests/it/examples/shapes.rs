//! Filters, projections and wraps.

use serde_json::{Value, json};

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::token::hs256;

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
async fn filter_by_client() {
    let kafka = Kafka::shared().await;
    let topic = unique("quotes");
    kafka.create_topic(&topic, 1).await;
    let places = [("localhost:9092", &*kafka.bootstrap()), ("topic: quotes", &*format!("topic: {topic}"))];
    let ssegate = start("filter-by-client.yaml", &places).await;
    let secret = "an example: make one with openssl rand -base64 32";
    let token = hs256(secret, json!({ "sub": "ada", "markets": ["eu"] }));
    let bearing = Options::http2().header("authorization", &format!("Bearer {token}"));
    let mut acme = EventSource::connect(ssegate.url("/quotes?symbol=ACME"), Options::http1()).await;
    let mut dear = EventSource::connect(ssegate.url("/quotes?symbol=ACME&min=100"), Options::http2()).await;
    let mut market = EventSource::connect(ssegate.url("/markets"), bearing).await;
    for stream in [&mut acme, &mut dear, &mut market] {
        stream.next_named("stream.position").await;
    }
    for (symbol, price, market) in
        [("ACME", 99.5, "eu"), ("ACME", 0.0, "us"), ("EMCA", 7.0, "eu"), ("ACME", 100.0, "us")]
    {
        let quote = json!({ "symbol": symbol, "price": price, "market": market });
        kafka.produce(Record::to(&topic).payload(quote.to_string())).await;
    }
    for (mut stream, prices) in [(acme, &[99.5, 100.0][..]), (dear, &[100.0][..]), (market, &[99.5, 7.0][..])]
    {
        for price in prices {
            let quote: Value = serde_json::from_str(&stream.next_message().await.data).unwrap();
            assert_eq!(quote["price"], *price);
        }
    }
    let nothing = EventSource::request(ssegate.url("/quotes"), Options::http1()).await;
    assert_eq!(nothing.status(), 400, "it names no symbol");
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

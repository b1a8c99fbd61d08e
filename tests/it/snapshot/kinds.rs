//! Snapshots of upstreams of every kind: what those keep that keep something is read once from its beginning.

use std::collections::BTreeMap;
use std::ops::Range;

use http::Method;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::nats::{Nats, store};
use crate::support::postgres::Postgres;
use crate::support::rabbitmq::{RabbitMq, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;

/// Keeps next to nothing in memory.
const SHORT: &str = "history: { events: 5 }, buffer: 64KiB";

const KEYS: u64 = 50;

/// The key and the payload of each change.
fn changes(numbers: Range<u64>) -> impl Iterator<Item = (String, String)> {
    numbers.map(|n| {
        let key = format!("k{}", n % KEYS);
        let payload = json!({ "id": key, "n": n }).to_string();
        (key, payload)
    })
}

/// The newest of each key.
fn newest(upto: u64) -> BTreeMap<String, u64> {
    (0..upto).map(|n| (format!("k{}", n % KEYS), n)).collect()
}

/// What a client is given that comes now, and then that it is told `next`.
async fn sees(ssegate: &Ssegate, path: &str, upto: u64, next: impl AsyncFnOnce()) {
    let mut stream = EventSource::connect(ssegate.url(path), Options::http2()).await;
    let parsed = |data: &str| -> (String, u64) {
        let value: Value = serde_json::from_str(data).unwrap();
        (value["id"].as_str().unwrap().to_owned(), value["n"].as_u64().unwrap())
    };
    assert_eq!(stream.next().await.event, "stream.snapshot-start");
    let mut state = BTreeMap::new();
    loop {
        let event = stream.next().await;
        if event.event == "stream.snapshot-end" {
            break;
        }
        let (key, n) = parsed(&event.data);
        assert_eq!(state.insert(key, n), None, "{path}: each key once");
    }
    assert_eq!(stream.next().await.event, "stream.position");
    // What was published just now may not have come in yet.
    assert!(state.len() as u64 == KEYS, "{path}: {state:?}");
    while state != newest(upto) {
        let (key, n) = parsed(&stream.next_message().await.data);
        assert!(n >= upto - 2, "{path}: {n} was there before");
        state.insert(key, n);
    }
    next().await;
    assert_eq!(parsed(&stream.next_message().await.data), (format!("k{}", upto % KEYS), upto), "{path}");
}

#[tokio::test]
async fn a_table_of_postgres() {
    let postgres = Postgres::start().await;
    postgres.run("CREATE TABLE outbox (id bigserial PRIMARY KEY, who text, payload text)").await;
    let insert = async |numbers| {
        let rows: Vec<_> = changes(numbers).map(|(key, payload)| format!("('{key}', '{payload}')")).collect();
        postgres.run(&format!("INSERT INTO outbox (who, payload) VALUES {}", rows.join(", "))).await;
    };
    insert(0..300).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ db: {{ postgres: {{ url: "{}" }} }} }}
defaults: {{ {SHORT} }}
routes:
  - {{ path: /own, from: {{ upstream: db, table: outbox, columns: {{ key: who }}, every: 20ms }}, snapshot: true }}
  - {{ path: /by, from: {{ upstream: db, table: outbox, every: 20ms }}, snapshot: {{ by: "{{event.id}}" }} }}
"#,
        postgres.url()
    ))
    .await;
    sees(&ssegate, "/own", 300, async || insert(300..301).await).await;
    sees(&ssegate, "/by", 301, async || insert(301..302).await).await;
}

#[tokio::test]
async fn a_stream_of_jetstream_trimmed_or_not_and_a_part_of_it() {
    let nats = Nats::start_jetstream().await;
    let mut stream = nats.create_stream("ORDERS", &["orders.>"]).await;
    let context = nats.jetstream().await;
    let put = async |numbers| {
        let named = |(key, payload)| (format!("orders.{key}"), payload);
        store(&context, changes(numbers).map(named)).await;
    };
    put(0..300).await;
    let config = format!(
        r#"
upstreams: {{ bus: {{ nats: {{ servers: "{}" }} }} }}
defaults: {{ {SHORT} }}
routes:
  - {{ path: /own, from: {{ upstream: bus, jetstream: ORDERS }}, snapshot: true }}
  - {{ path: /part, from: {{ upstream: bus, jetstream: ORDERS, subject: "orders.*" }}, snapshot: true }}
  - {{ path: /by, from: {{ upstream: bus, jetstream: ORDERS }}, snapshot: {{ by: "{{event.id}}" }} }}
"#,
        nats.url()
    );
    let ssegate = Ssegate::start(config.clone()).await;
    sees(&ssegate, "/own", 300, async || put(300..301).await).await;
    sees(&ssegate, "/part", 301, async || put(301..302).await).await;
    sees(&ssegate, "/by", 302, async || put(302..303).await).await;
    assert_eq!(stream.info().await.unwrap().state.messages, 303);
    stream.purge().keep(100).await.unwrap();
    let later = Ssegate::start(config).await;
    sees(&later, "/own", 303, async || put(303..304).await).await;
}

#[tokio::test]
async fn a_stream_of_rabbitmq() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("snapshot"));
    publisher.declare_stream(&name, &[]).await;
    let put = async |numbers| {
        let message = |(_, payload)| (name.clone(), payload, BasicProperties::default());
        publisher.publish_all("", changes(numbers).map(message)).await.unwrap();
    };
    put(0..300).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ mq: {{ amqp: {{ url: "{}" }} }} }}
defaults: {{ {SHORT} }}
routes: [ {{ path: /by, from: {{ upstream: mq, stream: "{name}" }}, snapshot: {{ by: "{{event.id}}" }} }} ]
"#,
        mq.url()
    ))
    .await;
    sees(&ssegate, "/by", 300, async || put(300..301).await).await;
}

#[tokio::test]
async fn of_what_nobody_keeps_there_is_what_came_since_it_is_read() {
    let (nats, redis) = (Nats::start().await, Redis::start().await);
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ bus: {{ nats: {{ servers: "{}" }} }}, cache: {{ redis: {{ url: "{}" }} }} }}
defaults: {{ {SHORT} }}
routes:
  - {{ path: /own, from: {{ upstream: bus, subject: "orders.>" }}, snapshot: true }}
  - {{ path: /by, from: {{ upstream: cache, channel: orders }}, snapshot: {{ by: "{{event.id}}" }} }}
"#,
        nats.url(),
        redis.url()
    ))
    .await;
    // Once it is known that they are subscribed to.
    EventSource::connect(ssegate.url("/own"), Options::http1()).await.next_named("stream.position").await;
    EventSource::connect(ssegate.url("/by"), Options::http1()).await.next_named("stream.position").await;
    let client = nats.client().await;
    let put = async |numbers| {
        for (key, payload) in changes(numbers) {
            client.publish(format!("orders.{key}"), payload.clone().into()).await.unwrap();
            redis.publish("orders", &payload).await;
        }
        client.flush().await.unwrap();
    };
    put(0..100).await;
    // What is published last of each shows that all before it has come.
    for path in ["/own", "/by"] {
        let mut stream = EventSource::connect(ssegate.url(path), Options::http1()).await;
        while !stream.next().await.data.contains("\"n\":99") {}
    }
    sees(&ssegate, "/own", 100, async || put(100..101).await).await;
    sees(&ssegate, "/by", 101, async || put(101..102).await).await;
}

#[tokio::test]
async fn a_page_of_such_a_route_has_what_came_after_an_id() {
    let redis = Redis::start().await;
    for (key, payload) in changes(0..300) {
        redis.xadd("s", "*", &[("id", &key), ("v", &payload)]).await;
    }
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /s
    from: {{ upstream: cache, stream: s }}
    data: "{{field.v}}"
    snapshot: {{ by: "{{field.id}}" }}
    rate: {{ events: 1, every: 1h }}
"#,
        redis.url()
    ))
    .await;
    let page = async |query: &str| -> Value {
        let url = ssegate.url(&format!("/s{query}"));
        request(Method::GET, &url, &[("accept", "application/json")], "", &Connect::http1()).await.json()
    };
    let now = page("").await;
    assert_eq!((&now["events"], &now["gaps"]), (&json!([]), &json!([])));
    assert_eq!(page("?probe").await["id"], now["next"]);
    for (key, payload) in changes(300..310) {
        redis.xadd("s", "*", &[("id", &key), ("v", &payload)]).await;
    }
    let mut seen = Vec::new();
    let mut next = now["next"].as_str().unwrap().to_owned();
    while seen.len() < 10 {
        let page = page(&format!("?limit=4&lastEventId={next}")).await;
        seen.extend(
            page["events"].as_array().unwrap().iter().map(|event| event["data"]["n"].as_u64().unwrap()),
        );
        page["next"].as_str().unwrap().clone_into(&mut next);
    }
    assert_eq!(seen, Vec::from_iter(300..310), "whatever the rate of streams");
}

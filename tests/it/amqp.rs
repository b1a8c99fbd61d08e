//! RabbitMQ, a real one: exchanges of each kind, streams by their offsets, TLS, and links that go and come.

use http::StatusCode;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use serde_json::Value;

use crate::support::eventsource::{EventSource, Options};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{RabbitMq, unique};
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

/// Routes for an exchange of each kind called `KIND.name`, and for streams.
fn config(url: &str, name: &str) -> String {
    format!(
        r#"
upstreams: {{ mq: {{ amqp: {{ url: "{url}", ping_interval: 200ms, timeout: 5s }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: mq, exchange: "topic.{name}", routing_key: "rooms.{{room}}.#" }}, event: "{{routing_key}}" }}
  - {{ path: /direct, from: {{ upstream: mq, exchange: "direct.{name}", routing_key: one }} }}
  - {{ path: /fanout, from: {{ upstream: mq, exchange: "fanout.{name}" }}, event: "{{header.type}}" }}
  - {{ path: "/headers/{{type}}", from: {{ upstream: mq, exchange: "headers.{name}", arguments: {{ x-match: all, type: "{{type}}" }} }} }}
  - {{ path: /missing, from: {{ upstream: mq, exchange: "missing.{name}" }} }}
"#
    )
}

fn streams(url: &str) -> String {
    format!(
        r#"
upstreams: {{ mq: {{ amqp: {{ url: "{url}", ping_interval: 200ms, timeout: 5s }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: "/s/{{name}}", from: {{ upstream: mq, stream: "{{name}}" }}, event: "{{header.type}}" }}
  - {{ path: "/short/{{name}}", from: {{ upstream: mq, stream: "{{name}}" }}, event: short, history: {{ events: 10 }}, buffer: 64KiB }}
  - {{ path: "/earliest/{{name}}", from: {{ upstream: mq, stream: "{{name}}", start: earliest }}, event: earliest, history: {{ events: 10 }} }}
"#
    )
}

async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http2()).await
}

fn numbers(from: i32, to: i32) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

fn headers(pairs: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    pairs.iter().for_each(|(name, value)| _ = table.insert((*name).into(), value.clone()));
    BasicProperties::default().with_headers(table)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[tokio::test]
async fn exchanges_of_every_kind() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("events"));
    for (prefix, kind) in [
        ("topic", ExchangeKind::Topic),
        ("direct", ExchangeKind::Direct),
        ("fanout", ExchangeKind::Fanout),
        ("headers", ExchangeKind::Headers),
    ] {
        publisher.declare_exchange(&format!("{prefix}.{name}"), kind).await;
    }
    let ssegate = Ssegate::start(config(&mq.url(), &name)).await;
    let (mut a, mut b) = (open(&ssegate, "/rooms/a").await, open(&ssegate, "/rooms/b.c").await);
    let (mut direct, mut fanout) = (open(&ssegate, "/direct").await, open(&ssegate, "/fanout").await);
    let mut pdf = open(&ssegate, "/headers/pdf").await;

    let topic = format!("topic.{name}");
    for (key, payload) in
        [("rooms.a", "1"), ("rooms.x", "no"), ("rooms.a.chat.new", "2"), ("rooms.b.c.d", "3")]
    {
        publisher.publish(&topic, key, payload).await;
    }
    let (one, two) = (a.next_message().await, a.next_message().await);
    assert_eq!((&*one.event, &*one.data), ("rooms.a", "1"));
    assert_eq!((&*two.event, &*two.data), ("rooms.a.chat.new", "2"));
    assert_eq!(b.next_message().await.data, "3");

    publisher.publish(&format!("direct.{name}"), "two", "no").await;
    publisher.publish(&format!("direct.{name}"), "one", "yes").await;
    assert_eq!(direct.next_message().await.data, "yes");

    let typed = headers(&[("type", text("news")), ("n", AMQPValue::LongInt(7))]);
    publisher.publish_all(&format!("fanout.{name}"), [(String::new(), "x", typed)]).await.unwrap();
    let news = fanout.next_message().await;
    assert_eq!((&*news.event, &*news.data), ("news", "x"));

    let of =
        |kind: &str, payload: &str| (String::new(), payload.to_owned(), headers(&[("type", text(kind))]));
    publisher.publish_all(&format!("headers.{name}"), [of("doc", "no"), of("pdf", "yes")]).await.unwrap();
    assert_eq!(pdf.next_message().await.data, "yes");

    // Wildcards would choose what others are told.
    for room in ["%23", "*", "a.%23"] {
        let refused = EventSource::request(ssegate.url(&format!("/rooms/{room}")), Options::http1()).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{room}");
    }
}

#[tokio::test]
async fn what_rabbitmq_refuses_is_said_and_holds_nobody_else_up() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("events"));
    publisher.declare_exchange(&format!("direct.{name}"), ExchangeKind::Direct).await;
    let ssegate = Ssegate::start(config(&mq.url(), &name)).await;
    let mut missing = EventSource::connect(ssegate.url("/missing"), Options::http1()).await;
    let said = format!(
        "binding to exchange missing.{name} was refused: NOT_FOUND - no exchange 'missing.{name}' in vhost '/'"
    );
    ssegate.wait_log(&said, |line: &Value| field(line, "cause") == Some(&said)).await;
    let mut direct = open(&ssegate, "/direct").await;
    publisher.publish(&format!("direct.{name}"), "one", "yes").await;
    assert_eq!(direct.next_message().await.data, "yes");
    // It comes when it is there.
    publisher.declare_exchange(&format!("missing.{name}"), ExchangeKind::Fanout).await;
    missing.next_named("stream.position").await;
    publisher.publish(&format!("missing.{name}"), "", "there").await;
    assert_eq!(missing.next_message().await.data, "there");
}

#[tokio::test]
async fn a_lost_link_is_told_with_its_span_and_ids_of_before_are_good() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("events"));
    publisher.declare_exchange(&format!("direct.{name}"), ExchangeKind::Direct).await;
    let link = Proxy::start(([127, 0, 0, 1], mq.port()).into()).await;
    let ssegate = Ssegate::start(config(&mq.url_at(link.addr().port()), &name)).await;
    let mut direct = open(&ssegate, "/direct").await;
    let exchange = format!("direct.{name}");
    publisher.publish(&exchange, "one", "before").await;
    let before = direct.next_message().await;
    link.cut_all();
    let gap = direct.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    assert!(gap["since"].as_str() <= gap["until"].as_str(), "{gap}");
    publisher.publish(&exchange, "one", "after").await;
    assert_eq!(direct.next_message().await.data, "after");
    let mut back = EventSource::connect(ssegate.url("/direct"), Options::http1().resume(&before.id)).await;
    back.next_named("stream.position").await;
    assert_eq!(back.next_gap().await, gap);
    assert_eq!(back.next_message().await.data, "after");
}

#[tokio::test]
async fn offsets_of_a_stream_are_good_on_every_replica_and_beyond_memory() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("orders"));
    publisher.declare_stream(&name, &[]).await;
    let (ssegate, other) =
        (Ssegate::start(streams(&mq.url())).await, Ssegate::start(streams(&mq.url())).await);
    let mut short = open(&ssegate, &format!("/short/{name}")).await;
    publisher.publish_numbers(&name, 0..3_000).await;
    let mut ids = Vec::new();
    for number in 0..3_000 {
        let event = short.next_message().await;
        assert_eq!(event.data, number.to_string());
        ids.push(event.id);
    }
    for (replica, at) in [(&ssegate, 3), (&other, 0), (&other, 1_500), (&ssegate, 2_998)] {
        let url = replica.url(&format!("/short/{name}"));
        let mut back = EventSource::connect(url, Options::http1().resume(&ids[at])).await;
        assert_eq!(back.next_named("stream.position").await.id, ids[at]);
        assert_eq!(back.next_data(2_999 - at).await, numbers(at as i32 + 1, 3_000));
        assert_eq!(back.last_event_id(), ids[2_999]);
    }
    let mut earliest = open(&other, &format!("/earliest/{name}")).await;
    assert_eq!(earliest.next_data(3_000).await, numbers(0, 3_000));
    // With a name of its own, from a header.
    let mut named = open(&ssegate, &format!("/s/{name}")).await;
    let typed = headers(&[("type", text("sold"))]);
    publisher.publish_all("", [(name.clone(), "x", typed)]).await.unwrap();
    let sold = named.next_message().await;
    assert_eq!((&*sold.event, &*sold.data), ("sold", "x"));
}

#[tokio::test]
async fn what_retention_took_is_a_gap() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("trimmed"));
    let bytes = |bytes: i64| AMQPValue::LongLongInt(bytes);
    let small = [("x-max-length-bytes", bytes(200_000)), ("x-stream-max-segment-size-bytes", bytes(50_000))];
    publisher.declare_stream(&name, &small).await;
    let ssegate = Ssegate::start(streams(&mq.url())).await;
    let mut short = open(&ssegate, &format!("/short/{name}")).await;
    let filling = "x".repeat(1_000);
    let send = async |from: i32, to: i32| {
        let message = |n: i32| (name.clone(), format!("{n} {filling}"), BasicProperties::default());
        publisher.publish_all("", (from..to).map(message)).await.unwrap();
    };
    send(0, 100).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(short.next_message().await.id);
    }
    let mut next = 100;
    let mut gap = Value::Null;
    // Retention is looked at when a segment is full.
    while gap.is_null() {
        send(next, next + 200).await;
        next += 200;
        let url = ssegate.url(&format!("/short/{name}"));
        let mut back = EventSource::connect(url, Options::http1().resume(&ids[9])).await;
        let first = loop {
            let event = back.next().await;
            if event.event != "stream.position" {
                break event;
            }
        };
        if first.event == "stream.gap" {
            gap = serde_json::from_str(&first.data).unwrap();
            back.next_named("stream.position").await;
            // The number in an id is that of the next offset.
            let following = back.next_message().await.id;
            let next = gap["to"].as_u64().unwrap() + 1;
            assert_eq!(following.split_once('-').unwrap().1, next.to_string());
        }
    }
    assert_eq!((&gap["reason"], &gap["from"]), (&"trimmed".into(), &10.into()));
}

#[tokio::test]
async fn a_stream_that_was_deleted_and_declared_again_is_another_one() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("anew"));
    publisher.declare_stream(&name, &[]).await;
    let ssegate = Ssegate::start(streams(&mq.url())).await;
    let path = format!("/s/{name}");
    let mut source = open(&ssegate, &path).await;
    publisher.publish_numbers(&name, 0..10).await;
    assert_eq!(source.next_data(10).await, numbers(0, 10));
    let old = source.last_event_id().to_owned();
    publisher.delete(&name).await;
    let is_it = |line: &Value| field(line, "cause").unwrap_or_default().contains("no queue");
    eventually("the stream to be missed", async || {
        let status = ssegate.status().await;
        let error = status["upstreams"][0]["last_error"]["error"].as_str().unwrap_or_default().to_owned();
        if error.contains("no queue") || ssegate.log().iter().any(is_it) { Ok(()) } else { Err(error) }
    })
    .await;
    publisher.declare_stream(&name, &[]).await;
    publisher.publish_numbers(&name, 100..120).await;
    assert_eq!(source.next_gap().await["reason"], "recreated");
    source.next_named("stream.position").await;
    assert_eq!(source.next_data(20).await, numbers(100, 120));
    let mut back = EventSource::connect(ssegate.url(&path), Options::http1().resume(&old)).await;
    assert_eq!(back.next_gap().await["reason"], "recreated");
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(20).await, numbers(100, 120));
}

#[tokio::test]
async fn tls_with_a_client_certificate_and_an_own_authority() {
    let ca = TestCa::new();
    let mq = RabbitMq::start_tls(&ca, ca.leaf()).await;
    let publisher = mq.publisher().await;
    publisher.declare_exchange("direct.tls", ExchangeKind::Direct).await;
    let own = ca.tls_of_client("ssegate");
    let with = |tls: &str| {
        let url = format!("amqps://guest:guest@localhost:{}", mq.tls_port());
        config(&url, "tls").replace("ping_interval", &format!("tls: {tls}, ping_interval"))
    };
    let ssegate = Ssegate::start(with(&own)).await;
    let mut direct = open(&ssegate, "/direct").await;
    publisher.publish("direct.tls", "one", "over TLS").await;
    assert_eq!(direct.next_message().await.data, "over TLS");
    let strange = format!("{{ ca: {} }}", TestCa::shared().cert_path().display());
    let told = Ssegate::start(with(&strange)).await.cause().await;
    assert!(told.contains("certificate") && told.contains(&mq.tls_port().to_string()), "{told}");
}

#[tokio::test]
async fn a_wrong_password_is_told_once_without_it() {
    let mq = RabbitMq::shared().await;
    let url = format!("amqp://guest:n0t-it@127.0.0.1:{}", mq.port());
    let ssegate = Ssegate::start(config(&url, "x")).await;
    let told = ssegate.cause().await;
    assert!(told.contains("ACCESS_REFUSED") && told.contains(&mq.port().to_string()), "{told}");
    ssegate.assert_told_once_without("n0t-it").await;
}

#[tokio::test]
async fn a_message_larger_than_any_event_is_told_in_its_place_and_costs_no_link() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("large"));
    let exchange = format!("direct.{name}");
    publisher.declare_exchange(&exchange, ExchangeKind::Direct).await;
    publisher.declare_stream(&name, &[]).await;
    let of_stream = format!("  - {{ path: /stream, from: {{ upstream: mq, stream: \"{name}\" }} }}\n");
    let ssegate = Ssegate::start(config(&mq.url(), &name) + &of_stream).await;
    let (mut direct, mut stream) = (open(&ssegate, "/direct").await, open(&ssegate, "/stream").await);
    let large = "x".repeat(8 << 20);
    for (exchange, key, source) in [(&*exchange, "one", &mut direct), ("", &*name, &mut stream)] {
        for payload in ["before", &large, "after"] {
            publisher.publish(exchange, key, payload).await;
        }
        assert_eq!(source.next_data(1).await, ["before"]);
        let gap = source.next_gap().await;
        assert_eq!((&gap["reason"], &gap["missed"]), (&"too_large".into(), &1.into()), "{exchange}");
        source.next_named("stream.position").await;
        assert_eq!(source.next_data(1).await, ["after"]);
    }
    assert_eq!(ssegate.status().await["upstreams"][0]["reconnects"], 0);
}

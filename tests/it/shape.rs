//! What routes make of records on real brokers: filters, some fields of a payload, names from it, and what is put around
//! it, with what becomes of payloads that are not what a route takes them for.

use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;

async fn on_kafka(routes: &str) -> (&'static Kafka, String, Ssegate) {
    let kafka = Kafka::shared().await;
    let topic = unique("shaped");
    // Records that say they are old are to stay.
    kafka.create_topic_with(&topic, 1, &[("retention.ms", "-1")]).await;
    let text = format!(
        "upstreams: {{ bus: {{ kafka: {{ brokers: ['{}'] }} }} }}\nroutes:\n{}",
        kafka.bootstrap(),
        routes.replace("TOPIC", &topic)
    );
    (kafka, topic, Ssegate::start(text).await)
}

async fn on_redis(routes: &str) -> (Redis, Ssegate) {
    let redis = Redis::start().await;
    let text =
        format!("upstreams: {{ cache: {{ redis: {{ url: '{}' }} }} }}\nroutes:\n{routes}", redis.url());
    let ssegate = Ssegate::start(text).await;
    (redis, ssegate)
}

/// A stream whose start is fixed.
async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http1()).await
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn what_is_filtered_out_is_no_gap_and_moves_the_position() {
    let routes = "  - { path: /big, from: { upstream: bus, topic: TOPIC }, filter: event.total > 100 && headers.kind != 'test', keepalive: 1s }\n";
    let (kafka, topic, ssegate) = on_kafka(routes).await;
    let mut stream = open(&ssegate, "/big").await;
    let record = |payload: &str, kind: &str| Record::to(&topic).header("kind", kind).payload(payload);
    for (payload, kind) in [
        (r#"{"total": 100}"#, "order"),
        (r#"{"total": 100.5}"#, "order"),
        (r#"{"total": 999}"#, "test"),
        ("no json", "order"),
        ("{}", "order"),
        (r#"{"total": 200}"#, "order"),
    ] {
        kafka.produce(record(payload, kind)).await;
    }
    assert_eq!(stream.next_data(2).await, [r#"{"total": 100.5}"#, r#"{"total": 200}"#]);
    ssegate.until_counted("ssegate_filtered_total", &[("upstream", "bus")], 2.0).await;
    ssegate.until_counted("ssegate_filter_undecided_total", &[("upstream", "bus")], 2.0).await;
    assert_eq!(ssegate.metrics().await.sum("ssegate_source_gaps_total", &[]), 0.0);
    ssegate
        .wait_log("why it could not tell", |line| line["why"].as_str().is_some_and(|why| !why.is_empty()))
        .await;

    let before = stream.events().last().unwrap().id.clone();
    kafka.produce(record(r#"{"total": 1}"#, "order")).await;
    let moved = stream.next().await;
    assert_eq!(moved.event, "stream.position", "told when a comment would be due");
    assert_ne!(moved.id, before);
    let mut streams = vec![stream];
    for id in [&before, &moved.id] {
        let mut again = EventSource::connect(ssegate.url("/big"), Options::http1().resume(id)).await;
        again.next_named("stream.position").await;
        streams.push(again);
    }
    kafka.produce(record(r#"{"total": 300}"#, "order")).await;
    for stream in &mut streams {
        assert_eq!(stream.next_message().await.data, r#"{"total": 300}"#);
    }
}

#[tokio::test]
async fn history_is_shaped_as_what_is_live() {
    let routes = "  - { path: /all, from: { upstream: bus, topic: TOPIC, start: earliest }, filter: event.n % 3 == 0, data: { map: \"{'n': event.n}\" }, event: '{event.kind}', history: { events: 10 }, buffer: 64KiB }\n";
    let kafka = Kafka::shared().await;
    let topic = unique("shaped");
    kafka.create_topic(&topic, 2).await;
    let payload =
        |n: i32| json!({ "n": n, "kind": format!("kind-{}", n % 2), "rest": "x".repeat(50) }).to_string();
    kafka.produce_all((0..3_000).map(|n| Record::to(&topic).partition(n % 2).payload(payload(n)))).await;
    let text = format!(
        "upstreams: {{ bus: {{ kafka: {{ brokers: ['{}'] }} }} }}\nroutes:\n{}",
        kafka.bootstrap(),
        routes.replace("TOPIC", &topic)
    );
    let ssegate = Ssegate::start(text).await;
    let mut stream = open(&ssegate, "/all").await;
    let mut seen = Vec::new();
    while seen.len() < 1_000 {
        let event = stream.next_message().await;
        let n = parsed(&event.data)["n"].as_i64().unwrap();
        assert_eq!(event.event, format!("kind-{}", n % 2));
        assert_eq!(event.data, format!("{{\"n\":{n}}}"));
        seen.push(n);
    }
    seen.sort_unstable();
    assert!(seen.iter().copied().eq((0..3_000).step_by(3)), "each once");
}

#[tokio::test]
async fn of_a_topics_key_what_is_left_is_resumed_exactly() {
    let routes = "  - { path: '/k/{id}', from: { upstream: bus, topic: TOPIC, key: '{id}' }, filter: event.n % 2 == 0 && key == 'a', data: { keep: n }, keepalive: 1s }\n";
    let (kafka, topic, ssegate) = on_kafka(routes).await;
    let (mut stream, mut other) = (open(&ssegate, "/k/a").await, open(&ssegate, "/k/b").await);
    let record = |n: i32| {
        Record::to(&topic).key(if n < 20 { "a" } else { "b" }).payload(json!({ "n": n, "m": 0 }).to_string())
    };
    kafka.produce_all((0..24).map(record)).await;
    let expected: Vec<_> = (0..20).step_by(2).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(stream.next_data(10).await, expected);
    let id = stream.events()[3].id.clone();
    let mut again = EventSource::connect(ssegate.url("/k/a"), Options::http1().resume(&id)).await;
    assert_eq!(again.next_data(7).await, expected[3..]);
    let moved = other.next().await;
    assert_eq!(moved.event, "stream.position", "none of that key is left, and its place moves on");
}

#[tokio::test]
async fn filters_that_name_parameters_are_of_a_feed_each() {
    let routes = "  - { path: '/rooms/{room}', from: { upstream: cache, channel: rooms }, filter: event.room == params.room, data: { drop: [room] }, limits: { feeds: 2 } }\n";
    let (redis, ssegate) = on_redis(routes).await;
    let (mut a, mut b, mut also_a) = (
        open(&ssegate, "/rooms/a").await,
        open(&ssegate, "/rooms/b").await,
        open(&ssegate, "/rooms/a").await,
    );
    for (room, n) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
        redis.publish("rooms", json!({ "room": room, "n": n }).to_string()).await;
    }
    assert_eq!(a.next_data(2).await, [r#"{"n":1}"#, r#"{"n":4}"#]);
    assert_eq!(also_a.next_data(2).await, [r#"{"n":1}"#, r#"{"n":4}"#]);
    assert_eq!(b.next_data(1).await, [r#"{"n":2}"#]);
    assert_eq!(a.events().last().unwrap().id, also_a.events().last().unwrap().id, "they share a feed");
    let refused = EventSource::request(ssegate.url("/rooms/c"), Options::http1()).await;
    assert!(refused.events().is_empty(), "two feeds are as many as the route may have");
}

#[tokio::test]
async fn fields_of_a_payload() {
    let routes = "  - { path: /keep, from: { upstream: cache, channel: c }, data: { keep: [id, in.b, items.n] } }
  - { path: /drop, from: { upstream: cache, channel: c }, data: { drop: [secret, in.b, items.n] } }
  - { path: /map, from: { upstream: cache, channel: c }, data: { map: \"[event.id, channel, event.items.map(x, x.n)]\" } }
  - { path: /named, from: { upstream: cache, channel: c }, event: 'is-{event.in.b}-{event.items.1.n}{event.none}{event.in}' }
";
    let (redis, ssegate) = on_redis(routes).await;
    let (mut keep, mut drop, mut map, mut named) = (
        open(&ssegate, "/keep").await,
        open(&ssegate, "/drop").await,
        open(&ssegate, "/map").await,
        open(&ssegate, "/named").await,
    );
    let payload = r#"{"se\u0063ret":1,"id":12345678901234567890,"in":{"a":1.50,"b":true},"items":[{"n":1,"m":2},{"n":3}],"secret":2}"#;
    redis.publish("c", payload).await;
    let data = keep.next_message().await.data;
    assert_eq!(data, r#"{"id":12345678901234567890,"in":{"b":true},"items":[{"n":1},{"n":3}]}"#);
    let data = drop.next_message().await.data;
    assert_eq!(data, r#"{"id":12345678901234567890,"in":{"a":1.50},"items":[{"m":2},{}]}"#);
    assert_eq!(map.next_message().await.data, r#"[12345678901234567890,"c",[1,3]]"#);
    let event = named.next_message().await;
    assert_eq!((&*event.event, &*event.data), ("is-true-3", payload));

    redis.publish("c", "{\"id\": 1}").await;
    assert_eq!(keep.next_message().await.data, "{\"id\":1}");
    assert_eq!(drop.next_message().await.data, "{\"id\":1}");
    assert_eq!(map.next_gap().await["reason"], "undecodable");
    assert_eq!(named.next_message().await.event, "is--");
    ssegate
        .wait_log("why it could not be made", |line| line["why"] == "a field that it names is not there")
        .await;

    redis.publish("c", "no json").await;
    for stream in [&mut keep, &mut drop, &mut map] {
        let gap = stream.next_gap().await;
        assert_eq!((&gap["reason"], &gap["missed"]), (&"undecodable".into(), &1.into()));
    }
    assert_eq!(named.next_message().await.event, "is--");
}

#[tokio::test]
async fn hostile_payloads_are_gaps_and_nothing_worse() {
    let routes = "  - { path: /map, from: { upstream: cache, channel: c }, data: { map: \"{'a': event.a}\" } }
  - { path: /filter, from: { upstream: cache, channel: c }, filter: event == null || event.a != 0, max_event: 650KiB }
";
    let (redis, ssegate) = on_redis(routes).await;
    let (mut map, mut filter) = (open(&ssegate, "/map").await, open(&ssegate, "/filter").await);
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let huge = format!("{{\"a\":{}}}", "9".repeat(700_000));
    for payload in
        [&*deep, &huge, "{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\\u0000\"}", "{\"a\":\"\0\"}", "{\"b\":1}"]
    {
        redis.publish("c", payload).await;
    }
    redis.publish("c", b"{\"a\":\"\xff\"}").await;
    redis.publish("c", "{\"a\":\"last\"}").await;
    let told = |event: &crate::support::eventsource::Event| match &*event.event {
        "stream.gap" => parsed(&event.data)["reason"].as_str().unwrap().to_owned(),
        _ => event.data.chars().take(30).collect(),
    };
    let mut shown = Vec::new();
    while shown.last().is_none_or(|last| last != "{\"a\":\"last\"}") {
        let event = map.next().await;
        if event.event != "stream.position" {
            shown.push(told(&event));
        }
    }
    let nines = format!("{{\"a\":{}", "9".repeat(25));
    assert_eq!(
        shown,
        [
            "undecodable",
            &*nines,
            "{\"a\":2}",
            "{\"a\":\"\\ud800\\u0000\"}",
            "undecodable",
            "undecodable",
            "undecodable",
            "{\"a\":\"last\"}"
        ]
    );
    let mut shown = Vec::new();
    while shown.last().is_none_or(|last| last != "{\"a\":\"last\"}") {
        let event = filter.next().await;
        if event.event != "stream.position" {
            shown.push(told(&event));
        }
    }
    // That of 700 kB is too large for the route, and of the one without the field the filter cannot tell.
    assert_eq!(
        shown,
        [
            &deep[..30],
            "too_large",
            "{\"a\":1,\"a\":2}",
            "{\"a\":\"\\ud800\\u0000\"}",
            "{\"a\":\"\0\"}",
            "undecodable",
            "{\"a\":\"last\"}"
        ]
    );
    assert!(ssegate.status().await["upstreams"][0]["up"].as_bool().unwrap());
}

#[tokio::test]
async fn an_envelope_tells_where_a_record_comes_from() {
    let routes =
        "  - { path: /e, from: { upstream: bus, topic: TOPIC }, wrap: envelope, tombstone: { event: gone } }
  - { path: /base64, from: { upstream: bus, topic: TOPIC }, wrap: envelope, binary: base64 }
  - { path: /small, from: { upstream: bus, topic: TOPIC }, wrap: envelope, data: { keep: a } }
";
    let (kafka, topic, ssegate) = on_kafka(routes).await;
    let (mut stream, mut base64, mut small) =
        (open(&ssegate, "/e").await, open(&ssegate, "/base64").await, open(&ssegate, "/small").await);
    let at = 1_767_225_600_123_i64;
    let record = || Record::to(&topic).timestamp(at);
    kafka
        .produce(
            record()
                .key("k1")
                .header("a", "old")
                .header("kind", "sold")
                .header("a", "new")
                .header("bin", b"\xff")
                .payload(r#"{"a": 1.10, "b": 2}"#),
        )
        .await;
    kafka.produce(record().key(b"\xfe\x00").payload("a \"text\"\nof two lines")).await;
    kafka.produce(record().payload(b"\xff")).await;
    kafka.produce(record().key("k1")).await;
    let time = "2026-01-01T00:00:00.123Z";
    let first = stream.next_message().await.data;
    assert!(first.contains(r#""data":{"a": 1.10, "b": 2}"#), "as it is: {first}");
    assert_eq!(
        parsed(&first),
        json!({
            "key": "k1", "headers": { "kind": "sold", "a": "new" }, "headers_base64": { "bin": "/w==" },
            "timestamp": time, "topic": topic, "data": { "a": 1.10, "b": 2 },
        })
    );
    let second = stream.next_message().await;
    assert_eq!(
        parsed(&second.data),
        json!({ "key_base64": "/gA=", "timestamp": time, "topic": topic, "data": "a \"text\"\nof two lines" })
    );
    assert_eq!(stream.next_gap().await["reason"], "undecodable");
    let gone = stream.next_named("gone").await;
    assert_eq!(parsed(&gone.data), json!({ "key": "k1", "timestamp": time, "topic": topic, "data": null }));

    let first = parsed(&base64.next_message().await.data);
    assert_eq!(
        (&first["data_base64"], &first["data"]),
        (&"eyJhIjogMS4xMCwgImIiOiAyfQ==".into(), &Value::Null)
    );
    base64.next_message().await;
    assert_eq!(parsed(&base64.next_message().await.data)["data_base64"], "/w==");
    assert_eq!(parsed(&small.next_message().await.data)["data"], json!({ "a": 1.10 }));
}

/// Nobody keeps a publisher from that.
#[tokio::test]
async fn a_header_whose_name_is_no_text_is_read_with_the_others() {
    let routes = "  - { path: /h, from: { upstream: bus, topic: TOPIC }, filter: headers.kind == 'sold', event: '{header.kind}', wrap: envelope }\n";
    let (kafka, topic, ssegate) = on_kafka(routes).await;
    let mut stream = open(&ssegate, "/h").await;
    let record =
        || Record::to(&topic).header(b"\xff\xfe", "x").header("kind", "sold").header(b"\xc3(", b"\xff");
    for n in 0..3 {
        kafka.produce(record().payload(json!({ "n": n }).to_string())).await;
        let event = stream.next_named("sold").await;
        let told = parsed(&event.data);
        assert_eq!(told["data"]["n"], n);
        assert_eq!(told["headers"], json!({ "\u{fffd}\u{fffd}": "x", "kind": "sold" }));
        assert_eq!(told["headers_base64"], json!({ "\u{fffd}(": "/w==" }));
    }
    assert_eq!(ssegate.status().await["upstreams"][0]["reconnects"], 0, "no reader had to be started again");
}

#[tokio::test]
async fn cloudevents_of_records_that_are_some_and_of_others() {
    let routes = "  - { path: /ce, from: { upstream: bus, topic: TOPIC }, event: '{header.kind}', wrap: cloudevents }\n";
    let (kafka, topic, ssegate) = on_kafka(routes).await;
    let mut stream = open(&ssegate, "/ce").await;
    let record = || Record::to(&topic).timestamp(1_767_225_600_123);
    let binary = record()
        .header("ce_specversion", "1.0")
        .header("ce_id", "7")
        .header("ce_source", "/shop")
        .header("ce_type", "com.example.sold")
        .header("ce_time", "2020-01-01T00:00:00Z")
        .header("ce_tenant", "acme")
        .header("content-type", "application/json; charset=utf-8")
        .key("k")
        .payload(r#"{"n": 1}"#);
    let structured =
        json!({ "specversion": "1.0", "id": "8", "source": "/shop", "type": "t", "data": [1] }).to_string();
    kafka.produce(binary).await;
    kafka.produce(record().header("content-type", "application/cloudevents+json").payload(&structured)).await;
    kafka.produce(record().payload(&structured)).await;
    let placed = kafka.produce(record().header("kind", "sold").key("k").payload(r#"{"n": 2}"#)).await;
    kafka.produce(record().payload("text")).await;
    kafka.produce(record().header("content-type", "text/plain").payload("123")).await;
    kafka.produce(record().header("content-type", "application/cloudevents+avro").payload("x")).await;

    assert_eq!(
        parsed(&stream.next_message().await.data),
        json!({
            "specversion": "1.0", "id": "7", "source": "/shop", "type": "com.example.sold",
            "time": "2020-01-01T00:00:00Z", "tenant": "acme", "partitionkey": "k",
            "datacontenttype": "application/json; charset=utf-8", "data": { "n": 1 },
        })
    );
    assert_eq!(stream.next_data(2).await, [&*structured, &*structured]);
    let event = stream.next_message().await;
    assert_eq!(event.event, "sold");
    assert_eq!(
        parsed(&event.data),
        json!({
            "specversion": "1.0", "id": format!("{}-{}", placed.partition, placed.offset), "type": "sold",
            "source": format!("/bus/{topic}"), "time": "2026-01-01T00:00:00.123Z", "partitionkey": "k",
            "datacontenttype": "application/json", "data": { "n": 2 },
        })
    );
    let text = parsed(&stream.next_message().await.data);
    assert_eq!(
        (&text["type"], &text["datacontenttype"], &text["data"]),
        (&json!("message"), &json!("text/plain"), &json!("text"))
    );
    assert_eq!(parsed(&stream.next_message().await.data)["data"], json!("123"));
    assert_eq!(stream.next_gap().await["reason"], "undecodable");
}

#[tokio::test]
async fn entries_of_streams_by_their_fields_or_by_one_of_them() {
    let routes = "  - { path: /field, from: { upstream: cache, stream: s }, filter: event.n > 1 && fields.kind == 'sold', data: { field: payload, keep: n } }
  - { path: /whole, from: { upstream: cache, stream: s }, filter: event.kind == 'sold', data: { map: \"{'of': stream, 'kind': event.kind}\" }, wrap: cloudevents }
  - { path: /envelope, from: { upstream: cache, stream: s }, data: '{field.payload}', wrap: envelope }
";
    let (redis, ssegate) = on_redis(routes).await;
    let (mut field, mut whole, mut envelope) =
        (open(&ssegate, "/field").await, open(&ssegate, "/whole").await, open(&ssegate, "/envelope").await);
    redis.xadd("s", "1767225600123-0", &[("kind", "sold"), ("payload", r#"{"n":1}"#)]).await;
    redis.xadd("s", "1767225600123-1", &[("kind", "lost"), ("payload", r#"{"n":2}"#)]).await;
    redis.xadd("s", "1767225600123-2", &[("kind", "sold"), ("payload", r#"{"n":3,"m":4}"#)]).await;
    assert_eq!(field.next_message().await.data, r#"{"n":3}"#);
    for id in ["1767225600123-0", "1767225600123-2"] {
        let event = whole.next_message().await;
        let made = parsed(&event.data);
        assert_eq!((&made["id"], &made["data"]), (&json!(id), &json!({ "of": "s", "kind": "sold" })));
        assert_eq!((&*event.id, &made["source"]), (id, &json!("/cache/s")));
    }
    let expected = json!({ "timestamp": "2026-01-01T00:00:00.123Z", "stream": "s", "data": { "n": 1 } });
    assert_eq!(parsed(&envelope.next_message().await.data), expected);
}

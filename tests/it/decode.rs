//! Payloads that are no text, by schemas of files and by those of a real registry, written by other programs; what waits
//! while the registry is away; and what cannot be decoded.

mod kept;

use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::registry::Registry;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;
use crate::support::writer::write;

/// `/t` decodes the topic by the registry, from its beginning on; `/plain` sends another topic as it is.
fn config(kafka: &Kafka, registry: &str, topic: &str) -> String {
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: "{}" }} }} }}
schema_registries: {{ main: {{ url: "{registry}", timeout: 2s }} }}
routes:
  - {{ path: /t, from: {{ upstream: bus, topic: "{topic}", start: earliest }}, decode: {{ registry: main }} }}
  - {{ path: /plain, from: {{ upstream: bus, topic: "{topic}-plain" }} }}
"#,
        kafka.bootstrap()
    )
}

/// A topic of so many partitions with one that is plain beside it.
async fn topics(kafka: &Kafka, partitions: i32) -> String {
    let topic = unique("decode");
    kafka.create_topic(&topic, partitions).await;
    kafka.create_topic(&format!("{topic}-plain"), 1).await;
    topic
}

async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http1()).await
}

/// A number as a value of JSON Schema, with the id of that before it.
fn framed(id: u32, number: usize) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), json!({ "n": number }).to_string().as_bytes()].concat()
}

/// The next messages as numbers; what else comes is a failure.
async fn numbers(stream: &mut EventSource, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let event = stream.next().await;
        assert_ne!(event.event, "stream.gap", "{event:?}");
        if event.event == "stream.position" {
            continue;
        }
        let data: Value = serde_json::from_str(&event.data).unwrap();
        numbers.push(data["n"].as_u64().unwrap() as usize);
    }
    numbers
}

/// The trouble that `/status` shows of the first upstream.
async fn trouble(ssegate: &Ssegate) -> String {
    ssegate.status().await["upstreams"][0]["last_error"]["error"].as_str().unwrap_or_default().to_owned()
}

async fn until_trouble(ssegate: &Ssegate, part: &str) {
    eventually("the registry to be told as trouble", async || {
        let told = trouble(ssegate).await;
        if told.contains(part) { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test]
async fn what_confluents_serializers_write_is_sent_as_json() {
    let (kafka, registry) = (Kafka::shared().await, Registry::shared().await);
    let topic = topics(kafka, 1).await;
    let ssegate = Ssegate::start(config(kafka, &registry.url(), &topic)).await;
    let mut stream = open(&ssegate, "/t").await;
    let innermost = r#"{"nothing":null,"yes":false,"small":-2147483648,"large":9223372036854775807,"single":1.5,"double":-0.1,"nan":"NaN","bytes":"AP8=","text":"é\u2028","fixed":"AQIDBA==","again":"/////w==","suit":"CLUBS","list":[null,7,"seven"],"map":{"a":[1,-1],"b":[]},"money":"-12345678901234567890.0001","day":"1969-12-31","millis":"23:59:59.999","micros":"00:00:00.000001","at":"1969-12-31T23:59:59.999999Z","local":"2026-02-28T01:02:03","uuid":"00000000-0000-0000-0000-000000000001","inner":null}"#;
    // The separator of lines stands in the text as it is.
    let innermost = innermost.replace("\\u2028", "\u{2028}");
    let outer = innermost
        .replace("-2147483648", "1")
        .replace(r#"[null,7,"seven"]"#, "[]")
        .replace(r#"{"a":[1,-1],"b":[]}"#, "{}")
        .replace(r#""inner":null"#, &format!(r#""inner":{innermost}"#));
    let order = r#"{"id":"9007199254740993","at":"2026-01-31T12:00:00.250Z","items":[{"name":"pen","count":2},{"name":"ink"}],"note":""}"#;
    for (scenario, expected) in [
        ("everything", &[&*outer][..]),
        ("referring_avro", &[r#"{"first":{"name":"pen"},"others":{"b":{"name":"ink"}}}"#]),
        ("protobuf", &[order, r#"{"id":"7","reasons":{"why":"late"}}"#]),
        ("json_schema", &[r#"{"id":7,"note":"é"}"#]),
    ] {
        let subject = format!("{topic}-{scenario}");
        for (record, expected) in write(scenario, &[&registry.url(), &subject]).await.iter().zip(expected) {
            kafka.produce(record.to(&topic)).await;
            assert_eq!(stream.next_message().await.data, *expected, "{scenario}");
        }
    }
}

#[tokio::test]
async fn schemas_of_files_need_no_registry() {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/schemas");
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ in: {{ push: {{}} }} }}
routes:
  - {{ path: /avro, from: {{ upstream: in, channel: avro }}, decode: {{ avro: {{ schema: {schemas}/order.avsc }} }} }}
  - {{ path: /protobuf, from: {{ upstream: in, channel: protobuf }}, decode: {{ protobuf: {{ file: {schemas}/order.proto, message: shop.Order }} }} }}
  - {{ path: /msgpack, from: {{ upstream: in, channel: msgpack }}, decode: msgpack, binary: base64 }}
  - {{ path: /json, from: {{ upstream: in, channel: json }}, decode: json }}
"#
    ))
    .await;
    for (path, scenario, expected) in [
        (
            "avro",
            "plain_avro",
            r#"{"id":9007199254740993,"total":"1234.50","at":"2026-01-31T12:00:00.250Z","note":"says \"hello\"\n","items":["pen","ink"]}"#,
        ),
        (
            "protobuf",
            "plain_protobuf",
            r#"{"id":"9007199254740993","at":"2026-01-31T12:00:00.250Z","items":[{"name":"pen","count":2},{"name":"ink"}],"note":""}"#,
        ),
        (
            "msgpack",
            "msgpack",
            &format!(
                r#"{{"id":18446744073709551615,"rate":0.1,"raw":"AP8=","at":"2026-01-31T12:00:00.250Z","items":["pen",null,true,-7],"5":{{"text":"{}"}}}}"#,
                "é".repeat(40)
            ),
        ),
    ] {
        let mut stream = open(&ssegate, &format!("/{path}")).await;
        let written = write(scenario, &[]).await.remove(0);
        ssegate.publish(path, &written.payload).await;
        assert_eq!(stream.next_message().await.data, expected);
        // Whatever is cut off is told, and what follows is read.
        for end in [0, 1, written.payload.len() - 1] {
            let whole = path == "protobuf" && end == 0;
            ssegate.publish(path, &written.payload[..end]).await;
            match whole {
                true => assert_eq!(stream.next_message().await.data, "{}", "nothing is a message, too"),
                false => assert_eq!(stream.next_gap().await["reason"], "undecodable", "{path} {end}"),
            }
        }
        ssegate.publish(path, &written.payload).await;
        assert_eq!(stream.next_message().await.data, expected);
    }
    let mut stream = open(&ssegate, "/json").await;
    for payload in ["{}", "{", "[1,\r\n2]"] {
        ssegate.publish("json", payload).await;
    }
    assert_eq!(stream.next_message().await.data, "{}");
    assert_eq!(stream.next_gap().await["reason"], "undecodable");
    assert_eq!(stream.next_message().await.data, "[1,\n2]");
}

#[tokio::test]
async fn a_registry_that_is_away_holds_its_topics_and_no_others() {
    let (kafka, registry) = (Kafka::shared().await, Registry::shared().await);
    let topic = topics(kafka, 3).await;
    let id = registry.register(&unique("held"), "JSON", NUMBER, &[]).await;
    let mut proxy = Proxy::start(registry.addr()).await;
    proxy.refuse().await;
    let ssegate = Ssegate::start(config(kafka, &registry.url_by(proxy.addr()), &topic)).await;
    let (mut held, mut plain) = (open(&ssegate, "/t").await, open(&ssegate, "/plain").await);
    let record = |n: usize| Record::to(&topic).partition(n as i32 % 3).payload(framed(id, n));
    kafka.produce_all((0..300).map(record)).await;
    kafka.produce(Record::to(&format!("{topic}-plain")).payload("at once")).await;
    assert_eq!(plain.next_message().await.data, "at once");
    until_trouble(&ssegate, "schema registry main: ").await;
    kafka.produce_all((300..600).map(record)).await;
    kafka.produce(Record::to(&format!("{topic}-plain")).payload("again")).await;
    assert_eq!(plain.next_message().await.data, "again");
    assert!(ssegate.metrics().await.sum("ssegate_upstream_troubles_total", &[("upstream", "bus")]) > 0.0);
    assert_eq!(ssegate.status().await["upstreams"][0]["up"], true);
    eventually("what is held to be told as lag", async || {
        let lag = ssegate.status().await["upstreams"][0]["lag"].clone();
        if lag["source"] == *topic && lag["records"].as_u64() >= Some(1) { Ok(()) } else { Err(lag) }
    })
    .await;
    assert_eq!(ssegate.status().await["schema_registries"][0]["wanted"], 1);

    proxy.accept().await;
    let mut all = numbers(&mut held, 600).await;
    for partition in 0..3 {
        assert!(all.iter().filter(|n| *n % 3 == partition).is_sorted(), "partition {partition}");
    }
    all.sort_unstable();
    assert_eq!(all, (0..600).collect::<Vec<_>>(), "nothing is missing, nothing comes twice");
    // It is known now, and nobody asks again.
    let asked = proxy.bytes_up();
    kafka.produce_all((600..700).map(record)).await;
    numbers(&mut held, 100).await;
    assert_eq!(proxy.bytes_up(), asked);
    let shown = ssegate.status().await["schema_registries"][0].clone();
    assert_eq!((&shown["schemas"], &shown["wanted"]), (&json!(1), &json!(0)), "{shown}");
}

#[tokio::test]
async fn history_is_held_and_not_skipped() {
    let (kafka, registry) = (Kafka::shared().await, Registry::shared().await);
    let topic = topics(kafka, 2).await;
    let id = registry.register(&unique("past"), "JSON", NUMBER, &[]).await;
    kafka
        .produce_all((0..100).map(|n| Record::to(&topic).partition(n as i32 % 2).payload(framed(id, n))))
        .await;
    let mut proxy = Proxy::start(registry.addr()).await;
    // Nothing gets through, which takes longer to be found out.
    proxy.pause();
    let ssegate = Ssegate::start(config(kafka, &registry.url_by(proxy.addr()), &topic)).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http2()).await;
    until_trouble(&ssegate, "schema registry main: no answer in time").await;
    proxy.refuse().await;
    proxy.cut_all();
    until_trouble(&ssegate, "refused").await;
    proxy.resume();
    proxy.accept().await;
    stream.next_named("stream.position").await;
    let mut all = numbers(&mut stream, 100).await;
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_of_redis_waits_and_the_others_go_on() {
    let (redis, registry) = (Redis::start().await, Registry::shared().await);
    let id = registry.register(&unique("stream"), "JSON", NUMBER, &[]).await;
    let mut proxy = Proxy::start(registry.addr()).await;
    proxy.refuse().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 200ms }} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
routes:
  - {{ path: /held, from: {{ upstream: cache, stream: held }}, data: "{{field.p}}", decode: {{ registry: main }} }}
  - {{ path: /plain, from: {{ upstream: cache, stream: plain }}, data: "{{field.p}}" }}
"#,
        redis.url(),
        registry.url_by(proxy.addr())
    ))
    .await;
    let add = async |stream: &str, payload: &[u8]| {
        let add = redis::cmd("XADD").arg(stream).arg("*").arg("p").arg(payload).take();
        redis.command::<String>(&add).await
    };
    let (mut held, mut plain) = (open(&ssegate, "/held").await, open(&ssegate, "/plain").await);
    for n in 0..50 {
        add("held", &framed(id, n)).await;
    }
    until_trouble(&ssegate, "stream held cannot be read now: schema registry main: ").await;
    add("plain", b"at once").await;
    assert_eq!(plain.next_message().await.data, "at once");
    // One that begins while the registry is away has a past that waits as well.
    let begun = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
routes: [{{ path: /held, from: {{ upstream: cache, stream: held, start: earliest }}, data: "{{field.p}}", decode: {{ registry: main }} }}]
"#,
        redis.url(),
        registry.url_by(proxy.addr())
    ))
    .await;
    let mut past = EventSource::connect(begun.url("/held"), Options::http1()).await;
    until_trouble(&begun, "schema registry main: ").await;
    proxy.accept().await;
    assert_eq!(numbers(&mut held, 50).await, (0..50).collect::<Vec<_>>());
    past.next_named("stream.position").await;
    assert_eq!(numbers(&mut past, 50).await, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_pause_is_kept_as_far_as_there_is_room() {
    let (redis, registry) = (Redis::start().await, Registry::shared().await);
    let id = registry.register(&unique("channel"), "JSON", NUMBER, &[]).await;
    let mut proxy = Proxy::start(registry.addr()).await;
    proxy.refuse().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
routes:
  - {{ path: /c, from: {{ upstream: cache, channel: c }}, decode: {{ registry: main }}, history: {{ events: 0 }}, buffer: 64MiB }}
  - {{ path: /plain, from: {{ upstream: cache, channel: plain }} }}
"#,
        redis.url(),
        registry.url_by(proxy.addr())
    ))
    .await;
    let (mut stream, mut plain) = (open(&ssegate, "/c").await, open(&ssegate, "/plain").await);
    // There is room for 16 MiB.
    let padded = |n: usize| [framed(id, n), vec![b' '; 500_000]].concat();
    redis.publish_all("c", (0..40).map(padded)).await;
    redis.publish("plain", "at once").await;
    assert_eq!(plain.next_message().await.data, "at once");
    until_trouble(&ssegate, "schema registry main: ").await;
    proxy.accept().await;
    let (mut kept, mut lost) = (Vec::new(), 0);
    while kept.len() + lost < 40 {
        let event = stream.next().await;
        let data: Value = serde_json::from_str(&event.data).unwrap();
        match &*event.event {
            "stream.gap" => {
                assert_eq!(data["reason"], "undecodable");
                lost += data["missed"].as_u64().unwrap() as usize;
            }
            "message" => kept.push(data["n"].as_u64().unwrap() as usize),
            _ => {}
        }
    }
    assert_eq!((kept.len(), lost), (33, 7));
    assert_eq!(kept, (0..33).collect::<Vec<_>>());
    redis.publish("c", framed(id, 40)).await;
    assert_eq!(numbers(&mut stream, 1).await, [40], "and then as ever");
}

#[tokio::test]
async fn what_nobody_knows_is_told_as_a_gap() {
    let (kafka, registry) = (Kafka::shared().await, Registry::shared().await);
    let topic = topics(kafka, 1).await;
    let id = registry.register(&unique("known"), "JSON", NUMBER, &[]).await;
    let proxy = Proxy::start(registry.addr()).await;
    let ssegate = Ssegate::start(config(kafka, &registry.url_by(proxy.addr()), &topic)).await;
    let mut stream = open(&ssegate, "/t").await;
    for payload in [framed(2_000_000_000, 0), b"{\"n\":1}".to_vec(), Vec::new(), framed(id, 1)[..7].to_vec()]
    {
        kafka.produce(Record::to(&topic).payload(payload)).await;
        assert_eq!(stream.next_gap().await["reason"], "undecodable");
    }
    kafka.produce(Record::to(&topic).payload(framed(id, 7))).await;
    assert_eq!(number(&mut stream).await, 7);
    ssegate.until_counted("ssegate_source_gaps_total", &[("reason", "undecodable")], 4.0).await;
    let line =
        ssegate.wait_log("which schema it was", |line| line["schema"].as_str() == Some("2000000000")).await;
    assert_eq!((&line["registry"], &line["level"]), (&json!("main"), &json!("WARN")), "{line}");

    // The same id again is not asked for, and ids that are made up are asked for a few at a time.
    let asked = proxy.bytes_up();
    kafka.produce_all((0..200).map(|_| Record::to(&topic).payload(framed(2_000_000_000, 0)))).await;
    for _ in 0..200 {
        assert_eq!(stream.next_gap().await["reason"], "undecodable");
    }
    assert_eq!(proxy.bytes_up(), asked);
    kafka.produce_all((0..100).map(|n| Record::to(&topic).payload(framed(1_000_000_000 + n, 0)))).await;
    kafka.produce(Record::to(&topic).payload(framed(id, 8))).await;
    for _ in 0..100 {
        assert_eq!(stream.next_gap().await["reason"], "undecodable");
    }
    assert_eq!(number(&mut stream).await, 8);
}

/// The number in the next message, whatever gaps come before it.
async fn number(stream: &mut EventSource) -> u64 {
    let data: Value = serde_json::from_str(&stream.next_message().await.data).unwrap();
    data["n"].as_u64().unwrap()
}

/// No registry that the distribution can have knows schemas by UUID, asks for passwords or for certificates: a server that
/// says what Confluent documents stands for it.
#[tokio::test]
async fn a_registry_is_entered_as_configured_and_knows_uuids() {
    let ca = TestCa::shared();
    let origin = Origin::start_tls(ca).await;
    let kafka = Kafka::shared().await;
    let topic = topics(kafka, 1).await;
    let written = write("in_headers", &[]).await.remove(0);
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/schemas/order.avsc"));
    let answer = json!({ "schema": schema.unwrap() }).to_string();
    let path = "/base/schemas/guids/01234567-89ab-cdef-0123-456789abcdef";
    origin.say(path, 401, "");
    let text = config(kafka, &origin.url("/base"), &topic).replace(
        "timeout: 2s",
        &format!(
            "tls: {{ ca: \"{}\" }}, auth: {{ user: me, password: \"${{REGISTRY_PASSWORD}}\" }}",
            ca.cert_path().display()
        ),
    );
    let ssegate = Ssegate::builder().config(&text).env("REGISTRY_PASSWORD", "s3same").start().await;
    let mut stream = open(&ssegate, "/t").await;
    kafka.produce(written.to(&topic)).await;
    until_trouble(&ssegate, "schema registry main: the answer is 401 Unauthorized").await;
    // A wrong path is no answer of a registry, either.
    origin.say(path, 404, "not here");
    until_trouble(&ssegate, "schema registry main: the answer is 404 Not Found").await;
    origin.say(path, 200, answer);
    assert!(stream.next_message().await.data.starts_with(r#"{"id":9007199254740993,"total":"1234.50""#));
    assert_eq!(origin.requests(path)[0]["authorization"], "Basic bWU6czNzYW1l");

    // Another way in, and what is known stays known.
    let asked = origin.requests(path).len();
    let text = text.replace("user: me, password: \"${REGISTRY_PASSWORD}\"", "token: t0ken");
    let changes = ssegate.reload(&text).await;
    assert_eq!(changes, ["schema registry main: changed, for schemas that are asked for from now on"]);
    kafka.produce(written.to(&topic)).await;
    stream.next_message().await;
    assert_eq!(origin.requests(path).len(), asked);
    let again = "/base/schemas/ids/5";
    origin.say(again, 200, json!({ "schema": "{}", "schemaType": "JSON" }).to_string());
    kafka.produce(Record::to(&topic).payload(framed(5, 5))).await;
    assert_eq!(number(&mut stream).await, 5);
    assert_eq!(origin.requests(again)[0]["authorization"], "Bearer t0ken");
    for line in ssegate.log() {
        let line = line.to_string();
        assert!(!line.contains("s3same") && !line.contains("bWU6") && !line.contains("t0ken"), "{line}");
    }
    assert!(!ssegate.status().await.to_string().contains("t0ken"));
}

/// Apicurio cannot be asked for schemas by UUID, and says so in words of its own.
#[tokio::test]
async fn what_a_registry_cannot_be_asked_for_is_told_as_a_gap() {
    let (kafka, registry) = (Kafka::shared().await, Registry::shared().await);
    let topic = topics(kafka, 1).await;
    let id = registry.register(&unique("beside"), "JSON", NUMBER, &[]).await;
    let ssegate = Ssegate::start(config(kafka, &registry.url(), &topic)).await;
    let mut stream = open(&ssegate, "/t").await;
    let by_uuid = [&[1][..], &[7; 16], b"{\"n\":0}"].concat();
    kafka.produce(Record::to(&topic).payload(by_uuid)).await;
    kafka.produce(Record::to(&topic).payload(framed(id, 1))).await;
    assert_eq!(stream.next_gap().await["reason"], "undecodable");
    assert_eq!(number(&mut stream).await, 1);
    let uuid = "07070707-0707-0707-0707-070707070707";
    let line = ssegate.wait_log("which schema it was", |line| line["schema"].as_str() == Some(uuid)).await;
    assert_eq!(line["why"], "the answer is 404 Not Found, though a registry is there");
}

/// A registry behind a proxy that has an error page of its own, and schemas of a size that few have.
#[tokio::test]
async fn what_is_no_answer_of_a_registry_is_one_where_a_registry_is_there() {
    let (kafka, origin) = (Kafka::shared().await, Origin::start().await);
    let topic = topics(kafka, 1).await;
    origin.say("/schemas/types", 200, r#"["JSON"]"#);
    let schema = |size: usize| json!({ "schema": " ".repeat(size), "schemaType": "JSON" }).to_string();
    for (id, status, body) in [
        (1, 404, "<html>".to_owned()),
        (2, 200, "<html>".to_owned()),
        (3, 302, String::new()),
        (4, 200, schema(4 << 20)),
        (5, 200, schema(3 << 20)),
    ] {
        origin.say(&format!("/schemas/ids/{id}"), status, body);
    }
    let ssegate = Ssegate::start(config(kafka, &origin.url(""), &topic)).await;
    let mut stream = open(&ssegate, "/t").await;
    for (id, why) in [
        (1, "the answer is 404 Not Found, though a registry is there"),
        (2, "the answer is not that of a schema registry, though a registry is there"),
        (3, "the answer is 302 Found, though a registry is there"),
        (4, "the answer has more than 4 MiB, though a registry is there"),
    ] {
        kafka.produce(Record::to(&topic).payload(framed(id, 0))).await;
        assert_eq!(stream.next_gap().await["reason"], "undecodable", "{why}");
        // A line a second at most.
        if id == 1 {
            ssegate.wait_log("the reason", |line| line["why"] == why).await;
        }
    }
    kafka.produce(Record::to(&topic).payload(framed(5, 5))).await;
    assert_eq!(number(&mut stream).await, 5, "it is large, and no larger than it may be");
    assert_eq!(ssegate.status().await["schema_registries"][0]["wanted"], 0);
}

#[tokio::test]
async fn a_subscription_that_was_lost_is_told_after_what_waits() {
    let (mut redis, registry) = (Redis::start().await, Registry::shared().await);
    let id = registry.register(&unique("lost"), "JSON", NUMBER, &[]).await;
    let mut proxy = Proxy::start(registry.addr()).await;
    proxy.refuse().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 200ms, timeout: 2s }} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
routes: [{{ path: /c, from: {{ upstream: cache, channel: c }}, decode: {{ registry: main }} }}]
"#,
        redis.url(),
        registry.url_by(proxy.addr())
    ))
    .await;
    let mut stream = open(&ssegate, "/c").await;
    redis.until_subscribed("c", 1).await;
    redis.publish("c", framed(id, 1)).await;
    until_trouble(&ssegate, "schema registry main: ").await;
    redis.restart().await;
    redis.until_subscribed("c", 1).await;
    redis.publish("c", framed(id, 2)).await;
    proxy.accept().await;
    assert_eq!(numbers(&mut stream, 1).await, [1]);
    assert_eq!(stream.next_gap().await["reason"], "upstream_lost");
    assert_eq!(number(&mut stream).await, 2);
}

/// What [`framed`] is of.
const NUMBER: &str = r#"{"type":"object","properties":{"n":{"type":"integer"}}}"#;

//! Upstreams that keep what they give, and those that are given in full at once, while the registry is away: tables of the
//! newest of each key, and sources of every kind.

use std::collections::BTreeMap;

use lapin::{BasicProperties, ExchangeKind};
use serde_json::{Value, json};

use super::{NUMBER, framed, numbers, open, until_trouble};
use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::nats::{self, Nats};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::registry::Registry;
use crate::support::ssegate::Ssegate;

/// What a page makes of a snapshot and what follows it.
#[derive(Debug, Default)]
struct Page {
    rows: BTreeMap<String, Value>,
    gaps: usize,
}

impl Page {
    /// Reads up to an event of this name.
    async fn until(&mut self, stream: &mut EventSource, name: &str) {
        loop {
            let event = stream.next().await;
            match &*event.event {
                "stream.snapshot-start" => *self = Self::default(),
                "stream.gap" => self.gaps += 1,
                "gone" => _ = self.rows.remove(&event.data),
                "message" => {
                    let row: Value = serde_json::from_str(&event.data).unwrap();
                    self.rows.insert(row["id"].to_string(), row);
                }
                _ => {}
            }
            if event.event == name {
                return;
            }
        }
    }

    /// Reads a snapshot, and what follows it until these rows are there.
    async fn begun(stream: &mut EventSource, rows: &BTreeMap<String, Value>) -> Self {
        let mut page = Self::default();
        page.until(stream, "stream.snapshot-end").await;
        while page.rows != *rows {
            page.until(stream, "message").await;
        }
        page
    }
}

/// A row in Avro by the schema of this id, which has a note where `of_note` is one. Numbers are small.
fn row(schema: u32, [id, version]: [u8; 2], note: Option<&str>) -> Vec<u8> {
    // Numbers and lengths are zigzag varints of one byte.
    let note = note.map(|note| [&[2 * note.len() as u8], note.as_bytes()].concat()).unwrap_or_default();
    [&[0][..], &schema.to_be_bytes(), &[2 * id, 2 * version], &note].concat()
}

/// The current state and then changes of a compacted topic, as change data capture writes it.
#[tokio::test]
async fn a_table_of_what_several_schemas_say_is_whole_once_the_registry_is_there() {
    let (kafka, registry) = (Kafka::shared().await, Registry::shared().await);
    let topic = unique("rows");
    kafka.create_topic_with(&topic, 2, &[("cleanup.policy", "compact")]).await;
    let first = registry.register(&format!("{topic}-first"), "AVRO", ROW, &[]).await;
    let second = registry.register(&format!("{topic}-second"), "AVRO", ROW_WITH_NOTE, &[]).await;
    let of = |id: u8| Record::to(&topic).key(id.to_string());
    let (mut records, mut rows) = (Vec::new(), BTreeMap::new());
    records.extend((0..40).map(|id| of(id).payload(row(first, [id, 1], None))));
    records.extend((0..40).step_by(2).map(|id| of(id).payload(row(second, [id, 2], Some("new")))));
    records.extend((0..40).step_by(5).map(of));
    records.push(of(39).payload("no record of a registry"));
    for id in (0..39_u8).filter(|id| id % 5 > 0) {
        let row = match id % 2 {
            0 => json!({ "id": id, "v": 2, "note": "new" }),
            _ => json!({ "id": id, "v": 1 }),
        };
        rows.insert(id.to_string(), row);
    }
    kafka.produce_all(records).await;
    let mut proxy = Proxy::start(registry.addr()).await;
    proxy.refuse().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: "{}" }} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: /rows, from: {{ upstream: bus, topic: "{topic}" }}, decode: {{ registry: main }}, tombstone: {{ event: gone }}, snapshot: true }}
"#,
        kafka.bootstrap(),
        registry.url_by(proxy.addr())
    ))
    .await;
    let mut waits = EventSource::connect(ssegate.url("/rows"), Options::http1()).await;
    until_trouble(&ssegate, "schema registry main: ").await;
    kafka.produce(of(1).payload(row(second, [1, 3], Some("meanwhile")))).await;
    rows.insert("1".to_owned(), json!({ "id": 1, "v": 3, "note": "meanwhile" }));
    waits.until_comments(2).await;
    assert_eq!(waits.events().len(), 0, "there is no snapshot that lacks something: {waits}");

    proxy.accept().await;
    let mut page = Page::begun(&mut waits, &rows).await;
    let mut comes = EventSource::connect(ssegate.url("/rows"), Options::http2()).await;
    let late = Page::begun(&mut comes, &rows).await;
    assert_eq!((page.gaps, late.gaps), (1, 1), "in the place of what is no record");

    // And every change: one that cannot be decoded is counted, and is the newest of its key until another comes.
    let undecodable = [("reason", "undecodable")];
    let counted = ssegate.metrics().await.sum("ssegate_source_gaps_total", &undecodable);
    kafka.produce(of(2).payload(row(first, [2, 4], None)).partition(0)).await;
    kafka.produce(of(2).payload(&row(second, [2, 5], Some("cut"))[..8]).partition(0)).await;
    kafka.produce(of(3).partition(0)).await;
    page.until(&mut waits, "gone").await;
    assert_eq!((&page.rows["2"]["v"], page.gaps), (&json!(4), 2));
    ssegate.until_counted("ssegate_source_gaps_total", &undecodable, counted + 1.0).await;
}

#[tokio::test]
async fn subjects_and_streams_of_nats_wait_for_their_schemas() {
    let nats = Nats::start_jetstream().await;
    nats.create_stream("KEPT", &["kept.>"]).await;
    let upstream = format!("nats: {{ servers: \"{}\" }}", nats.url());
    let named = |subject: &'static str, payloads: Vec<Vec<u8>>| {
        payloads.into_iter().map(move |payload| (subject, payload))
    };
    let publish = async |payloads| nats::publish(&nats.client().await, named("n", payloads)).await;
    wait_for_their_schemas(&upstream, "subject: n", false, publish).await;
    let store = async |payloads| _ = nats::store(&nats.jetstream().await, named("kept.n", payloads)).await;
    wait_for_their_schemas(&upstream, "jetstream: KEPT", true, store).await;
}

#[tokio::test]
async fn exchanges_and_streams_of_rabbitmq_wait_for_their_schemas() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("waits"));
    publisher.declare_exchange(&name, ExchangeKind::Fanout).await;
    publisher.declare_stream(&name, &[]).await;
    let upstream = format!("amqp: {{ url: \"{}\", ping_interval: 200ms, timeout: 5s }}", mq.url());
    let publish = async |exchange: &str, payloads: Vec<Vec<u8>>| {
        let messages =
            payloads.into_iter().map(|payload| (name.clone(), payload, BasicProperties::default()));
        publisher.publish_all(exchange, messages).await.unwrap();
    };
    let to_exchange = async |payloads| publish(&name, payloads).await;
    wait_for_their_schemas(&upstream, &format!("exchange: \"{name}\""), false, to_exchange).await;
    let to_stream = async |payloads| publish("", payloads).await;
    wait_for_their_schemas(&upstream, &format!("stream: \"{name}\""), true, to_stream).await;
}

#[tokio::test]
async fn rows_of_postgres_wait_for_their_schemas() {
    let postgres = Postgres::start().await;
    postgres.run("CREATE TABLE outbox (id bigserial PRIMARY KEY, payload bytea)").await;
    let insert = async |payloads: Vec<Vec<u8>>| {
        let hex = |payload: &Vec<u8>| payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let rows: Vec<_> = payloads.iter().map(|payload| format!("('\\x{}')", hex(payload))).collect();
        postgres.run(&format!("INSERT INTO outbox (payload) VALUES {}", rows.join(", "))).await;
    };
    let upstream = format!("postgres: {{ url: \"{}\" }}", postgres.url());
    wait_for_their_schemas(&upstream, "table: outbox, every: 20ms", true, insert).await;
}

/// Whose oldest rows cannot be decoded for now waits alone.
#[tokio::test]
async fn a_feed_of_a_table_that_cannot_begin_holds_up_no_other() {
    let (postgres, registry) = (Postgres::start().await, Registry::shared().await);
    postgres.run("CREATE TABLE outbox (id bigserial PRIMARY KEY, room text, payload bytea)").await;
    let first = registry.register(&unique("first"), "JSON", NUMBER, &[]).await;
    let titled = NUMBER.replacen('{', r#"{"title":"second","#, 1);
    let second = registry.register(&unique("second"), "JSON", &titled, &[]).await;
    let insert = async |room: &str, payload: Vec<u8>| {
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        postgres.run(&format!("INSERT INTO outbox (room, payload) VALUES ('{room}', '\\x{hex}')")).await;
    };
    let mut proxy = Proxy::start(registry.addr()).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ db: {{ postgres: {{ url: "{}" }} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
routes:
  - path: "/rooms/{{room}}"
    from: {{ upstream: db, table: outbox, where: {{ room: "{{room}}" }}, every: 20ms, start: earliest }}
    decode: {{ registry: main }}
"#,
        postgres.url(),
        registry.url_by(proxy.addr())
    ))
    .await;
    insert("b", framed(second, 1)).await;
    insert("a", framed(first, 1)).await;
    let mut a = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
    assert_eq!(numbers(&mut a, 1).await, [1]);
    proxy.refuse().await;
    proxy.cut_all();
    let mut b = EventSource::connect(ssegate.url("/rooms/b"), Options::http1()).await;
    until_trouble(&ssegate, "schema registry main: ").await;
    insert("a", framed(first, 2)).await;
    assert_eq!(numbers(&mut a, 1).await, [2]);
    proxy.accept().await;
    assert_eq!(numbers(&mut b, 1).await, [1]);
}

/// What `publish` publishes to a source while the registry is away is given once that is there, as it comes and, where the
/// source keeps it, by a log that began meanwhile.
async fn wait_for_their_schemas(
    upstream: &str,
    source: &str,
    keeps: bool,
    publish: impl AsyncFnOnce(Vec<Vec<u8>>),
) {
    let registry = Registry::shared().await;
    let id = registry.register(&unique("waits"), "JSON", NUMBER, &[]).await;
    let mut proxy = Proxy::start(registry.addr()).await;
    proxy.refuse().await;
    let config = |start: &str| {
        format!(
            r#"
upstreams: {{ up: {{ {upstream} }} }}
schema_registries: {{ main: {{ url: "{}" }} }}
routes: [ {{ path: /n, from: {{ upstream: up, {source}{start} }}, decode: {{ registry: main }} }} ]
"#,
            registry.url_by(proxy.addr())
        )
    };
    let ssegate = Ssegate::start(config("")).await;
    let mut live = open(&ssegate, "/n").await;
    publish((0..50).map(|n| framed(id, n)).collect()).await;
    until_trouble(&ssegate, "schema registry main: ").await;
    let begun = if keeps { Some(Ssegate::start(config(", start: earliest")).await) } else { None };
    let mut past = Vec::new();
    if let Some(begun) = &begun {
        past.push(EventSource::connect(begun.url("/n"), Options::http2()).await);
        until_trouble(begun, "schema registry main: ").await;
    }
    assert_eq!(ssegate.status().await["upstreams"][0]["up"], true);
    proxy.accept().await;
    for stream in past.iter_mut().chain([&mut live]) {
        assert_eq!(numbers(stream, 50).await, Vec::from_iter(0..50), "{source}");
    }
}

const ROW: &str =
    r#"{"type":"record","name":"Row","fields":[{"name":"id","type":"long"},{"name":"v","type":"long"}]}"#;
const ROW_WITH_NOTE: &str = r#"{"type":"record","name":"Row","fields":[{"name":"id","type":"long"},{"name":"v","type":"long"},{"name":"note","type":"string"}]}"#;

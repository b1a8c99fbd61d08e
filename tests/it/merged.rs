//! Several sources in one feed: a topic, a stream and a channel with one id, which resumes each of them as it does alone, while
//! clients are cut, ssegate starts anew, upstreams come and go, and the list itself changes.

use std::collections::BTreeMap;
use std::ops::Range;

use http::Method;
use serde_json::{Value, json};

use crate::negotiation::Lines;
use crate::support::eventsource::{Event, EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::proxy::Proxy;
use crate::support::recorder::{Habits, Recorder, Seen};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// A Kafka with a topic, and a Redis.
struct Rig {
    kafka: &'static Kafka,
    topic: String,
    redis: Redis,
}

impl Rig {
    async fn start() -> Self {
        let (kafka, topic) = (Kafka::shared().await, unique("merged"));
        kafka.create_topic(&topic, 1).await;
        Self { kafka, topic, redis: Redis::start().await }
    }

    /// The topic, the stream and the channel, as a list has them.
    fn sources(&self) -> [String; 3] {
        [
            format!("{{ upstream: bus, topic: {} }}", self.topic),
            "{ upstream: cache, stream: audit }".to_owned(),
            "{ upstream: cache, channel: news }".to_owned(),
        ]
    }

    /// `/all` reads these.
    fn config(&self, sources: &[String]) -> String {
        self.config_of(&self.redis.url(), sources)
    }

    /// The same of a Redis that is reached here.
    fn config_of(&self, redis: &str, sources: &[String]) -> String {
        format!(
            r#"
upstreams:
  bus: {{ kafka: {{ brokers: ["{}"] }} }}
  cache: {{ redis: {{ url: "{redis}" }} }}
defaults: {{ history: {{ events: 20000, bytes: 64MiB }}, retry: 100ms }}
routes:
  - path: /all
    from: [{}]
    data: "{{field.n}}"
"#,
            self.kafka.bootstrap(),
            sources.join(", ")
        )
    }

    /// Publishes these numbers to each of them: `t0`, `s0`, `c0` and so on.
    async fn publish(&self, numbers: Range<usize>) {
        let records = numbers.clone().map(|n| Record::to(&self.topic).payload(format!("t{n}")));
        self.kafka.produce_all(records).await;
        for n in numbers.clone() {
            self.redis.xadd("audit", "*", &[("n", &format!("s{n}"))]).await;
        }
        self.redis.publish_all("news", numbers.map(|n| format!("c{n}"))).await;
    }
}

/// Connects, and reads until it is told where the stream begins in so many sources.
async fn begun(ssegate: &Ssegate, options: Options, sources: usize) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url("/all"), options).await;
    while places(&stream.next_named("stream.position").await) != sources {}
    stream
}

/// In how many sources an id says a place.
fn places(event: &Event) -> usize {
    event.id.matches('~').count()
}

/// The numbers of each source, in order.
fn by_source<'d>(data: impl IntoIterator<Item = &'d String>) -> BTreeMap<String, Vec<usize>> {
    let mut found = BTreeMap::<String, Vec<usize>>::new();
    for data in data {
        let (source, number) = data.split_at(1);
        found.entry(source.to_owned()).or_default().push(number.parse().unwrap());
    }
    found
}

/// The next so many, none of which a gap precedes.
async fn next(stream: &mut EventSource, count: usize) -> BTreeMap<String, Vec<usize>> {
    by_source(&stream.next_data(count).await)
}

fn expected<const N: usize>(each: [(&str, Range<usize>); N]) -> BTreeMap<String, Vec<usize>> {
    each.map(|(source, numbers)| (source.to_owned(), numbers.collect())).into()
}

fn all(numbers: Range<usize>) -> BTreeMap<String, Vec<usize>> {
    expected([("t", numbers.clone()), ("s", numbers.clone()), ("c", numbers)])
}

#[tokio::test]
async fn each_source_keeps_its_order_and_every_event_has_an_id() {
    let rig = Rig::start().await;
    let ssegate = Ssegate::start(rig.config(&rig.sources())).await;
    let mut streams =
        [begun(&ssegate, Options::http1(), 3).await, begun(&ssegate, Options::http2(), 3).await];
    rig.publish(0..100).await;
    for stream in &mut streams {
        assert_eq!(next(stream, 300).await, all(0..100));
        let mut ids: Vec<_> = stream.events().iter().map(|event| &event.id).collect();
        let events = ids.len();
        ids.sort();
        ids.dedup();
        // The position at the start may have been told for some of the sources before it was for all.
        assert!(events - ids.len() <= 2 && ids.iter().all(|id| !id.is_empty()), "{events} events: {ids:?}");
    }
    let status = ssegate.status().await;
    assert_eq!(status["routes"][0]["upstream"], "bus,cache");
    assert_eq!(status["feeds"].as_array().unwrap().len(), 3, "they are held from the start: {status}");
    for upstream in ["bus", "cache"] {
        let routes = ssegate.admin_get(&format!("/status/routes?upstream={upstream}")).await.json();
        assert_eq!(routes["routes"][0]["route"], "/all");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_cut_again_and_again_have_all_of_each_source_once_and_in_order() {
    let rig = Rig::start().await;
    let ssegate = Ssegate::start(rig.config(&rig.sources())).await;
    let mut clients = Vec::new();
    for seed in 0..6 {
        let options = if seed % 2 == 0 { Options::http1() } else { Options::http2() };
        let client = Recorder::start(ssegate.url("/all"), options, Habits::cut(2_000..30_000, seed));
        let is_begun = |seen: &Seen| matches!(seen, Seen::Event(event) if places(event) == 3);
        client.wait_for("its start", |seen| seen.iter().any(is_begun)).await;
        clients.push(client);
    }
    for block in 0..20 {
        rig.publish(block * 50..(block + 1) * 50).await;
    }
    for client in clients {
        client.wait_messages(3_000).await;
        let messages = client.messages();
        assert_eq!(by_source(messages.iter().map(|event| &event.data)), all(0..1_000));
        assert_eq!(client.gaps(), [] as [Value; 0]);
        assert!(client.opened() > 3, "it was cut: {}", client.opened());
    }
}

#[tokio::test]
async fn after_a_restart_what_upstreams_keep_goes_on_and_a_channel_says_once_that_it_cannot() {
    let rig = Rig::start().await;
    let mut first = Ssegate::start(rig.config(&rig.sources())).await;
    let mut stream = begun(&first, Options::http1(), 3).await;
    rig.publish(0..10).await;
    next(&mut stream, 30).await;
    let id = stream.last_event_id().to_owned();
    first.kill();
    rig.publish(10..20).await;

    let second = Ssegate::start(rig.config(&rig.sources())).await;
    rig.redis.until_subscribed("news", 1).await;
    let mut stream = EventSource::connect(second.url("/all"), Options::http2().resume(&id)).await;
    let (mut gaps, mut data) = (Vec::new(), Vec::new());
    while gaps.is_empty() || data.len() < 20 {
        let event = stream.next().await;
        match &*event.event {
            "stream.gap" => gaps.push(serde_json::from_str::<Value>(&event.data).unwrap()["reason"].clone()),
            "message" => data.push(event.data),
            _ => {}
        }
    }
    assert_eq!(
        (gaps, by_source(&data)),
        (vec![json!("unknown_id")], expected([("t", 10..20), ("s", 10..20)]))
    );
    rig.publish(20..25).await;
    assert_eq!(next(&mut stream, 15).await, all(20..25));
    // From here on its id is one of this process in all of them.
    stream.close();
    rig.publish(25..30).await;
    stream.reconnect().await;
    assert_eq!(next(&mut stream, 15).await, all(25..30));
}

#[tokio::test]
async fn an_upstream_that_is_down_at_the_start_holds_up_no_other() {
    let mut rig = Rig::start().await;
    rig.redis.kill();
    let ssegate = Ssegate::start(rig.config(&rig.sources())).await;
    let mut stream = begun(&ssegate, Options::http1(), 1).await;
    // Whoever came back with an id of the one that is there would miss what the others have meanwhile.
    let (head, probe, page) = tokio::join!(
        ask(&ssegate, Method::HEAD, "/all", "text/event-stream"),
        ask(&ssegate, Method::GET, "/all?probe", "*/*"),
        ask(&ssegate, Method::GET, "/all", "application/json")
    );
    assert_eq!((head.status.as_u16(), head.header("last-event-id")), (200, ""));
    assert_eq!([probe.status, page.status].map(|status| status.as_u16()), [503, 503], "{}", page.text());
    let records = |numbers: Range<usize>| numbers.map(|n| Record::to(&rig.topic).payload(format!("t{n}")));
    rig.kafka.produce_all(records(0..5)).await;
    assert_eq!(next(&mut stream, 5).await, expected([("t", 0..5)]));
    stream.cut();
    rig.kafka.produce_all(records(5..10)).await;
    stream.reconnect().await;
    assert_eq!(next(&mut stream, 5).await, expected([("t", 5..10)]));
    rig.redis.restart().await;
    while places(&stream.next_named("stream.position").await) != 3 {}
    rig.publish(10..15).await;
    assert_eq!(next(&mut stream, 15).await, all(10..15));
}

#[tokio::test]
async fn an_upstream_that_is_lost_is_told_and_the_others_flow() {
    let rig = Rig::start().await;
    let mut proxy = Proxy::start(([127, 0, 0, 1], rig.redis.port()).into()).await;
    let through = format!("redis://{}", proxy.addr());
    let ssegate = Ssegate::start(rig.config_of(&through, &rig.sources())).await;
    let mut stream = begun(&ssegate, Options::http2(), 3).await;
    rig.publish(0..5).await;
    assert_eq!(next(&mut stream, 15).await, all(0..5));
    proxy.refuse().await;
    proxy.cut_all();
    eventually("nobody to be subscribed", async || match rig.redis.subscribers("news").await {
        0 => Ok(()),
        count => Err(count),
    })
    .await;
    rig.publish(5..10).await;
    assert_eq!(next(&mut stream, 5).await, expected([("t", 5..10)]), "Redis is away");
    proxy.accept().await;
    rig.redis.until_subscribed("news", 1).await;
    rig.publish(10..15).await;
    let (mut gaps, mut data) = (Vec::new(), Vec::new());
    while data.len() < 20 {
        let event = stream.next().await;
        match &*event.event {
            "stream.gap" => gaps.push(serde_json::from_str::<Value>(&event.data).unwrap()["reason"].clone()),
            "message" => data.push(event.data),
            _ => {}
        }
    }
    let seen = expected([("t", 10..15), ("s", 5..15), ("c", 10..15)]);
    assert_eq!((gaps, by_source(&data)), (vec![json!("upstream_lost")], seen));
}

#[tokio::test]
async fn sources_come_and_go_in_the_file_and_clients_go_on_in_the_others() {
    let rig = Rig::start().await;
    let [topic, stream, channel] = rig.sources();
    let of =
        |sources: &[&String]| rig.config(&sources.iter().map(|source| (*source).clone()).collect::<Vec<_>>());
    let ssegate = Ssegate::start(of(&[&topic, &stream])).await;
    let mut client = begun(&ssegate, Options::http1(), 2).await;
    rig.publish(0..5).await;
    assert_eq!(next(&mut client, 10).await, expected([("t", 0..5), ("s", 0..5)]));
    // In another order they are the same, also to who has the stream open.
    assert_eq!(ssegate.reload(&of(&[&stream, &topic])).await, [""; 0]);
    rig.publish(5..10).await;
    assert_eq!(next(&mut client, 10).await, expected([("t", 5..10), ("s", 5..10)]));

    client.close();
    rig.publish(10..15).await;
    let told = ["route /all: reads something else; its streams end"];
    assert_eq!(ssegate.reload(&of(&[&channel, &stream, &topic])).await, told);
    rig.redis.until_subscribed("news", 1).await;
    client.reconnect().await;
    assert_eq!(next(&mut client, 10).await, expected([("t", 10..15), ("s", 10..15)]));
    rig.publish(15..20).await;
    assert_eq!(next(&mut client, 15).await, all(15..20));

    client.close();
    rig.publish(20..25).await;
    assert_eq!(ssegate.reload(&of(&[&stream, &channel])).await, told);
    client.reconnect().await;
    assert_eq!(next(&mut client, 10).await, expected([("s", 20..25), ("c", 20..25)]));
    rig.publish(25..30).await;
    assert_eq!(next(&mut client, 10).await, expected([("s", 25..30), ("c", 25..30)]));
}

#[tokio::test]
async fn each_source_begins_where_it_is_to_begin() {
    let rig = Rig::start().await;
    if rig.kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it tells no offsets by time");
    }
    rig.publish(0..5).await;
    let [topic, stream, channel] = rig.sources();
    let earliest = |source: &str| source.replace(" }", ", start: earliest }");
    let ssegate = Ssegate::start(rig.config(&[earliest(&topic), stream, channel])).await;
    rig.redis.until_subscribed("news", 1).await;
    let mut client = EventSource::connect(ssegate.url("/all"), Options::http1()).await;
    assert_eq!(next(&mut client, 5).await, expected([("t", 0..5)]));
    // A client's own wish goes to all that know the time.
    let mut since = EventSource::connect(ssegate.url("/all?since=1h"), Options::http2()).await;
    assert_eq!(next(&mut since, 10).await, expected([("t", 0..5), ("s", 0..5)]));
    rig.publish(5..10).await;
    assert_eq!(next(&mut since, 15).await, all(5..10));
}

#[tokio::test]
async fn parameters_filters_and_data_are_for_all_sources() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /desks/{{desk}}
    from: [{{ upstream: cache, stream: "orders:{{desk}}" }}, {{ upstream: cache, channel: "desk:{{desk}}" }}]
    event: "{{desk}}:{{event.kind}}"
    filter: event.n > 1
    data: {{ field: payload, keep: [n] }}
"#,
        redis.url()
    ))
    .await;
    for (desk, options) in [("a", Options::http1()), ("b", Options::http2())] {
        let mut stream = EventSource::connect(ssegate.url(&format!("/desks/{desk}")), options).await;
        while places(&stream.next_named("stream.position").await) != 2 {}
        for desk in ["a", "b"] {
            for n in 1..4 {
                let payload = |kind: &str| format!(r#"{{"n":{n},"kind":"{kind}","secret":7}}"#);
                redis.xadd(&format!("orders:{desk}"), "*", &[("payload", &payload("order"))]).await;
                redis.publish(&format!("desk:{desk}"), payload("note")).await;
            }
        }
        let mut told = Vec::new();
        for _ in 0..4 {
            let event = stream.next_message().await;
            told.push((event.event, event.data));
        }
        told.sort();
        let event = |kind: &str, n: usize| (format!("{desk}:{kind}"), format!(r#"{{"n":{n}}}"#));
        assert_eq!(told, [event("note", 2), event("note", 3), event("order", 2), event("order", 3)]);
    }
}

#[tokio::test]
async fn one_key_of_a_topic_beside_a_channel() {
    let rig = Rig::start().await;
    if rig.kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it tells no offsets by time");
    }
    let ssegate = Ssegate::start(format!(
        r#"
upstreams:
  bus: {{ kafka: {{ brokers: ["{}"] }} }}
  cache: {{ redis: {{ url: "{}" }} }}
routes:
  - path: /of/{{who}}
    from: [{{ upstream: bus, topic: {}, key: "{{who}}" }}, {{ upstream: cache, channel: "of:{{who}}" }}]
    wrap: envelope
"#,
        rig.kafka.bootstrap(),
        rig.redis.url(),
        rig.topic
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/of/ann"), Options::http1()).await;
    while places(&stream.next_named("stream.position").await) != 2 {}
    let mut seen = Vec::new();
    for round in 0..3 {
        stream.close();
        for who in ["ann", "bob"] {
            rig.kafka.produce(Record::to(&rig.topic).key(who).payload(format!("order {round}"))).await;
            rig.redis.publish(&format!("of:{who}"), format!("note {round}")).await;
        }
        stream.reconnect().await;
        for data in stream.next_data(2).await {
            let data: Value = serde_json::from_str(&data).unwrap();
            let from = data["topic"].as_str().or_else(|| data["channel"].as_str()).unwrap();
            seen.push(format!("{from}: {}", data["data"].as_str().unwrap()));
        }
    }
    seen.sort();
    let mut all: Vec<_> = (0..3).map(|n| format!("{}: order {n}", rig.topic)).collect();
    all.extend((0..3).map(|n| format!("of:ann: note {n}")));
    all.sort();
    assert_eq!(seen, all);
}

async fn ask(ssegate: &Ssegate, method: Method, path: &str, accept: &str) -> Reply {
    request(method, &ssegate.url(path), &[("accept", accept)], "", &Connect::http1()).await
}

#[tokio::test]
async fn pages_lines_and_the_newest_id_are_those_of_one_feed() {
    let rig = Rig::start().await;
    let ssegate = Ssegate::start(rig.config(&rig.sources())).await;
    let mut stream = begun(&ssegate, Options::http1(), 3).await;
    let head = ask(&ssegate, Method::HEAD, "/all", "text/event-stream").await;
    let id = head.header("last-event-id").to_owned();
    assert_eq!(id, stream.last_event_id());
    let probe = ask(&ssegate, Method::GET, "/all?probe", "*/*").await;
    assert_eq!(probe.json()["id"], *id);
    rig.publish(0..4).await;
    assert_eq!(next(&mut stream, 12).await, all(0..4));

    // Page by page, from there.
    let (mut seen, mut from) = (Vec::new(), id.clone());
    while seen.len() < 12 {
        let path = format!("/all?lastEventId={from}&limit=5");
        let page = ask(&ssegate, Method::GET, &path, "application/json").await.json();
        assert_eq!(page["gaps"], json!([]));
        let events = page["events"].as_array().unwrap();
        assert!((1..=5).contains(&events.len()), "{page}");
        seen.extend(events.iter().map(|event| event["data"].as_str().unwrap().to_owned()));
        from = page["next"].as_str().unwrap().to_owned();
    }
    assert_eq!(by_source(&seen), all(0..4));
    let none = ask(&ssegate, Method::GET, &format!("/all?lastEventId={from}"), "application/json").await;
    assert_eq!((&none.json()["events"], &none.json()["next"]), (&json!([]), &json!(from)));

    let by_header = [("accept", "application/x-ndjson"), ("last-event-id", &*id)];
    let mut lines = Lines::open(&ssegate.url("/all"), &by_header, &Connect::http2()).await;
    let mut seen = Vec::new();
    while seen.len() < 12 {
        seen.push(lines.next_named("message").await["data"].as_str().unwrap().to_owned());
    }
    assert_eq!(by_source(&seen), all(0..4));
}

#[tokio::test]
async fn clients_that_do_not_read_lose_nothing_of_what_upstreams_keep() {
    let rig = Rig::start().await;
    let [topic, stream, _] = rig.sources();
    let config = rig.config(&[topic, stream]).replace("events: 20000, bytes: 64MiB", "events: 10");
    let ssegate = Ssegate::start(config.replace("data:", "buffer: 64KiB\n    data:")).await;
    let slow = Options::http1().connect(Connect { receive_buffer: Some(8192), ..Connect::http1() });
    let mut stream = begun(&ssegate, slow, 2).await;
    let filling = "x".repeat(1_000);
    let records = (0..2_000).map(|n| Record::to(&rig.topic).payload(format!("t{n} {filling}")));
    rig.kafka.produce_all(records).await;
    for n in 0..2_000 {
        rig.redis.xadd("audit", "*", &[("n", &format!("s{n} {filling}"))]).await;
    }
    // By now both logs have let go of nearly all.
    let data = stream.next_data(4_000).await;
    let numbers: Vec<_> = data.iter().map(|data| data.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(by_source(&numbers), expected([("t", 0..2_000), ("s", 0..2_000)]));
}

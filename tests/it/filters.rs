//! Filters that name what clients bring: each is given its part of what all share, wherever it is read from, and moves on with
//! the others; what it brings is bound when its stream is opened, and harms nobody.

use http::Method;
use serde_json::{Value, json};

use crate::auth::SECRET;
use crate::multi::until_placed;
use crate::negotiation::{Lines, NDJSON, data, page, page_of};
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::token::{hs256, now};
use crate::support::witness::Witness;

const BY_SYMBOL: &str =
    "event.symbol == query.symbol && (!has(query.min) || event.price >= double(query.min))";

async fn open(ssegate: &Ssegate, path: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    stream
}

fn quote(symbol: &str, price: f64) -> String {
    json!({ "symbol": symbol, "price": price }).to_string()
}

/// What the streams of a route have not been handed.
async fn withheld(ssegate: &Ssegate, route: &str, count: f64) {
    ssegate.until_counted("ssegate_events_withheld_total", &[("route", route)], count).await;
}

#[tokio::test]
async fn of_one_channel_each_client_is_given_what_it_asks_for() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: /quotes, from: {{ upstream: cache, channel: quotes }}, filter: "{BY_SYMBOL}", keepalive: 1s }}
  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}
  - {{ path: /all, multi: {{ of: [/quotes, /news] }} }}
"#,
        redis.url()
    ))
    .await;
    let mut a = open(&ssegate, "/quotes?symbol=a", Options::http1()).await;
    let mut b = open(&ssegate, "/quotes?symbol=b&min=10", Options::http2()).await;
    for (symbol, price) in [("a", 1.0), ("b", 9.5), ("c", 20.0), ("b", 10.0), ("a", 12.0)] {
        redis.publish("quotes", quote(symbol, price)).await;
    }
    assert_eq!(a.next_data(2).await, [quote("a", 1.0), quote("a", 12.0)]);
    assert_eq!(b.next_data(1).await, [quote("b", 10.0)]);
    withheld(&ssegate, "/quotes", 3.0 + 4.0).await;

    // What is not for it moves it on, which is told when a comment would be due, and it comes back from there.
    let before = a.last_event_id().to_owned();
    redis.publish("quotes", quote("b", 30.0)).await;
    let moved = a.next().await;
    assert_eq!((&*moved.event, &*moved.data), ("stream.position", "{}"));
    assert_ne!(moved.id, before);
    assert_eq!(b.next_data(1).await, [quote("b", 30.0)]);
    assert_eq!(moved.id, b.last_event_id(), "ids are those of the log");
    a.cut();
    for (symbol, price) in [("a", 2.0), ("b", 40.0)] {
        redis.publish("quotes", quote(symbol, price)).await;
    }
    assert_eq!(b.next_data(1).await, [quote("b", 40.0)]);
    a.reconnect().await;
    assert_eq!(a.next_data(1).await, [quote("a", 2.0)]);
    assert!(a.events().iter().all(|event| event.event != "stream.gap"));

    // Of what a filter cannot tell each stream is counted once.
    for _ in 0..5 {
        redis.publish("quotes", "{}").await;
    }
    withheld(&ssegate, "/quotes", 7.0 + 1.0 + 2.0 + 10.0).await;
    let metrics = ssegate.metrics().await;
    let sum = |name: &str| metrics.sum(name, &[]);
    assert_eq!(sum("ssegate_streams_filter_undecided_total"), 2.0);
    assert_eq!((sum("ssegate_filter_undecided_total"), sum("ssegate_source_gaps_total")), (0.0, 0.0));
    let said = |line: &&Value| line["message"] == "a filter cannot tell of an event for a client";
    assert_eq!(ssegate.log().iter().filter(said).count(), 1, "the next line is due in a minute");

    // Of several feeds it is said which one has the filter.
    let url = ssegate.url("/all?feed=/news&feed=/quotes&symbol=a");
    let mut several = EventSource::connect(url, Options::http1()).await;
    until_placed(&mut several, 2).await;
    redis.publish("quotes", "{}").await;
    let line = ssegate.wait_log("the feed", |line| said(&line) && line["route"] == "/all").await;
    assert_eq!(line["feed"], "/quotes");
}

#[tokio::test]
async fn history_is_filtered_as_what_is_live() {
    let (kafka, topic) = (Kafka::shared().await, unique("filters"));
    kafka.create_topic(&topic, 2).await;
    let symbol = |n: i32| ["a", "b", "c"][n as usize % 3];
    let payload = |n: i32| json!({ "symbol": symbol(n), "n": n, "rest": "x".repeat(50) }).to_string();
    let record = |n: i32| Record::to(&topic).partition(n % 2).payload(payload(n));
    kafka.produce_all((0..3_000).map(record)).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{}"] }} }} }}
routes:
  - path: /all
    from: {{ upstream: bus, topic: {topic}, start: earliest }}
    filter: event.n % 2 == 0 && event.symbol == query.symbol
    history: {{ events: 10 }}
    buffer: 64KiB
    keepalive: 1s
"#,
        kafka.bootstrap()
    ))
    .await;
    for (name, options) in [("a", Options::http1()), ("b", Options::http2())] {
        let mut stream = EventSource::connect(ssegate.url(&format!("/all?symbol={name}")), options).await;
        let mut seen = Vec::new();
        while seen.len() < 500 {
            if seen.len() == 200 {
                stream.cut();
                stream.reconnect().await;
            }
            let event: Value = serde_json::from_str(&stream.next_message().await.data).unwrap();
            assert_eq!(event["symbol"], name);
            seen.push(event["n"].as_i64().unwrap() as i32);
        }
        seen.sort_unstable();
        let expected = (0..3_000).filter(|&n| n % 2 == 0 && symbol(n) == name);
        assert!(seen.into_iter().eq(expected), "each once");
        assert!(stream.events().iter().all(|event| event.event != "stream.gap"));
        stream.close();
    }
    // Nothing of it is for this one, which is told where it stands all the same.
    let mut none = EventSource::connect(ssegate.url("/all?symbol=z"), Options::http1()).await;
    let start = none.next_named("stream.position").await.id;
    kafka.produce_all((3_000..3_010).map(record)).await;
    let moved = none.next().await;
    assert_eq!(moved.event, "stream.position");
    assert_ne!(moved.id, start);
}

fn bearing(claims: Value) -> Options {
    Options::http1().header("authorization", &format!("Bearer {}", hs256(SECRET, claims)))
}

async fn renew(ssegate: &Ssegate, link: &str, claims: Value) -> Reply {
    let bearer = format!("Bearer {}", hs256(SECRET, claims));
    let headers = [("authorization", &*bearer)];
    request(Method::POST, &ssegate.url(link), &headers, "", &Connect::http1()).await
}

#[tokio::test]
async fn a_client_is_given_what_its_credential_lets_it_see() {
    let ssegate = Ssegate::start(format!(
        r#"
auth: {{ users: {{ jwt: {{ secret: "{SECRET}" }} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /offers
    from: {{ upstream: lobby, channel: offers }}
    auth: users
    filter: event.region in claims.regions
    expiring: 1h
    retry: 100ms
"#
    ))
    .await;
    let claims = |regions: &[&str]| json!({ "sub": "alice", "exp": now() + 300, "regions": regions });
    let mut eu = EventSource::connect(ssegate.url("/offers"), bearing(claims(&["eu"]))).await;
    let mut both = EventSource::connect(ssegate.url("/offers"), bearing(claims(&["us", "eu"]))).await;
    both.next_named("stream.position").await;
    let notice: Value = serde_json::from_str(&eu.next_named("stream.expiring").await.data).unwrap();
    let offer = |region: &str| json!({ "region": region }).to_string();
    for region in ["us", "eu", "jp"] {
        ssegate.publish("offers", offer(region)).await;
    }
    for region in ["us", "eu"] {
        assert_eq!(both.next_named("message").await.data, offer(region));
    }
    assert_eq!(eu.next_named("message").await.data, offer("eu"));

    let none = bearing(json!({ "sub": "alice" }));
    assert_eq!(EventSource::request(ssegate.url("/offers"), none).await.status(), 403);

    // Renewed with the same claims it goes on, and with others it ends, so that its client comes back with those.
    let link = notice["renew"].as_str().unwrap();
    assert_eq!(renew(&ssegate, link, claims(&["eu"])).await.status, 200);
    ssegate.publish("offers", offer("eu")).await;
    assert_eq!(eu.next_named("message").await.data, offer("eu"));
    assert_eq!(renew(&ssegate, link, claims(&["jp"])).await.status, 200);
    assert_eq!(eu.until_end().await, End::Complete);
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", "claims")], 1.0).await;
    let id = eu.last_event_id().to_owned();
    for region in ["us", "jp"] {
        ssegate.publish("offers", offer(region)).await;
    }
    let mut jp = EventSource::connect(ssegate.url("/offers"), bearing(claims(&["jp"])).resume(&id)).await;
    assert_eq!(jp.next_named("message").await.data, offer("jp"));
    for region in ["eu", "us"] {
        assert_eq!(both.next_named("message").await.data, offer(region), "nobody else has noticed");
    }
}

const QUOTES: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - path: /quotes
    from: { upstream: lobby, channel: quotes }
    filter: event.symbol == query.symbol && (!has(query.min) || event.price >= double(query.min))
  - { path: /odd, from: { upstream: lobby, channel: quotes }, filter: "event.symbol == query['a b%&=é']" }
  - { path: /e, from: { upstream: lobby, channel: e } }
  - { path: /other, from: { upstream: lobby, channel: other } }
"#;

#[tokio::test]
async fn lines_and_pages_are_filtered_and_a_page_goes_on_behind_what_is_not_for_its_client() {
    let ssegate = Ssegate::start(QUOTES).await;
    let url = ssegate.url("/quotes?symbol=b");
    let mut lines = Lines::open(&url, &[("accept", NDJSON)], &Connect::http2()).await;
    lines.next_named("stream.position").await;
    let first = page(&ssegate, "/quotes?symbol=a").await.json();
    assert_eq!(first["events"], json!([]));
    let next = |page: &Value| format!("/quotes?symbol=a&lastEventId={}", page["next"].as_str().unwrap());
    for symbol in ["a", "b", "a", "b", "b"] {
        ssegate.publish("quotes", quote(symbol, 1.0)).await;
    }
    for _ in 0..3 {
        assert_eq!(lines.next().await["data"]["symbol"], "b");
    }
    let two = page_of(&ssegate, &next(&first), 2).await;
    assert!(data(&two).iter().all(|data| data["symbol"] == "a"));
    assert_ne!(two["next"], two["events"][1]["id"], "it has looked at what is behind");
    let one = page_of(&ssegate, &format!("{}&limit=1", next(&first)), 1).await;
    assert_eq!(one["next"], one["events"][0]["id"]);
    let none = page(&ssegate, &next(&two)).await.json();
    assert_eq!(none, json!({ "events": [], "next": two["next"], "gaps": [] }));
    ssegate.publish("quotes", quote("a", 2.0)).await;
    assert_eq!(data(&page_of(&ssegate, &next(&none), 1).await), [&json!({ "symbol": "a", "price": 2.0 })]);

    for path in ["/quotes", "/quotes?symbol=a&min=much"] {
        let reply = page(&ssegate, path).await;
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(reply.json()["type"], "urn:ssegate:problem:bad-parameter");
        for (method, path) in [(Method::HEAD, path.to_owned()), (Method::GET, probe(path))] {
            let reply = request(method, &ssegate.url(&path), &[], "", &Connect::http1()).await;
            assert_eq!(reply.status, 400, "{path}: as a stream would be answered");
        }
    }
    assert!(said_why(&ssegate), "and the operator is told");
    // What was withheld of four pages and two streams.
    assert!(ssegate.metrics().await.sum("ssegate_events_withheld_total", &[]) > 5.0);
}

fn probe(path: &str) -> String {
    format!("{path}{}probe", if path.contains('?') { '&' } else { '?' })
}

fn said_why(ssegate: &Ssegate) -> bool {
    let told = "a client brings what no event can pass the filter with";
    ssegate.log().iter().any(|line| line["message"] == told && line["why"].is_string())
}

#[tokio::test]
async fn whatever_a_query_holds_it_harms_nobody() {
    let ssegate = Ssegate::start(QUOTES).await;
    let witness = Witness::of(&ssegate, "/e", "e").await;
    let long = |length: usize| "x".repeat(length);
    let many = "p=1&".repeat(3_000);
    for (query, status) in [
        (String::new(), 400),
        ("symbol".into(), 200),
        ("Symbol=a".into(), 400),
        (format!("symbol={}", long(4_096)), 200),
        (format!("symbol={}", long(4_097)), 400),
        (format!("symbol=a&min={}", "1".repeat(300)), 200),
        (format!("symbol=a&min={}", "1".repeat(4_000)), 400),
        (format!("symbol=a&unnamed={}", long(9_000)), 200),
        (format!("{many}symbol=a"), 200),
        ("symbol=%00%0a%ff%&min=%31e2".into(), 200),
        ("symbol=a&min=NaN".into(), 400),
        ("symbol=a&min=1;drop".into(), 400),
        ("symbol=a&min=".into(), 400),
        ("symbol=a&min=1&min=much".into(), 200),
        ("&&=&%=%&symbol=a&symbol[]=b".into(), 200),
        (format!("symbol={}", long(60_000)), 400),
    ] {
        for connect in [Connect::http1(), Connect::http2()] {
            let options = Options::default().connect(connect);
            let url = ssegate.url(&format!("/quotes?{query}"));
            let mut stream = EventSource::request(url, options).await;
            assert_eq!(stream.status(), status, "{query:.60}");
            if status == 200 {
                stream.next_named("stream.position").await;
            }
        }
    }
    let mut odd = open(&ssegate, "/odd?a+b%25%26%3D%C3%A9=%E2%82%AC", Options::http2()).await;
    ssegate.publish("quotes", quote("€", 1.0)).await;
    assert_eq!(odd.next_message().await.data, quote("€", 1.0));
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn a_snapshot_holds_what_is_for_its_client() {
    let (kafka, topic) = (Kafka::shared().await, unique("filters"));
    kafka.create_topic(&topic, 1).await;
    let record = |key: &str, symbol: &str| Record::to(&topic).key(key).payload(quote(symbol, 1.0));
    let keys: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    let symbol = |at: usize| ["a", "b"][at % 2];
    kafka.produce_all(keys.iter().enumerate().map(|(at, key)| record(key, symbol(at)))).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{}"] }} }} }}
routes:
  - {{ path: /state, from: {{ upstream: bus, topic: {topic} }}, snapshot: true, filter: event.symbol == query.symbol }}
"#,
        kafka.bootstrap()
    ))
    .await;
    for (name, options) in [("a", Options::http1()), ("b", Options::http2()), ("z", Options::http2())] {
        let url = ssegate.url(&format!("/state?symbol={name}"));
        let mut stream = EventSource::connect(url, options).await;
        stream.next_named("stream.snapshot-end").await;
        let position = stream.next_named("stream.position").await;
        let given: Vec<_> = stream.events().iter().filter(|event| event.event == "message").collect();
        assert_eq!(given.len(), if name == "z" { 0 } else { 500 });
        assert!(given.iter().all(|event| event.data == quote(name, 1.0)));
        let [for_others, for_it] = ["others", "its"].map(|whose| format!("{whose} {name}"));
        kafka.produce_all([record(&for_others, "q"), record(&for_it, name)]).await;
        let change = stream.next_message().await;
        assert_eq!(change.data, quote(name, 1.0));
        assert_ne!(change.id, position.id);
    }
}

#[tokio::test]
async fn a_snapshot_of_one_key_is_for_whom_it_is() {
    let kafka = Kafka::shared().await;
    if kafka.is_mock() {
        eprintln!("skipped on the mock cluster: it tells no offsets by time");
        return;
    }
    let topic = unique("filters");
    kafka.create_topic(&topic, 1).await;
    let record = |key: &str, symbol: &str| Record::to(&topic).key(key).payload(quote(symbol, 1.0));
    kafka.produce_all([record("x", "a"), record("x", "b"), record("y", "a")]).await;
    let ssegate = Ssegate::start(format!(
        r#"
defaults: {{ retry: 100ms }}
upstreams: {{ bus: {{ kafka: {{ brokers: ["{}"] }} }} }}
routes:
  - path: "/state/{{id}}"
    from: {{ upstream: bus, topic: {topic}, key: "{{id}}", partitioner: crc32 }}
    snapshot: true
    filter: event.symbol == query.symbol
"#,
        kafka.bootstrap()
    ))
    .await;
    for (key, symbol, is_given) in [("x", "b", true), ("x", "a", false), ("y", "a", true), ("z", "a", false)]
    {
        let url = ssegate.url(&format!("/state/{key}?symbol={symbol}"));
        let mut stream = EventSource::connect(url, Options::http1()).await;
        stream.next_named("stream.snapshot-end").await;
        let position = stream.next_named("stream.position").await;
        let given = stream.events().iter().filter(|event| event.event == "message");
        let expected = is_given.then(|| quote(symbol, 1.0));
        assert!(given.map(|event| &event.data).eq(&expected), "{key} for {symbol}: {stream}");
        kafka.produce_all([record(key, "q"), record("w", symbol), record(key, symbol)]).await;
        let change = stream.next_message().await;
        assert_eq!(change.data, quote(symbol, 1.0));
        // What came of it before that was for nobody, and what came of another key for others.
        stream.cut();
        kafka.produce_all([record(key, "q"), record(key, symbol)]).await;
        stream.reconnect().await;
        assert_eq!(stream.next_message().await.data, quote(symbol, 1.0));
        assert_ne!(stream.last_event_id(), position.id);
        let given = stream.events().iter().filter(|event| event.event == "message").count();
        assert_eq!(given, 2 + usize::from(is_given), "{key} for {symbol}: {stream}");
    }
}

/// How much of what it missed was for it nobody knows.
#[tokio::test]
async fn a_client_that_fell_behind_is_told_so_and_goes_on_with_what_is_for_it() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
defaults: { history: { events: 10, bytes: 256KiB }, buffer: 256KiB }
routes: [ { path: /quotes, from: { upstream: lobby, channel: quotes }, filter: event.symbol == query.symbol } ]
"#,
    )
    .await;
    let connect = Connect { receive_buffer: Some(4096), ..Connect::http1() };
    let mut slow = open(&ssegate, "/quotes?symbol=a", Options::http1().connect(connect)).await;
    let (published, pad) = (400, "x".repeat(16 * 1024));
    for n in 0..published {
        let symbol = ["a", "b"][n % 2];
        ssegate.publish("quotes", json!({ "symbol": symbol, "n": n, "pad": pad }).to_string()).await;
    }
    // Of a source that numbers from one a position says how many came before.
    let (mut next, mut gaps) = (0, 0);
    while next < published - 1 {
        let event = slow.next().await;
        let data: Value = serde_json::from_str(&event.data).unwrap();
        let number = |name: &str| data[name].as_u64().unwrap() as usize;
        match &*event.event {
            "message" => {
                assert_eq!((&data["symbol"], number("n")), (&json!("a"), next.next_multiple_of(2)));
                next = number("n") + 1;
            }
            "stream.gap" => {
                assert_eq!((&data["reason"], &data["missed"]), (&json!("lagged"), &json!(null)));
                assert!((next..=next + 1).contains(&number("from")), "{next}: {data}");
                next = number("to");
                gaps += 1;
            }
            other => assert_eq!(other, "stream.position"),
        }
    }
    assert!(gaps > 0, "it was to fall behind");
    let counted = ssegate.metrics().await.sum("ssegate_client_gaps_total", &[("reason", "lagged")]);
    assert_eq!(counted, f64::from(gaps));
}

/// Of a route of several sources each is filtered, and of several feeds on one connection each as its own route has it.
#[tokio::test]
async fn each_of_several_feeds_is_filtered() {
    let ssegate = Ssegate::start(format!(
        r#"
auth: {{ users: {{ jwt: {{ secret: "{SECRET}" }} }} }}
defaults: {{ expiring: 1h, retry: 100ms }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /quotes
    from: [{{ upstream: lobby, channel: east }}, {{ upstream: lobby, channel: west }}]
    filter: event.symbol == query.symbol
  - {{ path: /offers, from: {{ upstream: lobby, channel: offers }}, auth: users, filter: event.region in claims.regions }}
  - {{ path: /news, from: {{ upstream: lobby, channel: news }} }}
  - {{ path: /all, multi: {{ of: [/quotes, /offers, /news] }} }}
"#
    ))
    .await;
    let claims = |regions: &[&str]| json!({ "sub": "alice", "exp": now() + 300, "regions": regions });
    let feeds = "/all?feed=/quotes&feed=/offers&feed=/news";
    let path = ssegate.url(&format!("{feeds}&symbol=a"));
    let mut all = EventSource::connect(path.clone(), bearing(claims(&["eu"]))).await;
    let notice: Value = serde_json::from_str(&all.next_named("stream.expiring").await.data).unwrap();
    until_placed(&mut all, 3).await;
    let offer = |region: &str| json!({ "region": region }).to_string();
    let told = async |all: &mut EventSource, feed: &str, data: String| {
        assert_eq!(all.next_named(feed).await.data, data);
    };
    for channel in ["east", "west"] {
        ssegate.publish(channel, quote("b", 1.0)).await;
        ssegate.publish(channel, quote("a", 2.0)).await;
        told(&mut all, "/quotes", quote("a", 2.0)).await;
    }
    for region in ["us", "eu"] {
        ssegate.publish("offers", offer(region)).await;
    }
    told(&mut all, "/offers", offer("eu")).await;
    ssegate.publish("news", "x").await;
    told(&mut all, "/news", "x".into()).await;
    withheld(&ssegate, "/all", 3.0).await;

    // What is missed meanwhile is filtered as well.
    all.cut();
    for (channel, symbol) in [("west", "b"), ("west", "a"), ("east", "b")] {
        ssegate.publish(channel, quote(symbol, 3.0)).await;
    }
    ssegate.publish("offers", offer("us")).await;
    all.reconnect().await;
    let link = notice["renew"].as_str().unwrap();
    let late = renew(&ssegate, link, claims(&["us"])).await.status;
    assert_eq!(late, 404, "the stream that it was for is gone");
    let notice: Value = serde_json::from_str(&all.next_named("stream.expiring").await.data).unwrap();
    told(&mut all, "/quotes", quote("a", 3.0)).await;

    // A renewal with other claims ends it, as it does a stream of that feed alone.
    let link = notice["renew"].as_str().unwrap();
    assert_eq!(renew(&ssegate, link, claims(&["eu"])).await.status, 200);
    assert_eq!(renew(&ssegate, link, claims(&["us"])).await.status, 200);
    assert_eq!(all.until_end().await, End::Complete);
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", "claims")], 1.0).await;

    // A feed whose filter takes what is not there is refused, and the others are given.
    let mut less = EventSource::connect(ssegate.url(feeds), bearing(claims(&["eu"]))).await;
    let refused: Value = serde_json::from_str(&less.next_named("stream.refused").await.data).unwrap();
    assert_eq!((&refused["feed"], &refused["status"]), (&json!("/quotes"), &json!(400)), "{refused}");
    until_placed(&mut less, 2).await;
    ssegate.publish("news", "y").await;
    told(&mut less, "/news", "y".into()).await;
}

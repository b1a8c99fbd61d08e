//! Several feeds on one connection: which feed an event is of, the id that resumes all of them, and what is answered to whom.

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::negotiation::Lines;
use crate::support::command::{Running, run};
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::{eventually, within};
use crate::support::witness::Witness;
use crate::tls::pair;

pub const PUSH: &str = r#"
defaults: { retry: 100ms }
upstreams: { lobby: { push: {} } }
routes:
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "{room}" }, params: { room: "[a-z0-9/ ]+" } }
  - { path: /news, from: { upstream: lobby, channel: news }, event: news }
  - { path: /short, from: { upstream: lobby, channel: short }, history: { events: 2 } }
  - { path: /over, from: { upstream: lobby, channel: over }, ended: true }
  - { path: /alone, from: { upstream: lobby, channel: alone } }
  - { path: /all, multi: { of: ["/rooms/{room}", /news, /short, /over], max: 5 } }
"#;

/// The same, where streams that have to end do so soon.
fn brief(config: &str) -> String {
    let tls = pair(TestCa::shared().leaf());
    format!("server: {{ listen: \"127.0.0.1:0\", tls: {{ {tls} }}, drain: 500ms }}\n{config}")
}

/// Reads on until the stream's id knows so many feeds.
pub async fn until_placed(stream: &mut EventSource, feeds: usize) {
    while stream.last_event_id().matches('~').count() < feeds {
        stream.next_named("stream.position").await;
    }
}

/// Waits until the only stream of the route reads so many feeds, of which it has begun each and given all.
pub async fn until_reading(ssegate: &Ssegate, route: &str, feeds: usize) {
    eventually(&format!("{route} to read {feeds} feeds"), async || {
        let clients =
            ssegate.admin_get(&format!("/status/clients?route={route}")).await.json()["clients"].clone();
        let is_it = |client: &Value| client["feeds"] == feeds && client["behind"] == 0;
        match clients.as_array() {
            Some(all) if all.len() == 1 && is_it(&all[0]) => Ok(()),
            _ => Err(clients),
        }
    })
    .await;
}

/// Opens a stream of these feeds, and waits for their places.
async fn open(ssegate: &Ssegate, feeds: &[&str], options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(&all_of(feeds)), options).await;
    until_placed(&mut stream, feeds.len()).await;
    stream
}

fn all_of(feeds: &[&str]) -> String {
    format!("/all?{}", feeds.iter().map(|feed| format!("feed={feed}")).collect::<Vec<_>>().join("&"))
}

/// Name and data of the next event that is no position.
async fn next(stream: &mut EventSource) -> (String, String) {
    let event = stream.next_message().await;
    assert!(event.id.starts_with("m1~"), "{event:?}");
    (event.event, event.data)
}

fn of(name: &str, data: impl ToString) -> (String, String) {
    (name.to_owned(), data.to_string())
}

async fn ask(ssegate: &Ssegate, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(method, &ssegate.url(path), headers, "", &Connect::http1()).await
}

#[tokio::test]
async fn names_tell_the_feed_and_one_id_resumes_all_of_them() {
    let ssegate = Ssegate::start(PUSH).await;
    for options in [Options::http1(), Options::http2()] {
        let mut stream = open(&ssegate, &["/rooms/a", "/news"], options).await;
        ssegate.publish("a", "1").await;
        assert_eq!(next(&mut stream).await, of("/rooms/a", 1));
        ssegate.publish("news", "2").await;
        assert_eq!(next(&mut stream).await, of("/news news", 2));
        ssegate.publish("a?event=sale", "3").await;
        assert_eq!(next(&mut stream).await, of("/rooms/a sale", 3));
        ssegate.publish("b", "of another room").await;

        stream.cut();
        for n in 4..8 {
            ssegate.publish(if n % 2 == 0 { "a" } else { "news" }, n.to_string()).await;
        }
        stream.reconnect().await;
        let mut told = Vec::new();
        for _ in 4..8 {
            told.push(next(&mut stream).await);
        }
        told.sort_by_key(|(_, data)| data.clone());
        let expected = [of("/rooms/a", 4), of("/news news", 5), of("/rooms/a", 6), of("/news news", 7)];
        assert_eq!(told, expected);

        // One goes, one stays and one comes: that one begins with what comes next, and there is no gap.
        stream.cut();
        for channel in ["a", "news", "c"] {
            ssegate.publish(channel, "8").await;
        }
        stream.move_to(ssegate.url(&all_of(&["/rooms/c", "/news"])));
        stream.reconnect().await;
        assert_eq!(next(&mut stream).await, of("/news news", 8));
        until_reading(&ssegate, "/all", 2).await;
        ssegate.publish("c", "9").await;
        assert_eq!(next(&mut stream).await, of("/rooms/c", 9));
        stream.close();
    }
    let delivered = ssegate.metrics().await.sum("ssegate_events_out_total", &[("route", "/all")]);
    assert!(delivered >= 2.0 * 9.0, "{delivered}");
}

/// Channels whose ids are of one process, and a topic; clients that are cut, that stay away while events come, and that ask
/// for another room each time.
#[tokio::test]
async fn channels_and_a_topic_are_resumed_exactly_after_cuts() {
    let (redis, kafka, topic) = (Redis::start().await, Kafka::shared().await, unique("several"));
    kafka.create_topic(&topic, 1).await;
    let ssegate = Ssegate::start(format!(
        r#"
defaults: {{ retry: 100ms }}
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }}, bus: {{ kafka: {{ brokers: "{}" }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: cache, channel: "{{room}}" }} }}
  - {{ path: /orders, from: {{ upstream: bus, topic: {topic} }} }}
  - {{ path: /all, multi: {{ of: ["/rooms/{{room}}", /orders], max: 10 }} }}
"#,
        redis.url(),
        kafka.bootstrap()
    ))
    .await;
    let always = ["/rooms/a", "/rooms/b", "/orders"];
    let mut stream = open(&ssegate, &always, Options::http2()).await;
    let mut published = 0;
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..6 {
        let publish = async |numbers: std::ops::Range<usize>| {
            for n in numbers {
                redis.publish("a", &n.to_string()).await;
                redis.publish("b", &n.to_string()).await;
                kafka.produce(Record::to(&topic).payload(n.to_string())).await;
            }
        };
        publish(published..published + 5).await;
        // Not all of it is read before the cut.
        for _ in 0..=round {
            take(&mut stream, always, &mut seen).await;
        }
        stream.cut();
        publish(published + 5..published + 10).await;
        published += 10;
        let other = format!("/rooms/c{round}");
        stream.move_to(ssegate.url(&all_of(&[always[1], always[2], &other, always[0]])));
        stream.reconnect().await;
    }
    while seen.iter().any(|seen| seen.len() < published) {
        take(&mut stream, always, &mut seen).await;
    }
    for (feed, seen) in always.into_iter().zip(seen) {
        assert_eq!(seen, (0..published).map(|n| n.to_string()).collect::<Vec<_>>(), "{feed}");
    }
}

/// Notes the next event with those of its feed.
async fn take(stream: &mut EventSource, feeds: [&str; 3], seen: &mut [Vec<String>; 3]) {
    let (feed, data) = next(stream).await;
    let at = feeds.iter().position(|known| *known == feed).unwrap_or_else(|| panic!("{feed}: {data}"));
    seen[at].push(data);
}

#[tokio::test]
async fn an_envelope_tells_the_feed_within() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "{room}" }, wrap: envelope }
  - { path: /all, multi: { of: "/rooms/{room}", tell: envelope } }
"#,
    )
    .await;
    let mut stream = open(&ssegate, &["/rooms/a", "/rooms/b"], Options::http1()).await;
    for (channel, payload, data, feed, event) in [
        ("a", "1", json!(1), "/rooms/a", json!(null)),
        ("b?event=sale", "\"x\"", json!("x"), "/rooms/b", json!("sale")),
    ] {
        ssegate.publish(channel, payload).await;
        let (name, told) = next(&mut stream).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&*name, &told["feed"], &told["event"]), ("message", &json!(feed), &event));
        assert_eq!(told["data"], data);
    }
}

#[tokio::test]
async fn what_one_feed_misses_is_told_of_that_feed_alone() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut stream = open(&ssegate, &["/short", "/news"], Options::http1()).await;
    stream.cut();
    let free = async || match ssegate.status().await["subscribers"].as_u64() {
        Some(0) => Ok(()),
        n => Err(format!("{n:?}")),
    };
    eventually("the client to be gone", free).await;
    for n in 0..5 {
        ssegate.publish("short", n.to_string()).await;
        ssegate.publish("news", n.to_string()).await;
    }
    stream.reconnect().await;
    let mut told = Vec::new();
    while told.len() < 8 {
        let event = stream.next().await;
        match event.event.as_str() {
            "stream.position" => {}
            "stream.gap" => {
                let gap: Value = serde_json::from_str(&event.data).unwrap();
                assert_eq!(
                    (&gap["reason"], &gap["missed"], &gap["feed"]),
                    (&json!("evicted"), &json!(3), &json!("/short"))
                );
                told.push(of("gap", ""));
            }
            _ => told.push((event.event, event.data)),
        }
    }
    let of_feed =
        |name: &str| told.iter().filter(|told| told.0 == name).map(|told| told.1.clone()).collect::<Vec<_>>();
    assert_eq!(of_feed("/short"), ["3", "4"]);
    assert_eq!(of_feed("/news news"), ["0", "1", "2", "3", "4"]);
    assert!(told.iter().position(|told| told.0 == "gap") < told.iter().position(|told| told.0 == "/short"));

    let mut foreign =
        EventSource::connect(ssegate.url(&all_of(&["/short", "/news"])), Options::http1().resume("0-1"))
            .await;
    let mut feeds = [foreign.next_gap().await, foreign.next_gap().await].map(|gap| {
        assert_eq!(gap["reason"], "unknown_id");
        gap["feed"].as_str().unwrap().to_owned()
    });
    feeds.sort();
    assert_eq!(feeds, ["/news", "/short"]);
}

/// The `stream.refused` events that a stream begins with, as feed, status and the last part of the type.
pub async fn refused(stream: &mut EventSource, count: usize) -> Vec<(String, u64, String)> {
    let mut refused = Vec::new();
    while refused.len() < count {
        let event = stream.next().await;
        if event.event == "stream.expiring" {
            continue;
        }
        assert_eq!(event.event, "stream.refused", "they are told before all else: {stream}");
        let data: Value = serde_json::from_str(&event.data).unwrap();
        let kind = data["type"].as_str().unwrap().strip_prefix("urn:ssegate:problem:").unwrap();
        assert!(!data["detail"].as_str().unwrap().is_empty());
        let feed = data["feed"].as_str().unwrap();
        refused.push((feed.to_owned(), data["status"].as_u64().unwrap(), kind.to_owned()));
    }
    refused
}

#[tokio::test]
async fn a_feed_that_is_not_there_is_refused_and_the_others_are_given() {
    let ssegate = Ssegate::start(PUSH).await;
    for (feed, label, status, kind) in [
        ("/nowhere", "/nowhere", 404, "no-route"),
        ("/alone", "/alone", 404, "no-route"),
        ("/all", "/all", 404, "no-route"),
        ("/rooms/UPPER", "/rooms/UPPER", 404, "no-route"),
        ("/rooms/a%2Fb", "/rooms/a/b", 404, "no-route"),
        ("/rooms/%2500", "/rooms/%00", 400, "bad-parameter"),
        ("/over", "/over", 204, "over"),
        ("/news%3Fx%3D1", "/news?x=1", 400, "bad-request"),
        ("/rooms/../news", "/rooms/../news", 400, "bad-request"),
        ("/rooms/%2e%2E/news", "/rooms/../news", 400, "bad-request"),
        ("//evil.example/news", "//evil.example/news", 400, "bad-request"),
        ("https://localhost/news", "https://localhost/news", 400, "bad-request"),
        ("/rooms/%C3%A9", "/rooms/é", 400, "bad-request"),
        ("/rooms/a+b", "/rooms/a b", 400, "bad-request"),
        ("/a%0Aid:%207", "/a\nid: 7", 400, "bad-request"),
        ("", "", 400, "bad-request"),
    ] {
        let mut stream = EventSource::connect(ssegate.url(&all_of(&["/news", feed])), Options::http1()).await;
        assert_eq!(refused(&mut stream, 1).await, [(label.to_owned(), status, kind.to_owned())], "{feed}");
        until_placed(&mut stream, 1).await;
        ssegate.publish("news", "x").await;
        assert_eq!(next(&mut stream).await, of("/news news", "x"));
    }
    // The same in another spelling is no other feed.
    let twice = all_of(&["/rooms/a", "/rooms/%2561"]);
    let mut stream = EventSource::connect(ssegate.url(&twice), Options::http1()).await;
    assert_eq!(refused(&mut stream, 1).await, [("/rooms/%61".to_owned(), 400, "bad-request".to_owned())]);
    until_placed(&mut stream, 1).await;
    // What stands encoded in a path stands twice encoded in the query.
    let mut stream = open(&ssegate, &["/rooms/a%2520b"], Options::http1()).await;
    ssegate.publish("a%20b", "x").await;
    assert_eq!(next(&mut stream).await, of("/rooms/a%20b", "x"));
}

#[tokio::test]
async fn where_all_are_refused_that_is_the_answer() {
    let ssegate = Ssegate::start(PUSH).await;
    for (feeds, status, kind) in [
        (&["/nowhere", "/over"][..], 404, "no-route"),
        (&["/rooms/%2500"], 400, "bad-parameter"),
        (&["a"], 400, "bad-request"),
    ] {
        let answer = ask(&ssegate, Method::GET, &all_of(feeds), &[("accept", "text/event-stream")]).await;
        assert_eq!(answer.status, status, "{feeds:?}");
        assert_eq!(answer.json()["type"], format!("urn:ssegate:problem:{kind}"));
    }
    assert_eq!(ask(&ssegate, Method::GET, &all_of(&["/over", "/over"]), &[]).await.status, 204);
}

#[tokio::test]
async fn requests_that_name_no_feeds_or_want_what_only_one_has_are_told_so() {
    let ssegate = Ssegate::start(PUSH).await;
    let six: Vec<_> = ('a'..='f').map(|room| format!("/rooms/{room}")).collect();
    let six = all_of(&six.iter().map(String::as_str).collect::<Vec<_>>());
    let same = all_of(&["/news"; 50]);
    let json = ("accept", "application/json");
    for (method, path, headers, status) in [
        (Method::GET, "/all", &[][..], 400),
        (Method::GET, "/all?feeds=/news", &[], 400),
        (Method::GET, &*six, &[], 400),
        (Method::GET, "/all?feed=/news&since=yesterday", &[], 400),
        (Method::GET, "/all?feed=/news", &[json], 406),
        (Method::GET, "/all?feed=/news&probe", &[], 406),
        (Method::GET, "/all?feed=/news", &[("accept", "text/html")], 406),
        (Method::POST, "/all?feed=/news", &[], 405),
        (Method::OPTIONS, "/all", &[], 204),
        (Method::HEAD, "/all", &[], 400),
        (Method::HEAD, "/all?feed=/nowhere", &[], 404),
        (Method::HEAD, "/all?feed=/news&feed=/nowhere", &[], 200),
    ] {
        let answer = ask(&ssegate, method.clone(), path, headers).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if status >= 400 && method == Method::GET {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(answer.json()["detail"].as_str().unwrap().len() > 20, "{}", answer.text());
        }
        if matches!(method, Method::GET | Method::HEAD) {
            assert_eq!(answer.header("vary"), "accept", "{method} {path}");
        }
    }
    // The same feed again is no other one, and who likes a page best takes a stream if it may be anything.
    let options = Options::http1().header("accept", "application/json, */*");
    let mut stream = EventSource::connect(ssegate.url(&same), options).await;
    until_placed(&mut stream, 1).await;
    assert_eq!(stream.last_event_id().matches('~').count(), 1);
}

#[tokio::test]
async fn lines_of_json_say_what_the_stream_says() {
    let ssegate = Ssegate::start(PUSH).await;
    let url = ssegate.url(&all_of(&["/news", "/nowhere"]));
    for connect in [Connect::http1(), Connect::http2()] {
        let mut lines = Lines::open(&url, &[("accept", "application/x-ndjson")], &connect).await;
        assert_eq!(lines.next().await["event"], "stream.retry");
        let refused = lines.next().await;
        assert_eq!(
            (&refused["event"], &refused["data"]["feed"]),
            (&json!("stream.refused"), &json!("/nowhere"))
        );
        assert_eq!(lines.next().await["event"], "stream.position");
        ssegate.publish("news", r#"{"a":1}"#).await;
        let event = lines.next().await;
        assert_eq!((&event["event"], &event["data"]), (&json!("/news news"), &json!({ "a": 1 })));
        assert!(event["id"].as_str().unwrap().starts_with("m1~"));
    }
}

#[tokio::test]
async fn it_is_a_route_of_its_own_to_operators() {
    let ssegate = Ssegate::start(format!("log: {{ format: json, access: true }}\n{PUSH}")).await;
    let _stream = open(&ssegate, &["/news", "/rooms/a"], Options::http1()).await;
    let routes = ssegate.admin_get("/status/routes").await.json()["routes"].clone();
    let route = routes.as_array().unwrap().iter().find(|route| route["route"] == "/all").unwrap().clone();
    assert_eq!(route["multi"], json!({ "of": ["/rooms/{room}", "/news", "/short", "/over"], "max": 5 }));
    assert_eq!((&route["upstream"], &route["subscribers"]), (&json!("lobby"), &json!(1)));
    let news = routes.as_array().unwrap().iter().find(|route| route["route"] == "/news").unwrap();
    assert_eq!((&news["multi"], &news["subscribers"]), (&json!(null), &json!(0)));
    let line = ssegate.wait_log("the request", |line| line["uri"] == "/all?feed=/news&feed=/rooms/a").await;
    assert_eq!(line["status"], 200);

    let checked = Ssegate::builder().config(PUSH).check().await;
    let row = "  <-  feeds of /rooms/{room}, /news, /short, /over  5 at most, told by event";
    assert!(checked.stdout.contains(row), "{}", checked.stdout);
    let explained = run(&["explain", "routes.multi.of"]).await.stdout.join("\n");
    assert!(explained.contains("routes[].multi.of"), "{explained}");
}

#[tokio::test]
async fn tail_shows_each_feed_and_comes_back() {
    let ssegate = Ssegate::start(PUSH).await;
    let (ca, url) = (
        TestCa::shared().cert_path().display().to_string(),
        ssegate.url(&all_of(&["/news", "/rooms/a", "/no"])),
    );
    let tail = Running::start(&["tail", "--cacert", &ca, "--json", &url]);
    assert!(tail.told("stream.refused: ", 1).await.contains("\"feed\":\"/no\""));
    until_reading(&ssegate, "/all", 2).await;
    ssegate.publish("news", "1").await;
    tail.lines(2).await;
    let stream = ssegate.admin_get("/status/clients?route=/all").await.json()["clients"][0]["id"].clone();
    ssegate.admin(Method::DELETE, &format!("/clients/{stream}"), "").await;
    ssegate.publish("a", "2").await;
    tail.told("connected again", 1).await;
    ssegate.publish("news", "3").await;
    let events = async || {
        let lines = tail.lines(3).await;
        let events = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let events: Vec<_> =
            events.filter(|event| !event["event"].as_str().unwrap().starts_with("stream.")).collect();
        let told: Vec<_> =
            events.iter().map(|event| (event["event"].clone(), event["data"].clone())).collect();
        let expected = [("/news news", "1"), ("/rooms/a", "2"), ("/news news", "3")];
        let expected: Vec<_> = expected.iter().map(|(name, data)| (json!(name), json!(data))).collect();
        if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
    };
    eventually("all events", events).await;
}

#[tokio::test]
async fn queries_that_mean_harm_are_answered_and_cost_little() {
    let ssegate =
        Ssegate::start(format!("{PUSH}  - {{ path: /e, from: {{ upstream: lobby, channel: e }} }}\n")).await;
    let witness = Witness::of(&ssegate, "/e", "e").await;
    let thousand: String = (0..1_000).map(|n| format!("&feed=/rooms/{n}")).collect();
    let bad: String = (0..1_000).map(|n| format!("&feed={n}")).collect();
    let long = format!("&feed=/rooms/{}", "a".repeat(60_000));
    for connect in [Connect::http1(), Connect::http2()] {
        for (query, statuses) in [
            (&thousand, &[400][..]),
            (&bad, &[400]),
            (&long, &[400]),
            (&"&feed=/all%3Ffeed=/news".to_owned(), &[400]),
            (&"&feed=/all".to_owned(), &[404]),
            (&"&feed=%".to_owned(), &[400]),
            (&"&feed=%FF%FE".to_owned(), &[400]),
            (&"&feed=/rooms/%25ff".to_owned(), &[400]),
        ] {
            let url = ssegate.url(&format!("/all?x=1{query}"));
            let answer = request(Method::GET, &url, &[], "", &connect).await;
            assert!(statuses.contains(&answer.status.as_u16()), "{:.60}: {}", query, answer.status);
        }
    }
    // A line that is larger than any head may be.
    let plain = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{PUSH}")).await;
    let mut socket = TcpStream::connect(plain.addr()).await.unwrap();
    let feeds = "&feed=/rooms/a".repeat(100 * 1024 / 14);
    let _ =
        socket.write_all(format!("GET /all?{feeds} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within("an answer", socket.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer:?}");
    // Whatever an id says, it is answered with a stream.
    let (tag, many) = ("a".repeat(12), format!("m1{}", format!("~{}1", "b".repeat(12)).repeat(290)));
    for id in [
        "m1",
        "m1~",
        &format!("m1~{tag}"),
        &format!("m1~{tag}%"),
        &many,
        &format!("m1~{}", "x".repeat(60_000)),
    ] {
        let options = Options::http1().resume(id);
        let mut stream = EventSource::connect(ssegate.url("/all?feed=/news&feed=/rooms/a"), options).await;
        stream.next_named("stream.position").await;
    }
    assert!(witness.growth(&ssegate) < 32 << 20, "{}", witness.growth(&ssegate));
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn streams_end_where_one_of_their_routes_does_and_come_back() {
    let ssegate = Ssegate::start(brief(PUSH)).await;
    let mut streams = Vec::new();
    for options in [Options::http1(), Options::http2()] {
        streams.push(open(&ssegate, &["/news", "/rooms/a"], options).await);
    }
    // What others read is no matter of theirs, nor what more there is to ask for.
    let more = PUSH
        .replace("channel: alone", "channel: lonely")
        .replace("/over], max: 5", "/over, /alone], max: 6")
        .replace("params: { room: \"[a-z0-9/ ]+\" }", "params: { room: \"[a-z]+\" }");
    let changes = ssegate.reload(&brief(&more)).await;
    assert!(
        changes.iter().any(|change| change == "route /all: multi changed, for new requests"),
        "{changes:?}"
    );
    ssegate.publish("a", "still here").await;
    for stream in &mut streams {
        assert_eq!(next(stream).await, of("/rooms/a", "still here"));
    }
    // Another one reads something else, so that its feeds end, and with them the streams; these come back and go on in the rest.
    let other = more
        .replace("channel: \"{room}\"", "channel: \"room-{room}\"")
        .replace("/news, from", "/news, retry: 1s, from");
    let changes = ssegate.reload(&brief(&other)).await;
    assert!(
        changes.iter().any(|change| change == "route /all: reads something else; its streams end"),
        "{changes:?}"
    );
    ssegate.publish("news", "meanwhile").await;
    for stream in &mut streams {
        assert_eq!(stream.until_end().await, End::Complete);
        stream.reconnect().await;
        let gap = stream.next_gap().await;
        assert_eq!((&gap["reason"], &gap["feed"]), (&json!("unknown_id"), &json!("/rooms/a")));
    }
    ssegate
        .until_counted("ssegate_streams_ended_total", &[("reason", "reload"), ("route", "/all")], 2.0)
        .await;
    // Without the route of a feed, that is refused, and the others are given.
    let fewer: String = other
        .lines()
        .filter(|line| !line.contains("path: \"/rooms/{room}\""))
        .map(|line| format!("{line}\n"))
        .collect();
    ssegate.reload(&brief(&fewer.replace("\"/rooms/{room}\", ", ""))).await;
    for stream in &mut streams {
        assert_eq!(stream.until_end().await, End::Complete);
        stream.reconnect().await;
        let told = stream.next_named("stream.refused").await;
        assert!(told.data.contains("\"feed\":\"/rooms/a\"") && told.data.contains("404"), "{}", told.data);
    }
}

#[tokio::test]
async fn a_drain_ends_them_and_they_begin_elsewhere() {
    let mut ssegate = Ssegate::start(brief(PUSH)).await;
    let mut stream = open(&ssegate, &["/news", "/rooms/a"], Options::http2()).await;
    ssegate.signal(rustix::process::Signal::TERM);
    assert_eq!(stream.until_end().await, End::Complete);
    assert!(stream.retry().is_some());
    assert!(ssegate.wait_exit().await.success());
}

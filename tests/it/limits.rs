//! What is kept and for whom: history, lag, and the memory budget of the process.

use std::sync::Arc;

use http::Method;

use crate::support::eventsource::{EventSource, Options};
use crate::support::frames::{self, Raw, get};
use crate::support::http::{Connect, Link, build};
use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};

#[tokio::test]
async fn an_id_older_than_history_is_told_exactly_what_is_gone() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes: [ { path: /h, from: { upstream: lobby, channel: h }, history: { events: 10 } } ]
"#,
    )
    .await;
    let mut stream = EventSource::connect(ssegate.url("/h"), Options::http1()).await;
    let start = stream.next_named("stream.position").await.id;
    stream.close();
    let free = async || match ssegate.status().await["subscribers"].as_u64() {
        Some(0) => Ok(()),
        n => Err(format!("{n:?}")),
    };
    eventually("the client to be gone", free).await;
    for n in 0..30 {
        ssegate.publish("h", n.to_string()).await;
    }
    let mut back = EventSource::connect(ssegate.url("/h"), Options::http1().resume(&start)).await;
    let gap = back.next_gap().await;
    assert_eq!((&gap["reason"], &gap["missed"]), (&"evicted".into(), &20.into()));
    assert_eq!((&gap["from"], &gap["to"]), (&0.into(), &20.into()));
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(10).await, (20..30).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn replay_is_bounded_by_max_events() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes: [ { path: /h, from: { upstream: lobby, channel: h }, replay: { max_events: 5 } } ]
"#,
    )
    .await;
    let mut stream = EventSource::connect(ssegate.url("/h"), Options::http1()).await;
    let start = stream.next_named("stream.position").await.id;
    for n in 0..20 {
        ssegate.publish("h", n.to_string()).await;
    }
    let mut back = EventSource::connect(ssegate.url("/h"), Options::http1().resume(&start)).await;
    let gap = back.next_gap().await;
    assert_eq!((&gap["reason"], &gap["missed"]), (&"replay_limit".into(), &15.into()));
    assert_eq!(back.next_data(5).await, ["15", "16", "17", "18", "19"]);
}

const LAG: &str = r#"
upstreams: { lobby: { push: {} } }
defaults: { history: { events: 10, bytes: 256KiB }, buffer: 256KiB, retry: 100ms }
routes:
  - { path: /gap, from: { upstream: lobby, channel: gap } }
  - { path: /disconnect, from: { upstream: lobby, channel: disconnect }, on_lag: disconnect }
"#;

/// Opens a stream that is not read, and publishes more than can be kept for it.
async fn lag(ssegate: &Ssegate, path: &str) -> (EventSource, usize) {
    let connect = Connect { receive_buffer: Some(4096), ..Connect::http1() };
    let mut slow = EventSource::connect(ssegate.url(path), Options::http1().connect(connect)).await;
    slow.next_named("stream.position").await;
    let pad = "x".repeat(16 * 1024);
    let channel = path.trim_start_matches('/');
    for n in 0..200 {
        ssegate.publish(channel, format!("{n} {pad}")).await;
    }
    (slow, 200)
}

fn number(data: &str) -> usize {
    data.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_that_fell_behind_is_told_what_it_missed_and_goes_on() {
    let ssegate = Ssegate::start(LAG).await;
    let (mut slow, published) = lag(&ssegate, "/gap").await;
    let (mut next, mut gaps) = (0, 0);
    while next < published {
        let event = slow.next().await;
        match &*event.event {
            "message" => {
                assert_eq!(number(&event.data), next);
                next += 1;
            }
            "stream.gap" => {
                let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                assert_eq!((&gap["reason"], &gap["from"]), (&"lagged".into(), &next.into()));
                let count = gap["missed"].as_u64().unwrap() as usize;
                assert_eq!(gap["to"], next + count);
                next += count;
                gaps += 1;
            }
            other => assert_eq!(other, "stream.position"),
        }
    }
    assert!(gaps > 0, "it was to fall behind");
    let counted = ssegate.metrics().await.sum("ssegate_client_gaps_total", &[("reason", "lagged")]);
    assert_eq!(counted, f64::from(gaps));
}

#[tokio::test]
async fn or_is_sent_away_to_come_back_with_its_id() {
    let ssegate = Ssegate::start(LAG).await;
    let (mut slow, _) = lag(&ssegate, "/disconnect").await;
    slow.until_end().await;
    let last =
        slow.events().iter().rev().find(|event| event.event == "message").map(|event| number(&event.data));
    assert!(slow.events().iter().all(|event| event.event != "stream.gap"));
    slow.reconnect().await;
    let gap = slow.next_gap().await;
    assert_eq!(gap["reason"], "evicted");
    assert_eq!(gap["from"].as_u64().unwrap() as usize, last.map_or(0, |last| last + 1));
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", "lagged")], 1.0).await;
}

#[tokio::test]
async fn all_logs_together_stay_within_the_limit() {
    let ssegate = Ssegate::start(
        r#"
limits: { memory: 16MiB }
upstreams: { lobby: { push: {} } }
routes: [ { path: "/r/{room}", from: { upstream: lobby, channel: "{room}" } } ]
"#,
    )
    .await;
    let link = Arc::new(Link::open(&ssegate.url("/"), &Connect::http2()).await.unwrap());
    let mut streams = Vec::new();
    for n in 0..10 {
        let url = ssegate.url(&format!("/r/{n}"));
        streams.push(link.send(build(Method::GET, &url, &[], "")).await.unwrap());
    }
    let payload = "x".repeat(64 * 1024);
    for _ in 0..60 {
        for n in 0..10 {
            ssegate.publish(&n.to_string(), &payload).await;
        }
        let used = ssegate.metrics().await.sum("ssegate_memory_used_bytes", &[]);
        assert!(used <= f64::from(16 << 20) + 2e6, "{used}");
    }
}

#[tokio::test]
async fn one_connection_has_so_many_streams_and_no_more() {
    let ssegate = Ssegate::start(
        r#"
limits: { streams_per_connection: 2 }
upstreams: { lobby: { push: {} } }
routes: [ { path: /e, from: { upstream: lobby, channel: e } } ]
"#,
    )
    .await;
    let mut raw = Raw::open(ssegate.addr(), &[]).await;
    let settings = within("the settings", raw.reader.next_of(frames::SETTINGS, 0)).await.unwrap();
    // RFC 9113 section 6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS.
    assert!(settings.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 2]), "{settings:?}");
    for stream in [1, 3] {
        raw.send(&get("/e", stream)).await.unwrap();
        within("its position", raw.reader.next_of(frames::DATA, stream)).await.unwrap();
    }
    // Somebody who does not heed them.
    raw.send(&get("/e", 5)).await.unwrap();
    let refused = within("the refusal", raw.reader.next_of(frames::RST_STREAM, 5)).await.unwrap();
    assert_eq!(refused.payload, [0, 0, 0, 7], "REFUSED_STREAM, which says that it may be tried again");
    ssegate.publish("e", "still here").await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let frame = within("an event", raw.reader.next()).await.expect("the connection goes on");
        if frame.kind == frames::DATA && String::from_utf8_lossy(&frame.payload).contains("still here") {
            told.push(frame.stream);
        }
    }
    told.sort_unstable();
    assert_eq!(told, [1, 3]);
    // One that ends makes room.
    raw.send(&frames::frame(frames::RST_STREAM, 0, 1, &[0, 0, 0, 8])).await.unwrap();
    raw.send(&get("/e", 7)).await.unwrap();
    within("the next", raw.reader.next_of(frames::HEADERS, 7)).await.expect("it has a place");
}

#[tokio::test]
async fn an_event_that_is_too_large_is_told() {
    let ssegate = Ssegate::start(
        r#"
limits: { max_event: 1KiB }
upstreams: { lobby: { push: {} } }
routes: [ { path: /e, from: { upstream: lobby, channel: e } } ]
"#,
    )
    .await;
    let answer = crate::support::http::request(
        Method::POST,
        &format!("http://{}/publish/e", ssegate.addrs("admin")[0]),
        &[],
        "x".repeat(2000),
        &Connect::http1(),
    )
    .await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["type"], "urn:ssegate:problem:too-large");
}

#[tokio::test]
async fn a_record_that_is_too_large_is_a_gap() {
    let redis = crate::support::redis::Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
limits: {{ max_event: 1KiB }}
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes: [ {{ path: /e, from: {{ upstream: cache, channel: e }} }} ]
"#,
        redis.url()
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    redis.publish("e", "x".repeat(1024)).await;
    redis.publish("e", "x".repeat(1025)).await;
    redis.publish("e", "after").await;
    assert_eq!(stream.next_message().await.data.len(), 1024);
    let gap = stream.next_gap().await;
    assert_eq!((&gap["reason"], &gap["missed"]), (&"too_large".into(), &1.into()));
    assert_eq!(stream.next_message().await.data, "after");
}

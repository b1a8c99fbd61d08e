//! Clients that stop reading: bounded in memory, ended by `write_stall`, and harmless to their siblings.

use std::sync::Arc;

use http::Method;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link, build};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;
use crate::support::witness::resident;

const CONFIG: &str = r#"
limits: { write_stall: 1s }
upstreams: { lobby: { push: {} } }
routes:
  - { path: /flood, from: { upstream: lobby, channel: flood } }
  - { path: /calm, from: { upstream: lobby, channel: calm } }
"#;

/// Publishes until the stream of `/flood` is seen to have ended as stalled.
async fn flood_until_stalled(ssegate: &Ssegate) {
    let payload = "x".repeat(64 * 1024);
    eventually("the stalled stream to be ended", async || {
        for _ in 0..8 {
            ssegate.publish("flood", &payload).await;
        }
        let ended = [("route", "/flood"), ("reason", "stalled")];
        match ssegate.metrics().await.sum("ssegate_streams_ended_total", &ended) {
            0.0 => Err("it is still open"),
            _ => Ok(()),
        }
    })
    .await;
    let line = ssegate.wait_log("its end", |line| line["why"] == "stalled").await;
    assert_eq!(line["route"], "/flood");
}

/// Sends a request and never reads the body.
async fn open_and_stop(link: &Arc<Link>, ssegate: &Ssegate) -> http::Response<hyper::body::Incoming> {
    let accept = [("accept", "text/event-stream")];
    link.send(build(Method::GET, &ssegate.url("/flood"), &accept, "")).await.expect("an answer")
}

#[tokio::test]
async fn on_http1_the_connection_is_ended() {
    let ssegate = Ssegate::start(CONFIG).await;
    let connect = Connect { receive_buffer: Some(8192), ..Connect::http1() };
    let link = Arc::new(Link::open(&ssegate.url("/"), &connect).await.unwrap());
    let _body = open_and_stop(&link, &ssegate).await;
    let mut calm = EventSource::connect(ssegate.url("/calm"), Options::http1()).await;
    flood_until_stalled(&ssegate).await;
    ssegate.publish("calm", "still here").await;
    assert_eq!(calm.next_message().await.data, "still here");
    eventually("the connection to be gone", async || {
        match ssegate.metrics().await.sum("ssegate_connections", &[("protocol", "http/1.1")]) {
            1.0 => Ok(()),
            n => Err(format!("{n} connections")),
        }
    })
    .await;
}

#[tokio::test]
async fn on_http2_the_stream_is_reset_and_its_siblings_go_on() {
    let ssegate = Ssegate::start(CONFIG).await;
    let connect = Connect { stream_window: Some(16 * 1024), ..Connect::http2() };
    let link = Arc::new(Link::open(&ssegate.url("/"), &connect).await.unwrap());
    let _body = open_and_stop(&link, &ssegate).await;
    let mut calm = EventSource::connect_on(Arc::clone(&link), ssegate.url("/calm"), Options::http2()).await;
    flood_until_stalled(&ssegate).await;
    ssegate.publish("calm", "still here").await;
    assert_eq!(calm.next_message().await.data, "still here");
    assert_eq!(ssegate.metrics().await.sum("ssegate_connections", &[("protocol", "h2")]), 1.0);
}

#[tokio::test]
async fn what_a_stalled_client_holds_is_bounded() {
    let ssegate = Ssegate::start(CONFIG.replace("write_stall: 1s", "write_stall: 10m")).await;
    let connect = Connect { receive_buffer: Some(8192), ..Connect::http1() };
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let link = Arc::new(Link::open(&ssegate.url("/"), &connect).await.unwrap());
        stalled.push((open_and_stop(&link, &ssegate).await, link));
    }
    let payload = "x".repeat(16 * 1024);
    for _ in 0..100 {
        ssegate.publish("flood", &payload).await;
    }
    let before = resident(ssegate.id());
    // Twenty times what history and buffer hold: were it kept for each client, it would be gigabytes.
    for _ in 0..2_000 {
        ssegate.publish("flood", &payload).await;
    }
    let (after, used) =
        (resident(ssegate.id()), ssegate.metrics().await.sum("ssegate_memory_used_bytes", &[]));
    assert!(used < 24e6, "history and buffer hold 8 MiB each: {used}");
    assert!(after < before + 50 * 256 * 1024 + (24 << 20), "{before} to {after}");
}

/// Each stalls at a place of its own, far behind what the log holds.
#[tokio::test]
async fn what_clients_hold_that_stall_in_history_is_bounded() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
limits: {{ memory: 16MiB, write_stall: 10m }}
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /flood
    from: {{ upstream: cache, stream: flood, start: earliest }}
    data: "{{field.x}}"
    history: {{ events: 3 }}
    buffer: 64KiB
"#,
        redis.url()
    ))
    .await;
    let (payload, mut ids) = ("x".repeat(16 * 1024), Vec::new());
    for _ in 0..2_000 {
        ids.push(redis.xadd("flood", "*", &[("x", &payload)]).await);
    }
    let read_all = async || {
        let mut reader = EventSource::connect(ssegate.url("/flood"), Options::http2()).await;
        for id in &ids {
            assert_eq!(&reader.next_message().await.id, id);
            reader.forget();
        }
    };
    // Twice, since what the allocator keeps after the first time is none of what stalls.
    for _ in 0..2 {
        read_all().await;
    }
    let before = resident(ssegate.id());

    let connect = Connect { receive_buffer: Some(8192), ..Connect::http1() };
    let mut stalled = Vec::new();
    for id in ids.iter().step_by(40) {
        let link = Arc::new(Link::open(&ssegate.url("/"), &connect).await.unwrap());
        let headers = [("accept", "text/event-stream"), ("last-event-id", id)];
        let request = build(Method::GET, &ssegate.url("/flood"), &headers, "");
        stalled.push((link.send(request).await.expect("an answer"), link));
    }
    // What one client holds, and what a socket takes, is handed out by now: others have had their turn.
    for _ in 0..2 {
        read_all().await;
    }
    let metrics = ssegate.metrics().await;
    let (after, used) = (resident(ssegate.id()), metrics.sum("ssegate_memory_used_bytes", &[]));
    assert!(metrics.sum("ssegate_subscribers", &[]) >= stalled.len() as f64, "none was ended");
    let most = stalled.len() * 128 * 1024 + (5 << 20);
    assert!(used < most as f64, "{used} of {most}");
    assert!(after < before + stalled.len() * 256 * 1024 + (16 << 20), "{before} to {after}");
}

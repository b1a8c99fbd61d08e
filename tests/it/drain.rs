//! The end of the process: streams end spread over the window with a time to come back, and nothing hangs.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

const CONFIG: &str = r#"
upstreams: { clock: { ticker: { every: 100ms } } }
routes: [ { path: /events, from: { upstream: clock }, retry: 1s } ]
"#;

fn config(drain: &str) -> String {
    format!("server: {{ listen: \"127.0.0.1:0\", tls: self_signed, drain: {drain} }}\n{CONFIG}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_end_every_stream_with_a_retry() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut ssegate = Ssegate::start(CONFIG).await;
        let mut streams = Vec::new();
        for n in 0..20 {
            let options = if n % 2 == 0 { Options::http1() } else { Options::http2() };
            let mut stream = EventSource::connect(ssegate.url("/events"), options).await;
            stream.next_message().await;
            streams.push(stream);
        }
        let began = Instant::now();
        ssegate.signal(signal);
        let mut ends = Vec::new();
        let mut retries = std::collections::HashSet::new();
        for stream in &mut streams {
            assert_eq!(stream.until_end().await, End::Complete, "{stream}");
            ends.push(began.elapsed());
            retries.insert(stream.retry().unwrap());
        }
        assert!(retries.len() > 5, "each its own time to come back: {retries:?}");
        assert!(retries.iter().all(|retry| (750..=1250).contains(&retry.as_millis())), "{retries:?}");
        let last = ends.iter().max().unwrap();
        assert!(*last > Duration::from_secs(1), "spread over the window of 5 s, not all at once: {ends:?}");
        assert!(ssegate.wait_exit().await.success());
        assert_eq!(ssegate.log().iter().filter(|line| line["why"] == "drain").count(), 20);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_the_process() {
    let yaml = "server: { listen: \"127.0.0.1:0\", tls: none, drain: 100ms }\nupstreams: { lobby: { push: {} } }\nroutes: [ { path: /e, from: { upstream: lobby, channel: e } } ]\n";
    let mut ssegate = Ssegate::start(yaml).await;
    let connect = Connect { receive_buffer: Some(4096), ..Connect::http1() };
    let mut stalled = EventSource::connect(ssegate.url("/e"), Options::http1().connect(connect)).await;
    stalled.next_named("stream.position").await;
    for _ in 0..100 {
        ssegate.publish("e", "x".repeat(32 * 1024)).await;
    }
    assert!(ssegate.terminate().await.success());
    let stopped = ssegate.wait_log("the end", |line| line["message"] == "stopped").await;
    assert_eq!(stopped["cut"], 1, "{stopped}");
}

#[tokio::test]
async fn draining_is_unready_and_sends_newcomers_away_softly() {
    let yaml = format!("server: {{ listen: \"127.0.0.1:0\", tls: none, drain: 20s }}\n{CONFIG}");
    let mut ssegate = Ssegate::start(yaml).await;
    eventually("readiness", async || match ssegate.admin_get("/readyz").await.status.as_u16() {
        200 => Ok(()),
        status => Err(format!("{status}")),
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(EventSource::connect(ssegate.url("/events"), Options::http1()).await);
    }
    ssegate.signal(Signal::TERM);
    eventually("readiness to end", async || {
        let answer = ssegate.admin_get("/readyz").await;
        match answer.status.as_u16() {
            503 if answer.text() == "draining\n" => Ok(()),
            status => Err(format!("{status} {}", answer.text())),
        }
    })
    .await;
    assert_eq!(ssegate.admin_get("/healthz").await.status, 200);
    ssegate.signal(Signal::TERM);
    assert!(ssegate.wait_exit().await.success(), "a second signal ends it at once");
}

#[tokio::test]
async fn a_self_signed_certificate_is_served() {
    let mut ssegate = Ssegate::start(config("100ms")).await;
    let output = std::process::Command::new("curl")
        .args(["-sk", "--max-time", "1", &ssegate.url("/events")])
        .output()
        .expect("curl is installed");
    assert!(String::from_utf8_lossy(&output.stdout).contains("data: tick\nid: "));
    assert!(ssegate.terminate().await.success());
}

#[tokio::test]
async fn systemd_is_told_ready_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let builder = Ssegate::builder().config(CONFIG).env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut ssegate = builder.start().await;
    let mut message = [0; 256];
    let mut next = async || {
        let length =
            crate::support::wait::within("a message to systemd", socket.recv(&mut message)).await.unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert!(next().await.contains("READY=1"));
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200, "ready means ready");
    ssegate.signal(Signal::TERM);
    assert!(next().await.contains("STOPPING=1"));
    assert!(ssegate.wait_exit().await.success());
}

#[tokio::test]
async fn keep_alive_connections_without_a_stream_do_not_hold_the_process() {
    let mut ssegate = Ssegate::start(CONFIG).await;
    for connect in [Connect::http1(), Connect::http2()] {
        let answer = request(http::Method::HEAD, &ssegate.url("/events"), &[], "", &connect).await;
        assert_eq!(answer.status, 200);
    }
    let _idle = crate::support::http::Link::open(&ssegate.url("/"), &Connect::http2()).await.unwrap();
    assert!(ssegate.terminate().await.success());
}

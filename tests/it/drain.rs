//! The end of the process: streams end spread over the window with a time to come back, and nothing hangs.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::child::raise_descriptor_limit;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::frames::{self, Raw, get};
use crate::support::http::{Connect, request};
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::{eventually, within};
use crate::tls::pair;

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
        let tls = pair(TestCa::shared().leaf());
        let server = format!("server: {{ listen: \"127.0.0.1:0\", drain: 5s, tls: {{ {tls} }} }}");
        let mut ssegate = Ssegate::start(format!("{server}\n{CONFIG}")).await;
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

/// Some streams, so that one of them takes a while to end.
async fn streams(ssegate: &Ssegate) -> Vec<EventSource> {
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(EventSource::connect(ssegate.url("/events"), Options::http1()).await);
    }
    streams
}

async fn draining(ssegate: &mut Ssegate) {
    ssegate.signal(Signal::TERM);
    eventually("readiness to end", async || {
        let answer = ssegate.admin_get("/readyz").await;
        match answer.status.as_u16() {
            503 if answer.text() == "draining\n" => Ok(()),
            status => Err(format!("{status} {}", answer.text())),
        }
    })
    .await;
}

async fn connections(ssegate: &Ssegate, count: u64) {
    eventually(
        "the connections to be accepted",
        async || match ssegate.status().await["connections"]["open"].as_u64() {
            Some(open) if open == count => Ok(()),
            open => Err(format!("{open:?}")),
        },
    )
    .await;
}

/// Nobody is accepted any more, so that balancers and browsers go elsewhere at once.
#[tokio::test]
async fn draining_is_unready_and_accepts_nobody() {
    let yaml = format!("server: {{ listen: \"127.0.0.1:0\", tls: none, drain: 20s }}\n{CONFIG}");
    let mut ssegate = Ssegate::start(yaml).await;
    eventually("readiness", async || match ssegate.admin_get("/readyz").await.status.as_u16() {
        200 => Ok(()),
        status => Err(format!("{status}")),
    })
    .await;
    let _stay = streams(&ssegate).await;
    draining(&mut ssegate).await;
    eventually("the port to be closed", async || match TcpStream::connect(ssegate.addr()).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(ssegate.admin_get("/healthz").await.status, 200);
    ssegate.signal(Signal::TERM);
    assert!(ssegate.wait_exit().await.success(), "a second signal ends it at once");
}

/// So that it asks elsewhere.
#[tokio::test]
async fn whoever_is_connected_and_has_asked_for_nothing_is_hung_up_on() {
    let yaml = format!("server: {{ listen: \"127.0.0.1:0\", tls: none, drain: 20s }}\n{CONFIG}");
    let mut ssegate = Ssegate::start(yaml).await;
    let _stay = streams(&ssegate).await;
    let mut silent = TcpStream::connect(ssegate.addr()).await.unwrap();
    connections(&ssegate, 6).await;
    draining(&mut ssegate).await;
    let hung_up = within("it to be hung up on", silent.read(&mut [0])).await;
    assert!(matches!(hung_up, Ok(0)), "{hung_up:?}");
}

/// On HTTP/2 a request may cross the goodbye. It is told when to come back, since an error would end an `EventSource` for good.
#[tokio::test]
async fn requests_that_are_on_their_way_when_it_drains_are_sent_away_softly() {
    let mut ssegate = Ssegate::start(format!(
        "server: {{ listen: \"127.0.0.1:0\", drain: 20s, tls: {{ {} }} }}\n{CONFIG}",
        pair(TestCa::shared().leaf())
    ))
    .await;
    let _stay = streams(&ssegate).await;
    let mut late = Raw::open(ssegate.addr(), &[]).await;
    late.send(&get("/nowhere", 1)).await.unwrap();
    within("an answer", late.reader.next_of(frames::HEADERS, 1)).await.expect("404");
    draining(&mut ssegate).await;
    within("the goodbye", late.reader.next_of(frames::GOAWAY, 0)).await.expect("it is told");
    // It crossed the goodbye on its way.
    late.send(&get("/events", 3)).await.unwrap();
    let told = within("an answer", late.reader.next_of(frames::DATA, 3)).await.expect("it is answered");
    let text = String::from_utf8_lossy(&told.payload).into_owned();
    assert!(text.starts_with(':') && text.contains("\nretry: ") && !text.contains("data:"), "{text}");
    let ended = |frame: &frames::Frame| frame.flags & frames::END_STREAM != 0;
    let mut last = told;
    while !ended(&last) {
        last = within("its end", late.reader.next_of(frames::DATA, 3)).await.expect("it ends in order");
        assert!(last.payload.is_empty(), "{last:?}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_rest_and_says_how_many() {
    let yaml = format!("server: {{ listen: \"127.0.0.1:0\", tls: none, drain: 5m }}\n{CONFIG}");
    let mut ssegate = Ssegate::start(yaml).await;
    let _stay = streams(&ssegate).await;
    draining(&mut ssegate).await;
    ssegate.signal(Signal::INT);
    assert!(ssegate.wait_exit().await.success());
    let line = ssegate.wait_log("what was cut", |line| line["level"] == "WARN").await;
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("a second time"), "{line}");
    // One or another may have had its moment before.
    assert!((1..=5).contains(&line["cut"].as_u64().unwrap()), "{line}");
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

/// Whoever has connected would be reset, and a balancer does not try another replica then.
#[tokio::test]
async fn a_crowd_that_waits_to_be_accepted_when_a_drain_begins_is_answered() {
    raise_descriptor_limit();
    let mut ssegate =
        Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{CONFIG}")).await;
    // It accepts nobody meanwhile, and the signal is there before it can.
    ssegate.signal(Signal::STOP);
    let mut crowd = Vec::new();
    for _ in 0..500 {
        let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
        socket
            .write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        crowd.push(socket);
    }
    ssegate.signal(Signal::TERM);
    ssegate.signal(Signal::CONT);
    for mut socket in crowd {
        let mut answer = String::new();
        within("an answer", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    assert!(ssegate.wait_exit().await.success());
}

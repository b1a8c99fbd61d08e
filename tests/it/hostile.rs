//! Requests as an edge meets them: each is answered clearly, and none harms anybody else.

use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::within;

const CONFIG: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /e, from: { upstream: lobby, channel: e } }
  - { path: /other, from: { upstream: lobby, channel: other } }
"#;

/// A stream that must not notice anything.
struct Witness(EventSource);

impl Witness {
    async fn of(ssegate: &Ssegate) -> Self {
        let mut stream = EventSource::connect(ssegate.url("/e"), Options::http2()).await;
        stream.next_named("stream.position").await;
        Self(stream)
    }

    async fn unharmed(mut self, ssegate: &Ssegate) {
        ssegate.publish("e", "unharmed").await;
        assert_eq!(self.0.next().await.data, "unharmed");
        assert_eq!(ssegate.admin_get("/healthz").await.status, 200);
        let panicked = |line: &serde_json::Value| line.to_string().contains("panicked");
        assert!(!ssegate.log().iter().any(panicked), "{:?}", ssegate.log());
    }
}

/// Sends bytes on a plain connection and reads until the other side closes.
async fn exchange(ssegate: &Ssegate, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
    // The other side may have had enough before all is written; a reset is an answer, too.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = within("the connection to be closed", socket.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate).await;
    let answer = exchange(&ssegate, b"GET /e HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let text = String::from_utf8(answer).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
    assert!(text.contains("https://") && text.contains("application/problem+json"), "{text}");
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn garbage_instead_of_tls_ends_the_connection() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate).await;
    for _ in 0..20 {
        let mut garbage = [0; 300];
        rand::rng().fill(&mut garbage[..]);
        garbage[0] = 0x80; // Neither a TLS record nor a method.
        let answer = exchange(&ssegate, &garbage).await;
        assert!(answer.is_empty() || answer[0] == 21, "at most a TLS alert: {answer:?}");
    }
    assert_eq!(ssegate.metrics().await.sum("ssegate_handshakes_failed_total", &[]), 20.0);
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let ssegate = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{CONFIG}")).await;
    let mut witness = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    let start = std::time::Instant::now();
    let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
    socket.write_all(b"GET /e HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the connection to be closed", socket.read_to_end(&mut answer)).await;
    assert!(start.elapsed() > Duration::from_secs(5), "it had a fair time");
    ssegate.publish("e", "unharmed").await;
    assert_eq!(witness.next_message().await.data, "unharmed");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_not_waited_for() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate).await;
    let silent = exchange(&ssegate, b"").await;
    let begun = exchange(&ssegate, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
    assert!(silent.is_empty() && begun.is_empty());
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_answered_with_431() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate).await;
    let id = "a".repeat(100 * 1024);
    let headers = [("last-event-id", &*id)];
    let two = request(http::Method::GET, &ssegate.url("/e"), &headers, "", &Connect::http2()).await;
    assert_eq!(two.status, 431);
    witness.unharmed(&ssegate).await;

    let plain = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{CONFIG}")).await;
    for head in
        [format!("GET /e HTTP/1.1\r\nlast-event-id: {id}\r\n\r\n"), format!("GET /{id} HTTP/1.1\r\n\r\n")]
    {
        let answer = String::from_utf8(exchange(&plain, head.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer:?}");
    }
}

#[tokio::test]
async fn any_id_at_all_is_answered_with_a_stream() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate).await;
    let mut other = EventSource::connect(ssegate.url("/other"), Options::http1()).await;
    let foreign = other.next_named("stream.position").await.id;
    let mut ids =
        vec![foreign, "a".repeat(64 * 1024), "-".into(), "ffffffffffffffff-18446744073709551615".into()];
    for _ in 0..30 {
        let length = rand::random_range(1..200);
        // Every byte that a header may carry.
        ids.push((0..length).map(|_| char::from(rand::random_range(0x21..0x7f_u8))).collect());
    }
    for id in ids {
        let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1().resume(&id)).await;
        assert_eq!(stream.next_gap().await["reason"], "unknown_id", "{id}");
    }
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn requests_without_sense_get_a_4xx() {
    let ssegate = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{CONFIG}")).await;
    for bad in [
        "GET /e HTTP/1.1\r\n\r\n",
        "GET /e HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /e HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET e HTTP/1.1\r\nhost: a\r\n\r\n",
        "\x01\x02\x03\r\n\r\n",
        "GET /e HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET /e HTTP/1.1\r\nhost: a\r\nx: \x01\r\n\r\n",
    ] {
        let text = String::from_utf8_lossy(&exchange(&ssegate, bad.as_bytes()).await).into_owned();
        assert!(text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4"), "{bad:?}: {text:?}");
    }
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
}

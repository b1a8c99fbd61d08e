//! Requests as an edge meets them: each is answered clearly, and none harms anybody else.

use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::within;
use crate::support::witness::Witness;
use crate::tls::pair;

const CONFIG: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /e, from: { upstream: lobby, channel: e } }
  - { path: /other, from: { upstream: lobby, channel: other } }
"#;

/// What the process may grow by meanwhile.
const GROWTH: usize = 32 << 20;

/// Clients that must not notice anything.
async fn witness(ssegate: &Ssegate) -> Witness {
    Witness::of(ssegate, "/e", "e").await
}

async fn unharmed(witness: Witness, ssegate: &Ssegate) {
    assert!(witness.growth(ssegate) < GROWTH, "{}", witness.growth(ssegate));
    witness.unharmed(ssegate).await;
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
    let tls = pair(TestCa::shared().leaf());
    let server = format!("server: {{ listen: \"127.0.0.1:0\", tls: {{ {tls} }}, hsts: 365d }}");
    let ssegate = Ssegate::start(format!("{server}\n{CONFIG}")).await;
    let witness = witness(&ssegate).await;
    let answer = exchange(&ssegate, b"GET /e HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let text = String::from_utf8(answer).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
    assert!(text.contains("https://") && text.contains("application/problem+json"), "{text}");
    assert!(text.contains("\r\nx-content-type-options: nosniff\r\n"), "{text}");
    assert!(!text.contains("strict-transport-security"), "RFC 6797 section 7.2: {text}");
    unharmed(witness, &ssegate).await;
}

#[tokio::test]
async fn garbage_instead_of_tls_ends_the_connection() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = witness(&ssegate).await;
    for _ in 0..20 {
        let mut garbage = [0; 300];
        rand::rng().fill(&mut garbage[..]);
        garbage[0] = 0x80; // Neither a TLS record nor a method.
        let answer = exchange(&ssegate, &garbage).await;
        assert!(answer.is_empty() || answer[0] == 21, "at most a TLS alert: {answer:?}");
    }
    ssegate.until_counted("ssegate_handshakes_failed_total", &[], 20.0).await;
    unharmed(witness, &ssegate).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let ssegate = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{CONFIG}")).await;
    let witness = Witness::reading(&ssegate, "/e", "e", [Options::http1()]).await;
    let start = std::time::Instant::now();
    let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
    socket.write_all(b"GET /e HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the connection to be closed", socket.read_to_end(&mut answer)).await;
    assert!(start.elapsed() > Duration::from_secs(5), "it had a fair time");
    unharmed(witness, &ssegate).await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_not_waited_for() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = witness(&ssegate).await;
    let silent = exchange(&ssegate, b"").await;
    let begun = exchange(&ssegate, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
    assert!(silent.is_empty() && begun.is_empty());
    unharmed(witness, &ssegate).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_answered_with_431() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = witness(&ssegate).await;
    let id = "a".repeat(100 * 1024);
    let headers = [("last-event-id", &*id)];
    let two = request(http::Method::GET, &ssegate.url("/e"), &headers, "", &Connect::http2()).await;
    assert_eq!(two.status, 431);
    unharmed(witness, &ssegate).await;

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
    let witness = witness(&ssegate).await;
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
    unharmed(witness, &ssegate).await;
}

#[tokio::test]
async fn requests_without_sense_get_a_4xx() {
    let ssegate = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{CONFIG}")).await;
    let witness = Witness::reading(&ssegate, "/e", "e", [Options::http1()]).await;
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
    unharmed(witness, &ssegate).await;
}

const PARAMS: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /e, from: { upstream: lobby, channel: e } }
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "room:{room}" }, event: "of-{room}", cors: { origins: ["https://a.example"] } }
  - { path: "/strict/{room}", from: { upstream: lobby, channel: "{room}" }, params: { room: "[a-z]+" } }
"#;

/// A parameter is a name and nothing more: it reaches the upstream as it is, or the request is refused.
#[tokio::test]
async fn tricks_with_parameters_lead_nowhere() {
    let ssegate = Ssegate::start(PARAMS).await;
    let witness = witness(&ssegate).await;
    for (path, room) in [
        ("/rooms/..", ".."),
        ("/rooms/%2e%2e", ".."),
        ("/rooms/..%2f..%2fetc%2fpasswd", "../../etc/passwd"),
        ("/rooms/%2f", "/"),
        ("/rooms/%2a", "*"),
        ("/rooms/%5ba-z%5d%3f%5c", "[a-z]?\\"),
        ("/rooms/a%20b", "a b"),
        ("/rooms/%7Broom%7D", "{room}"),
        ("/rooms/%2525", "%25"),
        ("/rooms/%", "%"),
        ("/rooms/%c3%a9", "é"),
    ] {
        for connect in [Connect::http1(), Connect::http2()] {
            let mut stream =
                EventSource::connect(ssegate.url(path), Options::default().connect(connect)).await;
            stream.next_named("stream.position").await;
            let status = ssegate.status().await;
            let feeds: Vec<_> =
                status["feeds"].as_array().unwrap().iter().map(|feed| &feed["source"]).collect();
            assert!(feeds.contains(&&format!("room:{room}").into()), "{path}: {feeds:?}");
        }
    }
    let long = format!("/rooms/{}", "a".repeat(10 * 1024));
    for (path, status) in [
        ("/rooms/%00", 400),
        ("/rooms/a%00b", 400),
        ("/rooms/%0d%0ax-evil:%201", 400),
        ("/rooms/a%0aid:%201", 400),
        ("/rooms/%7f", 400),
        ("/rooms/%c2%85", 400),
        ("/rooms/%c0%af", 400),
        ("/rooms/%c0%80", 400),
        ("/rooms/%e0%80%af", 400),
        ("/rooms/%f0%80%80%af", 400),
        ("/rooms/%ed%a0%80", 400),
        ("/rooms/%ff", 400),
        (&long, 400),
        ("/rooms/", 404),
        ("/rooms/a/b", 404),
        ("/rooms/../e", 404),
        ("/rooms//", 404),
        ("/strict/a%0a", 400),
        ("/strict/A", 404),
        ("/strict/a-b", 404),
    ] {
        for connect in [Connect::http1(), Connect::http2()] {
            let answer = request(http::Method::GET, &ssegate.url(path), &[], "", &connect).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(!answer.text().contains("evil"), "{}", answer.text());
        }
    }
    unharmed(witness, &ssegate).await;
}

/// What a client says stands in no header of the answer, and in no line of the log that it could end or forge.
#[tokio::test]
async fn nothing_is_injected_into_headers_or_logs() {
    let ssegate = Ssegate::start(format!("log: {{ format: json, access: true }}\n{PARAMS}")).await;
    let witness = witness(&ssegate).await;
    let evil = "\u{1b}[31m\u{2028}\"}%0d%0ax-evil: 1";
    let path = "/rooms/%1b%5b31m";
    assert_eq!(request(http::Method::GET, &ssegate.url(path), &[], "", &Connect::http1()).await.status, 400);
    for connect in [Connect::http1(), Connect::http2()] {
        let options = Options::default()
            .connect(connect)
            .header("origin", "https://a.example.evil")
            .header("user-agent", "x-evil\t\\r\\n")
            .header("x-forwarded-for", "6.6.6.6")
            .header("forwarded", "for=6.6.6.6")
            .header("last-event-id", "x-evil\\n\\r\"}{");
        let url = ssegate.url("/rooms/a%22%7d%2c%20x-evil?lastEventId=%0d%0aid:%20x-evil&since=");
        let mut stream = EventSource::connect(url, options).await;
        stream.next_named("stream.position").await;
        assert!(stream.headers().iter().all(|(_, value)| !value.to_str().unwrap().contains("evil")));
        assert_eq!(stream.header("access-control-allow-origin"), "");
        ssegate.publish("room:a%22%7d%2c%20x-evil", evil).await;
        let event = stream.next_message().await;
        assert_eq!((&*event.event, &*event.data), ("of-a\"}, x-evil", evil));
    }
    let ended = |line: &serde_json::Value| line.to_string().contains("/rooms/{room}");
    let line = ssegate.wait_log("the stream's end", ended).await;
    assert!(line.to_string().contains("127.0.0.1"), "nobody is believed: {line}");
    // A line that is not JSON is a string.
    assert!(ssegate.log().iter().all(|line| line.is_object() && !line.to_string().contains("6.6.6.6")));
    unharmed(witness, &ssegate).await;
}

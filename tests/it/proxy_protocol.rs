//! Who somebody is behind a load balancer that speaks HAProxy's PROXY protocol, in the bytes that HAProxy sends.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link};
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::within;

/// Trusts 127.0.0.1, and a network that nobody connects from.
async fn start(protocol: &str, limits: &str) -> Ssegate {
    let tls = TestCa::shared().leaf();
    Ssegate::start(format!(
        r#"
server:
  listen: "127.0.0.1:0"
  tls: {{ cert: "{}", key: "{}" }}
  proxy_protocol: {protocol}
  trusted_proxies: [127.0.0.1, 10.0.0.0/8]
log: {{ format: json, level: debug }}
limits: {{ {limits} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /e, from: {{ upstream: lobby, channel: e }} }} ]
"#,
        tls.cert.display(),
        tls.key.display()
    ))
    .await
}

/// `send-proxy`.
fn v1(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let server = if client.contains(':') { "::1" } else { "127.0.0.1" };
    format!("PROXY {family} {client} {server} 56324 443\r\n").into_bytes()
}

/// `send-proxy-v2` for 192.0.2.LAST, with the TLVs of `send-proxy-v2-ssl` and `proxy-v2-options crc32c`.
fn v2(last: u8) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let addresses = [192, 0, 2, last, 127, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb];
    let tlvs = [&[0x03, 0, 4, 1, 2, 3, 4][..], &[0x20, 0, 5, 0, 0, 0, 0, 0]].concat();
    bytes.extend(((addresses.len() + tlvs.len()) as u16).to_be_bytes());
    bytes.extend(addresses);
    bytes.extend(tlvs);
    bytes
}

/// `option httpchk` with `check-send-proxy`: HAProxy speaks for itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

async fn stream(ssegate: &Ssegate, connect: Connect) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::default().connect(connect)).await;
    stream.next_named("stream.position").await;
    stream
}

/// As whom the log knows the client of a stream.
async fn logged(ssegate: &Ssegate, stream: EventSource, client: &str) {
    drop(stream);
    let wanted = |line: &serde_json::Value| {
        line.to_string().contains("stream ended") && line.to_string().contains(client)
    };
    ssegate.wait_log(client, wanted).await;
}

async fn shed(ssegate: &Ssegate, reason: &str, count: f64) {
    ssegate.until_counted("ssegate_connections_shed_total", &[("reason", reason)], count).await;
}

#[tokio::test]
async fn the_client_is_whom_the_proxy_speaks_for() {
    let ssegate = start("any", "").await;
    for (prelude, client) in [
        (v1("192.0.2.1"), "192.0.2.1"),
        (v1("2001:db8::1"), "2001:db8::1"),
        (v2(3), "192.0.2.3"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (LOCAL.to_vec(), "127.0.0.1"),
    ] {
        for connect in [Connect::http1(), Connect::http2()] {
            let stream = stream(&ssegate, connect.prelude(prelude.clone())).await;
            logged(&ssegate, stream, client).await;
        }
    }
    shed(&ssegate, "proxy_protocol", 0.0).await;
}

#[tokio::test]
async fn a_trusted_proxy_must_say_it_and_nobody_else_may() {
    for (protocol, bad) in [("v1", v2(1)), ("v2", v1("192.0.2.1")), ("any", Vec::new())] {
        let ssegate = start(protocol, "handshake_timeout: 5s").await;
        let connect = Connect::http1().prelude(bad);
        assert!(Link::open(&ssegate.url("/"), &connect).await.is_err());
        shed(&ssegate, "proxy_protocol", 1.0).await;
        // Half a header is waited for no longer than a handshake.
        let mut half = TcpStream::connect(ssegate.addr()).await.unwrap();
        half.write_all(if protocol == "v1" { &b"PROXY T"[..] } else { &LOCAL[..10] }).await.unwrap();
        within("it to be closed", half.read_to_end(&mut Vec::new())).await.unwrap();

        let other = Connect::http1().from("127.0.0.2");
        assert!(Link::open(&ssegate.url("/"), &other.clone().prelude(v1("192.0.2.1"))).await.is_err());
        let stream = stream(&ssegate, other).await;
        logged(&ssegate, stream, "127.0.0.2").await;
    }
}

#[tokio::test]
async fn limits_are_for_clients_and_not_for_their_proxy() {
    let ssegate = start("any", "connections_per_client: 1").await;
    let open =
        async |client: &str| Link::open(&ssegate.url("/"), &Connect::http2().prelude(v1(client))).await;
    let mut links = Vec::new();
    for n in 1..20 {
        links.push(open(&format!("192.0.2.{n}")).await.unwrap());
    }
    // It is told to come back.
    open("192.0.2.1").await.unwrap();
    links.push(open("2001:db8::1").await.unwrap());
    open("2001:db8::2").await.unwrap();
    links.push(open("2001:db8:0:1::1").await.unwrap());
    shed(&ssegate, "client_connections", 2.0).await;
    // Health checks of the proxy's own are nobody's.
    for _ in 0..3 {
        let connect = Connect::http1().prelude(LOCAL);
        links.push(Link::open(&ssegate.url("/"), &connect).await.unwrap());
    }
}

/// Whom a header names is a client, also where its address is one of a network that is trusted.
#[tokio::test]
async fn clients_of_a_trusted_network_are_clients() {
    let ssegate = start("any", "connections_per_client: 1").await;
    let connect = || Connect::http2().prelude(v1("10.1.2.3"));
    let options = Options::default().connect(connect()).header("x-forwarded-for", "192.0.2.66");
    let mut one = EventSource::connect(ssegate.url("/e"), options).await;
    one.next_named("stream.position").await;
    Link::open(&ssegate.url("/"), &connect()).await.unwrap();
    shed(&ssegate, "client_connections", 1.0).await;
    logged(&ssegate, one, "10.1.2.3").await;
    // Nor is anybody else believed who speaks for himself: what stands there comes from whoever sent the request.
    let options = Options::http1().connect(Connect::http1().prelude(LOCAL));
    let mut proxy =
        EventSource::connect(ssegate.url("/e"), options.header("x-forwarded-for", "192.0.2.66")).await;
    proxy.next_named("stream.position").await;
    logged(&ssegate, proxy, "127.0.0.1").await;
}

/// The same header in front of plain HTTP.
#[tokio::test]
async fn without_tls_as_well() {
    let ssegate = Ssegate::start(
        r#"
server: { listen: "127.0.0.1:0", tls: none, proxy_protocol: v2, trusted_proxies: [127.0.0.0/8] }
upstreams: { lobby: { push: {} } }
routes: [ { path: /e, from: { upstream: lobby, channel: e } } ]
"#,
    )
    .await;
    let link = Arc::new(Link::open(&ssegate.url("/"), &Connect::http1().prelude(v2(9))).await.unwrap());
    let mut stream = EventSource::connect_on(link, ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    logged(&ssegate, stream, "192.0.2.9").await;
}

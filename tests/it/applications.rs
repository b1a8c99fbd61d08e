//! Routes with `proxy`: an application behind ssegate, on one origin with the streams.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::app::App;
use crate::support::browser::Browser;
use crate::support::http::{Connect, Link, build, request};
use crate::support::ports;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::{eventually, within};

async fn before(app: &App) -> Ssegate {
    let addr = app.addr;
    Ssegate::start(format!(
        r#"
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /events, from: {{ upstream: lobby, channel: a }} }}
  - {{ path: "/rooms/{{room}}", params: {{ room: "[a-z]" }}, from: {{ upstream: lobby, channel: "{{room}}" }} }}
  - {{ path: "/{{*rest}}", proxy: "http://{addr}" }}
"#
    ))
    .await
}

#[tokio::test]
async fn an_application_answers_all_that_is_no_stream() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    for how in [Connect::http1(), Connect::http2()] {
        for path in ["/", "/index.html", "/rooms/a/b", "/rooms", "/rooms/new", "/a%2Fb?x=%20&y", "/events/"] {
            let told = request(Method::GET, &ssegate.url(path), &[], "", &how).await.json();
            assert_eq!((&told["method"], &told["target"]), (&"GET".into(), &path.into()));
        }
        let headers = [
            ("content-type", "text/plain"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("cookie", "a=1"),
        ];
        let url = ssegate.url("/gone?q");
        let reply = request(Method::POST, &url, &headers, "some text", &how).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-app")), (410, "1"));
        assert_eq!((reply.header("x-hop"), reply.header("x-content-type-options")), ("", "nosniff"));
        let told = reply.json();
        assert_eq!((&told["method"], &told["body"]), (&"POST".into(), &"some text".into()));
        let authority = url.split('/').nth(2).unwrap();
        let seen = &told["headers"];
        for (name, value) in [
            ("host", authority),
            ("cookie", "a=1"),
            ("content-type", "text/plain"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", authority),
            ("forwarded", &format!("for=127.0.0.1;host=\"{authority}\";proto=https")),
        ] {
            assert_eq!(seen[name], value, "{name}");
        }
    }
    let head = request(Method::HEAD, &ssegate.url("/x"), &[], "", &Connect::http1()).await;
    assert!(head.status.is_success() && head.body.is_empty() && head.header("content-length") != "0");
    assert!(app.connections() < 5, "connections are kept: {}", app.connections());
}

#[tokio::test]
async fn bodies_go_both_ways_as_they_come() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    let mut socket = tls(&ssegate).await;
    let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = &mut String::new();
    for part in ["5\r\nfirst\r\n", "6\r\nsecond\r\n"] {
        socket.write_all(part.as_bytes()).await.unwrap();
        // The answer to a part comes while the request goes on.
        until(&mut socket, answer, part.split("\r\n").nth(1).unwrap()).await;
    }
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut socket, answer, "\r\n0\r\n\r\n").await;
    // The connection goes on, also to a stream.
    socket.write_all(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    answer.clear();
    until(&mut socket, answer, "\"target\":\"/x\"").await;
    socket.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut socket, answer, "stream.position").await;
    ssegate.publish("a", "hello").await;
    until(&mut socket, answer, "data: hello\n").await;
}

/// A client that sends parts of a body as the test goes on.
struct Talk {
    parts: mpsc::UnboundedSender<Bytes>,
    answer: Incoming,
}

impl Talk {
    async fn begin(ssegate: &Ssegate, path: &str) -> Self {
        let socket = TcpStream::connect(ssegate.addr()).await.unwrap();
        let connector = TlsConnector::from(TestCa::shared().client_config(&["h2"]));
        let socket = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let (parts, more) = mpsc::unbounded_channel();
        let body = StreamBody::new(stream::unfold(more, async |mut more: mpsc::UnboundedReceiver<Bytes>| {
            let part = more.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(part)), more))
        }));
        let request = Request::post(ssegate.url(path)).body(Box::pin(body)).unwrap();
        let answer = within("the head", sender.send_request(request)).await.unwrap();
        Self { parts, answer: answer.into_body() }
    }

    /// Sends this, and reads until as much has come back.
    async fn echo(&mut self, part: &'static str) {
        self.parts.send(part.into()).unwrap();
        let mut back = Vec::new();
        while back.len() < part.len() {
            let frame = within("the echo", self.answer.frame()).await.unwrap().unwrap();
            back.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(back, part.as_bytes());
    }
}

#[tokio::test]
async fn bodies_go_both_ways_as_they_come_on_http2_too() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    let mut talk = Talk::begin(&ssegate, "/echo").await;
    for part in ["first", "second", "third"] {
        talk.echo(part).await;
    }
    let Talk { parts, answer } = talk;
    drop(parts);
    let rest = within("the end", answer.collect()).await.unwrap().to_bytes();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn pieces_of_a_cookie_are_put_together() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    let pieces = [("cookie", "a=1"), ("cookie", "session=s1"), ("cookie", "b=2")];
    for how in [Connect::http1(), Connect::http2()] {
        let told = request(Method::GET, &ssegate.url("/x"), &pieces, "", &how).await.json();
        assert_eq!(told["headers"]["cookie"], "a=1; session=s1; b=2");
    }
}

#[tokio::test]
async fn what_a_client_may_not_ask_of_an_application_stays_here() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    for protocol in ["h2c", "websocket, h2c", "TLS/1.0"] {
        let mut socket = tls(&ssegate).await;
        let head = format!(
            "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: {protocol}\r\n\
             http2-settings: AAMAAABk\r\nproxy-authorization: Basic eDp5\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = &mut String::new();
        until(&mut socket, answer, "\"body\":\"\"").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        for name in ["\"upgrade\"", "\"connection\"", "http2-settings", "proxy-authorization"] {
            assert!(!answer.contains(name), "{name}: {answer}");
        }
    }
    let settings = [("http2-settings", "AAMAAABk")];
    let told = request(Method::GET, &ssegate.url("/x"), &settings, "", &Connect::http2()).await.json();
    assert!(
        told["headers"]["http2-settings"].is_null(),
        "also of who does not say that it is for one connection"
    );
    let trailers = [("te", "trailers")];
    let told = request(Method::GET, &ssegate.url("/x"), &trailers, "", &Connect::http2()).await.json();
    assert_eq!((&told["headers"]["te"], &told["headers"]["connection"]), (&"trailers".into(), &"te".into()));
    let mut socket = tls(&ssegate).await;
    socket.write_all(b"GET https://user@localhost/x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = &mut String::new();
    until(&mut socket, answer, "urn:ssegate:problem:no-host").await;
}

#[tokio::test]
async fn a_request_has_its_body_whatever_its_method() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    let mut socket = tls(&ssegate).await;
    let head =
        "GET /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntext\r\n0\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    until(&mut socket, &mut String::new(), "\"body\":\"text\"").await;
    let told = request(Method::GET, &ssegate.url("/x"), &[], "", &Connect::http2()).await.json();
    assert!(told["headers"]["transfer-encoding"].is_null(), "{told}");
}

#[tokio::test]
async fn an_application_of_http_1_0_is_answered_for_in_the_clients_version() {
    let (ssegate, listener) = before_a_listener("").await;
    let mut socket = tls(&ssegate).await;
    for part in ["one", "two"] {
        socket.write_all(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let (mut app, _) = within("the request", listener.accept()).await.unwrap();
        until(&mut app, &mut String::new(), "\r\n\r\n").await;
        app.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{part}").as_bytes()).await.unwrap();
        drop(app);
        // The end is told in the client's way, and its connection goes on.
        let answer = &mut String::new();
        until(&mut socket, answer, &format!("{part}\r\n0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// Behind a proxy that terminates TLS: what that says of the client is what the application is told.
#[tokio::test]
async fn behind_a_trusted_proxy_the_application_is_told_of_the_client() {
    let app = App::start().await;
    let (addr, says) =
        (app.addr, [("x-forwarded-for", "192.0.2.7, 127.0.0.9"), ("x-forwarded-proto", "https")]);
    for (trusted, client, proto) in
        [("127.0.0.0/8", "192.0.2.7", "https"), ("10.0.0.0/8", "127.0.0.1", "http")]
    {
        let ssegate = Ssegate::start(format!(
            r#"
server: {{ listen: "127.0.0.1:0", tls: none, trusted_proxies: {trusted} }}
upstreams: {{ t: {{ ticker: {{}} }} }}
routes: [ {{ path: "/{{*rest}}", proxy: "http://{addr}" }}, {{ path: /t, from: {{ upstream: t }} }} ]
"#
        ))
        .await;
        let headers = [&says[..], &[("host", "shop.example"), ("x-forwarded-host", "evil.example")]].concat();
        let seen = &request(Method::GET, &ssegate.url("/x"), &headers, "", &Connect::http1()).await.json()["headers"];
        for (name, value) in [
            ("host", "shop.example"),
            ("x-forwarded-for", client),
            ("x-forwarded-proto", proto),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", &format!("for={client};host=\"shop.example\";proto={proto}")),
        ] {
            assert_eq!(seen[name], value, "{name} behind {trusted}");
        }
    }
}

#[tokio::test]
async fn a_connection_switches_protocols() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    let mut socket = tls(&ssegate).await;
    // Some clients do not wait for the answer.
    let head =
        "GET /switch HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\nearly;";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = &mut String::new();
    until(&mut socket, answer, "\r\n\r\nearly;").await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("upgrade: WebSocket\r\n"), "{answer}");
    for n in 0..100 {
        socket.write_all(format!("message {n};").as_bytes()).await.unwrap();
        until(&mut socket, answer, &format!("message {n};")).await;
    }
    socket.shutdown().await.unwrap();
    within("the end", socket.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_has_switched_ends_in_silence_and_not_before() {
    let app = App::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ t: {{ ticker: {{}} }} }}
routes:
  - {{ path: /t, from: {{ upstream: t }} }}
  - {{ path: /switch, proxy: {{ to: "http://{}", tunnel_timeout: 5s }} }}
"#,
        app.addr
    ))
    .await;
    let mut socket = tls(&ssegate).await;
    let head = "GET /switch HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = &mut String::new();
    until(&mut socket, answer, "\r\n\r\n").await;
    let mut moved = Instant::now();
    let end = moved + Duration::from_secs(8);
    for n in 0.. {
        answer.clear();
        socket.write_all(format!("message {n};").as_bytes()).await.unwrap();
        until(&mut socket, answer, &format!("message {n};")).await;
        if moved > end {
            break;
        }
        moved = Instant::now();
    }
    // Without the goodbye of TLS, perhaps.
    let _ = within("the end", socket.read_to_end(&mut Vec::new())).await;
    assert!(moved.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn an_application_that_is_away_or_slow_is_told_as_a_problem() {
    let app = App::start().await;
    let gone = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ t: {{ ticker: {{}} }} }}
routes:
  - {{ path: /t, from: {{ upstream: t }} }}
  - {{ path: /gone, proxy: "http://{gone}" }}
  - {{ path: /never, proxy: {{ to: "http://{}", timeout: 100ms }} }}
"#,
        app.addr
    ))
    .await;
    for how in [Connect::http1(), Connect::http2()] {
        for (path, status, name) in [("/gone", 502, "bad-gateway"), ("/never", 504, "gateway-timeout")] {
            let reply = request(Method::GET, &ssegate.url(path), &[], "", &how).await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("content-type")),
                (status, "application/problem+json")
            );
            assert_eq!(reply.json()["type"], format!("urn:ssegate:problem:{name}"));
            assert!(!reply.text().contains(&gone.to_string()), "the client is not told where it is");
        }
    }
    let metrics = ssegate.metrics().await;
    let counted = |status| metrics.sum("ssegate_proxied_requests_total", &[("status", status)]);
    assert_eq!((counted("502"), counted("504")), (2.0, 2.0));
    ssegate.wait_log("the cause", |line| line.to_string().contains("Connection refused")).await;
    for method in ["CONNECT", "TRACE"] {
        let mut socket = tls(&ssegate).await;
        socket
            .write_all(format!("{method} /never HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let answer = &mut String::new();
        until(&mut socket, answer, "\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn an_application_that_is_away_is_told_of_once_and_when_it_is_back() {
    let port = ports::free();
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ t: {{ ticker: {{}} }} }}
routes: [ {{ path: /t, from: {{ upstream: t }} }}, {{ path: "/{{*rest}}", proxy: "http://127.0.0.1:{port}" }} ]
"#
    ))
    .await;
    let status = async || request(Method::GET, &ssegate.url("/x"), &[], "", &Connect::http1()).await.status;
    for _ in 0..20 {
        assert_eq!(status().await, 502);
    }
    let app = App::start_on(port).await;
    assert_eq!(status().await, 200);
    let back = |line: &serde_json::Value| line["message"] == "an application answers again";
    assert_eq!(ssegate.wait_log("that it is back", back).await["failed"], 19);
    drop(app);
    let away = ssegate.log().into_iter().filter(|line| line["message"] == "an application does not answer");
    let away: Vec<_> = away.collect();
    assert_eq!((away.len(), &away[0]["failed"]), (1, &1.into()), "{away:?}");
    assert!(away[0]["error"].as_str().unwrap().contains("Connection refused"), "{away:?}");
}

/// What an application sees of a client that goes away, and the other way round.
#[tokio::test]
async fn either_side_that_goes_away_ends_the_other() {
    let (ssegate, listener) = before_a_listener("").await;
    let link = Link::open(&ssegate.url("/"), &Connect::http2()).await.unwrap();
    let asking = async {
        let request: Request<Full<Bytes>> = build(Method::GET, &ssegate.url("/x"), &[], "");
        link.send(request).await
    };
    let answering = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let seen = &mut String::new();
        until(&mut socket, seen, "\r\n\r\n").await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        socket
    };
    let (response, socket) = tokio::join!(asking, answering);
    let mut body = response.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "half");
    drop(socket);
    within("the stream to break", body.frame()).await.unwrap().unwrap_err();

    let asking = async {
        let request: Request<Full<Bytes>> = build(Method::GET, &ssegate.url("/y"), &[], "");
        tokio::select! { _ = link.send(request) => panic!("nobody answers"), () = std::future::pending() => {} }
    };
    let seen = &mut String::new();
    let arriving = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        until(&mut socket, seen, "\r\n\r\n").await;
        socket
    };
    let mut socket = tokio::select! { () = asking => unreachable!(), socket = arriving => socket };
    within("the request to be given up", socket.read_to_end(&mut Vec::new())).await.unwrap();
}

/// The page of an application and its EventSource share origin and cookies, without any CORS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_and_its_stream_share_an_origin() {
    let app = App::start().await;
    let ssegate = before(&app).await;
    let _browser = Browser::chromium(TestCa::shared(), &ssegate.url("/page")).await;
    let subscribed = async || {
        let status = ssegate.status().await;
        let clients = status["routes"][0]["subscribers"].as_u64();
        if clients == Some(1) { Ok(()) } else { Err(status.to_string()) }
    };
    eventually("the page to listen", subscribed).await;
    ssegate.publish("a", "news").await;
    let seen = eventually("the application to hear of it", async || app.seen().ok_or("nothing yet")).await;
    assert!(seen.starts_with("/seen?news"), "{seen}");
}

/// ssegate, with `top` in its configuration, before an application that the test itself speaks for.
pub async fn before_a_listener(top: &str) -> (Ssegate, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ssegate = Ssegate::start(format!(
        r#"
{top}
upstreams: {{ t: {{ ticker: {{}} }} }}
routes: [ {{ path: "/{{*rest}}", proxy: "http://{}" }}, {{ path: /t, from: {{ upstream: t }} }} ]
"#,
        listener.local_addr().unwrap()
    ))
    .await;
    (ssegate, listener)
}

pub async fn tls(ssegate: &Ssegate) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(ssegate.addr()).await.unwrap();
    let connector = TlsConnector::from(TestCa::shared().client_config(&["http/1.1"]));
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
}

/// Reads on into `seen` until it holds `wanted`.
pub async fn until(socket: &mut (impl tokio::io::AsyncRead + Unpin), seen: &mut String, wanted: &str) {
    let reading = async {
        while !seen.contains(wanted) {
            let mut room = [0; 4096];
            let read = socket.read(&mut room).await.unwrap();
            assert!(read > 0, "the connection ended after {seen}");
            seen.push_str(&String::from_utf8_lossy(&room[..read]));
        }
    };
    within(&format!("{wanted:?}"), reading).await;
}

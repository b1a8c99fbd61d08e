//! What a client can take of an application's connections, for how long, and who ends it.

use std::fs;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::applications::{before_a_listener, tls, until};
use crate::support::app::App;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link, build, get, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};

/// `more` of `proxy`, for all that is no stream.
async fn before(app: &App, limits: &str, more: &str) -> Ssegate {
    Ssegate::start(config(app, limits, more)).await
}

fn config(app: &App, top: &str, more: &str) -> String {
    let addr = app.addr;
    let more = if more.is_empty() { String::new() } else { format!("{more},") };
    format!(
        r#"
{top}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /events, from: {{ upstream: lobby, channel: a }} }}
  - {{ path: "/{{*rest}}", proxy: {{ {more} to: "http://{addr}" }} }}
"#
    )
}

async fn until_open(app: &App, connections: usize) {
    let open = async || match app.open() {
        open if open == connections => Ok(()),
        open => Err(format!("{open} are open")),
    };
    eventually("connections to the application", open).await;
}

const ECHO: &[u8] =
    b"POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
const SWITCH: &[u8] =
    b"GET /switch HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn an_application_has_no_more_connections_than_it_may() {
    let app = App::start().await;
    let ssegate = before(&app, "", "connections: 1, connect_timeout: 200ms").await;
    for (head, answered) in [(ECHO, "first"), (SWITCH, "101 Switching Protocols")] {
        // Whether what holds it is a body or a tunnel.
        let mut held = tls(&ssegate).await;
        held.write_all(head).await.unwrap();
        until(&mut held, &mut String::new(), answered).await;
        for how in [Connect::http1(), Connect::http2()] {
            let reply = request(Method::GET, &ssegate.url("/x"), &[], "", &how).await;
            assert_eq!((reply.status.as_u16(), reply.json()["status"].as_u64()), (503, Some(503)));
            assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
        }
        drop(held);
        eventually("the connection to be free", async || {
            match get(&ssegate.url("/x")).await.status.as_u16() {
                200 => Ok(()),
                status => Err(status),
            }
        })
        .await;
    }
    let busy = [("status", "503"), ("route", "/{*rest}")];
    assert!(ssegate.metrics().await.sum("ssegate_proxied_requests_total", &busy) >= 4.0);
}

#[tokio::test]
async fn one_that_waits_a_moment_for_a_connection_gets_it() {
    let app = App::start().await;
    let ssegate = before(&app, "", "connections: 1, connect_timeout: 5m").await;
    let mut held = tls(&ssegate).await;
    held.write_all(ECHO).await.unwrap();
    until(&mut held, &mut String::new(), "first").await;
    let url = ssegate.url("/x");
    let waiting = tokio::spawn(async move { get(&url).await });
    held.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(within("the answer", waiting).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_an_answer_is_ended() {
    let app = App::start().await;
    let ssegate = before(&app, "limits: { write_stall: 1s }", "").await;
    let calm = Link::open(&ssegate.url("/"), &Connect::http2()).await.unwrap();
    let small = Some(4096);
    for how in [
        Connect { receive_buffer: small, ..Connect::http1() },
        Connect { stream_window: Some(0), ..Connect::http2() },
    ] {
        let link = Link::open(&ssegate.url("/"), &how).await.unwrap();
        let _answer = link.send(build(Method::GET, &ssegate.url("/endless"), &[], "")).await.unwrap();
        until_open(&app, 0).await;
    }
    let answer = calm.send(build(Method::GET, &ssegate.url("/x"), &[], "")).await.unwrap();
    assert_eq!(answer.status(), 200, "others have nothing of it");
}

/// What waits for the application is not the client's fault, however long it takes.
#[tokio::test]
async fn a_client_that_waits_for_more_of_an_answer_is_not_ended() {
    let (ssegate, listener) = before_a_listener("limits: { write_stall: 1s }").await;
    let mut socket = tls(&ssegate).await;
    socket.write_all(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (mut app, _) = listener.accept().await.unwrap();
    until(&mut app, &mut String::new(), "\r\n\r\n").await;
    let answer = &mut String::new();
    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nfirst").await.unwrap();
    until(&mut socket, answer, "first").await;
    // Longer than `write_stall`, which is what this is about.
    tokio::time::sleep(Duration::from_secs(3)).await;
    app.write_all(b"second").await.unwrap();
    until(&mut socket, answer, "firstsecond").await;
}

#[tokio::test]
async fn an_upload_of_which_nothing_comes_is_ended() {
    let app = App::start().await;
    let ssegate = before(&app, "limits: { write_stall: 2s }", "timeout: 1s").await;
    // Before the answer's head, and after it.
    let mut early = tls(&ssegate).await;
    let head = "POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf";
    early.write_all(head.as_bytes()).await.unwrap();
    let answer = &mut String::new();
    until(&mut early, answer, "urn:ssegate:problem:request-timeout").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    within("the end", early.read_to_end(&mut Vec::new())).await.ok();
    let mut late = tls(&ssegate).await;
    late.write_all(ECHO).await.unwrap();
    until(&mut late, &mut String::new(), "first").await;
    within("the end", late.read_to_end(&mut Vec::new())).await.ok();
    until_open(&app, 0).await;
    assert_eq!(blamed(&ssegate), 0);
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let app = App::start().await;
    let ssegate = before(&app, "", "timeout: 3s").await;
    let mut socket = tls(&ssegate).await;
    let head = "POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    for part in ["01", "23", "45", "67", "89"] {
        // The pace of a client.
        tokio::time::sleep(Duration::from_secs(1)).await;
        socket.write_all(part.as_bytes()).await.unwrap();
    }
    let answer = &mut String::new();
    until(&mut socket, answer, "\"body\":\"0123456789\"").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && began.elapsed() > Duration::from_secs(3), "{answer}");
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_the_applications_fault() {
    let app = App::start().await;
    let ssegate = before(&app, "", "").await;
    let mut socket = tls(&ssegate).await;
    let head = "POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf";
    socket.write_all(head.as_bytes()).await.unwrap();
    until_open(&app, 1).await;
    socket.shutdown().await.unwrap();
    let answer = &mut String::new();
    until(&mut socket, answer, "urn:ssegate:problem:bad-request").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(blamed(&ssegate), 0);
}

/// Lines of the log that say that an application does not answer.
fn blamed(ssegate: &Ssegate) -> usize {
    ssegate.log().iter().filter(|line| line.to_string().contains("an application does not answer")).count()
}

/// With 128 descriptors, of which the application may take 4, there is room for 91 connections and one more.
#[tokio::test]
async fn on_a_connection_for_which_there_is_no_room_the_application_is_not_asked() {
    let app = App::start().await;
    let config = config(&app, "", "connections: 4");
    let ssegate = Ssegate::builder().config(config).descriptors(128).start().await;
    let status = &ssegate.status().await["connections"];
    assert_eq!((&status["limit"], &status["surplus"]), (&91.into(), &1.into()));
    let mut streams = Vec::new();
    for _ in 0..91 {
        let mut stream = EventSource::connect(ssegate.url("/events"), Options::http1()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    for head in ["GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n", std::str::from_utf8(SWITCH).unwrap()] {
        let mut socket = tls(&ssegate).await;
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the end", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: ") && answer.contains("connection: close\r\n"), "{answer}");
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn applications_that_want_more_than_descriptors_allow_share_what_there_is() {
    let app = App::start().await;
    let ssegate =
        Ssegate::builder().config(config(&app, "", "connections: 1000")).descriptors(128).start().await;
    let told = |line: &serde_json::Value| line.to_string().contains("`connections` of applications");
    assert_eq!(ssegate.wait_log("what is possible", told).await["possible"], 48);
    assert_eq!(ssegate.status().await["connections"]["limit"], 47);
}

/// What the kernel does where nobody else would: neither side has anything to say.
#[tokio::test]
async fn peers_that_vanish_are_tried_for() {
    let app = App::start().await;
    let ssegate = before(&app, "", "timeout: 5m").await;
    let mut client = tls(&ssegate).await;
    client.write_all(b"GET /never HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until_open(&app, 1).await;
    for (what, local, remote) in
        [("the client", Some(ssegate.addr().port()), None), ("the application", None, Some(app.addr.port()))]
    {
        let kept = async || match has_keepalive(local, remote) {
            true => Ok(()),
            false => Err("no timer of the kernel runs"),
        };
        eventually(&format!("keepalive towards {what}"), kept).await;
    }
}

/// Whether a connection from and to these ports has the kernel's timer 2, which is that of keepalives.
fn has_keepalive(local: Option<u16>, remote: Option<u16>) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let fits = |wanted: Option<u16>, address| wanted.is_none_or(|wanted| wanted == port(address));
        fields[3] == "01" && fits(local, fields[1]) && fits(remote, fields[2]) && fields[5].starts_with("02:")
    })
}

#[tokio::test]
async fn what_an_application_still_answers_has_the_drain_window() {
    let app = App::start().await;
    let mut ssegate = before(&app, "server: { listen: \"127.0.0.1:0\", tls: none, drain: 5m }", "").await;
    let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
    socket.write_all(ECHO).await.unwrap();
    until(&mut socket, &mut String::new(), "first").await;
    ssegate.signal(Signal::TERM);
    ssegate.wait_log("the drain", |line| line["message"] == "draining").await;
    // Longer than connections have that nobody needs.
    tokio::time::sleep(Duration::from_secs(4)).await;
    socket.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    until(&mut socket, &mut String::new(), "second\r\n0\r\n\r\n").await;
    // It does not wait for the window's end: the test would give up long before.
    assert!(ssegate.wait_exit().await.success());
}

//! Another server of events behind ssegate: its names, ids and `retry` go through, its stream is shared and resumed, and what
//! cannot be resumed is told. The server is one of the rig, and one of Node.js.

use std::process::Stdio;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::child::{self, Child};
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::origin::Answer;
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::sse_server::SseServer;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

/// `/all` keeps what is usual, `/short` next to nothing, both of the same path; `/rooms/{room}` is one path for each.
fn config(url: &str, keys: &str) -> String {
    format!(
        r#"
upstreams: {{ app: {{ sse: {{ url: "{url}"{keys} }} }} }}
routes:
  - {{ path: /all, from: {{ upstream: app, path: /events }}, retry: 100ms }}
  - {{ path: /short, from: {{ upstream: app, path: /events }}, event: short, history: {{ events: 3 }}, buffer: 64KiB }}
  - {{ path: "/rooms/{{room}}", from: {{ upstream: app, path: "/rooms/{{room}}?of={{room}}" }} }}
"#
    )
}

async fn start(server: &SseServer) -> Ssegate {
    Ssegate::start(config(&server.url("/"), "")).await
}

async fn connect(ssegate: &Ssegate, path: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    stream
}

/// Waits until the upstream stands, so that what is sent from now on is for it.
async fn until_up(ssegate: &Ssegate) {
    ssegate.until_counted("ssegate_upstream_up", &[("upstream", "app")], 1.0).await;
}

/// Publishes numbers, whose ids are themselves.
fn publish(server: &SseServer, numbers: std::ops::Range<i32>) {
    for number in numbers {
        server.publish("/events", &format!("id-{number}"), &number.to_string());
    }
}

fn all(numbers: std::ops::Range<i32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn one_stream_of_the_server_is_for_all_clients_and_its_names_and_ids_go_through() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    let mut first = connect(&ssegate, "/all", Options::http1()).await;
    let mut second = connect(&ssegate, "/all", Options::http2()).await;
    let mut short = connect(&ssegate, "/short", Options::http2()).await;
    server.send("/events", "\u{feff}: hello\r\n\r\nevent: add\rdata: a\rdata: b\rid: it is 1\r\r");
    server.send("/events", "data: c\n");
    server.send("/events", "\nevent: stream.gap\ndata: forged\nid: 2\n\n");
    for stream in [&mut first, &mut second] {
        let event = stream.next_message().await;
        assert_eq!((&*event.event, &*event.data, &*event.id), ("add", "a\nb", "it is 1"));
        let event = stream.next_message().await;
        assert_eq!(
            (&*event.event, &*event.data, &*event.id),
            ("message", "c", "it is 1"),
            "has none of its own"
        );
        let event = stream.next_message().await;
        assert_eq!(
            (&*event.event, &*event.data, &*event.id),
            ("_stream.gap", "forged", "2"),
            "is an event like any other"
        );
    }
    let names = [short.next_message().await.event, short.next_message().await.event];
    assert_eq!(names, ["add", "short"], "the route names what has no name");
    assert_eq!(server.requests("/events").len(), 1);
    let asked = server.requests("/events").remove(0);
    assert_eq!(asked["accept"], "text/event-stream");
    assert_eq!((asked["accept-encoding"].as_bytes(), asked.get("last-event-id")), (&b"identity"[..], None));
    // A client comes back with an id that it was given.
    first.close();
    let mut back = connect(&ssegate, "/all", Options::http1().resume("it is 1")).await;
    assert_eq!(back.next_data(2).await, ["c", "forged"], "nothing is lost that has no id of its own");
}

/// Many begin with the state as it is: nobody else is given that.
#[tokio::test]
async fn who_opens_the_feed_is_given_all_from_the_beginning_on() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    for (number, bytes, id) in
        [(0, "data: state\n\n", None), (1, "data: state\nid: it is 1\n\n", Some("it is 1"))]
    {
        for room in (0..10).map(|room| format!("{number}-{room}")) {
            let asked = format!("/rooms/{room}?of={room}");
            server.begin(&asked, bytes);
            let mut client = connect(&ssegate, &format!("/rooms/{room}"), Options::http2()).await;
            server.until_open(&asked, 1).await;
            server.send(&asked, "data: next\n\n");
            let state = client.next_message().await;
            assert_eq!(state.data, "state", "{room}");
            assert!(id.is_none_or(|id| *state.id == *id), "{state:?}");
            assert_eq!(client.next_data(1).await, ["next"]);
            let gaps = client.events().iter().filter(|event| event.event == "stream.gap").count();
            assert_eq!(gaps, 0);
        }
    }
}

/// Of what was before nothing is known: neither what there is of it nor what is missing.
#[tokio::test]
async fn who_wants_what_was_before_is_told_of_no_gap() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    for path in ["/all?since=1h", "/short?since=1h"] {
        let mut client = connect(&ssegate, path, Options::http2()).await;
        let json = [("accept", "application/json")];
        let page = request(Method::GET, &ssegate.url(path), &json, "", &Connect::http1()).await;
        assert_eq!((page.status.as_u16(), &page.json()["gaps"]), (200, &json!([])), "{}", page.text());
        until_up(&ssegate).await;
        server.until_open("/events", 1).await;
        server.send("/events", "data: x\n\n");
        assert_eq!(client.next_data(1).await, ["x"]);
        assert!(client.events().iter().all(|event| event.event != "stream.gap"));
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_named_and_nothing_that_it_is_asked_with() {
    let port = ports::free();
    for kind in ["sse", "http"] {
        let upstream = format!("upstreams: {{ app: {{ {kind}: {{ url: 'http://localhost:{port}' }} }} }}");
        let route = "{ path: /x, from: { upstream: app, path: '/events?key=s3cr3t' } }";
        let ssegate = Ssegate::start(format!("{upstream}\nroutes: [{route}]\n")).await;
        let named = format!("localhost:{port}: Connection refused");
        let line = ssegate.wait_log("who it is", |line| line.to_string().contains(&named)).await;
        let cause = field(&line, "cause").unwrap_or_default();
        assert!(cause.contains(&named) && !cause.contains("s3cr3t"), "{line}");
    }
}

#[tokio::test]
async fn parameters_are_parts_of_the_path_and_nothing_more() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    let room = connect(&ssegate, "/rooms/a%2Fb%3F%26%20c", Options::http1());
    let asked = "/rooms/a%2Fb%3F%26%20c?of=a%2Fb%3F%26%20c";
    server.until_open(asked, 0).await;
    let (mut room, ()) = tokio::join!(room, server.until_asked(asked, 1));
    server.send(asked, "data: x\n\n");
    assert_eq!(room.next_data(1).await, ["x"]);
    for bad in ["/rooms/%2e%2E", "/rooms/.", "/rooms/%2E"] {
        let refused = EventSource::request(ssegate.url(bad), Options::http1()).await;
        assert_eq!(refused.status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_or_is_cut_is_resumed_and_nothing_is_missing_or_given_twice() {
    let server = SseServer::start().await;
    let link = Proxy::start(server.addr()).await;
    let ssegate = Ssegate::start(config(&format!("http://{}", link.addr()), "")).await;
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    publish(&server, 0..10);
    assert_eq!(client.next_data(10).await, all(0..10));
    server.end("/events");
    publish(&server, 10..20);
    assert_eq!(client.next_data(10).await, all(10..20));
    server.until_open("/events", 1).await;
    link.cut_all();
    publish(&server, 20..30);
    assert_eq!(client.next_data(10).await, all(20..30));
    let ids: Vec<_> =
        client.events().iter().filter(|event| event.event == "message").map(|event| &*event.id).collect();
    assert_eq!(ids, (0..30).map(|number| format!("id-{number}")).collect::<Vec<_>>());
    assert_eq!(server.asked_after("/events")[..3], ["", "id-9", "id-19"]);
}

#[tokio::test]
async fn a_server_that_gives_no_ids_is_one_that_loses_what_it_sends_meanwhile() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    server.send("/events", "data: a\n\ndata: b\n\n");
    let a = client.next_message().await;
    assert_eq!((&*a.data, client.next_message().await.data), ("a", "b".to_owned()));
    server.end("/events");
    let gap = client.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    assert!(gap["since"].is_string() && gap["until"].is_string(), "{gap}");
    server.until_open("/events", 1).await;
    server.send("/events", "data: c\n\n");
    assert_eq!(client.next_data(1).await, ["c"]);
    // Ids of the log's own lead to the same place.
    let mut back = EventSource::connect(ssegate.url("/all"), Options::http1().resume(&a.id)).await;
    back.next_named("stream.position").await;
    assert_eq!(back.next().await.data, "b");
    assert_eq!(back.next_gap().await["reason"], "upstream_lost");
    assert_eq!(back.next_data(1).await, ["c"]);
    let mut stranger =
        EventSource::connect(ssegate.url("/all"), Options::http1().resume("0123456789abcdef-1")).await;
    assert_eq!(stranger.next_gap().await["reason"], "unknown_id");
    assert_eq!(server.requests("/events").len(), 2, "nobody is asked for ids that it does not give");
}

#[tokio::test]
async fn what_the_log_does_not_hold_is_asked_of_the_server_once_for_all_who_want_it() {
    let server = SseServer::start().await;
    publish(&server, 0..100);
    let ssegate = start(&server).await;
    until_up(&ssegate).await;
    // Of before the log began.
    let mut early = connect(&ssegate, "/all", Options::http2().resume("id-49")).await;
    assert_eq!(early.next_data(50).await, all(50..100));
    publish(&server, 100..110);
    assert_eq!(early.next_data(10).await, all(100..110));
    let before = server.requests("/events").len();
    let mut many = Vec::new();
    for _ in 0..20 {
        many.push(connect(&ssegate, "/short", Options::http2().resume("id-9")).await);
    }
    for stream in &mut many {
        assert_eq!(stream.next_data(100).await, all(10..110));
    }
    let asked = server.asked_after("/events").split_off(before);
    assert_eq!(asked.iter().filter(|id| *id == "id-9").count(), 1, "{asked:?}");
    publish(&server, 110..200);
    for stream in &mut many {
        assert_eq!(stream.next_data(90).await, all(110..200));
    }
    // All of it came without a gap, also what only the server had.
    assert_eq!(ssegate.metrics().await.sum("ssegate_client_gaps_total", &[]), 0.0);
}

#[tokio::test]
async fn a_client_that_waits_for_the_servers_history_is_there_when_the_stream_goes_on() {
    let server = SseServer::start().await;
    publish(&server, 0..3);
    let ssegate = start(&server).await;
    until_up(&ssegate).await;
    // There is nothing after that, which nobody knows until something comes.
    let mut last = connect(&ssegate, "/all", Options::http2().resume("id-2")).await;
    server.until_asked("/events", 2).await;
    eventually("the wait to be parked", async || match server.open("/events") {
        1 => Ok(()),
        open => Err(open),
    })
    .await;
    publish(&server, 3..5);
    assert_eq!(last.next_data(2).await, all(3..5));
    assert_eq!(last.events().iter().filter(|event| event.event == "stream.gap").count(), 0);
}

#[tokio::test]
async fn an_id_that_the_server_refuses_is_unknown() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    let mut live = connect(&ssegate, "/all", Options::http2()).await;
    publish(&server, 0..1);
    assert_eq!(live.next_data(1).await, ["0"]);
    server.answer("/events", Some(Answer { status: 410, ..Answer::default() }));
    let mut stranger = EventSource::connect(ssegate.url("/all"), Options::http2().resume("gone")).await;
    assert_eq!(stranger.next_gap().await["reason"], "unknown_id");
    server.answer("/events", None);
    publish(&server, 1..2);
    assert_eq!(live.next_data(1).await, ["1"], "the stream goes on");
}

#[tokio::test]
async fn a_server_that_does_not_go_by_its_ids_is_caught_or_told_of() {
    for (keys, told) in [("", true), (", resume: false", false)] {
        let server = SseServer::start().await;
        server.forget_ids("/events");
        let ssegate = Ssegate::start(config(&server.url("/"), keys)).await;
        let mut client = connect(&ssegate, "/all", Options::http2()).await;
        publish(&server, 0..3);
        let first = client.next_message().await;
        assert_eq!(first.id == "id-0", told, "{}", first.id);
        assert_eq!(client.next_data(2).await, all(1..3));
        server.end("/events");
        server.until_open("/events", 1).await;
        // As the usual tutorial has it, each stream begins anew.
        publish(&server, 0..1);
        assert_eq!(client.next_gap().await["reason"], "upstream_lost");
        assert_eq!(client.next_data(1).await, ["0"]);
        if told {
            ssegate.wait_log("advice", |line| line.to_string().contains("`resume: false`")).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_stream_is_told_and_tried_again() {
    let ca = TestCa::shared();
    for (answer, cause) in [
        (Answer { status: 503, ..Answer::default() }, "the server answers 503"),
        (Answer { status: 404, ..Answer::default() }, "the server answers 404"),
        (Answer { status: 204, ..Answer::default() }, "there is no more (204)"),
        (answer(&[("content-type", "text/html")]), "no event stream"),
        (answer(&[("content-type", "text/event-stream"), ("content-encoding", "gzip")]), "packs its answer"),
        (redirect(302, "/events"), "redirected more than 5 times"),
        (redirect(301, "ftp://x/"), "does not say where to"),
    ] {
        let server = SseServer::start_tls(ca, &["http/1.1"]).await;
        server.answer("/events", Some(answer.clone()));
        let keys = format!(", tls: {{ ca: {:?} }}", ca.cert_path());
        let ssegate = Ssegate::start(config(&server.url("/"), &keys)).await;
        let down = ssegate.wait_log(cause, |line| line.to_string().contains(cause)).await;
        assert_eq!(field(&down, "message"), Some("upstream is down; trying again until it is back"));
        // A client is held, and is served as soon as there is something to serve.
        let mut client = EventSource::connect(ssegate.url("/all"), Options::http2()).await;
        server.answer("/events", None);
        if answer.status != 204 {
            client.next_named("stream.position").await;
            server.send("/events", "data: x\n\n");
            assert_eq!(client.next_data(1).await, ["x"]);
        }
    }
}

fn answer(headers: &[(&str, &str)]) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer { status: 200, headers, body: "data: x\n\n".into() }
}

fn redirect(status: u16, to: &str) -> Answer {
    Answer { status, ..answer(&[("location", to)]) }
}

#[tokio::test]
async fn credentials_are_for_the_server_and_for_nobody_to_whom_it_sends_on() {
    let (server, other) = (SseServer::start().await, SseServer::start().await);
    let keys = ", bearer: 's3cret', headers: { X-Tenant: t1 }";
    server.answer("/v1/events", Some(redirect(307, "/v2/events")));
    let ssegate = Ssegate::start(config(&server.url("/v1/"), keys)).await;
    server.until_open("/v2/events", 1).await;
    for path in ["/v1/events", "/v2/events"] {
        let asked = server.requests(path).pop().unwrap();
        assert_eq!(
            (asked["authorization"].as_bytes(), asked["x-tenant"].as_bytes()),
            (&b"Bearer s3cret"[..], &b"t1"[..])
        );
    }
    server.answer("/v1/events", Some(redirect(308, &other.url("/theirs"))));
    server.end("/v2/events");
    other.until_open("/theirs", 1).await;
    let asked = other.requests("/theirs").remove(0);
    assert_eq!((asked.get("authorization"), asked.get("x-tenant")), (None, None));
    assert_eq!(asked["accept"], "text/event-stream");
    assert!(!ssegate.log().iter().any(|line| line.to_string().contains("s3cret")));
}

#[tokio::test]
async fn a_silence_is_the_end_of_a_link_and_a_comment_is_none() {
    let server = SseServer::start().await;
    let link = Proxy::start(server.addr()).await;
    let ssegate = Ssegate::start(config(&format!("http://{}", link.addr()), ", idle: 3s")).await;
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    // For longer than that, and each long before its time, however busy the machine is.
    for _ in 0..16 {
        server.send("/events", ":\n\n");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(server.requests("/events").len(), 1);
    publish(&server, 0..1);
    assert_eq!(client.next_data(1).await, ["0"]);
    // Connections stay open, and nothing gets through.
    link.pause();
    publish(&server, 1..3);
    ssegate.wait_log("a silence", |line| line.to_string().contains("has been silent for 3s")).await;
    link.cut_all();
    link.resume();
    assert_eq!(client.next_data(2).await, all(1..3));
}

#[tokio::test]
async fn an_event_that_is_too_large_is_a_gap_and_what_follows_it_comes() {
    let server = SseServer::start().await;
    let limits = "limits: { max_event: 1KiB }\n";
    let ssegate = Ssegate::start(format!("{limits}{}", config(&server.url("/"), ""))).await;
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    publish(&server, 0..1);
    // One that the reader holds and the route refuses, and one that is larger than anybody holds.
    for (id, length) in [("large", 2_000), ("huge", 200_000)] {
        server.publish("/events", id, &"x".repeat(length));
    }
    publish(&server, 1..2);
    assert_eq!(client.next_data(1).await, ["0"]);
    for id in ["large", "huge"] {
        let gap = client.next_gap().await;
        assert_eq!((&gap["reason"], &gap["missed"]), (&json!("too_large"), &json!(1)));
        assert_eq!(client.next_named("stream.position").await.id, id);
    }
    assert_eq!(client.next_data(1).await, ["1"]);
    assert_eq!(server.requests("/events").len(), 1);
    // So it is for who asks the server for it.
    let mut short = EventSource::connect(ssegate.url("/short"), Options::http2().resume("id-0")).await;
    assert_eq!(
        [short.next_gap().await, short.next_gap().await].map(|gap| gap["reason"].clone()),
        ["too_large"; 2]
    );
    assert_eq!(short.next_data(1).await, ["1"]);
}

#[tokio::test]
async fn many_paths_share_a_connection_of_http_2_and_each_has_one_of_http_1() {
    let ca = TestCa::shared();
    for (alpn, most) in [(&["h2", "http/1.1"][..], 2), (&["http/1.1"], 3)] {
        let server = SseServer::start_tls(ca, alpn).await;
        let keys = format!(", connections: 3, tls: {{ ca: {:?} }}", ca.cert_path());
        let ssegate = Ssegate::start(config(&server.url("/"), &keys)).await;
        server.until_open("/events", 1).await;
        let mut rooms = Vec::new();
        for room in 0..8 {
            rooms.push(EventSource::connect(ssegate.url(&format!("/rooms/{room}")), Options::http2()).await);
        }
        let path = |room| format!("/rooms/{room}?of={room}");
        if most == 3 {
            let taken = "all of its 3 connections are taken; allow more of them";
            ssegate.wait_log(taken, |line| line.to_string().contains(taken)).await;
            eventually("two rooms to be open beside /events", async || {
                match (0..8).filter(|room| server.open(&path(*room)) == 1).count() {
                    2 => Ok(()),
                    open => Err(open),
                }
            })
            .await;
            assert_eq!(server.connections(), 3);
            continue;
        }
        for (room, stream) in rooms.iter_mut().enumerate() {
            stream.next_named("stream.position").await;
            server.send(&path(room), "data: x\n\n");
            assert_eq!(stream.next_data(1).await, ["x"]);
        }
        assert!(server.connections() <= most, "{} connections", server.connections());
    }
}

#[tokio::test]
async fn a_server_says_when_it_is_to_be_asked_again() {
    let server = SseServer::start().await;
    let ssegate = start(&server).await;
    server.until_open("/events", 1).await;
    server.send("/events", "retry: 700\n\n");
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    publish(&server, 0..1);
    client.next_data(1).await;
    let ended = std::time::Instant::now();
    server.end("/events");
    server.until_asked("/events", 2).await;
    let wait = ended.elapsed();
    assert!(wait >= Duration::from_millis(690), "{wait:?}");
}

#[tokio::test]
async fn a_token_is_changed_while_streams_are_open_and_nothing_is_lost() {
    let server = SseServer::start().await;
    let with = |token: &str| config(&server.url("/"), &format!(", bearer: {token}"));
    let ssegate = Ssegate::start(with("one")).await;
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    publish(&server, 0..5);
    assert_eq!(client.next_data(5).await, all(0..5));
    let changes = ssegate.reload(&with("two")).await;
    assert_eq!(changes, ["upstream app: connects anew; its streams stay"]);
    server.until_asked("/events", 2).await;
    publish(&server, 5..10);
    assert_eq!(client.next_data(5).await, all(5..10));
    let asked = server.requests("/events").pop().unwrap();
    assert_eq!(
        (asked["authorization"].as_bytes(), asked["last-event-id"].as_bytes()),
        (&b"Bearer two"[..], &b"id-4"[..])
    );
}

#[tokio::test]
async fn a_feed_that_nobody_reads_is_let_go_with_its_stream() {
    let server = SseServer::start().await;
    let text = config(&server.url("/"), "").replace("?of={room}\" }", "\" }, idle_timeout: 0");
    let ssegate = Ssegate::start(text).await;
    let room = connect(&ssegate, "/rooms/a", Options::http2()).await;
    server.until_open("/rooms/a", 1).await;
    drop(room);
    server.until_open("/rooms/a", 0).await;
    drop(ssegate);
}

/// As an application would be written: events in pieces, lines that end in CRLF, streams of twenty events, and the rest for
/// who comes back with `Last-Event-ID`.
#[tokio::test]
async fn an_application_of_node_is_read_without_a_gap() {
    let port = ports::free();
    let mut node = child::command("node");
    node.args(["-e", APPLICATION, &port.to_string()]).stdout(Stdio::null());
    let _node = Child::spawn(node);
    let ssegate = Ssegate::start(config(&format!("http://localhost:{port}"), "")).await;
    let mut client = connect(&ssegate, "/all", Options::http2()).await;
    let first: i32 = client.next_data(1).await[0].parse().unwrap();
    assert_eq!(client.next_data(100).await, all(first + 1..first + 101));
    assert!(
        client.events().iter().filter(|event| event.event == "message").all(|event| event.id == event.data)
    );
    let mut early = connect(&ssegate, "/all", Options::http1().resume("0")).await;
    assert_eq!(early.next_data(50).await, all(1..51));
}

const APPLICATION: &str = r#"
const http = require('http');
let newest = 0;
const open = new Set();
const send = (stream, number) => {
    stream.write(`: ${number}\r\ndata: ${number}\r`);
    stream.write(`\nid: ${number}\r\n\r\n`);
    if (++stream.sent === 20) { open.delete(stream); stream.end(); }
};
http.createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('retry: 100\n\n');
    response.sent = 0;
    open.add(response);
    response.on('close', () => open.delete(response));
    const after = request.headers['last-event-id'];
    for (let number = +after + 1; number <= newest && response.sent < 20; number++) send(response, number);
}).listen(+process.argv[1]);
setInterval(() => { newest++; for (const stream of open) send(stream, newest); }, 10);
"#;

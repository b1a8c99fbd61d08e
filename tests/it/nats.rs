//! NATS on a real server: subjects with wildcards and parameters, headers, ways to enter, TLS, several servers, and a link
//! that goes and comes.

use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;

use crate::support::eventsource::{EventSource, Options};
use crate::support::nats::{Nats, publish};
use crate::support::proxy::Proxy;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

fn config(nats: &str) -> String {
    format!(
        r#"
upstreams: {{ bus: {{ nats: {{ {nats}, ping_interval: 200ms, timeout: 3s }} }} }}
routes:
  - {{ path: /news, from: {{ upstream: bus, subject: news }} }}
  - {{ path: /all, from: {{ upstream: bus, subject: ">" }}, event: "{{subject}}" }}
  - {{ path: "/rooms/{{room}}", from: {{ upstream: bus, subject: "rooms.{{room}}.*" }}, event: "{{header.kind}}" }}
"#
    )
}

fn servers(nats: &Nats) -> String {
    format!("servers: \"{}\"", nats.url())
}

#[tokio::test]
async fn subjects_wildcards_parameters_and_headers() {
    let nats = Nats::start().await;
    let ssegate = Ssegate::start(config(&servers(&nats))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    let mut all = EventSource::connect(ssegate.url("/all"), Options::http1()).await;
    let mut room = EventSource::connect(ssegate.url("/rooms/7"), Options::http2()).await;
    for stream in [&mut news, &mut all, &mut room] {
        stream.next_named("stream.position").await;
    }
    let client = nats.client().await;
    let mut headers = HeaderMap::new();
    headers.append("kind", "first");
    headers.append("kind", "joined");
    client.publish_with_headers("rooms.7.people", headers, "Ada".into()).await.unwrap();
    publish(
        &client,
        [("rooms.8.people", "not here"), ("rooms.7", "nor here"), ("news", "extra"), ("rooms.7.x", "y")],
    )
    .await;
    let joined = room.next().await;
    assert_eq!((&*joined.event, &*joined.data), ("joined", "Ada"));
    assert_eq!((room.next().await.data, news.next().await.data), ("y".to_owned(), "extra".to_owned()));
    let mut given = Vec::new();
    while given.len() < 5 {
        let event = all.next().await;
        // The server's own and the rig's come by it as well.
        if event.event.starts_with("rooms") || event.event == "news" {
            given.push((event.event, event.data));
        }
    }
    assert_eq!(given[0], ("rooms.7.people".to_owned(), "Ada".to_owned()));
    assert_eq!(given[3], ("news".to_owned(), "extra".to_owned()));
    assert_eq!(nats.connections().await.iter().filter(|one| one["name"] == "ssegate").count(), 1);
}

#[tokio::test]
async fn a_parameter_cannot_be_more_than_one_token() {
    let nats = Nats::start().await;
    let ssegate = Ssegate::start(config(&servers(&nats))).await;
    for room in ["*", "%3E", "a.b", "a%20b"] {
        let source = EventSource::request(ssegate.url(&format!("/rooms/{room}")), Options::http1()).await;
        assert_eq!(source.status(), 400, "{room}");
    }
    let source = EventSource::connect(ssegate.url("/rooms/$SYS"), Options::http1()).await;
    assert_eq!(source.status(), 200, "it is not the first token");
}

#[tokio::test]
async fn a_subject_is_left_when_nobody_wants_it() {
    let nats = Nats::start().await;
    let text = config(&servers(&nats)) + "defaults: { idle_timeout: 0s }\n";
    let ssegate = Ssegate::start(text).await;
    let mut room = EventSource::connect(ssegate.url("/rooms/7"), Options::http1()).await;
    room.next_named("stream.position").await;
    assert_eq!(nats.subscribers("rooms.7.*").await, 1);
    room.close();
    eventually("the subscription to end", async || match nats.subscribers("rooms.7.*").await {
        0 => Ok(()),
        _ => Err("it is there"),
    })
    .await;
    let mut again = EventSource::connect(ssegate.url("/rooms/7"), Options::http1()).await;
    again.next_named("stream.position").await;
    publish(&nats.client().await, [("rooms.7.a", "x")]).await;
    assert_eq!(again.next().await.data, "x");
}

#[tokio::test]
async fn a_lost_server_ends_no_stream_and_is_told_with_its_span() {
    let mut nats = Nats::start().await;
    let ssegate = Ssegate::start(config(&servers(&nats))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    publish(&nats.client().await, [("news", "before")]).await;
    let before = news.next_message().await;
    nats.kill();
    let cause = ssegate.cause().await;
    assert!(cause.contains(&format!("127.0.0.1:{}", nats.port())), "it names the address: {cause}");
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200);
    let mut joined = EventSource::connect(ssegate.url("/news"), Options::http1().resume(&before.id)).await;
    assert_eq!(joined.next_named("stream.position").await.id, before.id);
    nats.restart().await;
    nats.until_subscribed("news", 1).await;
    for stream in [&mut news, &mut joined] {
        let gap = stream.next_gap().await;
        assert_eq!(gap["reason"], "upstream_lost");
        let time = |member: &str| humantime::parse_rfc3339(gap[member].as_str().unwrap()).unwrap();
        let (since, until) = (time("since"), time("until"));
        assert!(since <= until && until <= SystemTime::now());
        assert!(until.duration_since(since).unwrap() < Duration::from_secs(60));
        assert_eq!(stream.next().await.event, "stream.position");
    }
    publish(&nats.client().await, [("news", "after")]).await;
    assert_eq!((news.next().await.data, joined.next().await.data), ("after".to_owned(), "after".to_owned()));
    assert!(ssegate.status().await["upstreams"][0]["reconnects"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_by_its_ping() {
    let nats = Nats::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into()).await;
    let ssegate = Ssegate::start(config(&format!("servers: \"nats://{}\"", proxy.addr()))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    proxy.pause();
    let cause = ssegate.cause().await;
    assert!(cause.contains("ping"), "{cause}");
    proxy.resume();
    assert_eq!(news.next_gap().await["reason"], "upstream_lost");
}

#[tokio::test]
async fn of_several_servers_one_that_is_up_is_found() {
    let (mut dead, nats) = (Nats::start().await, Nats::start().await);
    dead.kill();
    let list = format!("servers: [\"{}\", \"{}\"]", dead.url(), nats.url());
    for _ in 0..4 {
        let ssegate = Ssegate::start(config(&list)).await;
        let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
        news.next_named("stream.position").await;
        publish(&nats.client().await, [("news", "x")]).await;
        assert_eq!(news.next().await.data, "x");
        assert!(ssegate.status().await["upstreams"][0]["last_error"].is_null());
    }
}

#[tokio::test]
async fn what_is_refused_is_told_once_and_holds_nothing_else_up() {
    let nats = Nats::start_with(
        "authorization { users: [ { user: gate, password: pw, permissions: { subscribe: [\"news\", \"_INBOX.>\"] } },
           { user: all, password: all } ] }",
    )
    .await;
    let ssegate = Ssegate::start(config(&format!("{}, user: gate, password: pw", servers(&nats)))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    let held = EventSource::connect(ssegate.url("/rooms/7"), Options::http1()).await;
    news.next_named("stream.position").await;
    let options = async_nats::ConnectOptions::with_user_and_password("all".into(), "all".into());
    publish(&nats.client_with(options).await, [("news", "x"), ("rooms.7.a", "y")]).await;
    assert_eq!(news.next().await.data, "x");
    let refused = ssegate
        .wait_log("the refusal", |line| field(line, "cause").unwrap_or_default().contains("rooms.7.*"))
        .await;
    assert!(field(&refused, "cause").unwrap().contains("refused"), "{refused}");
    assert!(held.events().is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_told_once_in_steady_words_and_never_shown() {
    let nats = Nats::start_with("authorization { user: gate, password: right-pw }").await;
    let ssegate =
        Ssegate::start(config(&format!("{}, user: gate, password: wrong-s3cr3t", servers(&nats)))).await;
    let cause = ssegate.cause().await;
    let expected = format!("NATS at 127.0.0.1:{} turned ssegate away: Authorization Violation", nats.port());
    assert_eq!(cause, expected);
    ssegate.assert_told_once_without("s3cr3t").await;
}

#[tokio::test]
async fn one_enters_by_password_token_or_key() {
    // A key of nobody, made for this.
    let seed = "SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ";
    let public = nkeys_public(seed);
    for (server, client) in [
        ("user: gate, password: pw".to_owned(), "user: gate, password: pw".to_owned()),
        ("token: t0k3n".to_owned(), "token: t0k3n".to_owned()),
        (format!("users: [ {{ nkey: {public} }} ]"), format!("nkey: {seed}")),
    ] {
        let nats = Nats::start_with(&format!("authorization {{ {server} }}")).await;
        let ssegate = Ssegate::start(config(&format!("{}, {client}", servers(&nats)))).await;
        let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
        news.next_named("stream.position").await;
        nats.until_subscribed("news", 1).await;
    }
}

/// By the library that NATS's own client has.
fn nkeys_public(seed: &str) -> String {
    nkeys::KeyPair::from_seed(seed).expect("a seed").public_key()
}

#[tokio::test]
async fn tls_by_an_own_authority_and_a_client_certificate() {
    let ca = TestCa::new();
    let nats = Nats::start_with(&Nats::tls_config(&ca, ca.leaf(), true)).await;
    let tls = format!("tls: {}", ca.tls_of_client("ssegate"));
    // A server that wants TLS gets it, whatever the URL says.
    for scheme in ["tls", "nats"] {
        let ssegate =
            Ssegate::start(config(&format!("servers: \"{scheme}://localhost:{}\", {tls}", nats.port())))
                .await;
        let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
        news.next_named("stream.position").await;
        nats.until_subscribed("news", 1).await;
    }
    let alien = format!("tls: {{ ca: {} }}", TestCa::shared().cert_path().display());
    let ssegate =
        Ssegate::start(config(&format!("servers: \"tls://localhost:{}\", {alien}", nats.port()))).await;
    let cause = ssegate.cause().await;
    assert!(cause.contains("certificate"), "{cause}");
}

#[tokio::test]
async fn tls_that_is_a_must_is_not_done_without() {
    let nats = Nats::start().await;
    let ssegate = Ssegate::start(config(&format!("servers: \"tls://localhost:{}\"", nats.port()))).await;
    let cause = ssegate.cause().await;
    assert!(cause.contains(&format!("connecting to NATS at localhost:{}", nats.port())), "{cause}");
    assert!(nats.connections().await.iter().all(|one| one["name"] != "ssegate"));
}

#[tokio::test]
async fn entering_in_another_way_keeps_streams_and_tells_what_may_be_missed() {
    let nats =
        Nats::start_with("authorization { users: [ { user: a, password: a }, { user: b, password: b } ] }")
            .await;
    let as_user = |user: &str| config(&format!("{}, user: {user}, password: {user}", servers(&nats)));
    let ssegate = Ssegate::start(as_user("a")).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    let changes = ssegate.reload(&as_user("b")).await;
    assert_eq!(changes, ["upstream bus: connects anew; its streams stay"]);
    assert_eq!(news.next_gap().await["reason"], "upstream_lost");
    assert_eq!(news.next().await.event, "stream.position");
    let options = async_nats::ConnectOptions::with_user_and_password("a".into(), "a".into());
    publish(&nats.client_with(options).await, [("news", "x")]).await;
    assert_eq!(news.next().await.data, "x");
}

#[tokio::test]
async fn a_burst_is_given_whole_and_in_order() {
    let nats = Nats::start().await;
    let ssegate = Ssegate::start(config(&servers(&nats))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    let filling = "x".repeat(1_000);
    publish(&nats.client().await, (0..5_000).map(|n| ("news", format!("{n} {filling}")))).await;
    for n in 0..5_000 {
        let data = news.next_message().await.data;
        assert_eq!(data.split(' ').next(), Some(&*n.to_string()));
        news.forget();
    }
}

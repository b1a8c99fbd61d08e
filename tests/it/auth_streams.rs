//! How long a stream lasts: until its credential ends, is withdrawn or renewed, and the age that its route allows.

use std::fs;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};

use crate::auth::SECRET;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::ssegate::Ssegate;
use crate::support::token::{hs256, now};

/// Seconds: time enough to open a stream and to hear something before its end is told.
const LATER: u64 = 8;
const STAFF: &str = "the secret of another provider than that";

async fn start(more: &str) -> Ssegate {
    let config = format!(
        r#"
auth:
  users: {{ jwt: {{ secret: "{SECRET}", leeway: 0s }} }}
  staff: {{ jwt: {{ secret: "{STAFF}", leeway: 0s }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: "/r/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }}, auth: users, expiring: 2s, retry: 100ms, allow: "!has(claims.room) || claims.room == params.room" }}
  - {{ path: /aged, from: {{ upstream: lobby, channel: a }}, max_age: 1s, retry: 100ms }}
  - {{ path: /told, from: {{ upstream: lobby, channel: a }}, auth: [users, staff], expiring: 1h }}
{more}
"#
    );
    Ssegate::start(config).await
}

fn token(subject: &str, expires_in: u64) -> String {
    hs256(SECRET, json!({ "sub": subject, "jti": format!("{subject}-1"), "exp": now() + expires_in }))
}

fn bearing(options: Options, token: &str) -> Options {
    options.header("authorization", &format!("Bearer {token}"))
}

async fn open(ssegate: &Ssegate, path: &str, options: Options, token: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), bearing(options, token)).await
}

async fn renew(ssegate: &Ssegate, link: &str, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    request(Method::POST, &ssegate.url(link), &headers, "", &Connect::http1()).await
}

async fn ended(ssegate: &Ssegate, reason: &str, count: f64) {
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", reason)], count).await;
}

#[tokio::test]
async fn a_stream_says_that_it_will_end_and_ends_with_its_token() {
    let ssegate = start("").await;
    for options in [Options::http1(), Options::http2()] {
        let (end, token) = (now() + LATER, token("alice", LATER));
        let mut stream = open(&ssegate, "/r/a", options, &token).await;
        ssegate.publish("a", "before").await;
        assert_eq!(stream.next_message().await.data, "before");
        let id = stream.last_event_id().to_owned();
        let notice = stream.next().await;
        assert_eq!(notice.event, "stream.expiring");
        let data: Value = serde_json::from_str(&notice.data).unwrap();
        let expires = humantime::parse_rfc3339(data["expires"].as_str().unwrap()).unwrap();
        let expires = expires.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((end..=end + 1).contains(&expires), "{expires} is not {end}");
        assert!(data["renew"].as_str().unwrap().starts_with("/r/a?renew="));
        assert_eq!(stream.last_event_id(), id, "it does not move the client");
        assert!(now() >= end - 3, "two seconds before");
        assert_eq!(stream.until_end().await, End::Complete);
        assert!(now() >= end, "not before the token does");
        assert_eq!(stream.events().iter().filter(|event| event.event == "stream.expiring").count(), 1);
        stream.try_open().await.unwrap();
        assert_eq!(stream.status(), 401, "coming back meets the rules again");
    }
    ended(&ssegate, "expired", 2.0).await;
}

#[tokio::test]
async fn a_fresh_token_prolongs_a_stream_in_place() {
    let ssegate = start("").await;
    for options in [Options::http1(), Options::http2()] {
        let mut stream = open(&ssegate, "/r/a", options, &token("alice", 6)).await;
        let notice: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
        let link = notice["renew"].as_str().unwrap();
        // It is told again of its end, which shows that it has outlived the first one.
        let (first, answer) = (&notice["expires"], renew(&ssegate, link, &token("alice", 12)).await);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let second: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
        assert_eq!(second["expires"], answer.json()["expires"]);
        assert_ne!(second["expires"], *first);
        let over = humantime::parse_rfc3339(first.as_str().unwrap()).unwrap();
        assert!(SystemTime::now() >= over, "it came before the first end");
        let answer = renew(&ssegate, second["renew"].as_str().unwrap(), &token("alice", 300)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        ssegate.publish("a", "on and on").await;
        assert_eq!(stream.next_message().await.data, "on and on");
    }
    ended(&ssegate, "expired", 0.0).await;
}

#[tokio::test]
async fn only_the_same_client_with_a_good_token_renews_a_stream() {
    let ssegate = start("").await;
    // Told at once, with a link that is good for as long as the stream is open.
    let mut stream =
        EventSource::connect(ssegate.url("/told"), bearing(Options::http1(), &token("alice", 300))).await;
    let notice: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
    let link = notice["renew"].as_str().unwrap().to_owned();
    let elsewhere = link.replace("/told", "/r/a");
    let cut = &link[..link.len() - 3];
    for (what, link, token, status) in [
        ("another client", &*link, token("bob", 300), 403),
        ("another provider's of the same name", &link, hs256(STAFF, json!({ "sub": "alice" })), 403),
        ("one without a name", &link, hs256(SECRET, json!({ "jti": "1" })), 403),
        ("a token that has ended", &link, hs256(SECRET, json!({ "sub": "alice", "exp": 1_000 })), 401),
        (
            "a forged token",
            &link,
            hs256("another secret of 32 bytes or more", json!({ "sub": "alice" })),
            401,
        ),
        ("another path", &elsewhere, token("alice", 300), 404),
        ("a link that is cut", cut, token("alice", 300), 404),
        ("no link", "/told?renew=", token("alice", 300), 404),
    ] {
        let answer = renew(&ssegate, link, &token).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    assert_eq!(renew(&ssegate, &link, &token("alice", 300)).await.status, 200);
    stream.close();
    ssegate.wait_log("the end of the stream", |line| line["message"] == "stream ended").await;
    let answer = renew(&ssegate, &link, &token("alice", 300)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["type"]),
        (404, &json!("urn:ssegate:problem:no-stream"))
    );
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_as_well() {
    let ssegate = start("").await;
    for (before, connect) in [Connect::http1(), Connect::http2()].into_iter().enumerate() {
        let connect = Connect { receive_buffer: Some(4_096), stream_window: Some(4_096), ..connect };
        let options = bearing(Options::http1().connect(connect), &token("alice", 6));
        let stream = EventSource::connect(ssegate.url("/r/a"), options).await;
        // More than all buffers on the way take, so that the stream waits for its client when its token ends. The limit
        // for clients that stop reading is half a minute.
        for _ in 0..20 {
            ssegate.publish("a", "x".repeat(100_000)).await;
        }
        let end = tokio::time::Instant::now();
        let is_expired = |line: &Value| line["message"] == "stream ended" && line["why"] == "expired";
        let seen = async || match ssegate.log().iter().filter(|line| is_expired(line)).count() {
            ended if ended > before => Ok(()),
            ended => Err(format!("{ended} ended")),
        };
        crate::support::wait::eventually("the end of the stream", seen).await;
        assert!(end.elapsed() < Duration::from_secs(25), "it was not the stall that ended it");
        drop(stream);
    }
}

#[tokio::test]
async fn streams_grow_as_old_as_the_route_lets_them() {
    let ssegate = start("").await;
    for options in [Options::http1(), Options::http2()] {
        let begun = tokio::time::Instant::now();
        let mut stream = EventSource::connect(ssegate.url("/aged"), options).await;
        assert_eq!(stream.until_end().await, End::Complete);
        // From a quarter less to a quarter more, and what a busy machine adds; the very bounds are tested without one.
        let age = begun.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(20)).contains(&age), "{age:?}");
        assert!(stream.retry().is_some());
    }
    ended(&ssegate, "max_age", 2.0).await;
}

#[tokio::test]
async fn who_is_put_on_the_deny_list_is_out_within_a_second_or_two() {
    let dir = crate::support::scratch::dir("deny");
    let file = dir.path().join("deny");
    fs::write(&file, "# nobody yet\n").unwrap();
    let ssegate = start(&format!("deny: {}", file.display())).await;
    let mut alice = open(&ssegate, "/r/a", Options::http1(), &token("alice", 300)).await;
    let mut bob = open(&ssegate, "/r/a", Options::http2(), &token("bob", 300)).await;
    let mut carol = open(&ssegate, "/r/a", Options::http1(), &token("carol", 300)).await;

    // Written beside and moved over, as tools do.
    let list = |text: &str| {
        fs::write(dir.path().join("new"), text).unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
    };
    list("sub:alice\njti:bob-1\n");
    for stream in [&mut alice, &mut bob] {
        assert_eq!(stream.until_end().await, End::Complete);
    }
    for who in ["alice", "bob"] {
        let options = bearing(Options::http1(), &token(who, 300));
        assert_eq!(EventSource::request(ssegate.url("/r/a"), options).await.status(), 403, "{who}");
    }
    // A list that makes no sense, or is gone, changes nothing.
    list("sub:alice\nwhat is this\n");
    ssegate.wait_log("the trouble", |line| line.to_string().contains("deny list cannot be read")).await;
    let options = bearing(Options::http1(), &token("bob", 300));
    assert_eq!(EventSource::request(ssegate.url("/r/a"), options).await.status(), 403);
    list("");
    ssegate
        .wait_log("the new list", |line| line["message"] == "deny list changed" && line["entries"] == 0)
        .await;
    open(&ssegate, "/r/a", Options::http1(), &token("alice", 300)).await;
    ssegate.publish("a", "still here").await;
    assert_eq!(carol.next_message().await.data, "still here");
    ended(&ssegate, "revoked", 2.0).await;
}

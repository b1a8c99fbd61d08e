//! Who may listen: credentials in every place where they may stand, rules, and what clients are told who may not.

use http::Method;
use serde_json::json;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::ssegate::Ssegate;
use crate::support::token::{SigningKey, hs256};

pub const SECRET: &str = "a shared secret of 32 bytes or so";

async fn ask(ssegate: &Ssegate, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(method, &ssegate.url(path), headers, "", &Connect::http1()).await
}

async fn start() -> Ssegate {
    Ssegate::builder()
        .config(
            r#"
auth:
  users:
    jwt: { secret: "${SECRET}", leeway: 0s, cookie: session, query: access_token }
  machines:
    api_key: { keys: { ci: "sha256:e225abbe0ed74ca317fdf5e27bd4994d962e6462756af5eaec627c654c5c439d" } }
upstreams: { lobby: { push: {} } }
routes:
  - path: /rooms/{room}
    from: { upstream: lobby, channel: "{room}" }
    auth: [users, machines]
    allow: claims.sub == 'ci' || params.room in claims.rooms
    cors: { origins: ["https://app.example"], credentials: true }
  - { path: /open, from: { upstream: lobby, channel: a } }
  - { path: /inside, from: { upstream: lobby, channel: a }, allow: "client.address.startsWith('127.') && query.x == '1'" }
  - { path: /wrong, from: { upstream: lobby, channel: a }, auth: users, allow: claims.nothing == 'a' }
  - { path: /ended, from: { upstream: lobby, channel: a }, ended: true }
"#,
        )
        .env("SECRET", SECRET)
        .start()
        .await
}

/// Reads one event of room `a`, as who opens the stream so.
async fn listens(ssegate: &Ssegate, path: &str, options: Options) {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    ssegate.publish("a", "hello").await;
    assert_eq!(stream.next_message().await.data, "hello");
}

#[tokio::test]
async fn a_token_is_taken_from_header_cookie_and_query_and_a_key_from_its_header() {
    let ssegate = start().await;
    let token = hs256(SECRET, json!({ "sub": "alice", "rooms": ["a"] }));
    let bearer = format!("Bearer {token}");
    let cookie = format!("x=1; session={token}");
    for options in [Options::http1(), Options::http2()] {
        listens(&ssegate, "/rooms/a", options.clone().header("authorization", &bearer)).await;
        listens(&ssegate, "/rooms/a", options.clone().header("cookie", &cookie)).await;
        listens(&ssegate, &format!("/rooms/a?access_token={token}"), options.clone()).await;
        listens(&ssegate, "/rooms/a", options.clone().header("x-api-key", "key of ci")).await;
        listens(&ssegate, "/open", options).await;
    }
    let metrics = ssegate.metrics().await;
    let decided = |provider, outcome| {
        let labels = [("route", "/rooms/{room}"), ("provider", provider), ("outcome", outcome)];
        metrics.sum("ssegate_auth_decisions_total", &labels)
    };
    assert_eq!((decided("users", "allowed"), decided("machines", "allowed")), (6.0, 2.0));
    let status = ssegate.status().await;
    assert_eq!(status["auth"]["providers"][0]["kind"], "jwt");
}

#[tokio::test]
async fn who_is_unknown_is_told_to_bring_a_credential_and_who_may_not_is_told_so() {
    let ssegate = start().await;
    let token = |claims| format!("Bearer {}", hs256(SECRET, claims));
    let other_room = token(json!({ "sub": "alice", "rooms": ["b"] }));
    let no_rooms = token(json!({ "sub": "alice" }));
    let old = token(json!({ "sub": "alice", "rooms": ["a"], "exp": 1_000 }));
    for method in [Method::GET, Method::HEAD] {
        for (headers, status, challenge) in [
            (&[][..], 401, "Bearer"),
            (&[("authorization", &*old)], 401, "Bearer error=\"invalid_token\""),
            (&[("authorization", "Basic YTpi")], 401, "Bearer"),
            (&[("x-api-key", "another")], 401, "Bearer error=\"invalid_token\""),
            (&[("authorization", &other_room)], 403, ""),
            (&[("authorization", &no_rooms)], 403, ""),
        ] {
            let mut headers = headers.to_vec();
            headers.push(("origin", "https://app.example"));
            let answer = ask(&ssegate, method.clone(), "/rooms/a", &headers).await;
            assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (status, challenge));
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
            if method == Method::GET {
                let kind = answer.json()["type"].as_str().unwrap().to_owned();
                assert!(kind.starts_with("urn:ssegate:problem:"), "{kind}");
                assert!(!answer.text().contains("rooms"), "no internals: {}", answer.text());
            }
        }
    }
    let metrics = ssegate.metrics().await;
    for outcome in ["missing", "expired", "signature", "rule", "rule_failed"] {
        assert!(metrics.sum("ssegate_auth_decisions_total", &[("outcome", outcome)]) >= 2.0, "{outcome}");
    }
    let line = ssegate
        .wait_log("the failed rule", |line| line.to_string().contains("rule cannot be evaluated"))
        .await;
    assert_eq!(line["route"], "/rooms/{room}");
    assert_eq!(
        ask(&ssegate, Method::OPTIONS, "/rooms/a", &[]).await.status,
        204,
        "a preflight has no credential"
    );
}

#[tokio::test]
async fn a_rule_alone_looks_at_the_request_and_one_that_fails_lets_nobody_in() {
    let ssegate = start().await;
    listens(&ssegate, "/inside?x=1", Options::http1()).await;
    assert_eq!(ask(&ssegate, Method::GET, "/inside?x=2", &[]).await.status, 403);
    let bearer = format!("Bearer {}", hs256(SECRET, json!({ "sub": "alice" })));
    assert_eq!(ask(&ssegate, Method::GET, "/wrong", &[("authorization", &bearer)]).await.status, 403);
}

#[tokio::test]
async fn what_has_ended_tells_browsers_to_stop() {
    let ssegate = start().await;
    for method in [Method::GET, Method::HEAD] {
        let answer = ask(&ssegate, method, "/ended", &[("accept", "text/event-stream")]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    }
}

#[tokio::test]
async fn a_preflight_of_a_guarded_route_allows_tokens() {
    let ssegate = start().await;
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    let answer = ask(&ssegate, Method::OPTIONS, "/rooms/a", &preflight).await;
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, POST");
    let allowed = answer.header("access-control-allow-headers");
    assert_eq!(allowed, "accept, authorization, cache-control, last-event-id, x-api-key");
    assert_eq!(answer.header("allow"), "GET, HEAD, POST, OPTIONS");
    let put = ask(&ssegate, Method::PUT, "/rooms/a", &[]).await;
    assert_eq!((put.status.as_u16(), put.header("allow")), (405, "GET, HEAD, POST, OPTIONS"));
}

#[tokio::test]
async fn public_keys_in_files_are_taken_too() {
    let dir = crate::support::scratch::dir("auth");
    let (first, second) = (SigningKey::new("a"), SigningKey::new("b"));
    let files = [("first.pem", &first), ("second.pem", &second)].map(|(name, key)| {
        let file = dir.path().join(name);
        std::fs::write(&file, key.public_pem()).unwrap();
        file.display().to_string()
    });
    let ssegate = Ssegate::start(format!(
        r#"
auth: {{ users: {{ jwt: {{ keys: ["file:{}", "file:{}"] }} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /a, from: {{ upstream: lobby, channel: a }}, auth: users }} ]
"#,
        files[0], files[1]
    ))
    .await;
    for key in [&first, &second] {
        let bearer = format!("Bearer {}", key.sign(json!({ "sub": "alice" })));
        listens(&ssegate, "/a", Options::http1().header("authorization", &bearer)).await;
    }
}

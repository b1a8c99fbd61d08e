//! Tickets: a credential for the URL, good once, and the cookie that a browser comes back with.

use http::Method;
use serde_json::json;

use crate::auth::SECRET;
use crate::support::browser::Browser;
use crate::support::collector::Collector;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::proxy::Proxy;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::token::hs256;

async fn start(origin: &str) -> Ssegate {
    Ssegate::start(format!(
        r#"
auth:
  users: {{ jwt: {{ secret: "{SECRET}" }} }}
  tickets: {{ ticket: {{ path: /tickets, of: users, secret: "another secret of 32 bytes or so" }} }}
  bound: {{ ticket: {{ path: /bound, of: users, bind_address: true }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /r/{{room}}
    from: {{ upstream: lobby, channel: "{{room}}" }}
    auth: [users, tickets]
    allow: claims.rooms.exists(room, room == params.room)
    retry: 200ms
    cors: {{ origins: ["{origin}"], credentials: true }}
  - {{ path: /users, from: {{ upstream: lobby, channel: a }}, auth: users }}
  - {{ path: /open, from: {{ upstream: lobby, channel: a }} }}
"#
    ))
    .await
}

/// The same where a stream is that takes no tickets, or others.
const NOT_THERE: &str = "Nothing that takes these tickets is at this `path`";

fn token() -> String {
    hs256(SECRET, json!({ "sub": "alice", "rooms": ["a", "b"] }))
}

async fn ask(ssegate: &Ssegate, path: &str, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    request(Method::POST, &ssegate.url(path), &[("authorization", &bearer)], "", &Connect::http1()).await
}

/// The URL with a new ticket, and what comes of opening it.
async fn ticket(ssegate: &Ssegate, path: &str) -> String {
    let answer = ask(ssegate, &format!("/tickets?path={path}"), &token()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["expires_in"], 30);
    let url = json["url"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("{path}?ticket={}", json["ticket"].as_str().unwrap()));
    url
}

async fn status(ssegate: &Ssegate, url: &str, options: Options) -> u16 {
    EventSource::request(ssegate.url(url), options).await.status().as_u16()
}

#[tokio::test]
async fn a_ticket_is_good_once_and_leaves_a_cookie_for_coming_back() {
    let ssegate = start("https://app.example").await;
    for options in [Options::http1(), Options::http2()] {
        let url = ticket(&ssegate, "/r/a").await;
        let mut stream = EventSource::connect(ssegate.url(&url), options.clone()).await;
        let cookie = stream.header("set-cookie").to_owned();
        stream.next_named("stream.position").await;
        ssegate.publish("a", "hello").await;
        assert_eq!(stream.next_message().await.data, "hello");
        for part in ["ssegate-tickets=", "; Path=/r/a;", "; HttpOnly", "; Secure", "; SameSite=Strict"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert_eq!(status(&ssegate, &url, options.clone()).await, 401, "replayed");
        let pair = cookie.split(';').next().unwrap();
        let back = options.clone().header("cookie", pair);
        listens(&ssegate, &url, back.clone()).await;
        let foreign = back.clone().header("origin", "https://evil.example");
        assert_eq!(status(&ssegate, &url, foreign).await, 403);
        assert_eq!(status(&ssegate, "/r/b", back).await, 401, "the cookie is for its path alone");
    }
    let replayed = ssegate.metrics().await.sum("ssegate_auth_decisions_total", &[("outcome", "replayed")]);
    assert_eq!(replayed, 2.0);
}

async fn listens(ssegate: &Ssegate, url: &str, options: Options) {
    let mut stream = EventSource::connect(ssegate.url(url), options).await;
    assert_eq!(stream.header("set-cookie"), "", "it has one already");
    stream.next_named("stream.position").await;
}

#[tokio::test]
async fn a_ticket_is_for_one_path_and_meets_the_rule() {
    let ssegate = start("https://app.example").await;
    let url = ticket(&ssegate, "/r/a").await;
    let elsewhere = url.replace("/r/a", "/r/b");
    assert_eq!(status(&ssegate, &elsewhere, Options::http1()).await, 401);
    assert_eq!(status(&ssegate, &url, Options::http1()).await, 200, "trying it elsewhere did not use it up");
    let not_mine = ticket(&ssegate, "/r/c").await;
    assert_eq!(status(&ssegate, &not_mine, Options::http1()).await, 403);
    let forged = format!("{}A", ticket(&ssegate, "/r/a").await);
    assert_eq!(status(&ssegate, &forged, Options::http1()).await, 401);
}

#[tokio::test]
async fn tickets_are_given_to_who_is_known_for_streams_that_take_them() {
    let ssegate = start("https://app.example").await;
    for (path, token, status) in [
        ("/tickets?path=/r/a", "nonsense".to_owned(), 401),
        ("/tickets", token(), 400),
        ("/tickets?path=/nothing", token(), 400),
        ("/tickets?path=/users", token(), 400),
        ("/tickets?path=/open", token(), 400),
        ("/bound?path=/r/a", token(), 400),
    ] {
        assert_eq!(ask(&ssegate, path, &token).await.status, status, "{path}");
    }
    for (path, told) in [("", "by its path alone"), ("/nothing", NOT_THERE), ("/users", NOT_THERE)] {
        let refused = ask(&ssegate, &format!("/tickets?path={path}"), &token()).await.json();
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(told)), "{refused}");
    }
    let large = hs256(SECRET, json!({ "sub": "alice", "rooms": ["a"], "more": "x".repeat(5_000) }));
    assert_eq!(ask(&ssegate, "/tickets?path=/r/a", &large).await.status, 400);
    let get = request(Method::GET, &ssegate.url("/tickets?path=/r/a"), &[], "", &Connect::http1()).await;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, "POST, OPTIONS"));
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    let answer =
        request(Method::OPTIONS, &ssegate.url("/tickets?path=/r/a"), &preflight, "", &Connect::http2()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("access-control-allow-origin")),
        (204, "https://app.example")
    );
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
}

#[tokio::test]
async fn another_replica_with_the_same_secret_takes_the_ticket() {
    let (one, two) = (start("https://app.example").await, start("https://app.example").await);
    let url = ticket(&one, "/r/a").await;
    assert_eq!(status(&two, &url, Options::http1()).await, 200);
}

/// The whole way in a real browser: a page of another origin asks for a ticket with a token, opens an `EventSource` with
/// it, is cut off, and comes back by itself to a URL whose ticket is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_comes_back_with_its_cookie_after_a_ticket() {
    let mut collector = Collector::start(TestCa::shared()).await;
    let ssegate = start(&collector.origin()).await;
    let proxy = Proxy::start(ssegate.addr()).await;
    let tickets = format!("https://localhost:{}/tickets?path=/r/a", proxy.addr().port());
    let page = collector.ticket_page_url(&tickets, &token());
    let _browser = Browser::chromium(TestCa::shared(), &page).await;
    collector.wait_count("position", 1).await;
    assert_eq!(collector.of_kind("ticket")[0].data, "200");
    for n in 0..3 {
        ssegate.publish("a", format!("before {n}")).await;
        collector.wait_count("message", 2 * n + 1).await;
        proxy.cut_all();
        ssegate.publish("a", format!("while away {n}")).await;
        collector.wait_count("message", 2 * n + 2).await;
    }
    let data: Vec<_> = collector.of_kind("message").into_iter().map(|report| report.data).collect();
    assert_eq!(data, ["before 0", "while away 0", "before 1", "while away 1", "before 2", "while away 2"]);
    let errors = collector.of_kind("error");
    assert!(errors.iter().all(|error| error.ready_state == Some(0)), "it never gave up: {errors:?}");
    for line in ssegate.log() {
        assert!(!line.to_string().contains("ticket="), "{line}");
    }
}

//! The access log: a line for each request, whatever becomes of it, and no credential in any.

use http::Method;
use serde_json::{Value, json};

use crate::auth::SECRET;
use crate::support::app::App;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link, Version, build, request};
use crate::support::origin::Origin;
use crate::support::ssegate::Ssegate;
use crate::support::token::hs256;

async fn start(app: &App, endpoint: &Origin, log: &str) -> Ssegate {
    let (addr, url) = (app.addr, endpoint.url("/auth"));
    Ssegate::start(format!(
        r#"
log: {{ format: json, {log} }}
auth:
  users: {{ jwt: {{ secret: "{SECRET}", query: token }} }}
  tickets: {{ ticket: {{ path: /tickets, of: users, secret: "another secret of 32 bytes or so" }} }}
  asked: {{ forward: {{ url: "{url}", timeout: 1m }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /r/{{room}}
    from: {{ upstream: lobby, channel: "{{room}}" }}
    auth: [users, tickets]
  - {{ path: /one, from: {{ upstream: lobby, channel: a }}, limits: {{ streams: 1 }} }}
  - {{ path: /asked, proxy: "http://{addr}", auth: asked }}
  - {{ path: "/app/{{*rest}}", proxy: "http://{addr}" }}
"#
    ))
    .await
}

#[tokio::test]
async fn every_request_has_a_line_without_what_lets_somebody_in() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = start(&app, &endpoint, "access: true, redact: [code]").await;
    let bearer = format!("Bearer {}", token());
    for (how, protocol) in [(Connect::http1(), "HTTP/1.1"), (Connect::http2(), "HTTP/2.0")] {
        for (method, path, shown, status) in [
            ("GET", "/nowhere?a=1", "/nowhere?a=1", 404),
            ("DELETE", "/r/a", "/r/a", 405),
            ("GET", "/r/%ff", "/r/%ff", 400),
            ("POST", "/r/a?renew=sesame", "/r/a?renew=REDACTED", 404),
            ("POST", "/tickets?path=/nowhere", "/tickets?path=/nowhere", 400),
            ("GET", "/app/x?code=sesame&page=2", "/app/x?code=REDACTED&page=2", 200),
            ("GET", "/app/x?%63ode=sesame", "/app/x?%63ode=REDACTED", 200),
        ] {
            let (url, headers) =
                (ssegate.url(path), [("authorization", &*bearer), ("user-agent", "a \"b\"")]);
            let answer = request(method.parse().unwrap(), &url, &headers, "", &how).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            let line = line(&ssegate, |line| line["uri"] == shown && line["protocol"] == protocol).await;
            let is = |name: &str, value: &str| assert_eq!(line[name], value, "{line}");
            is("message", "request");
            is("method", method);
            is("client", "127.0.0.1");
            is("host", &format!("localhost:{}", ssegate.addr().port()));
            is("user_agent", "a \"b\"");
            assert_eq!(line["status"], status, "{line}");
            assert!(line["seconds"].is_number() && line["stream"].is_null(), "{line}");
        }
    }
    assert_eq!(lines(&ssegate).len(), 14, "one for each");
    no_secret(&ssegate, &["sesame", &bearer[bearer.len() - 20..]]);
}

#[tokio::test]
async fn the_line_of_a_stream_is_that_of_its_end_also_when_it_is_shed() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = start(&app, &endpoint, "access: true").await;
    for (n, options) in [Options::http1(), Options::http2()].into_iter().enumerate() {
        let url = ssegate.url(&format!("/r/a?n={n}&token={}", token()));
        let mut stream = EventSource::connect(url, options.clone()).await;
        stream.next_named("stream.position").await;
        let told = line(&ssegate, |line| line["uri"] == format!("/r/a?n={n}&token=REDACTED")).await;
        assert_eq!((&told["status"], told["stream"].is_number()), (&200.into(), true), "{told}");
        let surplus = EventSource::request(ssegate.url("/r/a?token=no"), options).await;
        assert_eq!(surplus.status(), 401);
        drop(stream);
        let is_its_end = |line: &Value| line["message"] == "stream ended" && line["stream"] == told["stream"];
        ssegate.wait_log("the end of that stream", is_its_end).await;
    }
    let mut one = EventSource::connect(ssegate.url("/one"), Options::http1()).await;
    one.next_named("stream.position").await;
    let mut other = EventSource::connect(ssegate.url("/one?other"), Options::http1()).await;
    other.until_end().await;
    let shed = line(&ssegate, |line| line["uri"] == "/one?other").await;
    assert_eq!((&shed["status"], &shed["stream"]), (&200.into(), &Value::Null), "it is no stream: {shed}");

    let bearer = [("authorization", &*format!("Bearer {}", token()))];
    let ticket =
        request(Method::POST, &ssegate.url("/tickets?path=/r/b"), &bearer, "", &Connect::http1()).await;
    let url = ticket.json()["url"].as_str().unwrap().to_owned();
    let mut stream = EventSource::connect(ssegate.url(&url), Options::http1()).await;
    stream.next_named("stream.position").await;
    line(&ssegate, |line| line["uri"] == "/r/b?ticket=REDACTED").await;
    no_secret(&ssegate, &[url.split_once('=').unwrap().1, token().rsplit('.').next().unwrap()]);
}

#[tokio::test]
async fn who_leaves_before_the_answer_has_a_line_too() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    endpoint.say("/auth", 0, "");
    let ssegate = start(&app, &endpoint, "access: true").await;
    for how in [Connect::http1(), Connect::http2()] {
        let link = Link::open(&ssegate.url("/asked"), &how).await.unwrap();
        let before = endpoint.requests("/auth").len();
        let answer = link.send(build(Method::GET, &ssegate.url("/asked"), &[], ""));
        let left = async { endpoint.wait_requests("/auth", before + 1).await };
        tokio::select! {
            answer = answer => panic!("nobody decides: {answer:?}"),
            () = left => {}
        }
        drop(link);
        let protocol = if how.version == Version::One { "HTTP/1.1" } else { "HTTP/2.0" };
        let line = line(&ssegate, |line| line["uri"] == "/asked" && line["protocol"] == protocol).await;
        assert!(line["status"].is_null(), "{line}");
    }
}

#[tokio::test]
async fn there_is_none_unless_it_is_asked_for() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = start(&app, &endpoint, "level: debug").await;
    let mut stream = EventSource::connect(ssegate.url("/one?token=sesame"), Options::http1()).await;
    stream.next_named("stream.position").await;
    stream.close();
    ssegate.wait_log("the end of the stream", |line| line["message"] == "stream ended").await;
    assert!(lines(&ssegate).is_empty());
    no_secret(&ssegate, &["sesame"]);
}

fn token() -> String {
    hs256(SECRET, json!({ "sub": "alice" }))
}

fn lines(ssegate: &Ssegate) -> Vec<Value> {
    ssegate.log().into_iter().filter(|line| line["target"] == TARGET).collect()
}

async fn line(ssegate: &Ssegate, wanted: impl Fn(&Value) -> bool) -> Value {
    ssegate.wait_log("the line of the request", |line| line["target"] == TARGET && wanted(line)).await
}

fn no_secret(ssegate: &Ssegate, secrets: &[&str]) {
    for line in ssegate.log() {
        assert!(!secrets.iter().any(|secret| line.to_string().contains(secret)), "{line}");
    }
}

const TARGET: &str = "ssegate::access";

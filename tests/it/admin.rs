//! The admin listener: health, readiness, metrics, status and publishing.

use http::Method;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::ssegate::Ssegate;

const CONFIG: &str = r#"
upstreams:
  lobby: { push: {} }
  gone: { redis: { url: "redis://:s3cret@127.0.0.1:1" } }
routes:
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "{room}" } }
  - { path: /gone, from: { upstream: gone, channel: x } }
"#;

#[tokio::test]
async fn metrics_and_status_tell_what_happens_and_no_secret() {
    let ssegate = Ssegate::start(CONFIG).await;
    ssegate.wait_log("the lost upstream", |line| line["upstream"] == "gone").await;
    let mut stream = EventSource::connect(ssegate.url("/rooms/a"), Options::http2()).await;
    stream.next_named("stream.position").await;
    assert_eq!(ssegate.publish("a", "x").await.json(), serde_json::json!({"feeds": 1}));
    stream.next_message().await;

    let metrics = ssegate.metrics().await;
    let route = [("route", "/rooms/{room}")];
    assert_eq!(metrics.sum("ssegate_subscribers", &route), 1.0);
    assert_eq!(metrics.sum("ssegate_events_out_total", &route), 1.0);
    assert!(metrics.sum("ssegate_sent_bytes_total", &route) > 0.0);
    assert_eq!(metrics.sum("ssegate_connections", &[("protocol", "h2")]), 1.0);
    assert_eq!(metrics.sum("ssegate_events_in_total", &[("upstream", "lobby")]), 1.0);
    assert_eq!(metrics.sum("ssegate_upstream_up", &[("upstream", "lobby")]), 1.0);
    assert!(metrics.has("ssegate_upstream_up", &[("upstream", "gone")]));
    assert_eq!(metrics.sum("ssegate_upstream_up", &[("upstream", "gone")]), 0.0);
    assert!(metrics.sum("ssegate_memory_used_bytes", &[]) > 0.0);
    assert_eq!(metrics.sum("ssegate_memory_limit_bytes", &[]), f64::from(512 << 20));
    assert!(metrics.text.ends_with("# EOF\n"));

    let status = ssegate.status().await;
    assert_eq!(status["subscribers"], 1);
    let gone = status["upstreams"].as_array().unwrap().iter().find(|u| u["name"] == "gone").unwrap();
    assert_eq!((&gone["kind"], &gone["up"]), (&"redis".into(), &false.into()));
    assert!(gone["last_error"]["error"].as_str().unwrap().contains("Redis"));
    assert_eq!(status["routes"][0]["subscribers"], 1);
    assert!(status["feeds"].as_array().unwrap().iter().any(|feed| feed["source"] == "a"));
    let shown = format!("{status}{}{:?}", metrics.text, ssegate.log());
    assert!(!shown.contains("s3cret"));
}

#[tokio::test]
async fn health_is_for_the_process_and_readiness_for_its_traffic() {
    let ssegate = Ssegate::start(CONFIG).await;
    assert_eq!(ssegate.admin_get("/healthz").await.text(), "alive\n");
    crate::support::wait::eventually("readiness", async || {
        match ssegate.admin_get("/readyz").await.status.as_u16() {
            200 => Ok(()),
            status => Err(format!("{status}")),
        }
    })
    .await;
}

#[tokio::test]
async fn publishing_answers_mistakes_in_words() {
    let ssegate = Ssegate::start(CONFIG).await;
    let admin = format!("http://{}", ssegate.addrs("admin")[0]);
    let ask = async |method: Method, path: &str| {
        request(method, &format!("{admin}{path}"), &[], "x", &Connect::http1()).await
    };
    assert_eq!(ask(Method::POST, "/publish/nobody").await.json()["feeds"], 0);
    assert_eq!(ask(Method::POST, "/publish/").await.status, 400);
    let get = ask(Method::GET, "/publish/a").await;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, "POST"));
    let page = [("origin", "https://evil.example")];
    let page = request(Method::POST, &format!("{admin}/publish/a"), &page, "x", &Connect::http1()).await;
    assert_eq!((page.status.as_u16(), &page.json()["type"]), (403, &"urn:ssegate:problem:cross-site".into()));
    assert_eq!(ask(Method::POST, "/status").await.status, 405);
    assert_eq!(ask(Method::GET, "/elsewhere").await.status, 404);

    let without =
        Ssegate::start("upstreams: { c: { ticker: {} } }\nroutes: [ { path: /e, from: { upstream: c } } ]\n")
            .await;
    let admin = format!("http://{}/publish/a", without.addrs("admin")[0]);
    let answer = request(Method::POST, &admin, &[], "x", &Connect::http1()).await;
    assert_eq!(answer.json()["type"], "urn:ssegate:problem:no-push");
}

//! The admin listener: health, readiness, metrics, status page by page, publishing, and what else operators can do.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Link, build, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

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

    let status = ssegate.status().await;
    assert_eq!(status["subscribers"], 1);
    let gone = status["upstreams"].as_array().unwrap().iter().find(|u| u["name"] == "gone").unwrap();
    assert_eq!((&gone["kind"], &gone["up"]), (&"redis".into(), &false.into()));
    assert!(gone["last_error"]["error"].as_str().unwrap().contains("Redis"));
    assert_eq!(status["routes"][0]["subscribers"], 1);
    assert!(status["feeds"].as_array().unwrap().iter().any(|feed| feed["source"] == "a"));
    let shown = format!("{status}{}{:?}", metrics.text, ssegate.log());
    assert!(!shown.contains("s3cret"));
    for path in ["/healthz", "/metrics", "/status", "/nowhere"] {
        assert_eq!(ssegate.admin_get(path).await.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn health_is_for_the_process_and_readiness_for_its_traffic() {
    let ssegate = Ssegate::start(CONFIG).await;
    assert_eq!(ssegate.admin_get("/healthz").await.text(), "alive\n");
    eventually("readiness", async || match ssegate.admin_get("/readyz").await.status.as_u16() {
        200 => Ok(()),
        status => Err(format!("{status}")),
    })
    .await;
}

#[tokio::test]
async fn publishing_answers_mistakes_in_words() {
    let ssegate = Ssegate::start(CONFIG).await;
    let ask = async |method: Method, path: &str| ssegate.admin(method, path, "x").await;
    assert_eq!(ask(Method::POST, "/publish/nobody").await.json()["feeds"], 0);
    assert_eq!(ask(Method::POST, "/publish/").await.status, 400);
    let get = ask(Method::GET, "/publish/a").await;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, "POST"));
    for (method, path) in
        [(Method::POST, "/publish/a"), (Method::POST, "/drain"), (Method::DELETE, "/clients/0")]
    {
        let page = [("origin", "https://evil.example")];
        let page = request(method, &ssegate.admin_url(path), &page, "x", &Connect::http1()).await;
        let refused = (page.status.as_u16(), &page.json()["type"]);
        assert_eq!(refused, (403, &"urn:ssegate:problem:cross-site".into()), "{path}");
    }
    assert_eq!(ask(Method::GET, "/drain").await.header("allow"), "POST");
    assert_eq!(ask(Method::GET, "/clients/0").await.header("allow"), "DELETE");
    assert_eq!(ask(Method::POST, "/status").await.status, 405);
    assert_eq!(ask(Method::GET, "/elsewhere").await.status, 404);

    let without =
        Ssegate::start("upstreams: { c: { ticker: {} } }\nroutes: [ { path: /e, from: { upstream: c } } ]\n")
            .await;
    let admin = format!("http://{}/publish/a", without.addrs("admin")[0]);
    let answer = request(Method::POST, &admin, &[], "x", &Connect::http1()).await;
    assert_eq!(answer.json()["type"], "urn:ssegate:problem:no-push");
}

/// Opens streams of these rooms on one connection.
async fn open(ssegate: &Ssegate, link: &Arc<Link>, rooms: &[&str]) -> Vec<EventSource> {
    let mut streams = Vec::new();
    for room in rooms {
        let url = ssegate.url(&format!("/rooms/{room}"));
        let mut stream = EventSource::connect_on(Arc::clone(link), url, Options::http2()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    streams
}

async fn link(ssegate: &Ssegate, connect: Connect) -> Arc<Link> {
    Arc::new(Link::open(&ssegate.url("/"), &connect).await.unwrap())
}

async fn list(ssegate: &Ssegate, path: &str) -> Value {
    let reply = ssegate.admin_get(path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

/// What `of` says of each entry of every page below `path`; `between` happens after each.
async fn pages(ssegate: &Ssegate, path: &str, of: &str, mut between: impl AsyncFnMut()) -> Vec<Value> {
    let (list_name, (mut all, mut after)) =
        (path.split(['/', '?']).nth(2).unwrap(), (Vec::new(), String::new()));
    loop {
        let page = list(ssegate, &format!("{path}limit=3{after}")).await;
        let entries = page[list_name].as_array().unwrap();
        assert!(entries.len() <= 3, "{page}");
        all.extend(entries.iter().map(|entry| entry[of].clone()));
        let Some(next) = page["next"].as_str() else { return all };
        after = format!("&after={next}");
        between().await;
    }
}

#[tokio::test]
async fn clients_are_listed_page_by_page_while_others_come_and_go() {
    let ssegate = Ssegate::start(CONFIG).await;
    let link_of_all = link(&ssegate, Connect::http2()).await;
    let mut leaving = open(&ssegate, &link_of_all, &["x", "x"]).await;
    let _stay = open(&ssegate, &link_of_all, &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    let mut came = Vec::new();
    let sources = pages(&ssegate, "/status/clients?", "source", async || {
        leaving.pop();
        came.extend(open(&ssegate, &link_of_all, &["z"]).await);
    })
    .await;
    let stayed: Vec<_> = sources.iter().filter(|source| *source != "x" && *source != "z").collect();
    assert_eq!(stayed, ["a", "b", "c", "d", "e", "f", "g", "h"]);

    let other = link(&ssegate, Connect::http2().from("127.0.0.7")).await;
    let _other = open(&ssegate, &other, &["a"]).await;
    for (filter, count) in [("127.0.0.7", 1), ("127.0.0.0%2F29", 9 + came.len()), ("10.0.0.0/8", 0)] {
        // Those that have left may take a moment.
        eventually(&format!("the clients of {filter}"), async || {
            let query = format!("/status/clients?route=/rooms/%7Broom%7D&client={filter}");
            let found = list(&ssegate, &query).await;
            if found["clients"].as_array().unwrap().len() == count { Ok(()) } else { Err(found) }
        })
        .await;
    }
    assert_eq!(list(&ssegate, "/status/clients?route=/gone").await["clients"], json!([]));
}

#[tokio::test]
async fn a_client_is_shown_with_what_it_has_read_and_how_far_it_is_behind() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut reads = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
    reads.next_named("stream.position").await;
    let slow = Connect { stream_window: Some(16 * 1024), ..Connect::http2() };
    let slow = link(&ssegate, slow).await;
    let accept = [("accept", "text/event-stream")];
    let _unread = slow.send(build(Method::GET, &ssegate.url("/rooms/a"), &accept, "")).await.unwrap();
    eventually("the one that does not read to be behind", async || {
        ssegate.publish("a", "x".repeat(50_000)).await;
        reads.next_message().await;
        let clients = list(&ssegate, "/status/clients").await["clients"].clone();
        let [first, second] = clients.as_array().unwrap().as_slice() else { panic!("{clients}") };
        assert_eq!((&first["behind"], &first["client"]), (&json!(0), &json!("127.0.0.1")), "{clients}");
        assert!(first["port"].as_u64() > Some(0), "{clients}");
        assert!(first["bytes"].as_u64() > Some(50_000) && first["events"].as_u64() > Some(0), "{clients}");
        assert!(first["since"].as_str().unwrap().starts_with("20") && first["seconds"].is_f64(), "{clients}");
        assert_eq!((&first["certificate"], &first["ending"]), (&Value::Null, &Value::Null), "{clients}");
        if second["behind"].as_u64() > Some(2) { Ok(()) } else { Err(clients) }
    })
    .await;
}

#[tokio::test]
async fn feeds_and_routes_are_listed_page_by_page() {
    let more: String = (0..7)
        .map(|n| format!("  - {{ path: /r{n}, from: {{ upstream: lobby, channel: held{n} }} }}\n"))
        .collect();
    let ssegate = Ssegate::start(format!("{CONFIG}{more}")).await;
    let link = link(&ssegate, Connect::http2()).await;
    let mut streams = open(&ssegate, &link, &["b", "a", "c", "a", "c", "c"]).await;
    streams.extend(open(&ssegate, &link, &(0..22).map(|_| "d").collect::<Vec<_>>()).await);

    let nothing = async || {};
    let sources = pages(&ssegate, "/status/feeds?sort=source&", "source", nothing).await;
    assert_eq!(
        sources,
        ["x", "a", "b", "c", "d", "held0", "held1", "held2", "held3", "held4", "held5", "held6"]
    );
    let readers = pages(&ssegate, "/status/feeds?upstream=lobby&", "subscribers", nothing).await;
    assert_eq!(readers, [22, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0]);
    let of_route =
        pages(&ssegate, "/status/feeds?sort=source&route=/rooms/%7Broom%7D&", "source", nothing).await;
    assert_eq!(of_route, ["a", "b", "c", "d"]);
    assert_eq!(pages(&ssegate, "/status/feeds?route=/r3&", "source", nothing).await, ["held3"]);
    let routes = pages(&ssegate, "/status/routes?upstream=lobby&", "route", nothing).await;
    assert_eq!((routes.len(), &routes[0], &routes[7]), (8, &json!("/rooms/{room}"), &json!("/r6")));
    assert_eq!(list(&ssegate, "/status/routes").await["routes"][0]["subscribers"], 28);

    let status = ssegate.status().await;
    let totals = &status["totals"];
    let counted = [&totals["upstreams"], &totals["routes"], &totals["feeds"], &totals["events_out"]];
    assert_eq!(counted, [2, 9, 12, 0], "{totals}");
    assert_eq!(
        (&status["feeds"][0]["source"], &status["feeds"][0]["subscribers"]),
        (&json!("d"), &json!(22))
    );
}

#[tokio::test]
async fn bad_parameters_are_answered_with_what_there_is() {
    let ssegate = Ssegate::start(CONFIG).await;
    for (path, told) in [
        ("/status/clients?rout=/a", "`route`"),
        ("/status/clients?limit=0", "`limit` (1 to 1000"),
        ("/status/clients?client=localhost", "such as 10.0.0.0/8"),
        ("/status/clients?after=7", "`after`"),
        ("/status/feeds?sort=name", "`sort` (subscribers or source)"),
        ("/status/feeds?route=/nowhere", "/status/routes has them all"),
        ("/status/feeds?sort=source&after=WzEsMl0", "with the same `sort`"),
        ("/status/feeds?limit=1&limit=2", "`limit`"),
        ("/status/routes?limit=1001", "`limit`"),
    ] {
        let answer = ssegate.admin_get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (400, "application/problem+json"),
            "{path}"
        );
        assert!(answer.json()["detail"].as_str().unwrap().contains(told), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_stream_is_ended_by_its_id_and_told_to_come_back() {
    let ssegate = Ssegate::start(CONFIG).await;
    let link = link(&ssegate, Connect::http2()).await;
    let mut streams = open(&ssegate, &link, &["a", "b"]).await;
    let clients = list(&ssegate, "/status/clients").await;
    let id = clients["clients"][0]["id"].as_u64().unwrap();
    let ended = ssegate.admin(Method::DELETE, &format!("/clients/{id}"), "").await;
    assert_eq!((ended.status.as_u16(), &*ended.text()), (204, ""));
    assert_eq!(streams[0].until_end().await, End::Complete);
    let retry = streams[0].retry().unwrap().as_millis();
    assert!((2_250..=3_750).contains(&retry), "{retry} ms, jittered");
    eventually("it to be gone", async || match ssegate.status().await["subscribers"].as_u64() {
        Some(1) => Ok(()),
        count => Err(format!("{count:?}")),
    })
    .await;
    for id in [id.to_string(), "x".into(), u64::MAX.to_string(), String::new()] {
        let answer = ssegate.admin(Method::DELETE, &format!("/clients/{id}"), "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["type"]),
            (404, &json!("urn:ssegate:problem:no-client"))
        );
    }
    ssegate.wait_log("its end", |line| line["why"] == "asked" && line["route"] == "/rooms/{room}").await;
    ssegate.publish("b", "the other goes on").await;
    assert_eq!(streams[1].next_message().await.data, "the other goes on");
}

#[tokio::test]
async fn a_client_that_does_not_listen_is_cut_when_it_is_ended() {
    let ssegate = Ssegate::start(CONFIG).await;
    let slow = link(&ssegate, Connect { stream_window: Some(16 * 1024), ..Connect::http2() }).await;
    let accept = [("accept", "text/event-stream")];
    let _unread = slow.send(build(Method::GET, &ssegate.url("/rooms/a"), &accept, "")).await.unwrap();
    eventually("it to be stuck", async || {
        ssegate.publish("a", "x".repeat(50_000)).await;
        let clients = list(&ssegate, "/status/clients").await;
        if clients["clients"][0]["behind"].as_u64() > Some(2) { Ok(()) } else { Err(clients) }
    })
    .await;
    assert_eq!(ssegate.admin(Method::DELETE, "/clients/0", "").await.status, 204);
    ssegate.wait_log("its end", |line| line["why"] == "asked").await;
}

#[tokio::test]
async fn a_drain_that_is_asked_for_is_that_of_sigterm() {
    let server = "server: { listen: \"127.0.0.1:0\", tls: none, drain: 3s }\n";
    let mut ssegate = Ssegate::start(format!("{server}{CONFIG}")).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    let asked = ssegate.admin(Method::POST, "/drain", "").await;
    assert_eq!((asked.status.as_u16(), asked.json()), (202, json!({ "draining": true, "streams": 5 })));
    assert_eq!(ssegate.admin_get("/readyz").await.text(), "draining\n");
    let mut retries = BTreeSet::new();
    for stream in &mut streams {
        assert_eq!(stream.until_end().await, End::Complete, "{stream}");
        retries.insert(stream.retry().unwrap());
    }
    assert!(retries.len() > 2, "each its own time to come back: {retries:?}");
    assert!(ssegate.wait_exit().await.success());
    assert_eq!(ssegate.log().iter().filter(|line| line["why"] == "drain").count(), 5);
}

#[tokio::test]
async fn gaps_and_errors_of_late_are_told() {
    let ssegate = Ssegate::start(CONFIG).await;
    ssegate.wait_log("the lost upstream", |line| line["upstream"] == "gone").await;
    for _ in 0..3 {
        let mut stream =
            EventSource::connect(ssegate.url("/rooms/a"), Options::http2().resume("nobody's")).await;
        assert_eq!(stream.next_gap().await["reason"], "unknown_id");
    }
    let recent = ssegate.status().await["recent"].clone();
    let find = |kind: &str, what: &str| {
        let fits =
            |trouble: &&Value| trouble["kind"] == kind && trouble["what"].as_str().unwrap().contains(what);
        recent.as_array().unwrap().iter().find(fits).unwrap_or_else(|| panic!("{what}: {recent}")).clone()
    };
    let gap = find("gap", "unknown_id");
    assert_eq!(
        (&gap["route"], &gap["upstream"], &gap["count"]),
        (&json!("/rooms/{room}"), &Value::Null, &json!(3))
    );
    assert_eq!(find("error", "Redis")["upstream"], "gone");
    assert!(!recent.to_string().contains("s3cret"));
}

//! The newest id of a feed, asked for without a stream: by `HEAD`, and by `?probe`.

use http::Method;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;

const KEY: (&str, &str) = ("x-api-key", "key of ci");

fn config(redis: &str) -> String {
    format!(
        r#"
auth: {{ machines: {{ api_key: {{ keys: {{ ci: "sha256:e225abbe0ed74ca317fdf5e27bd4994d962e6462756af5eaec627c654c5c439d" }} }} }} }}
upstreams: {{ lobby: {{ push: {{}} }}, cache: {{ redis: {{ url: "{redis}" }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }}, cors: {{ origins: "*" }} }}
  - {{ path: /audit, from: {{ upstream: cache, stream: audit }}, data: "{{field.n}}" }}
  - {{ path: /guarded, from: {{ upstream: lobby, channel: a }}, auth: machines }}
"#
    )
}

async fn ask(ssegate: &Ssegate, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let how = if method == Method::HEAD { Connect::http2() } else { Connect::http1() };
    request(method, &ssegate.url(path), headers, "", &how).await
}

/// The newest id, which both ways tell alike.
async fn newest(ssegate: &Ssegate, path: &str, headers: &[(&str, &str)]) -> String {
    let head = ask(ssegate, Method::HEAD, path, headers).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
    let probe = ask(ssegate, Method::GET, &format!("{path}?probe"), headers).await;
    assert_eq!((probe.status.as_u16(), probe.header("content-type")), (200, "application/json"));
    assert_eq!(probe.header("cache-control"), "no-store");
    let id = probe.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(head.header("last-event-id"), id);
    id
}

#[tokio::test]
async fn whoever_comes_with_the_newest_id_is_given_what_came_after() {
    let ssegate = Ssegate::start(config("redis://127.0.0.1:1")).await;
    let id = newest(&ssegate, "/rooms/a", &[("origin", "https://a.example")]).await;
    for n in 0..3 {
        ssegate.publish("a", n.to_string()).await;
    }
    let mut stream = EventSource::connect(ssegate.url("/rooms/a"), Options::http1().resume(&id)).await;
    assert_eq!(stream.next_data(3).await, ["0", "1", "2"]);
    let last = stream.events().last().unwrap().id.clone();
    assert_eq!(newest(&ssegate, "/rooms/a", &[]).await, last);
    // An EventSource that probes is told as well, and a page of another origin may read it.
    let events = [("accept", "text/event-stream"), ("origin", "https://a.example")];
    let probe = ask(&ssegate, Method::GET, "/rooms/a?probe=", &events).await;
    assert_eq!(probe.json()["id"], *last);
    let head = ask(&ssegate, Method::HEAD, "/rooms/a", &events).await;
    assert_eq!(head.header("access-control-expose-headers"), "last-event-id");
    stream.close();
    ssegate.wait_log("the end of the stream", |line| line["message"] == "stream ended").await;
    let streams = ssegate.log().iter().filter(|line| line["message"] == "stream ended").count();
    assert_eq!(streams, 1, "no probe is a stream");
}

#[tokio::test]
async fn of_a_redis_stream_it_is_the_newest_entrys() {
    let redis = Redis::start().await;
    let ids = redis.xadd_numbers("audit", 0..5).await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    assert_eq!(newest(&ssegate, "/audit", &[]).await, ids[4]);
}

#[tokio::test]
async fn without_an_answer_there_is_no_id_and_no_error_where_a_stream_would_be_open() {
    let ssegate = Ssegate::start(config(&format!("redis://127.0.0.1:{}", ports::free()))).await;
    let head = ask(&ssegate, Method::HEAD, "/audit", &[]).await;
    assert_eq!((head.status.as_u16(), head.header("last-event-id")), (200, ""));
    let probe = ask(&ssegate, Method::GET, "/audit?probe", &[]).await;
    assert_eq!(
        (probe.status.as_u16(), probe.json()["type"].as_str().unwrap()),
        (503, "urn:ssegate:problem:unanswered")
    );
    assert!(probe.header("retry-after").parse::<u32>().unwrap() > 0);
}

#[tokio::test]
async fn it_is_for_those_alone_who_may_read() {
    let ssegate = Ssegate::start(config("redis://127.0.0.1:1")).await;
    for (method, path) in [(Method::HEAD, "/guarded"), (Method::GET, "/guarded?probe")] {
        let refused = ask(&ssegate, method, path, &[]).await;
        assert_eq!((refused.status.as_u16(), refused.header("last-event-id")), (401, ""));
    }
    newest(&ssegate, "/guarded", &[KEY]).await;
}

//! Files, and forms of a stream other than SSE.

use std::fs;
use std::io::Write as _;

use http::Method;
use serde_json::{Value, json};

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::scratch;
use crate::support::wait::eventually;

#[tokio::test]
async fn file() {
    let dir = scratch::dir("example");
    let log = dir.path().join("app.log");
    fs::write(&log, "before\n").unwrap();
    let ssegate = start("file.yaml", &[("/tmp/app.log", log.to_str().unwrap())]).await;
    let mut stream = EventSource::connect(ssegate.url("/events/log"), Options::http2()).await;
    assert_eq!(stream.next_data(1).await, ["before"]);
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    writeln!(file, "hello").unwrap();
    assert_eq!(stream.next_data(1).await, ["hello"]);
}

#[tokio::test]
async fn ndjson() {
    let ssegate = start("ndjson.yaml", &[]).await;
    let url = ssegate.url("/events");
    let head = request(Method::HEAD, &url, &[], "", &Connect::http1()).await;
    let id = head.header("last-event-id").to_owned();
    ssegate.publish("shop?event=sale", r#"{"item": "tea", "count": 2}"#).await;
    let url = format!("{url}?lastEventId={id}&limit=10");
    let page: Value = eventually("the page", async || {
        let page = request(Method::GET, &url, &[("accept", "application/json")], "", &Connect::http1()).await;
        if page.json()["events"] == json!([]) { Err("it is empty") } else { Ok(page.json()) }
    })
    .await;
    let event = &page["events"][0];
    assert_eq!((&event["event"], &event["data"]), (&json!("sale"), &json!({ "item": "tea", "count": 2 })));
}

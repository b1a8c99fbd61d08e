//! The configurations in `examples/`, each started for real with its stream read.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::scratch;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// Starts what an example says, with a server and an admin listener of the rig's, and these upstreams in the place of its
/// own.
async fn start(name: &str, upstreams: &[(&str, &str)]) -> Ssegate {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let text = std::fs::read_to_string(path).expect("the example is there");
    let own = |line: &&str| !["server:", "admin:"].iter().any(|section| line.starts_with(section));
    let mut text = text.lines().filter(own).map(|line| format!("{line}\n")).collect::<String>();
    for (usual, here) in upstreams {
        assert!(text.contains(usual), "{name} has {usual}");
        text = text.replace(usual, here);
    }
    Ssegate::start(text).await
}

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

//! Servers that answer with data: asked again and again, of which changes are events, or read line by line.

use std::time::Duration;

use crate::support::eventsource::{EventSource, Options};
use crate::support::origin::{Answer, Origin};
use crate::support::sse_server::SseServer;
use crate::support::ssegate::Ssegate;
use crate::upgrade::server;

fn config(url: &str, keys: &str) -> String {
    format!(
        r#"
upstreams: {{ data: {{ http: {{ url: "{url}", {keys} }} }} }}
routes: [{{ path: /all, from: {{ upstream: data, path: /data }} }}]
"#
    )
}

async fn connect(ssegate: &Ssegate) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url("/all"), Options::http2()).await;
    stream.next_named("stream.position").await;
    stream
}

fn tagged(tag: &str, body: &str) -> Answer {
    Answer { status: 200, headers: vec![("etag".into(), tag.into())], body: body.into() }
}

#[tokio::test]
async fn a_change_is_an_event_and_what_is_the_same_is_none() {
    let origin = Origin::start().await;
    origin.set("/data", tagged("\"1\"", "one"));
    let ssegate = Ssegate::start(config(&origin.url(""), "every: 100ms, bearer: t0ken")).await;
    let mut first = EventSource::connect(ssegate.url("/all"), Options::http2()).await;
    let mut second = connect(&ssegate).await;
    first.next_named("stream.position").await;
    let asked = origin.requests("/data").len();
    origin.wait_requests("/data", asked + 3).await;
    origin.set("/data", tagged("\"2\"", "two\nlines"));
    for stream in [&mut first, &mut second] {
        // Who came before the log had begun is given the first answer as well.
        let mut told = stream.next_message().await.data;
        if told == "one" {
            told = stream.next_message().await.data;
        }
        assert_eq!(told, "two\nlines");
    }
    let last = first.last_event_id().to_owned();
    let asked = origin.requests("/data");
    assert_eq!(asked[0].get("if-none-match"), None);
    assert_eq!(asked[1]["if-none-match"], "\"1\"");
    assert_eq!(asked[1]["authorization"], "Bearer t0ken");
    // 304 is no change, and neither is the same again under another name.
    origin.say("/data", 304, "");
    let seen = origin.requests("/data").len();
    origin.wait_requests("/data", seen + 2).await;
    origin.set("/data", tagged("\"3\"", "two\nlines"));
    origin.wait_requests("/data", seen + 5).await;
    origin.say("/data", 200, "three");
    assert_eq!(first.next_data(1).await, ["three"]);
    let mut back = EventSource::connect(ssegate.url("/all"), Options::http1().resume(&last)).await;
    assert_eq!(back.next_data(1).await, ["three"]);
}

#[tokio::test]
async fn of_an_array_what_is_new_is_an_event_each() {
    let origin = Origin::start().await;
    origin.say("/data", 200, "[]");
    let ssegate = Ssegate::start(config(&origin.url("/"), "every: 100ms, split: array")).await;
    let mut stream = connect(&ssegate).await;
    origin.say("/data", 200, r#"[{"id":1}, {"id":2}]"#);
    assert_eq!(stream.next_data(2).await, [r#"{"id":1}"#, r#"{"id":2}"#]);
    origin.say("/data", 200, r#"[{"id":2},{"id":3}]"#);
    assert_eq!(stream.next_data(1).await, [r#"{"id":3}"#]);
    // What is wrong for a while is told, and ends nothing.
    origin.say("/data", 200, "no array");
    ssegate.wait_log("what is wrong", |line| line.to_string().contains("no JSON array")).await;
    origin.say("/data", 500, "");
    ssegate.wait_log("the status", |line| line.to_string().contains("the server answers 500")).await;
    origin.say("/data", 200, r#"[{"id":3},{"id":4}]"#);
    assert_eq!(stream.next_data(1).await, [r#"{"id":4}"#]);
}

#[tokio::test]
async fn of_a_stream_each_line_is_an_event_and_what_is_sent_without_one_is_lost() {
    let server = SseServer::start().await;
    let ssegate = Ssegate::start(config(&server.url(""), "stream: true")).await;
    server.until_open("/data", 1).await;
    let mut stream = connect(&ssegate).await;
    server.send("/data", "{\"a\":1}\r\n\n{\"b\":");
    assert_eq!(stream.next_data(1).await, ["{\"a\":1}"]);
    server.send("/data", "2}\n");
    assert_eq!(stream.next_data(1).await, ["{\"b\":2}"]);
    server.send("/data", format!("{}\nlast\n", "x".repeat(3 << 20)));
    assert_eq!(stream.next_gap().await["reason"], "too_large");
    assert_eq!(stream.next_data(1).await, ["last"]);
    server.end("/data");
    let gap = stream.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    server.until_open("/data", 1).await;
    server.send("/data", "3\n");
    assert_eq!(stream.next_data(1).await, ["3"]);
}

#[tokio::test]
async fn lines_of_a_stream_and_changes_of_an_answer_are_not_the_same_source() {
    let origin = Origin::start().await;
    let yaml = |keys: &str| server(0, "1s") + &config(&origin.url(""), keys);
    origin.say("/data", 200, "one\n");
    let ssegate = Ssegate::start(yaml("every: 100ms")).await;
    let mut asked = connect(&ssegate).await;
    origin.say("/data", 200, "two\n");
    while asked.next_message().await.data != "two\n" {}
    let mut last = asked.last_event_id().to_owned();
    for keys in ["stream: true", "every: 100ms"] {
        let changes = ssegate.reload(&yaml(keys)).await;
        assert_eq!(changes[0], "upstream data: is another system; its streams end, and come back");
        asked.until_end().await;
        // What was between nobody knows, and that is told.
        asked = EventSource::connect(ssegate.url("/all"), Options::http2().resume(&last)).await;
        assert_eq!(asked.next_gap().await["reason"], "unknown_id");
        origin.say("/data", 200, format!("{keys}\n"));
        while asked.next_named("message").await.data.trim_end() != keys {}
        last = asked.last_event_id().to_owned();
    }
}

#[tokio::test]
async fn nobody_asks_for_what_nobody_reads() {
    let origin = Origin::start().await;
    origin.say("/data/1", 200, "x");
    let text = config(&origin.url(""), "every: 100ms")
        .replace("path: /all, from", "path: \"/all/{n}\", idle_timeout: 0, from")
        .replace("path: /data", "path: \"/data/{n}\"");
    let ssegate = Ssegate::start(text).await;
    let mut stream = EventSource::connect(ssegate.url("/all/1"), Options::http2()).await;
    stream.next_named("stream.position").await;
    origin.wait_requests("/data/1", 3).await;
    drop(stream);
    crate::support::wait::eventually("the end of asking", async || {
        let before = origin.requests("/data/1").len();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = origin.requests("/data/1").len();
        if before == after { Ok(()) } else { Err(after - before) }
    })
    .await;
    drop(ssegate);
}

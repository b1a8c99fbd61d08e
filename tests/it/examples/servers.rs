//! Servers that are read over HTTP.

use std::path::Path;

use crate::support::eventsource::{EventSource, Options};
use crate::support::origin::Origin;
use crate::support::sse_server::SseServer;
use crate::support::ssegate::{Builder, Ssegate};
use crate::support::tls::TestCa;

/// The example of this name, with variables, on free ports and with the rig's certificate.
pub fn example(name: &str, variables: &[(&str, &str)]) -> Builder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The rig has a server section of its own.
    let text: String =
        text.lines().filter(|line| !line.starts_with("server:")).map(|line| format!("{line}\n")).collect();
    let builder = Ssegate::builder().config(text);
    variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
}

#[tokio::test]
async fn sse() {
    let server = SseServer::start().await;
    let ssegate = example("sse", &[("APP_URL", &server.url(""))]).start().await;
    let mut stream = EventSource::connect(ssegate.url("/events/lobby"), Options::http2()).await;
    stream.next_named("stream.position").await;
    server.publish("/events/lobby", "1", "This is a server-sent event");
    assert_eq!(stream.next_data(1).await, ["This is a server-sent event"]);
}

#[tokio::test]
async fn relay() {
    let server = SseServer::start().await;
    let core = example("sse", &[("APP_URL", &server.url(""))]).start().await;
    let ca = TestCa::shared().cert_path().display().to_string();
    let edge = example("relay", &[("CORE_URL", &core.url("")), ("CORE_CA", &ca)]).start().await;
    let mut stream = EventSource::connect(edge.url("/events/news"), Options::http2()).await;
    stream.next_named("stream.position").await;
    server.publish("/events/news", "id-1", "through two tiers");
    let event = stream.next_message().await;
    assert_eq!((&*event.data, &*event.id), ("through two tiers", "id-1"));
}

#[tokio::test]
async fn http() {
    let (origin, server) = (Origin::start().await, SseServer::start().await);
    origin.say("/items", 200, "[]");
    let ssegate = example("http", &[("DATA_URL", &origin.url(""))]).start().await;
    let mut items = EventSource::connect(ssegate.url("/events/items"), Options::http2()).await;
    items.next_named("stream.position").await;
    origin.say("/items", 200, "[1, 2]");
    assert_eq!(items.next_data(2).await, ["1", "2"]);
    let ssegate = example("http", &[("DATA_URL", &server.url(""))]).start().await;
    let mut lines = EventSource::connect(ssegate.url("/events/lines"), Options::http2()).await;
    lines.next_named("stream.position").await;
    server.send("/lines", "a line\n");
    assert_eq!(lines.next_data(1).await, ["a line"]);
}

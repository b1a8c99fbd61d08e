//! Real browsers with a plain `EventSource` over HTTPS and HTTP/2: the connection is cut, and they come back by
//! themselves, missing nothing and repeating nothing.

use std::time::Duration;

use tokio::time::interval;

use crate::support::browser::Browser;
use crate::support::collector::Collector;
use crate::support::eventsource::{EventSource, Options};
use crate::support::proxy::Proxy;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_reads_reconnects_and_resumes() {
    let ca = TestCa::shared();
    live_through_cuts(async |page| Browser::chromium(ca, page).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_reads_reconnects_and_resumes() {
    let ca = TestCa::shared();
    live_through_cuts(async |page| Browser::firefox(ca, page).await).await;
}

async fn live_through_cuts(open: impl AsyncFn(&str) -> Browser) {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes: [ { path: /m, from: { upstream: lobby, channel: m }, retry: 200ms, cors: { origins: "*" } } ]
"#,
    )
    .await;
    let proxy = Proxy::start(ssegate.addr()).await;
    let mut collector = Collector::start(TestCa::shared()).await;
    let stream = format!("https://localhost:{}/m", proxy.addr().port());
    let _browser = open(&collector.page_url(&stream)).await;
    collector.wait_count("position", 1).await;
    let open = ssegate.metrics().await;
    let open = |protocol| open.sum("ssegate_connections", &[("protocol", protocol)]);
    assert!(open("h2") >= 1.0 && open("http/1.1") == 0.0, "it speaks HTTP/2");

    // Publishing goes on at its own pace; the pace is no synchronisation, it is the load.
    let (mut pace, mut cuts) = (interval(Duration::from_millis(20)), 0);
    for n in 0..300 {
        if n % 75 == 40 {
            // One that has not come back yet would not notice.
            cuts += 1;
            collector.wait_count("position", cuts).await;
            proxy.cut_all();
        }
        pace.tick().await;
        ssegate.publish("m", n.to_string()).await;
    }
    // Empty data is data: WHATWG HTML 9.2.6 drops only an event without any `data:` line.
    ssegate.publish("m", "").await;
    collector.wait_count("message", 301).await;
    let messages = collector.of_kind("message");
    let data: Vec<_> = messages.iter().map(|report| report.data.clone()).collect();
    let sent: Vec<_> = (0..300).map(|n| n.to_string()).chain([String::new()]).collect();
    assert_eq!(data, sent, "all of them, once and in order");
    assert!(messages.iter().all(|report| !report.id.is_empty()));
    assert_eq!(collector.of_kind("gap").len(), 0);
    let errors = collector.of_kind("error");
    assert!(errors.len() >= 4, "it was cut: {errors:?}");
    assert!(errors.iter().all(|error| error.ready_state == Some(0)), "it never gave up: {errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_comes_back_when_there_is_room() {
    let ca = TestCa::shared();
    come_back_to_a_full_house("", async |page| Browser::chromium(ca, page).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_comes_back_when_there_is_room() {
    let ca = TestCa::shared();
    come_back_to_a_full_house("", async |page| Browser::firefox(ca, page).await).await;
}

/// It gives up where its first connection ends before the handshake, however that is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_comes_back_when_it_may_have_a_connection() {
    let limits = "limits: { connections_per_client: 1 }";
    let ca = TestCa::shared();
    come_back_to_a_full_house(limits, async |page| Browser::firefox(ca, page).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_comes_back_when_it_may_have_a_connection() {
    let limits = "limits: { connections_per_client: 1 }";
    let ca = TestCa::shared();
    come_back_to_a_full_house(limits, async |page| Browser::chromium(ca, page).await).await;
}

async fn come_back_to_a_full_house(limits: &str, open: impl AsyncFn(&str) -> Browser) {
    let ssegate = Ssegate::start(format!(
        r#"
{limits}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /m, from: {{ upstream: lobby, channel: m }}, retry: 200ms, limits: {{ streams: 1 }}, cors: {{ origins: "*" }} }} ]
"#
    ))
    .await;
    let mut here = EventSource::connect(ssegate.url("/m"), Options::http1()).await;
    here.next_named("stream.position").await;
    let mut collector = Collector::start(TestCa::shared()).await;
    let _browser = open(&collector.page_url(&ssegate.url("/m"))).await;
    collector.wait_count("error", 3).await;
    assert_eq!(collector.of_kind("position").len(), 0);
    drop(here);
    collector.wait_count("position", 1).await;
    ssegate.publish("m", "welcome").await;
    collector.wait_count("message", 1).await;
    let errors = collector.of_kind("error");
    assert!(errors.iter().all(|error| error.ready_state == Some(0)), "it never gave up: {errors:?}");
}

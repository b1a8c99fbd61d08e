//! A relay tier: ssegate reads ssegate. Ids pass through unchanged, so that clients move between edges and tiers and are
//! given everything once, and what is missing is told with the reason that the inner tier tells.

use redis::cmd;

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::proxy::Proxy;
use crate::support::recorder::{Habits, Recorder};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;

/// The inner tier over a Redis stream and a channel.
async fn core(redis: &Redis) -> Ssegate {
    // Nobody is to find a link lost that is only slow: gaps are counted.
    Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 200ms, timeout: 10s }} }} }}
defaults: {{ retry: 100ms, keepalive: 1s }}
routes:
  - {{ path: /audit, from: {{ upstream: cache, stream: audit }}, data: "{{field.n}}" }}
  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}
"#,
        redis.url()
    ))
    .await
}

/// An edge that reads what is at this URL. `/short` keeps nearly nothing.
async fn edge(core: &str) -> Ssegate {
    let ca = TestCa::shared().cert_path();
    Ssegate::start(format!(
        r#"
upstreams: {{ core: {{ sse: {{ url: "{core}", relay: true, idle: 5s, tls: {{ ca: {ca:?} }} }} }} }}
defaults: {{ retry: 100ms, keepalive: 1s }}
routes:
  - {{ path: /audit, from: {{ upstream: core, path: /audit }} }}
  - {{ path: /short, from: {{ upstream: core, path: /audit }}, event: short, history: {{ events: 3 }}, buffer: 64KiB }}
  - {{ path: /news, from: {{ upstream: core, path: /news }} }}
"#
    ))
    .await
}

async fn connect(ssegate: &Ssegate, path: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    stream
}

fn all(numbers: std::ops::Range<i32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn ids_are_the_same_at_every_edge_and_in_the_inner_tier() {
    let redis = Redis::start().await;
    let core = core(&redis).await;
    let (one, two) = (edge(&core.url("/")).await, edge(&core.url("/")).await);
    let mut client = connect(&one, "/audit", Options::http2()).await;
    let first = redis.xadd_numbers("audit", 0..100).await;
    assert_eq!(client.next_data(100).await, all(0..100));
    assert_eq!(client.last_event_id(), first[99]);
    // From edge to edge, to the inner tier and back, also from further back than edges hold.
    let mut place = first[9].clone();
    for (ssegate, path) in
        [(&two, "/audit"), (&core, "/audit"), (&one, "/short"), (&two, "/short"), (&one, "/audit")]
    {
        let mut stream = connect(ssegate, path, Options::http2().resume(&place)).await;
        let from = first.iter().position(|id| *id == place).unwrap() as i32 + 1;
        assert_eq!(stream.next_data(15).await, all(from..from + 15), "{path}");
        place = first[from as usize + 4].clone();
    }
    let more = redis.xadd_numbers("audit", 100..110).await;
    assert_eq!(client.next_data(10).await, all(100..110));
    assert_eq!(client.last_event_id(), more[9]);
    for edge in [&one, &two] {
        assert_eq!(edge.metrics().await.sum("ssegate_client_gaps_total", &[]), 0.0);
    }
    // Each edge reads two paths, each once.
    core.until_counted("ssegate_subscribers", &[], 4.0).await;
}

#[tokio::test]
async fn a_gap_of_the_inner_tier_is_told_on_with_its_reason_and_counted() {
    let redis = Redis::start().await;
    let core = core(&redis).await;
    let link = Proxy::start(core.addr()).await;
    let edge = edge(&format!("https://localhost:{}/", link.addr().port())).await;
    let mut client = connect(&edge, "/audit", Options::http2()).await;
    let mut news = connect(&edge, "/news", Options::http2()).await;
    redis.until_subscribed("news", 1).await;
    redis.xadd_numbers("audit", 0..5).await;
    assert_eq!(client.next_data(5).await, all(0..5));
    redis.publish("news", "a").await;
    assert_eq!(news.next_data(1).await, ["a"]);
    // The inner tier loses its link to Redis: that is the source's own gap, and no edge's.
    redis.client_kill_pubsub().await;
    let gap = news.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    assert!(gap["since"].is_string(), "{gap}");
    // Deleted and made anew.
    redis.command::<()>(cmd("DEL").arg("audit")).await;
    redis.xadd_numbers("audit", 5..7).await;
    assert_eq!(client.next_gap().await["reason"], "recreated");
    assert_eq!(client.next_data(2).await, all(5..7));
    for (reason, count) in [("upstream_lost", 1.0), ("recreated", 2.0)] {
        // Two feeds are read of the stream.
        edge.until_counted("ssegate_source_gaps_total", &[("upstream", "core"), ("reason", reason)], count)
            .await;
    }
    // An id that the inner tier knows nothing of.
    let mut stranger = EventSource::connect(edge.url("/audit"), Options::http2().resume("nobody's")).await;
    assert_eq!(stranger.next_gap().await["reason"], "unknown_id");
    redis.xadd_numbers("audit", 7..8).await;
    assert_eq!(stranger.next_data(1).await, ["7"]);
}

#[tokio::test]
async fn each_tier_and_each_link_may_go_and_nothing_is_missing_or_given_twice() {
    let redis = Redis::start_durable().await;
    let mut inner = core(&redis).await;
    let link = Proxy::start(inner.addr()).await;
    let url = format!("https://localhost:{}/", link.addr().port());
    let (mut one, two) = (edge(&url).await, edge(&url).await);
    let front = Proxy::start(one.addr()).await;
    let through = format!("https://localhost:{}/audit", front.addr().port());
    let hopping = Recorder::start(through, Options::http1(), Habits::cut(2_000..20_000, 7));
    let steady = Recorder::start(two.url("/short"), Options::http2(), Habits::steady());
    hopping.until_begun().await;
    steady.until_begun().await;
    let publish = async |numbers| drop(redis.xadd_numbers("audit", numbers).await);
    publish(0..500).await;
    link.cut_all();
    publish(500..1_000).await;
    inner.kill();
    publish(1_000..1_500).await;
    inner = core(&redis).await;
    link.set_target(inner.addr());
    publish(1_500..2_000).await;
    // The client goes on at the other edge, and then the first one is killed.
    front.set_target(two.addr());
    front.cut_all();
    one.kill();
    publish(2_000..2_500).await;
    one = edge(&url).await;
    front.set_target(one.addr());
    front.cut_all();
    publish(2_500..3_000).await;
    hopping.stop_cutting();
    for client in [hopping, steady] {
        client.wait_messages(3_000).await;
        assert_eq!(client.gaps(), Vec::<serde_json::Value>::new());
        let data: Vec<_> = client.messages().into_iter().map(|event| event.data).collect();
        assert_eq!(data, all(0..3_000));
    }
}

#[tokio::test]
async fn kafka_is_read_through_two_tiers_and_edges_agree_on_every_id() {
    let (kafka, topic) = (Kafka::shared().await, unique("relayed"));
    kafka.create_topic(&topic, 3).await;
    let ca = TestCa::shared().cert_path();
    let core = Ssegate::start(format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{}"] }} }} }}
defaults: {{ retry: 100ms, keepalive: 1s }}
routes:
  - {{ path: /orders, from: {{ upstream: bus, topic: {topic} }} }}
  - {{ path: "/orders/{{id}}", from: {{ upstream: bus, topic: {topic}, key: "{{id}}" }} }}
"#,
        kafka.bootstrap()
    ))
    .await;
    let tier = async |url: String| {
        Ssegate::start(format!(
            r#"
upstreams: {{ core: {{ sse: {{ url: "{url}", relay: true, tls: {{ ca: {ca:?} }} }} }} }}
defaults: {{ retry: 100ms, keepalive: 1s }}
routes:
  - {{ path: /orders, from: {{ upstream: core, path: /orders }}, history: {{ events: 20 }}, buffer: 64KiB }}
  - {{ path: "/orders/{{id}}", from: {{ upstream: core, path: "/orders/{{id}}" }} }}
"#
        ))
        .await
    };
    let middle = tier(core.url("/")).await;
    let (one, two) = (tier(middle.url("/")).await, tier(core.url("/")).await);
    let mut client = connect(&one, "/orders", Options::http2()).await;
    let mut own = connect(&two, "/orders/7", Options::http2()).await;
    let records = |numbers: std::ops::Range<i32>| {
        numbers
            .map(|n| Record::to(&topic).key((n % 10).to_string()).payload(n.to_string()))
            .collect::<Vec<_>>()
    };
    kafka.produce_all(records(0..200)).await;
    let mut got = client.next_data(99).await;
    let last = client.next_message().await;
    let place = last.id;
    got.push(last.data);
    client.close();
    // What it was not given yet it is given at the other edge, whose log does not reach so far.
    let mut client = connect(&two, "/orders", Options::http2().resume(&place)).await;
    kafka.produce_all(records(200..400)).await;
    got.extend(client.next_data(300).await);
    let mut numbers: Vec<i32> = got.iter().map(|data| data.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    let keyed: Vec<String> = (0..400).filter(|n| n % 10 == 7).map(|n| n.to_string()).collect();
    assert_eq!(own.next_data(40).await, keyed);
}

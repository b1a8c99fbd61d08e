//! Routes with `snapshot`: the newest of each key, and then every change, from real upstreams.

mod kinds;

use std::collections::BTreeMap;

use crate::support::browser::Browser;
use crate::support::collector::{Collector, Report};
use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::sse_parser::Event;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

/// What a page makes of a stream: `KEY VALUE` sets a key, `gone` deletes one, and a snapshot begins anew.
#[derive(Debug, Default)]
struct Page {
    state: BTreeMap<String, String>,
    snapshots: usize,
    gaps: Vec<String>,
    id: String,
}

impl Page {
    fn see(&mut self, event: Event) {
        match event.event.as_str() {
            "stream.snapshot-start" => self.state.clear(),
            "stream.snapshot-end" => self.snapshots += 1,
            "stream.gap" => self.gaps.push(event.data),
            "stream.position" => self.id = event.id,
            "gone" => {
                self.state.remove(&event.data);
                self.id = event.id;
            }
            _ => {
                let (key, value) = event.data.split_once(' ').unwrap();
                self.state.insert(key.to_owned(), value.to_owned());
                self.id = event.id;
            }
        }
    }

    /// Reads up to the first position that is told.
    async fn begun(stream: &mut EventSource) -> Self {
        let mut page = Self::default();
        while page.id.is_empty() || page.id == "-" {
            page.see(stream.next().await);
        }
        page
    }

    async fn until(&mut self, stream: &mut EventSource, expected: &BTreeMap<String, String>) {
        while self.state != *expected {
            self.see(stream.next().await);
        }
    }
}

/// What a consumer makes of the same records.
#[derive(Debug, Default, Clone)]
struct Consumer(BTreeMap<String, String>);

impl Consumer {
    /// The next changes of so many keys; every seventh key is deleted now and then.
    fn changes(&mut self, topic: &str, keys: u32, from: u32, to: u32) -> Vec<Record> {
        let change = |n: u32| {
            let (key, record) = ((n % keys).to_string(), Record::to(topic).key((n % keys).to_string()));
            if n % 7 == 3 {
                self.0.remove(&key);
                return record;
            }
            let payload = format!("{key} {n}");
            self.0.insert(key, n.to_string());
            record.payload(payload)
        };
        (from..to).map(change).collect()
    }
}

fn config(bootstrap: &str, topic: &str, more: &str) -> String {
    let route = format!("from: {{ upstream: bus, topic: {topic} }}, tombstone: {{ event: gone }}");
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"], properties: {{ topic.metadata.refresh.interval.ms: 1000 }} }} }} }}
defaults: {{ keepalive: 1s, cors: {{ origins: "*" }} }}
routes:
  - {{ path: /state, {route}, snapshot: true{more} }}
  - {{ path: /short, {route}, event: short, snapshot: true, history: {{ events: 3 }}, buffer: 64KiB, replay: {{ max_events: 100 }} }}
  - {{ path: /few, {route}, event: few, snapshot: {{ max_keys: 10 }} }}
  - {{ path: "/k/{{id}}", from: {{ upstream: bus, topic: {topic}, key: "{{id}}", partitioner: crc32 }}, event: of, snapshot: true }}
"#
    )
}

#[tokio::test]
async fn state_and_changes_are_what_a_consumer_sees_over_replicas_and_restarts() {
    let kafka = Kafka::shared().await;
    let (topic, mut consumer) = (unique("snapshot"), Consumer::default());
    let settings =
        [("cleanup.policy", "compact"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.01")];
    kafka.create_topic_with(&topic, 3, &settings).await;
    kafka.produce_all(consumer.changes(&topic, 500, 0, 5_000)).await;

    let first = Ssegate::start(config(&kafka.bootstrap(), &topic, "")).await;
    let second =
        Ssegate::start(config(&kafka.bootstrap(), &topic, ", conflate: { by: key, every: 100ms }")).await;
    let mut stream = EventSource::connect(first.url("/state"), Options::http2()).await;
    let page = Page::begun(&mut stream).await;
    assert_eq!((&page.state, page.snapshots), (&consumer.0, 1), "the table is there, and nothing else");

    // While changes come, more clients do, at any moment: none misses or repeats a thing.
    let mut pages = Vec::new();
    for step in 0..10 {
        let from = 5_000 + step * 200;
        kafka.produce_all(consumer.changes(&topic, 500, from, from + 200)).await;
        for (ssegate, path) in [(&first, "/state"), (&second, "/state"), (&first, "/short")] {
            let mut stream = EventSource::connect(ssegate.url(path), Options::http1()).await;
            let page = Page::begun(&mut stream).await;
            pages.push((page, stream));
        }
    }
    pages.push((page, stream));
    for (page, stream) in &mut pages {
        page.until(stream, &consumer.0).await;
        assert_eq!(page.gaps, Vec::<String>::new());
    }

    // An id within history gets the changes, on either replica.
    let id = pages.pop().unwrap().0.id;
    pages.clear();
    let before = consumer.clone();
    kafka.produce_all(consumer.changes(&topic, 500, 7_000, 7_100)).await;
    for ssegate in [&first, &second] {
        let mut back = EventSource::connect(ssegate.url("/state"), Options::http1().resume(&id)).await;
        let mut page = Page { state: before.0.clone(), ..Page::default() };
        page.until(&mut back, &consumer.0).await;
        assert_eq!(page.snapshots, 0, "it has been given what changed: {back}");
    }
    // One that is too old gets a snapshot, and no gap.
    kafka.produce_all(consumer.changes(&topic, 500, 7_100, 8_000)).await;
    let mut back = EventSource::connect(first.url("/short"), Options::http2().resume(&id)).await;
    let mut page = Page { state: before.0, ..Page::default() };
    while page.snapshots == 0 {
        page.see(back.next().await);
    }
    // Taken before the last of it had come in, perhaps.
    page.until(&mut back, &consumer.0).await;
    assert_eq!(page.gaps.len(), 0, "{back}");

    // After a restart the table is read anew.
    drop(first);
    let restarted = Ssegate::start(config(&kafka.bootstrap(), &topic, "")).await;
    let mut stream = EventSource::connect(restarted.url("/state"), Options::http1()).await;
    assert_eq!(Page::begun(&mut stream).await.state, consumer.0);
}

#[tokio::test]
async fn a_key_has_a_snapshot_of_one_and_a_full_table_says_what_it_lacks() {
    let kafka = Kafka::shared().await;
    if kafka.is_mock() {
        eprintln!("skipped on the mock cluster: it tells no offsets by time");
        return;
    }
    let (topic, mut consumer) = (unique("snapshot"), Consumer::default());
    kafka.create_topic(&topic, 1).await;
    kafka.produce_all(consumer.changes(&topic, 50, 0, 500)).await;
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic, "")).await;
    for key in [3, 4] {
        let mut stream = EventSource::connect(ssegate.url(&format!("/k/{key}")), Options::http1()).await;
        let page = Page::begun(&mut stream).await;
        let expected: BTreeMap<_, _> = consumer
            .0
            .iter()
            .filter(|(own, _)| **own == key.to_string())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert_eq!((page.state, page.snapshots), (expected, 1));
        kafka.produce(Record::to(&topic).key(key.to_string()).payload(format!("{key} new"))).await;
        consumer.0.insert(key.to_string(), "new".to_owned());
        assert_eq!(stream.next_named("of").await.data, format!("{key} new"));
    }
    let mut stream = EventSource::connect(ssegate.url("/few"), Options::http1()).await;
    let page = Page::begun(&mut stream).await;
    assert_eq!(page.state.len(), 10, "{page:?}");
    assert!(page.state.iter().all(|(key, value)| consumer.0.get(key) == Some(value)), "they are the newest");
    let gap: serde_json::Value = serde_json::from_str(&page.gaps[0]).unwrap();
    assert_eq!(
        (page.gaps.len(), &gap["reason"], gap["missed"].is_null()),
        (1, &"snapshot_limit".into(), true)
    );
    let status = ssegate.status().await;
    let of_few = status["feeds"].as_array().unwrap().iter().find(|feed| feed["event"] == "few").unwrap();
    assert_eq!((&of_few["snapshot"]["keys"], &of_few["snapshot"]["full"]), (&10.into(), &true.into()));
}

#[tokio::test]
async fn a_table_waits_for_its_broker_and_so_do_those_who_want_a_snapshot() {
    let mut kafka = Kafka::start().await;
    if kafka.is_mock() {
        eprintln!("skipped on the mock cluster: it keeps nothing over a restart");
        return;
    }
    let (topic, mut consumer) = (unique("snapshot"), Consumer::default());
    kafka.create_topic(&topic, 2).await;
    kafka.produce_all(consumer.changes(&topic, 100, 0, 1_000)).await;
    let bootstrap = kafka.bootstrap();
    kafka.stop().await;
    let ssegate = Ssegate::start(config(&bootstrap, &topic, "")).await;
    let mut stream = EventSource::connect(ssegate.url("/state"), Options::http1()).await;
    stream.until_comments(2).await;
    assert_eq!(stream.events().len(), 0, "it is open, and kept alive");
    kafka.restart().await;
    assert_eq!(Page::begun(&mut stream).await.state, consumer.0);
}

#[tokio::test]
async fn a_stream_is_read_from_its_beginning_and_its_keys_are_fields() {
    let redis = Redis::start().await;
    for n in 0..3_000 {
        redis.xadd("s", "*", &[("id", &(n % 40).to_string()), ("v", &format!("{} {n}", n % 40))]).await;
    }
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: "{{field.v}}", snapshot: {{ by: "{{field.id}}" }}, history: {{ events: 5 }} }}
  - {{ path: "/s/{{name}}", from: {{ upstream: cache, stream: "{{name}}" }}, data: "{{field.v}}", event: x, snapshot: {{ by: "{{field.id}}" }}, history: {{ events: 5 }} }}
"#,
        redis.url()
    ))
    .await;
    let mut expected: BTreeMap<_, _> =
        (2_960..3_000).map(|n| ((n % 40).to_string(), n.to_string())).collect();
    for path in ["/s", "/s/s"] {
        let mut stream = EventSource::connect(ssegate.url(path), Options::http1()).await;
        let mut page = Page::begun(&mut stream).await;
        assert_eq!(page.state, expected, "{path}");
        redis.xadd("s", "*", &[("id", "7"), ("v", "7 new")]).await;
        expected.insert("7".to_owned(), "new".to_owned());
        page.until(&mut stream, &expected).await;
        let mut other = EventSource::connect(ssegate.url("/s/none"), Options::http1()).await;
        assert_eq!(
            Page::begun(&mut other).await.state,
            BTreeMap::new(),
            "a stream that is not there has no keys"
        );
    }
}

#[tokio::test]
async fn the_channels_of_a_pattern_are_keys_and_what_was_lost_is_told_in_its_place() {
    let mut redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 200ms, timeout: 2s }} }} }}
routes: [ {{ path: /p, from: {{ upstream: cache, pattern: "gauge.*" }}, snapshot: true }} ]
"#,
        redis.url()
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/p"), Options::http1()).await;
    let mut page = Page::begun(&mut stream).await;
    assert_eq!((page.state.len(), page.snapshots), (0, 1));
    let gauges = |to: u32| {
        (0..to).map(|n| (format!("gauge.{}", n % 10), format!("{} {n}", n % 10))).collect::<Vec<_>>()
    };
    redis.publish_each(&gauges(100)).await;
    let mut expected: BTreeMap<_, _> = (90..100).map(|n| ((n % 10).to_string(), n.to_string())).collect();
    page.until(&mut stream, &expected).await;
    let id = page.id;
    redis.restart().await;
    stream.next_gap().await;
    redis.publish("gauge.3", "3 new").await;
    expected.insert("3".to_owned(), "new".to_owned());
    stream.next_message().await;

    let mut late = EventSource::connect(ssegate.url("/p"), Options::http1()).await;
    let page = Page::begun(&mut late).await;
    assert_eq!((&page.state, page.gaps.len()), (&expected, 1));
    let names: Vec<_> = late.events().iter().map(|event| event.event.as_str()).collect();
    let gap = names.iter().position(|name| *name == "stream.gap").unwrap();
    assert_eq!(
        (gap, names.len()),
        (10, 14),
        "what came before it may be old, and what comes after it is not: {late}"
    );

    // An id of another process gets a snapshot.
    let unknown = id.replace(|c: char| c.is_ascii_hexdigit(), "0");
    let mut back = EventSource::connect(ssegate.url("/p"), Options::http2().resume(&unknown)).await;
    assert_eq!(Page::begun(&mut back).await.state, expected);
    let mut back = EventSource::connect(ssegate.url("/p"), Options::http2().resume(&id)).await;
    assert_eq!(Page::begun(&mut back).await.snapshots, 0, "one of this gets what it missed");
}

/// Who is cut within a snapshot has no place to come back to, whatever it had before.
#[tokio::test]
async fn a_client_that_is_cut_within_a_snapshot_begins_another() {
    let redis = Redis::start().await;
    let pad = "x".repeat(1_000);
    for n in 0..500 {
        redis.xadd("s", "*", &[("id", &n.to_string()), ("v", &format!("{n} {pad}"))]).await;
    }
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: "{{field.v}}", snapshot: {{ by: "{{field.id}}" }}, retry: 100ms }}
"#,
        redis.url()
    ))
    .await;
    let mut stream = EventSource::new(ssegate.url("/s"), Options::http1());
    stream.reconnect().await;
    stream.cut_after(200_000);
    let mut page = Page::default();
    while let Some(event) = stream.try_next().await {
        page.see(event);
    }
    assert!(page.snapshots == 0 && page.state.len() > 100, "{stream}");
    stream.reconnect().await;
    while page.snapshots == 0 {
        page.see(stream.next().await);
    }
    let starts = stream.events().iter().filter(|event| event.event == "stream.snapshot-start").count();
    assert_eq!((page.state.len(), starts), (500, 2));
}

#[tokio::test]
async fn a_topic_made_anew_begins_with_a_snapshot_of_its_own() {
    let kafka = Kafka::shared().await;
    if kafka.is_mock() {
        eprintln!("skipped on the mock cluster: it deletes no topics");
        return;
    }
    let (topic, mut consumer) = (unique("snapshot"), Consumer::default());
    kafka.create_topic(&topic, 2).await;
    kafka.produce_all(consumer.changes(&topic, 30, 0, 300)).await;
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic, "")).await;
    let mut stream = EventSource::connect(ssegate.url("/state"), Options::http1()).await;
    let mut page = Page::begun(&mut stream).await;
    assert_eq!(page.state, consumer.0);
    kafka.delete_topic(&topic).await;
    eventually("ssegate to find the topic gone", async || {
        let error = ssegate.status().await["upstreams"][0]["last_error"]["error"].to_string();
        if error.contains(&topic) { Ok(()) } else { Err(error) }
    })
    .await;
    kafka.create_topic(&topic, 2).await;
    let mut consumer = Consumer::default();
    kafka.produce_all(consumer.changes(&topic, 20, 0, 100)).await;
    while page.snapshots < 2 {
        page.see(stream.next().await);
    }
    page.until(&mut stream, &consumer.0).await;
    assert_eq!(page.gaps.len(), 0, "{stream}");
}

/// A browser that is cut within a snapshot, and after it, knows in the end what a consumer does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_builds_the_state_through_cuts() {
    let ca = TestCa::shared();
    let redis = Redis::start().await;
    let mut expected = BTreeMap::new();
    let pad = "x".repeat(500);
    for n in 0..400_u32 {
        redis.xadd("s", "*", &[("id", &n.to_string()), ("v", &format!("{n} {n}{pad}"))]).await;
        expected.insert(n.to_string(), format!("{n}{pad}"));
    }
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /s
    from: {{ upstream: cache, stream: s }}
    data: "{{field.v}}"
    snapshot: {{ by: "{{field.id}}" }}
    retry: 200ms
    cors: {{ origins: "*" }}
"#,
        redis.url()
    ))
    .await;
    let proxy = Proxy::start(ssegate.addr()).await;
    // It takes ten seconds.
    proxy.limit_rate(20_000);
    let mut collector = Collector::start(ca).await;
    let stream = format!("https://localhost:{}/s", proxy.addr().port());
    let _browser = Browser::chromium(ca, &collector.page_url(&stream)).await;
    eventually("some of the snapshot to be on its way", async || {
        let down = proxy.bytes_down();
        if down > 30_000 { Ok(()) } else { Err(down) }
    })
    .await;
    proxy.cut_all();
    proxy.limit_rate(0);
    collector.wait_count("snapshot-end", 1).await;
    assert!(collector.of_kind("snapshot-start").len() >= 2, "it was cut within the first");
    for n in 400..600_u32 {
        if n == 500 {
            proxy.cut_all();
        }
        let id = (n % 450).to_string();
        redis.xadd("s", "*", &[("id", &id), ("v", &format!("{id} {n}"))]).await;
        expected.insert(id, n.to_string());
    }
    let state = |reports: &[Report]| {
        let mut state = BTreeMap::new();
        for report in reports {
            match report.kind.as_str() {
                "snapshot-start" => state.clear(),
                "message" => {
                    let (key, value) = report.data.split_once(' ').unwrap();
                    state.insert(key.to_owned(), value.to_owned());
                }
                _ => {}
            }
        }
        state
    };
    collector.wait_for("the state to be what was published", |reports| state(reports) == expected).await;
    assert_eq!(collector.of_kind("snapshot-end").len(), 1, "after the second cut its id was enough");
    assert_eq!(collector.of_kind("gap").len(), 0);
}

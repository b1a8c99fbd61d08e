//! The proof: five hundred streams of every kind, and ten reloads that change everything but what they read.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::within;
use crate::tls::pair;

const STREAMS: usize = 500;
const RELOADS: usize = 10;
const PATHS: [&str; 5] = ["/push/a", "/channel", "/stream", "/topic", "/ticks"];

/// Everything that is read stands in each; what stands beside it is another for each `n`.
fn config(n: usize, (redis, kafka, topic): (&Redis, &Kafka, &str)) -> String {
    let mut yaml = format!(
        "server: {{ listen: \"127.0.0.1:0\", drain: {n}s, hsts: {{ max_age: {}s }}, tls: {{ {} }} }}
limits: {{ connections_per_client: {}, write_stall: {}s }}
upstreams:
  lobby: {{ push: {{}} }}
  cache: {{ redis: {{ url: \"{}\" }} }}
  bus: {{ kafka: {{ brokers: [\"{}\"] }} }}
  clock: {{ ticker: {{ every: 100ms }} }}
  other-{n}: {{ ticker: {{ every: 1h }} }}
routes:
",
        60 + n,
        pair(TestCa::shared().leaf()),
        10_000 + n,
        30 + n,
        redis.url(),
        kafka.bootstrap(),
    );
    for (path, from) in [
        ("\"/push/{x}\"", "upstream: lobby, channel: \"{x}\"".to_owned()),
        ("/channel", "upstream: cache, channel: c".to_owned()),
        ("/stream", "upstream: cache, stream: s".to_owned()),
        ("/topic", format!("upstream: bus, topic: {topic}")),
        ("/ticks", "upstream: clock".to_owned()),
        // These come, go, and change what they read.
        (&format!("/new-{n}"), format!("upstream: other-{n}")),
        ("/changes", format!("upstream: lobby, channel: changes-{n}")),
    ] {
        let data = if from.contains("stream: s") { ", data: \"{field.n}\"" } else { "" };
        let policies = format!(
            "keepalive: {}s, retry: {}s, cors: {{ origins: [\"https://{n}.example\"] }}",
            5 + n,
            1 + n
        );
        let _ = writeln!(yaml, "  - {{ path: {path}, from: {{ {from} }}{data}, {policies} }}");
    }
    yaml
}

/// What one stream was given until it was told the end: each message once with the one before it, and nothing beside.
async fn read(mut stream: EventSource, is_clock: bool, mut stop: watch::Receiver<bool>) -> Vec<u32> {
    let mut seen = Vec::new();
    loop {
        let event = tokio::select! {
            event = stream.try_next() => event,
            _ = stop.wait_for(|stop| *stop), if is_clock => return seen,
        };
        let event = event.unwrap_or_else(|| panic!("it ended: {stream}"));
        stream.forget();
        match (&*event.event, &*event.data) {
            ("message", "end") => return seen,
            ("message", "tick") => {
                // The log of a ticker numbers its events without a hole.
                let (_, number) = event.id.rsplit_once('-').expect("epoch and number");
                seen.push(number.parse().expect("a number"));
            }
            ("message", number) => seen.push(number.parse().expect("a number")),
            ("stream.position", _) => {}
            _ => panic!("{event:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_notice_none_of_ten_reloads() {
    let (redis, kafka) = (Redis::start().await, Kafka::shared().await);
    let topic = unique("proof");
    kafka.create_topic(&topic, 1).await;
    let systems = (&redis, kafka, &*topic);
    let ssegate = Ssegate::start(config(0, systems)).await;
    redis.until_subscribed("c", 1).await;

    let (stop, stopped) = watch::channel(false);
    let mut readers = JoinSet::new();
    let mut shared = None;
    for n in 0..STREAMS {
        let (path, url) = (PATHS[n % PATHS.len()], ssegate.url(PATHS[n % PATHS.len()]));
        // Half of them on HTTP/2, fifty a connection.
        let mut stream = if n % 2 == 0 {
            EventSource::connect(url, Options::http1()).await
        } else {
            if n % 100 == 1 {
                shared = Some(Arc::new(Link::open(&url, &Connect::http2()).await.expect("a connection")));
            }
            EventSource::connect_on(Arc::clone(shared.as_ref().expect("a connection")), url, Options::http2())
                .await
        };
        stream.next_named("stream.position").await;
        let stopped = stopped.clone();
        readers.spawn(async move { (path, read(stream, path == "/ticks", stopped).await) });
    }

    // Messages come all the time, also while a reload is under way.
    let sent = AtomicU32::new(0);
    let publish = async |data: &str| {
        ssegate.publish("a", data).await;
        assert_eq!(redis.publish("c", data).await, 1, "it is subscribed to all the time");
        redis.xadd("s", "*", &[("n", data)]).await;
        kafka.produce(Record::to(&topic).payload(data)).await;
    };
    let publishing = async {
        while !*stopped.borrow() {
            publish(&sent.load(Ordering::Relaxed).to_string()).await;
            sent.fetch_add(1, Ordering::Relaxed);
            // A pace, which leaves something of the machine to others.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reloading = async {
        let mut changing = EventSource::connect(ssegate.url("/changes"), Options::http1()).await;
        for n in 1..=RELOADS {
            let before = sent.load(Ordering::Relaxed);
            // The fifth is bad.
            let yaml = config(n, systems);
            ssegate.rewrite(&if n == 5 { yaml.replace("keepalive", "keepalives") } else { yaml });
            let answer = ssegate.post_reload().await;
            assert_eq!(answer.status.as_u16(), if n == 5 { 422 } else { 200 }, "{}", answer.text());
            if n != 5 {
                changing.until_end().await;
                EventSource::connect(ssegate.url(&format!("/new-{n}")), Options::http2()).await;
                changing.reconnect().await;
            }
            within("some messages more", async {
                while sent.load(Ordering::Relaxed) < before + 5 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        }
        stop.send_replace(true);
    };
    tokio::join!(publishing, reloading);
    publish("end").await;

    let sent = sent.into_inner();
    let (mut ends, mut ticks) = (0, 0);
    while let Some(read) = within("a stream to have it all", readers.join_next()).await {
        let (path, seen) = read.expect("it never ended, and had no gap");
        if path == "/ticks" {
            assert!(seen.windows(2).all(|two| two[0] + 1 == two[1]), "{seen:?}");
            ticks += usize::from(seen.len() > RELOADS);
        } else {
            assert_eq!(seen, (0..sent).collect::<Vec<_>>(), "{path}: nothing missing, nothing twice");
            ends += 1;
        }
    }
    assert_eq!((ends, ticks), (STREAMS / 5 * 4, STREAMS / 5));
    let metrics = ssegate.metrics().await;
    for (result, count) in [("success", RELOADS - 1), ("failure", 1)] {
        assert_eq!(metrics.sum("ssegate_config_reloads_total", &[("result", result)]), count as f64);
    }
    assert_eq!(metrics.sum("ssegate_upstream_reconnects_total", &[]), 0.0);
    assert_eq!(metrics.sum("ssegate_source_gaps_total", &[]), 0.0);
    for route in ["/push/{x}", "/channel", "/stream", "/topic", "/ticks"] {
        assert_eq!(metrics.sum("ssegate_client_gaps_total", &[("route", route)]), 0.0, "{route}");
        assert!(metrics.sum("ssegate_events_out_total", &[("route", route)]) > 0.0, "{route} counts on");
    }
    // The only connection to Redis for messages is the one of the beginning.
    assert_eq!(redis.pubsub_connections().await, 1);
    let up = |line: &&serde_json::Value| line["message"] == "upstream is up" && line["upstream"] == "cache";
    assert_eq!(ssegate.log().iter().filter(up).count(), 1);
}

//! JetStream on a real server: resuming by sequence number from memory and from the stream, on any replica, parts of a
//! stream, times, and streams that are trimmed, purged, made anew, or not there.

use async_nats::jetstream::stream;
use futures_util::TryStreamExt as _;

use crate::support::eventsource::{EventSource, Options};
use crate::support::nats::{Nats, store};
use crate::support::proxy::Proxy;
use crate::support::ssegate::{Ssegate, field};
use crate::support::wait::eventually;

fn config(nats: &Nats, route: &str) -> String {
    format!(
        r#"
upstreams: {{ bus: {{ nats: {{ servers: "{}", ping_interval: 200ms, timeout: 3s }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: /orders, from: {{ upstream: bus, jetstream: ORDERS }}, event: "{{subject}}" {route} }}
  - {{ path: /old, from: {{ upstream: bus, jetstream: ORDERS, start: earliest }} {route} }}
  - {{ path: "/orders/{{id}}", from: {{ upstream: bus, jetstream: ORDERS, subject: "orders.{{id}}" }} {route} }}
"#,
        nats.url()
    )
}

/// Keeps next to nothing in memory.
const SHORT: &str = ", history: { events: 5 }, buffer: 64KiB";

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| (format!("orders.{}", n % 10), n.to_string()))
}

async fn data(source: &mut EventSource, count: usize) -> Vec<u32> {
    let mut data = Vec::new();
    for _ in 0..count {
        data.push(source.next_message().await.data.parse().unwrap());
        source.forget();
    }
    data
}

async fn orders() -> Nats {
    let nats = Nats::start_jetstream().await;
    nats.create_stream("ORDERS", &["orders.>"]).await;
    nats
}

#[tokio::test]
async fn an_id_resumes_exactly_from_memory_from_the_stream_and_on_another_replica() {
    let nats = orders().await;
    let replicas = [Ssegate::start(config(&nats, SHORT)).await, Ssegate::start(config(&nats, "")).await];
    let mut live = EventSource::connect(replicas[0].url("/orders"), Options::http2()).await;
    let start = live.next_named("stream.position").await.id;
    store(&nats.jetstream().await, numbers(0..3_000)).await;
    let mut ids = Vec::new();
    for n in 0..3_000_u32 {
        let event = live.next().await;
        assert_eq!((event.event, event.data), (format!("orders.{}", n % 10), n.to_string()));
        ids.push(event.id);
        live.forget();
    }
    assert!(ids[41].ends_with("-42"), "{}", ids[41]);
    for ssegate in &replicas {
        for at in [0_usize, 1_500, 2_990, 2_999] {
            let mut back =
                EventSource::connect(ssegate.url("/orders"), Options::http1().resume(&ids[at])).await;
            assert_eq!(back.next_named("stream.position").await.id, ids[at]);
            assert_eq!(data(&mut back, 2_999 - at).await, Vec::from_iter(at as u32 + 1..3_000));
        }
        let mut back = EventSource::connect(ssegate.url("/orders"), Options::http2().resume(&start)).await;
        assert_eq!(data(&mut back, 3_000).await, Vec::from_iter(0..3_000));
    }
}

#[tokio::test]
async fn a_part_of_a_stream_is_read_live_and_resumes() {
    let nats = orders().await;
    let context = nats.jetstream().await;
    store(&context, numbers(0..1_000)).await;
    let ssegate = Ssegate::start(config(&nats, SHORT)).await;
    let mut live = EventSource::connect(ssegate.url("/orders/7"), Options::http2()).await;
    let start = live.next_named("stream.position").await.id;
    store(&context, numbers(1_000..2_000)).await;
    let sevens = |from: u32, to: u32| Vec::from_iter((from..to).filter(|n| n % 10 == 7));
    assert_eq!(data(&mut live, 100).await, sevens(1_000, 2_000));
    let mut back = EventSource::connect(ssegate.url("/orders/7"), Options::http1().resume(&start)).await;
    assert_eq!(data(&mut back, 100).await, sevens(1_000, 2_000));
    let since = format!("{}?since=1h", ssegate.url("/orders/7"));
    let mut since = EventSource::connect(since, Options::http1()).await;
    assert_eq!(data(&mut since, 200).await, sevens(0, 2_000));
    let mut other = EventSource::connect(ssegate.url("/orders/none"), Options::http1()).await;
    other.next_named("stream.position").await;
}

#[tokio::test]
async fn what_is_of_other_subjects_moves_the_position_on() {
    let nats = orders().await;
    let context = nats.jetstream().await;
    let ssegate = Ssegate::start(config(&nats, "")).await;
    let mut quiet = EventSource::connect(ssegate.url("/orders/quiet"), Options::http1()).await;
    quiet.next_named("stream.position").await;
    let last = store(&context, numbers(0..100)).await;
    loop {
        let moved = quiet.next_named("stream.position").await.id;
        if moved.ends_with(&format!("-{last}")) {
            break;
        }
    }
    // What it has read past is no loss, also if it is taken away.
    let mut stream = context.get_stream("ORDERS").await.unwrap();
    stream.purge().await.unwrap();
    stream.info().await.unwrap();
    store(&context, [("orders.quiet", "1")]).await;
    let next = quiet.next().await;
    assert_eq!((&*next.event, &*next.data), ("message", "1"), "no gap");
}

#[tokio::test]
async fn a_start_in_the_past_and_a_log_that_begins_with_what_there_is() {
    let nats = orders().await;
    store(&nats.jetstream().await, numbers(0..200)).await;
    let ssegate = Ssegate::start(config(&nats, "")).await;
    let mut old = EventSource::connect(ssegate.url("/old"), Options::http1()).await;
    assert_eq!(data(&mut old, 200).await, Vec::from_iter(0..200));
    let feed = eventually("the log to be filled", async || {
        let status = ssegate.admin_get("/status/feeds").await.json();
        let events = status["feeds"][0]["history"]["events"].as_u64();
        if events == Some(200) { Ok(()) } else { Err(status) }
    });
    feed.await;
}

#[tokio::test]
async fn what_was_trimmed_is_told_and_what_is_left_follows() {
    let nats = orders().await;
    let context = nats.jetstream().await;
    let ssegate = Ssegate::start(config(&nats, SHORT)).await;
    let mut live = EventSource::connect(ssegate.url("/orders"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    // Much more than memory has room for.
    store(&context, numbers(0..5_000)).await;
    assert_eq!(data(&mut live, 5_000).await, Vec::from_iter(0..5_000));
    context.get_stream("ORDERS").await.unwrap().purge().sequence(501).await.unwrap();
    let mut back = EventSource::connect(ssegate.url("/orders"), Options::http2().resume(&start)).await;
    let gap = back.next_gap().await;
    assert_eq!((&gap["reason"], &gap["from"], &gap["to"]), (&"trimmed".into(), &1.into(), &501.into()));
    assert_eq!(data(&mut back, 4_500).await, Vec::from_iter(500..5_000));
}

#[tokio::test]
async fn what_was_taken_away_while_the_link_was_down_is_told_to_who_is_live() {
    let mut nats = orders().await;
    let mut proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into()).await;
    let text = config(&nats, "").replace(&nats.url(), &format!("nats://{}", proxy.addr()));
    let ssegate = Ssegate::start(text).await;
    let mut live = EventSource::connect(ssegate.url("/orders"), Options::http2()).await;
    live.next_named("stream.position").await;
    let context = nats.jetstream().await;
    store(&context, numbers(0..10)).await;
    assert_eq!(data(&mut live, 10).await, Vec::from_iter(0..10));
    proxy.refuse().await;
    proxy.cut_all();
    ssegate.wait_log("the loss", |line| field(line, "message").unwrap_or_default().contains("is down")).await;
    store(&context, numbers(10..20)).await;
    context.get_stream("ORDERS").await.unwrap().purge().sequence(16).await.unwrap();
    proxy.accept().await;
    let gap = live.next_gap().await;
    assert_eq!((&gap["reason"], &gap["from"], &gap["to"]), (&"trimmed".into(), &11.into(), &16.into()));
    assert_eq!(data(&mut live, 5).await, Vec::from_iter(15..20));
    // And nothing is lost with a server that keeps what it has.
    nats.kill();
    nats.restart().await;
    store(&nats.jetstream().await, numbers(20..30)).await;
    assert_eq!(data(&mut live, 10).await, Vec::from_iter(20..30));
}

/// It asks again and again, and between two questions it has none to be answered.
#[tokio::test]
async fn what_was_taken_away_of_a_part_before_it_could_be_read_is_told_also_where_nothing_follows() {
    let nats = orders().await;
    let link = Proxy::start(([127, 0, 0, 1], nats.port()).into()).await;
    let text = config(&nats, "").replace("timeout: 3s", "timeout: 1m");
    let ssegate = Ssegate::start(text.replace(&nats.url(), &format!("nats://{}", link.addr()))).await;
    let mut part = EventSource::ready(ssegate.url("/orders/7"), Options::http2()).await;
    let context = nats.jetstream().await;
    store(&context, [("orders.7", "1")]).await;
    assert_eq!(part.next_message().await.data, "1");
    link.pause();
    let mut stream = context.get_stream("ORDERS").await.unwrap();
    eventually("nobody to wait for what comes", async || {
        let consumers: Vec<_> = stream.consumers().try_collect().await.unwrap();
        let waiting: usize = consumers.iter().map(|consumer| consumer.num_waiting).sum();
        if waiting == 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    store(&context, [("orders.7", "2"), ("orders.7", "3")]).await;
    stream.purge().await.unwrap();
    stream.info().await.unwrap();
    link.resume();
    let gap = part.next_gap().await;
    assert_eq!((&gap["reason"], &gap["from"], &gap["to"]), (&"trimmed".into(), &2.into(), &4.into()));
    store(&context, [("orders.7", "4")]).await;
    assert_eq!(part.next_message().await.data, "4");
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another() {
    let nats = orders().await;
    let context = nats.jetstream().await;
    let ssegate = Ssegate::start(config(&nats, "")).await;
    let mut live = EventSource::connect(ssegate.url("/orders"), Options::http2()).await;
    live.next_named("stream.position").await;
    store(&context, numbers(0..10)).await;
    assert_eq!(data(&mut live, 9).await, Vec::from_iter(0..9));
    let id = live.next().await.id;
    context.delete_stream("ORDERS").await.unwrap();
    nats.create_stream("ORDERS", &["orders.>"]).await;
    store(&context, numbers(100..120)).await;
    assert_eq!(live.next_gap().await["reason"], "recreated");
    assert_eq!(data(&mut live, 20).await, Vec::from_iter(100..120));
    let mut back = EventSource::connect(ssegate.url("/orders"), Options::http1().resume(&id)).await;
    assert_eq!(back.next_gap().await["reason"], "recreated");
    assert_eq!(data(&mut back, 20).await, Vec::from_iter(100..120));
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_waited_for_and_a_work_queue_is_let_be() {
    let nats = Nats::start_jetstream().await;
    let ssegate = Ssegate::start(config(&nats, "")).await;
    let mut live = EventSource::connect(ssegate.url("/orders"), Options::http1()).await;
    let told = |words: &'static str| {
        let ssegate = &ssegate;
        async move {
            let line = ssegate
                .wait_log(words, |line| field(line, "cause").unwrap_or_default().contains(words))
                .await;
            field(&line, "cause").unwrap().to_owned()
        }
    };
    assert!(told("stream not found").await.contains("stream ORDERS cannot be read"));
    assert_eq!(ssegate.status().await["upstreams"][0]["up"], true);
    let context = nats.jetstream().await;
    let queue = stream::Config {
        name: "ORDERS".into(),
        subjects: vec!["orders.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    context.create_stream(queue).await.unwrap();
    told("work queue").await;
    context.delete_stream("ORDERS").await.unwrap();
    nats.create_stream("ORDERS", &["orders.>"]).await;
    live.next_named("stream.position").await;
    store(&context, numbers(0..1)).await;
    assert_eq!(live.next().await.data, "0");
}

#[tokio::test]
async fn consumers_are_as_many_as_parts_and_go_with_them() {
    let nats = orders().await;
    let text = config(&nats, "").replace("keepalive: 1s", "keepalive: 1s, idle_timeout: 0s");
    let ssegate = Ssegate::start(text).await;
    let mut streams = Vec::new();
    for path in ["/orders", "/orders", "/orders/1", "/orders/1", "/orders/2"] {
        let mut stream = EventSource::connect(ssegate.url(path), Options::http2()).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    let until = async |count| {
        eventually(&format!("{count} consumers"), async || match nats.consumers().await {
            now if now == count => Ok(()),
            now => Err(now),
        })
        .await;
    };
    // `/orders` and `/old` read the same stream.
    until(3).await;
    streams.iter_mut().for_each(EventSource::close);
    until(1).await;
}

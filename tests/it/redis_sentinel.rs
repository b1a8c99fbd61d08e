//! A master that real Sentinels name: failovers, masters that are no longer, and links that hang.

use std::time::SystemTime;

use crate::redis_streams::{all, numbers};
use crate::support::eventsource::{EventSource, Options};
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::redis::sentinel::Sentinel;
use crate::support::ssegate::{Ssegate, field};
use crate::support::wait::{DEADLINE, eventually};

/// The first sentinel of the list is not there.
fn config(sentinel: &Sentinel) -> String {
    config_after(&format!("redis://127.0.0.1:{}", ports::free()), sentinel)
}

/// The first sentinel of the list is at this URL.
fn config_after(first: &str, sentinel: &Sentinel) -> String {
    let url = sentinel.url();
    format!(
        r#"
upstreams:
  main:
    redis:
      url: "redis://main"
      sentinels: ["{first}", "{url}"]
      ping_interval: 200ms
      timeout: 3s
routes:
  - {{ path: /news, from: {{ upstream: main, channel: news }} }}
  - {{ path: /audit, from: {{ upstream: main, stream: audit }}, data: "{{field.n}}" }}
"#
    )
}

async fn news(ssegate: &Ssegate) -> EventSource {
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    news
}

/// The cause of going down that contains `part`.
async fn down(ssegate: &Ssegate, part: &str) -> String {
    let line = ssegate
        .wait_log(part, |line| {
            field(line, "message").unwrap_or_default().contains("is down")
                && field(line, "cause").unwrap_or_default().contains(part)
        })
        .await;
    field(&line, "cause").unwrap().to_owned()
}

async fn assert_told(news: &mut EventSource, redis: &Redis) {
    redis.until_subscribed("news", 1).await;
    redis.publish("news", "after").await;
    let gap = news.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    let time = |member: &str| humantime::parse_rfc3339(gap[member].as_str().unwrap()).unwrap();
    assert!(time("since") <= time("until") && time("until") <= SystemTime::now(), "{gap}");
    assert!(time("until").duration_since(time("since")).unwrap() < DEADLINE, "{gap}");
    assert_eq!(news.next().await.event, "stream.position");
    assert_eq!(news.next().await.data, "after");
}

#[tokio::test]
async fn a_failover_heals_by_itself_and_is_told() {
    let mut master = Redis::start().await;
    let replica = Redis::start_args(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
    let sentinel = Sentinel::start(master.port(), 500).await;
    sentinel.until_a_replica_is_known().await;
    let ssegate = Ssegate::start(config(&sentinel)).await;
    let mut news = news(&ssegate).await;
    master.publish("news", "before").await;
    assert_eq!(news.next().await.data, "before");
    master.kill();
    down(&ssegate, &format!("127.0.0.1:{}", master.port())).await;
    sentinel.until_master_is(replica.port()).await;
    assert_told(&mut news, &replica).await;
    let status = ssegate.status().await;
    assert_eq!(status["upstreams"][0]["up"], true, "{status}");
}

/// Of streams a failover takes nothing, where the replica had it all.
#[tokio::test]
async fn streams_are_read_on_at_the_new_master_where_they_stood() {
    let mut master = Redis::start().await;
    let replica = Redis::start_args(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
    let sentinel = Sentinel::start(master.port(), 500).await;
    sentinel.until_a_replica_is_known().await;
    let ssegate = Ssegate::start(config(&sentinel)).await;
    let mut live = EventSource::connect(ssegate.url("/audit"), Options::http1()).await;
    live.next_named("stream.position").await;
    let ids = master.xadd_numbers("audit", 0..50).await;
    assert_eq!(numbers(&mut live, 50).await.0, all(0, 50));
    master.until_replicated(1).await;
    master.kill();
    down(&ssegate, &format!("127.0.0.1:{}", master.port())).await;
    sentinel.until_master_is(replica.port()).await;
    replica.xadd_numbers("audit", 50..60).await;
    assert_eq!(numbers(&mut live, 10).await.0, all(50, 60));
    let mut back = EventSource::connect(ssegate.url("/audit"), Options::http2().resume(&ids[10])).await;
    assert_eq!(back.next_named("stream.position").await.id, ids[10]);
    assert_eq!(numbers(&mut back, 49).await.0, all(11, 60));
    // One that never saw the old master begins with what the new one has.
    let other = Ssegate::start(config(&sentinel)).await;
    let mut there = EventSource::connect(other.url("/audit"), Options::http2().resume(&ids[10])).await;
    assert_eq!(numbers(&mut there, 49).await.0, all(11, 60));
    for stream in [&live, &back, &there] {
        assert!(stream.events().iter().all(|event| event.event != "stream.gap"));
    }
}

/// As when it was cut off from its sentinels and not from ssegate: it answers, and says that it is the master.
#[tokio::test]
async fn a_stale_master_that_still_answers_is_left_when_the_sentinels_name_another() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let sentinel = Sentinel::start(old.port(), 60_000).await;
    let ssegate = Ssegate::start(config(&sentinel)).await;
    let mut news = news(&ssegate).await;
    sentinel.say("SENTINEL REMOVE main").await.unwrap();
    sentinel.say(&format!("SENTINEL MONITOR main 127.0.0.1 {} 1", new.port())).await.unwrap();
    let cause = down(&ssegate, "no longer the master").await;
    assert!(cause.contains(&old.port().to_string()) && cause.contains(&new.port().to_string()), "{cause}");
    assert_told(&mut news, &new).await;
    assert_eq!(old.subscribers("news").await, 0);
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_noticed_by_its_role() {
    let (master, other) = (Redis::start().await, Redis::start().await);
    let sentinel = Sentinel::start(master.port(), 60_000).await;
    let ssegate = Ssegate::start(config(&sentinel)).await;
    let mut news = news(&ssegate).await;
    master.say::<()>(&format!("REPLICAOF 127.0.0.1 {}", other.port())).await;
    down(&ssegate, "is not the master, or no longer").await;
    master.say::<()>("REPLICAOF NO ONE").await;
    assert_told(&mut news, &master).await;
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_by_its_ping() {
    let master = Redis::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], master.port()).into()).await;
    let sentinel = Sentinel::start(proxy.addr().port(), 60_000).await;
    let ssegate = Ssegate::start(config(&sentinel)).await;
    let mut news = news(&ssegate).await;
    proxy.pause();
    let cause = down(&ssegate, "did not answer a ping").await;
    assert!(cause.contains(&proxy.addr().to_string()), "{cause}");
    proxy.resume();
    assert_told(&mut news, &master).await;
}

#[tokio::test]
async fn a_sentinel_that_hangs_holds_nobody_up() {
    let master = Redis::start().await;
    let sentinel = Sentinel::start(master.port(), 60_000).await;
    let proxy = Proxy::start(([127, 0, 0, 1], sentinel.port()).into()).await;
    let ssegate = Ssegate::start(config_after(&format!("redis://{}", proxy.addr()), &sentinel)).await;
    let mut news = news(&ssegate).await;
    proxy.pause();
    // The next answers come from the other one alone, and the link goes on.
    let asked = proxy.accepted();
    eventually("the sentinel that hangs to be asked", async || {
        (proxy.accepted() > asked + 3).then_some(()).ok_or("not yet")
    })
    .await;
    master.publish("news", "x").await;
    assert_eq!(news.next().await.data, "x", "no gap");
    let status = ssegate.status().await;
    assert_eq!(status["upstreams"][0]["reconnects"], 0, "{status}");
}

#[tokio::test]
async fn sentinels_that_do_not_know_the_master_are_asked_until_they_do() {
    let master = Redis::start().await;
    let sentinel = Sentinel::start(master.port(), 60_000).await;
    sentinel.say("SENTINEL REMOVE main").await.unwrap();
    let ssegate = Ssegate::start(config(&sentinel)).await;
    down(&ssegate, "No such master").await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    sentinel.say(&format!("SENTINEL MONITOR main 127.0.0.1 {} 1", master.port())).await.unwrap();
    news.next_named("stream.position").await;
    eventually("news to come", async || {
        (master.publish("news", "x").await > 0).then_some(()).ok_or("nobody listens")
    })
    .await;
    assert_eq!(news.next().await.data, "x");
}

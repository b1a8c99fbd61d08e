//! Redis pub/sub on a real server: channels, patterns, binary payloads, and a link that goes and comes.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::eventsource::{EventSource, Options};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

fn config(url: &str) -> String {
    format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{url}", ping_interval: 200ms, timeout: 3s }} }} }}
routes:
  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}
  - {{ path: /metrics, from: {{ upstream: cache, pattern: "metrics.*" }}, event: "{{channel}}" }}
  - {{ path: /base64, from: {{ upstream: cache, channel: news }}, binary: base64 }}
"#
    )
}

#[tokio::test]
async fn channels_and_patterns() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    let mut metrics = EventSource::connect(ssegate.url("/metrics"), Options::http1()).await;
    news.next_named("stream.position").await;
    metrics.next_named("stream.position").await;
    redis.publish("news", "extra").await;
    redis.publish("metrics.cpu", "0.5").await;
    redis.publish("other", "not ours").await;
    redis.publish("metrics.mem", "0.7").await;
    redis.publish("news", "more").await;
    assert_eq!(news.next_data(2).await, ["extra", "more"]);
    let (cpu, mem) = (metrics.next().await, metrics.next().await);
    assert_eq!((&*cpu.event, &*cpu.data), ("metrics.cpu", "0.5"));
    assert_eq!((&*mem.event, &*mem.data), ("metrics.mem", "0.7"));
}

#[tokio::test]
async fn what_is_not_text_is_a_gap_or_base64_and_never_broken_text() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    let mut base64 = EventSource::connect(ssegate.url("/base64"), Options::http1()).await;
    news.next_named("stream.position").await;
    base64.next_named("stream.position").await;
    redis.publish("news", b"\xff\xfe\x00").await;
    redis.publish("news", "text").await;
    let gap = news.next_gap().await;
    assert_eq!((&gap["reason"], &gap["missed"]), (&"undecodable".into(), &1.into()));
    assert_eq!(gap["to"].as_u64().unwrap() - gap["from"].as_u64().unwrap(), 1);
    let position = news.next().await;
    assert_eq!(position.event, "stream.position");
    let text = news.next().await;
    assert_eq!(text.data, "text");
    assert_eq!(base64.next_data(2).await, ["//4A", "dGV4dA=="]);

    // Whoever replays sees the gap too, without losing its place.
    let start = news.events()[0].id.clone();
    let mut again = EventSource::connect(ssegate.url("/news"), Options::http1().resume(&start)).await;
    again.next_named("stream.position").await;
    assert_eq!(again.next_gap().await, gap);
    assert_eq!(again.next().await.id, position.id);
    assert_eq!(again.next().await.data, "text");
    assert_eq!(ssegate.metrics().await.sum("ssegate_source_gaps_total", &[("reason", "undecodable")]), 1.0);
}

#[tokio::test]
async fn a_lost_server_ends_no_stream_and_is_told_with_its_span() {
    let mut redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    redis.publish("news", "before").await;
    let before = news.next_message().await;
    redis.kill();
    ssegate
        .wait_log("the loss", |line| line["message"].as_str().unwrap_or_default().contains("is down"))
        .await;
    let ready = ssegate.admin_get("/readyz").await;
    assert_eq!(ready.status, 200, "an upstream that is down never makes it unready");

    let mut joined = EventSource::connect(ssegate.url("/news"), Options::http1().resume(&before.id)).await;
    assert_eq!(joined.next_named("stream.position").await.id, before.id);
    redis.restart().await;
    redis.until_subscribed("news", 1).await;
    redis.publish("news", "after").await;
    for stream in [&mut news, &mut joined] {
        let gap = stream.next_gap().await;
        assert_eq!(gap["reason"], "upstream_lost");
        assert!(gap["missed"].is_null());
        let time = |member: &str| humantime::parse_rfc3339(gap[member].as_str().unwrap()).unwrap();
        let (since, until) = (time("since"), time("until"));
        assert!(since <= until && until <= SystemTime::now());
        assert!(until.duration_since(since).unwrap() < Duration::from_secs(60));
        assert_eq!(stream.next().await.event, "stream.position");
        assert_eq!(stream.next().await.data, "after");
    }
    let status = ssegate.status().await;
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["up"], true);
    let error = upstream["last_error"]["error"].as_str().unwrap();
    assert!(error.contains(&format!("127.0.0.1:{}", redis.port())), "it names the address: {error}");
    assert!(upstream["reconnects"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_waited_for_on_the_open_stream() {
    let mut redis = Redis::start().await;
    redis.kill();
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    assert_eq!(news.status(), 200);
    news.until_comments(1).await;
    redis.restart().await;
    assert_eq!(news.next().await.event, "stream.position", "nothing was lost, so nothing is told");
    redis.publish("news", "x").await;
    assert_eq!(news.next().await.data, "x");
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_by_its_ping() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    let ssegate = Ssegate::start(config(&format!("redis://{}", proxy.addr()))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    proxy.pause();
    let down = ssegate
        .wait_log("the loss", |line| line["message"].as_str().unwrap_or_default().contains("is down"))
        .await;
    assert!(down["cause"].as_str().unwrap().contains("ping"), "{down}");
    proxy.resume();
    assert_eq!(news.next_gap().await["reason"], "upstream_lost");
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_shown_nowhere() {
    let redis = Redis::start_secured("correct horse").await;
    let url = redis.url().replace("correct%20horse", "wr0ng-p4ss");
    let ssegate = Ssegate::start(config(&url)).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    let down = ssegate
        .wait_log("the refusal", |line| line["message"].as_str().unwrap_or_default().contains("is down"))
        .await;
    assert!(down["cause"].as_str().unwrap().to_lowercase().contains("password"), "{down}");
    news.until_comments(1).await;
    assert!(news.is_streaming());
    let shown = format!("{:?} {}", ssegate.log(), ssegate.status().await);
    assert!(!shown.contains("wr0ng-p4ss"), "{shown}");
}

#[tokio::test]
async fn a_channel_that_an_acl_forbids_waits_alone() {
    let redis = Redis::start().await;
    let allow = |channels: &str| {
        let mut command = ::redis::cmd("ACL");
        command
            .arg("SETUSER")
            .arg("gate")
            .arg("on")
            .arg("nopass")
            .arg("+@all")
            .arg("resetchannels")
            .arg(channels);
        command
    };
    redis.command::<()>(&allow("&open:*")).await;
    let url = format!("redis://gate:any@127.0.0.1:{}", redis.port());
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{url}" }} }} }}
routes: [ {{ path: "/e/{{name}}", from: {{ upstream: cache, channel: "{{name}}" }} }} ]
"#
    ))
    .await;
    let mut open = EventSource::connect(ssegate.url("/e/open:1"), Options::http2()).await;
    open.next_named("stream.position").await;
    let mut closed = EventSource::connect(ssegate.url("/e/closed:1"), Options::http2()).await;
    let refused = |line: &serde_json::Value| line["cause"].as_str().unwrap_or_default().contains("closed:1");
    ssegate.wait_log("the refusal", refused).await;
    let mut other = EventSource::connect(ssegate.url("/e/open:2"), Options::http2()).await;
    other.next_named("stream.position").await;
    for (stream, channel) in [(&mut open, "open:1"), (&mut other, "open:2")] {
        redis.publish(channel, "x").await;
        assert_eq!(stream.next().await.data, "x", "no gap, since the link never went");
    }
    redis.command::<()>(&allow("&*")).await;
    closed.next_named("stream.position").await;
    redis.publish("closed:1", "at last").await;
    assert_eq!(closed.next().await.data, "at last");
}

#[tokio::test]
async fn keyspace_notifications_are_a_pattern() {
    let redis = Redis::start().await;
    redis.say::<()>("CONFIG SET notify-keyspace-events K$").await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /carts
    from: {{ upstream: cache, pattern: "__keyspace@0__:cart:*" }}
    event: "{{channel}}"
"#,
        redis.url()
    ))
    .await;
    let mut carts = EventSource::connect(ssegate.url("/carts"), Options::http2()).await;
    carts.next_named("stream.position").await;
    redis.say::<()>("SET other:1 x").await;
    redis.say::<()>("SET cart:7 apples").await;
    redis.say::<()>("APPEND cart:7 ,pears").await;
    for command in ["set", "append"] {
        let event = carts.next().await;
        assert_eq!((&*event.event, &*event.data), ("__keyspace@0__:cart:7", command));
    }
}

#[tokio::test]
async fn shard_channels_of_a_server_that_is_no_cluster() {
    let mut redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 200ms }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: cache, shard_channel: "room:{{room}}" }}, event: "{{channel}}" }}
  - {{ path: /channel, from: {{ upstream: cache, channel: "room:1" }} }}
"#,
        redis.url()
    ))
    .await;
    let mut first = EventSource::connect(ssegate.url("/rooms/1"), Options::http2()).await;
    let mut second = EventSource::connect(ssegate.url("/rooms/2"), Options::http2()).await;
    let mut channel = EventSource::connect(ssegate.url("/channel"), Options::http2()).await;
    for stream in [&mut first, &mut second, &mut channel] {
        stream.next_named("stream.position").await;
    }
    redis.say::<()>("SPUBLISH room:1 one").await;
    redis.say::<()>("SPUBLISH room:2 two").await;
    redis.publish("room:1", "not sharded").await;
    let event = first.next().await;
    assert_eq!((&*event.event, &*event.data), ("room:1", "one"));
    assert_eq!(second.next().await.data, "two");
    assert_eq!(channel.next().await.data, "not sharded", "a channel and a shard channel of one name are two");
    redis.restart().await;
    assert_eq!(first.next_gap().await["reason"], "upstream_lost");
}

#[tokio::test]
async fn being_cut_off_for_reading_too_slowly_is_explained() {
    let redis = Redis::start().await;
    redis
        .command::<()>(
            ::redis::cmd("CONFIG").arg("SET").arg("client-output-buffer-limit").arg("pubsub 64kb 64kb 1"),
        )
        .await;
    let mut ssegate = Ssegate::start(config(&redis.url())).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    ssegate.signal(Signal::STOP);
    // Until the kernel's buffers are full, then Redis's own, and it cuts.
    let payload = "x".repeat(64 * 1024);
    eventually("Redis to cut ssegate off", async || {
        redis.publish("news", &payload).await;
        let left = redis.subscribers("news").await;
        if left == 0 { Ok(()) } else { Err("not yet") }
    })
    .await;
    ssegate.signal(Signal::CONT);
    let explained = |line: &serde_json::Value| {
        line["cause"].as_str().is_some_and(|cause| cause.contains("client-output-buffer-limit"))
    };
    let line = ssegate.wait_log("the explanation", explained).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains(&format!("127.0.0.1:{}", redis.port())) && cause.contains("CONFIG SET"),
        "{cause}"
    );
    redis.until_subscribed("news", 1).await;
    let status = ssegate.status().await.to_string();
    assert!(status.contains("client-output-buffer-limit"), "{status}");
}

#[tokio::test]
async fn a_user_that_may_not_ping_is_told_so() {
    let redis = Redis::start().await;
    redis.say::<()>("ACL SETUSER gate on nopass &* -@all +subscribe").await;
    let ssegate = Ssegate::start(config(&format!("redis://gate:any@127.0.0.1:{}", redis.port()))).await;
    let down = ssegate
        .wait_log("the refusal", |line| line["message"].as_str().unwrap_or_default().contains("is down"))
        .await;
    let cause = down["cause"].as_str().unwrap();
    assert!(cause.contains("NOPERM") && cause.contains("ping"), "{cause}");
}

#[tokio::test]
async fn a_right_password_comes_from_the_environment() {
    let redis = Redis::start_secured("correct horse").await;
    let url = format!("redis://:${{REDIS_PASSWORD}}@127.0.0.1:{}/0", redis.port());
    let builder = Ssegate::builder().config(config(&url)).env("REDIS_PASSWORD", "correct%20horse");
    let ssegate = builder.start().await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    redis.publish("news", "x").await;
    assert_eq!(news.next_message().await.data, "x");
}

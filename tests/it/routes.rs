//! Routes: hosts, parameters, shared feeds, and feeds that come and go.

use http::Method;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, get, request};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

#[tokio::test]
async fn a_route_may_have_a_host_of_its_own() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /e, from: { upstream: lobby, channel: any } }
  - { path: /e, host: shop.example.com, from: { upstream: lobby, channel: shop } }
"#,
    )
    .await;
    for options in [Options::http1(), Options::http2()] {
        let mut any = EventSource::connect(ssegate.url("/e"), options.clone()).await;
        any.next_named("stream.position").await;
        ssegate.publish("any", "from any").await;
        assert_eq!(any.next_message().await.data, "from any");
    }
    let mut shop =
        EventSource::connect(ssegate.url("/e"), Options::http1().header("host", "Shop.Example.com:8443"))
            .await;
    shop.next_named("stream.position").await;
    ssegate.publish("shop", "from the shop").await;
    assert_eq!(shop.next_message().await.data, "from the shop");
}

#[tokio::test]
async fn parameters_are_checked_decoded_and_never_a_pattern() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: cache, channel: "room:{{room}}" }}, params: {{ room: "[a-z/é]{{1,8}}" }} }}
  - {{ path: "/any/{{name}}", from: {{ upstream: cache, pattern: "any.{{name}}.*" }}, event: "{{name}}" }}
"#,
        redis.url()
    ))
    .await;
    let mut room = EventSource::connect(ssegate.url("/rooms/a%2Fb%C3%A9"), Options::http2()).await;
    room.next_named("stream.position").await;
    redis.publish("room:a/bé", "decoded").await;
    assert_eq!(room.next_message().await.data, "decoded");

    let mut star = EventSource::connect(ssegate.url("/any/*"), Options::http2()).await;
    star.next_named("stream.position").await;
    redis.publish("any.other.x", "not for a star").await;
    redis.publish("any.*.x", "for a star").await;
    let event = star.next().await;
    assert_eq!((&*event.event, &*event.data), ("*", "for a star"));

    for (path, status) in [
        ("/rooms/UPPER", 404),
        ("/rooms/toolongtomatch", 404),
        ("/rooms/", 404),
        ("/rooms/a/b", 404),
        ("/rooms/..", 404),
        ("/any/%00", 400),
        ("/any/a%0d%0ab", 400),
        ("/any/%c0%af", 400),
        (&format!("/any/{}", "a".repeat(257)), 400),
    ] {
        let answer = request(Method::GET, &ssegate.url(path), &[], "", &Connect::http1()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn one_connection_serves_all_feeds_of_an_upstream() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: cache, channel: "room:{{room}}" }} }}
  - {{ path: "/same/{{name}}", from: {{ upstream: cache, channel: "room:{{name}}" }} }}
"#,
        redis.url()
    ))
    .await;
    let mut streams = Vec::new();
    for n in 0..40 {
        let route = if n % 2 == 0 { "rooms" } else { "same" };
        let url = ssegate.url(&format!("/{route}/r{}", n / 2));
        streams.push(EventSource::connect(url, Options::http2()).await);
    }
    for stream in &mut streams {
        stream.next_named("stream.position").await;
    }
    assert_eq!(redis.pubsub_connections().await, 1);
    assert_eq!(redis.subscribers("room:r3").await, 1);
    assert_eq!(ssegate.status().await["feeds"].as_array().unwrap().len(), 20, "two routes share each feed");
    redis.publish("room:r3", "x").await;
    for stream in &mut streams[6..8] {
        assert_eq!(stream.next_message().await.data, "x");
    }
}

#[tokio::test]
async fn a_feed_with_parameters_leaves_when_nobody_reads_it() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: cache, channel: "room:{{room}}" }}, idle_timeout: 0 }}
  - {{ path: /held, from: {{ upstream: cache, channel: held }}, idle_timeout: 0 }}
"#,
        redis.url()
    ))
    .await;
    redis.until_subscribed("held", 1).await;
    let mut room = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
    let id = room.next_named("stream.position").await.id;
    redis.until_subscribed("room:a", 1).await;
    room.close();
    eventually("the subscription to be left", async || match redis.subscribers("room:a").await {
        0 => Ok(()),
        n => Err(format!("{n} subscribers")),
    })
    .await;
    assert_eq!(redis.subscribers("held").await, 1, "a feed without parameters is held always");

    let mut back = EventSource::connect(ssegate.url("/rooms/a"), Options::http1().resume(&id)).await;
    assert_eq!(back.next_gap().await["reason"], "feed_idle");
    back.next_named("stream.position").await;
    redis.publish("room:a", "again").await;
    assert_eq!(back.next_message().await.data, "again");
}

#[tokio::test]
async fn a_ticker_ticks_for_everyone() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { clock: { ticker: { every: 50ms, data: "This is a server-sent event" } } }
routes: [ { path: /events, from: { upstream: clock } } ]
"#,
    )
    .await;
    let mut a = EventSource::connect(ssegate.url("/events"), Options::http1()).await;
    let mut b = EventSource::connect(ssegate.url("/events"), Options::http2()).await;
    for stream in [&mut a, &mut b] {
        assert!(stream.next_data(3).await.iter().all(|data| data == "This is a server-sent event"));
    }
}

#[tokio::test]
async fn plain_http_behind_another_terminator() {
    let ssegate = Ssegate::start(
        r#"
server: { listen: ["127.0.0.1:0", "127.0.0.1:0"], tls: none }
upstreams: { clock: { ticker: { every: 20ms } } }
routes: [ { path: /events, from: { upstream: clock } } ]
"#,
    )
    .await;
    eventually("both listeners", async || match ssegate.addrs("server").len() {
        2 => Ok(()),
        n => Err(format!("{n}")),
    })
    .await;
    for addr in ssegate.addrs("server") {
        let mut stream = EventSource::connect(format!("http://{addr}/events"), Options::http1()).await;
        assert_eq!(stream.next_message().await.data, "tick");
    }
    assert_eq!(get(&ssegate.url("/none")).await.status, 404);
}

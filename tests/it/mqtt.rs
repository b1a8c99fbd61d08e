//! MQTT on a real broker, by both versions: wildcards and parameters, what is retained, filters that overlap, user
//! properties, who may enter and read, TLS, and a link that goes and comes.

use std::time::{Duration, SystemTime};

use crate::support::eventsource::{EventSource, Options};
use crate::support::mqtt::{Mosquitto, Publisher};
use crate::support::proxy::Proxy;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;

/// Settings of the upstream for each version.
const VERSIONS: [&str; 2] = ["version: 5", "version: 3.1.1"];

fn config(mqtt: &str) -> String {
    format!(
        r#"
upstreams: {{ house: {{ mqtt: {{ {mqtt}, keep_alive: 1s, timeout: 3s }} }} }}
routes:
  - {{ path: /news, from: {{ upstream: house, topic: news }} }}
  - {{ path: /all, from: {{ upstream: house, topic: "rooms/#" }}, event: "{{topic}}" }}
  - {{ path: "/rooms/{{room}}", from: {{ upstream: house, topic: "rooms/{{room}}/+", qos: 1 }}, event: "{{header.kind}}" }}
  - {{ path: "/named/{{room}}", from: {{ upstream: house, topic: "rooms/{{room}}/+", qos: 1 }}, event: "{{topic}}" }}
  - {{ path: "/any/{{part}}", from: {{ upstream: house, topic: "rooms/+/{{part}}" }} }}
"#
    )
}

fn at(broker: &Mosquitto, version: &str) -> String {
    format!("url: \"{}\", {version}", broker.url())
}

#[tokio::test]
async fn wildcards_parameters_and_filters_that_overlap_each_give_a_message_once() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let ssegate = Ssegate::start(config(&at(&broker, version))).await;
        let mut streams = Vec::new();
        for path in ["/all", "/rooms/7", "/named/7", "/any/people", "/news"] {
            let mut stream = EventSource::connect(ssegate.url(path), Options::http2()).await;
            stream.next_named("stream.position").await;
            streams.push(stream);
        }
        let mut publisher = broker.publisher().await;
        let messages = (0..50).flat_map(|n| {
            [("rooms/7/people", n), ("rooms/8/people", n), ("rooms/7/heat", n), ("rooms/7", n), ("news", n)]
                .map(|(topic, n)| (topic, format!("{topic} {n}")))
        });
        publisher.publish(messages).await.unwrap();
        let expected = |topics: &[&str]| {
            let all = ["rooms/7/people", "rooms/8/people", "rooms/7/heat", "rooms/7", "news"];
            let of_it = all.into_iter().filter(|topic| topics.contains(topic)).collect::<Vec<_>>();
            (0..50).flat_map(|n| of_it.iter().map(move |topic| format!("{topic} {n}"))).collect::<Vec<_>>()
        };
        for (stream, topics) in streams.iter_mut().zip([
            &["rooms/7/people", "rooms/8/people", "rooms/7/heat", "rooms/7"][..],
            &["rooms/7/people", "rooms/7/heat"],
            &["rooms/7/people", "rooms/7/heat"],
            &["rooms/7/people", "rooms/8/people"],
            &["news"],
        ]) {
            let expected = expected(topics);
            assert_eq!(stream.next_data(expected.len()).await, expected, "{version} {topics:?}");
        }
        assert_eq!(streams[0].events().last().unwrap().event, "rooms/7");
        // By ids one connection tells what comes by which filter; without them what overlaps is on several.
        let connections = broker.said("New client connected") - 1;
        assert_eq!(connections, if version == VERSIONS[0] { 1 } else { 3 }, "{version}\n{}", broker.log());
    }
}

#[tokio::test]
async fn what_is_retained_is_given_to_each_new_feed_first_and_to_nobody_twice() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let mut publisher = broker.publisher().await;
        publisher.retain("rooms/7/heat", "20").await.unwrap();
        let ssegate = Ssegate::start(config(&at(&broker, version))).await;
        let mut first = EventSource::connect(ssegate.url("/rooms/7"), Options::http2()).await;
        assert_eq!(first.next_data(1).await, ["20"], "{version}");
        publisher.retain("rooms/7/heat", "21").await.unwrap();
        assert_eq!(first.next_data(1).await, ["21"]);
        // Another feed of the same filter, with events of another name.
        let mut second = EventSource::connect(ssegate.url("/named/7"), Options::http1()).await;
        assert_eq!(second.next_data(1).await, ["21"]);
        publisher.publish([("rooms/7/heat", "22")]).await.unwrap();
        assert_eq!(
            (first.next_data(1).await, second.next_data(1).await),
            (vec!["22".into()], vec!["22".into()])
        );
    }
}

#[tokio::test]
async fn user_properties_are_headers() {
    let broker = Mosquitto::start().await;
    let ssegate = Ssegate::start(config(&at(&broker, VERSIONS[0]))).await;
    let mut room = EventSource::connect(ssegate.url("/rooms/7"), Options::http1()).await;
    room.next_named("stream.position").await;
    let mut publisher = broker.publisher().await;
    publisher.publish_with("rooms/7/people", "Ada", &[("kind", "first"), ("kind", "joined")]).await.unwrap();
    let event = room.next().await;
    assert_eq!((&*event.event, &*event.data), ("joined", "Ada"));
}

#[tokio::test]
async fn a_parameter_cannot_be_more_than_one_level() {
    let broker = Mosquitto::start().await;
    let ssegate = Ssegate::start(config(&at(&broker, VERSIONS[0]))).await;
    for room in ["+", "%23", "a%2Fb"] {
        let source = EventSource::request(ssegate.url(&format!("/rooms/{room}")), Options::http1()).await;
        assert_eq!(source.status(), 400, "{room}");
    }
}

#[tokio::test]
async fn a_filter_is_left_when_nobody_wants_it() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let ssegate =
            Ssegate::start(config(&at(&broker, version)) + "defaults: { idle_timeout: 0s }\n").await;
        for round in 1..=2 {
            let mut room = EventSource::connect(ssegate.url("/rooms/7"), Options::http1()).await;
            room.next_named("stream.position").await;
            broker.publisher().await.publish([("rooms/7/a", "x")]).await.unwrap();
            assert_eq!(room.next().await.data, "x");
            room.close();
            broker.until_said("Received UNSUBSCRIBE", round).await;
        }
    }
}

#[tokio::test]
async fn a_lost_broker_ends_no_stream_and_is_told_with_its_span() {
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let ssegate = Ssegate::start(config(&at(&broker, version))).await;
        let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
        news.next_named("stream.position").await;
        broker.publisher().await.publish([("news", "before")]).await.unwrap();
        let before = news.next_message().await;
        broker.kill();
        let cause = ssegate.cause().await;
        assert!(cause.contains(&format!("127.0.0.1:{}", broker.port())), "it names the address: {cause}");
        assert_eq!(ssegate.admin_get("/readyz").await.status, 200);
        let mut joined =
            EventSource::connect(ssegate.url("/news"), Options::http1().resume(&before.id)).await;
        assert_eq!(joined.next_named("stream.position").await.id, before.id);
        broker.restart().await;
        for stream in [&mut news, &mut joined] {
            let gap = stream.next_gap().await;
            assert_eq!(gap["reason"], "upstream_lost");
            let time = |member: &str| humantime::parse_rfc3339(gap[member].as_str().unwrap()).unwrap();
            let (since, until) = (time("since"), time("until"));
            assert!(since <= until && until <= SystemTime::now());
            assert!(until.duration_since(since).unwrap() < Duration::from_secs(60));
            assert_eq!(stream.next().await.event, "stream.position");
        }
        broker.publisher().await.publish([("news", "after")]).await.unwrap();
        assert_eq!(
            (news.next().await.data, joined.next().await.data),
            ("after".to_owned(), "after".to_owned())
        );
    }
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_by_its_ping() {
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], broker.port()).into()).await;
    let ssegate = Ssegate::start(config(&format!("url: \"mqtt://{}\"", proxy.addr()))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    proxy.pause();
    let cause = ssegate.cause().await;
    assert!(cause.contains("ping"), "{cause}");
    proxy.resume();
    assert_eq!(news.next_gap().await["reason"], "upstream_lost");
}

#[tokio::test]
async fn a_wrong_password_is_told_once_in_steady_words_and_never_shown() {
    for version in VERSIONS {
        let broker = Mosquitto::start_with_users(&[("gate", "right-pw")], "topic readwrite #\n").await;
        let url = format!("url: \"mqtt://gate:wrong-s3cr3t@127.0.0.1:{}\", {version}", broker.port());
        let ssegate = Ssegate::start(config(&url)).await;
        let cause = ssegate.cause().await;
        assert_eq!(cause, format!("MQTT at 127.0.0.1:{} turned ssegate away: NotAuthorized", broker.port()));
        ssegate.assert_told_once_without("s3cr3t").await;
    }
}

#[tokio::test]
async fn who_is_known_is_let_in_and_reads_what_it_may() {
    let rules = "user gate\ntopic read news\nuser all\ntopic readwrite #\n";
    let broker = Mosquitto::start_with_users(&[("gate", "right-pw"), ("all", "all")], rules).await;
    let url = format!("url: \"mqtt://gate:right-pw@127.0.0.1:{}\"", broker.port());
    let ssegate = Ssegate::start(config(&url)).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    news.next_named("stream.position").await;
    let mut publisher = Publisher::connect(broker.port(), Some(("all", "all"))).await.unwrap();
    publisher.publish([("news", "x")]).await.unwrap();
    assert_eq!(news.next().await.data, "x");
}

#[tokio::test]
async fn tls_by_an_own_authority_and_a_client_certificate() {
    let ca = TestCa::new();
    let (broker, port) = Mosquitto::start_tls(&ca, ca.leaf()).await;
    let tls = format!("tls: {}", ca.tls_of_client("ssegate"));
    for version in VERSIONS {
        let text = config(&format!("url: \"mqtts://localhost:{port}\", {version}, {tls}"));
        let ssegate = Ssegate::start(text).await;
        let mut news = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
        news.next_named("stream.position").await;
        broker.publisher().await.publish([("news", "over TLS")]).await.unwrap();
        assert_eq!(news.next().await.data, "over TLS");
    }
    let alien = format!("tls: {{ ca: {} }}", TestCa::shared().cert_path().display());
    let ssegate = Ssegate::start(config(&format!("url: \"mqtts://localhost:{port}\", {alien}"))).await;
    let cause = ssegate.cause().await;
    assert!(cause.contains("certificate"), "{cause}");
}

#[tokio::test]
async fn entering_in_another_way_keeps_streams_and_tells_what_may_be_missed() {
    let broker = Mosquitto::start().await;
    let ssegate = Ssegate::start(config(&at(&broker, VERSIONS[0]))).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    let changes = ssegate.reload(&config(&at(&broker, VERSIONS[1]))).await;
    assert_eq!(changes, ["upstream house: connects anew; its streams stay"]);
    assert_eq!(news.next_gap().await["reason"], "upstream_lost");
    assert_eq!(news.next().await.event, "stream.position");
    broker.publisher().await.publish([("news", "x")]).await.unwrap();
    assert_eq!(news.next().await.data, "x");
}

#[tokio::test]
async fn a_burst_is_given_whole_and_in_order() {
    let broker = Mosquitto::start().await;
    let ssegate = Ssegate::start(config(&at(&broker, VERSIONS[0]))).await;
    let mut room = EventSource::connect(ssegate.url("/rooms/7"), Options::http2()).await;
    room.next_named("stream.position").await;
    let filling = "x".repeat(1_000);
    broker
        .publisher()
        .await
        .publish((0..5_000).map(|n| ("rooms/7/a", format!("{n} {filling}"))))
        .await
        .unwrap();
    for n in 0..5_000 {
        let data = room.next_message().await.data;
        assert_eq!(data.split(' ').next(), Some(&*n.to_string()));
        room.forget();
    }
}

#[tokio::test]
async fn a_message_larger_than_any_event_is_told_in_its_place_and_costs_no_link() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let ssegate = Ssegate::start(config(&at(&broker, version))).await;
        let mut room = EventSource::ready(ssegate.url("/named/7"), Options::http2()).await;
        let mut publisher = broker.publisher().await;
        let large = "x".repeat(20 << 20);
        publisher.publish(["before", &large, "after"].map(|payload| ("rooms/7/a", payload))).await.unwrap();
        assert_eq!(room.next_data(1).await, ["before"]);
        let gap = room.next_gap().await;
        assert_eq!((&gap["reason"], &gap["missed"]), (&"too_large".into(), &1.into()), "{version}");
        room.next_named("stream.position").await;
        assert_eq!(room.next_data(1).await, ["after"]);
        assert_eq!(ssegate.status().await["upstreams"][0]["reconnects"], 0, "{version}");
        // Mosquitto was told that it has come in.
        broker.until_said("Received PUBACK from ssegate", 3).await;
    }
}

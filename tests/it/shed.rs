//! Streams for which there is no room: a time to come back by default, an error where that is asked for.

use std::time::Duration;

use http::Method;

use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

const CONFIG: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /two, from: { upstream: lobby, channel: e }, limits: { streams: 2 } }
  - { path: /each, from: { upstream: lobby, channel: e }, limits: { streams_per_client: 1 } }
  - path: "/rooms/{room}"
    from: { upstream: lobby, channel: "{room}" }
    limits: { feeds: 3 }
    retry: 100ms
    cors: { origins: ["https://page.example"] }
"#;

async fn stream(ssegate: &Ssegate, path: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    stream
}

/// Asks for a stream, is sent away, and returns after what time it is to come back.
async fn sent_away(ssegate: &Ssegate, path: &str, options: Options) -> Duration {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.until_end().await;
    assert_eq!((stream.end(), stream.events().len()), (Some(&End::Complete), 0), "{stream}");
    stream.retry().expect("a time to come back")
}

/// A stream, once whoever was there before is seen to have left.
async fn room(ssegate: &Ssegate, path: &str) -> EventSource {
    eventually("room", async || {
        let mut stream = EventSource::connect(ssegate.url(path), Options::http1()).await;
        stream.try_next().await.ok_or("sent away")?;
        Ok::<_, &str>(stream)
    })
    .await
}

async fn shed(ssegate: &Ssegate, route: &str, reason: &str) -> f64 {
    ssegate.metrics().await.sum("ssegate_streams_shed_total", &[("route", route), ("reason", reason)])
}

#[tokio::test]
async fn a_route_has_its_number_of_streams() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut one = stream(&ssegate, "/two", Options::http1()).await;
    let two = stream(&ssegate, "/two", Options::http2()).await;
    for options in [Options::http1(), Options::http2()] {
        let retry = sent_away(&ssegate, "/two", options).await.as_millis();
        assert!((2250..=7500).contains(&retry), "3 s or 6, jittered: {retry}");
    }
    assert_eq!(shed(&ssegate, "/two", "streams").await, 2.0);
    ssegate.publish("e", "1").await;
    assert_eq!(one.next_message().await.data, "1");
    let status = ssegate.status().await;
    assert_eq!(status["routes"][0]["limits"]["streams"], 2);
    drop(two);
    eventually("the place of the one that left", async || {
        let mut stream = EventSource::connect(ssegate.url("/two"), Options::http1()).await;
        stream.try_next().await.map(drop).ok_or("sent away")
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_in_vain_is_told_to_wait_longer() {
    let ssegate = Ssegate::start(CONFIG.replace("streams: 2 }", "streams: 1 }, retry: 100ms")).await;
    let _one = stream(&ssegate, "/two", Options::http1()).await;
    eventually("the time to grow tenfold", async || {
        match sent_away(&ssegate, "/two", Options::http2()).await {
            retry if retry > Duration::from_secs(1) => Ok(()),
            retry => Err(format!("{retry:?}")),
        }
    })
    .await;
    let other = Options::http1().connect(Connect::http1().from("127.0.0.2"));
    assert!(sent_away(&ssegate, "/two", other).await <= Duration::from_millis(125), "somebody else");
}

#[tokio::test]
async fn each_client_has_its_number_of_streams_also_behind_a_proxy() {
    let ssegate = Ssegate::start(CONFIG).await;
    let _one = stream(&ssegate, "/each", Options::http1()).await;
    sent_away(&ssegate, "/each", Options::http1()).await;
    stream(&ssegate, "/each", Options::http1().connect(Connect::http1().from("127.0.0.2"))).await;
    assert_eq!(shed(&ssegate, "/each", "client_streams").await, 1.0);
    let claim = Options::http1().header("x-forwarded-for", "192.0.2.1");
    sent_away(&ssegate, "/each", claim).await;

    let tls = crate::support::tls::TestCa::shared().leaf();
    let ssegate = Ssegate::start(format!(
        "server: {{ listen: '127.0.0.1:0', trusted_proxies: 127.0.0.1, tls: {{ cert: '{}', key: '{}' }} }}\n{CONFIG}",
        tls.cert.display(),
        tls.key.display()
    ))
    .await;
    let of = |client: &str| Options::http2().header("x-forwarded-for", client);
    let one = stream(&ssegate, "/each", of("192.0.2.1")).await;
    sent_away(&ssegate, "/each", of("192.0.2.1")).await;
    sent_away(&ssegate, "/each", of("203.0.113.9, 192.0.2.1")).await;
    let _two = stream(&ssegate, "/each", of("192.0.2.2")).await;
    let _six = stream(&ssegate, "/each", of("2001:db8::1")).await;
    sent_away(&ssegate, "/each", of("2001:db8::2")).await;
    drop(one);
    let line = ssegate
        .wait_log("its end", |line| {
            line["message"] == "stream ended" || line["fields"]["message"] == "stream ended"
        })
        .await;
    assert!(line.to_string().contains("192.0.2.1"), "{line}");
}

#[tokio::test]
async fn or_it_is_told_by_an_error() {
    let ssegate = Ssegate::start(format!("limits: {{ shed: reject }}\n{CONFIG}")).await;
    let _open = [
        stream(&ssegate, "/two", Options::http1()).await,
        stream(&ssegate, "/two", Options::http1()).await,
        stream(&ssegate, "/each", Options::http1()).await,
    ];
    for (path, status, name) in [("/two", 503, "overloaded"), ("/each", 429, "too-many-streams")] {
        for connect in [Connect::http1(), Connect::http2()] {
            let answer = request(Method::GET, &ssegate.url(path), &[], "", &connect).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.json()["type"], format!("urn:ssegate:problem:{name}"));
            let after: u64 = answer.header("retry-after").parse().unwrap();
            assert!((3..=8).contains(&after), "{after}");
        }
    }
}

#[tokio::test]
async fn a_scan_of_rooms_opens_no_more_than_the_route_may_keep() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut here = stream(&ssegate, "/rooms/a", Options::http1()).await;
    let _b = stream(&ssegate, "/rooms/b", Options::http2()).await;
    // Whoever comes and goes keeps nobody out: rooms without readers make way.
    for n in 0..200 {
        room(&ssegate, &format!("/rooms/x{n}")).await;
    }
    let kept = ssegate.status().await["routes"][2]["feeds"].as_u64().unwrap();
    assert!(kept <= 3, "{kept}");

    let _c = room(&ssegate, "/rooms/c").await;
    for n in 0..50 {
        let options = Options::http1().header("origin", "https://page.example");
        let mut away = EventSource::connect(ssegate.url(&format!("/rooms/y{n}")), options).await;
        assert_eq!(away.header("access-control-allow-origin"), "https://page.example");
        away.until_end().await;
        assert_eq!(away.events().len(), 0);
    }
    assert_eq!(ssegate.status().await["routes"][2]["feeds"], 3);
    assert!(shed(&ssegate, "/rooms/{room}", "feeds").await >= 50.0);
    let mut again = stream(&ssegate, "/rooms/a", Options::http2()).await;
    ssegate.publish("a", "those that exist go on").await;
    for stream in [&mut here, &mut again] {
        assert_eq!(stream.next_message().await.data, "those that exist go on");
    }
}

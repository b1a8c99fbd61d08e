//! The HTTP contract with clients, on both protocols: head, opening, ids, keepalive, methods and errors.

use http::Method;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, get, request};
use crate::support::ssegate::Ssegate;

const PUSH: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /news, from: { upstream: lobby, channel: news } }
  - { path: /named, from: { upstream: lobby, channel: news }, event: sale }
  - { path: /quiet, from: { upstream: lobby, channel: quiet }, keepalive: 1s }
"#;

#[tokio::test]
async fn a_stream_opens_with_head_comment_retry_and_position() {
    let ssegate = Ssegate::start(PUSH).await;
    for options in [Options::http1(), Options::http2()] {
        let mut stream = EventSource::connect(ssegate.url("/news"), options).await;
        assert_eq!(stream.status(), 200);
        assert_eq!(stream.header("content-type"), "text/event-stream");
        assert_eq!(stream.header("cache-control"), "no-store, no-transform");
        assert_eq!(stream.header("x-accel-buffering"), "no");
        let position = stream.next().await;
        assert_eq!((&*position.event, &*position.data), ("stream.position", "{}"));
        assert!(!position.id.is_empty());
        assert_eq!(stream.comments().len(), 1);
        let retry = stream.retry().unwrap().as_millis();
        assert!((2250..=3750).contains(&retry), "3 s, jittered by a quarter: {retry}");
    }
}

#[tokio::test]
async fn every_event_has_an_id_and_no_name_unless_the_route_gives_one() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut plain = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    let mut named = EventSource::connect(ssegate.url("/named"), Options::http2()).await;
    plain.next_named("stream.position").await;
    named.next_named("stream.position").await;
    ssegate.publish("news", "line one\r\nline two\rline three\n").await;
    let event = plain.next().await;
    assert_eq!((&*event.event, &*event.data), ("message", "line one\nline two\nline three\n"));
    assert_eq!(named.next().await.event, "sale");
    ssegate.publish("news?event=own", "").await;
    let second = plain.next().await;
    assert_eq!((&*second.event, &*second.data), ("own", ""));
    assert_ne!(event.id, second.id);
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut stream = EventSource::connect(ssegate.url("/quiet"), Options::http1()).await;
    stream.until_comments(3).await;
    assert_eq!(stream.events().len(), 1, "nothing but the position: {stream}");
}

#[tokio::test]
async fn resuming_goes_on_after_the_id_whether_by_header_or_query() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut stream = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    stream.next_named("stream.position").await;
    for n in 0..5 {
        ssegate.publish("news", n.to_string()).await;
    }
    stream.next_data(5).await;
    let ids: Vec<String> = stream.events()[1..].iter().map(|event| event.id.clone()).collect();

    let mut by_header = EventSource::connect(ssegate.url("/news"), Options::http2().resume(&ids[1])).await;
    assert_eq!(by_header.next_named("stream.position").await.id, ids[1]);
    assert_eq!(by_header.next_data(3).await, ["2", "3", "4"]);

    let url = ssegate.url(&format!("/news?x=1&lastEventId={}", ids[2]));
    let mut by_query = EventSource::connect(&url, Options::http1()).await;
    assert_eq!(by_query.next_data(2).await, ["3", "4"]);

    let mut both = EventSource::connect(&url, Options::http1().resume(&ids[3])).await;
    assert_eq!(both.next_data(1).await, ["4"], "the header wins");
}

#[tokio::test]
async fn a_client_cut_before_its_first_event_resumes_exactly() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut stream = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    stream.next_named("stream.position").await;
    stream.cut();
    ssegate.publish("news", "while away").await;
    stream.reconnect().await;
    assert_eq!(stream.next_message().await.data, "while away");
}

#[tokio::test]
async fn an_id_from_elsewhere_is_told_and_the_stream_starts_at_the_head() {
    let ssegate = Ssegate::start(PUSH).await;
    ssegate.publish("news", "before").await;
    for id in ["nonsense", "0123456789abcdef-3", "\u{e9}"] {
        let mut stream = EventSource::connect(ssegate.url("/news"), Options::http1().resume(id)).await;
        let gap = stream.next_gap().await;
        assert_eq!(gap["reason"], "unknown_id");
        assert!(gap["missed"].is_null() && gap["from"].is_null() && gap["to"].is_null(), "{gap}");
        let position = stream.next().await;
        assert_eq!(position.event, "stream.position");
        assert_ne!(position.id, id, "the gap must not leave the client with the foreign id");
        ssegate.publish("news", "after").await;
        assert_eq!(stream.next_message().await.data, "after");
    }
}

#[tokio::test]
async fn methods_and_accept_are_answered_as_they_should() {
    let ssegate = Ssegate::start(PUSH).await;
    for connect in [Connect::http1(), Connect::http2()] {
        let ask = async |method: Method, headers: &[(&str, &str)]| {
            request(method, &ssegate.url("/news"), headers, "", &connect).await
        };
        let head = ask(Method::HEAD, &[]).await;
        assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
        assert!(head.body.is_empty());
        let post = ask(Method::POST, &[]).await;
        assert_eq!((post.status.as_u16(), post.header("allow")), (405, "GET, HEAD, OPTIONS"));
        assert_eq!(post.json()["type"], "urn:ssegate:problem:method");
        let options = ask(Method::OPTIONS, &[]).await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, "GET, HEAD, OPTIONS"));
        let html = ask(Method::GET, &[("accept", "text/html")]).await;
        assert_eq!(html.status, 406);
        assert_eq!(html.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_in_words() {
    let ssegate = Ssegate::start(PUSH).await;
    let missing = get(&ssegate.url("/nothing?token=secret")).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.header("content-type"), "application/problem+json");
    assert_eq!(missing.json()["type"], "urn:ssegate:problem:no-route");
    assert!(!missing.text().contains("secret"));
}

#[tokio::test]
async fn a_stream_leaves_one_line_in_the_log_without_its_query() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut stream = EventSource::connect(ssegate.url("/news?token=hunter2"), Options::http1()).await;
    stream.next_named("stream.position").await;
    ssegate.publish("news", "x").await;
    stream.next_message().await;
    stream.close();
    let line = ssegate.wait_log("the end of the stream", |line| line["message"] == "stream ended").await;
    assert_eq!(
        (&line["route"], &line["why"], &line["events"]),
        (&"/news".into(), &"client".into(), &1.into())
    );
    assert!(line["bytes"].as_u64().unwrap() > 0 && line["seconds"].is_number());
    assert!(ssegate.log().iter().all(|line| !line.to_string().contains("hunter2")));
}

#[tokio::test]
async fn browsers_are_told_to_come_by_https_alone_where_that_is_asked_for() {
    for (hsts, told) in [
        ("", ""),
        (", hsts: 30d", "max-age=2592000"),
        (", hsts: { max_age: 365d, subdomains: true }", "max-age=31536000; includeSubDomains"),
    ] {
        let server = format!("server: {{ listen: \"127.0.0.1:0\", tls: self_signed{hsts} }}");
        let ssegate = Ssegate::start(format!("{server}\n{PUSH}")).await;
        let trusting = crate::support::tls::blind_config(
            &[],
            rustls::ALL_VERSIONS,
            crate::support::tls::default_provider(),
        );
        for how in [Connect::http1(), Connect::http2()] {
            let how = Connect { tls: Some(std::sync::Arc::clone(&trusting)), ..how };
            let stream =
                EventSource::connect(ssegate.url("/news"), Options::default().connect(how.clone())).await;
            assert_eq!(stream.header("strict-transport-security"), told);
            assert_eq!(stream.header("x-content-type-options"), "nosniff");
            for (method, path) in
                [(Method::GET, "/nowhere"), (Method::HEAD, "/news"), (Method::POST, "/news")]
            {
                let answer = request(method, &ssegate.url(path), &[], "", &how).await;
                assert_eq!(answer.header("strict-transport-security"), told, "{path}");
                assert_eq!(answer.header("x-content-type-options"), "nosniff");
            }
        }
    }
}

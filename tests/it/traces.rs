//! OpenTelemetry traces: which requests are traced, what their spans tell, and that no collector can do harm.

use std::time::Instant;

use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use crate::auth::SECRET;
use crate::support::app::App;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link, Version, build, request};
use crate::support::otlp::{Otlp, Span};
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::token::hs256;
use crate::support::wait::eventually;

/// Rooms of `push`, one of them guarded, and what has no upstream to speak of.
fn config(endpoint: &str, keys: &str) -> String {
    format!(
        r#"
traces: {{ endpoint: "{endpoint}", {keys} }}
log: {{ format: json, access: true }}
auth: {{ users: {{ jwt: {{ secret: "{SECRET}", query: token }} }} }}
upstreams: {{ lobby: {{ push: {{}} }}, away: {{ redis: {{ url: "redis://127.0.0.1:1" }} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: lobby, channel: "room:{{room}}" }} }}
  - {{ path: "/guarded/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }}, auth: users }}
  - {{ path: /one, from: {{ upstream: lobby, channel: one }}, limits: {{ streams: 1 }} }}
  - {{ path: /away, from: {{ upstream: away, channel: a }} }}
"#
    )
}

/// With an application as well.
fn with_app(endpoint: &str, keys: &str, app: &App) -> String {
    let addr = app.addr;
    let routes = format!(
        r#"  - {{ path: "/app/{{*rest}}", proxy: "http://{addr}" }}
  - {{ path: /endless, proxy: "http://{addr}" }}
"#
    );
    config(endpoint, keys) + &routes
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

#[tokio::test]
async fn a_stream_is_told_as_its_request_its_beginning_and_its_course() {
    let collector = Otlp::start().await;
    let keys = "sample: 1, service_name: edge, attributes: { deployment.environment.name: test }";
    let ssegate = Ssegate::start(config(&collector.endpoint(), keys)).await;
    let token = hs256(SECRET, json!({ "sub": "alice" }));
    for (options, version, room) in [(Options::http1(), "1.1", "a"), (Options::http2(), "2", "b")] {
        let url = ssegate.url(&format!("/guarded/{room}?token={token}&x=sesame"));
        let options = options.header("user-agent", "a test").header("cookie", "c=sesame");
        let mut stream = EventSource::connect(url, options).await;
        stream.next_named("stream.position").await;
        ssegate.publish(room, "sesame").await;
        stream.next_message().await;
        let path = format!("/guarded/{room}");
        let request = collector.span("the request", |span| span.get("url.path") == path.as_str()).await;
        drop(stream);
        assert_eq!((request.name.as_str(), request.kind), ("GET /guarded/{room}", SpanKind::Server));
        assert!(request.parent.is_empty() && !request.is_remote && !request.failed, "{request:?}");
        for (name, value) in [
            ("http.request.method", json!("GET")),
            ("http.route", json!("/guarded/{room}")),
            ("url.scheme", json!("https")),
            ("http.response.status_code", json!(200)),
            ("client.address", json!("127.0.0.1")),
            ("server.address", json!("localhost")),
            ("server.port", json!(ssegate.addr().port())),
            ("network.protocol.version", json!(version)),
            ("user_agent.original", json!("a test")),
        ] {
            assert_eq!(request.get(name), &value, "{name}");
        }
        let part = async |name: &str| {
            let wanted = |span: &Span| span.name == name && span.trace == request.trace;
            collector.span(name, wanted).await
        };
        let (authorize, subscribe, stream) =
            (part("authorize").await, part("subscribe").await, part("stream").await);
        for span in [&authorize, &subscribe, &stream] {
            assert_eq!((&span.parent, span.kind, span.is_remote), (&request.id, SpanKind::Internal, false));
            assert!(request.began <= span.began && span.began <= span.ended, "{request:?} {span:?}");
        }
        assert_eq!(authorize.get("ssegate.auth.outcome"), "allowed");
        assert_eq!((subscribe.began, subscribe.get("ssegate.resume")), (request.began, &json!("start")));
        assert_eq!(subscribe.get("ssegate.gap"), &Value::Null);
        assert!(subscribe.ended <= stream.began, "one begins where the other ends");
        for span in [&subscribe, &stream] {
            assert_eq!(span.get("messaging.system"), "push");
            assert_eq!(span.get("messaging.destination.name"), room);
            assert_eq!(
                (span.get("ssegate.upstream"), span.get("ssegate.source")),
                (&json!("lobby"), &json!("channel"))
            );
        }
        assert_eq!(
            (stream.get("ssegate.stream.end"), stream.get("ssegate.stream.events")),
            (&json!("client"), &json!(1))
        );
        assert!(stream.get("ssegate.stream.bytes").as_u64().unwrap() > 50);
        assert_eq!(stream.resource["service.name"], "edge");
        assert_eq!(stream.resource["deployment.environment.name"], "test");
        assert_eq!(stream.resource["service.instance.id"].as_str().map(str::len), Some(36));

        // The log tells of the same.
        let ended = ssegate
            .wait_log("its end", |line| {
                line["message"] == "stream ended" && line["trace_id"] == *request.trace
            })
            .await;
        assert_eq!(&ended["stream"], stream.get("ssegate.stream.id"));
        ssegate
            .wait_log("its request", |line| {
                line["message"] == "request" && line["trace_id"] == *request.trace
            })
            .await;
    }
    let told = format!("{:?}", collector.spans());
    assert!(!told.contains("sesame") && !told.contains(&token) && !told.contains("token"), "{told}");
}

#[tokio::test]
async fn the_parent_decides_and_is_gone_on_from() {
    let collector = Otlp::start().await;
    let never = Ssegate::start(config(&collector.endpoint(), "sample: 0")).await;
    let always = Ssegate::start(config(&collector.endpoint(), "sample: 1")).await;
    for how in [Connect::http1(), Connect::http2()] {
        let ask = async |ssegate: &Ssegate, path: &str, headers: &[(&str, &str)]| {
            let reply = request(Method::GET, &ssegate.url(path), headers, "", &how).await;
            assert_eq!(reply.status, 404);
        };
        let prefix = if how.version == Version::One { "/one-" } else { "/two-" };
        let path = |name: &str| format!("{prefix}{name}");
        ask(&never, &path("none"), &[]).await;
        ask(&never, &path("malformed"), &[("traceparent", "00-x-y-01")]).await;
        ask(&never, &path("unsampled"), &[("traceparent", &parent("00"))]).await;
        ask(&never, &path("sampled"), &[("traceparent", &parent("01")), ("tracestate", "a=1,b=2")]).await;
        ask(&always, &path("off"), &[("traceparent", &parent("02"))]).await;
        ask(&always, &path("anew"), &[("traceparent", &parent("1")), ("tracestate", "a=1")]).await;
        let of = async |name: &str| {
            let path = path(name);
            collector.span(name, |span| span.get("url.path") == path.as_str()).await
        };
        let sampled = of("sampled").await;
        assert_eq!((sampled.name.as_str(), sampled.get("http.route")), ("GET", &Value::Null));
        assert_eq!((sampled.trace.as_str(), sampled.parent.as_str()), (TRACE, SPAN));
        assert!(sampled.is_remote && sampled.state == "a=1,b=2" && sampled.id != SPAN, "{sampled:?}");
        let anew = of("anew").await;
        assert!(anew.trace != TRACE && anew.parent.is_empty() && anew.state.is_empty(), "{anew:?}");
    }
    // What came before those that have arrived would be there.
    let paths: Vec<Value> = collector.spans().iter().map(|span| span.get("url.path").clone()).collect();
    let mut expected = ["/one-anew", "/one-sampled", "/two-anew", "/two-sampled"].map(Value::from).to_vec();
    let mut paths = paths;
    [&mut paths, &mut expected].into_iter().for_each(|paths| paths.sort_by_key(Value::to_string));
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn the_parent_counts_of_whom_it_is_to_count() {
    let collector = Otlp::start().await;
    let (proxy, stranger) = ("trusted_proxies: \"127.0.0.1\"", "trusted_proxies: \"10.0.0.1\"");
    let cases = [
        ("proxies", stranger, false),
        ("none", proxy, false),
        ("any", stranger, true),
        ("proxies", proxy, true),
    ];
    for (parent_of, trusted, counts) in cases {
        let keys = format!("sample: 0, parent: {parent_of}");
        let server = format!("server: {{ listen: \"127.0.0.1:0\", tls: none, {trusted} }}\n");
        let ssegate = Ssegate::start(server + &config(&collector.endpoint(), &keys)).await;
        let path = format!("/{parent_of}-{counts}");
        let headers = [("traceparent", &*parent("01"))];
        request(Method::GET, &ssegate.url(&path), &headers, "", &Connect::http1()).await;
        if counts {
            collector.span(&path, |span| span.get("url.path") == path.as_str()).await;
        }
        // All that there is to tell is told at its end.
        let mut ssegate = ssegate;
        assert!(ssegate.terminate().await.success());
        let told = collector.spans().iter().any(|span| span.get("url.path") == path.as_str());
        assert_eq!(told, counts, "{path}");
    }
}

#[tokio::test]
async fn resuming_gaps_ends_and_what_was_shed_are_told() {
    let collector = Otlp::start().await;
    let mut ssegate = Ssegate::start(config(&collector.endpoint(), "sample: 1")).await;
    let url = ssegate.url("/rooms/a");
    let subscribed = async |count: usize| -> Span {
        eventually("another subscription", async || {
            let of =
                |span: &Span| span.name == "subscribe" && span.get("messaging.destination.name") == "room:a";
            let spans: Vec<_> = collector.spans().into_iter().filter(of).collect();
            spans.get(count - 1).cloned().ok_or(spans.len())
        })
        .await
    };
    let mut first = EventSource::connect(&url, Options::http1()).await;
    first.next_named("stream.position").await;
    let told = subscribed(1).await;
    assert_eq!((told.get("ssegate.resume"), told.get("ssegate.gap")), (&json!("start"), &Value::Null));

    ssegate.publish("room:a", "one").await;
    let id = first.next_message().await.id;
    let mut second = EventSource::connect(&url, Options::http2().resume(&id)).await;
    second.next_named("stream.position").await;
    let told = subscribed(2).await;
    assert_eq!((told.get("ssegate.resume"), told.get("ssegate.gap")), (&json!("id"), &Value::Null));

    let mut lost = EventSource::connect(format!("{url}?lastEventId=nothing"), Options::http2()).await;
    assert_eq!(lost.next_gap().await["reason"], "unknown_id");
    let told = subscribed(3).await;
    assert_eq!((told.get("ssegate.resume"), told.get("ssegate.gap")), (&json!("id"), &json!(["unknown_id"])));

    let mut one = EventSource::connect(ssegate.url("/one"), Options::http1()).await;
    one.next_named("stream.position").await;
    let mut shed = EventSource::connect(ssegate.url("/one"), Options::http1()).await;
    shed.until_end().await;
    let told = collector.span("what was shed", |span| !span.get("ssegate.shed").is_null()).await;
    assert_eq!((told.name.as_str(), told.get("ssegate.shed")), ("subscribe", &json!("streams")));

    let waiting = EventSource::connect(ssegate.url("/away"), Options::http1()).await;
    let asked = collector.span("the request", |span| span.get("url.path") == "/away").await;
    drop(waiting);
    let told = collector
        .span("what never began", |span| span.trace == asked.trace && span.name == "subscribe")
        .await;
    assert_eq!(told.get("ssegate.stream.end"), "client");
    assert_eq!(
        (told.get("messaging.system"), told.get("ssegate.upstream")),
        (&json!("redis"), &json!("away"))
    );

    let clients = ssegate.admin_get("/status/clients?route=/one").await.json();
    let id = &clients["clients"][0]["id"];
    ssegate.admin(Method::DELETE, &format!("/clients/{id}"), "").await;
    collector.span("what was asked to end", |span| span.get("ssegate.stream.end") == "asked").await;
    // The last ones come, also those of the drain.
    let streams = [first, second, lost];
    assert!(ssegate.terminate().await.success());
    let spans = collector.spans();
    let drained = spans.iter().filter(|span| span.get("ssegate.stream.end") == "drain").count();
    assert_eq!(drained, streams.len());
    assert!(spans.iter().all(|span| span.trace != asked.trace || span.name != "stream"), "it never began");
}

#[tokio::test]
async fn subscribing_lasts_until_the_upstream_is_there() {
    let (collector, redis) = (Otlp::start().await, Redis::start().await);
    let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    link.pause();
    let ssegate = Ssegate::start(format!(
        r#"
traces: {{ endpoint: "{}", sample: 1 }}
upstreams: {{ cache: {{ redis: {{ url: "redis://{}" }} }} }}
routes: [{{ path: "/rooms/{{room}}", from: {{ upstream: cache, channel: "{{room}}" }} }}]
"#,
        collector.endpoint(),
        link.addr(),
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
    let request = collector.span("the request", |span| span.name == "GET /rooms/{room}").await;
    assert!(collector.spans().iter().all(|span| span.name != "subscribe"));
    link.resume();
    stream.next_named("stream.position").await;
    let subscribe = collector.span("its beginning", |span| span.name == "subscribe").await;
    assert!(
        subscribe.ended > request.ended,
        "it lasts for longer than the request: {subscribe:?} {request:?}"
    );
    assert_eq!(subscribe.get("messaging.system"), "redis");
}

#[tokio::test]
async fn subscribing_to_several_feeds_lasts_until_all_of_them_have_begun() {
    let (collector, redis) = (Otlp::start().await, Redis::start().await);
    let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    link.pause();
    let ssegate = Ssegate::start(format!(
        r#"
traces: {{ endpoint: "{}", sample: 1 }}
upstreams: {{ cache: {{ redis: {{ url: "redis://{}" }} }}, lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /far, from: {{ upstream: cache, channel: far }} }}
  - {{ path: /near, from: {{ upstream: lobby, channel: near }} }}
  - {{ path: /all, multi: {{ of: [/far, /near] }} }}
"#,
        collector.endpoint(),
        link.addr(),
    ))
    .await;
    let url = ssegate.url("/all?feed=/far&feed=/near&feed=/nowhere");
    let mut stream = EventSource::connect(url, Options::http1()).await;
    stream.next_named("stream.refused").await;
    stream.next_named("stream.position").await;
    ssegate.publish("near", "meanwhile").await;
    assert_eq!(stream.next_message().await.data, "meanwhile");
    collector.span("the request", |span| span.name == "GET /all").await;
    assert!(collector.spans().iter().all(|span| span.name != "subscribe"));
    link.resume();
    stream.next_named("stream.position").await;
    collector.span("its beginning", |span| span.name == "subscribe").await;
}

#[tokio::test]
async fn applications_go_on_with_the_trace() {
    let (collector, app) = (Otlp::start().await, App::start().await);
    let never = Ssegate::start(with_app(&collector.endpoint(), "sample: 0", &app)).await;
    let always = Ssegate::start(with_app(&collector.endpoint(), "sample: 1", &app)).await;
    for how in [Connect::http1(), Connect::http2()] {
        let ask = async |ssegate: &Ssegate, path: &str, headers: &[(&str, &str)]| {
            let told = request(Method::GET, &ssegate.url(path), headers, "", &how).await.json();
            told["headers"].clone()
        };
        let path = format!("/app/{}", if how.version == Version::One { "one" } else { "two" });
        let state = ("tracestate", "a=1");
        for unsampled in [parent("00"), "malformed".to_owned()] {
            let told = ask(&never, &path, &[("traceparent", &unsampled), state]).await;
            assert_eq!((&told["traceparent"], &told["tracestate"]), (&json!(unsampled), &json!("a=1")));
        }
        assert_eq!(ask(&never, &path, &[]).await["traceparent"], Value::Null);

        let told = ask(&never, &path, &[("traceparent", &parent("01")), state]).await;
        let span = collector
            .span("the request", |span| span.get("url.path") == path.as_str() && span.trace == TRACE)
            .await;
        assert_eq!(
            (&told["traceparent"], &told["tracestate"]),
            (&json!(format!("00-{TRACE}-{}-01", span.id)), &json!("a=1"))
        );
        assert_eq!((span.name.as_str(), span.parent.as_str()), ("GET /app/{*rest}", SPAN));

        let told = ask(&always, &path, &[("traceparent", "malformed"), state]).await;
        let span = collector
            .span("the other", |span| span.get("url.path") == path.as_str() && span.trace != TRACE)
            .await;
        assert_eq!(told["traceparent"], format!("00-{}-{}-01", span.trace, span.id));
        assert_eq!(told["tracestate"], Value::Null, "it belongs to what is malformed");

        // The span lasts as long as the answer: the next one is told before it.
        let link = Link::open(&always.url("/"), &how).await.unwrap();
        let endless = link.send(build(Method::GET, &always.url("/endless"), &[], "")).await.unwrap();
        let path = format!("{path}/after");
        ask(&always, &path, &[]).await;
        collector.span("the next one", |span| span.get("url.path") == path.as_str()).await;
        let is_endless = |span: &Span| {
            span.get("url.path") == "/endless"
                && span.get("network.protocol.version")
                    == if how.version == Version::One { "1.1" } else { "2" }
        };
        let early: Vec<_> = collector.spans().into_iter().filter(is_endless).collect();
        assert!(early.is_empty(), "{early:?}");
        drop((endless, link));
        collector.span("the endless one", is_endless).await;
    }
    drop(app);
    let reply = request(Method::GET, &always.url("/app/gone"), &[], "", &Connect::http1()).await;
    assert_eq!(reply.status, 502);
    let span = collector.span("what failed", |span| span.get("url.path") == "/app/gone").await;
    assert!(span.failed && span.get("error.type") == "502", "{span:?}");
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_once_and_costs_what_does_not_fit() {
    let (port, began) = (ports::free(), Instant::now());
    let ssegate = Ssegate::start(config(&format!("http://127.0.0.1:{port}"), "sample: 1")).await;
    let mut stream = EventSource::connect(ssegate.url("/rooms/a"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let is_away = |line: &Value| line["message"] == "traces are not taken" && line["level"] == "WARN";
    ssegate.wait_log("that it is away", is_away).await;

    // Of a long path no more than a part is kept.
    let long = format!("/{}", "x".repeat(8_000));
    request(Method::GET, &ssegate.url(&long), &[], "", &Connect::http1()).await;
    const REQUESTS: usize = 4_000;
    let link = Link::open(&ssegate.url("/"), &Connect::http2()).await.unwrap();
    for _ in 0..REQUESTS / 100 {
        let asks = (0..100).map(|_| link.send(build(Method::GET, &ssegate.url("/x"), &[], "")));
        for reply in futures_util::future::join_all(asks).await {
            assert_eq!(reply.unwrap().status(), 404);
        }
    }
    ssegate.publish("room:a", "still there").await;
    assert_eq!(stream.next_message().await.data, "still there");
    let count =
        async |outcome| ssegate.metrics().await.sum("ssegate_trace_spans_total", &[("outcome", outcome)]);
    let dropped = count("dropped").await;
    // The queue, and the message that is tried again and again.
    assert!(dropped >= (REQUESTS - 2_048 - 512) as f64, "{dropped} were dropped");
    assert_eq!(count("exported").await, 0.0);

    let collector = Otlp::start_on(port).await;
    ssegate.wait_log("that it is back", |line| line["message"] == "traces are taken again").await;
    let told = ssegate.log().iter().filter(|line| is_away(line)).count() as u64;
    assert!(told <= 1 + began.elapsed().as_secs() / 60, "it is told once, and each minute: {told}");
    eventually("all that was kept", async || {
        let exported = count("exported").await;
        // The long one, and the request and the beginning of the stream.
        if exported + dropped == (REQUESTS + 3) as f64 { Ok(()) } else { Err(exported) }
    })
    .await;
    let lengths = collector.spans().into_iter().filter_map(|span| Some(span.get("url.path").as_str()?.len()));
    assert_eq!(lengths.max(), Some(512));
    let metrics = ssegate.metrics().await;
    let exports = |outcome| metrics.sum("ssegate_trace_exports_total", &[("outcome", outcome)]);
    assert!(exports("failed") >= 1.0 && exports("sent") >= 5.0, "{}", metrics.text);
    drop(stream);
    collector.span("the stream", |span| span.name == "stream").await;
}

#[tokio::test]
async fn what_a_collector_does_not_want_is_counted_and_what_it_cannot_take_comes_again() {
    let collector = Otlp::start().await;
    let ssegate = Ssegate::start(config(&collector.endpoint(), "sample: 1")).await;
    let ask =
        async |path: &str| _ = request(Method::GET, &ssegate.url(path), &[], "", &Connect::http1()).await;
    let count = async |outcome: &str, spans: f64| {
        eventually(outcome, async || {
            let metrics = ssegate.metrics().await;
            let counted = metrics.sum("ssegate_trace_spans_total", &[("outcome", outcome)]);
            if counted == spans { Ok(()) } else { Err(format!("{counted} and not {spans}")) }
        })
        .await;
    };
    collector.say(400);
    ask("/first").await;
    count("rejected", 1.0).await;
    let told = ssegate.wait_log("why", |line| line["message"] == "traces are not taken").await;
    assert_eq!(told["error"], "it answers 400 Bad Request");
    assert_eq!(collector.requests().len(), 1);

    collector.say(503);
    ask("/second").await;
    collector.wait_requests(3).await;
    collector.say(200);
    collector.span("what was tried again", |span| span.get("url.path") == "/second").await;
    count("exported", 1.0).await;

    collector.reject(1);
    ask("/third").await;
    count("rejected", 2.0).await;
    count("exported", 1.0).await;
    count("dropped", 0.0).await;
    assert!(collector.spans().iter().all(|span| span.get("url.path") != "/first"));
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_collector_that_hangs() {
    let collector = Otlp::start().await;
    collector.say(0);
    let mut ssegate = Ssegate::start(config(&collector.endpoint(), "sample: 1, timeout: 1m")).await;
    request(Method::GET, &ssegate.url("/x"), &[], "", &Connect::http1()).await;
    collector.wait_requests(1).await;
    assert!(ssegate.terminate().await.success());
    let late = "the collector of traces did not take the last ones in time";
    ssegate.wait_log("that they are lost", |line| line["message"] == late).await;
}

#[tokio::test]
async fn secrets_go_to_a_collector_that_is_trusted_and_nowhere_else() {
    let ca = TestCa::new();
    let collector = Otlp::start_tls(&ca).await;
    let text = |ca: &str| {
        let keys = "sample: 1, headers: { authorization: \"Bearer ${OTLP_TOKEN}\", x-team: sesame-2 }";
        config(&collector.endpoint(), &format!("{keys}{ca}"))
            .replace("access: true", "access: true, level: trace")
    };
    let start =
        async |config: String| Ssegate::builder().config(config).env("OTLP_TOKEN", "sesame-1").start().await;
    let trusting = start(text(&format!(", ca: \"{}\"", ca.cert_path().display()))).await;
    request(Method::GET, &trusting.url("/x"), &[], "", &Connect::http1()).await;
    collector.span("the request", |span| span.get("url.path") == "/x").await;
    let headers = collector.requests()[0].clone();
    assert_eq!(
        (&headers["authorization"], &headers["x-team"]),
        (&"Bearer sesame-1".parse().unwrap(), &"sesame-2".parse().unwrap())
    );

    let wary = start(text("")).await;
    let seen = collector.requests().len();
    request(Method::GET, &wary.url("/y"), &[], "", &Connect::http1()).await;
    wary.wait_log("that it is not trusted", |line| line["message"] == "traces are not taken").await;
    assert_eq!(collector.requests().len(), seen);
    for line in trusting.log().iter().chain(&wary.log()) {
        assert!(!line.to_string().contains("sesame"), "{line}");
    }
    let checked = Ssegate::builder().config(text("")).env("OTLP_TOKEN", "sesame-1").check().await;
    assert!(checked.status.success() && checked.stdout.contains("traces"), "{}", checked.stderr);
    assert!(!checked.stdout.contains("sesame") && !checked.stderr.contains("sesame"));
}

#[tokio::test]
async fn without_a_collector_there_is_nothing() {
    let app = App::start().await;
    let text = with_app("http://127.0.0.1:1", "sample: 1", &app);
    let (_, text) = text.split_once("log:").unwrap();
    let ssegate = Ssegate::start(format!("log:{text}")).await;
    let headers = [("traceparent", &*parent("01")), ("tracestate", "a=1")];
    let told = request(Method::GET, &ssegate.url("/app/x"), &headers, "", &Connect::http1()).await.json();
    assert_eq!(
        (&told["headers"]["traceparent"], &told["headers"]["tracestate"]),
        (&json!(parent("01")), &json!("a=1"))
    );
    assert!(!ssegate.metrics().await.has("ssegate_trace_spans_total", &[]));
    let line = ssegate.wait_log("the request", |line| line["message"] == "request").await;
    assert!(line["trace_id"].is_null(), "{line}");
}

//! Whom ssegate asks who may listen: an issuer's key set and an endpoint that decides, in order and out of it. What
//! cannot be told holds streams open, since an error would end an `EventSource` for good.

use http::Method;
use serde_json::json;

use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, get, request};
use crate::support::origin::{Answer, Origin};
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::TestCa;
use crate::support::token::{SigningKey, jwks};
use crate::support::wait::eventually;

async fn start(auth: &str) -> Ssegate {
    start_with("", auth).await
}

async fn start_with(server: &str, auth: &str) -> Ssegate {
    Ssegate::start(format!(
        r#"
{server}
auth: {{ who: {{ {auth} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /a
    from: {{ upstream: lobby, channel: a }}
    auth: who
    allow: "!('x-blocked' in claims)"
    keepalive: 1s
    retry: 100ms
"#
    ))
    .await
}

fn bearing(options: Options, token: &str) -> Options {
    options.header("authorization", &format!("Bearer {token}"))
}

async fn status(ssegate: &Ssegate, token: &str) -> u16 {
    EventSource::request(ssegate.url("/a"), bearing(Options::http1(), token)).await.status().as_u16()
}

/// Waits until the issuer's keys, or that they cannot be had, are known.
async fn fetched(ssegate: &Ssegate, outcome: &str, count: f64) {
    let seen =
        async || match ssegate.metrics().await.sum("ssegate_jwks_fetches_total", &[("outcome", outcome)]) {
            seen if seen >= count => Ok(()),
            seen => Err(format!("{seen}")),
        };
    eventually(&format!("{count} × {outcome}"), seen).await;
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_not_for_every_such_token() {
    let (issuer, first, second) = (Origin::start().await, SigningKey::new("k1"), SigningKey::new("k2"));
    issuer.say("/jwks", 200, jwks(&[&first]));
    let ssegate = start(&format!("jwt: {{ jwks: \"{}\" }}", issuer.url("/jwks"))).await;
    assert_eq!(status(&ssegate, &first.sign(json!({}))).await, 200);
    issuer.say("/jwks", 200, jwks(&[&first, &second]));
    assert_eq!(status(&ssegate, &second.sign(json!({}))).await, 200);
    // Those about whom the issuer was asked are refused. It may not be asked about each: the others wait, rather than that
    // one of them who is known to it be sent away for good.
    let strange = SigningKey::new("x");
    assert_eq!(status(&ssegate, &strange.sign(json!({}))).await, 401);
    let mut held = Vec::new();
    for n in 0..20 {
        let token = SigningKey::new(&format!("x{n}")).sign(json!({}));
        let stream = EventSource::request(ssegate.url("/a"), bearing(Options::http1(), &token)).await;
        held.extend((stream.status() == 200).then_some(stream));
    }
    let asked = issuer.requests("/jwks").len();
    assert!(asked <= 6, "a flood of unknown names asks the issuer {asked} times");
    assert!(held.len() >= 16, "{} wait", held.len());
    let third = SigningKey::new("k3");
    issuer.say("/jwks", 200, jwks(&[&first, &second, &third]));
    let third = bearing(Options::http1(), &third.sign(json!({})));
    EventSource::connect(ssegate.url("/a"), third).await.next_named("stream.position").await;
    for stream in &mut held {
        assert_eq!(stream.until_end().await, End::Complete);
        assert_eq!(stream.events().len(), 0);
    }
    let asked = issuer.requests("/jwks").len();
    assert!(asked <= 10, "those who wait ask the issuer {asked} times");
    assert!(
        ssegate.metrics().await.sum("ssegate_jwks_fetched_timestamp_seconds", &[("provider", "who")]) > 1e9
    );
}

#[tokio::test]
async fn a_key_that_takes_the_name_of_another_is_fetched() {
    let (issuer, old, new) = (Origin::start().await, SigningKey::new("k1"), SigningKey::new("k1"));
    issuer.say("/jwks", 200, jwks(&[&old]));
    let ssegate = start(&format!("jwt: {{ jwks: \"{}\" }}", issuer.url("/jwks"))).await;
    assert_eq!(status(&ssegate, &old.sign(json!({}))).await, 200);
    issuer.say("/jwks", 200, jwks(&[&new]));
    assert_eq!(status(&ssegate, &new.sign(json!({}))).await, 200);
    assert_eq!(status(&ssegate, &old.sign(json!({}))).await, 401);
}

#[tokio::test]
async fn an_issuer_is_not_asked_about_what_it_cannot_have_signed() {
    let (ours, other) = (Origin::start().await, Origin::start().await);
    let (key, theirs) = (SigningKey::new("k1"), SigningKey::new("k2"));
    ours.say("/jwks", 200, jwks(&[&key]));
    other.say("/jwks", 200, jwks(&[&theirs]));
    let ssegate = Ssegate::start(format!(
        r#"
auth:
  ours: {{ jwt: {{ jwks: "{}", issuer: us, audience: events, leeway: 0s }} }}
  others: {{ jwt: {{ jwks: "{}", issuer: them }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /a, from: {{ upstream: lobby, channel: a }}, auth: [ours, others] }} ]
"#,
        ours.url("/jwks"),
        other.url("/jwks"),
    ))
    .await;
    assert_eq!(status(&ssegate, &key.sign(json!({ "iss": "us", "aud": "events" }))).await, 200);
    let count = ours.requests("/jwks").len();
    for n in 0..5 {
        assert_eq!(status(&ssegate, &theirs.sign(json!({ "iss": "them" }))).await, 200);
        for claims in [
            json!({ "iss": "else", "aud": "events" }),
            json!({ "iss": "us" }),
            json!({ "iss": "us", "aud": "events", "exp": 1_000 }),
        ] {
            let strange = SigningKey::new(&format!("x{n}"));
            assert_eq!(status(&ssegate, &strange.sign(claims)).await, 401);
        }
    }
    assert_eq!(ours.requests("/jwks").len(), count);
}

#[tokio::test]
async fn streams_end_whose_key_the_issuer_withdraws() {
    let (issuer, first, second) = (Origin::start().await, SigningKey::new("k1"), SigningKey::new("k2"));
    issuer.say("/jwks", 200, jwks(&[&first, &second]));
    let ssegate = start(&format!("jwt: {{ jwks: \"{}\", refresh: 1s }}", issuer.url("/jwks"))).await;
    let open = async |key: &SigningKey, options| {
        let token = key.sign(json!({ "sub": "alice" }));
        let mut stream = EventSource::connect(ssegate.url("/a"), bearing(options, &token)).await;
        stream.next_named("stream.position").await;
        stream
    };
    let mut gone = [open(&first, Options::http1()).await, open(&first, Options::http2()).await];
    let mut stays = open(&second, Options::http1()).await;
    issuer.say("/jwks", 200, jwks(&[&second]));
    for stream in &mut gone {
        assert_eq!(stream.until_end().await, End::Complete);
    }
    // An outage, or an answer that makes no sense, withdraws nothing.
    for (status, body) in [(500, ""), (200, "<html>"), (200, "{\"keys\":[]}")] {
        let failed = ssegate.metrics().await.sum("ssegate_jwks_fetches_total", &[("outcome", "failed")]);
        issuer.say("/jwks", status, body);
        fetched(&ssegate, "failed", failed + 1.0).await;
        issuer.say("/jwks", 200, jwks(&[&second]));
        let whole = ssegate.metrics().await.sum("ssegate_jwks_fetches_total", &[("outcome", "fetched")]);
        fetched(&ssegate, "fetched", whole + 1.0).await;
    }
    ssegate.publish("a", "still here").await;
    assert_eq!(stays.next_message().await.data, "still here");
    assert_eq!(ssegate.metrics().await.sum("ssegate_streams_ended_total", &[("reason", "revoked")]), 2.0);
}

#[tokio::test]
async fn while_the_issuer_is_away_known_keys_hold_and_others_wait_on_the_open_stream() {
    let (issuer, known, new) = (Origin::start().await, SigningKey::new("k1"), SigningKey::new("k2"));
    issuer.say("/jwks", 200, jwks(&[&known]));
    let ssegate = start(&format!("jwt: {{ jwks: \"{}\", refresh: 1s }}", issuer.url("/jwks"))).await;
    fetched(&ssegate, "fetched", 1.0).await;
    issuer.say("/jwks", 503, "");
    fetched(&ssegate, "failed", 1.0).await;

    let mut streams = Vec::new();
    for options in [Options::http1(), Options::http2()] {
        let mut known =
            EventSource::connect(ssegate.url("/a"), bearing(options.clone(), &known.sign(json!({})))).await;
        known.next_named("stream.position").await;
        let stranger = SigningKey::new("k3").sign(json!({}));
        let new =
            EventSource::connect(ssegate.url("/a"), bearing(options.clone(), &new.sign(json!({})))).await;
        let stranger = EventSource::connect(ssegate.url("/a"), bearing(options, &stranger)).await;
        streams.push((known, new, stranger));
    }
    ssegate.publish("a", "for those who are known").await;
    for (known, new, stranger) in &mut streams {
        assert_eq!(known.next_message().await.data, "for those who are known");
        for held in [new, stranger] {
            held.until_comments(3).await;
            assert_eq!(held.events().len(), 0, "nothing was decided, and nothing is told: {held}");
        }
    }
    issuer.say("/jwks", 200, jwks(&[&known, &new]));
    for (_, new, stranger) in &mut streams {
        new.next_named("stream.position").await;
        assert_eq!(stranger.until_end().await, End::Complete);
        assert_eq!(stranger.events().len(), 0);
        assert!(stranger.retry().is_some());
    }
    ssegate.publish("a", "for the new one").await;
    for (_, new, _) in &mut streams {
        assert_eq!(new.next_message().await.data, "for the new one");
    }
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", "refused")], 2.0).await;
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_holds_everybody_until_it_is() {
    let (issuer, key) = (Origin::start().await, SigningKey::new("k1"));
    issuer.say("/jwks", 0, "");
    let ssegate = start(&format!("jwt: {{ jwks: \"{}\", refresh: 1s }}", issuer.url("/jwks"))).await;
    let token = key.sign(json!({}));
    let mut held = EventSource::connect(ssegate.url("/a"), bearing(Options::http1(), &token)).await;
    held.until_comments(2).await;
    assert_eq!(get(&ssegate.url("/a")).await.status, 401, "who brings nothing needs no issuer to be refused");
    issuer.say("/jwks", 200, jwks(&[&key]));
    held.next_named("stream.position").await;
    assert!(ssegate.status().await["auth"]["providers"][0]["detail"]["keys"] == 1);
}

fn forward(origin: &Origin, more: &str) -> String {
    format!(
        "forward: {{ url: \"{}\", claims: [x-user, x-blocked], timeout: 3s {more} }}",
        origin.url("/auth")
    )
}

fn user(name: &str) -> Answer {
    Answer { status: 200, headers: vec![("x-user".into(), name.into())], body: String::new() }
}

#[tokio::test]
async fn an_endpoint_decides_and_its_answer_is_kept_for_a_while() {
    let app = Origin::start().await;
    app.set("/auth", user("alice"));
    let ssegate = start(&forward(&app, ", cache: 1h")).await;
    for _ in 0..3 {
        assert_eq!(status(&ssegate, "opaque").await, 200);
    }
    let asked = app.requests("/auth");
    assert_eq!(asked.len(), 1, "the same question");
    let field =
        |name: &str| asked[0].get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(field("authorization"), "Bearer opaque");
    assert_eq!((field("x-forwarded-uri"), field("x-original-uri")), ("/a".into(), "/a".into()));
    assert_eq!(
        (field("x-forwarded-host"), field("x-forwarded-for")),
        (format!("localhost:{}", ssegate.addr().port()), "127.0.0.1".into())
    );
    assert_eq!((field("x-forwarded-method"), field("accept")), ("GET".into(), String::new()));
    assert_eq!(field("x-forwarded-proto"), "https");

    for (answer, expected) in [(401, 401), (403, 403), (204, 200)] {
        app.say("/auth", answer, "");
        assert_eq!(status(&ssegate, &format!("another-{answer}")).await, expected);
    }
    assert_eq!(status(&ssegate, "opaque").await, 200, "it is remembered");
    let blocked = Answer { headers: vec![("x-blocked".into(), "1".into())], ..user("bob") };
    app.set("/auth", blocked);
    assert_eq!(status(&ssegate, "blocked").await, 403, "rules see its claims");
    assert!(
        ssegate.metrics().await.sum("ssegate_forward_duration_seconds_count", &[("provider", "who")]) >= 5.0
    );
}

/// Browsers send a cookie in pieces on HTTP/2, and endpoints of HTTP/1.1 would take the first for all of it.
#[tokio::test]
async fn an_endpoint_is_asked_with_the_whole_cookie() {
    let app = Origin::start().await;
    app.set("/auth", user("alice"));
    let ssegate = start(&forward(&app, ", headers: [cookie]")).await;
    let pieces = [("cookie", "a=1"), ("cookie", "session=s1")];
    let head = request(Method::HEAD, &ssegate.url("/a"), &pieces, "", &Connect::http2()).await;
    assert_eq!(head.status, 200);
    let cookies: Vec<_> = app.requests("/auth")[0].get_all("cookie").iter().cloned().collect();
    assert_eq!(cookies, ["a=1; session=s1"]);
}

/// Without TLS of its own, once as what clients reach and once behind a proxy that terminates it.
#[tokio::test]
async fn an_endpoint_is_told_how_the_client_came() {
    let app = Origin::start().await;
    app.set("/auth", user("alice"));
    let says = [("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")];
    let forwarded = [("forwarded", "for=192.0.2.1;proto=https"), ("x-forwarded-proto", "http")];
    for (server, headers, expected) in [
        ("", &[][..], ("http", "127.0.0.1")),
        ("", &says[..], ("http", "127.0.0.1")),
        (", trusted_proxies: 127.0.0.1", &[], ("http", "127.0.0.1")),
        (", trusted_proxies: 127.0.0.1", &says, ("https", "192.0.2.1")),
        (", trusted_proxies: 127.0.0.1, real_ip_header: none", &says, ("http", "127.0.0.1")),
        (", trusted_proxies: 127.0.0.1, real_ip_header: forwarded", &forwarded, ("https", "192.0.2.1")),
    ] {
        let server = format!("server: {{ listen: \"127.0.0.1:0\", tls: none {server} }}");
        let ssegate = start_with(&server, &forward(&app, ", cache: 0")).await;
        let before = app.requests("/auth").len();
        let head = request(Method::HEAD, &ssegate.url("/a"), headers, "", &Connect::http1()).await;
        assert_eq!(head.status, 200);
        let asked = &app.requests("/auth")[before..];
        let field = |name: &str| asked[0][name].to_str().unwrap();
        assert_eq!((field("x-forwarded-proto"), field("x-forwarded-for")), expected, "{server} {headers:?}");
        assert_eq!((asked.len(), field("x-forwarded-method")), (1, "HEAD"));
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_holds_streams_until_it_does() {
    let app = Origin::start().await;
    let ssegate = start(&forward(&app, ", cache: 0")).await;
    for (trouble, then) in [(0, 200), (500, 403)] {
        app.say("/auth", trouble, "");
        let mut held = Vec::new();
        for options in [Options::http1(), Options::http2()] {
            held.push(EventSource::connect(ssegate.url("/a"), bearing(options, "opaque")).await);
        }
        for stream in &mut held {
            stream.until_comments(2).await;
            assert_eq!(stream.events().len(), 0);
        }
        app.set("/auth", Answer { status: then, ..user("alice") });
        for stream in &mut held {
            match then {
                200 => drop(stream.next_named("stream.position").await),
                _ => assert_eq!(stream.until_end().await, End::Complete),
            }
        }
    }
}

/// What a client can make an endpoint say must not hold his stream: it would be asked again and again, and nobody would be
/// told to log in.
#[tokio::test]
async fn redirects_and_what_the_client_is_at_fault_for_refuse_and_what_passes_holds() {
    let app = Origin::start().await;
    let ssegate = start(&forward(&app, ", cache: 0")).await;
    for refuses in [302, 307, 400, 404, 431] {
        app.say("/auth", refuses, "");
        assert_eq!(status(&ssegate, "opaque").await, 401, "{refuses}");
    }
    for passes in [408, 425, 429, 502] {
        app.say("/auth", passes, "");
        let mut held = EventSource::connect(ssegate.url("/a"), bearing(Options::http1(), "opaque")).await;
        held.until_comments(2).await;
        assert_eq!(held.events().len(), 0, "{passes}");
    }
    let warned = |line: &&serde_json::Value| {
        field(line, "message").is_some_and(|text| text.contains("has no answer as it should be"))
    };
    assert_eq!(ssegate.log().iter().filter(warned).count(), 1, "clients decide how often it happens");
    let detail = &ssegate.status().await["auth"]["providers"][0]["detail"];
    assert!(detail["last_error"]["error"].as_str().unwrap().contains("the answer is"), "{detail}");
}

#[tokio::test]
async fn who_was_refused_gets_in_as_soon_as_he_has_logged_in() {
    let app = Origin::start().await;
    let ssegate = start(&forward(&app, ", cache: 1h")).await;
    for refuses in [401, 403] {
        app.say("/auth", refuses, "");
        assert_eq!(status(&ssegate, &format!("session-{refuses}")).await, refuses);
        app.set("/auth", user("alice"));
        assert_eq!(status(&ssegate, &format!("session-{refuses}")).await, 200);
    }
}

/// Whoever is held has proven nothing, and must not fill the memory. 16 MiB leave 2 for them.
#[tokio::test]
async fn streams_that_wait_take_a_bounded_room_and_the_others_come_back_later() {
    let app = Origin::start().await;
    app.say("/auth", 503, "");
    let forward = forward(&app, ", cache: 0");
    let ssegate = Ssegate::start(format!(
        r#"
limits: {{ memory: 16MiB }}
auth: {{ who: {{ {forward} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [{{ path: /a, from: {{ upstream: lobby, channel: a }}, auth: who, retry: 100ms }}]
"#
    ))
    .await;
    let token = "x".repeat(60_000);
    let (mut held, mut sent_away) = (Vec::new(), 0);
    for _ in 0..50 {
        let mut stream = EventSource::connect(ssegate.url("/a"), bearing(Options::http1(), &token)).await;
        stream.until_comments(1).await;
        held.push(stream);
        sent_away = ssegate.metrics().await.sum("ssegate_streams_shed_total", &[("reason", "held")]) as usize;
    }
    assert!((15..25).contains(&sent_away), "{sent_away} of 50 × 60 KB have no room in 2 MiB");
    let ended = async |stream: &mut EventSource| {
        assert_eq!(stream.until_end().await, End::Complete);
        assert!(stream.retry().is_some(), "it comes back");
    };
    for stream in held.iter_mut().rev().take(sent_away) {
        ended(stream).await;
    }
    // Who brings little still finds room, and all are let in when the endpoint answers.
    let mut small = EventSource::connect(ssegate.url("/a"), bearing(Options::http1(), "opaque")).await;
    app.set("/auth", user("alice"));
    small.next_named("stream.position").await;
    held[0].next_named("stream.position").await;
}

#[tokio::test]
async fn who_is_asked_over_tls_has_to_be_trusted() {
    let ca = TestCa::new();
    let (origin, key) = (Origin::start_tls(&ca).await, SigningKey::new("k1"));
    origin.say("/jwks", 200, jwks(&[&key]));
    origin.set("/auth", user("alice"));
    let (jwks_url, auth_url, ca) = (origin.url("/jwks"), origin.url("/auth"), ca.cert_path());
    let ca = format!("ca: \"{}\"", ca.display());
    let ssegate = start(&format!("jwt: {{ jwks: \"{jwks_url}\", {ca} }}")).await;
    assert_eq!(status(&ssegate, &key.sign(json!({}))).await, 200);
    let ssegate = start(&format!("forward: {{ url: \"{auth_url}\", {ca} }}")).await;
    assert_eq!(status(&ssegate, "opaque").await, 200);
    // An authority that the system does not know.
    let ssegate = start(&format!("forward: {{ url: \"{auth_url}\", on_error: deny }}")).await;
    assert_eq!(status(&ssegate, "opaque").await, 401);
}

#[tokio::test]
async fn asking_in_the_open_is_warned_of() {
    let text = "auth.who.forward.url` is asked over plain HTTP";
    let config = r#"
auth: { who: { forward: { url: "http://auth.invalid/" } } }
upstreams: { lobby: { push: {} } }
routes: [{ path: /a, from: { upstream: lobby, channel: a }, auth: who }]
"#;
    let ssegate = Ssegate::start(config).await;
    ssegate.wait_log("the warning", |line| line.to_string().contains(text)).await;
    let checked = Ssegate::builder().config(config).check().await;
    assert!(checked.stderr.contains(&format!("warning: `{text}")), "{}", checked.stderr);
    assert_eq!(checked.status.code(), Some(0));
}

#[tokio::test]
async fn where_it_is_said_so_an_outage_refuses() {
    let app = Origin::start().await;
    app.say("/auth", 500, "");
    let ssegate = start(&forward(&app, ", on_error: deny")).await;
    assert_eq!(status(&ssegate, "opaque").await, 401);
    app.set("/auth", user("alice"));
    assert_eq!(status(&ssegate, "opaque").await, 200, "an outage is not remembered");
    let post = request(Method::POST, &ssegate.url("/a"), &[], "", &Connect::http1()).await;
    assert_eq!(post.status, 405);
}

//! Several feeds on one connection, each for those whom its own route lets in: nobody reads by this way what he could not read
//! at the feed's own path.

use std::fs;

use http::Method;
use serde_json::{Value, json};

use crate::auth::SECRET;
use crate::multi::{refused, until_placed};
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::origin::Origin;
use crate::support::scratch;
use crate::support::ssegate::Ssegate;
use crate::support::token::{SigningKey, hs256, jwks, now};
use crate::support::wait::eventually;

/// The key of the machine `ci`, and the header that it stands in.
const CI: (&str, &str) = ("x-api-key", "key of ci");

async fn start(more: &str) -> Ssegate {
    Ssegate::start(format!(
        r#"
auth:
  users: {{ jwt: {{ secret: "{SECRET}", leeway: 0s, cookie: session }} }}
  machines:
    api_key: {{ keys: {{ ci: "sha256:e225abbe0ed74ca317fdf5e27bd4994d962e6462756af5eaec627c654c5c439d" }} }}
  tickets: {{ ticket: {{ path: /tickets, of: users, secret: "another secret of 32 bytes or so" }} }}
defaults: {{ retry: 100ms }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }}, auth: [tickets, users], allow: params.room in claims.rooms }}
  - {{ path: /machines, from: {{ upstream: lobby, channel: machines }}, auth: machines }}
  - {{ path: /users, from: {{ upstream: lobby, channel: users }}, auth: users }}
  - {{ path: /open, from: {{ upstream: lobby, channel: open }} }}
  - {{ path: /asked, from: {{ upstream: lobby, channel: asked }}, allow: "query.x == '1' && !('feed' in query)" }}
  - path: /all
    multi: {{ of: ["/rooms/{{room}}", /machines, /users, /open, /asked] }}
    expiring: 1h
{more}
"#
    ))
    .await
}

fn bearing(options: Options, token: &str) -> Options {
    options.header("authorization", &format!("Bearer {token}"))
}

fn alice(rooms: &[&str], expires_in: u64) -> String {
    hs256(SECRET, json!({ "sub": "alice", "rooms": rooms, "exp": now() + expires_in }))
}

fn no(feed: &str, status: u64, kind: &str) -> (String, u64, String) {
    (feed.to_owned(), status, kind.to_owned())
}

async fn ask(ssegate: &Ssegate, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(method, &ssegate.url(path), headers, "", &Connect::http1()).await
}

async fn status(ssegate: &Ssegate, path: &str, options: Options) -> u16 {
    EventSource::request(ssegate.url(path), options).await.status().as_u16()
}

/// Which feeds such a request is given, by their names in events, and which it is refused.
async fn given(
    ssegate: &Ssegate,
    query: &str,
    options: Options,
    feeds: [usize; 2],
) -> (Vec<String>, Vec<(String, u64, String)>) {
    let mut stream = EventSource::connect(ssegate.url(&format!("/all?{query}")), options).await;
    let refused = refused(&mut stream, feeds[1]).await;
    until_placed(&mut stream, feeds[0]).await;
    for channel in ["a", "b", "machines", "users", "open", "asked"] {
        ssegate.publish(channel, "x").await;
    }
    let mut given = Vec::new();
    while given.len() < feeds[0] {
        given.push(stream.next_message().await.event);
        given.retain(|name| name != "stream.expiring");
    }
    given.sort();
    (given, refused)
}

#[tokio::test]
async fn each_feed_is_for_whom_its_route_lets_in() {
    let ssegate = start("").await;
    let anybody = Options::http1();
    let all = "feed=/rooms/a&feed=/rooms/b&feed=/machines&feed=/open&feed=/asked&x=1";
    let told = given(&ssegate, all, anybody.clone(), [2, 3]).await;
    let missing = ["/rooms/a", "/rooms/b", "/machines"].map(|feed| no(feed, 401, "no-credential"));
    assert_eq!(told, (["/asked", "/open"].map(String::from).into(), missing.into()));
    let of_a = bearing(anybody.clone(), &alice(&["a"], 300));
    for options in [of_a.clone(), Options { connect: Connect::http2(), ..of_a.clone() }] {
        let told = given(&ssegate, all, options, [3, 2]).await;
        let expected = [no("/rooms/b", 403, "forbidden"), no("/machines", 401, "no-credential")];
        assert_eq!(told, (["/asked", "/open", "/rooms/a"].map(String::from).into(), expected.into()));
    }
    let (given_all, none) =
        given(&ssegate, "feed=/rooms/a&feed=/machines&feed=/users", of_a.header(CI.0, CI.1), [3, 0]).await;
    assert_eq!((given_all, none.len()), (["/machines", "/rooms/a", "/users"].map(String::from).into(), 0));
    let old =
        bearing(anybody.clone(), &hs256(SECRET, json!({ "sub": "alice", "rooms": ["a"], "exp": 1_000 })));
    let (_, refused) = given(&ssegate, "feed=/rooms/a&feed=/open&feed=/asked", old, [1, 2]).await;
    assert_eq!(refused, [no("/rooms/a", 401, "bad-credential"), no("/asked", 403, "forbidden")]);

    // Each decision counts for the route that made it.
    let metrics = ssegate.metrics().await;
    let decided = |route, outcome| {
        metrics.sum("ssegate_auth_decisions_total", &[("route", route), ("outcome", outcome)])
    };
    assert_eq!((decided("/rooms/{room}", "allowed"), decided("/rooms/{room}", "rule")), (3.0, 2.0));
    assert_eq!((decided("/machines", "allowed"), decided("/all", "allowed")), (1.0, 0.0));
    assert!(!ssegate.log().iter().any(|line| line.to_string().contains("Bearer")));
}

#[tokio::test]
async fn where_nobody_is_let_in_the_answer_says_what_may_help() {
    let ssegate = start("").await;
    let other = bearing(Options::http1(), &alice(&["b"], 300));
    for (query, options, status, challenge) in [
        ("feed=/rooms/a&feed=/machines", Options::http1(), 401, "Bearer"),
        ("feed=/nowhere&feed=/rooms/a", Options::http1(), 401, "Bearer"),
        ("feed=/rooms/a", other.clone(), 403, ""),
        ("feed=/rooms/a&feed=/users", bearing(Options::http1(), "x"), 401, "Bearer error=\"invalid_token\""),
        ("feed=/asked", Options::http1(), 403, ""),
    ] {
        let answer = EventSource::request(ssegate.url(&format!("/all?{query}")), options).await;
        assert_eq!(
            (answer.status().as_u16(), answer.header("www-authenticate")),
            (status, challenge),
            "{query}"
        );
    }
    let head = ask(&ssegate, Method::HEAD, "/all?feed=/rooms/a", &[]).await;
    assert_eq!(head.status, 401, "HEAD says what GET would");
}

/// The URL of these feeds with a new ticket.
async fn ticket(ssegate: &Ssegate, path: &str, feeds: &str) -> String {
    let bearer = format!("Bearer {}", alice(&["a", "b"], 300));
    let answer =
        ask(ssegate, Method::POST, &format!("/tickets?path={path}"), &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    format!("{}&{feeds}", answer.json()["url"].as_str().unwrap())
}

#[tokio::test]
async fn a_ticket_is_used_once_for_all_feeds_and_leaves_a_cookie() {
    let ssegate = start("").await;
    for options in [Options::http1(), Options::http2()] {
        let url = ticket(&ssegate, "/all", "feed=/rooms/a&feed=/rooms/b&feed=/rooms/c&feed=/users").await;
        let mut stream = EventSource::connect(ssegate.url(&url), options.clone()).await;
        let expected = [no("/rooms/c", 403, "forbidden"), no("/users", 401, "no-credential")];
        assert_eq!(
            refused(&mut stream, 2).await,
            expected,
            "the rule is met with what the ticket stands for"
        );
        until_placed(&mut stream, 2).await;
        let cookie = stream.header("set-cookie").to_owned();
        assert!(cookie.starts_with("ssegate-tickets=") && cookie.contains("; Path=/all;"), "{cookie}");
        assert_eq!(stream.headers().get_all("set-cookie").iter().count(), 1);
        assert_eq!(status(&ssegate, &url, options.clone()).await, 401, "it was used");
        let pair = cookie.split(';').next().unwrap();
        let back = options.clone().header("cookie", pair);
        let mut stream = EventSource::connect(ssegate.url(&url), back.clone()).await;
        assert_eq!(refused(&mut stream, 2).await.len(), 2);
        until_placed(&mut stream, 2).await;
        let foreign = back.clone().header("origin", "https://evil.example");
        assert_eq!(status(&ssegate, &url, foreign).await, 403);
        assert_eq!(status(&ssegate, "/rooms/a", back).await, 401, "it is for this path alone");
        // And one for a feed's own path is none for this.
        let of_feed = ticket(&ssegate, "/rooms/a", "feed=/rooms/a").await.replace("/rooms/a?", "/all?");
        assert_eq!(status(&ssegate, &of_feed, options).await, 401);
    }
    let replayed = ssegate.metrics().await.sum("ssegate_auth_decisions_total", &[("outcome", "replayed")]);
    assert_eq!(replayed, 2.0 * 3.0, "each of the rooms was refused for it");
}

async fn renew(ssegate: &Ssegate, link: &str, headers: &[(&str, &str)]) -> Reply {
    ask(ssegate, Method::POST, link, headers).await
}

#[tokio::test]
async fn a_stream_lasts_as_long_as_all_that_let_it_in() {
    let ssegate = start("").await;
    // Time enough to open it and to hear of its end.
    const SECONDS: u64 = 6;
    for options in [Options::http1(), Options::http2()] {
        let end = now() + SECONDS;
        let token = bearing(options.header(CI.0, CI.1), &alice(&["a"], SECONDS));
        let mut stream =
            EventSource::connect(ssegate.url("/all?feed=/machines&feed=/rooms/a&feed=/open"), token).await;
        let notice: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
        let expires = humantime::parse_rfc3339(notice["expires"].as_str().unwrap()).unwrap();
        let expires = expires.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((end..=end + 1).contains(&expires), "{expires} is not {end}");
        until_placed(&mut stream, 3).await;
        assert_eq!(stream.until_end().await, End::Complete);
        assert!(now() >= end, "not before the token does");
        // The one that is left is good for its own feed, and the stream goes on there.
        ssegate.publish("machines", "meanwhile").await;
        stream.reconnect().await;
        let refused = stream.next_named("stream.refused").await;
        assert!(
            refused.data.contains("/rooms/a") && refused.data.contains("bad-credential"),
            "{}",
            refused.data
        );
        assert_eq!(stream.next_message().await.data, "meanwhile");
        stream.close();
    }
    ssegate
        .until_counted("ssegate_streams_ended_total", &[("reason", "expired"), ("route", "/all")], 2.0)
        .await;
}

#[tokio::test]
async fn what_is_good_for_each_feed_renews_a_stream_in_place() {
    let ssegate = start("").await;
    let ci = Options::http1().header(CI.0, CI.1);
    let options = bearing(ci, &alice(&["a", "b"], 10));
    let url = ssegate.url("/all?feed=/machines&feed=/rooms/a&feed=/rooms/b&feed=/open");
    let mut stream = EventSource::connect(url, options).await;
    let notice: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
    let link = notice["renew"].as_str().unwrap();
    let bearer = |token: String| format!("Bearer {token}");
    let (good, fewer) = (bearer(alice(&["a", "b", "c"], 10_800)), bearer(alice(&["a"], 10_800)));
    let bob = bearer(hs256(SECRET, json!({ "sub": "bob", "rooms": ["a", "b"] })));
    for (what, headers, status) in [
        ("none", &[][..], 401),
        ("not for all feeds", &[("authorization", &*good)], 401),
        ("of fewer rooms", &[("authorization", &*fewer), CI], 403),
        ("of another client", &[("authorization", &*bob), CI], 403),
    ] {
        let answer = renew(&ssegate, link, headers).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    assert_eq!(
        renew(&ssegate, &link.replace("/all", "/open"), &[("authorization", &*good), CI]).await.status,
        405
    );
    let answer = renew(&ssegate, link, &[("authorization", &*good), CI]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.json()["expires"], notice["expires"]);
    // It outlives what it began with.
    let end = humantime::parse_rfc3339(notice["expires"].as_str().unwrap()).unwrap();
    eventually(
        "the first end",
        async || {
            if std::time::SystemTime::now() > end { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
    ssegate.publish("b", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
    assert_eq!(ssegate.metrics().await.sum("ssegate_streams_ended_total", &[("reason", "expired")]), 0.0);
}

/// Feeds that users and machines share, and one with room for a single stream of a client.
async fn start_shared() -> Ssegate {
    Ssegate::start(format!(
        r#"
auth:
  users: {{ jwt: {{ secret: "{SECRET}" }} }}
  machines:
    api_key: {{ keys: {{ ci: "sha256:e225abbe0ed74ca317fdf5e27bd4994d962e6462756af5eaec627c654c5c439d" }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /users, from: {{ upstream: lobby, channel: users }}, auth: users }}
  - {{ path: /both, from: {{ upstream: lobby, channel: both }}, auth: [machines, users] }}
  - {{ path: /each, from: {{ upstream: lobby, channel: each }}, auth: machines, limits: {{ streams_per_client: 1 }} }}
  - {{ path: /all, multi: {{ of: [/users, /both, /each] }}, expiring: 1h }}
"#
    ))
    .await
}

/// The link of a new stream of these feeds, opened as alice and as the machine.
async fn open_shared(ssegate: &Ssegate, feeds: &str) -> (EventSource, String) {
    let options = bearing(Options::http1().header(CI.0, CI.1), &alice(&[], 300));
    let mut stream = EventSource::connect(ssegate.url(&format!("/all?{feeds}")), options).await;
    let notice: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
    (stream, notice["renew"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_feed_stays_whose_it_is_among_others_of_the_same_stream() {
    let ssegate = start_shared().await;
    let (mut stream, link) = open_shared(&ssegate, "feed=/users&feed=/both").await;
    let bearer = format!("Bearer {}", alice(&[], 10_800));
    // She is known from one feed, but the other is the machine's.
    let answer = renew(&ssegate, &link, &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let answer = renew(&ssegate, &link, &[("authorization", &bearer), CI]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    ssegate.publish("both", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
}

#[tokio::test]
async fn what_was_not_given_need_not_be_renewed() {
    let ssegate = start_shared().await;
    let (_first, _) = open_shared(&ssegate, "feed=/users&feed=/each").await;
    let (mut stream, link) = open_shared(&ssegate, "feed=/users&feed=/each").await;
    until_placed(&mut stream, 1).await;
    assert!(stream.events().iter().any(|event| event.data.contains("too-many-streams")), "{stream}");
    let bearer = format!("Bearer {}", alice(&[], 10_800));
    let answer = renew(&ssegate, &link, &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn who_is_withdrawn_in_one_feed_comes_back_to_the_others() {
    let dir = scratch::dir("deny");
    let file = dir.path().join("deny");
    fs::write(&file, "# nobody yet\n").unwrap();
    let ssegate = start(&format!("deny: {}", file.display())).await;
    let options = bearing(Options::http2().header(CI.0, CI.1), &alice(&["a"], 300));
    let mut stream = EventSource::connect(ssegate.url("/all?feed=/rooms/a&feed=/machines"), options).await;
    until_placed(&mut stream, 2).await;
    fs::write(dir.path().join("new"), "sub:ci\n").unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    assert_eq!(stream.until_end().await, End::Complete);
    ssegate.publish("a", "meanwhile").await;
    stream.reconnect().await;
    let told = stream.next_named("stream.refused").await.data;
    assert!(told.contains("/machines") && told.contains("forbidden"), "{told}");
    assert_eq!(stream.next_message().await.data, "meanwhile");
    ssegate
        .until_counted("ssegate_streams_ended_total", &[("reason", "revoked"), ("route", "/all")], 1.0)
        .await;
}

#[tokio::test]
async fn an_endpoint_is_asked_about_each_feed_by_its_own_path() {
    let endpoint = Origin::start().await;
    endpoint.say("/auth", 204, "");
    let ssegate = Ssegate::start(format!(
        r#"
auth: {{ app: {{ forward: {{ url: "{}", headers: [authorization] }} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }}, auth: app }}
  - {{ path: /all, multi: {{ of: "/rooms/{{room}}" }} }}
"#,
        endpoint.url("/auth")
    ))
    .await;
    let mut stream =
        EventSource::connect(ssegate.url("/all?feed=/rooms/a&token=1&feed=/rooms/b"), Options::http1()).await;
    until_placed(&mut stream, 2).await;
    let uris = endpoint
        .requests("/auth")
        .into_iter()
        .map(|headers| headers["x-forwarded-uri"].to_str().unwrap().to_owned());
    assert_eq!(uris.collect::<Vec<_>>(), ["/rooms/a?token=1", "/rooms/b?token=1"]);
}

/// What is said of refused feeds, up to where the others begin.
async fn until_told(stream: &mut EventSource) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let event = stream.next().await;
        match &*event.event {
            "stream.refused" => told.push(serde_json::from_str(&event.data).unwrap()),
            "stream.position" => return told,
            other => panic!("{other} before the position"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_told_yet_holds_all_feeds_on_the_open_stream() {
    let (issuer, key) = (Origin::start().await, SigningKey::new("k1"));
    issuer.say("/jwks", 503, "");
    let ssegate = Ssegate::start(format!(
        r#"
auth:
  who: {{ jwt: {{ jwks: "{}", refresh: 1s }} }}
  tickets: {{ ticket: {{ path: /tickets, of: who, secret: "another secret of 32 bytes or so" }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: lobby, channel: "{{room}}" }}, auth: [tickets, who], allow: params.room != 'c', limits: {{ streams: 2 }} }}
  - {{ path: /open, from: {{ upstream: lobby, channel: open }} }}
  - {{ path: /all, multi: {{ of: ["/rooms/{{room}}", /open] }}, keepalive: 1s }}
"#,
        issuer.url("/jwks")
    ))
    .await;
    let url =
        ssegate.url("/all?feed=/rooms/a&feed=/open&feed=/nowhere&feed=/rooms/c&feed=/rooms/b&feed=/rooms/d");
    let mut streams = Vec::new();
    for options in [Options::http1(), Options::http2()] {
        let mut stream = EventSource::connect(url.clone(), bearing(options, &key.sign(json!({})))).await;
        stream.until_comments(3).await;
        assert_eq!(stream.events().len(), 0, "nothing is told, of no feed: {stream}");
        streams.push(stream);
    }
    let bearer = format!("Bearer {}", key.sign(json!({})));
    let lines = [("accept", "application/x-ndjson"), ("authorization", &*bearer)];
    let answer = ask(&ssegate, Method::GET, "/all?feed=/rooms/a", &lines).await;
    assert_eq!(answer.status, 503, "scripts go by the status");
    let stranger = SigningKey::new("k2").sign(json!({}));
    let mut stranger =
        EventSource::connect(ssegate.url("/all?feed=/rooms/a"), bearing(Options::http1(), &stranger)).await;
    issuer.say("/jwks", 200, jwks(&[&key]));
    assert_eq!(stranger.until_end().await, End::Complete);
    let mut there = 0;
    for stream in &mut streams {
        let told = until_told(stream).await;
        let of =
            |feed: &str| told.iter().find(|told| told["feed"] == feed).map(|told| told["status"].clone());
        assert_eq!((of("/nowhere"), of("/rooms/c"), of("/open")), (Some(json!(404)), Some(json!(403)), None));
        // Of two streams with three rooms each, two rooms have a place.
        there += ["/rooms/a", "/rooms/b", "/rooms/d"]
            .into_iter()
            .filter(|feed| of(feed) != Some(json!(503)))
            .count();
    }
    assert_eq!(there, 2);
    for stream in &mut streams {
        stream.close();
    }
    // With the streams their places are gone.
    eventually("places", async || {
        let mut stream =
            EventSource::connect(url.clone(), bearing(Options::http1(), &key.sign(json!({})))).await;
        let refused = until_told(&mut stream).await.len();
        if refused == 3 { Ok(()) } else { Err(refused) }
    })
    .await;
}

#[tokio::test]
async fn what_was_allowed_is_not_asked_about_again_while_others_are_held() {
    let (issuer, endpoint, key) = (Origin::start().await, Origin::start().await, SigningKey::new("k1"));
    issuer.say("/jwks", 503, "");
    endpoint.say("/auth", 204, "");
    let ssegate = Ssegate::start(format!(
        r#"
auth:
  who: {{ jwt: {{ jwks: "{}", refresh: 1s }} }}
  app: {{ forward: {{ url: "{}", headers: [authorization], cache: 0s }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /asked, from: {{ upstream: lobby, channel: asked }}, auth: app }}
  - {{ path: /signed, from: {{ upstream: lobby, channel: signed }}, auth: who }}
  - {{ path: /all, multi: {{ of: [/asked, /signed] }}, keepalive: 1s }}
"#,
        issuer.url("/jwks"),
        endpoint.url("/auth")
    ))
    .await;
    let options = bearing(Options::http1(), &key.sign(json!({})));
    let mut stream = EventSource::connect(ssegate.url("/all?feed=/asked&feed=/signed"), options).await;
    stream.until_comments(4).await;
    issuer.say("/jwks", 200, jwks(&[&key]));
    until_placed(&mut stream, 2).await;
    assert_eq!(endpoint.requests("/auth").len(), 1);
}

#[tokio::test]
async fn pages_of_other_origins_read_what_each_route_lets_them_read() {
    let ssegate = Ssegate::start(format!(
        r#"
auth: {{ users: {{ jwt: {{ secret: "{SECRET}", cookie: session }} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /listed, from: {{ upstream: lobby, channel: a }}, auth: users, cors: {{ origins: ["https://app.example"], credentials: true }} }}
  - {{ path: /bare, from: {{ upstream: lobby, channel: a }}, auth: users, cors: {{ origins: ["https://app.example"] }} }}
  - {{ path: /other, from: {{ upstream: lobby, channel: a }}, auth: users, cors: {{ origins: ["https://other.example"], credentials: true }} }}
  - {{ path: /none, from: {{ upstream: lobby, channel: a }} }}
  - {{ path: /any, from: {{ upstream: lobby, channel: a }}, cors: {{ origins: "*" }} }}
  - {{ path: /all, multi: {{ of: [/listed, /bare, /other, /none, /any] }}, cors: {{ origins: ["https://app.example", "https://third.example"], credentials: true }} }}
"#
    ))
    .await;
    let url = ssegate.url("/all?feed=/listed&feed=/bare&feed=/other&feed=/none&feed=/any");
    let token = alice(&[], 300);
    let cookie = Options::http1().header("cookie", &format!("session={token}"));
    let own = cookie.clone().header("origin", &ssegate.url(""));
    let app = |options: Options| {
        options.header("origin", "https://app.example").header("sec-fetch-site", "cross-site")
    };
    for (who, options, expected) in [
        ("no page", cookie.clone(), &[][..]),
        ("a page of its own origin", own, &[]),
        // What the browser sends by itself does not count where it would not be told the answer for it.
        ("a page with cookies", app(cookie.clone()), &[("/other", 403), ("/none", 403), ("/bare", 403)]),
        ("a page with a token", app(bearing(Options::http1(), &token)), &[("/other", 403), ("/none", 403)]),
        (
            "another page with cookies",
            cookie.header("origin", "https://third.example"),
            &[("/listed", 403), ("/bare", 403), ("/other", 403), ("/none", 403)],
        ),
    ] {
        let mut stream = EventSource::connect(url.clone(), options).await;
        let told: Vec<_> = refused(&mut stream, expected.len())
            .await
            .into_iter()
            .map(|(feed, status, _)| (feed, status))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(feed, status)| ((*feed).to_owned(), *status)).collect();
        assert_eq!(told, expected, "{who}");
        until_placed(&mut stream, 5 - expected.len()).await;
    }
    let evil = [("origin", "https://evil.example")];
    let answer = ask(&ssegate, Method::GET, "/all?feed=/none", &evil).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (403, ""));
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    let answer = ask(&ssegate, Method::OPTIONS, "/all", &preflight).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
}

const ROOM: &str = r#"
upstreams: { lobby: { push: {} } }
defaults: { retry: 100ms }
routes:
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "{room}" }, limits: { feeds: 2 } }
  - { path: /each, from: { upstream: lobby, channel: each }, limits: { streams_per_client: 1 } }
  - { path: /news, from: { upstream: lobby, channel: news } }
  - { path: /all, multi: { of: ["/rooms/{room}", /each, /news] } }
  - { path: /two, multi: { of: /news }, limits: { streams: 2 } }
"#;

#[tokio::test]
async fn each_feed_takes_a_place_of_its_route_for_as_long_as_the_stream_lasts() {
    let ssegate = Ssegate::start(ROOM).await;
    let url = ssegate.url("/all?feed=/each&feed=/news&feed=/rooms/a&feed=/rooms/b&feed=/rooms/c");
    let mut first = EventSource::connect(url.clone(), Options::http2()).await;
    assert_eq!(refused(&mut first, 1).await, [no("/rooms/c", 503, "overloaded")]);
    until_placed(&mut first, 4).await;
    let mut second = EventSource::connect(url.clone(), Options::http1()).await;
    let expected = [no("/each", 429, "too-many-streams"), no("/rooms/c", 503, "overloaded")];
    assert_eq!(refused(&mut second, 2).await, expected, "rooms that are there are for everybody");
    until_placed(&mut second, 3).await;
    // Of what has no room at all, everybody is to come back for it.
    let mut away = EventSource::connect(ssegate.url("/all?feed=/each&feed=/nowhere"), Options::http1()).await;
    assert_eq!((away.until_end().await, away.events().len()), (End::Complete, 0));
    assert!(away.retry().is_some());
    let shed = |reason: &'static str, route: &'static str| [("reason", reason), ("route", route)];
    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_streams_shed_total", &shed("feeds", "/rooms/{room}")), 2.0);
    assert_eq!(metrics.sum("ssegate_streams_shed_total", &shed("client_streams", "/each")), 2.0);
    assert_eq!(metrics.sum("ssegate_streams_shed_total", &shed("client_streams", "/all")), 1.0);
    drop(first);
    eventually("its place", async || {
        let mut alone = EventSource::connect(ssegate.url("/each"), Options::http1()).await;
        alone.try_next().await.ok_or("sent away")
    })
    .await;
}

#[tokio::test]
async fn the_route_has_places_of_its_own() {
    let ssegate = Ssegate::start(ROOM).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = EventSource::connect(ssegate.url("/two?feed=/news"), Options::http1()).await;
        until_placed(&mut stream, 1).await;
        open.push(stream);
    }
    let mut away = EventSource::connect(ssegate.url("/two?feed=/news"), Options::http2()).await;
    assert_eq!((away.until_end().await, away.events().len()), (End::Complete, 0));
    let rejecting =
        Ssegate::start(format!("limits: {{ shed: reject }}\n{}", ROOM.replace("streams: 2", "streams: 1")))
            .await;
    let _stream = EventSource::connect(rejecting.url("/two?feed=/news"), Options::http1()).await;
    let answer = ask(&rejecting, Method::GET, "/two?feed=/news", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after").is_empty()), (503, false));
}

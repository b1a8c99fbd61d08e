//! The configuration is read again while everything is served: what is sound is taken over in one go, what is not changes
//! nothing, and nobody notices but those whom a change is about.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::auth::SECRET;
use crate::support::app::App;
use crate::support::command::Running;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::frames::{self, Raw};
use crate::support::http::{Connect, Link, build, request};
use crate::support::origin::Origin;
use crate::support::ports;
use crate::support::ssegate::Ssegate;
use crate::support::tls::{TestCa, blind_config, default_provider, shown, visit};
use crate::support::token::{SigningKey, hs256, jwks};
use crate::support::wait::{eventually, within};
use crate::tls::pair;
use crate::upgrade::Notified;

const PUSH: &str = "upstreams: { lobby: { push: {} } }\n";

/// A configuration with this in `server`, and these routes of channels of `lobby`.
fn config(server: &str, routes: &[&str]) -> String {
    let tls = pair(TestCa::shared().leaf());
    let routes: String = routes.iter().map(|route| format!("  - {{ {route} }}\n")).collect();
    format!("server: {{ listen: \"127.0.0.1:0\", tls: {{ {tls} }}, {server} }}\n{PUSH}routes:\n{routes}")
}

fn of(channel: &str) -> String {
    format!("from: {{ upstream: lobby, channel: {channel} }}")
}

/// An open stream of this path.
async fn open(ssegate: &Ssegate, path: &str, options: Options) -> EventSource {
    EventSource::ready(ssegate.url(path), options).await
}

/// Waits until so many reloads have come to this.
async fn until_counted(ssegate: &Ssegate, result: &str, count: f64) {
    eventually(&format!("{count} × {result}"), async || {
        let metrics = ssegate.metrics().await;
        match metrics.sum("ssegate_config_reloads_total", &[("result", result)]) {
            seen if seen >= count => Ok(()),
            seen => Err(format!("{seen}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_everywhere() {
    let good = config("", &[&format!("path: /e, {}", of("e"))]);
    let mut ssegate = Ssegate::start(&*good).await;
    let mut stream = open(&ssegate, "/e", Options::http2()).await;
    let bad = good.replace("channel: e", "chanel: e").replace("path: /e", "path: e");
    ssegate.rewrite(&bad);
    ssegate.signal(Signal::HUP);
    until_counted(&ssegate, "failure", 1.0).await;
    let told = |line: &Value| line["problem"].to_string().contains("unknown key `chanel`");
    ssegate.wait_log("the problem", told).await;
    let before = ssegate.status().await["config"].clone();
    assert_eq!((&before["generation"], &before["last_reload"]["succeeded"]), (&json!(1), &json!(false)));
    assert_eq!(before["last_reload"]["problems_in_all"], 3, "{before}");
    assert!(before["last_error"]["error"].as_str().unwrap().ends_with("(and 2 more)"), "{before}");
    let answer = ssegate.post_reload().await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (422, "application/problem+json"));
    let problems = answer.json()["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 3, "{problems}");
    for part in ["config.yaml:4:", "unknown key `chanel`", "must start with `/`"] {
        assert!(problems.to_string().contains(part), "{part}: {problems}");
    }

    // An address that somebody else has is found out before anything is changed.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listens = format!("listen: [\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap());
    let busy = good.replace("listen: \"127.0.0.1:0\"", &listens).replace("path: /e", "path: /other");
    ssegate.rewrite(&busy);
    let answer = ssegate.post_reload().await;
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("another process listens there"), "{}", answer.text());

    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_config_last_reload_success", &[]), 0.0);
    assert_eq!(metrics.sum("ssegate_config_generation", &[]), 1.0);
    assert_eq!(metrics.sum("ssegate_config_reloads_total", &[("result", "failure")]), 3.0);
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
    open(&ssegate, "/e", Options::http1()).await;
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200);

    assert_eq!(ssegate.reload(&good).await, Vec::<String>::new(), "it says what is served already");
    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_config_last_reload_success", &[]), 1.0);
    assert_eq!(metrics.sum("ssegate_config_generation", &[]), 2.0);
    assert_eq!(ssegate.status().await["config"]["last_reload"]["succeeded"], true);
}

#[tokio::test]
async fn policies_are_those_of_the_requests_that_follow() {
    let server = |hsts: &str, log: &str| {
        let route = format!("path: /e, {}, retry: 1s, cors: none", of("e"));
        format!(
            "auth: {{ users: {{ jwt: {{ secret: \"{SECRET}\" }} }} }}\nlog: {{ format: json, access: {log} }}\n{}",
            config(hsts, &[&route])
        )
    };
    let before = server("", "false");
    let ssegate = Ssegate::start(&*before).await;
    let mut old = open(&ssegate, "/e", Options::http1()).await;
    assert!(
        old.retry().unwrap() < Duration::from_secs(2) && old.header("strict-transport-security").is_empty()
    );

    let after = server("hsts: { max_age: 1d }", "true")
        .replace("retry: 1s", "retry: 100s, limits: { streams: 2 }, compress: [gzip]")
        .replace("cors: none", "auth: users, cors: { origins: [\"https://app.example\"] }");
    let changes = ssegate.reload(&after).await;
    for change in [
        "server.hsts: changed, for what comes from now on",
        "log.access: changed, for what comes from now on",
        "route /e: cors, compress, auth, retry, limits changed, for new requests",
    ] {
        assert!(changes.iter().any(|told| told == change), "{change}: {changes:?}");
    }
    assert_eq!(changes.len(), 3, "{changes:?}");
    let anonymous = EventSource::request(ssegate.url("/e"), Options::http1()).await;
    assert_eq!(anonymous.status(), 401);
    let bearer = format!("Bearer {}", hs256(SECRET, json!({ "sub": "alice" })));
    let options = Options::http2()
        .header("authorization", &bearer)
        .header("origin", "https://app.example")
        .header("accept-encoding", "gzip");
    let mut new = open(&ssegate, "/e", options.clone()).await;
    assert_eq!(new.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(
        (new.header("content-encoding"), new.header("strict-transport-security")),
        ("gzip", "max-age=86400")
    );
    assert!(new.retry().unwrap() >= Duration::from_secs(75));
    // The old one counts among those that there may be.
    let third = EventSource::request(ssegate.url("/e"), options).await;
    assert_eq!(third.header("content-encoding"), "", "it is sent away");
    ssegate.publish("e", "both").await;
    assert_eq!(
        (old.next_message().await.data, new.next_message().await.data),
        ("both".into(), "both".into())
    );
    ssegate.wait_log("the line of a request", |line| line["target"] == "ssegate::access").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_or_reads_something_else_ends_its_own_streams_spread_over_the_window() {
    let route = |path: &str, channel: &str| format!("path: \"{path}\", {}, retry: 1s", of(channel));
    let before = [
        route("/gone", "gone"),
        route("/moved", "old"),
        route("/stays", "stays"),
        route("/r/{x}", "\"{x}\""),
    ];
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let ssegate = Ssegate::start(config("drain: 5s", &before)).await;
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    for n in 0..20 {
        let options = || if n % 2 == 0 { Options::http1() } else { Options::http2() };
        ending.push(open(&ssegate, if n % 4 < 2 { "/gone" } else { "/moved" }, options()).await);
        staying.push(open(&ssegate, if n % 4 < 2 { "/stays" } else { "/r/a" }, options()).await);
    }
    let [_, _, stays, rooms] = before[..] else { unreachable!() };
    let moved = route("/moved", "new");
    let began = Instant::now();
    let changes = ssegate.reload(&config("drain: 5s", &[&moved, stays, rooms])).await;
    assert_eq!(
        changes,
        ["route /gone: removed; its streams end", "route /moved: reads something else; its streams end"]
    );
    // Requests meet the new routes at once.
    assert_eq!(EventSource::request(ssegate.url("/gone"), Options::http1()).await.status(), 404);
    let mut new = open(&ssegate, "/moved", Options::http1()).await;
    // Whoever is still there is given what comes until its turn.
    let (mut ends, mut retries) = (Vec::new(), std::collections::HashSet::new());
    for stream in &mut ending {
        assert_eq!(stream.until_end().await, End::Complete, "{stream}");
        ends.push(began.elapsed());
        retries.insert(stream.retry().unwrap());
    }
    assert!(*ends.iter().max().unwrap() > Duration::from_secs(2), "spread over 5 s: {ends:?}");
    assert!(retries.len() > 5, "each its own time to come back: {retries:?}");
    ssegate.publish("old", "nobody").await;
    ssegate.publish("new", "new").await;
    assert_eq!(new.next_message().await.data, "new");
    for channel in ["stays", "a"] {
        ssegate.publish(channel, "still here").await;
    }
    for stream in &mut staying {
        assert_eq!(stream.next_message().await.data, "still here");
    }
    let moved = [("route", "/moved"), ("reason", "reload")];
    ssegate.until_counted("ssegate_streams_ended_total", &moved, 10.0).await;
    eventually("what is gone to be shown no more", async || {
        let metrics = ssegate.metrics().await;
        if metrics.text.contains("route=\"/gone\"") { Err("it is shown") } else { Ok(()) }
    })
    .await;
    let metrics = ssegate.metrics().await;
    assert_eq!(metrics.sum("ssegate_subscribers", &[("route", "/moved")]), 1.0);
    assert_eq!(metrics.sum("ssegate_subscribers", &[]), 21.0);
}

#[tokio::test]
async fn a_path_that_is_renamed_keeps_its_feed() {
    let route = |path: &str| {
        let room = &path[path.find('{').unwrap()..];
        config("drain: 0s", &[&format!("path: \"{path}\", {}", of(&format!("\"room:{room}\"")))])
    };
    let ssegate = Ssegate::start(route("/rooms/{room}")).await;
    let mut old = open(&ssegate, "/rooms/a", Options::http1()).await;
    ssegate.publish("room:a", "1").await;
    let first = old.next_message().await;
    ssegate.publish("room:a", "2").await;
    assert_eq!(old.next_message().await.data, "2");
    let changes = ssegate.reload(&route("/r/{id}")).await;
    assert_eq!(changes, ["route /r/{id}: was /rooms/{room}; its streams stay"]);
    assert_eq!(EventSource::request(ssegate.url("/rooms/a"), Options::http1()).await.status(), 404);
    let mut new = EventSource::connect(ssegate.url("/r/a"), Options::http2().resume(&first.id)).await;
    ssegate.publish("room:a", "3").await;
    assert_eq!(new.next_data(2).await, ["2", "3"], "an id of the old path says where to go on");
    assert_eq!(old.next_message().await.data, "3");
    assert_eq!(ssegate.status().await["totals"]["feeds"], 1);
    let metrics = ssegate.metrics().await;
    assert_eq!(
        metrics.sum("ssegate_subscribers", &[("route", "/rooms/{room}")]),
        1.0,
        "until the last has gone"
    );
    old.close();
    eventually("the old name to go", async || {
        match ssegate.metrics().await.text.contains("route=\"/rooms/{room}\"") {
            false => Ok(()),
            true => Err("it is shown"),
        }
    })
    .await;
    // A reload that takes it away ends those who have come by either name.
    ssegate.reload(&config("drain: 0s", &[&format!("path: /x, {}", of("x"))])).await;
    assert_eq!(new.until_end().await, End::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go_and_a_successor_has_those_that_are_there() {
    let [first, second, third] = [(); 3].map(|()| ports::free());
    let listening = |ports: &[u16]| {
        let listen: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        config("drain: 1s", &[&format!("path: /e, {}", of("e"))])
            .replace("listen: \"127.0.0.1:0\"", &format!("listen: [{}]", listen.join(", ")))
    };
    let builder = Ssegate::builder().config(listening(&[first, second])).servers(2);
    let mut ssegate = builder.start().await;
    let url = |port: u16| format!("https://localhost:{port}/e");
    let mut streams = Vec::new();
    for options in [Options::http1(), Options::http2()] {
        let mut stream = EventSource::connect(url(second), options).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    let mut idle = Raw::open(([127, 0, 0, 1], second).into(), &[]).await;
    idle.send(&frames::get("/nowhere", 1)).await.unwrap();
    within("an answer", idle.reader.next_of(frames::HEADERS, 1)).await.expect("404");
    let changes = ssegate.reload(&listening(&[first, third])).await;
    assert_eq!(
        changes,
        [
            format!("listen 127.0.0.1:{second}: removed; what is open there goes on"),
            format!("listen 127.0.0.1:{third}: added")
        ]
    );
    within("the goodbye", idle.reader.next_of(frames::GOAWAY, 0)).await.expect("it is sent elsewhere");
    eventually("the port to be closed", async || match TcpStream::connect(("127.0.0.1", second)).await {
        Err(_) => Ok(()),
        Ok(_) => Err("it accepts"),
    })
    .await;
    for port in [first, third] {
        EventSource::connect(url(port), Options::http1()).await;
    }
    ssegate.publish("e", "still here").await;
    for stream in &mut streams {
        assert_eq!(stream.next_message().await.data, "still here");
    }
    // One that was given up can be had again, by this process and by others.
    ssegate.reload(&listening(&[first, third, second])).await;
    EventSource::connect(url(second), Options::http2()).await;
    ssegate.reload(&listening(&[third])).await;
    drop(TcpListener::bind(("127.0.0.1", first)).expect("nobody listens there"));

    let successor = crate::upgrade::upgrade(&mut ssegate).await;
    assert!(ssegate.wait_exit().await.success());
    EventSource::connect(url(third), Options::http1()).await;
    for port in [first, second] {
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "{port}");
    }
    drop(successor);
}

/// `0.0.0.0` and an address of the same port cannot be had at once, and a reload never gives up what it has on a venture.
#[tokio::test]
async fn an_address_in_the_way_of_another_is_named() {
    let port = ports::free();
    let of = |host: &str| {
        config("", &[&format!("path: /e, {}", of("e"))]).replace("127.0.0.1:0", &format!("{host}:{port}"))
    };
    let ssegate = Ssegate::start(of("127.0.0.1")).await;
    ssegate.rewrite(&of("0.0.0.0"));
    let answer = ssegate.post_reload().await;
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("cannot be had while 127.0.0.1:"), "{}", answer.text());
    open(&ssegate, "/e", Options::http1()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_ask_at_once_are_answered_one_after_the_other() {
    let routes = |n: usize| config("", &[&format!("path: /e, {}, keepalive: {}s", of("e"), n + 1)]);
    let mut ssegate = Ssegate::start(routes(0)).await;
    let mut stream = open(&ssegate, "/e", Options::http1()).await;
    let mut done = 0.0;
    for n in 1..=5 {
        ssegate.rewrite(&routes(n));
        for _ in 0..3 {
            ssegate.signal(Signal::HUP);
        }
        let answers = futures_util::future::join_all((0..4).map(|_| ssegate.post_reload())).await;
        for answer in answers {
            match answer.status.as_u16() {
                200 => done += 1.0,
                409 => assert!(answer.text().contains("Another reload is under way"), "{}", answer.text()),
                status => panic!("{status} {}", answer.text()),
            }
        }
    }
    assert!(done >= 5.0, "{done}");
    // Each told another generation, and signals made some more of them.
    let metrics = ssegate.metrics().await;
    let generation = metrics.sum("ssegate_config_generation", &[]);
    let reloads = metrics.sum("ssegate_config_reloads_total", &[("result", "success")]);
    assert!(generation - 1.0 >= done && reloads >= done, "{generation} {reloads} {done}");
    assert_eq!(metrics.sum("ssegate_config_reloads_total", &[("result", "failure")]), 0.0);
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
}

/// What `Type=notify-reload` waits for.
#[tokio::test]
async fn systemd_is_told_that_a_reload_begins_and_that_it_is_over() {
    let systemd = Notified::bind();
    let next = async || systemd.next().await.trim().to_owned();
    let good = config("", &[&format!("path: /e, {}", of("e"))]);
    let mut ssegate = systemd.told(Ssegate::builder().config(&*good)).start().await;
    assert_eq!(next().await, "READY=1");
    for (yaml, status) in
        [(good.clone(), ""), (good.replace("channel", "chanel"), "reload refused: "), (good, "")]
    {
        ssegate.rewrite(&yaml);
        let before = clock();
        ssegate.signal(Signal::HUP);
        let begins = next().await;
        let (first, second) = begins.split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        let at: i128 = second.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=clock()).contains(&at), "{before} {at}");
        let over = next().await;
        let (first, second) = over.split_once('\n').unwrap();
        assert_eq!(first, "READY=1");
        let told = second.strip_prefix("STATUS=").unwrap();
        assert!(told.starts_with(status) && told.is_empty() == status.is_empty(), "{over}");
    }
}

/// CLOCK_MONOTONIC in microseconds.
fn clock() -> i128 {
    match sd_notify::NotifyState::monotonic_usec_now().expect("a clock") {
        sd_notify::NotifyState::MonotonicUsec(now) => now,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_decides_remembers_what_it_knows() {
    let (issuer, key) = (Origin::start().await, SigningKey::new("k1"));
    issuer.say("/jwks", 200, jwks(&[&key]));
    let yaml = |ttl: &str, leeway: &str| {
        let route = format!("path: /e, {}, auth: [users, tickets]", of("e"));
        format!(
            "auth:\n  users: {{ jwt: {{ jwks: \"{}\", leeway: {leeway} }} }}\n  \
             tickets: {{ ticket: {{ path: /tickets, of: users, ttl: {ttl} }} }}\n{}",
            issuer.url("/jwks"),
            config("", &[&route])
        )
    };
    let ssegate = Ssegate::start(yaml("60s", "30s")).await;
    let bearer = format!("Bearer {}", key.sign(json!({ "sub": "alice" })));
    let ticket = async || {
        let url = ssegate.url("/tickets?path=/e");
        let answer = request(Method::POST, &url, &[("authorization", &bearer)], "", &Connect::http1()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["url"].as_str().unwrap().to_owned()
    };
    let (used, new, newer) = (ticket().await, ticket().await, ticket().await);
    let status =
        async |url: &str| EventSource::request(ssegate.url(url), Options::http1()).await.status().as_u16();
    let mut stream = open(&ssegate, &used, Options::http1()).await;
    let asked = issuer.requests("/jwks").len();
    // Nothing of it has changed; then something that its memory does not depend on; then there are no tickets for a while.
    ssegate.reload(&yaml("60s", "30s").replace("path: /e", "keepalive: 1s, path: /e")).await;
    assert_eq!((status(&used).await, status(&new).await), (401, 200));
    ssegate.reload(&yaml("50s", "20s")).await;
    assert_eq!((status(&used).await, status(&new).await, status(&newer).await), (401, 401, 200));
    assert_eq!(issuer.requests("/jwks").len(), asked, "the issuer is not asked anew for what is known");
    let without = yaml("50s", "20s").replace("auth: [users, tickets]", "auth: users");
    let without: String =
        without.lines().filter(|line| !line.contains("tickets:")).map(|line| format!("{line}\n")).collect();
    ssegate.reload(&without).await;
    ssegate.reload(&yaml("50s", "20s")).await;
    assert_eq!(status(&used).await, 401, "and what was used is used when they come back");
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
}

#[tokio::test]
async fn a_key_that_is_taken_out_of_the_file_lets_nobody_in_any_more() {
    let yaml = |secret: &str| {
        let route = format!("path: /e, {}, auth: users", of("e"));
        format!("auth: {{ users: {{ jwt: {{ secret: \"{secret}\" }} }} }}\n{}", config("", &[&route]))
    };
    let ssegate = Ssegate::start(yaml(SECRET)).await;
    let bearer = format!("Bearer {}", hs256(SECRET, json!({ "sub": "alice" })));
    let mut stream = open(&ssegate, "/e", Options::http1().header("authorization", &bearer)).await;
    ssegate.reload(&yaml(&SECRET.chars().rev().collect::<String>())).await;
    assert_eq!(stream.until_end().await, End::Complete);
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", "revoked")], 1.0).await;
}

#[tokio::test]
async fn providers_and_keys_of_programs_that_are_taken_out_end_what_they_let_in() {
    let (one, two) = (
        "one: \"sha256:9dc105484f8ebd73cd33790db37beefd97637507db11ed8cc48cbce303d700e0\"",
        "two: \"sha256:bff3d76da01ca77ade3c9652660ab65dd138bde42b1364a35baf49282aa842d7\"",
    );
    let yaml = |users: &str, keys: &str| {
        let route = format!(
            "path: /e, {}, auth: [{}programs]",
            of("e"),
            if users.is_empty() { "" } else { "users, " }
        );
        format!(
            "auth:\n{users}  programs: {{ api_key: {{ keys: {{ {keys} }} }} }}\n{}",
            config("", &[&route])
        )
    };
    let users = format!("  users: {{ jwt: {{ secret: \"{SECRET}\" }} }}\n");
    let ssegate = Ssegate::start(yaml(&users, &format!("{one}, {two}"))).await;
    let bearer = format!("Bearer {}", hs256(SECRET, json!({ "sub": "alice" })));
    let mut alice = open(&ssegate, "/e", Options::http1().header("authorization", &bearer)).await;
    let with_key = |key: &str| Options::http2().header("x-api-key", key);
    let mut first = open(&ssegate, "/e", with_key("the key of one")).await;
    let mut second = open(&ssegate, "/e", with_key("the key of two")).await;
    ssegate.reload(&yaml(&users, two)).await;
    assert_eq!(first.until_end().await, End::Complete);
    ssegate.reload(&yaml("", two)).await;
    assert_eq!(alice.until_end().await, End::Complete);
    ssegate.publish("e", "still here").await;
    assert_eq!(second.next_message().await.data, "still here");
    ssegate.until_counted("ssegate_streams_ended_total", &[("reason", "revoked")], 2.0).await;
}

#[tokio::test]
async fn another_deny_list_ends_the_streams_of_those_whom_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let deny = dir.path().join("deny");
    std::fs::write(&deny, "sub:alice\n").unwrap();
    let yaml = |deny: &str| {
        let route = format!("path: /e, {}, auth: users", of("e"));
        format!("auth: {{ users: {{ jwt: {{ secret: \"{SECRET}\" }} }} }}\n{deny}{}", config("", &[&route]))
    };
    let ssegate = Ssegate::start(yaml("")).await;
    let as_user = |user: &str| {
        Options::http2().header("authorization", &format!("Bearer {}", hs256(SECRET, json!({ "sub": user }))))
    };
    let (mut alice, mut bob) =
        (open(&ssegate, "/e", as_user("alice")).await, open(&ssegate, "/e", as_user("bob")).await);
    let changes = ssegate.reload(&yaml(&format!("deny: {}\n", deny.display()))).await;
    assert_eq!(changes, ["deny: changed; streams of those whom it names end"]);
    assert_eq!(alice.until_end().await, End::Complete);
    assert_eq!(EventSource::request(ssegate.url("/e"), as_user("alice")).await.status(), 403);
    ssegate.publish("e", "still here").await;
    assert_eq!(bob.next_message().await.data, "still here");
}

#[tokio::test]
async fn an_application_keeps_its_connections_unless_it_is_asked_in_another_way() {
    let (first, second) = (App::start().await, App::start().await);
    let yaml = |app: &App, keepalive: u32| {
        let route = format!("path: /e, {}, keepalive: {keepalive}s", of("e"));
        let proxied = format!("path: \"/{{*rest}}\", proxy: \"http://{}\"", app.addr);
        config("", &[&route, &proxied])
    };
    let ssegate = Ssegate::start(yaml(&first, 5)).await;
    // An answer that never ends.
    let link = Link::open(&ssegate.url("/"), &Connect::http2()).await.unwrap();
    let endless = link.send(build(Method::GET, &ssegate.url("/endless"), &[], "")).await.unwrap();
    let mut body = endless.into_body();
    let piece = async |body: &mut hyper::body::Incoming| {
        within("a piece", http_body_util::BodyExt::frame(body))
            .await
            .expect("it goes on")
            .expect("it is whole")
    };
    piece(&mut body).await;
    let connections = first.connections();
    ssegate.reload(&yaml(&first, 6)).await;
    let ask = async || request(Method::GET, &ssegate.url("/x"), &[], "", &Connect::http1()).await;
    assert_eq!(ask().await.status, 200);
    assert!(first.connections() <= connections + 1 && second.connections() == 0);
    assert_eq!(ssegate.reload(&yaml(&second, 6)).await, ["route /{*rest}: changed, for new requests"]);
    assert_eq!(ask().await.status, 200);
    assert_eq!(second.connections(), 1, "who asks now asks the other one");
    for _ in 0..3 {
        piece(&mut body).await;
    }
    let metrics = ssegate.metrics().await;
    let answered = [("route", "/{*rest}"), ("status", "200")];
    assert_eq!(metrics.sum("ssegate_proxied_requests_total", &answered), 3.0, "it counts on");
}

#[tokio::test]
async fn another_certificate_is_shown_and_open_streams_stay() {
    let ca = TestCa::new();
    let (first, second) = (ca.leaf(), ca.issue_again(1));
    let yaml = |tls: String| {
        let route = format!("path: /e, {}", of("e"));
        format!("server: {{ listen: \"127.0.0.1:0\", tls: {tls} }}\n{PUSH}routes: [{{ {route} }}]\n")
    };
    let ssegate = Ssegate::start(yaml(format!("{{ {} }}", pair(first)))).await;
    let trusting = Connect { tls: Some(ca.client_config(&[])), ..Connect::http2() };
    let mut stream = open(&ssegate, "/e", Options::default().connect(trusting)).await;
    let changes = ssegate.reload(&yaml(format!("{{ {} }}", pair(&second)))).await;
    assert_eq!(changes, ["server.tls: changed, for handshakes from now on"]);
    let any = blind_config(&["http/1.1"], rustls::ALL_VERSIONS, default_provider());
    let shown = shown(&visit(ssegate.addr(), "localhost", &any).await.unwrap());
    assert_eq!(shown, second.der());
    let metrics = ssegate.metrics().await.text;
    let named = |path: &std::path::Path| metrics.contains(&format!("name=\"{}\"", path.display()));
    assert!(named(&second.cert) && !named(&first.cert), "the old one raises no alarm when it expires");
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
    // And the other way: TLS can be given up.
    ssegate.reload(&yaml("none".into())).await;
    let url = format!("http://localhost:{}/e", ssegate.addr().port());
    EventSource::connect(url, Options::http1()).await;
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
}

#[tokio::test]
async fn what_takes_a_restart_is_told_and_left_as_it_is() {
    let before = format!("limits: {{ memory: 64MiB }}\n{}", config("", &[&format!("path: /e, {}", of("e"))]));
    let ssegate = Ssegate::start(&*before).await;
    let after = before.replace("64MiB", "128MiB, max_event: 2KiB").replace("path: /e", "path: /f");
    let changes = ssegate.reload(&after).await;
    assert_eq!(
        changes,
        [
            "limits.memory: changed, which takes a restart",
            "limits.max_event: changed, which takes a restart",
            "route /f: was /e; its streams stay"
        ]
    );
    let status = ssegate.status().await;
    assert_eq!(status["config"]["waiting_for_restart"], json!(["limits.memory", "limits.max_event"]));
    assert_eq!(status["memory"]["limit"], 64 << 20);
    let mut stream = open(&ssegate, "/f", Options::http1()).await;
    ssegate.publish("e", "x".repeat(4096)).await;
    assert_eq!(stream.next_message().await.data.len(), 4096, "as large as it could be");
    let warned =
        |line: &Value| line["level"] == "WARN" && line["change"].to_string().contains("limits.memory");
    ssegate.wait_log("a warning", warned).await;
    // It waits for as long as the file says so.
    ssegate.reload(&after).await;
    assert_eq!(
        ssegate.status().await["config"]["waiting_for_restart"],
        json!(["limits.memory", "limits.max_event"])
    );
    ssegate.reload(&before.replace("path: /e", "path: /f")).await;
    assert_eq!(ssegate.status().await["config"]["waiting_for_restart"], json!([]));
}

#[tokio::test]
async fn the_command_says_what_came_of_it() {
    let yaml = |admin: u16, keepalive: &str| {
        let route = format!("path: /e, {}, keepalive: {keepalive}", of("e"));
        format!("admin: {{ listen: \"127.0.0.1:{admin}\" }}\n{}", config("", &[&route]))
    };
    let port = ports::free();
    let ssegate = Ssegate::start(yaml(port, "5s")).await;
    let (file, pid) = (ssegate.config_path().to_str().unwrap().to_owned(), ssegate.id().to_string());
    let run = async |args: &[&str]| Running::start(args).ended().await;
    ssegate.rewrite(&yaml(port, "6s"));
    let done = run(&["reload", "--config", &file]).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.stdout, ["route /e: keepalive changed, for new requests", "reloaded, generation 2"]);
    // A bad file: the caller is told, and so is the process.
    ssegate.rewrite(&yaml(port, "never"));
    let refused = run(&["reload", "--config", &file, "--pid", &pid]).await;
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(refused.stderr.join("\n").contains("1 problem in"), "{refused:?}");
    until_counted(&ssegate, "failure", 1.0).await;
    let refused = run(&["reload", "--admin", &format!("http://127.0.0.1:{port}")]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.join("\n").contains("config.yaml:"), "{refused:?}");
    // The file names another admin listener, which takes a restart: a signal does.
    ssegate.rewrite(&yaml(ports::free(), "7s"));
    let asked = run(&["reload", "--config", &file, "--pid", &pid]).await;
    assert!(asked.status.success() && asked.stdout[0].starts_with("asked by SIGHUP"), "{asked:?}");
    until_counted(&ssegate, "success", 2.0).await;
    assert_eq!(run(&["reload", "--config", &file]).await.status.code(), Some(1));

    let before = ssegate.config_path().with_extension("before");
    std::fs::copy(&file, &before).unwrap();
    ssegate.rewrite(&yaml(port, "8s"));
    let against = run(&["check", "--config", &file, "--against", before.to_str().unwrap()]).await;
    assert_eq!(
        against.stdout,
        ["admin.listen: changed, which takes a restart", "route /e: keepalive changed, for new requests"]
    );
    let same = run(&["check", "--config", &file, "--against", &file]).await;
    assert_eq!(same.stdout, ["nothing changes"]);
}

#[tokio::test]
async fn a_page_cannot_reload_and_a_token_is_asked_for() {
    let yaml = format!(
        "admin: {{ listen: \"127.0.0.1:0\", token: 0123456789abcdef }}\n{}",
        config("", &[&format!("path: /e, {}", of("e"))])
    );
    let ssegate = Ssegate::start(yaml).await;
    let url = ssegate.admin_url("/reload");
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        request(method, &url, headers, "", &Connect::http1()).await.status.as_u16()
    };
    let token = ("authorization", "Bearer 0123456789abcdef");
    assert_eq!(ask(Method::POST, &[]).await, 401);
    assert_eq!(ask(Method::GET, &[token]).await, 405);
    assert_eq!(ask(Method::POST, &[token, ("origin", "https://evil.example")]).await, 403);
    assert_eq!(ask(Method::POST, &[token]).await, 200);
}

/// One who asks while another process starts to take over is told so, and a signal is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_and_an_upgrade_do_not_cross() {
    // An upstream that does not answer keeps the successor from being ready for a while.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let yaml = format!(
        "{}upstreams:\n  lobby: {{ push: {{}} }}\n  deaf: {{ redis: {{ url: \"redis://{}\", timeout: 1m }} }}\n\
         routes:\n  - {{ path: /e, {} }}\n  - {{ path: /d, from: {{ upstream: deaf, channel: d }} }}\n",
        config("drain: 0s", &[]).split("upstreams").next().unwrap(),
        deaf.local_addr().unwrap(),
        of("e")
    );
    let mut ssegate = Ssegate::start(&*yaml).await;
    eventually("readiness", async || match ssegate.admin_get("/readyz").await.status.as_u16() {
        200 => Ok(()),
        status => Err(format!("{status}")),
    })
    .await;
    let before = ssegate.log().len();
    ssegate.signal(Signal::USR2);
    ssegate.wait_log("the successor", |line| line["message"] == "a successor starts").await;
    let answer = ssegate.post_reload().await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("Another process is starting"), "{}", answer.text());
    ssegate.signal(Signal::HUP);
    let successor = crate::upgrade::served(&ssegate, before).await;
    assert!(ssegate.wait_exit().await.success());
    // The one that took over reads the file again.
    ssegate.wait_log("the reload", |line| line["message"] == "configuration reloaded").await;
    drop(successor);
}

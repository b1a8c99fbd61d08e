//! Coming back with a cookie, the ticket being used: after having been sent away, after a restart while the issuer is away,
//! and after the credential that the stream began with has ended. A native `EventSource` that is refused then stays away.

use http::Method;
use serde_json::{Value, json};

use crate::auth::SECRET;
use crate::support::browser::Browser;
use crate::support::collector::Collector;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Reply, request};
use crate::support::origin::{Answer, Origin};
use crate::support::proxy::Proxy;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::token::{SigningKey, hs256, jwks, now};
use crate::support::wait::eventually;

/// Routes that take tickets of who `users` are.
async fn start(users: &str, more: &str) -> Ssegate {
    Ssegate::start(format!(
        r#"
auth:
  users: {{ {users} }}
  tickets: {{ ticket: {{ path: /tickets, of: users, secret: "another secret of 32 bytes or so" }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /r/{{room}}
    from: {{ upstream: lobby, channel: "{{room}}" }}
    auth: [tickets, users]
    retry: 100ms
    keepalive: 1s
    {more}
"#
    ))
    .await
}

fn with_secret() -> String {
    format!("jwt: {{ secret: \"{SECRET}\", leeway: 0s }}")
}

async fn post(ssegate: &Ssegate, path: &str, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    request(Method::POST, &ssegate.url(path), &[("authorization", &bearer)], "", &Connect::http1()).await
}

/// The URL with a new ticket.
async fn ticket(ssegate: &Ssegate, path: &str, token: &str) -> String {
    let answer = post(ssegate, &format!("/tickets?path={path}"), token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["url"].as_str().unwrap().to_owned()
}

/// What a browser sends of the cookie that an answer sets.
fn cookie(set: &str) -> String {
    assert!(set.starts_with("ssegate-tickets="), "a cookie, and not {set:?}");
    set.split(';').next().unwrap().to_owned()
}

async fn listens(ssegate: &Ssegate, url: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(url), options).await;
    stream.next_named("stream.position").await;
    stream
}

/// Until the one before is seen to have left it is sent away, which is no error either.
async fn let_in(ssegate: &Ssegate, url: &str, options: &Options) -> EventSource {
    eventually("room", async || {
        let mut stream = EventSource::connect(ssegate.url(url), options.clone()).await;
        stream.try_next().await.map(|_| stream).ok_or("sent away")
    })
    .await
}

async fn status(ssegate: &Ssegate, url: &str, options: Options) -> u16 {
    EventSource::request(ssegate.url(url), options).await.status().as_u16()
}

#[tokio::test]
async fn who_is_sent_away_for_want_of_room_comes_back_with_a_cookie() {
    let token = hs256(SECRET, json!({ "sub": "alice" }));
    for (limits, there, then) in [("streams: 1", "/r/a", "/r/a"), ("feeds: 1", "/r/a", "/r/b")] {
        let ssegate = start(&with_secret(), &format!("limits: {{ {limits} }}\n    idle_timeout: 0")).await;
        for options in [Options::http1(), Options::http2()] {
            let bearing = options.clone().header("authorization", &format!("Bearer {token}"));
            let first = let_in(&ssegate, there, &bearing).await;
            let url = ticket(&ssegate, then, &token).await;
            let mut sent_away = EventSource::connect(ssegate.url(&url), options.clone()).await;
            assert_eq!(sent_away.until_end().await, End::Complete);
            assert!(sent_away.events().is_empty() && sent_away.retry().is_some(), "{limits}: {sent_away}");
            let back = options.clone().header("cookie", &cookie(sent_away.header("set-cookie")));
            drop(first);
            drop(let_in(&ssegate, &url, &back).await);
            assert_eq!(status(&ssegate, &url, options).await, 401, "the ticket itself is used");
        }
    }
}

#[tokio::test]
async fn a_restart_while_the_issuer_is_away_holds_those_who_come_back() {
    let (issuer, key) = (Origin::start().await, SigningKey::new("k1"));
    issuer.say("/jwks", 200, jwks(&[&key]));
    let users = format!("jwt: {{ jwks: \"{}\", refresh: 1s }}", issuer.url("/jwks"));
    let before = start(&users, "").await;
    let token = key.sign(json!({ "sub": "alice" }));
    let (url, unused) = (ticket(&before, "/r/a", &token).await, ticket(&before, "/r/a", &token).await);
    let set = listens(&before, &url, Options::http1()).await.header("set-cookie").to_owned();
    drop(before);

    issuer.say("/jwks", 0, "");
    let ssegate = start(&users, "").await;
    let back = Options::http2().header("cookie", &cookie(&set));
    let mut returned = EventSource::connect(ssegate.url(&url), back.clone()).await;
    let mut new = EventSource::connect(ssegate.url(&unused), Options::http1()).await;
    let left = cookie(new.header("set-cookie"));
    for held in [&mut returned, &mut new] {
        held.until_comments(3).await;
        assert!(held.events().is_empty(), "nothing is decided: {held}");
    }
    issuer.say("/jwks", 200, jwks(&[&key]));
    returned.next_named("stream.position").await;
    new.next_named("stream.position").await;
    ssegate.publish("a", "hello").await;
    assert_eq!(
        (returned.next_message().await.data, new.next_message().await.data),
        ("hello".into(), "hello".into())
    );
    listens(&ssegate, &unused, Options::http1().header("cookie", &left)).await;

    // A key that the issuer has withdrawn lets nobody in, for good.
    issuer.say("/jwks", 200, jwks(&[&SigningKey::new("k2")]));
    assert_eq!(returned.until_end().await, End::Complete);
    eventually("the issuer's word", async || {
        let mut stream = EventSource::request(ssegate.url(&url), back.clone()).await;
        if stream.status() == 401 {
            return Ok(());
        }
        // It may not be asked again at once.
        stream.until_end().await;
        assert!(stream.events().is_empty(), "{stream}");
        Err("held")
    })
    .await;
}

#[tokio::test]
async fn a_cookie_for_a_key_that_is_new_here_has_the_issuer_asked() {
    let (issuer, first, second) = (Origin::start().await, SigningKey::new("k1"), SigningKey::new("k2"));
    issuer.say("/jwks", 200, jwks(&[&first]));
    let users = format!("jwt: {{ jwks: \"{}\" }}", issuer.url("/jwks"));
    let (one, two) = (start(&users, "").await, start(&users, "").await);
    for replica in [&one, &two] {
        let url = ticket(replica, "/r/a", &first.sign(json!({ "sub": "alice" }))).await;
        listens(replica, &url, Options::http1()).await;
    }
    issuer.say("/jwks", 200, jwks(&[&first, &second]));
    let url = ticket(&one, "/r/a", &second.sign(json!({ "sub": "alice" }))).await;
    let set = listens(&one, &url, Options::http1()).await.header("set-cookie").to_owned();
    listens(&two, &url, Options::http1().header("cookie", &cookie(&set))).await;
}

#[tokio::test]
async fn a_renewed_stream_leaves_a_cookie_that_lasts_as_long() {
    let ssegate = start(&with_secret(), "expiring: 1h").await;
    let (end, token) = (now() + 5, |exp| hs256(SECRET, json!({ "sub": "alice", "exp": exp })));
    let url = ticket(&ssegate, "/r/a", &token(end)).await;
    let mut stream = EventSource::connect(ssegate.url(&url), Options::http2()).await;
    let old = cookie(stream.header("set-cookie"));
    let notice: Value = serde_json::from_str(&stream.next_named("stream.expiring").await.data).unwrap();
    // Browsers send the old cookie along, by which the stream would end when it does.
    let bearer = format!("Bearer {}", token(end + 7_200));
    let headers = [("authorization", &*bearer), ("cookie", &old)];
    let link = ssegate.url(notice["renew"].as_str().unwrap());
    let answer = request(Method::POST, &link, &headers, "", &Connect::http1()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let renewed = answer.header("set-cookie").to_owned();
    for part in ["; Path=/r/a;", "; HttpOnly", "; Secure", "; SameSite=Strict"] {
        assert!(renewed.contains(part), "{renewed}");
    }
    while now() <= end {
        ssegate.publish("a", "on and on").await;
        assert_eq!(stream.next_message().await.data, "on and on");
    }
    assert_eq!(status(&ssegate, &url, Options::http1().header("cookie", &old)).await, 401);
    listens(&ssegate, &url, Options::http1().header("cookie", &cookie(&renewed))).await;
}

/// The same in a real browser: it renews with a fresh token, and is cut after the first one has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_comes_back_after_a_renewal() {
    let mut collector = Collector::start(TestCa::shared()).await;
    let cors = format!("cors: {{ origins: [\"{}\"], credentials: true }}", collector.origin());
    let ssegate = start(&with_secret(), &format!("expiring: 1h\n    {cors}")).await;
    let proxy = Proxy::start(ssegate.addr()).await;
    let tickets = format!("https://localhost:{}/tickets?path=/r/a", proxy.addr().port());
    // The browser has this long to start.
    let end = now() + 40;
    let token = |exp| hs256(SECRET, json!({ "sub": "alice", "exp": exp }));
    let page = collector.ticket_page_url(&tickets, &token(end));
    let page = format!("{page}&fresh={}", token(end + 7_200));
    let _browser = Browser::chromium(TestCa::shared(), &page).await;
    collector.wait_count("renewed", 1).await;
    assert_eq!(collector.of_kind("renewed")[0].data, "200");
    for n in 1.. {
        ssegate.publish("a", format!("{n}")).await;
        collector.wait_count("message", n).await;
        if now() > end {
            proxy.cut_all();
            ssegate.publish("a", "while away").await;
            collector.wait_count("message", n + 1).await;
            break;
        }
    }
    assert_eq!(collector.of_kind("message").pop().unwrap().data, "while away");
    let errors = collector.of_kind("error");
    assert!(errors.iter().all(|error| error.ready_state == Some(0)), "it never gave up: {errors:?}");
}

#[tokio::test]
async fn who_decides_is_asked_about_the_stream_that_a_ticket_is_for() {
    let app = Origin::start().await;
    let alice = Answer { status: 200, headers: vec![("x-user".into(), "alice".into())], body: String::new() };
    app.set("/auth", alice);
    let forward = format!("forward: {{ url: \"{}\", claims: x-user, cache: 0 }}", app.url("/auth"));
    let ssegate = start(&forward, "").await;
    // In a query, and in one that is encoded once more; browsers ask for both in the same way.
    for path in ["/r/a%20b", "/r/a%2520b", "%2Fr%2Fa%20b&x=1"] {
        let url = ticket(&ssegate, path, "opaque").await;
        assert!(url.starts_with("/r/a%20b?ticket="), "{url}");
        let asked = app.requests("/auth").pop().unwrap();
        let field = |name: &str| asked[name].to_str().unwrap().to_owned();
        assert_eq!(
            (field("x-forwarded-uri"), field("x-forwarded-method")),
            ("/r/a%20b".into(), "GET".into())
        );
        let count = app.requests("/auth").len();
        let stream = listens(&ssegate, &url, Options::http1()).await;
        let set = stream.header("set-cookie").to_owned();
        assert!(set.contains("; Path=/r/a%20b; Max-Age=3600; "), "{set}");
        assert_eq!(app.requests("/auth").len(), count, "the ticket stands for the answer");
    }
    app.say("/auth", 403, "");
    assert_eq!(post(&ssegate, "/tickets?path=/r/a", "opaque").await.status, 403);
    for path in ["/r/a%3Fx=1", "//localhost/r/a", "/r/../r/a", "r/a", ""] {
        let answer = post(&ssegate, &format!("/tickets?path={path}"), "opaque").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
}

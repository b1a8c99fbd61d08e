//! Clients that prove who they are by a certificate: what rules see of it, what takes its place, and when it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use rustls::ClientConfig;
use serde_json::json;

use crate::auth::SECRET;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Link, Reply, Version, build, request};
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::token::hs256;
use crate::support::wait::eventually;
use crate::tls::pair;

/// Clients may show a certificate of `clients`. `server` stands beside `tls`.
async fn start(clients: &TestCa, server: &str) -> Ssegate {
    start_with(clients, "", server).await
}

/// `client` stands beside `ca`.
async fn start_with(clients: &TestCa, client: &str, server: &str) -> Ssegate {
    let (own, ca) = (pair(TestCa::shared().leaf()), clients.cert_path());
    let tls = format!("{{ {own}, client: {{ ca: {}, mode: optional {client} }} }}", ca.display());
    let config = format!(
        r#"
server: {{ listen: "127.0.0.1:0", tls: {tls} {server} }}
auth:
  robots: {{ client_cert: {{}} }}
  users: {{ jwt: {{ secret: "{SECRET}" }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
defaults: {{ retry: 100ms }}
routes:
  - {{ path: /any, from: {{ upstream: lobby, channel: a }}, auth: robots, expiring: 1h }}
  - {{ path: /subject, from: {{ upstream: lobby, channel: a }}, auth: robots, allow: "client.certificate.subject == 'CN=alice' && claims.sub == 'CN=alice'" }}
  - {{ path: /sans, from: {{ upstream: lobby, channel: a }}, auth: robots, allow: "client.certificate.sans.uri.exists(name, name == 'spiffe://test/alice')" }}
  - {{ path: /either, from: {{ upstream: lobby, channel: a }}, auth: [robots, users], allow: "claims.sub in ['CN=alice', 'bob']" }}
"#
    );
    Ssegate::start(config).await
}

/// A certificate that holds for as long as the tests may take, with a SPIFFE id.
fn known(clients: &TestCa, name: &str) -> Arc<ClientConfig> {
    let leaf = clients.issue_client_until(name, SystemTime::now() + Duration::from_hours(1));
    TestCa::shared().client_config_with(&leaf)
}

fn both(tls: &Arc<ClientConfig>) -> [Connect; 2] {
    [Connect::http1(), Connect::http2()].map(|how| Connect { tls: Some(Arc::clone(tls)), ..how })
}

async fn ask(ssegate: &Ssegate, path: &str, headers: &[(&str, &str)], how: &Connect) -> Reply {
    request(Method::GET, &ssegate.url(path), headers, "", how).await
}

async fn head(ssegate: &Ssegate, path: &str, how: &Connect) -> u16 {
    request(Method::HEAD, &ssegate.url(path), &[], "", how).await.status.as_u16()
}

async fn listens(ssegate: &Ssegate, path: &str, options: Options) {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    ssegate.publish("a", "hello").await;
    let named = |name: &str| name != "stream.position" && name != "stream.expiring";
    while !named(&stream.next().await.event) {}
    assert_eq!(stream.events().last().unwrap().data, "hello");
}

#[tokio::test]
async fn rules_see_subject_and_names_of_a_certificate() {
    let clients = TestCa::new();
    let ssegate = start(&clients, "").await;
    let (alice, mallory) = (known(&clients, "alice"), known(&clients, "mallory"));
    for path in ["/subject", "/sans"] {
        for how in both(&alice) {
            listens(&ssegate, path, Options::default().connect(how)).await;
        }
        for how in both(&mallory) {
            let answer = ask(&ssegate, path, &[], &how).await;
            assert_eq!(answer.status, 403, "{path}");
            assert_eq!(answer.json()["type"], "urn:ssegate:problem:forbidden");
            assert!(!answer.text().contains("mallory"), "{}", answer.text());
        }
        for how in [Connect::http1(), Connect::http2()] {
            let answer = ask(&ssegate, path, &[], &how).await;
            assert_eq!(answer.status, 401, "{path}");
            assert_eq!(answer.json()["type"], "urn:ssegate:problem:no-credential");
        }
    }
    listens(&ssegate, "/any", Options::default().connect(both(&mallory)[0].clone())).await;
    let metrics = ssegate.metrics().await;
    for (outcome, count) in [("allowed", 5.0), ("rule", 4.0)] {
        let labels = [("provider", "robots"), ("outcome", outcome)];
        assert_eq!(metrics.sum("ssegate_auth_decisions_total", &labels), count, "{outcome}");
    }
}

#[tokio::test]
async fn who_has_no_certificate_may_bring_a_token_instead() {
    let clients = TestCa::new();
    let ssegate = start(&clients, "").await;
    let bearer = |subject: &str| format!("Bearer {}", hs256(SECRET, json!({ "sub": subject })));
    let (bob, carol) = (bearer("bob"), bearer("carol"));
    for how in both(&known(&clients, "alice")) {
        listens(&ssegate, "/either", Options::default().connect(how)).await;
    }
    for how in [Connect::http1(), Connect::http2()] {
        let options = Options::default().connect(how.clone());
        listens(&ssegate, "/either", options.header("authorization", &bob)).await;
        for (headers, status) in [(&[][..], 401), (&[("authorization", &*carol)], 403)] {
            assert_eq!(ask(&ssegate, "/either", headers, &how).await.status, status);
        }
        assert_eq!(
            ask(&ssegate, "/any", &[("authorization", &*bob)], &how).await.status,
            401,
            "not taken here"
        );
    }
    // The first that holds decides: a token beside it changes nothing.
    for how in both(&known(&clients, "mallory")) {
        assert_eq!(ask(&ssegate, "/either", &[("authorization", &*bob)], &how).await.status, 403);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_of_its_client_and_its_connection_is_worth_no_more() {
    let clients = TestCa::new();
    let ssegate = start(&clients, "").await;
    for how in [Connect::http1(), Connect::http2()] {
        let until = SystemTime::now() + Duration::from_secs(6);
        let tls = TestCa::shared().client_config_with(&clients.issue_client_until("brief", until));
        let how = Connect { tls: Some(tls), ..how };
        let shared = Arc::new(Link::open(&ssegate.url("/any"), &how).await.unwrap());
        let mut stream =
            EventSource::connect_on(Arc::clone(&shared), ssegate.url("/any"), Options::default()).await;
        let notice = stream.next_named("stream.expiring").await;
        let told: serde_json::Value = serde_json::from_str(&notice.data).unwrap();
        let told = humantime::parse_rfc3339(told["expires"].as_str().unwrap()).unwrap();
        assert!(told <= until && until <= told + Duration::from_secs(1), "whole seconds");
        assert_eq!(stream.until_end().await, End::Complete);
        assert!(SystemTime::now() >= told, "not before");
        if how.version == Version::Two {
            let again = build(Method::GET, &ssegate.url("/any"), &[], "");
            assert_eq!(shared.send(again).await.unwrap().status(), 401, "the connection is still open");
        }
    }
    let ended = [("route", "/any"), ("reason", "expired")];
    ssegate.until_counted("ssegate_streams_ended_total", &ended, 2.0).await;
}

/// The certificate of a proxy says nothing of who is behind it.
#[tokio::test]
async fn nobody_comes_in_with_the_certificate_of_a_proxy() {
    let clients = TestCa::new();
    let ssegate = start(&clients, ", trusted_proxies: 127.0.0.1").await;
    for how in both(&known(&clients, "alice")) {
        for headers in [&[("x-forwarded-for", "192.0.2.1")][..], &[]] {
            assert_eq!(ask(&ssegate, "/subject", headers, &how).await.status, 401, "{headers:?}");
        }
        // Others are who they are, whatever they say of whom they speak for.
        let other = Options::default().connect(how.from("127.0.0.2")).header("x-forwarded-for", "127.0.0.1");
        listens(&ssegate, "/any", other).await;
    }
}

/// A proxy that ends TLS and one that passes it through look the same: it takes a word of who knows.
#[tokio::test]
async fn behind_a_proxy_a_certificate_is_the_clients_only_where_tls_is_passed_through() {
    let clients = TestCa::new();
    let server = ", proxy_protocol: any, trusted_proxies: 127.0.0.1";
    for (client, status) in [("", 401), (", passthrough: false", 401), (", passthrough: true", 200)] {
        let ssegate = start_with(&clients, client, server).await;
        for how in both(&known(&clients, "alice")) {
            let behind = how.clone().prelude("PROXY TCP4 192.0.2.1 127.0.0.1 56324 443\r\n");
            assert_eq!(head(&ssegate, "/subject", &behind).await, status, "{client}");
            let itself = how.prelude("PROXY UNKNOWN\r\n");
            assert_eq!(head(&ssegate, "/subject", &itself).await, 401, "{client}");
        }
    }
}

/// Connections that began with an authority that is believed no more open no other stream.
#[tokio::test]
async fn with_another_authority_connections_of_before_take_no_more_requests() {
    let (clients, others) = (TestCa::new(), TestCa::new());
    let ssegate = start(&clients, "").await;
    let [one, two] = both(&known(&clients, "alice"));
    let url = ssegate.url("/any");
    let two = Arc::new(Link::open(&url, &two).await.unwrap());
    let mut stream = EventSource::connect_on(Arc::clone(&two), &url, Options::default()).await;
    stream.next_named("stream.position").await;
    let anyone = Link::open(&url, &Connect::http2()).await.unwrap();
    let links = [Arc::new(Link::open(&url, &one).await.unwrap()), two];
    let head = async |link: &Link| {
        link.send(build(Method::HEAD, &url, &[], "")).await.map(|answer| answer.status().as_u16())
    };
    for link in &links {
        assert_eq!(head(link).await.unwrap(), 200);
    }
    std::fs::copy(others.cert_path(), clients.cert_path()).unwrap();
    for link in &links {
        eventually("it to take no more", async || match head(link).await {
            Err(_) => Ok(()),
            Ok(status) => Err(status),
        })
        .await;
    }
    assert_eq!(head(&anyone).await.unwrap(), 401, "who has shown none is not concerned");
    ssegate.publish("a", "still here").await;
    while stream.next().await.data != "still here" {}
    assert_eq!(ssegate.metrics().await.sum("ssegate_streams_ended_total", &[]), 0.0);
}

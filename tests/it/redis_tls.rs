//! `rediss://`: an authority of one's own, client certificates, and ACL users.

use crate::redis_streams::{all, numbers};
use crate::support::eventsource::{EventSource, Options};
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;

fn config(user: &str, port: u16, tls: &str) -> String {
    format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "rediss://{user}localhost:{port}/0", tls: {tls}, ping_interval: 200ms }} }} }}
routes:
  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}
  - {{ path: "/s/{{name}}", from: {{ upstream: cache, stream: "{{name}}" }}, data: "{{field.n}}" }}
"#
    )
}

#[tokio::test]
async fn an_own_authority_a_client_certificate_and_an_acl_user() {
    let ca = TestCa::new();
    let (redis, port) = Redis::start_tls(&ca, ca.leaf()).await;
    redis
        .say::<()>("ACL SETUSER gate on >s3cr3t-pw resetchannels &news -@all +subscribe +unsubscribe +ping")
        .await;
    let tls = ca.tls_of_client("ssegate");
    let ssegate = Ssegate::start(config("gate:s3cr3t-pw@", port, &tls)).await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    redis.publish("news", "over TLS").await;
    assert_eq!(news.next().await.data, "over TLS");
    let status = ssegate.status().await;
    assert!(status["upstreams"][0]["last_error"].is_null(), "what it may not ask does no harm: {status}");
}

/// With no more rights than the README asks for, both for messages and for streams.
#[tokio::test]
async fn streams_by_an_own_authority_a_client_certificate_and_an_acl_user() {
    let ca = TestCa::new();
    let (redis, port) = Redis::start_tls(&ca, ca.leaf()).await;
    redis
        .say::<()>(
            "ACL SETUSER gate on >s3cr3t-pw resetchannels &news ~audit -@all +ping +subscribe +unsubscribe +xread \
             +xrange +xrevrange +xinfo|stream +client|id +client|unblock",
        )
        .await;
    let tls = ca.tls_of_client("ssegate");
    let ssegate = Ssegate::start(config("gate:s3cr3t-pw@", port, &tls)).await;
    let mut live = EventSource::connect(ssegate.url("/s/audit"), Options::http2()).await;
    live.next_named("stream.position").await;
    let ids = redis.xadd_numbers("audit", 0..3_000).await;
    assert_eq!(numbers(&mut live, 3_000).await.0, all(0, 3_000));
    // From memory and from Redis.
    for at in [5, 2_500] {
        let options = Options::http1().resume(&ids[at]);
        let mut back = EventSource::connect(ssegate.url("/s/audit"), options).await;
        assert_eq!(back.next_named("stream.position").await.id, ids[at]);
        assert_eq!(numbers(&mut back, 2_999 - at).await.0, all(at as i32 + 1, 3_000));
    }
    let status = ssegate.status().await;
    assert!(status["upstreams"][0]["last_error"].is_null(), "{status}");
}

#[tokio::test]
async fn an_authority_that_is_not_the_servers_is_not_trusted() {
    let ca = TestCa::new();
    let (_redis, port) = Redis::start_tls(&ca, ca.leaf()).await;
    let tls = format!("{{ ca: {} }}", TestCa::shared().cert_path().display());
    let ssegate = Ssegate::start(config("", port, &tls)).await;
    let cause = ssegate.cause().await;
    assert!(cause.contains(&format!("localhost:{port}")) && cause.contains("certificate"), "{cause}");
}

#[tokio::test]
async fn the_systems_authorities_are_trusted_where_none_is_named() {
    let ca = TestCa::new();
    let (redis, port) = Redis::start_tls(&ca, ca.leaf()).await;
    redis.say::<()>("CONFIG SET tls-auth-clients no").await;
    // Where the system keeps them can be told by this variable, on every distribution.
    let builder = Ssegate::builder().config(config("", port, "{}"));
    let ssegate = builder.env("SSL_CERT_FILE", &ca.cert_path().display().to_string()).start().await;
    let mut news = EventSource::connect(ssegate.url("/news"), Options::http2()).await;
    news.next_named("stream.position").await;
    redis.publish("news", "trusted").await;
    assert_eq!(news.next().await.data, "trusted");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_named_when_it_gets_none() {
    let ca = TestCa::new();
    let (_redis, port) = Redis::start_tls(&ca, ca.leaf()).await;
    let ssegate = Ssegate::start(config("", port, &format!("{{ ca: {} }}", ca.cert_path().display()))).await;
    let cause = ssegate.cause().await;
    assert!(cause.contains(&format!("localhost:{port}")), "{cause}");
    assert!(cause.to_lowercase().contains("certificate"), "{cause}");
}

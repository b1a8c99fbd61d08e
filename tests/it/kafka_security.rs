//! Kafka behind TLS, client certificates, SASL and ACLs, on a real broker: what works, and what a wrong password,
//! a missing certificate or a missing ACL look like to operators and to streams.

use std::collections::HashSet;

use serde_json::Value;

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{CERTIFIED, Kafka, PLAIN, Record, Security, unique};
use crate::support::ssegate::{Ssegate, field};
use crate::support::wait::eventually;

#[tokio::test]
async fn a_private_authority_is_trusted_by_file_or_by_text() {
    let Some(kafka) = secured().await else { return };
    let security = kafka.security();
    let ca = security.ca();
    for trust in [format!("ssl.ca.location: {}", ca.display()), format!("ssl.ca.pem: file:{}", ca.display())]
    {
        let topic = new_topic(kafka).await;
        reads(kafka, &topic, &security.tls(), &format!("security.protocol: SSL, {trust}")).await;
    }
}

#[tokio::test]
async fn a_client_certificate_opens_the_door() {
    let Some(kafka) = secured().await else { return };
    let topic = new_topic(kafka).await;
    kafka.allow(CERTIFIED, &topic, &["Read"]).await;
    let security = kafka.security();
    let leaf = security.client();
    let own = format!(
        "ssl.certificate.location: {}, ssl.key.location: {}",
        leaf.cert.display(),
        leaf.key.display()
    );
    let properties = format!("security.protocol: SSL, {}, {own}", trust(security));
    reads(kafka, &topic, &security.mutual(), &properties).await;
}

#[tokio::test]
async fn plain_and_scram_users_need_no_more_than_to_read_the_topic() {
    let Some(kafka) = secured().await else { return };
    let scram = new_user(kafka, "scram-s3cr3t").await;
    for (user, properties) in [
        (PLAIN.0, sasl(kafka.security(), "PLAIN", PLAIN.0, PLAIN.1)),
        (&*scram, sasl(kafka.security(), "SCRAM-SHA-512", &scram, "scram-s3cr3t")),
    ] {
        let topic = new_topic(kafka).await;
        kafka.allow(user, &topic, &["Read"]).await;
        let ssegate = reads(kafka, &topic, &kafka.security().sasl(), &properties).await;
        // Group and cluster are closed to it: nobody needs to know.
        assert_eq!(ssegate.status().await["upstreams"][0]["last_error"], Value::Null);
        assert_eq!(warnings(&ssegate).len(), 0, "{:?}", ssegate.log());
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_heals() {
    let Some(kafka) = secured().await else { return };
    let topic = new_topic(kafka).await;
    let user = new_user(kafka, "old-s3cr3t").await;
    kafka.allow(&user, &topic, &["Read"]).await;
    let properties = sasl(kafka.security(), "SCRAM-SHA-512", &user, "new-s3cr3t");
    let ssegate = start(&kafka.security().sasl(), &properties, &topic).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    let cause = refused_for_long(&ssegate).await;
    let address = kafka.security().sasl();
    assert!(cause.contains(&format!("{address}: SASL authentication error")), "{cause}");
    assert!(cause.ends_with("check `sasl.mechanism`, `sasl.username` and `sasl.password`"), "{cause}");
    assert!(ssegate.log().iter().all(|line| !line.to_string().contains("s3cr3t")), "{:?}", ssegate.log());
    stay_open(&mut stream).await;

    kafka.set_password(&user, "new-s3cr3t").await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to(&topic).payload("healed")).await;
    assert_eq!(stream.next_message().await.data, "healed");
}

#[tokio::test]
async fn doors_that_stay_shut_say_why() {
    let Some(kafka) = secured().await else { return };
    let topic = new_topic(kafka).await;
    let security = kafka.security();
    let trust = trust(security);
    let doors = [
        // The system's own authorities do not know this one.
        (
            security.tls(),
            "security.protocol: SSL".to_owned(),
            "is not trusted, or is for another name; set `ssl.ca.location`",
        ),
        (
            security.mutual(),
            format!("security.protocol: SSL, {trust}"),
            "wants a client certificate that it trusts",
        ),
        (security.tls(), "security.protocol: PLAINTEXT".to_owned(), "check `security.protocol`"),
        (kafka.bootstrap(), format!("security.protocol: SSL, {trust}"), "it may speak no TLS there"),
        (security.sasl(), sasl(security, "SCRAM-SHA-256", "nobody", "nothing"), "SCRAM-SHA-256"),
    ];
    // All at once, since each takes its time.
    let mut tried = Vec::new();
    for (address, properties, why) in doors {
        tried.push((start(&address, &properties, &topic).await, address, why));
    }
    for (ssegate, address, why) in tried {
        let cause = refused_for_long(&ssegate).await;
        assert!(cause.contains(&address) && cause.contains(why), "{cause}");
    }
}

#[tokio::test]
async fn a_topic_that_is_forbidden_is_said_once_and_heals() {
    let Some(kafka) = secured().await else { return };
    let topic = new_topic(kafka).await;
    let user = new_user(kafka, "s3cr3t").await;
    let properties = sasl(kafka.security(), "SCRAM-SHA-512", &user, "s3cr3t");
    let ssegate = start(&kafka.security().sasl(), &properties, &topic).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    trouble(
        &ssegate,
        &format!("topic {topic} cannot be read: the broker's ACLs forbid it; allow the user `Read`"),
    )
    .await;
    stay_open(&mut stream).await;
    assert!(ssegate.status().await["upstreams"][0]["up"].as_bool().unwrap(), "the broker itself is there");
    kafka.allow(&user, &topic, &["Read"]).await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to(&topic).payload("1")).await;
    assert_eq!(stream.next_message().await.data, "1");

    kafka.disallow(&user, &topic, &["Read"]).await;
    trouble(&ssegate, &format!("looking after topic {topic} failed: the broker's ACLs forbid it")).await;
    kafka.produce(Record::to(&topic).payload("2")).await;
    stay_open(&mut stream).await;
    kafka.allow(&user, &topic, &["Read"]).await;
    assert_eq!(stream.next_message().await.data, "2", "nothing is lost meanwhile");
    said_once(&ssegate);
}

#[tokio::test]
async fn a_topic_that_may_be_described_but_not_read_is_named() {
    let Some(kafka) = secured().await else { return };
    let topic = new_topic(kafka).await;
    let user = new_user(kafka, "s3cr3t").await;
    kafka.allow(&user, &topic, &["Describe"]).await;
    let properties = sasl(kafka.security(), "SCRAM-SHA-512", &user, "s3cr3t");
    let ssegate = start(&kafka.security().sasl(), &properties, &topic).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    trouble(&ssegate, &format!("forbid reading; allow the user `Read` on the topic, one of: {topic}")).await;
    kafka.produce(Record::to(&topic).payload("x")).await;
    stay_open(&mut stream).await;
    kafka.allow(&user, &topic, &["Read"]).await;
    assert_eq!(stream.next_message().await.data, "x");
    said_once(&ssegate);
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_said_once_and_heals() {
    let Some(kafka) = secured().await else { return };
    let topic = unique("later");
    let user = new_user(kafka, "s3cr3t").await;
    kafka.allow(&user, &topic, &["Read"]).await;
    let properties = sasl(kafka.security(), "SCRAM-SHA-512", &user, "s3cr3t");
    let ssegate = start(&kafka.security().sasl(), &properties, &topic).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    trouble(&ssegate, &format!("topic {topic} cannot be read: there is no such topic")).await;
    stay_open(&mut stream).await;
    kafka.create_topic(&topic, 1).await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to(&topic).payload("x")).await;
    assert_eq!(stream.next_message().await.data, "x");
    said_once(&ssegate);
}

async fn secured() -> Option<&'static Kafka> {
    let kafka = Kafka::secured().await;
    if kafka.is_none() {
        eprintln!("skipped on the mock cluster: it knows no TLS, no users and no ACLs");
    }
    kafka
}

async fn new_topic(kafka: &Kafka) -> String {
    let topic = unique("t");
    kafka.create_topic(&topic, 1).await;
    topic
}

async fn new_user(kafka: &Kafka, password: &str) -> String {
    let user = unique("user");
    kafka.set_password(&user, password).await;
    user
}

fn trust(security: &Security) -> String {
    format!("ssl.ca.location: {}", security.ca().display())
}

fn sasl(security: &Security, mechanism: &str, user: &str, password: &str) -> String {
    let login = format!("sasl.mechanism: {mechanism}, sasl.username: {user}, sasl.password: {password}");
    format!("security.protocol: SASL_SSL, {}, {login}", trust(security))
}

async fn start(brokers: &str, properties: &str, topic: &str) -> Ssegate {
    Ssegate::start(format!(
        r#"
upstreams:
  bus:
    kafka:
      brokers: ["{brokers}"]
      properties: {{ topic.metadata.refresh.interval.ms: 1000, {properties} }}
routes:
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }}, keepalive: 1s }}
"#
    ))
    .await
}

/// Reads what is produced to the topic.
async fn reads(kafka: &Kafka, topic: &str, brokers: &str, properties: &str) -> Ssegate {
    let ssegate = start(brokers, properties, topic).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to(topic).payload("x")).await;
    assert_eq!(stream.next_message().await.data, "x");
    ssegate
}

/// The stream is kept alive for so long that whatever is in the way has been met several times.
async fn stay_open(stream: &mut EventSource) {
    let so_far = stream.comments().len();
    stream.until_comments(so_far + 4).await;
}

/// The one cause that was logged in several attempts at the broker, the same that `/status` shows.
async fn refused_for_long(ssegate: &Ssegate) -> String {
    let upstream = eventually("three more attempts", async || {
        let upstream = ssegate.status().await["upstreams"][0].clone();
        if upstream["reconnects"].as_u64() >= Some(3) { Ok(upstream) } else { Err(upstream.to_string()) }
    })
    .await;
    let said = warnings(ssegate);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(upstream["last_error"]["error"], said[0]);
    assert_eq!(upstream["up"], false);
    said[0].clone()
}

async fn trouble(ssegate: &Ssegate, cause: &str) {
    ssegate.wait_log(cause, |line| field(line, "cause").is_some_and(|said| said.contains(cause))).await;
}

fn said_once(ssegate: &Ssegate) {
    let said = warnings(ssegate);
    assert_eq!(said.iter().collect::<HashSet<_>>().len(), said.len(), "{said:?}");
}

/// The causes of all warnings.
fn warnings(ssegate: &Ssegate) -> Vec<String> {
    let log = ssegate.log();
    let warnings = log.iter().filter(|line| field(line, "level") == Some("WARN"));
    warnings.map(|line| field(line, "cause").unwrap_or_default().to_owned()).collect()
}

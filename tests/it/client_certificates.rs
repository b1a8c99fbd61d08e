//! Certificates that clients show: required or optional, whose are believed, and for how long.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::Connect;
use crate::support::scratch;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::{TestCa, ask, handshake, visit};
use crate::support::wait::eventually;
use crate::tls::{config, pair};

/// A server of the shared authority that asks for certificates of `ca`.
async fn asking(ca: &std::path::Path, mode: &str) -> Ssegate {
    let client = format!("client: {{ ca: {}, mode: {mode} }}", ca.display());
    Ssegate::start(config(&format!("{{ {}, {client} }}", pair(TestCa::shared().leaf())))).await
}

async fn visits(ssegate: &Ssegate, config: &Arc<ClientConfig>) -> std::io::Result<HandshakeKind> {
    let stream = visit(ssegate.addr(), "localhost", config).await?;
    Ok(stream.get_ref().1.handshake_kind().unwrap())
}

#[tokio::test]
async fn a_certificate_is_required_and_told_in_the_log() {
    let (clients, others) = (TestCa::new(), TestCa::new());
    let ssegate = asking(&clients.cert_path(), "required").await;
    let shared = TestCa::shared();
    let known = shared.client_config_with(&clients.issue_client("alice"));
    for (number, connect) in [Connect::http1(), Connect::http2()].into_iter().enumerate() {
        let options = Options::default().connect(Connect { tls: Some(Arc::clone(&known)), ..connect });
        let mut stream = EventSource::connect(ssegate.url("/news"), options).await;
        stream.next_named("stream.position").await;
        stream.close();
        let is_its_end = |line: &Value| line["message"] == "stream ended" && line["stream"] == number;
        let line = ssegate.wait_log("the end of the stream", is_its_end).await;
        assert_eq!(field(&line, "certificate"), Some("CN=alice"), "{line}");
    }
    visits(&ssegate, &shared.client_config(&[])).await.unwrap_err();
    visits(&ssegate, &shared.client_config_with(&others.issue_client("alice"))).await.unwrap_err();
    let expired = clients.issue_client_until("late", SystemTime::now() - Duration::from_secs(60));
    visits(&ssegate, &shared.client_config_with(&expired)).await.unwrap_err();
    // A server's certificate is no client's.
    visits(&ssegate, &shared.client_config_with(&clients.issue(&["alice.example"]))).await.unwrap_err();
    eventually("the count", async || {
        match ssegate.metrics().await.sum("ssegate_handshakes_failed_total", &[]) {
            4.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn an_optional_certificate_may_be_left_out_but_not_be_wrong() {
    let (clients, others) = (TestCa::new(), TestCa::new());
    let ssegate = asking(&clients.cert_path(), "optional").await;
    let shared = TestCa::shared();
    visits(&ssegate, &shared.client_config(&[])).await.unwrap();
    visits(&ssegate, &shared.client_config_with(&clients.issue_client("alice"))).await.unwrap();
    visits(&ssegate, &shared.client_config_with(&others.issue_client("alice"))).await.unwrap_err();
    let mut anyone = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    anyone.next_named("stream.position").await;
    anyone.close();
    let line = ssegate.wait_log("the stream", |line| field(line, "message") == Some("stream ended")).await;
    assert!(field(&line, "certificate").is_none(), "{line}");
}

#[tokio::test]
async fn a_resumed_session_ends_with_its_certificate() {
    let clients = TestCa::new();
    let ssegate = asking(&clients.cert_path(), "required").await;
    let until = SystemTime::now() + Duration::from_secs(8);
    let config = TestCa::shared().client_config_with(&clients.issue_client_until("brief", until));
    assert_eq!(visits(&ssegate, &config).await.unwrap(), HandshakeKind::Full);
    assert_eq!(visits(&ssegate, &config).await.unwrap(), HandshakeKind::Resumed);
    eventually("the end of the certificate", async || {
        let mut stream =
            handshake(ssegate.addr(), "localhost", &config).await.expect("resumed, as it may be");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        if ask(&mut stream, "localhost").await.is_ok() { Err("it is still good") } else { Ok(()) }
    })
    .await;
    assert!(SystemTime::now() >= until - Duration::from_secs(1), "it was good before");
}

#[tokio::test]
async fn other_authorities_are_believed_once_the_file_names_them() {
    let dir = scratch::dir("clients");
    let (old, new) = (TestCa::new(), TestCa::new());
    let ca = dir.path().join("ca.pem");
    fs::copy(old.cert_path(), &ca).unwrap();
    let ssegate = asking(&ca, "required").await;
    let shared = TestCa::shared();
    let known = shared.client_config_with(&old.issue_client("old"));
    visits(&ssegate, &known).await.unwrap();
    assert_eq!(visits(&ssegate, &known).await.unwrap(), HandshakeKind::Resumed);
    let options = Options::default().connect(Connect { tls: Some(Arc::clone(&known)), ..Connect::http1() });
    let mut open = EventSource::connect(ssegate.url("/news"), options).await;
    open.next_named("stream.position").await;

    fs::write(&ca, "no PEM").unwrap();
    ssegate.wait_log("the refusal", |line| line.to_string().contains("this file holds no certificate")).await;
    visits(&ssegate, &known).await.unwrap();
    fs::copy(new.cert_path(), dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("new"), &ca).unwrap();
    ssegate.wait_log("the new authority", |line| field(line, "message") == Some("read anew")).await;
    visits(&ssegate, &shared.client_config_with(&new.issue_client("new"))).await.unwrap();
    visits(&ssegate, &known).await.unwrap_err();
    ssegate.publish("news", "still here").await;
    assert_eq!(open.next_message().await.data, "still here");
}

//! What a TLS handshake shows and agrees on: the certificate by name, versions, the post-quantum key exchange.

use std::net::SocketAddr;
use std::path::Path;

use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use rustls::version::{TLS12, TLS13};

use crate::support::ssegate::Ssegate;
use crate::support::tls::{Leaf, TestCa, blind_config, default_provider, handshake, shown, visit};

/// A configuration with this `tls`, and a route to publish to.
pub fn config(tls: &str) -> String {
    format!(
        r#"
server: {{ listen: "127.0.0.1:0", tls: {tls} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /news, from: {{ upstream: lobby, channel: news }} }} ]
"#
    )
}

/// `cert: FILE, key: FILE`
pub fn pair(leaf: &Leaf) -> String {
    files(&leaf.cert, &leaf.key)
}

/// The same of these files.
pub fn files(cert: &Path, key: &Path) -> String {
    format!("cert: {}, key: {}", cert.display(), key.display())
}

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_the_certificate() {
    let ca = TestCa::new();
    let (first, exact) = (ca.leaf(), ca.issue(&["a.example", "c.b.example"]));
    let wildcard = ca.issue(&["*.b.example"]);
    let tls =
        format!("{{ {}, certificates: [{{ {} }}, {{ {} }}] }}", pair(first), pair(&exact), pair(&wildcard));
    let ssegate = Ssegate::start(config(&tls)).await;
    for version in [&TLS12, &TLS13] {
        let config = blind_config(&[], &[version], default_provider());
        for (name, leaf) in [
            ("localhost", first),
            ("a.example", &exact),
            ("A.EXAMPLE", &exact),
            ("x.b.example", &wildcard),
            ("c.b.example", &exact),
            ("y.x.b.example", first),
            ("b.example", first),
            ("unknown.example", first),
            ("127.0.0.1", first), // An address is sent as no name.
        ] {
            let stream = visit(ssegate.addr(), name, &config).await.unwrap();
            assert_eq!(shown(&stream), leaf.der(), "{name}");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        }
    }
    let status = ssegate.status().await;
    assert_eq!(status["tls"][1]["names"], serde_json::json!(["a.example", "c.b.example"]), "{status}");
    assert_eq!((&status["tls"][2]["source"], &status["tls"][2]["last_error"]), (&"file".into(), &().into()));
}

#[tokio::test]
async fn how_long_certificates_hold_is_told() {
    let leaf = TestCa::shared().leaf();
    let ssegate = Ssegate::start(config(&format!("{{ {} }}", pair(leaf)))).await;
    let name = leaf.cert.display().to_string();
    // 2049-12-31T00:00:00Z
    let metrics = ssegate.metrics().await;
    let expiry = metrics.sum("ssegate_certificate_expiry_timestamp_seconds", &[("name", &name)]);
    assert_eq!(expiry, 2_524_521_600.0, "{}", metrics.text);
    assert_eq!(metrics.sum("ssegate_tls_outdated", &[("name", &name)]), 0.0);
    let status = ssegate.status().await;
    assert_eq!(status["tls"][0]["not_after"], "2049-12-31T00:00:00.000Z");
    assert!(status["tls"][0]["days_left"].as_u64().unwrap() > 8_000, "{status}");
}

#[tokio::test]
async fn key_exchange_is_post_quantum_where_the_client_can() {
    let ssegate = Ssegate::start(config("self_signed")).await;
    let agreed = async |addr: SocketAddr, groups: &[&'static dyn rustls::crypto::SupportedKxGroup]| {
        let mut provider = default_provider();
        provider.kx_groups = groups.to_vec();
        let config = blind_config(&["h2", "http/1.1"], &[&TLS13], provider);
        let stream = handshake(addr, "localhost", &config).await.unwrap();
        let session = &stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        session.negotiated_key_exchange_group().unwrap().name()
    };
    let (both, hybrid, plain) = (&[X25519MLKEM768, X25519], X25519MLKEM768.name(), X25519.name());
    assert_eq!(agreed(ssegate.addr(), &[X25519MLKEM768]).await, hybrid);
    assert_eq!(agreed(ssegate.addr(), both).await, hybrid, "what browsers offer");
    assert_eq!(agreed(ssegate.addr(), &[X25519]).await, plain);
}

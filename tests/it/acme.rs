//! Certificates by ACME, against a server of the rig's own: had at the start, kept for the next one, renewed in time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::acme::Acme;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::Connect;
use crate::support::scratch;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::{TestCa, blind_config, default_provider, handshake, shown, visit};
use crate::support::wait::eventually;
use crate::tls::{config, pair};

const DOMAIN: &str = "shop.example.com";

fn order(acme: &Acme, cache: &Path, domains: &str) -> String {
    let (directory, ca) = (acme.directory(), acme.ca_path());
    let contact = "contact: mailto:ops@example.com";
    format!(
        "acme: {{ domains: [{domains}], {contact}, directory: \"{directory}\", cache: {}, ca: {} }}",
        cache.display(),
        ca.display()
    )
}

/// Waits for a certificate that the authority's own clients trust.
async fn until_trusted(ssegate: &Ssegate, acme: &Acme, domain: &str) {
    let config = acme.client_config();
    eventually("a certificate", async || handshake(ssegate.addr(), domain, &config).await.map(drop)).await;
}

#[tokio::test]
async fn a_certificate_is_had_proven_used_and_kept() {
    let dir = scratch::dir("acme");
    let cache = dir.path().join("made/when/needed");
    let mut acme = Acme::start().await;
    let text = config(&format!("{{ {} }}", order(&acme, &cache, "Shop.example.com, www.example.com")));
    let ssegate = Ssegate::start(text.clone()).await;
    let any = blind_config(&["http/1.1"], rustls::ALL_VERSIONS, default_provider());
    handshake(ssegate.addr(), DOMAIN, &any).await.expect_err("there is no certificate yet");
    assert!(ssegate.status().await["tls"][0]["names"].is_null());
    acme.lead_domains_to(ssegate.addr());
    for domain in [DOMAIN, "www.example.com"] {
        until_trusted(&ssegate, &acme, domain).await;
    }
    let tls = acme.client_config();
    let connect = Connect { tls: Some(tls.clone()), ..Connect::http2() }.to(ssegate.addr());
    let url = format!("https://{DOMAIN}/news");
    let mut stream = EventSource::connect(&url, Options::default().connect(connect)).await;
    stream.next_named("stream.position").await;
    assert_eq!((acme.orders().len(), acme.accounts()), (2, 1));
    let first = shown(&handshake(ssegate.addr(), DOMAIN, &tls).await.unwrap());
    let status = ssegate.status().await;
    let (shop, www) = (&status["tls"][0], &status["tls"][1]);
    assert_eq!((&shop["name"], &shop["source"]), (&DOMAIN.into(), &"acme".into()), "{status}");
    assert_eq!(www["names"], serde_json::json!(["www.example.com"]));
    assert!((88..=90).contains(&shop["days_left"].as_u64().unwrap()), "{status}");
    assert!(ssegate.metrics().await.has("ssegate_certificate_expiry_timestamp_seconds", &[("name", DOMAIN)]));
    // Outside a challenge nobody is answered as an authority is.
    let prying = blind_config(&["acme-tls/1"], rustls::ALL_VERSIONS, default_provider());
    handshake(ssegate.addr(), DOMAIN, &prying).await.expect_err("a protocol that is not spoken");
    drop(ssegate);

    // The authority is gone, and is not missed.
    acme.stop();
    let ssegate = Ssegate::start(text).await;
    assert_eq!(shown(&handshake(ssegate.addr(), DOMAIN, &tls).await.unwrap()), first);
    let keys_are_private = fs::read_dir(cache.join(only_entry(&cache))).unwrap().all(|entry| {
        use std::os::unix::fs::PermissionsExt;
        entry.unwrap().metadata().unwrap().permissions().mode().trailing_zeros() >= 6
    });
    assert!(keys_are_private);
    assert!(ssegate.log().iter().all(|line| !line.to_string().contains("PRIVATE")));
}

fn only_entry(folder: &Path) -> std::ffi::OsString {
    let mut entries = fs::read_dir(folder).unwrap();
    let entry = entries.next().unwrap().unwrap().file_name();
    assert!(entries.next().is_none(), "a folder for one authority");
    entry
}

/// Clients have to show certificates, which the authority has none of.
#[tokio::test]
async fn a_certificate_is_renewed_while_it_is_served() {
    let dir = scratch::dir("renewal");
    let acme = Acme::start().await;
    let clients = TestCa::new();
    let client = format!("client: {{ ca: {} }}", clients.cert_path().display());
    let text = config(&format!("{{ {}, {client} }}", order(&acme, dir.path(), DOMAIN)));
    acme.issue_aged(Duration::from_hours(80 * 24));
    let ssegate = Ssegate::start(text.clone()).await;
    acme.lead_domains_to(ssegate.addr());
    until_trusted(&ssegate, &acme, DOMAIN).await;
    assert!(ssegate.status().await["tls"][0]["days_left"].as_u64().unwrap() < 11);
    drop(ssegate);

    acme.issue_aged(Duration::ZERO);
    // The new one cannot be had before the domain leads there again.
    acme.lead_domains_to_nowhere();
    let ssegate = Ssegate::start(text).await;
    let config = acme.client_config();
    let old = shown(&handshake(ssegate.addr(), DOMAIN, &config).await.unwrap());
    acme.lead_domains_to(ssegate.addr());
    eventually("the new certificate", async || {
        let stream = handshake(ssegate.addr(), DOMAIN, &config).await.map_err(|error| error.to_string())?;
        if shown(&stream) == old { Err("the old one".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(ssegate.status().await["tls"][0]["days_left"].as_u64().unwrap() > 80);
    assert_eq!((acme.orders().len(), acme.accounts()), (2, 1), "the account is the same");
}

#[tokio::test]
async fn what_cannot_be_had_is_told_and_keeps_nothing_else_down() {
    let dir = scratch::dir("refused");
    let acme = Acme::start().await;
    let files = TestCa::shared().leaf();
    let tls = format!("{{ {}, {} }}", pair(files), order(&acme, dir.path(), DOMAIN));
    let ssegate = Ssegate::start(config(&tls)).await;
    let elsewhere = Ssegate::start(config("self_signed")).await;
    acme.lead_domains_to(elsewhere.addr());
    let line = ssegate
        .wait_log("the refusal", |line| field(line, "message") == Some("no certificate by ACME"))
        .await;
    let error = field(&line, "error").unwrap();
    assert!(
        error.contains("did not get the proof for shop.example.com: ") && error.contains("no handshake"),
        "{error}"
    );
    let status = ssegate.status().await;
    assert_eq!(status["tls"][1]["last_error"]["error"], *error, "{status}");
    assert_eq!(ssegate.metrics().await.sum("ssegate_tls_outdated", &[("name", DOMAIN)]), 1.0);
    let any = blind_config(&[], rustls::ALL_VERSIONS, default_provider());
    assert_eq!(shown(&visit(ssegate.addr(), DOMAIN, &any).await.unwrap()), files.der());
    ssegate.wait_log("when it is tried again", |line| line.to_string().contains("again_in")).await;
}

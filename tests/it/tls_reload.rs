//! Certificates that are replaced while streams are open, in each of the ways in which that is done.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::Connect;
use crate::support::scratch;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::{Leaf, TestCa, blind_config, default_provider, shown, visit};
use crate::support::wait::eventually;
use crate::tls::{config, files};

/// Puts a certificate and its key in the place of those before, the `nth` time.
type Replace = fn(&Path, &Leaf, usize);

/// Files are looked at once a minute even where nothing tells of a change; what comes sooner was told.
const TOLD: Duration = Duration::from_secs(45);

fn any() -> Arc<ClientConfig> {
    blind_config(&["http/1.1"], rustls::ALL_VERSIONS, default_provider())
}

/// Waits until new handshakes show this certificate.
async fn until_shown(ssegate: &Ssegate, wanted: &CertificateDer<'static>) {
    eventually("the new certificate", async || {
        let stream = visit(ssegate.addr(), "localhost", &any()).await.map_err(|e| e.to_string())?;
        if shown(&stream) == *wanted { Ok(()) } else { Err("another one".to_owned()) }
    })
    .await;
}

async fn survives(cert: &str, key: &str, replace: Replace) {
    let dir = scratch::dir("reload");
    let ca = TestCa::new();
    replace(dir.path(), ca.leaf(), 0);
    let path = |name: &str| dir.path().join(name);
    let ssegate = Ssegate::start(config(&format!("{{ {} }}", files(&path(cert), &path(key))))).await;
    let trusting = |connect: Connect| {
        Options::default().connect(Connect { tls: Some(ca.client_config(&[])), ..connect })
    };
    let mut streams = Vec::new();
    for connect in [Connect::http1(), Connect::http2()] {
        let mut stream = EventSource::connect(ssegate.url("/news"), trusting(connect)).await;
        stream.next_named("stream.position").await;
        streams.push(stream);
    }
    let mut sent = 0;
    for nth in 1..=3 {
        let leaf = ca.issue_again(nth);
        let replaced = Instant::now();
        replace(dir.path(), &leaf, nth);
        for _ in 0..10 {
            ssegate.publish("news", sent.to_string()).await;
            sent += 1;
        }
        until_shown(&ssegate, &leaf.der()).await;
        assert!(replaced.elapsed() < TOLD, "nothing told of the change");
        ssegate.publish("news", sent.to_string()).await;
        sent += 1;
    }
    let all: Vec<String> = (0..sent).map(|n| n.to_string()).collect();
    for stream in &mut streams {
        assert_eq!(stream.next_data(sent).await, all);
        assert!(stream.end().is_none());
    }
    let mut new = EventSource::connect(ssegate.url("/news"), trusting(Connect::http2())).await;
    new.next_named("stream.position").await;
    assert!(ssegate.status().await["tls"][0]["last_error"].is_null());
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place() {
    survives("tls.pem", "tls.key", |dir, leaf, _| {
        for (from, to) in [(&leaf.cert, "tls.pem"), (&leaf.key, "tls.key")] {
            fs::copy(from, dir.join("new")).unwrap();
            fs::rename(dir.join("new"), dir.join(to)).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_written_over() {
    survives("tls.pem", "tls.key", |dir, leaf, _| {
        fs::write(dir.join("tls.pem"), fs::read(&leaf.cert).unwrap()).unwrap();
        fs::write(dir.join("tls.key"), fs::read(&leaf.key).unwrap()).unwrap();
    })
    .await;
}

/// certbot: `live/` holds links into `archive/`, which are replaced one by one.
#[tokio::test]
async fn a_link_that_leads_to_another_file() {
    survives("live/fullchain.pem", "live/privkey.pem", |dir, leaf, nth| {
        for (from, name) in [(&leaf.cert, "fullchain"), (&leaf.key, "privkey")] {
            fs::create_dir_all(dir.join("archive")).unwrap();
            fs::create_dir_all(dir.join("live")).unwrap();
            fs::copy(from, dir.join(format!("archive/{name}{nth}.pem"))).unwrap();
            relink(&format!("../archive/{name}{nth}.pem"), &dir.join(format!("live/{name}.pem")));
        }
    })
    .await;
}

/// Kubernetes: files are links through `..data`, which comes to lead to another folder, and the old one goes.
#[tokio::test]
async fn a_link_that_leads_to_another_folder() {
    survives("tls.crt", "tls.key", |dir, leaf, nth| {
        let folder = dir.join(format!("..v{nth}"));
        fs::create_dir(&folder).unwrap();
        fs::copy(&leaf.cert, folder.join("tls.crt")).unwrap();
        fs::copy(&leaf.key, folder.join("tls.key")).unwrap();
        relink(&format!("..v{nth}"), &dir.join("..data"));
        if nth == 0 {
            symlink("..data/tls.crt", dir.join("tls.crt")).unwrap();
            symlink("..data/tls.key", dir.join("tls.key")).unwrap();
        } else {
            fs::remove_dir_all(dir.join(format!("..v{}", nth - 1))).unwrap();
        }
    })
    .await;
}

fn relink(target: &str, link: &PathBuf) {
    let new = link.with_file_name("..new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told_once() {
    let dir = scratch::dir("broken");
    let ca = TestCa::new();
    let (cert, key) = (dir.path().join("tls.pem"), dir.path().join("tls.key"));
    fs::copy(&ca.leaf().cert, &cert).unwrap();
    fs::copy(&ca.leaf().key, &key).unwrap();
    let ssegate = Ssegate::start(config(&format!("{{ {} }}", files(&cert, &key)))).await;
    let name = cert.display().to_string();
    let first = ca.leaf().der();
    let broken = |line: &serde_json::Value| {
        field(line, "message").is_some_and(|text| text.contains("cannot be used; the one before it stays"))
    };
    let outdated = async || ssegate.metrics().await.sum("ssegate_tls_outdated", &[("name", &name)]);

    fs::write(&cert, "no PEM").unwrap();
    let line = ssegate.wait_log("the broken file", broken).await;
    assert!(field(&line, "error").unwrap().contains("this file holds no certificate"), "{line}");
    fs::write(&cert, "still no PEM").unwrap();
    // Of another kind, so that it is seen that the one before was looked at and not told again.
    let other = ca.issue_again(1);
    fs::copy(&other.key, dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("new"), &key).unwrap();
    fs::copy(&ca.leaf().cert, &cert).unwrap();
    ssegate
        .wait_log("the wrong key", |line| {
            broken(line) && field(line, "error").is_some_and(|error| error.contains("does not belong"))
        })
        .await;
    assert_eq!(ssegate.log().iter().filter(|line| broken(line)).count(), 2);
    assert_eq!(shown(&visit(ssegate.addr(), "localhost", &any()).await.unwrap()), first);
    let status = ssegate.status().await;
    assert!(
        status["tls"][0]["last_error"]["error"].as_str().unwrap().contains("does not belong"),
        "{status}"
    );
    assert_eq!(outdated().await, 1.0);
    let failed = [("name", &*name), ("outcome", "failed")];
    assert_eq!(ssegate.metrics().await.sum("ssegate_tls_updates_total", &failed), 2.0);

    fs::copy(&other.cert, &cert).unwrap();
    until_shown(&ssegate, &other.der()).await;
    assert_eq!(outdated().await, 0.0);
    assert!(ssegate.status().await["tls"][0]["last_error"].is_null());
    assert!(ssegate.log().iter().all(|line| !line.to_string().contains("PRIVATE KEY")));
}

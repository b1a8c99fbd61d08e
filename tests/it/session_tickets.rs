//! TLS sessions that are resumed: at the process that began them, and at others that share its ticket keys.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::HandshakeKind::{self, Full, Resumed};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::support::scratch;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::{TestCa, blind_config, default_provider, visit};
use crate::support::wait::eventually;
use crate::tls::{config, pair};

async fn start(more: &str) -> Ssegate {
    Ssegate::start(config(&format!("{{ {} {more} }}", pair(TestCa::shared().leaf())))).await
}

/// A client that has no session yet.
fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    blind_config(&[], &[version], default_provider())
}

async fn comes_to(ssegate: &Ssegate, client: &Arc<ClientConfig>) -> HandshakeKind {
    let stream = visit(ssegate.addr(), "localhost", client).await.unwrap();
    stream.get_ref().1.handshake_kind().unwrap()
}

fn replace(file: &Path, keys: &[char]) {
    let new = file.with_extension("new");
    let lines: Vec<String> = keys.iter().map(|key| key.to_string().repeat(64)).collect();
    fs::write(&new, lines.join("\n")).unwrap();
    fs::rename(new, file).unwrap();
}

#[tokio::test]
async fn a_session_is_resumed_at_any_replica_that_shares_the_keys() {
    let dir = scratch::dir("tickets");
    let keys = dir.path().join("keys");
    replace(&keys, &['1']);
    let tickets = format!(", tickets: {{ keys: {} }}", keys.display());
    let (one, two, alone) = (start(&tickets).await, start(&tickets).await, start("").await);
    for version in [&TLS12, &TLS13] {
        let known = client(version);
        assert_eq!(comes_to(&one, &known).await, Full);
        assert_eq!(comes_to(&one, &known).await, Resumed);
        assert_eq!(comes_to(&two, &known).await, Resumed, "{version:?}");
        assert_eq!(comes_to(&alone, &known).await, Full, "{version:?}");
    }
}

#[tokio::test]
async fn each_process_has_keys_of_its_own_otherwise() {
    let tls = config(&format!("{{ {} }}", pair(TestCa::shared().leaf())));
    let (one, two) = (Ssegate::start(tls.clone()).await, Ssegate::start(tls).await);
    for version in [&TLS12, &TLS13] {
        let known = client(version);
        assert_eq!(comes_to(&one, &known).await, Full);
        assert_eq!(comes_to(&one, &known).await, Resumed);
        assert_eq!(comes_to(&two, &known).await, Full);
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart() {
    let dir = scratch::dir("rotation");
    let keys = dir.path().join("keys");
    replace(&keys, &['1']);
    let ssegate = start(&format!(", tickets: {{ keys: {} }}", keys.display())).await;
    let anew = async |count: usize| {
        eventually("new keys", async || {
            let read = |line: &&serde_json::Value| field(line, "message") == Some("read anew");
            let times = ssegate.log().iter().filter(read).count();
            if times == count { Ok(()) } else { Err(format!("read anew {times} times")) }
        })
        .await;
    };
    let known = client(&TLS13);
    assert_eq!(comes_to(&ssegate, &known).await, Full);
    replace(&keys, &['2', '1']);
    anew(1).await;
    assert_eq!(
        comes_to(&ssegate, &known).await,
        Resumed,
        "by the old key, and is given a ticket of the new one"
    );
    let later = client(&TLS13);
    assert_eq!(comes_to(&ssegate, &later).await, Full);
    replace(&keys, &['2']);
    anew(2).await;
    assert_eq!(comes_to(&ssegate, &known).await, Resumed);
    assert_eq!(comes_to(&ssegate, &later).await, Resumed);
    replace(&keys, &['3']);
    anew(3).await;
    assert_eq!(comes_to(&ssegate, &known).await, Full, "a key that is gone opens nothing");
    fs::write(&keys, "secret").unwrap();
    ssegate
        .wait_log("what is no key", |line| line.to_string().contains("line 1 of this file is not a key"))
        .await;
    assert_eq!(comes_to(&ssegate, &known).await, Resumed, "the keys before stay");
}

/// A ticket of where nobody asks who a client is opens no door where everybody has to say so.
#[tokio::test]
async fn a_ticket_stands_for_no_certificate() {
    let dir = scratch::dir("bypass");
    let keys = dir.path().join("keys");
    replace(&keys, &['1']);
    let tickets = format!(", tickets: {{ keys: {} }}", keys.display());
    let open = start(&tickets).await;
    let ca = TestCa::new();
    let closed = start(&format!("{tickets}, client: {{ ca: {} }}", ca.cert_path().display())).await;
    for version in [&TLS12, &TLS13] {
        let known = client(version);
        assert_eq!(comes_to(&open, &known).await, Full);
        assert_eq!(comes_to(&open, &known).await, Resumed);
        visit(closed.addr(), "localhost", &known).await.unwrap_err();
    }
}

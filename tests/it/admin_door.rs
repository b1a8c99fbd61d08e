//! Where the admin listener listens, and for whom.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use http::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::http::{Connect, Reply, request};
use crate::support::scratch;
use crate::support::ssegate::Ssegate;

const REST: &str =
    "upstreams: { lobby: { push: {} } }\nroutes: [ { path: /m, from: { upstream: lobby, channel: m } } ]\n";

async fn ask(ssegate: &Ssegate, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(Method::GET, &ssegate.admin_url(path), headers, "", &Connect::http1()).await
}

#[tokio::test]
async fn with_a_token_nothing_but_health_is_open() {
    let listen = "admin: { listen: \"127.0.0.1:0\", token: \"${ADMIN_TOKEN}\" }\n";
    let token = "a-token-of-the-test";
    let start = Ssegate::builder().config(format!("{listen}{REST}")).env("ADMIN_TOKEN", token).start();
    let ssegate = start.await;
    for path in ["/healthz", "/readyz"] {
        assert_ne!(ask(&ssegate, path, &[]).await.status, 401, "{path}");
    }
    for path in ["/", "/page.js", "/metrics", "/status", "/status/live", "/status/clients", "/nowhere"] {
        let refused = ask(&ssegate, path, &[("authorization", "Bearer a-token-of-the-tesT")]).await;
        let told = (refused.status.as_u16(), refused.header("www-authenticate"));
        assert_eq!(told, (401, "Basic realm=\"ssegate\""), "{path}");
        assert_eq!(refused.json()["type"], "urn:ssegate:problem:no-token");
    }
    for (method, path) in
        [(Method::POST, "/drain"), (Method::POST, "/publish/m"), (Method::DELETE, "/clients/0")]
    {
        assert_eq!(ssegate.admin(method, path, "").await.status, 401, "{path}");
    }
    // `me:a-token-of-the-test`
    for shown in ["Bearer a-token-of-the-test", "Basic bWU6YS10b2tlbi1vZi10aGUtdGVzdA=="] {
        let shown = [("authorization", shown), ("host", "ssegate.example")];
        assert_eq!(ask(&ssegate, "/status", &shown).await.status, 200);
        assert_eq!(ask(&ssegate, "/nowhere", &shown).await.status, 404);
    }
    ssegate
        .wait_log("the wrong token", |line| {
            line["message"].as_str().is_some_and(|m| m.contains("not its own"))
        })
        .await;
    let status = ask(&ssegate, "/status", &[("authorization", "Bearer a-token-of-the-test")]).await.text();
    assert!(!format!("{status}{:?}", ssegate.log()).contains(token));
}

#[tokio::test]
async fn a_page_that_has_its_name_lead_here_is_not_answered() {
    let ssegate = Ssegate::start(REST).await;
    for path in ["/", "/status", "/metrics", "/status/live"] {
        let answer = ask(&ssegate, path, &[("host", "rebound.example:9090")]).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["type"]),
            (421, &json!("urn:ssegate:problem:wrong-host"))
        );
    }
    assert_eq!(ask(&ssegate, "/healthz", &[("host", "any.example")]).await.status, 200);
    assert_eq!(ask(&ssegate, "/status", &[("host", "localhost:9090")]).await.status, 200);
}

#[tokio::test]
async fn what_others_can_reach_needs_a_token() {
    let refused = Ssegate::builder().config(format!("admin: {{ listen: 0.0.0.0:0 }}\n{REST}")).check().await;
    assert_eq!(refused.status.code(), Some(78));
    assert!(refused.stderr.contains("set `admin.token`"), "{}", refused.stderr);
    let listen = "admin: { listen: \"0.0.0.0:0\", token: 0123456789abcdef }\n";
    let checked = Ssegate::builder().config(format!("{listen}{REST}")).check().await;
    assert!(checked.status.success() && checked.stdout.contains("0.0.0.0:0  with a token"), "{checked:?}");
    assert!(!checked.stdout.contains("0123456789abcdef"));
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_and_its_group_and_goes_with_the_process() {
    let folder = scratch::dir("admin");
    let path = folder.path().join("admin.sock");
    let config = format!("admin: {{ listen: \"unix:{}\" }}\n{REST}", path.display());
    let mut ssegate = Ssegate::start(&*config).await;
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert!(
        over(&path, "GET /status HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n\r\n")
            .await
            .contains("\"lobby\"")
    );
    assert!(over(&path, "GET /healthz HTTP/1.0\r\n\r\n").await.ends_with("alive\n"));

    let other = Ssegate::builder().config(&*config).serve_to_exit().await;
    assert_eq!(other.status.code(), Some(1));
    assert!(other.stderr.contains("another process listens there"), "{}", other.stderr);
    assert!(path.exists(), "the other one's failure takes nothing away");

    // One that is killed leaves its file, and the next one takes its place.
    ssegate.kill();
    assert!(path.exists());
    let mut ssegate = Ssegate::start(&*config).await;
    assert!(over(&path, "GET /healthz HTTP/1.0\r\n\r\n").await.ends_with("alive\n"));
    ssegate.signal(Signal::TERM);
    assert!(ssegate.wait_exit().await.success());
    assert!(!path.exists(), "it goes with the process");
}

#[tokio::test]
async fn what_is_no_socket_and_what_is_anothers_stays() {
    let folder = scratch::dir("admin");
    let path = folder.path().join("admin.sock");
    let config = format!("admin: {{ listen: \"unix:{}\" }}\n{REST}", path.display());
    fs::write(&path, "precious").unwrap();
    let refused = Ssegate::builder().config(&*config).serve_to_exit().await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("this is not a socket"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    let mut ssegate = Ssegate::start(&*config).await;
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    assert!(ssegate.terminate().await.success());
    assert!(path.exists(), "another process has put its own there");
}

/// All that is answered to `request`.
async fn over(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

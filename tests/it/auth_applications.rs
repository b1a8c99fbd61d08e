//! Who may come to an application: what routes with `proxy` and `auth` let through, and what never reaches it.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::applications::{tls, until};
use crate::auth::SECRET;
use crate::support::app::App;
use crate::support::http::{Connect, Reply, Version, request};
use crate::support::origin::{Answer, Origin};
use crate::support::ssegate::Ssegate;
use crate::support::token::{hs256, now};
use crate::support::wait::within;

async fn before(app: &App, endpoint: &Origin) -> Ssegate {
    start(app, endpoint, "").await
}

async fn start(app: &App, endpoint: &Origin, more: &str) -> Ssegate {
    let (addr, url) = (app.addr, endpoint.url("/auth"));
    Ssegate::start(format!(
        r#"
log: {{ format: json, level: debug }}
auth:
  users: {{ jwt: {{ secret: "{SECRET}", leeway: 0s, cookie: session, query: access_token }} }}
  tickets: {{ ticket: {{ path: /tickets, of: users }} }}
  asked: {{ forward: {{ url: "{url}", claims: [x-user], cache: 0 }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
defaults: {{ auth: [users, tickets] }}
routes:
  - {{ path: /events, from: {{ upstream: lobby, channel: a }} }}
  - {{ path: "/{{*rest}}", proxy: "http://{addr}" }}
  - {{ path: "/rooms/{{room}}", proxy: "http://{addr}", allow: params.room in claims.rooms }}
  - {{ path: "/public/{{*rest}}", proxy: "http://{addr}", auth: none }}
  - {{ path: "/public/{{*rest}}", host: guarded.example, proxy: "http://{addr}" }}
  - {{ path: "/asked/{{*rest}}", proxy: "http://{addr}", auth: asked, allow: "claims['x-user'] == 'alice'" }}
{more}
"#
    ))
    .await
}

fn alice() -> String {
    hs256(SECRET, json!({ "sub": "alice", "rooms": ["a"] }))
}

async fn ask(ssegate: &Ssegate, path: &str, headers: &[(&str, &str)], how: &Connect) -> Reply {
    request(Method::GET, &ssegate.url(path), headers, "", how).await
}

fn both() -> [Connect; 2] {
    [Connect::http1(), Connect::http2()]
}

#[track_caller]
fn refused(answer: &Reply, status: u16, name: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, "application/problem+json"));
    assert_eq!(answer.json()["type"], format!("urn:ssegate:problem:{name}"));
    assert!(!answer.text().contains("alice") && answer.header("x-app").is_empty(), "{}", answer.text());
}

#[tokio::test]
async fn who_is_not_let_in_does_not_reach_the_application() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = before(&app, &endpoint).await;
    let bearer = format!("Bearer {}", alice());
    let old = format!("Bearer {}", hs256(SECRET, json!({ "sub": "alice", "exp": 1_000 })));
    for how in both() {
        for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
            let answer = request(method, &ssegate.url("/x"), &[], "a body", &how).await;
            refused(&answer, 401, "no-credential");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        let head = request(Method::HEAD, &ssegate.url("/x"), &[], "", &how).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (401, 0));
        refused(&ask(&ssegate, "/x", &[("authorization", &old)], &how).await, 401, "bad-credential");
        refused(&ask(&ssegate, "/rooms/b", &[("authorization", &bearer)], &how).await, 403, "forbidden");
    }
    let mut socket = tls(&ssegate).await;
    let head = "GET /switch HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = &mut String::new();
    until(&mut socket, answer, "no-credential").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(app.connections(), 0);
    for how in both() {
        let public = ask(&ssegate, "/public/x", &[], &how).await;
        assert_eq!((public.status.as_u16(), public.header("x-app")), (200, "1"));
    }
    let metrics = ssegate.metrics().await;
    let labels = [("route", "/{*rest}"), ("outcome", "missing")];
    assert_eq!(metrics.sum("ssegate_auth_decisions_total", &labels), 11.0);
    assert_eq!(metrics.sum("ssegate_proxied_requests_total", &[]), 2.0);
}

#[tokio::test]
async fn who_is_let_in_comes_with_all_that_he_has_brought() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = before(&app, &endpoint).await;
    let token = alice();
    let (bearer, cookie) = (format!("Bearer {token}"), format!("session={token}"));
    for how in both() {
        for path in ["/", "/x?y=1", "/rooms/a", "/a%2Fb", "/a//b"] {
            let told = ask(&ssegate, path, &[("authorization", &bearer)], &how).await.json();
            assert_eq!(
                (&told["target"], &told["headers"]["authorization"]),
                (&path.into(), &(*bearer).into())
            );
        }
        let posted = [("authorization", &*bearer)];
        let told = request(Method::POST, &ssegate.url("/x"), &posted, "some text", &how).await.json();
        assert_eq!(told["body"], "some text");
        let in_query = format!("/x?access_token={token}");
        assert_eq!(ask(&ssegate, &in_query, &[], &how).await.json()["target"], in_query);
        // A page of its own, a link from elsewhere, and what another site sends along.
        let visit = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let framed =
            [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        for (from, status) in [
            (&[("sec-fetch-site", "same-origin")][..], 200),
            (&[][..], 200),
            (&visit, 200),
            (&framed, 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("origin", "https://evil.example")], 403),
        ] {
            let mut headers = from.to_vec();
            headers.push(("cookie", &cookie));
            assert_eq!(ask(&ssegate, "/x", &headers, &how).await.status, status, "{from:?}");
        }
        let mut form = visit.to_vec();
        form.extend([("cookie", &*cookie), ("origin", "https://evil.example")]);
        let answer = request(Method::POST, &ssegate.url("/x"), &form, "", &how).await;
        refused(&answer, 403, "forbidden");
    }
    ssegate.publish("a", "the log is whole up to here").await;
    assert!(ssegate.log().iter().all(|line| !line.to_string().contains(&token)), "a token in the log");
}

/// No page can give a WebSocket a header.
#[tokio::test]
async fn a_ticket_lets_a_web_socket_in_once() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = before(&app, &endpoint).await;
    let bearer = format!("Bearer {}", alice());
    let url = ssegate.url("/tickets?path=/switch");
    let ticket = request(Method::POST, &url, &[("authorization", &bearer)], "", &Connect::http1()).await;
    let target = ticket.json()["url"].as_str().unwrap().to_owned();
    for status in [101, 401] {
        let mut socket = tls(&ssegate).await;
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = &mut String::new();
        until(&mut socket, answer, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        if status == 101 {
            assert!(answer.contains("set-cookie: ssegate-tickets="), "{answer}");
            socket.write_all(b"hello;").await.unwrap();
            until(&mut socket, answer, "hello;").await;
        }
    }
}

/// A WebSocket of whoever has this token.
async fn web_socket(ssegate: &Ssegate, token: &str) -> TlsStream<TcpStream> {
    let mut socket = tls(ssegate).await;
    let head = format!(
        "GET /switch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = &mut String::new();
    until(&mut socket, answer, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    socket
}

async fn echoes(socket: &mut TlsStream<TcpStream>) {
    socket.write_all(b"hello;").await.unwrap();
    until(socket, &mut String::new(), "hello;").await;
}

#[tokio::test]
async fn a_web_socket_ends_with_the_credential_of_its_client() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = before(&app, &endpoint).await;
    let expires = now() + 4;
    let token = |exp| hs256(SECRET, json!({ "sub": "alice", "exp": exp }));
    let mut brief = web_socket(&ssegate, &token(expires)).await;
    let mut long = web_socket(&ssegate, &token(expires + 300)).await;
    let _ = within("the end", brief.read_to_end(&mut Vec::new())).await;
    assert!(now() >= expires);
    echoes(&mut long).await;
}

#[tokio::test]
async fn a_web_socket_ends_when_its_clients_credential_is_withdrawn() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let dir = crate::support::scratch::dir("deny");
    let file = dir.path().join("deny");
    std::fs::write(&file, "").unwrap();
    let ssegate = start(&app, &endpoint, &format!("deny: {}", file.display())).await;
    let of = |subject: &str| hs256(SECRET, json!({ "sub": subject, "rooms": ["a"] }));
    let mut alice = web_socket(&ssegate, &of("alice")).await;
    let mut bob = web_socket(&ssegate, &of("bob")).await;
    std::fs::write(dir.path().join("new"), "sub:alice\n").unwrap();
    std::fs::rename(dir.path().join("new"), &file).unwrap();
    let _ = within("the end", alice.read_to_end(&mut Vec::new())).await;
    echoes(&mut bob).await;
}

#[tokio::test]
async fn an_endpoint_decides_and_while_it_is_away_nobody_is_let_in() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = before(&app, &endpoint).await;
    endpoint.say("/auth", 500, "");
    for how in both() {
        let answer = ask(&ssegate, "/asked/x", &[], &how).await;
        refused(&answer, 503, "undecided");
        assert_eq!(answer.header("retry-after"), "5");
    }
    for (status, user, expected) in
        [(200, "alice", 200), (200, "bob", 403), (401, "alice", 401), (403, "", 403)]
    {
        let headers = vec![("x-user".to_owned(), user.to_owned())];
        endpoint.set("/auth", Answer { status, headers, body: String::new() });
        let before = app.connections();
        let answer = request(Method::PUT, &ssegate.url("/asked/x"), &[], "", &Connect::http1()).await;
        assert_eq!(answer.status, expected);
        assert!(app.connections() == before || expected == 200);
    }
    assert_eq!(endpoint.requests("/auth").last().unwrap()["x-forwarded-method"], "PUT");
}

/// An application may read a path otherwise than the one that lets in by it.
#[tokio::test]
async fn no_spelling_of_a_path_goes_around_the_door() {
    let (app, endpoint) = (App::start().await, Origin::start().await);
    let ssegate = before(&app, &endpoint).await;
    for how in both() {
        for path in [
            "/public/../x",
            "/public/%2e%2e/x",
            "/public/..%2fx",
            "/public/..%5Cx",
            "/public/..;/x",
            "/public/x/%2E./../../x",
            "/public/../rooms/b",
        ] {
            refused(&ask(&ssegate, path, &[], &how).await, 400, "bad-request");
        }
        assert_eq!(
            ask(&ssegate, "/public/a%2Fb//c;d", &[], &how).await.json()["target"],
            "/public/a%2Fb//c;d"
        );
        if how.version == Version::One {
            for host in ["guarded.example", "Guarded.Example.", "guarded.example.:8443"] {
                refused(&ask(&ssegate, "/public/x", &[("host", host)], &how).await, 401, "no-credential");
            }
        }
        let bearer = format!("Bearer {}", alice());
        for path in ["/rooms/a/../b", "//rooms/b", "/%72ooms/b", "/x/../rooms/b", "/rooms/b;x/../b", "/./x"] {
            refused(&ask(&ssegate, path, &[("authorization", &bearer)], &how).await, 400, "bad-request");
        }
    }
}

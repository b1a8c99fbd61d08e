//! Cross-origin headers on streams, preflights and errors.

use http::Method;

use crate::support::http::{Connect, Reply, request};
use crate::support::ssegate::Ssegate;

async fn ask(ssegate: &Ssegate, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(method, &ssegate.url(path), headers, "", &Connect::http1()).await
}

#[tokio::test]
async fn cors_stands_on_every_answer_of_its_route_and_no_other() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes:
  - path: /listed
    from: { upstream: lobby, channel: a }
    cors: { origins: ["https://shop.example.com"], credentials: true }
  - path: "/bad/{name}"
    from: { upstream: lobby, channel: "{name}" }
    params: { name: "[a-z]+" }
    cors: { origins: ["https://shop.example.com"] }
  - { path: /any, from: { upstream: lobby, channel: a }, cors: { origins: "*" } }
  - { path: /none, from: { upstream: lobby, channel: a } }
"#,
    )
    .await;
    let shop = ("origin", "https://shop.example.com");
    let preflight =
        [shop, ("access-control-request-method", "GET"), ("access-control-request-headers", "last-event-id")];
    for (method, headers, status) in [
        (Method::HEAD, &[shop][..], 200),
        (Method::POST, &[shop], 405),
        (Method::GET, &[shop, ("accept", "text/html")], 406),
        (Method::OPTIONS, &preflight, 204),
    ] {
        let answer = ask(&ssegate, method.clone(), "/listed", headers).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example.com", "{method}");
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(answer.header("vary").contains("origin"));
    }
    let answer = ask(&ssegate, Method::OPTIONS, "/listed", &preflight).await;
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD");
    assert!(answer.header("access-control-allow-headers").contains("last-event-id"));
    assert_eq!(answer.header("access-control-max-age"), "600");

    for (path, status) in [("/bad/%00", 400), ("/bad/UPPER", 404)] {
        let bad = ask(&ssegate, Method::GET, path, &[shop]).await;
        assert_eq!(bad.status, status);
        assert_eq!(bad.header("access-control-allow-origin"), "https://shop.example.com", "{path}");
    }

    let other = ask(&ssegate, Method::HEAD, "/listed", &[("origin", "https://evil.example")]).await;
    assert_eq!((other.header("access-control-allow-origin"), other.header("vary")), ("", "origin"));
    let any = ask(&ssegate, Method::HEAD, "/any", &[shop]).await;
    assert_eq!(any.header("access-control-allow-origin"), "*");
    assert_eq!(any.header("access-control-allow-credentials"), "");
    let none = ask(&ssegate, Method::HEAD, "/none", &[shop]).await;
    assert_eq!(none.header("access-control-allow-origin"), "");
}

/// Origins that are many: all names below one, and what an expression matches as a whole.
#[tokio::test]
async fn origins_by_wildcard_and_by_expression() {
    let ssegate = Ssegate::start(
        r#"
upstreams: { lobby: { push: {} } }
routes:
  - path: /below
    from: { upstream: lobby, channel: a }
    cors: { origins: ["https://*.example.com"], credentials: true }
  - path: /regex
    from: { upstream: lobby, channel: a }
    cors: { origins: [{ regex: 'https://shop-[0-9]+\.example\.com' }], credentials: true }
"#,
    )
    .await;
    for (path, origin, allowed) in [
        ("/below", "https://a.example.com", true),
        ("/below", "https://a.b.example.com", true),
        ("/below", "https://example.com", false),
        ("/below", "https://aexample.com", false),
        ("/below", "http://a.example.com", false),
        ("/below", "https://a.example.com:8443", false),
        ("/below", "https://a.example.com.evil", false),
        ("/below", "https://evil/.example.com", false),
        ("/regex", "https://shop-7.example.com", true),
        ("/regex", "https://shop-.example.com", false),
        ("/regex", "https://shop-7.example.com.evil", false),
        ("/regex", "evil https://shop-7.example.com", false),
        ("/regex", "https://shop-7xexample.com", false),
    ] {
        for method in [Method::HEAD, Method::OPTIONS, Method::POST] {
            let headers = [("origin", origin), ("access-control-request-method", "GET")];
            let answer = ask(&ssegate, method, path, &headers).await;
            let told = if allowed { [origin, "true", "600"] } else { [""; 3] };
            let names = ["allow-origin", "allow-credentials", "max-age"];
            assert_eq!(
                names.map(|name| answer.header(&format!("access-control-{name}")).to_owned()),
                told,
                "{path} {origin}"
            );
            assert_eq!(answer.header("vary"), "origin");
        }
    }
}

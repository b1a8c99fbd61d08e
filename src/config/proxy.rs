//! `proxy:` of a route: the application that answers what is no event stream, so that page and streams have one
//! origin. Who may come to it is said as for streams.

use std::time::Duration;

use http::uri::{Authority, Uri};

use super::fields::{Bounds, Fields};
use super::hosts;
use super::keys;
use super::model::ProxyTo;
use super::tree::{Node, Value};
use super::walk::{Scalar, Walk};

pub(super) const CONNECTIONS: Bounds<usize> = Bounds { default: 1_000, min: 1, max: 100_000 };
pub(super) const CONNECT_TIMEOUT: Bounds<Duration> =
    Bounds { default: Duration::from_secs(5), min: Duration::from_millis(100), max: Duration::from_mins(5) };
pub(super) const TIMEOUT: Bounds<Duration> =
    Bounds { default: Duration::from_mins(1), min: Duration::from_millis(100), max: Duration::from_hours(1) };

/// HAProxy's documentation recommends an hour for its `timeout tunnel`.
pub(super) const TUNNEL_TIMEOUT: Bounds<Duration> =
    Bounds { default: Duration::from_hours(1), min: Duration::from_secs(1), max: Duration::from_hours(24) };

const URL: &str = "the URL of an application such as `http://127.0.0.1:3000`";

/// The keys of a route that a route with `proxy` can have.
const BESIDE: [&str; 5] = ["path", "host", "proxy", "auth", "allow"];

/// Reads `proxy` of a route, and reports what has no meaning beside it.
pub(super) fn read(walk: &Walk<'_>, route: &Fields<'_>) -> Option<ProxyTo> {
    for entry in route.present().filter(|entry| !BESIDE.contains(&entry.key.text.as_str())) {
        let text = format!(
            "`{}` is of routes that are event streams, and `proxy` passes requests on as they are; remove one of them",
            entry.key.text
        );
        walk.problem(entry.key.span, text);
    }
    let node = route.node("proxy")?;
    if !matches!(node.value, Value::Map(_)) {
        let to = read_url(walk, node)?;
        return Some(ProxyTo {
            to,
            connections: CONNECTIONS.default,
            connect_timeout: CONNECT_TIMEOUT.default,
            timeout: TIMEOUT.default,
            tunnel_timeout: TUNNEL_TIMEOUT.default,
        });
    }
    let fields = Fields::open(walk, node, keys::PROXY)?;
    let connections = fields.count("connections", &CONNECTIONS).unwrap_or(CONNECTIONS.default);
    let time =
        |key, bounds: &'static Bounds<Duration>| fields.duration(key, bounds).unwrap_or(bounds.default);
    let connect_timeout = time("connect_timeout", &CONNECT_TIMEOUT);
    let timeout = time("timeout", &TIMEOUT);
    let tunnel_timeout = time("tunnel_timeout", &TUNNEL_TIMEOUT);
    let to = fields.required("to", "it is the URL of the application, such as `http://127.0.0.1:3000`");
    Some(ProxyTo { to: read_url(walk, to?)?, connections, connect_timeout, timeout, tunnel_timeout })
}

fn read_url(walk: &Walk<'_>, node: &Node) -> Option<Authority> {
    let scalar = walk.text(node, URL)?;
    url(&scalar.text).map_err(|advice| reject(walk, &scalar, advice)).ok()
}

fn reject(walk: &Walk<'_>, scalar: &Scalar<'_>, advice: &str) {
    walk.problem(scalar.span(), format!("{} is not {URL}; {advice}", scalar.shown()));
}

fn url(text: &str) -> Result<Authority, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "write scheme, host and port")?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err("TLS to applications is not supported; name a port that speaks plain HTTP");
        }
        _ => return Err("write `http://` before host and port"),
    }
    if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/")) {
        return Err("leave out what follows the port: requests are passed on with their own path");
    }
    let authority = uri.authority().ok_or("write scheme, host and port")?;
    if authority.as_str().contains('@') {
        return Err("leave out user and password");
    }
    let sound = hosts::is_host(authority.as_str()) || hosts::host_and_port(authority.as_str()).is_some();
    sound.then(|| authority.clone()).ok_or("its host or port is none")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::model::Proxy;
    use crate::config::testing::{HEAD, expect, sound};

    fn one(keys: &str) -> Proxy {
        sound(&format!("{HEAD}  - {{ path: /t, from: {{ upstream: t }} }}\n  - {{ {keys} }}\n"))
            .proxies
            .remove(0)
    }

    #[test]
    fn a_url_or_a_mapping() {
        let proxy = one("path: '/{*rest}', proxy: 'http://127.0.0.1:3000/'");
        assert_eq!((&*proxy.path, proxy.to.to.as_str(), proxy.host), ("/{*rest}", "127.0.0.1:3000", None));
        assert_eq!((proxy.to.connect_timeout, proxy.to.timeout), (CONNECT_TIMEOUT.default, TIMEOUT.default));
        assert_eq!(proxy.to.tunnel_timeout, Duration::from_hours(1));
        let proxy = one(
            "path: /a, host: a.example, proxy: { to: 'http://app', connect_timeout: 1s, timeout: 2s, tunnel_timeout: 3s }",
        );
        assert_eq!(proxy.host.as_deref(), Some("a.example"));
        assert_eq!((proxy.to.to.as_str(), proxy.to.timeout), ("app", Duration::from_secs(2)));
        assert_eq!(proxy.to.connections, 1_000);
        assert_eq!(one("path: /a, proxy: { to: 'http://a', connections: 7 }").to.connections, 7);
        assert_eq!((proxy.to.connect_timeout.as_secs(), proxy.to.tunnel_timeout.as_secs()), (1, 3));
        assert_eq!(one("path: /a, proxy: 'http://[::1]:80'").to.to.as_str(), "[::1]:80");
    }

    #[test]
    fn who_may_come_is_said_as_for_streams() {
        let auth = "auth: { users: { forward: { url: 'http://h' } } }\ndefaults: { auth: users }\n";
        let one = |keys: &str| {
            let routes = format!(
                "  - {{ path: /t, from: {{ upstream: t }} }}\n  - {{ path: /a, proxy: 'http://a', {keys} }}\n"
            );
            sound(&format!("{auth}{HEAD}{routes}")).proxies.remove(0)
        };
        assert_eq!(one("").auth, [Arc::from("users")], "what holds for all holds here, too");
        let own = one("auth: none, allow: client.address == '::1'");
        assert_eq!((own.auth.len(), &*own.allow.unwrap().text), (0, "client.address == '::1'"));
        expect(
            &format!("{HEAD}  - {{ path: /x, proxy: 'http://a', auth: a, allow: b }}\n"),
            &[(8, 42, "no provider is called `a`"), (8, 52, "a rule knows nothing called `b`")],
        );
    }

    #[test]
    fn problems() {
        // The value of `proxy` begins in column 24.
        for (value, column, text) in [
            ("app:3000", 24, "`app:3000` is not the URL of an application"),
            ("'127.0.0.1:3000'", 24, "write"),
            ("'https://app'", 24, "TLS to applications is not supported"),
            ("'http://app/base'", 24, "leave out what follows the port"),
            ("'http://app?q'", 24, "leave out what follows the port"),
            ("'http://u:hunter2@app'", 24, "leave out user and password"),
            ("'http://a b'", 24, "write scheme, host and port"),
            ("'http://app:0'", 24, "its host or port is none"),
            ("{ timeout: 5s }", 24, "`proxy` lacks `to`"),
            ("{ to: 'http://a', timeout: 2h }", 51, "is out of bounds; it must be from 100ms to 1h"),
            ("{ to: 'http://a', connections: 0 }", 55, "is out of bounds; it must be from 1 to 100000"),
            ("{ to: 'http://a', tunnel_timeout: 0s }", 58, "is out of bounds; it must be from 1s to 1d"),
            ("{ to: 'http://a', retries: 3 }", 42, "unknown key `retries` in `proxy`"),
            ("[]", 24, "expected the URL of an application"),
        ] {
            expect(&format!("{HEAD}  - {{ path: /x, proxy: {value} }}\n"), &[(8, column, text)]);
        }
        expect(
            &format!("{HEAD}  - {{ path: /x, proxy: 'http://a', from: {{ upstream: t }}, cors: none }}\n"),
            &[(8, 36, "`from` is of routes that are event streams"), (8, 59, "`cors` is of routes")],
        );
    }
}

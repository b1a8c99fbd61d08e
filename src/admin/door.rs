//! Who may enter the admin listener: with a token who shows it, and without one who calls it by a name that no web page can
//! have it called by. Health is for everybody.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use http::header::{self, HeaderMap};
use http::uri::Authority;

use crate::auth;
use crate::config::{self, AdminListen};
use crate::http::{Problem, Said};

/// What it takes.
pub struct Door {
    /// The SHA-256 of the token.
    token: Option<[u8; 32]>,
    /// Whether its own names are all that it listens to.
    own_names: bool,
    refused: Said,
}

impl Door {
    /// As configured.
    pub fn new(config: &config::Admin) -> Self {
        let token = config.token.as_ref().map(|token| auth::digest(token.expose().as_bytes()));
        let on_loopback = matches!(&config.listen, Some(AdminListen::Tcp(address)) if address.ip().to_canonical().is_loopback());
        Self { token, own_names: on_loopback && token.is_none(), refused: Said::default() }
    }

    /// Lets a request in, or says why not.
    pub(super) fn enter<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if matches!(request.uri().path(), "/healthz" | "/readyz") {
            return Ok(());
        }
        if self.own_names && !is_own(request) {
            return Err(Problem::WrongHost);
        }
        let Some(token) = &self.token else { return Ok(()) };
        let shown = shown(request.headers());
        if shown.as_ref().is_some_and(|shown| auth::same(token, &auth::digest(shown))) {
            return Ok(());
        }
        if shown.is_some()
            && let Some(unsaid) = self.refused.again()
        {
            tracing::warn!(unsaid, "the admin listener was shown a token that is not its own");
        }
        Err(Problem::NoToken)
    }
}

/// Whether a request is to an address or to `localhost`. A page of some site can have a name of its own lead to this machine
/// (DNS rebinding), and is then asked for that name; only browsers have such pages, and they always name a host.
fn is_own<B>(request: &Request<B>) -> bool {
    let named = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let asked = request.uri().authority().map(|authority| Some(authority.as_str()));
    named.chain(asked).all(|name| name.and_then(|name| name.parse().ok()).is_some_and(is_own_name))
}

fn is_own_name(authority: Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// What is shown for a token: after `Bearer` (RFC 6750 section 2.1), or as the password of any user after `Basic` (RFC 7617
/// section 2), which is what browsers ask for.
fn shown(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest).ok())??;
    let colon = pair.iter().position(|b| *b == b':')?;
    Some(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn door(listen: &str, token: Option<&str>) -> Door {
        let listen = match listen.strip_prefix("unix:") {
            Some(path) => AdminListen::Unix(path.into()),
            None => AdminListen::Tcp(listen.parse().unwrap()),
        };
        Door::new(&config::Admin { listen: Some(listen), token: token.map(Secret::new) })
    }

    fn enter(door: &Door, fields: &[(&str, &str)]) -> Result<(), Problem> {
        let mut request = Request::builder().uri("/status");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        door.enter(&request.body(()).unwrap())
    }

    #[test]
    fn a_token_is_shown_as_such_or_as_a_password() {
        let door = door("127.0.0.1:1", Some("a token: of text"));
        let enter =
            |authorization: &str| enter(&door, &[("host", "evil.example"), ("authorization", authorization)]);
        let basic = |pair: &str| format!("bAsic {}", BASE64_STANDARD.encode(pair));
        for good in [
            "Bearer a token: of text",
            "bearer  a token: of text",
            &basic(":a token: of text"),
            &basic("me:a token: of text"),
        ] {
            assert_eq!(enter(good), Ok(()), "{good}");
        }
        for bad in [
            "a token: of text",
            "Bearer a token: of tex",
            "Bearer",
            "Bearer ",
            "Basic !",
            &basic("a token: of text"),
            &basic("me:"),
        ] {
            assert_eq!(enter(bad), Err(Problem::NoToken), "{bad}");
        }
    }

    #[test]
    fn without_a_token_it_is_called_by_names_of_its_own() {
        let own = door("127.0.0.1:9090", None);
        for good in ["localhost", "LocalHost:9090", "127.0.0.1:9090", "[::1]:9090", "10.0.0.1"] {
            assert_eq!(enter(&own, &[("host", good)]), Ok(()), "{good}");
        }
        assert_eq!(enter(&own, &[]), Ok(()), "a probe that speaks HTTP/1.0");
        for bad in
            ["evil.example", "localhost.evil.example:9090", "127.0.0.1.evil.example", "", "a b", "localhost."]
        {
            assert_eq!(enter(&own, &[("host", bad)]), Err(Problem::WrongHost), "{bad}");
        }
        assert_eq!(enter(&own, &[("host", "localhost"), ("host", "evil.example")]), Err(Problem::WrongHost));
        assert_eq!(enter(&door("unix:/a", None), &[("host", "admin.example")]), Ok(()));
    }
}

//! What a request brings, as far as decisions and rules look at it. It is kept while a decision is waited for.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::certificate::Certificate;
use super::grant::Grant;
use crate::config::Reads;

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Whether the client came over TLS.
    pub secure: bool,
    /// The host, lower-case and without a port.
    pub host: String,
    /// Host and port as the client named them.
    pub authority: String,
    /// The path as it came.
    pub path: String,
    /// The query as it came.
    pub query: String,
    /// Its header fields.
    pub headers: HeaderMap,
    /// The parameters of the route's path, decoded.
    pub params: Vec<(String, String)>,
    /// Where it comes from.
    pub client: IpAddr,
    /// What the client has shown in the TLS handshake.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether the page that sends it may use cookies: it is of this origin or of one that is listed.
    pub origin_is_listed: bool,
    /// When it came.
    pub came: Instant,
    /// What it has proven already by something that is good once, where only the key is waited for that it was given for.
    pub proven: Option<Arc<Grant>>,
}

impl Asked {
    /// The token of `authorization: Bearer` (RFC 6750 section 2.1).
    pub fn bearer(&self) -> Option<&str> {
        let value = self.headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Every value of a cookie: those of longer paths come first (RFC 6265 section 5.4).
    pub fn cookies<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(';')).filter_map(move |pair| {
            let (other, value) = pair.trim().split_once('=')?;
            (other == name).then(|| value.trim_matches('"'))
        })
    }

    /// What of it decides, in memory of its own: a header field shares that of the whole head.
    pub fn kept(self, reads: &Reads) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if reads.any_header || reads.headers.contains(name) {
                let name = HeaderName::from_bytes(name.as_str().as_bytes());
                let value = HeaderValue::from_bytes(value.as_bytes());
                headers.append(name.expect("it is one"), value.expect("it is one"));
            }
        }
        let query = if reads.query { self.query } else { String::new() };
        Self { headers, query, ..self }
    }

    /// Bytes that it takes, more or less. A certificate is its connection's.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| ENTRY + name.as_str().len() + value.len());
        let params = self.params.iter().map(|(name, value)| ENTRY + name.len() + value.len());
        let texts = self.host.len() + self.authority.len() + self.path.len() + self.query.len();
        size_of::<Self>() + texts + headers.chain(params).sum::<usize>()
    }

    /// The first value of a parameter of the query.
    pub fn query<'a>(&'a self, name: &str) -> Option<Cow<'a, str>> {
        in_query(&self.query, name)
    }
}

/// The first value of a parameter of a query.
pub fn in_query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(other, _)| other == name).map(|(_, value)| value)
}

/// What an entry of a list takes beside its text.
const ENTRY: usize = 100;

/// Requests, for tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// `GET /rooms/a` with these header fields and this query.
    pub fn asked(headers: &[(&'static str, &str)], query: &str) -> Asked {
        let field = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        };
        Asked {
            method: Method::GET,
            secure: true,
            host: "events.example".into(),
            authority: "events.example:8443".into(),
            path: "/rooms/a".into(),
            query: query.into(),
            headers: headers.iter().map(field).collect(),
            params: vec![("room".into(), "a".into())],
            client: IpAddr::from([192, 0, 2, 1]),
            certificate: None,
            origin_is_listed: true,
            came: Instant::now(),
            proven: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::asked;
    use super::*;

    #[test]
    fn credentials_are_found_where_they_stand() {
        let request =
            asked(&[("authorization", "bearer  abc "), ("cookie", "a=1; b=x=y; a=\"2\"")], "t=%41b&t=c");
        assert_eq!(request.bearer(), Some("abc"));
        assert_eq!(request.cookies("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.cookies("b").collect::<Vec<_>>(), ["x=y"]);
        assert_eq!(request.query("t").as_deref(), Some("Ab"));
        assert_eq!(request.query("u"), None);
        for other in ["Basic abc", "Bearer", "abc"] {
            assert_eq!(asked(&[("authorization", other)], "").bearer(), None, "{other}");
        }
    }

    #[test]
    fn what_decides_is_kept_and_nothing_else() {
        let head = "x".repeat(60_000);
        let fields = [("authorization", "Bearer abc"), ("x-key", "1"), ("user-agent", &head)];
        let request = || asked(&fields, "t=1");
        let mut reads = Reads { headers: vec![AUTHORIZATION], ..Reads::default() };
        let kept = request().kept(&reads);
        assert_eq!((kept.bearer(), kept.headers.len(), &*kept.query), (Some("abc"), 1, ""));
        assert!(kept.size() < 1_000, "{}", kept.size());
        let whole = request();
        let slice = |value: &HeaderValue| value.as_bytes().as_ptr();
        assert_ne!(
            slice(&whole.headers[AUTHORIZATION]),
            slice(&whole.clone().kept(&reads).headers[AUTHORIZATION])
        );
        (reads.any_header, reads.query) = (true, true);
        let kept = request().kept(&reads);
        assert_eq!((kept.headers.len(), &*kept.query), (3, "t=1"));
        assert!(kept.size() > 60_000);
    }
}

//! The access log: a line for each request, once it is answered, or its client has left before that. How a stream
//! went on is told where it ends.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{HOST, HeaderName, USER_AGENT};
use http::{Method, Request, Response, Uri, Version};
use tokio::time::Instant;

use super::body::Body;
use crate::config::{AuthKind, Config};

/// What is to be left out of it.
pub struct AccessLog {
    /// Parameters of the query that may carry what lets somebody in.
    redacted: Vec<String>,
}

/// The line of one request. It is written when this is dropped.
pub struct Entry {
    came: Instant,
    client: IpAddr,
    method: Method,
    host: Option<String>,
    uri: String,
    version: Version,
    user_agent: Option<String>,
    status: Option<u16>,
    stream: Option<u64>,
    trace_id: Option<String>,
}

impl AccessLog {
    /// The log that is configured, if one is. Besides the parameters that are named there it redacts those in which
    /// tickets, renewal links and tokens come here.
    pub fn new(config: &Config) -> Option<Self> {
        let ours = OURS.iter().copied().map(String::from);
        let tokens = config.auth.iter().filter_map(|provider| match &provider.kind {
            AuthKind::Jwt(jwt) => jwt.query.clone(),
            _ => None,
        });
        let redacted = ours.chain(tokens).chain(config.log.redact.iter().cloned()).collect();
        config.log.access.then_some(Self { redacted })
    }

    /// Begins the line of a request of this client, which belongs to this trace.
    pub fn entry<B>(&self, request: &Request<B>, client: IpAddr, trace_id: Option<String>) -> Entry {
        let field = |name: HeaderName| {
            request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let host = authority.or_else(|| field(HOST));
        Entry {
            came: Instant::now(),
            client,
            method: request.method().clone(),
            // Whatever stands before an `@` is nobody's host, and a password maybe.
            host: host.map(|host| host.rsplit('@').next().unwrap_or_default().to_owned()),
            uri: self.shown(request.uri()),
            version: request.version(),
            user_agent: field(USER_AGENT),
            status: None,
            stream: None,
            trace_id,
        }
    }

    /// Path and query as they came, without what is redacted.
    fn shown(&self, uri: &Uri) -> String {
        let mut shown = uri.path().to_owned();
        for (at, pair) in uri.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
            shown.push(if at == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, _)) if self.redacts(name) => shown.extend([name, "=REDACTED"]),
                _ => shown.push_str(pair),
            }
        }
        shown
    }

    fn redacts(&self, name: &str) -> bool {
        let name = form_urlencoded::parse(name.as_bytes()).next().map_or(Cow::Borrowed(""), |(name, _)| name);
        self.redacted.iter().any(|redacted| redacted.eq_ignore_ascii_case(&name))
    }
}

impl Entry {
    /// This is the answer.
    pub fn answered(mut self, response: &Response<Body>) {
        self.status = Some(response.status().as_u16());
        self.stream = response.body().stream_id();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        tracing::info!(
            target: TARGET,
            client = %self.client,
            method = self.method.as_str(),
            host = self.host,
            uri = self.uri,
            protocol = ?self.version,
            status = self.status,
            seconds = self.came.elapsed().as_micros() as f64 / 1e6,
            stream = self.stream,
            trace_id = self.trace_id,
            user_agent = self.user_agent,
            "request"
        );
    }
}

/// Whose lines these are, for filters.
pub const TARGET: &str = "ssegate::access";

/// Tickets, renewal links, and tokens as RFC 6750 section 2.3 names them.
const OURS: &[&str] = &["ticket", "renew", "access_token"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_left_out() {
        let log = AccessLog { redacted: ["ticket", "my token"].map(String::from).into() };
        for (uri, shown) in [
            ("/a/%2e", "/a/%2e"),
            ("/a?", "/a?"),
            ("/a?ticket=1", "/a?ticket=REDACTED"),
            ("/a?x=1&ticket=1=2&ticket=&y", "/a?x=1&ticket=REDACTED&ticket=REDACTED&y"),
            (
                "/a?%74ICKET=1&my+token=2&my%20token=3",
                "/a?%74ICKET=REDACTED&my+token=REDACTED&my%20token=REDACTED",
            ),
            ("/a?tickets=1&ticket&=ticket", "/a?tickets=1&ticket&=ticket"),
            ("https://a.example/b?ticket=1", "/b?ticket=REDACTED"),
        ] {
            assert_eq!(log.shown(&uri.parse().unwrap()), shown, "{uri}");
        }
    }

    #[test]
    fn a_host_is_told_without_the_password_that_somebody_put_before_it() {
        let log = AccessLog { redacted: Vec::new() };
        let host = |request: http::request::Builder| {
            log.entry(&request.body(()).unwrap(), IpAddr::from([127, 0, 0, 1]), None).host.clone()
        };
        for uri in ["https://alice:hunter2@a.example/b", "https://a.example/b"] {
            assert_eq!(host(Request::builder().uri(uri)).as_deref(), Some("a.example"));
        }
        let host = host(Request::builder().uri("/b").header(HOST, "alice:hunter2@a.example:8443"));
        assert_eq!(host.as_deref(), Some("a.example:8443"));
    }
}

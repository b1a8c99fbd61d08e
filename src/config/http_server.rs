//! Servers that are read over HTTP, `sse:` and `http:`: where they are, what they are shown, and how many connections they
//! are worth.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::ClientTls;
use super::server::{CONTROL_PREFIX, read_prefix};
use super::tree::Node;
use super::walk::Walk;
use super::{auth, client_tls, traces};

/// A server, and how it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpServer {
    /// `url`: what the paths of routes stand below; without a query.
    pub url: Uri,
    /// `headers` and `bearer`: what it alone is shown. Their values are marked as sensitive.
    pub headers: HeaderMap,
    /// `tls`: whom to trust and what to show, where that is not the usual.
    pub tls: ClientTls,
    /// `connections`: at most. Default 100, 1 to 100,000.
    pub connections: usize,
    /// `timeout`: for a connection, TLS included. Default 5 s, 100 ms to 5 min.
    pub timeout: Duration,
}

/// `sse:`, a server that sends events.
#[derive(Debug, Clone, PartialEq)]
pub struct Sse {
    /// Where it is.
    pub server: HttpServer,
    /// `idle`: a silence that is longer is the end of a link. Default 5 min, 1 s to 1 d.
    pub idle: Duration,
    /// `resume`: whether it goes on after the id that it is asked with. Default true.
    pub resume: bool,
    /// `relay` and `control_prefix`: where it is an ssegate, what its control events begin with.
    pub relay: Option<Arc<str>>,
}

/// `http:`, a server that answers with data.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Where it is.
    pub server: HttpServer,
    /// `stream`: whether an answer does not end, and each of its lines is an event. Default false.
    pub stream: bool,
    /// `every`: how long after an answer it is asked again. Default 5 s, 100 ms to 1 d.
    pub every: Duration,
    /// `split`: what of an answer is an event.
    pub split: Split,
    /// `idle`: how long an answer may take, and a silence in a stream. Default 5 min, 1 s to 1 d.
    pub idle: Duration,
}

/// `split:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// `none`: all of it. The default.
    None,
    /// `lines`: each of its lines.
    Lines,
    /// `array`: each element of the JSON array that it is.
    Array,
}

/// Reads `http`.
pub(super) fn read_http(walk: &Walk<'_>, node: &Node) -> Option<Http> {
    let fields = Fields::open(walk, node, keys::HTTP)?;
    let server = read_server(walk, &fields, node);
    let stream = fields.flag("stream").unwrap_or(false);
    let every = fields.duration("every", &EVERY).unwrap_or(EVERY.default);
    let splits = [("none", Split::None), ("lines", Split::Lines), ("array", Split::Array)];
    let split = fields.choice("split", &splits).unwrap_or(Split::None);
    let idle = fields.duration("idle", &IDLE).unwrap_or(IDLE.default);
    for entry in ["every", "split"].into_iter().filter_map(|key| fields.entry(key)).filter(|_| stream) {
        let text =
            format!("a `stream` is read line by line and not asked again; remove `{}`", entry.key.text);
        walk.problem(entry.key.span, text);
    }
    Some(Http { server: server?, stream, every, split, idle })
}

/// Reads `sse`.
pub(super) fn read_sse(walk: &Walk<'_>, node: &Node) -> Option<Sse> {
    let fields = Fields::open(walk, node, keys::SSE)?;
    let server = read_server(walk, &fields, node);
    let idle = fields.duration("idle", &IDLE).unwrap_or(IDLE.default);
    let resume = fields.flag("resume").unwrap_or(true);
    let relay = fields.flag("relay").unwrap_or(false);
    let prefix = fields.node("control_prefix").map(|node| read_prefix(walk, node));
    if let (Some(entry), false) = (fields.entry("control_prefix"), relay) {
        let text = "`control_prefix` is that of an ssegate; add `relay: true`, or remove it";
        walk.problem(entry.key.span, text);
    }
    if let (Some(entry), true, false) = (fields.entry("resume"), relay, resume) {
        walk.problem(entry.key.span, "an ssegate resumes; remove `resume`, or `relay`");
    }
    let prefix = prefix.unwrap_or_else(|| Some(CONTROL_PREFIX.into()));
    Some(Sse { server: server?, idle, resume, relay: prefix.filter(|_| relay) })
}

/// Reads the keys that all such servers have.
fn read_server(walk: &Walk<'_>, fields: &Fields<'_>, node: &Node) -> Option<HttpServer> {
    let url = fields.required("url", "it is the server, such as `https://app.internal/`");
    let url = url.and_then(|node| read_url(walk, node));
    let mut headers =
        fields.node("headers").map(|node| traces::read_headers(walk, node, &OURS)).unwrap_or_default();
    if let Some(token) = fields.node("bearer").and_then(|node| read_bearer(walk, node))
        && headers.insert(AUTHORIZATION, token).is_some()
    {
        walk.problem(node.span, "`headers` have an `authorization` already; keep that or `bearer`");
    }
    let tls = fields.node("tls").and_then(|node| client_tls::read(walk, node)).unwrap_or_default();
    if let (Some(entry), Some("http")) = (fields.entry("tls"), url.as_ref().and_then(Uri::scheme_str)) {
        walk.problem(
            entry.key.span,
            "`tls` is for `https://`, and the URL does not say so; change it, or remove `tls`",
        );
    }
    let connections = fields.count("connections", &CONNECTIONS).unwrap_or(CONNECTIONS.default);
    let timeout = fields.duration("timeout", &TIMEOUT).unwrap_or(TIMEOUT.default);
    Some(HttpServer { url: url?, headers, tls, connections, timeout })
}

fn read_url(walk: &Walk<'_>, node: &Node) -> Option<Uri> {
    let url = auth::read_url(walk, node)?;
    if url.query().is_some() {
        walk.problem(
            node.span,
            "the URL of a server has no query; it is the `path` of a route that may have one",
        );
    }
    Some(url)
}

fn read_bearer(walk: &Walk<'_>, node: &Node) -> Option<HeaderValue> {
    let scalar = walk.text(node, "a token")?;
    let value =
        HeaderValue::try_from(format!("Bearer {}", scalar.text)).ok().filter(|_| !scalar.text.is_empty());
    let Some(mut value) = value else {
        walk.problem(scalar.span(), "a token has characters other than control characters, and at least one");
        return None;
    };
    value.set_sensitive(true);
    Some(value)
}

impl HttpServer {
    /// What logs and messages call it.
    pub fn shown(&self) -> String {
        let authority = self.url.authority().map(http::uri::Authority::as_str);
        let (scheme, path) = (self.url.scheme_str().unwrap_or_default(), self.url.path());
        format!("{scheme}://{}{path}", authority.unwrap_or_default())
    }
}

pub(super) const CONNECTIONS: Bounds<usize> = Bounds { default: 100, min: 1, max: 100_000 };
pub(super) const TIMEOUT: Bounds<Duration> =
    Bounds { default: Duration::from_secs(5), min: Duration::from_millis(100), max: Duration::from_mins(5) };
pub(super) const IDLE: Bounds<Duration> =
    Bounds { default: Duration::from_mins(5), min: Duration::from_secs(1), max: Duration::from_hours(24) };

pub(super) const EVERY: Bounds<Duration> = Bounds {
    default: Duration::from_secs(5),
    min: Duration::from_millis(100),
    max: Duration::from_hours(24),
};

/// Header fields that tell of the request, and what ssegate itself says.
const OURS: [HeaderName; 9] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    TE,
    TRANSFER_ENCODING,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("upgrade"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    /// An upstream with these keys, on line 4 from column 13 on.
    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  u:\n    sse: {{ {keys} }}\nroutes: [{{ path: /r, from: {{ upstream: u, path: /x }} }}]\n"
        )
    }

    fn sse(keys: &str) -> Sse {
        match sound(&with(keys)).upstreams.remove(0).kind {
            UpstreamKind::Sse(sse) => sse,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_is_a_url_and_what_it_is_shown() {
        let plain = sse("url: 'http://app.internal'");
        assert_eq!((plain.server.connections, plain.idle.as_secs(), plain.resume), (100, 300, true));
        assert_eq!((plain.relay.as_deref(), plain.server.shown()), (None, "http://app.internal/".into()));
        let full = sse(
            "url: 'https://a.example/b/', bearer: '${HIDDEN}', headers: { X-Tenant: t }, connections: 7, timeout: 1s, idle: 20s, resume: false",
        );
        assert_eq!(full.server.headers[AUTHORIZATION], "Bearer s3cr3t-value");
        assert!(full.server.headers.values().all(HeaderValue::is_sensitive));
        assert!(!format!("{full:?}").contains("s3cr3t"));
        assert_eq!((full.server.connections, full.idle.as_secs(), full.resume), (7, 20, false));
        assert_eq!(sse("url: 'http://a', relay: true").relay.as_deref(), Some("stream."));
        assert_eq!(sse("url: 'http://a', relay: true, control_prefix: 'my:'").relay.as_deref(), Some("my:"));
    }

    #[test]
    fn answers_are_split_or_read_as_they_come() {
        let text = |keys: &str| with(keys).replace("sse:", "http:");
        let http = |keys: &str| match sound(&text(keys)).upstreams.remove(0).kind {
            UpstreamKind::Http(http) => http,
            other => panic!("{other:?}"),
        };
        let plain = http("url: 'http://a'");
        assert_eq!((plain.every.as_secs(), plain.split, plain.stream), (5, Split::None, false));
        let full = http("url: 'http://a', every: 250ms, split: array, idle: 1m");
        assert_eq!((full.every.as_millis(), full.split, full.idle.as_secs()), (250, Split::Array, 60));
        assert!(http("url: 'http://a', stream: true").stream);
        for (keys, column, what) in [
            ("url: 'http://a', stream: true, every: 1s", 44, "remove `every`"),
            ("url: 'http://a', split: words", 37, "`split` cannot be `words`"),
            ("url: 'http://a', every: 10ms", 37, "it must be from 100ms to 1d"),
        ] {
            expect(&text(keys), &[(4, column, what)]);
        }
    }

    #[test]
    fn what_is_wrong_with_a_server() {
        for (keys, column, text) in [
            ("idle: 1m", 10, "`sse` lacks `url`; it is the server"),
            ("idle: 1m, bearer: hunter2", 10, "`sse` lacks `url`"),
            ("idle: 1m, headers: { X-Key: hunter2 }", 10, "`sse` lacks `url`"),
            ("url: 'ftp://a'", 17, "is not a URL such as"),
            ("url: 'http://u:p@a'", 17, "user and password are not supported in it"),
            ("url: 'http://a/?b'", 17, "the URL of a server has no query"),
            ("url: 'http://a', tls: {}", 29, "`tls` is for `https://`"),
            ("url: 'http://a', headers: { Host: b }", 40, "`host` is what ssegate itself says; remove it"),
            (
                "url: 'http://a', headers: { Last-Event-ID: b }",
                40,
                "`last-event-id` is what ssegate itself says",
            ),
            (
                "url: 'http://a', headers: { Authorization: b }, bearer: c",
                10,
                "`headers` have an `authorization` already",
            ),
            ("url: 'http://a', bearer: ''", 37, "a token has characters"),
            ("url: 'http://a', control_prefix: 'my:'", 29, "add `relay: true`, or remove it"),
            ("url: 'http://a', relay: true, resume: false", 42, "an ssegate resumes; remove `resume`"),
            ("url: 'http://a', connections: 0", 42, "it must be from 1 to 100000"),
            ("url: 'http://a', idle: 10ms", 35, "it must be from 1s to 1d"),
        ] {
            expect(&with(keys), &[(4, column, text)]);
        }
    }
}

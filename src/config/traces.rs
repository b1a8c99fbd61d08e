//! `traces:`, where traces are sent to, and of which requests.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, uri};

use super::auth;
use super::client_tls::Roots;
use super::fields::{Bounds, Fields};
use super::keys;
use super::mask;
use super::tree::{Entry, Node};
use super::walk::Walk;

/// `traces:`, OpenTelemetry by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// `endpoint`: where the collector takes them, a whole URL.
    pub endpoint: Uri,
    /// `ca`: whom to trust instead of the system's authorities.
    pub roots: Option<Roots>,
    /// `headers`: what is sent along. Their values are marked as sensitive.
    pub headers: HeaderMap,
    /// `sample`: of the requests that bring no decision, the part that is traced. Default 0.01, 0 to 1.
    pub sample: f64,
    /// `parent`: whose `traceparent` counts.
    pub parent: TraceParent,
    /// `service_name`: what the collector knows the process by. Default `ssegate`.
    pub service_name: String,
    /// `attributes`: what else it knows of it.
    pub attributes: BTreeMap<String, String>,
    /// `timeout`: for one message to the collector. Default 10 s, 100 ms to 1 min.
    pub timeout: Duration,
}

/// `traces.parent:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceParent {
    /// `any`: of every request. The default.
    Any,
    /// `proxies`: of requests that `server.trusted_proxies` send.
    Proxies,
    /// `none`: of no request.
    None,
}

impl Traces {
    /// What logs call the collector: what follows the host may be a secret.
    pub fn collector(&self) -> String {
        let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let authority = self.endpoint.authority().map(uri::Authority::as_str);
        format!("{}://{}", part(self.endpoint.scheme_str()), part(authority))
    }
}

/// Reads `traces`.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Traces> {
    let fields = Fields::open(walk, node, keys::TRACES)?;
    let endpoint =
        fields.required("endpoint", "it is the collector, such as `http://127.0.0.1:4318/v1/traces`");
    let endpoint = endpoint.and_then(|node| auth::read_url(walk, node)).map(with_path);
    let roots = endpoint.as_ref().and_then(|url| auth::read_ca(walk, &fields, url));
    let headers = fields.node("headers").map(|node| read_headers(walk, node, &OURS)).unwrap_or_default();
    let sample = fields.ratio("sample", &SAMPLE).unwrap_or(SAMPLE.default);
    let parents = [("any", TraceParent::Any), ("proxies", TraceParent::Proxies), ("none", TraceParent::None)];
    let parent = fields.choice("parent", &parents).unwrap_or(TraceParent::Any);
    let service_name = fields.node("service_name").and_then(|node| read_text(walk, node, "a name"));
    let attributes = fields.node("attributes").map(|node| read_attributes(walk, node)).unwrap_or_default();
    let timeout = fields.duration("timeout", &TIMEOUT).unwrap_or(TIMEOUT.default);
    Some(Traces {
        endpoint: endpoint?,
        roots,
        headers,
        sample,
        parent,
        service_name: service_name.unwrap_or_else(|| SERVICE_NAME.to_owned()),
        attributes,
        timeout,
    })
}

/// A collector that is named without a path has OTLP's own.
fn with_path(url: Uri) -> Uri {
    if url.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return url;
    }
    let mut parts = url.into_parts();
    parts.path_and_query = Some(uri::PathAndQuery::from_static(PATH));
    Uri::from_parts(parts).expect("a URL with another path is one")
}

/// Reads `headers`, which has values that are secret for the most part; those of `ours` are not for it to say.
pub(super) fn read_headers(walk: &Walk<'_>, node: &Node, ours: &[HeaderName]) -> HeaderMap {
    let entries = walk.entries(node, "a mapping of header fields to their values").unwrap_or_default();
    entries.iter().filter_map(|entry| read_header(walk, entry, ours)).collect()
}

fn read_header(walk: &Walk<'_>, entry: &Entry, ours: &[HeaderName]) -> Option<(HeaderName, HeaderValue)> {
    let key = &entry.key;
    let Ok(name) = key.text.to_ascii_lowercase().parse::<HeaderName>() else {
        walk.problem(key.span, format!("{} is not the name of a header field", mask::quotable(&key.text)));
        return None;
    };
    if ours.contains(&name) {
        walk.problem(key.span, format!("`{name}` is what ssegate itself says; remove it"));
        return None;
    }
    let value = walk.text(&entry.value, "the value of a header field")?;
    // Not quoted: it is a secret for the most part.
    let Ok(mut sound) = HeaderValue::from_str(&value.text) else {
        walk.problem(value.span(), "a header field cannot have this value; it holds a control character");
        return None;
    };
    sound.set_sensitive(true);
    Some((name, sound))
}

fn read_attributes(walk: &Walk<'_>, node: &Node) -> BTreeMap<String, String> {
    let entries = walk.entries(node, "a mapping of attributes to text").unwrap_or_default();
    let read = |entry: &&Entry| {
        if entry.key.text == "service.name" {
            walk.problem(entry.key.span, "`service.name` is set by `service_name`");
        }
        Some((entry.key.text.clone(), read_text(walk, &entry.value, "text")?))
    };
    entries.iter().filter_map(read).collect()
}

fn read_text(walk: &Walk<'_>, node: &Node, what: &str) -> Option<String> {
    let scalar = walk.text(node, what)?;
    if scalar.text.is_empty() || scalar.text.len() > MAX_TEXT {
        walk.problem(scalar.span(), format!("{} is not {what} of 1 to {MAX_TEXT} bytes", scalar.shown()));
        return None;
    }
    Some(scalar.text.into_owned())
}

pub(super) const SAMPLE: Bounds<f64> = Bounds { default: 0.01, min: 0.0, max: 1.0 };
pub(super) const TIMEOUT: Bounds<Duration> = Bounds {
    default: Duration::from_secs(10),
    min: Duration::from_millis(100),
    max: Duration::from_secs(60),
};
pub(super) const SERVICE_NAME: &str = "ssegate";
/// Where collectors take traces (OTLP, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
/// Header fields that tell of the message.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TRANSFER_ENCODING,
];
const MAX_TEXT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{TAIL, expect, sound};
    use crate::config::warnings;

    fn with(keys: &str) -> String {
        format!("server: {{ tls: none }}\ntraces: {{ {keys} }}\n{TAIL}")
    }

    #[test]
    fn defaults_and_values() {
        assert!(sound(&format!("server: {{ tls: none }}\n{TAIL}")).traces.is_none());
        let read = |keys: &str| sound(&with(keys)).traces.unwrap();
        let traces = read("endpoint: 'http://localhost:4318'");
        assert_eq!(traces.endpoint, "http://localhost:4318/v1/traces");
        assert_eq!((traces.sample, traces.parent), (0.01, TraceParent::Any));
        assert_eq!((traces.service_name.as_str(), traces.timeout), ("ssegate", Duration::from_secs(10)));
        assert!(traces.headers.is_empty() && traces.attributes.is_empty() && traces.roots.is_none());
        let traces = read(
            "endpoint: 'https://otel/x?y', sample: 1, parent: proxies, service_name: edge, timeout: 1s, headers: { X-Key: sesame, b: 2 }, attributes: { host.name: a }",
        );
        assert_eq!(traces.endpoint, "https://otel/x?y");
        assert_eq!((traces.sample, traces.parent), (1.0, TraceParent::Proxies));
        assert_eq!((traces.service_name.as_str(), traces.timeout), ("edge", Duration::from_secs(1)));
        assert_eq!(
            (&traces.headers["x-key"], &traces.headers["b"]),
            (&"sesame".parse().unwrap(), &"2".parse().unwrap())
        );
        assert_eq!(traces.attributes["host.name"], "a");
        assert!(!format!("{traces:?}").contains("sesame"), "{traces:?}");
        assert_eq!(read("endpoint: 'http://o/', sample: 0.25, parent: none").sample, 0.25);
    }

    #[test]
    fn trace_problems() {
        expect(
            &with("sample: 1"),
            &[(
                2,
                9,
                "`traces` lacks `endpoint`; it is the collector, such as `http://127.0.0.1:4318/v1/traces`",
            )],
        );
        for (key, at, text) in [
            ("sample: 1.5", "1.5", "`1.5` is out of bounds; it must be from 0 to 1"),
            ("sample: -0.1", "-0.1", "`-0.1` is out of bounds; it must be from 0 to 1"),
            ("sample: NaN", "NaN", "`NaN` is out of bounds; it must be from 0 to 1"),
            ("sample: few", "few", "`few` is not a number such as `0.1`"),
            ("parent: all", "all", "`parent` cannot be `all`; write `any`, `proxies` or `none`"),
            ("ca: x.pem", "ca", "`ca` is for `https://`, and the URL here does not say so"),
            ("service_name: ''", "''", "`` is not a name of 1 to 256 bytes"),
            ("attributes: { service.name: a }", "service.name", "`service.name` is set by `service_name`"),
            ("headers: { 'a b': c }", "'a b'", "`a b` is not the name of a header field"),
            ("headers: { Host: c }", "Host", "`host` is what ssegate itself says; remove it"),
            ("headers: { a: \"s3cr3t\\n\" }", "\"s3", "a header field cannot have this value"),
            ("headers: { a: [s3cr3t] }", "[", "expected the value of a header field"),
        ] {
            let keys = format!("endpoint: 'http://o', {key}");
            let column = "traces: { ".len() + keys.find(at).unwrap() + 1;
            expect(&with(&keys), &[(2, column, text)]);
        }
    }

    #[test]
    fn who_is_told_in_the_open_is_warned_of() {
        let told = |url: &str| warnings(&sound(&with(&format!("endpoint: '{url}'"))));
        assert!(told("http://127.0.0.1:4318").is_empty() && told("https://otel.example.com").is_empty());
        let text = told("http://otel.example.com:4318");
        assert!(
            text.len() == 1 && text[0].starts_with("`traces.endpoint` is told over plain HTTP"),
            "{text:?}"
        );
    }
}

//! Errors as clients see them: `application/problem+json` (RFC 9457), a stable `type`, a sentence that a person
//! can act on, and no internals.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::Body;

/// What a request can fail with. Whatever a retry may mend is not here: it is held on an open stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No route has this host and path.
    NoRoute,
    /// A path parameter is malformed.
    BadParameter,
    /// `since` in the query is no time.
    BadSince,
    /// The request names no host (RFC 9112 section 3.2).
    NoHost,
    /// The method is none of those that `allow` names.
    Method(&'static str),
    /// `accept` rules `text/event-stream` out.
    NotAcceptable,
    /// Plain HTTP came in on a port that speaks TLS.
    PlainHttp,
    /// The body is larger than `limits.max_event`.
    TooLarge,
    /// Nothing to publish to: no `push` upstream is configured.
    NoPush,
    /// The admin listener has no such path.
    NoAdminPath,
    /// A page of some site asks the admin listener to act.
    CrossSite,
    /// A query or path that does not say what it must.
    BadRequest(&'static str),
}

impl Problem {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoRoute => {
                (StatusCode::NOT_FOUND, "no-route", "There is no event stream at this host and path.")
            }
            Self::BadParameter => (
                StatusCode::BAD_REQUEST,
                "bad-parameter",
                "A parameter in the path is not valid: at most 256 bytes of UTF-8 without control characters.",
            ),
            Self::BadSince => (
                StatusCode::BAD_REQUEST,
                "bad-since",
                "`since` is a time such as 2026-01-31T12:00:00Z, or a duration back such as 15m.",
            ),
            Self::NoHost => {
                (StatusCode::BAD_REQUEST, "no-host", "The request must name exactly one host, in `host`.")
            }
            Self::Method(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method", "Use one of the methods that `allow` lists.")
            }
            Self::NotAcceptable => (
                StatusCode::NOT_ACCEPTABLE,
                "not-acceptable",
                "This is an event stream; the request's `accept` must allow text/event-stream.",
            ),
            Self::PlainHttp => {
                (StatusCode::BAD_REQUEST, "plain-http", "This port speaks TLS; use https:// in the URL.")
            }
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is larger than `limits.max_event`.")
            }
            Self::NoPush => (
                StatusCode::NOT_FOUND,
                "no-push",
                "No upstream of kind `push` is configured; add one, and a route that reads from it.",
            ),
            Self::NoAdminPath => (
                StatusCode::NOT_FOUND,
                "no-admin-path",
                "Here are /healthz, /readyz, /metrics, /status and /publish/<channel>.",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross-site",
                "Web pages cannot publish here; use a program such as curl.",
            ),
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, "bad-request", detail),
        }
    }

    /// The status, and the JSON text.
    pub fn text(self) -> (StatusCode, String) {
        let (status, name, detail) = self.parts();
        let problem = json!({
            "type": format!("urn:ssegate:problem:{name}"),
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        (status, problem.to_string())
    }

    /// The response that tells it.
    pub fn response(self) -> Response<Body> {
        let (status, text) = self.text();
        let mut response = Response::new(Body::from(bytes::Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::Method(allow) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

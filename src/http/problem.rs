//! Errors as clients see them: `application/problem+json` (RFC 9457), a stable `type`, a sentence that a person
//! can act on, and no internals.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::Body;

/// What a request can fail with. What a retry may mend is held on an open stream instead, unless the configuration
/// wants it told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No route has this host and path.
    NoRoute,
    /// A path parameter is malformed.
    BadParameter,
    /// What the query says is not what the route's filter takes.
    BadQuery,
    /// `since` in the query is no time.
    BadSince,
    /// The request names no host (RFC 9112 section 3.2).
    NoHost,
    /// The method is none of those that `allow` names.
    Method(&'static str),
    /// `accept` rules out every form that events can be had in.
    NotAcceptable,
    /// Plain HTTP came in on a port that speaks TLS.
    PlainHttp,
    /// The body is larger than `limits.max_event`.
    TooLarge,
    /// Nothing to publish to: no `push` upstream is configured.
    NoPush,
    /// The admin listener has no such path.
    NoAdminPath,
    /// An application could not be reached, or broke off.
    BadGateway,
    /// An application took too long to answer.
    GatewayTimeout,
    /// A client took too long to send its request.
    RequestTimeout,
    /// A page of some site asks the admin listener to act.
    CrossSite,
    /// The client has as many streams of this route, or as many connections, as it may.
    TooMany,
    /// There is no room for anybody at the moment.
    Overloaded,
    /// The route asks who it is, and the request does not say.
    NoCredential,
    /// What the request says of who it is does not hold.
    BadCredential,
    /// Who it is may not.
    Forbidden,
    /// What decides on it does not answer.
    Undecided,
    /// The stream to be renewed is not here.
    NoStream,
    /// There is no such stream to end.
    NoClient,
    /// The process drains, and does nothing else any more.
    Draining,
    /// The admin listener has a token, and the request does not show it.
    NoToken,
    /// The admin listener is called by a name that is not its own.
    WrongHost,
    /// A query or path that does not say what it must.
    BadRequest(&'static str),
    /// What a route reads has not answered in time.
    Unanswered,
    /// It is asked for several feeds in a form that only one can be had in.
    OfOne,
    /// It is asked for more feeds than these at a time.
    TooManyFeeds(usize),
    /// A feed is over.
    Over,
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
                "A parameter in the path is not valid: it has at most 256 bytes of UTF-8 without control characters, and where \
                 these mean something in what is read, none of `.` `/` `*` `>` `+` `#` `$` and blanks.",
            ),
            Self::BadQuery => (
                StatusCode::BAD_REQUEST,
                "bad-parameter",
                "A parameter of the query that these events are filtered by is missing, too long (4096 bytes for all), or not \
                 what it must be, such as a number; or it does not fit the credential.",
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
                "This is an event stream; the request's `accept` must allow text/event-stream, application/x-ndjson or application/json.",
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
                "Here are a page at /, /healthz, /readyz, /metrics, /status with /clients, /feeds, /routes and /live below it, and to write to /publish/<channel>, /clients/<id>, /reload, /drain and /upgrade.",
            ),
            Self::BadGateway => (
                StatusCode::BAD_GATEWAY,
                "bad-gateway",
                "The application behind this address does not answer; try again in a moment.",
            ),
            Self::GatewayTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "gateway-timeout",
                "The application behind this address did not answer in time; try again in a moment.",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "The rest of the request's body did not come in time; send it again.",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross-site",
                "Web pages cannot act here; use a program such as curl.",
            ),
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-streams",
                "This client has as many connections or streams open as it may; close some, or come back after `retry-after`.",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "There is no room at the moment; come back after `retry-after`.",
            ),
            Self::NoCredential => (
                StatusCode::UNAUTHORIZED,
                "no-credential",
                "This is not for everybody: bring a credential, such as a token in `authorization: Bearer` or a ticket.",
            ),
            Self::BadCredential => (
                StatusCode::UNAUTHORIZED,
                "bad-credential",
                "The credential does not hold: it has ended, was used before, or is not from or for whom it must be. Get a new one.",
            ),
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "forbidden", "Whoever this is may not have this from here.")
            }
            Self::Undecided => (
                StatusCode::SERVICE_UNAVAILABLE,
                "undecided",
                "It cannot be told at the moment whether the credential holds; try again in a few seconds.",
            ),
            Self::NoStream => (
                StatusCode::NOT_FOUND,
                "no-stream",
                "The stream to be renewed has ended, or another replica serves it; open it again with the new credential.",
            ),
            Self::NoClient => (
                StatusCode::NOT_FOUND,
                "no-client",
                "There is no stream of this id, or it has ended; /status/clients has them all.",
            ),
            Self::Draining => (
                StatusCode::CONFLICT,
                "draining",
                "This process is ending, maybe since another one has taken its place; ask that one.",
            ),
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "no-token",
                "Show the token (`admin.token`): as `authorization: Bearer TOKEN`, or as the password of HTTP Basic, with any user.",
            ),
            Self::WrongHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "wrong-host",
                "Call the admin listener by its IP address or as `localhost`: under other names web pages could read it, unless it has a token (`admin.token`).",
            ),
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, "bad-request", detail),
            Self::Unanswered => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unanswered",
                "Where these events come from does not answer at the moment; come back after `retry-after`.",
            ),
            Self::OfOne => (
                StatusCode::NOT_ACCEPTABLE,
                "of-one",
                "Several feeds at a time are had as text/event-stream or application/x-ndjson; ask for anything else of each feed at its own path.",
            ),
            Self::TooManyFeeds(_) => (
                StatusCode::BAD_REQUEST,
                "bad-request",
                "These are more feeds than are given on one connection; ask for fewer of them.",
            ),
            Self::Over => (
                StatusCode::NO_CONTENT,
                "over",
                "There will be no more of this feed; do not come back for it.",
            ),
        }
    }

    /// The status, and the JSON text.
    pub fn text(self) -> (StatusCode, String) {
        let (status, kind, detail) = self.told();
        let problem = json!({
            "type": kind,
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        (status, problem.to_string())
    }

    /// The status, `type` and `detail`.
    pub fn told(self) -> (StatusCode, String, Cow<'static, str>) {
        let (status, name, detail) = self.parts();
        let detail = match self {
            Self::TooManyFeeds(most) => Cow::Owned(format!(
                "These are more feeds than are given on one connection, which are {most}; ask for fewer of them."
            )),
            _ => Cow::Borrowed(detail),
        };
        (status, format!("urn:ssegate:problem:{name}"), detail)
    }

    /// The response that tells it.
    pub fn response(self) -> Response<Body> {
        let (status, text) = self.text();
        let mut response = Response::new(Body::from(bytes::Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::Method(allow) => drop(headers.insert(header::ALLOW, HeaderValue::from_static(allow))),
            Self::NoToken => {
                let challenge = HeaderValue::from_static("Basic realm=\"ssegate\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            // RFC 9110 section 11.6.1 and RFC 6750 section 3.
            Self::NoCredential => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::BadCredential => {
                let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Undecided => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"))),
            _ => {}
        }
        response
    }
}

//! Pages that are built in, as those of the admin listener, the demo and `pipe` are: what browsers are told to keep each of
//! their parts to, and the style that they begin with.

use ::http::Response;
use ::http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;

use super::Body;

/// Colours, and what all pages have: for the beginning of a page's own style sheet.
pub const STYLE: &str = include_str!("built_in.css");

/// One part of a page.
pub fn part(content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(content.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const HEADERS: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
];

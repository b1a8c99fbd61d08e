//! The status page: three files that are built in. Everything else comes to it by `/status/live`.

use bytes::Bytes;
use http::Response;

use crate::http::{Body, built_in};

/// The file of this path, if it is one of the page's.
pub(super) fn file(path: &str) -> Option<Response<Body>> {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    Some(match path {
        "/" => built_in::part("text/html; charset=utf-8", text(include_str!("page/index.html"))),
        "/page.css" => built_in::part(
            "text/css; charset=utf-8",
            [built_in::STYLE, include_str!("page/page.css")].concat(),
        ),
        "/page.js" => built_in::part("text/javascript; charset=utf-8", text(include_str!("page/page.js"))),
        _ => return None,
    })
}

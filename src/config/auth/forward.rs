//! `forward:`, whom to ask, and for how long an answer holds.

use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE};

use super::super::fields::{Bounds, Fields};
use super::super::keys;
use super::super::tree::Node;
use super::super::walk::Walk;
use super::{Forward, OnError, read_ca, read_headers, read_url};

pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Forward> {
    let fields = Fields::open(walk, node, keys::FORWARD)?;
    let url = fields.required("url", "it is what is asked, such as `http://127.0.0.1:3000/auth`");
    let url = url.and_then(|node| read_url(walk, node));
    let roots = url.as_ref().and_then(|url| read_ca(walk, &fields, url));
    let headers =
        fields.node("headers").map_or(Some(vec![AUTHORIZATION, COOKIE]), |node| read_headers(walk, node));
    let claims = fields.node("claims").map_or(Some(Vec::new()), |node| read_headers(walk, node));
    let cache = fields.duration("cache", &CACHE).unwrap_or(CACHE.default);
    let timeout = fields.duration("timeout", &TIMEOUT).unwrap_or(TIMEOUT.default);
    let on_error = [("hold", OnError::Hold), ("deny", OnError::Deny)];
    let on_error = fields.choice("on_error", &on_error).unwrap_or(OnError::Hold);
    Some(Forward { url: url?, roots, headers: headers?, claims: claims?, cache, timeout, on_error })
}

pub(in crate::config) const CACHE: Bounds<Duration> =
    Bounds { default: Duration::from_secs(10), min: Duration::ZERO, max: Duration::from_secs(3_600) };
pub(in crate::config) const TIMEOUT: Bounds<Duration> =
    Bounds { default: Duration::from_secs(2), min: Duration::from_millis(10), max: Duration::from_secs(60) };

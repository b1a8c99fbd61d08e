//! Cross-origin reading (WHATWG Fetch, section "CORS protocol"): which pages may read a route, told on every
//! answer, errors included.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, COOKIE, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderName, Method};

use super::answer::LAST_EVENT_ID;
use crate::config::{Cors, Origins, Reads};

/// Whether the page that sends a request to `authority`, over TLS or not, may have the browser's cookies used for it: it is
/// of this origin, or of one that is listed. Browsers send cookies with requests of any page.
pub fn may_use_cookies(cors: Option<&Cors>, request: &HeaderMap, to: (Option<&str>, bool)) -> bool {
    match Page::of(request, to) {
        Page::Own => true,
        Page::Other(origin) => {
            cors.is_some_and(|cors| !matches!(cors.origins, Origins::Any) && cors.origins.allow(origin))
        }
        Page::Untold => false,
    }
}

/// Whether the browser would give the answer to the page that sends a request to `authority`, over TLS or not.
pub fn may_read(cors: Option<&Cors>, request: &HeaderMap, to: (Option<&str>, bool)) -> bool {
    match Page::of(request, to) {
        // What does not say its origin is shown the answer to as it is, or not at all.
        Page::Own | Page::Untold => true,
        Page::Other(origin) => cors.is_some_and(|cors| cors.origins.allow(origin)),
    }
}

/// Whose page sends a request.
enum Page<'r> {
    /// One of our own origin, or no page at all.
    Own,
    /// One of this origin.
    Other(&'r str),
    /// One of another site, which does not say.
    Untold,
}

impl<'r> Page<'r> {
    /// `origin` says whose it is, and is missing where it is our own (WHATWG Fetch) or where it is no browser.
    /// `sec-fetch-site`, which no page can write, holds also where a proxy before us has changed the host.
    fn of(request: &'r HeaderMap, (authority, secure): (Option<&str>, bool)) -> Self {
        let site = request.get("sec-fetch-site").map(HeaderValue::as_bytes);
        if site == Some(b"same-origin") {
            return Self::Own;
        }
        let Some(origin) = request.get(ORIGIN) else {
            return if matches!(site, None | Some(b"none")) { Self::Own } else { Self::Untold };
        };
        let origin = origin.to_str().unwrap_or_default();
        // The page of the same host that came in the clear is another origin, and anybody on the way may have written it.
        let clear = || origin.strip_prefix("http://").filter(|_| !secure);
        let host = origin.strip_prefix("https://").or_else(clear);
        let own = host.zip(authority).is_some_and(|(host, authority)| host.eq_ignore_ascii_case(authority));
        if own { Self::Own } else { Self::Other(origin) }
    }
}

/// Whether somebody goes to a page, from wherever a link to it is: it is shown by itself, and whoever has sent them there
/// learns nothing of it.
pub fn is_visit(method: &Method, request: &HeaderMap) -> bool {
    let says = |name, value| request.get(name).is_some_and(|said| said.as_bytes() == value);
    matches!(*method, Method::GET | Method::HEAD)
        && !request.contains_key(ORIGIN)
        && says("sec-fetch-mode", b"navigate")
        && says("sec-fetch-dest", b"document")
}

/// Adds what the route's policy says to a request with these headers.
/// Guarded routes take credentials besides, in the fields that they read.
pub fn apply(cors: Option<&Cors>, reads: Option<&Reads>, request: &HeaderMap, response: &mut HeaderMap) {
    let Some(cors) = cors else { return };
    match &cors.origins {
        Origins::Any => {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Origins::List(_) => {
            // Caches must not serve one origin's answer to another, whether or not it was allowed.
            response.append(VARY, HeaderValue::from_static("origin"));
            let Some(origin) = request.get(ORIGIN) else { return };
            if !origin.to_str().is_ok_and(|origin| cors.origins.allow(origin)) {
                return;
            }
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if cors.credentials {
                response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }
    if response.contains_key(LAST_EVENT_ID) {
        response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(LAST_EVENT_ID));
    }
    if request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        // What fetch-based EventSource polyfills send; the native one needs no preflight.
        let methods = if reads.is_some() { "GET, HEAD, POST" } else { "GET, HEAD" };
        response.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        response.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields(reads));
        response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

/// The fields that a page may send. Cookies are the browser's own business.
fn fields(reads: Option<&Reads>) -> HeaderValue {
    let mut names = vec!["accept", "cache-control", "last-event-id"];
    if let Some(reads) = reads {
        let credentials = reads.headers.iter().filter(|name| **name != COOKIE);
        names.extend(credentials.map(HeaderName::as_str).chain(["authorization"]));
    }
    names.sort_unstable();
    names.dedup();
    HeaderValue::from_str(&names.join(", ")).expect("names of fields are visible characters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn answer(cors: &Cors, request: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        let request = request.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut response = HeaderMap::new();
        apply(Some(cors), None, &request.collect(), &mut response);
        response
    }

    #[test]
    fn a_listed_origin_is_echoed_and_another_is_not() {
        let cors = Cors {
            origins: Origins::List(vec![Origin::Exact("https://a.example".into())]),
            credentials: true,
        };
        let allowed = answer(&cors, &[(ORIGIN, "https://a.example")]);
        assert_eq!(allowed[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(allowed[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(allowed[VARY], "origin");
        for request in [&[(ORIGIN, "https://a.example.evil")][..], &[]] {
            let refused = answer(&cors, request);
            assert!(!refused.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
            assert_eq!(refused[VARY], "origin");
        }
    }

    #[test]
    fn cookies_count_for_pages_of_this_origin_and_listed_ones() {
        let listed = Cors {
            origins: Origins::List(vec![Origin::Exact("https://a.example".into())]),
            credentials: true,
        };
        let any = Cors { origins: Origins::Any, credentials: false };
        let may = |cors, name: &'static str, value: &'static str| {
            let request = [(http::HeaderName::from_static(name), HeaderValue::from_static(value))];
            may_use_cookies(cors, &request.into_iter().collect(), (Some("b.example:8443"), true))
        };
        assert!(may_use_cookies(None, &HeaderMap::new(), (Some("b.example"), true)));
        for cors in [None, Some(&listed), Some(&any)] {
            assert!(may(cors, "origin", "https://B.example:8443"));
            for site in ["same-origin", "none"] {
                assert!(may(cors, "sec-fetch-site", site));
            }
            for site in ["cross-site", "same-site"] {
                assert!(!may(cors, "sec-fetch-site", site), "an image or a script of another site");
            }
            for origin in [
                "https://b.example",
                "http://b.example:8443",
                "https://b.example:8443.evil",
                "null",
                "",
                "https://c.example",
            ] {
                assert!(!may(cors, "origin", origin), "{origin}");
            }
        }
        assert!(may(Some(&listed), "origin", "https://a.example"));
        assert!(!may(Some(&any), "origin", "https://a.example"));
        let with = |request: &[(&'static str, &'static str)], secure| {
            let request = request
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            may_use_cookies(None, &request.collect(), (Some("b.example"), secure))
        };
        assert!(with(&[("origin", "http://b.example")], false), "nothing is secure here");
        assert!(with(&[("origin", "https://b.example")], false), "a proxy does not tell that it speaks TLS");
        let rewritten = [("origin", "https://outside.example"), ("sec-fetch-site", "same-origin")];
        assert!(with(&rewritten, true), "the browser knows");
        assert!(!with(&[("origin", "https://outside.example"), ("sec-fetch-site", "same-site")], true));
    }

    #[test]
    fn pages_read_what_they_would_be_given() {
        let listed = Cors {
            origins: Origins::List(vec![Origin::Exact("https://a.example".into())]),
            credentials: false,
        };
        let any = Cors { origins: Origins::Any, credentials: false };
        let may = |cors, request: &[(&'static str, &'static str)]| {
            let request = request
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            may_read(cors, &request.collect(), (Some("b.example"), true))
        };
        for request in [
            &[][..],
            &[("origin", "https://b.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://outside.example")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert!(
                [None, Some(&listed), Some(&any)].into_iter().all(|cors| may(cors, request)),
                "{request:?}"
            );
        }
        for (origin, of_listed) in
            [("https://a.example", true), ("https://c.example", false), ("null", false)]
        {
            let request = [("origin", origin), ("sec-fetch-site", "cross-site")];
            assert_eq!((may(None, &request), may(Some(&any), &request)), (false, true), "{origin}");
            assert_eq!(may(Some(&listed), &request), of_listed, "{origin}");
        }
    }

    #[test]
    fn a_preflight_is_told_methods_and_headers() {
        let cors = Cors { origins: Origins::Any, credentials: false };
        let answer = answer(&cors, &[(ORIGIN, "https://b.example"), (ACCESS_CONTROL_REQUEST_METHOD, "GET")]);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn pages_may_send_what_credentials_stand_in() {
        let key = HeaderName::from_static("x-api-key");
        let reads = Reads { headers: vec![COOKIE, key, http::header::ACCEPT], ..Reads::default() };
        assert_eq!(fields(Some(&reads)), "accept, authorization, cache-control, last-event-id, x-api-key");
        assert_eq!(fields(None), "accept, cache-control, last-event-id");
    }
}

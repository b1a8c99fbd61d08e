//! Cross-origin reading (WHATWG Fetch, section "CORS protocol"): which pages may read a route, told on every
//! answer, errors included.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};

use crate::config::{Cors, Origins};

/// Adds what the route's policy says to a request with these headers.
pub fn apply(cors: Option<&Cors>, request: &HeaderMap, response: &mut HeaderMap) {
    let Some(cors) = cors else { return };
    match &cors.origins {
        Origins::Any => {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Origins::List(allowed) => {
            // Caches must not serve one origin's answer to another, whether or not it was allowed.
            response.append(VARY, HeaderValue::from_static("origin"));
            let Some(origin) = request.get(ORIGIN) else { return };
            if !allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
                return;
            }
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if cors.credentials {
                response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }
    if request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        response.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        // What fetch-based EventSource polyfills send; the native one needs no preflight.
        let headers = HeaderValue::from_static("accept, cache-control, last-event-id");
        response.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(cors: &Cors, request: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        let request = request.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut response = HeaderMap::new();
        apply(Some(cors), &request.collect(), &mut response);
        response
    }

    #[test]
    fn a_listed_origin_is_echoed_and_another_is_not() {
        let cors = Cors { origins: Origins::List(vec!["https://a.example".into()]), credentials: true };
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
    fn a_preflight_is_told_methods_and_headers() {
        let cors = Cors { origins: Origins::Any, credentials: false };
        let answer = answer(&cors, &[(ORIGIN, "https://b.example"), (ACCESS_CONTROL_REQUEST_METHOD, "GET")]);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}

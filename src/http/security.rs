//! What every answer tells browsers for their users' safety, unless an application has told it already.

use http::header::{HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};

use crate::config::Hsts;

/// The headers, made once.
pub struct SecurityHeaders(Vec<(HeaderName, HeaderValue)>);

impl SecurityHeaders {
    /// With `strict-transport-security` (RFC 6797), if that is asked for.
    pub fn new(hsts: Option<Hsts>) -> Self {
        // No answer is to be taken for a script or a style sheet (WHATWG Fetch, "X-Content-Type-Options header").
        let mut headers = vec![(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
        if let Some(Hsts { max_age, subdomains, preload }) = hsts {
            let mut value = format!("max-age={}", max_age.as_secs());
            value.push_str(if subdomains { "; includeSubDomains" } else { "" });
            value.push_str(if preload { "; preload" } else { "" });
            headers.push((STRICT_TRANSPORT_SECURITY, value.parse().expect("digits and words are a header")));
        }
        Self(headers)
    }

    /// Adds those that are not there.
    pub fn apply(&self, response: &mut HeaderMap) {
        for (name, value) in &self.0 {
            response.entry(name).or_insert_with(|| value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_applications_own_words_stand() {
        let hsts = Hsts { max_age: Duration::from_hours(24), subdomains: true, preload: false };
        let mut response = HeaderMap::new();
        SecurityHeaders::new(Some(hsts)).apply(&mut response);
        assert_eq!(response[STRICT_TRANSPORT_SECURITY], "max-age=86400; includeSubDomains");
        assert_eq!(response[X_CONTENT_TYPE_OPTIONS], "nosniff");
        response.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=1"));
        SecurityHeaders::new(Some(hsts)).apply(&mut response);
        assert_eq!(response[STRICT_TRANSPORT_SECURITY], "max-age=1");
        let mut response = HeaderMap::new();
        SecurityHeaders::new(None).apply(&mut response);
        assert!(!response.contains_key(STRICT_TRANSPORT_SECURITY));
    }
}

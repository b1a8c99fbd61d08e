//! The page that shows the lines as they come.

use bytes::Bytes;

use super::super::demo::read;
use crate::http::{Fallback, Problem};

/// Answers with the page of the stream at `path` where no route does.
pub(super) fn fallback(path: &str) -> Fallback {
    let html = Bytes::from(HTML.replace("{{path}}", &escaped(path)));
    Box::new(move |request, _| {
        let answer = match request.uri().path() {
            "/" => read(request, "text/html; charset=utf-8", html.clone()),
            "/pipe.js" => read(request, "text/javascript; charset=utf-8", JS.into()),
            _ => return None,
        };
        Some(answer.unwrap_or_else(Problem::response))
    })
}

/// Text as the value of an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

const HTML: &str = include_str!("page.html");
const JS: &str = include_str!("page.js");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_within_its_attribute() {
        assert_eq!(escaped("/a\"b<c>&d"), "/a&quot;b&lt;c>&amp;d");
    }
}

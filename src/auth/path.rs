//! Paths of which a ticket speaks. One is asked for in a query, where a page writes the path as it likes, and used in a
//! request, where the browser has written it.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// This path as a browser asks for it. `None` for what is more than a path, and for what a browser would change into
/// another one.
pub fn as_sent(path: &str) -> Option<String> {
    let bare = path.starts_with('/') && !path.starts_with("//") && !path.contains(['?', '#', '\\']);
    let sound = bare && !path.contains(char::is_control) && !path.split('/').any(is_dots);
    sound.then(|| utf8_percent_encode(path, ESCAPED).to_string())
}

/// Whether both are the same once they are decoded, segment by segment.
pub(super) fn same(left: &str, right: &str) -> bool {
    segments(left).eq(segments(right))
}

fn segments(path: &str) -> impl Iterator<Item = Cow<'_, [u8]>> {
    path.split('/').map(|segment| percent_decode_str(segment).into())
}

/// `.` and `..`, also where they are encoded, are taken out before a request is sent.
fn is_dots(segment: &str) -> bool {
    matches!(&*Cow::from(percent_decode_str(segment)), b"." | b"..")
}

/// The path percent-encode set of the WHATWG's URL standard, which leaves `%` alone.
const ESCAPED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'^').add(b'`').add(b'{').add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_browsers_send_them() {
        for (path, sent) in [
            ("/rooms/a", "/rooms/a"),
            ("/rooms/a b", "/rooms/a%20b"),
            ("/rooms/a%20b", "/rooms/a%20b"),
            ("/rooms/é", "/rooms/%C3%A9"),
            ("/rooms/a:b@c,d;e'f", "/rooms/a:b@c,d;e'f"),
            ("/rooms/100%", "/rooms/100%"),
            ("/rooms/<{\"}>", "/rooms/%3C%7B%22%7D%3E"),
        ] {
            assert_eq!(as_sent(path).as_deref(), Some(sent), "{path}");
            assert!(same(path, sent), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_alone_is_refused() {
        for path in [
            "",
            "a",
            "//evil.example/a",
            "/a?b=c",
            "/a#b",
            "/a\\b",
            "/a\tb",
            "/a\nb",
            "/a/../b",
            "/a/.",
            "/a/%2e%2E/b",
            "https://events.example/a",
        ] {
            assert_eq!(as_sent(path), None, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_is_none() {
        assert!(same("/a%2Fb", "/a%2fb") && same("/%61", "/a"));
        for other in ["/a/b", "/a%2Fb/", "/a%252Fb", "/A%2Fb"] {
            assert!(!same("/a%2Fb", other), "{other}");
        }
    }
}

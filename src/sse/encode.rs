//! Writing events. Whatever bytes a payload, a name or an id holds, they cannot end a line early:
//! that is what these functions and [`EventName`] are for.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

/// The value of an `event:` line: not empty, and without CR, LF or NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventName<'a>(Cow<'a, str>);

impl<'a> EventName<'a> {
    /// Makes a name of any text. CR, LF and NUL become spaces; an empty text is no name, and the event
    /// then is a `message`, as WHATWG HTML 9.2.6 has it.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Option<Self> {
        let text = text.into();
        if text.is_empty() {
            return None;
        }
        let forging = |c| matches!(c, '\r' | '\n' | '\0');
        Some(Self(if text.contains(forging) { Cow::Owned(text.replace(forging, " ")) } else { text }))
    }

    /// The same name, moved out of the namespace that begins with `reserved` by a leading underscore,
    /// so that a publisher cannot speak as the proxy.
    pub fn outside(self, reserved: &str) -> Self {
        if self.0.starts_with(reserved) { Self(Cow::Owned(format!("_{}", self.0))) } else { self }
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends the body of an event: an `event:` line if it has a name, and a `data:` line for each line of
/// the payload. LF, CR and CRLF each end a line; a client joins them again with LF.
pub fn body(out: &mut Vec<u8>, name: Option<&EventName<'_>>, payload: &str) {
    if let Some(name) = name {
        field(out, b"event: ", name.as_str().as_bytes());
    }
    let mut rest = payload.as_bytes();
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        field(out, b"data: ", &rest[..at]);
        let crlf = rest[at..].starts_with(b"\r\n");
        rest = &rest[at + if crlf { 2 } else { 1 }..];
    }
    field(out, b"data: ", rest);
}

/// Appends the body of an event of the proxy's own, whose data is one line of JSON.
pub fn control_body(out: &mut Vec<u8>, prefix: &str, name: &str, json: &str) {
    debug_assert!(!json.contains(['\r', '\n']), "JSON is written without line breaks");
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(prefix.as_bytes());
    field(out, name.as_bytes(), b"");
    field(out, b"data: ", json.as_bytes());
}

/// Appends the id block that ends an event. `id` holds no control character: only codecs make ids.
pub fn id_block(out: &mut Vec<u8>, id: &str) {
    debug_assert!(!id.chars().any(char::is_control), "ids are one line of text");
    field(out, b"id: ", id.as_bytes());
    out.push(b'\n');
}

/// Appends a block that holds a comment alone, which clients ignore (WHATWG HTML 9.2.7 advises one about
/// every 15 seconds).
pub fn comment(out: &mut Vec<u8>, text: &str) {
    debug_assert!(!text.contains(['\r', '\n']), "a comment is one line");
    field(out, b":", text.as_bytes());
    out.push(b'\n');
}

/// Appends a block that sets the client's reconnection time, in whole milliseconds.
pub fn retry(out: &mut Vec<u8>, after: Duration) {
    writeln!(out, "retry: {}\n", after.as_millis()).expect("writing to memory cannot fail");
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 1);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_end_makes_a_data_line() {
        assert_eq!(text(|out| body(out, None, "a\nb\rc\r\nd")), "data: a\ndata: b\ndata: c\ndata: d\n");
        assert_eq!(text(|out| body(out, None, "")), "data: \n");
        assert_eq!(text(|out| body(out, None, "a\n")), "data: a\ndata: \n");
        assert_eq!(text(|out| body(out, None, "\r\r\n\n")), "data: \ndata: \ndata: \ndata: \n");
    }

    #[test]
    fn names_cannot_forge_lines_or_speak_as_the_proxy() {
        assert_eq!(EventName::new("a\r\nid: 7\0").unwrap().as_str(), "a  id: 7 ");
        assert_eq!(EventName::new(""), None);
        assert_eq!(EventName::new("stream.gap").unwrap().outside("stream.").as_str(), "_stream.gap");
        assert_eq!(EventName::new("streams").unwrap().outside("stream.").as_str(), "streams");
    }

    #[test]
    fn blocks() {
        assert_eq!(text(|out| id_block(out, "x-1")), "id: x-1\n\n");
        assert_eq!(text(|out| comment(out, "")), ":\n\n");
        assert_eq!(text(|out| retry(out, Duration::from_millis(2500))), "retry: 2500\n\n");
        let gap = text(|out| control_body(out, "stream.", "gap", "{}"));
        assert_eq!(gap, "event: stream.gap\ndata: {}\n");
    }
}

//! A stream as lines of JSON, for scripts: made of its events as they are sent to everybody, so that there is one truth.
//! An event is a line, a keepalive is an empty one.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::sse::{Decoder, Event, Item};

/// Writes one stream anew.
#[derive(Debug)]
pub struct Lines {
    decoder: Decoder,
    prefix: Arc<str>,
}

impl Lines {
    /// Of a stream from its beginning, whose control events have names that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { decoder: decoder(), prefix: prefix.into() }
    }

    /// The lines of what these bytes complete.
    pub fn of(&mut self, bytes: &[u8]) -> Bytes {
        let (mut out, prefix) = (Vec::with_capacity(bytes.len() + bytes.len() / 4), &self.prefix);
        let fed = self.decoder.feed(bytes, |item| {
            match item {
                Item::Event(event) => write(&mut out, &event),
                // The latter where that is asked for alone.
                Item::Comment(_) | Item::TooLarge(_) => {}
                Item::Retry(after) => {
                    let (event, data) = (format!("{prefix}retry"), json!({ "ms": after.as_millis() as u64 }));
                    out.extend_from_slice(json!({ "event": event, "data": data }).to_string().as_bytes());
                }
            }
            out.push(b'\n');
        });
        fed.expect(BOUNDED);
        out.into()
    }
}

/// Reads what this process has written itself.
pub fn decoder() -> Decoder {
    Decoder::new("", usize::MAX)
}

/// Why reading it cannot fail.
pub const BOUNDED: &str = "events of ours have the bounds that were set when they were made";

/// Appends an event as an object of JSON. `id` is what to come back with after it, as a browser has it; without any it is
/// left out.
pub fn write(out: &mut Vec<u8>, event: &Event) {
    out.push(b'{');
    if !event.id.is_empty() {
        out.extend_from_slice(b"\"id\":");
        write_text(out, &event.id);
        out.push(b',');
    }
    out.extend_from_slice(b"\"event\":");
    write_text(out, event.name.as_deref().unwrap_or("message"));
    out.extend_from_slice(b",\"data\":");
    if is_nested(&event.data) {
        // Between the tokens of JSON a line end is a blank, and within them there is none.
        out.extend(event.data.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
    } else {
        write_text(out, &event.data);
    }
    out.push(b'}');
}

/// Whether data is an object or an array of JSON that every reader can take: not too deep, without numbers or characters
/// that there are not. Such data stands as it is, and all other as text, numbers and words like `true` included: so text
/// is always just what was published, and whether something is text does not change from one event to the next.
fn is_nested(data: &str) -> bool {
    data.trim_ascii_start().starts_with(['{', '[']) && serde_json::from_str::<Value>(data).is_ok()
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse;

    fn lines(stream: &str) -> String {
        String::from_utf8(Lines::new("stream.").of(stream.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn each_event_is_a_line_and_each_comment_an_empty_one() {
        let stream =
            ":\n\nretry: 3000\n\nevent: stream.position\ndata: {}\nid: 7\n\ndata: a\ndata: b\nid: 8\n\n";
        let expected = [
            "",
            r#"{"event":"stream.retry","data":{"ms":3000}}"#,
            r#"{"id":"7","event":"stream.position","data":{}}"#,
            r#"{"id":"8","event":"message","data":"a\nb"}"#,
        ];
        assert_eq!(lines(stream), expected.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn objects_and_arrays_stand_as_they_are_and_all_else_is_text() {
        for (data, expected) in [
            (r#"{"b":1.50,"a":[null,1e2]}"#, r#"{"b":1.50,"a":[null,1e2]}"#),
            (" [1]", "[1]"),
            ("[]", "[]"),
            ("{", r#""{""#),
            ("{} {}", r#""{} {}""#),
            ("[1e999]", r#""[1e999]""#),
            (r#"["\ud800"]"#, r#""[\"\\ud800\"]""#),
            ("42", r#""42""#),
            ("true", r#""true""#),
            (r#""x""#, r#""\"x\"""#),
            ("", r#""""#),
            ("\u{0}\u{7f}€", "\"\\u0000\u{7f}€\""),
        ] {
            assert_eq!(
                lines(&format!("data:{data}\n\n")),
                format!("{{\"event\":\"message\",\"data\":{expected}}}\n")
            );
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(lines(&format!("data: {deep}\n\n")).contains("\"data\":\"[["));
    }

    #[test]
    fn json_of_several_lines_is_one() {
        let line = lines("data: {\ndata:  \"a\":\ndata: [1]}\n\n");
        assert_eq!(line, "{\"event\":\"message\",\"data\":{  \"a\": [1]}}\n");
    }

    proptest! {
        #[test]
        fn whatever_was_published_is_one_line_that_says_it(
            payload in prop_oneof![any::<String>(), "[\\[\\]{}\":,0-9.eE+\\-\\\\un\r\n\t trufalsn]{0,40}"],
            name in any::<String>(),
        ) {
            let (mut stream, name) = (Vec::new(), sse::EventName::new(name));
            sse::body(&mut stream, name.as_ref(), &payload);
            sse::id_block(&mut stream, "7");
            let line = lines(str::from_utf8(&stream).unwrap());
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let said: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&said["event"], name.as_ref().map_or("message", |name| name.as_str()));
            let text = payload.replace("\r\n", "\n").replace('\r', "\n");
            match &said["data"] {
                Value::String(data) => prop_assert_eq!(data, &text),
                data => prop_assert_eq!(data, &serde_json::from_str::<Value>(&text).unwrap()),
            }
        }
    }

    #[test]
    fn what_comes_in_pieces_is_the_same() {
        let (stream, mut lines) = ("event: e\ndata: x\nid: 1\n\ndata: y\nid: 2\n\n", Lines::new(""));
        let pieces: Vec<_> = stream.as_bytes().iter().map(|byte| lines.of(&[*byte])).collect();
        assert_eq!(pieces.concat(), super::tests::lines(stream).as_bytes());
    }
}

//! Whatever a record holds: a client that reads as the text of WHATWG HTML says gets its name, its data and its id, and
//! nothing that the record could have forged. The client is the parser that all tests of streams rely on, which is to
//! read any bytes, cut anywhere.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ssegate::config::Binary;
use ssegate::shape::{Record, Shape, Shaped};
use ssegate::sse;

#[allow(dead_code, reason = "shared with the tests over sockets, which use more of it")]
#[path = "../../it/support/sse_parser.rs"]
mod sse_parser;

use sse_parser::{Event, Item, Parser};

/// Takes a stream; and a name, an id and a payload with 0xff between them, which no text holds.
pub fn check(bytes: &[u8]) {
    parse(bytes);
    let mut parts = bytes.splitn(3, |&byte| byte == 0xff);
    let (name, id, payload) = (parts.next(), parts.next(), parts.next());
    let name = String::from_utf8_lossy(name.unwrap_or_default());
    // Only codecs make ids, and of these characters alone.
    let id = id.unwrap_or_default().iter().filter(|byte| byte.is_ascii_graphic()).map(|&b| b as char);
    let message = Message { name: &name, payload: payload.unwrap_or(bytes) };
    arrives(&message, &id.collect::<String>());
}

struct Message<'a> {
    name: &'a str,
    payload: &'a [u8],
}

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.payload)
    }

    fn name(&self) -> &str {
        "channel"
    }

    fn event(&self) -> Option<&str> {
        Some(self.name)
    }
}

fn arrives(message: &Message<'_>, id: &str) {
    for binary in [Binary::Gap, Binary::Base64] {
        let data = match (binary, str::from_utf8(message.payload)) {
            (Binary::Gap, text) => text.ok().map(Cow::Borrowed),
            (Binary::Base64, _) => Some(BASE64.encode(message.payload).into()),
        };
        // As every stream begins, and between two events that show what a record does to others.
        let mut stream = Vec::new();
        sse::comment(&mut stream, "");
        sse::retry(&mut stream, Duration::from_millis(3_000));
        sse::control_body(&mut stream, PREFIX, "position", "{}");
        sse::id_block(&mut stream, "before");
        let mut expected = vec![Item::Comment(String::new()), Item::Retry(3_000)];
        expected.push(event("stream.position", "{}", "before"));
        let begun = stream.len();
        let (shaped, ..) = shape(binary).encode(message, &String::new, &mut stream);
        match data {
            Some(data) => {
                assert_eq!(shaped, Shaped::Event);
                sse::id_block(&mut stream, id);
                expected.push(event(&seen(message.name), &joined(&data), id));
            }
            None => assert_eq!((shaped, stream.len()), (Shaped::Undecodable, begun)),
        }
        sse::body(&mut stream, None, "next");
        sse::id_block(&mut stream, "after");
        expected.push(event("message", "next", "after"));
        assert_eq!(parse(&stream), expected);
    }
}

fn shape(binary: Binary) -> Shape {
    Shape { binary, max_event: usize::MAX, control_prefix: PREFIX.into(), ..Shape::default() }
}

fn event(event: &str, data: &str, id: &str) -> Item {
    Item::Event(Event { event: event.into(), data: data.into(), id: id.into() })
}

/// The name that a client sees.
fn seen(name: &str) -> String {
    let name: String = name.chars().map(|c| if "\r\n\0".contains(c) { ' ' } else { c }).collect();
    match name.as_str() {
        "" => "message".into(),
        reserved if reserved.starts_with(PREFIX) => format!("_{reserved}"),
        _ => name,
    }
}

/// A client joins lines with LF, whatever ended them.
fn joined(payload: &str) -> String {
    payload.replace("\r\n", "\n").replace('\r', "\n")
}

/// Reads a stream whole and byte by byte, which must make no difference. Nothing in it spans lines that must not.
fn parse(stream: &[u8]) -> Vec<Item> {
    let items = Parser::new().feed(stream);
    let mut parser = Parser::new();
    assert_eq!(stream.iter().flat_map(|&byte| parser.feed(&[byte])).collect::<Vec<_>>(), items);
    for item in &items {
        match item {
            Item::Event(Event { event, data, id }) => {
                assert!(
                    !event.is_empty() && !event.contains(['\r', '\n']) && !data.contains('\r'),
                    "{item:?}"
                );
                assert!(!id.contains(['\r', '\n', '\0']), "{item:?}");
            }
            Item::Comment(text) => assert!(!text.contains(['\r', '\n']), "{item:?}"),
            Item::Retry(_) => {}
        }
    }
    items
}

const PREFIX: &str = "stream.";

//! HTTP/2 frames as bytes (RFC 9113 section 4.1): for clients that behave, and for those that do not.

use crate::dial::Ask;

/// Appends a frame.
pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("our frames are small");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends settings, each a name and its value.
pub fn settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let one = |&(name, value): &(u16, u32)| name.to_be_bytes().into_iter().chain(value.to_be_bytes());
    frame(out, SETTINGS, 0, 0, &settings.iter().flat_map(one).collect::<Vec<_>>());
}

/// Appends a request that is whole.
pub fn get(out: &mut Vec<u8>, id: u32, ask: &Ask<'_>) {
    frame(out, HEADERS, END_STREAM | END_HEADERS, id, &block(METHOD_GET, ask));
}

/// The header block of a request: indexed fields and literals without Huffman coding (RFC 7541 section 6).
pub fn block(method: u8, &Ask { host, path, coding, id }: &Ask<'_>) -> Vec<u8> {
    let mut block = vec![method, SCHEME_HTTPS];
    // A literal's name by its place in the static table: 1 is :authority, 4 is :path, 19 is accept, 16 is accept-encoding.
    let fields: [(&[u8], &[u8]); 5] = [
        (&[1], host.as_bytes()),
        (&[4], path.as_bytes()),
        (&[15, 4], b"text/event-stream"),
        (&[15, 1], coding.name().as_bytes()),
        // A name that is not in the table stands for itself.
        (b"\0\x0dlast-event-id", id),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        let length = u8::try_from(value.len()).ok().filter(|&length| length < 127);
        block.extend_from_slice(name);
        block.push(length.expect("host, path and id are short"));
        block.extend_from_slice(value);
    }
    block
}

/// The id of a client's stream, by its number from 0.
pub fn id(index: usize) -> u32 {
    index as u32 * 2 + 1
}

/// What a client's connection begins with, before any frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const ENABLE_PUSH: u16 = 2;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Fields of the static table.
pub const METHOD_GET: u8 = 0x82;
pub const METHOD_POST: u8 = 0x83;
pub const STATUS_200: u8 = 0x88;
const SCHEME_HTTPS: u8 = 0x87;

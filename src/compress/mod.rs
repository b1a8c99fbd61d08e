//! Content codings of streams that many clients share (RFC 9110 section 8.4.1). Pure.
//!
//! Of bytes that many are sent, a *packed* form is made once, and the same bytes go to each: it depends on nothing that a
//! client was sent before. zstd: frames of their own, since frames in a row are one stream (RFC 8878 section 3.1). gzip:
//! deflate blocks without a look back that end on a byte (RFC 1951 section 3.2.4), after a header of each client's own.
//! What is for one client alone is not compressed: it stands in *stored* blocks of the same coding. Either is decoded as
//! soon as it has come, without anything after it.

mod framing;
mod gzip;
#[cfg(test)]
#[path = "../../tests/it/support/decoder.rs"]
pub mod testing;
mod zstd;

use bytes::Bytes;
use crc32fast::Hasher;

pub use crate::config::Coding;
pub use framing::{BLOCK, Framing};

/// Bytes that are packed at most: more would hold up, for tens of milliseconds, whatever else the worker has to do.
const LARGEST: usize = 1 << 20;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// The coding.
    pub coding: Coding,
    /// The level, 1 to 9.
    pub level: u32,
    /// Bytes below which nothing is packed.
    pub min_length: usize,
}

/// The packed form of some bytes.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What is sent.
    pub bytes: Bytes,
    /// The checksum of what it stands for.
    pub sum: Hasher,
}

impl Encoding {
    /// The packed form of `plain`; `None` where that is too short or too long, or would not become shorter.
    pub fn pack(self, plain: &[u8]) -> Option<Vec<u8>> {
        if !(self.min_length.max(1)..=LARGEST).contains(&plain.len()) {
            return None;
        }
        match self.coding {
            Coding::Zstd => zstd::pack(plain, self.level),
            Coding::Gzip => gzip::pack(plain, self.level),
        }
    }
}

impl Packed {
    /// Of `plain`, whose packed form this is.
    pub fn new(plain: &[u8], bytes: Bytes) -> Self {
        let mut sum = Hasher::new();
        sum.update(plain);
        Self { bytes, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Decoder;
    use super::*;

    const BOTH: [Coding; 2] = [Coding::Zstd, Coding::Gzip];

    fn encoding(coding: Coding) -> Encoding {
        Encoding { coding, level: 3, min_length: 0 }
    }

    #[test]
    fn what_shrinks_is_packed_and_nothing_else() {
        let text = "data: it is what it is, and it is what it was\n\n".repeat(50);
        for coding in BOTH {
            let packed = encoding(coding).pack(text.as_bytes()).unwrap();
            assert!(packed.len() < text.len() / 4, "{coding:?}: {} of {}", packed.len(), text.len());
            assert_eq!(
                Encoding { min_length: text.len() + 1, ..encoding(coding) }.pack(text.as_bytes()),
                None
            );
            for stays in [&b""[..], b":\n\n", &noise(100), &noise(100_000), &vec![b'a'; LARGEST + 1]] {
                assert_eq!(encoding(coding).pack(stays), None, "{coding:?}");
            }
        }
    }

    #[test]
    fn a_form_depends_on_nothing_that_was_packed_before() {
        let (one, other) = ("data: one\n\n".repeat(99), "data: other\n\n".repeat(99));
        for coding in BOTH {
            let fresh = encoding(coding).pack(one.as_bytes());
            encoding(coding).pack(other.as_bytes());
            Encoding { level: 9, ..encoding(coding) }.pack(other.as_bytes());
            assert_eq!(encoding(coding).pack(one.as_bytes()), fresh);
        }
    }

    #[test]
    fn packed_and_stored_parts_in_any_order_are_one_stream() {
        let event = |n: usize| format!("data: {n} {}\n\n", "some text ".repeat(n)).into_bytes();
        let parts =
            [event(1), event(30), noise(BLOCK), event(90_000), b":\n\n".to_vec(), event(3), event(2_000)];
        for coding in BOTH {
            let mut framing = Framing::new(coding);
            let mut stream = framing.opening().to_vec();
            for part in &parts {
                match encoding(coding).pack(part) {
                    Some(packed) => {
                        framing.sum_packed(&Packed::new(part, Bytes::new()).sum, part.len());
                        stream.extend(packed);
                    }
                    None => {
                        framing.sum(part);
                        let at = stream.len();
                        stream.resize(at + framing.stored_length(), 0);
                        framing.write_stored(part.len(), &mut stream[at..]);
                        stream.extend(part);
                    }
                }
            }
            stream.extend(framing.closing());
            let mut decoder = Decoder::new(coding.as_str());
            assert!(decoder.feed(&stream) == parts.concat() && decoder.is_whole(), "{coding:?}");
        }
    }

    /// Bytes that nobody can shorten.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }
}

//! Content codings as clients have them: what has come is decoded at once, whatever is still to come.

use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

/// Decodes one response body.
pub enum Decoder {
    /// No coding.
    Identity,
    /// gzip, and whether it has ended, its checksum included.
    Gzip(Box<Decompress>, bool),
    /// zstd, and whether a frame is open.
    Zstd(DCtx<'static>, bool),
}

impl Decoder {
    /// Of a body with this `content-encoding`.
    pub fn new(coding: &str) -> Self {
        match coding {
            "" => Self::Identity,
            "gzip" => Self::Gzip(Box::new(Decompress::new_gzip(15)), false),
            "zstd" => Self::Zstd(DCtx::create(), false),
            other => panic!("a coding that nobody asked for: {other}"),
        }
    }

    /// All that the next bytes of the body complete; panics where they are malformed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match self {
            Self::Identity => plain.extend_from_slice(bytes),
            Self::Gzip(inflate, ended) => {
                let end = inflate.total_in() + bytes.len() as u64;
                loop {
                    plain.reserve(PART);
                    let rest = &bytes[bytes.len() - (end - inflate.total_in()) as usize..];
                    assert!(!*ended || rest.is_empty(), "bytes after the end of gzip");
                    let status =
                        inflate.decompress_vec(rest, &mut plain, FlushDecompress::None).expect("gzip");
                    *ended |= status == Status::StreamEnd;
                    if inflate.total_in() == end && plain.len() < plain.capacity() {
                        return plain;
                    }
                }
            }
            Self::Zstd(context, open) => {
                let mut input = InBuffer::around(bytes);
                loop {
                    let (mut part, before) = (Vec::with_capacity(PART), input.pos);
                    let mut output = OutBuffer::around(&mut part);
                    let left = context.decompress_stream(&mut output, &mut input).expect("zstd");
                    if input.pos > before || !part.is_empty() {
                        *open = left > 0;
                    }
                    let full = part.len() == PART;
                    plain.append(&mut part);
                    if input.pos == bytes.len() && !full {
                        return plain;
                    }
                }
            }
        }
        plain
    }

    /// Whether the body may end here: gzip after its trailer, zstd between two frames.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Identity => true,
            Self::Gzip(_, ended) => *ended,
            Self::Zstd(_, open) => !open,
        }
    }
}

/// Bytes decoded at a time.
const PART: usize = 16 * 1024;

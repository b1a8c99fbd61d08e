//! What one client's stream has of its coding: a few bytes around what is sent, and for gzip the checksum of it all.

use crc32fast::Hasher;

use super::{Coding, gzip, zstd};

/// Bytes in a stored block at most.
pub const BLOCK: usize = u16::MAX as usize;

/// The framing of one stream, from its opening to its closing.
#[derive(Debug)]
pub enum Framing {
    /// Frames need nothing around them.
    Zstd,
    /// The checksum and the number of all bytes before they were coded.
    Gzip(Hasher, u32),
}

impl Framing {
    /// Of a stream that has not begun.
    pub fn new(coding: Coding) -> Self {
        match coding {
            Coding::Zstd => Self::Zstd,
            Coding::Gzip => Self::Gzip(Hasher::new(), 0),
        }
    }

    /// What comes before everything else.
    pub fn opening(&self) -> &'static [u8] {
        match self {
            Self::Zstd => &[],
            Self::Gzip(..) => gzip::HEADER,
        }
    }

    /// Counts bytes that are sent in stored blocks.
    pub fn sum(&mut self, bytes: &[u8]) {
        if let Self::Gzip(sum, length) = self {
            sum.update(bytes);
            *length = length.wrapping_add(bytes.len() as u32);
        }
    }

    /// Counts bytes that are sent packed, by the checksum of what they stand for and its length.
    pub fn sum_packed(&mut self, packed: &Hasher, plain: usize) {
        if let Self::Gzip(sum, length) = self {
            sum.combine(packed);
            *length = length.wrapping_add(plain as u32);
        }
    }

    /// Bytes before a stored block.
    pub fn stored_length(&self) -> usize {
        match self {
            Self::Zstd => zstd::STORED,
            Self::Gzip(..) => gzip::STORED,
        }
    }

    /// Writes to `out`, which has [`Self::stored_length`] bytes, what comes before `length` bytes that stand as they are,
    /// at most [`BLOCK`].
    pub fn write_stored(&self, length: usize, out: &mut [u8]) {
        let length = u16::try_from(length).expect("a block is not longer than BLOCK");
        match self {
            Self::Zstd => out.copy_from_slice(&zstd::stored(length)),
            Self::Gzip(..) => out.copy_from_slice(&gzip::stored(length)),
        }
    }

    /// What comes after everything else, on a stream that ends in order.
    pub fn closing(&self) -> Vec<u8> {
        match self {
            Self::Zstd => Vec::new(),
            Self::Gzip(sum, length) => {
                let sum = sum.clone().finalize();
                [gzip::LAST, &sum.to_le_bytes(), &length.to_le_bytes()].concat()
            }
        }
    }
}

//! gzip (RFC 1952): a header, deflate blocks (RFC 1951), and a checksum at the end.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress, Status};

/// What a stream begins with (RFC 1952 section 2.3): neither time nor name, and no word on the system.
pub const HEADER: &[u8] = &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];

/// The last block, empty.
pub const LAST: &[u8] = &[1, 0, 0, 0xFF, 0xFF];

thread_local! {
    /// One for each worker and level, so that no client has one.
    static DEFLATE: RefCell<[Option<Compress>; 10]> = const { RefCell::new([const { None }; 10]) };
}

/// Blocks of `plain` that look back at nothing before it and end on a byte; `None` where they would not be shorter.
pub fn pack(plain: &[u8], level: u32) -> Option<Vec<u8>> {
    DEFLATE.with_borrow_mut(|levels| {
        let deflate = levels.get_mut(level as usize)?;
        let deflate = deflate.get_or_insert_with(|| Compress::new(Compression::new(level), false));
        deflate.reset();
        let mut packed = Vec::with_capacity(plain.len());
        let status = deflate.compress_vec(plain, &mut packed, FlushCompress::Full).ok()?;
        // Where no room is left, it may not have been written in full.
        let whole = status == Status::Ok && deflate.total_in() == plain.len() as u64;
        (whole && packed.len() < packed.capacity()).then_some(packed)
    })
}

/// What comes before `length` bytes that stand as they are: the header of a stored block, which is not the last
/// (RFC 1951 section 3.2.4).
pub fn stored(length: u16) -> [u8; STORED] {
    let ([a, b], [c, d]) = (length.to_le_bytes(), (!length).to_le_bytes());
    [0, a, b, c, d]
}

/// Bytes before a stored block.
pub const STORED: usize = 5;

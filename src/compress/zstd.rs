//! zstd (RFC 8878), within what HTTP allows of it (RFC 9659): frames of their own, without checksums.

use std::cell::RefCell;

use zstd_safe::{CCtx, CParameter};

thread_local! {
    /// One for each worker, so that no client has one.
    static CONTEXT: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
}

/// A frame of `plain`, which is the decoder's window, too: browsers refuse more than 8 MiB. `None` where it would not be
/// shorter than that.
pub fn pack(plain: &[u8], level: u32) -> Option<Vec<u8>> {
    CONTEXT.with_borrow_mut(|context| {
        context.set_parameter(CParameter::CompressionLevel(i32::try_from(level).ok()?)).ok()?;
        // There is an error where it does not fit.
        let mut frame = Vec::with_capacity(plain.len() - 1);
        context.compress2(&mut frame, plain).ok()?;
        Some(frame)
    })
}

/// What comes before `length` bytes, 65,535 at most, that stand as they are: the header of a frame that holds a single
/// raw block (sections 3.1.1.1 and 3.1.1.2).
pub fn stored(length: u16) -> [u8; STORED] {
    // A single segment whose size is told in four bytes, and no checksum.
    let mut header = [0x28, 0xB5, 0x2F, 0xFD, 0xA0, 0, 0, 0, 0, 0, 0, 0];
    header[5..9].copy_from_slice(&u32::from(length).to_le_bytes());
    // The last block of its frame, raw, and its size from the fourth bit on.
    header[9..].copy_from_slice(&(u32::from(length) << 3 | 1).to_le_bytes()[..3]);
    header
}

/// Bytes before a stored block.
pub const STORED: usize = 12;

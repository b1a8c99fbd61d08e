//! The wire format of Server-Sent Events (WHATWG HTML section 9.2.5 and 9.2.6), as bytes and nothing
//! else: no I/O, no ids of its own, no policy. `shape` and `hub` write events with it, `http` writes
//! what belongs to one client alone; `cli` reads events with it.
//!
//! An event is written as two ranges: its *body* (`event:` and `data:` lines), which every reader
//! shares, and its *id block* (`id:` line and the blank line that dispatches it), which a reader that
//! stands elsewhere replaces by its own. `blocks` takes what was written apart again.

mod blocks;
mod decode;
mod encode;

pub use blocks::{Block, Blocks};
pub use decode::{Decoder, Event, Item, Oversized};
pub use encode::{EventName, body, comment, control_body, id_block, retry};

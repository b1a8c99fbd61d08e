//! A gap as an entry of a log or of a segment: the gap, which has no id since it must not move the client's cursor,
//! and the position after it, which has.

use super::gap::{Gap, Reason};
use super::id::IdCodec;
use super::position::{Mark, Position};
use crate::shape::{Fault, Record, Shape, Shaped};
use crate::sse;

/// Appends the body of such an entry; its id block is to follow.
pub fn write(gap: &Gap, prefix: &str, codec: &dyn IdCodec, out: &mut Vec<u8>) {
    gap.encode(prefix, codec, out);
    out.push(b'\n');
    sse::control_body(out, prefix, "position", "{}");
}

/// Appends the control event that tells a position by its id.
pub fn write_position(id: &str, prefix: &str, out: &mut Vec<u8>) {
    sse::control_body(out, prefix, "position", "{}");
    sse::id_block(out, id);
}

/// What a record came to.
pub enum Body {
    /// The body of an event was written.
    Event,
    /// The body of a note was written, since the record cannot be sent; and why its data cannot be made, if that is it.
    Note(Reason, Option<Fault>),
    /// Nothing is to be sent.
    None,
    /// Nothing is to be sent, by the route's filter.
    FilteredOut,
    /// Nothing is to be sent, since the filter cannot tell.
    Undecided(Fault),
}

/// Appends the body of `record`'s entry. It takes a reader from `position` past `mark`.
pub fn write_record(
    record: &impl Record,
    shape: &Shape,
    codec: &dyn IdCodec,
    position: &Position,
    mark: Mark,
    out: &mut Vec<u8>,
) -> Body {
    let id = || {
        let mut id = String::new();
        codec.encode(&mark.into(), &mut id);
        id
    };
    let (reason, why) = match shape.encode(record, &id, out) {
        Shaped::Event => return Body::Event,
        Shaped::Skipped => return Body::None,
        Shaped::FilteredOut => return Body::FilteredOut,
        Shaped::Undecided(fault) => return Body::Undecided(fault),
        Shaped::Undecodable => (Reason::Undecodable, None),
        Shaped::Unmade(fault) => (Reason::Undecodable, Some(fault)),
        Shaped::TooLarge => (Reason::TooLarge, None),
    };
    write(&Gap::up_to(reason, position, mark, Some(1)), &shape.control_prefix, codec, out);
    Body::Note(reason, why)
}

//! A gap as an entry of a log or of a segment: the gap, which has no id since it must not move the client's cursor,
//! and the position after it, which has.

use super::gap::{Gap, Reason};
use super::id::IdCodec;
use super::position::{Mark, Position};
use crate::shape::{Facts, Fault, Keys, Record, Shape, Shaped};
use crate::sse;

/// Appends the body of such an entry; its id block is to follow.
pub fn write(gap: &Gap, prefix: &str, codec: &dyn IdCodec, out: &mut Vec<u8>) {
    gap.encode(prefix, codec, out);
    out.push(b'\n');
    sse::control_body(out, prefix, "position", "{}");
}

/// The gap of such a body without the position, which is nothing without an id. The body of an event is that event.
pub fn alone(body: &[u8]) -> &[u8] {
    let blank = memchr::memmem::find(body, b"\n\n");
    blank.map_or(body, |at| &body[..=at])
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
    /// It cannot be sent, and a note is to tell that; and why its data cannot be made, if that is it.
    Note(Reason, Option<Fault>),
    /// Nothing is to be sent.
    None,
    /// Nothing is to be sent, by the route's filter.
    FilteredOut,
    /// Nothing is to be sent, since the filter cannot tell.
    Undecided(Fault),
}

/// Appends the body of `record`'s event, if it makes one. `id` is what its id would be. Also returns its keys, and what is known
/// of the event.
pub fn write_event<'r>(
    record: &'r impl Record,
    shape: &Shape,
    id: &dyn Fn() -> String,
    out: &mut Vec<u8>,
) -> (Body, Keys<'r>, Facts) {
    let (shaped, keys, facts) = shape.encode(record, id, out);
    let body = match shaped {
        Shaped::Event => Body::Event,
        Shaped::Skipped => Body::None,
        Shaped::FilteredOut => Body::FilteredOut,
        Shaped::Undecided(fault) => Body::Undecided(fault),
        Shaped::Undecodable => Body::Note(Reason::Undecodable, None),
        Shaped::Unmade(fault) => Body::Note(Reason::Undecodable, Some(fault)),
        Shaped::TooLarge => Body::Note(Reason::TooLarge, None),
    };
    (body, keys, facts)
}

/// The id of the event that takes a reader to `mark`, where nothing else is known of him.
pub fn id(codec: &dyn IdCodec, mark: Mark) -> String {
    let mut id = String::new();
    codec.encode(&mark.into(), &mut id);
    id
}

/// Appends the body of `record`'s entry. It takes a reader from `position` past `mark`.
pub fn write_record<'r>(
    record: &'r impl Record,
    shape: &Shape,
    codec: &dyn IdCodec,
    position: &Position,
    mark: Mark,
    out: &mut Vec<u8>,
) -> (Body, Keys<'r>, Facts) {
    let (body, keys, facts) = write_event(record, shape, &|| id(codec, mark), out);
    if let Body::Note(reason, _) = body {
        write(&Gap::up_to(reason, position, mark, Some(1)), &shape.control_prefix, codec, out);
    }
    (body, keys, facts)
}

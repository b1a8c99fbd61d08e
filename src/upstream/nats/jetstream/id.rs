//! Ids of a stream's messages: a hash of the stream's name, one of when it was made, and the sequence number of the message
//! that was read last. They mean the same on every replica, and tell a stream from another that had its name.
//!
//! Positions are counted from 0, as everywhere: who stands at `n` has read the message with sequence number `n`, and
//! all before it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::hub::{Decoded, IdCodec, Position};

/// What tells a stream from others that had its name: sequence numbers of one mean nothing in another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Incarnation {
    /// When it was made, as the server says it.
    pub created: String,
    /// How often its sequence numbers went back.
    pub count: u32,
}

/// The codec of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCodec {
    name: u32,
    incarnation: u32,
}

impl StreamCodec {
    /// Of a stream of this name that was made then.
    pub(super) fn new(name: &str, incarnation: &Incarnation) -> Self {
        let made = incarnation.created.bytes().chain(incarnation.count.to_be_bytes());
        Self { name: hash(name.bytes()), incarnation: hash(made) }
    }

    /// The same for who knows only when it was made.
    pub fn of(name: &str, created: &str) -> Self {
        Self::new(name, &Incarnation { created: created.to_owned(), count: 0 })
    }
}

impl IdCodec for StreamCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        write!(out, "{:08x}{:08x}-{}", self.name, self.incarnation, position.next(0))
            .expect("writing to memory cannot fail");
    }

    fn decode(&self, id: &str) -> Decoded {
        let parts = id.split_once('-').and_then(|(hashes, number)| {
            let (name, incarnation) = hashes.split_at_checked(8).filter(|(_, rest)| rest.len() == 8)?;
            Some((base_16(name)?, base_16(incarnation)?, base_10(number)?))
        });
        match parts {
            Some((name, ..)) if name != self.name => Decoded::Unknown,
            Some((_, incarnation, _)) if incarnation != self.incarnation => Decoded::Recreated,
            Some((.., number)) => Decoded::Position(Position::new(vec![number])),
            None => Decoded::Unknown,
        }
    }

    fn single_order(&self) -> bool {
        true
    }

    /// Of some subjects alone, or where messages were deleted, there are numbers without an event.
    fn counts(&self) -> bool {
        false
    }

    /// Sequence numbers: `from` is the first that is missing, `to` the first that is not.
    fn bound(&self, position: &Position, _: &Position) -> Value {
        json!(position.next(0).saturating_add(1))
    }
}

fn base_16(digits: &str) -> Option<u32> {
    let canonical = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Digits alone, and no zero before others.
fn base_10(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// FNV-1a of 32 bits.
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec(name: &str, created: &str) -> StreamCodec {
        StreamCodec::of(name, created)
    }

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        assert_eq!(encoded(codec("a", "1"), u64::MAX).len(), crate::config::longest::MESSAGE);
    }

    fn encoded(codec: StreamCodec, number: u64) -> String {
        let mut id = String::new();
        codec.encode(&Position::new(vec![number]), &mut id);
        id
    }

    #[test]
    fn ids_of_other_streams_are_told_apart() {
        let orders = codec("ORDERS", "2026-01-01T00:00:00Z");
        let id = encoded(orders, 7);
        assert_eq!(orders.decode(&id), Decoded::Position(Position::new(vec![7])));
        assert_eq!(codec("ORDERS", "2026-01-01T00:00:01Z").decode(&id), Decoded::Recreated);
        assert_eq!(codec("AUDIT", "2026-01-01T00:00:00Z").decode(&id), Decoded::Unknown);
        let anew = Incarnation { created: "2026-01-01T00:00:00Z".into(), count: 1 };
        assert_eq!(StreamCodec::new("ORDERS", &anew).decode(&id), Decoded::Recreated);
        for other in
            ["", "-", "7", &id[..id.len() - 1], &id.to_uppercase(), &id.replace('-', "-0"), &format!("{id}-")]
        {
            assert_eq!(orders.decode(other), Decoded::Unknown, "{other}");
        }
        assert_eq!(
            orders.decode(&encoded(orders, u64::MAX)),
            Decoded::Position(Position::new(vec![u64::MAX]))
        );
    }

    #[test]
    fn a_gap_names_sequence_numbers() {
        let codec = codec("S", "t");
        let (from, to) = (Position::new(vec![3]), Position::new(vec![9]));
        assert_eq!((codec.bound(&from, &to), codec.bound(&to, &from)), (json!(4), json!(10)));
    }

    proptest! {
        #[test]
        fn no_text_is_a_crash(id in ".{0,40}|[0-9a-f]{16}-[0-9]{0,30}") {
            codec("S", "t").decode(&id);
        }
    }
}

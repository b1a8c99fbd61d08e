//! The ids of a stream's entries: `MILLISECONDS-SEQUENCE`. Event ids are these very ids, so that they mean the same
//! on every replica, and to whoever looks at the stream with other tools.

use serde_json::{Value, json};

use crate::hub::{Decoded, IdCodec, Offset, Position};

/// Before every entry.
pub(super) const BEGIN: Offset = Offset { major: 0, minor: 0 };

/// The largest id that there can be.
pub(super) const END: Offset = Offset { major: u64::MAX, minor: u64::MAX };

/// The id that `text` says in the one way in which Redis writes it.
pub(super) fn parse(text: &str) -> Option<Offset> {
    let (major, minor) = text.split_once('-')?;
    Some(Offset { major: number(major)?, minor: number(minor)? })
}

/// Digits alone, and no zero before others.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The id as text.
pub(super) fn show(id: Offset) -> String {
    format!("{}-{}", id.major, id.minor)
}

/// The id that follows; the largest has none.
pub(super) fn after(id: Offset) -> Option<Offset> {
    match id.minor.checked_add(1) {
        Some(minor) => Some(Offset { minor, ..id }),
        None => Some(Offset { major: id.major.checked_add(1)?, minor: 0 }),
    }
}

/// The id before, which is where a reader stands whose next entry is `id`.
pub(super) fn before(id: Offset) -> Offset {
    match (id.major, id.minor.checked_sub(1)) {
        (_, Some(minor)) => Offset { minor, ..id },
        (0, None) => BEGIN,
        (major, None) => Offset { major: major - 1, minor: u64::MAX },
    }
}

/// The event id of a position is the id of the entry that was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryCodec;

impl IdCodec for EntryCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        out.push_str(&show(position.at(0)));
    }

    fn decode(&self, id: &str) -> Decoded {
        parse(id).map_or(Decoded::Unknown, |id| Decoded::Position(Position::single(id)))
    }

    fn single_order(&self) -> bool {
        true
    }

    fn counts(&self) -> bool {
        false
    }

    /// They are those of the entries, which in a stream that was created anew go on with the time.
    fn tells_incarnations(&self) -> bool {
        false
    }

    /// Ids, as ranges are half-open: `from` is the first that is missing, `to` the first that is not.
    fn bound(&self, position: &Position, _: &Position) -> Value {
        json!(show(after(position.at(0)).unwrap_or(END)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(major: u64, minor: u64) -> Offset {
        Offset { major, minor }
    }

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        assert_eq!(show(END).len(), crate::config::longest::ENTRY);
    }

    #[test]
    fn neighbours() {
        for (first, second) in [
            (id(0, 0), id(0, 1)),
            (id(5, 6), id(5, 7)),
            (id(5, u64::MAX), id(6, 0)),
            (id(u64::MAX, u64::MAX - 1), END),
        ] {
            assert_eq!((after(first), before(second)), (Some(second), first));
        }
        assert_eq!((after(END), before(BEGIN)), (None, BEGIN));
    }

    #[test]
    fn what_redis_would_not_write_is_unknown() {
        for text in [
            "",
            "-",
            "5",
            "5-",
            "-5",
            "+5-1",
            "5-+1",
            "05-1",
            "5-01",
            "5-1-1",
            " 5-1",
            "5-1 ",
            "5-*",
            "$",
            "18446744073709551616-0",
            "0-18446744073709551616",
            "5f0c2a9e4b1d7e63-1",
            "٥-١",
        ] {
            assert_eq!(EntryCodec.decode(text), Decoded::Unknown, "{text}");
        }
    }

    #[test]
    fn the_ends_of_a_range_are_ids() {
        let (from, to) = (Position::single(id(5, 6)), Position::single(id(8, u64::MAX)));
        assert_eq!(
            (EntryCodec.bound(&from, &to), EntryCodec.bound(&to, &from)),
            (json!("5-7"), json!("9-0"))
        );
        let end = Position::single(END);
        assert_eq!(EntryCodec.bound(&end, &from), json!("18446744073709551615-18446744073709551615"));
    }

    proptest! {
        #[test]
        fn every_id_comes_back(major: u64, minor: u64) {
            let position = Position::single(id(major, minor));
            let mut text = String::new();
            EntryCodec.encode(&position, &mut text);
            prop_assert_eq!(EntryCodec.decode(&text), Decoded::Position(position));
        }

        #[test]
        fn no_text_is_a_crash(text in ".{0,60}|[0-9-]{0,50}") {
            EntryCodec.decode(&text);
        }
    }
}

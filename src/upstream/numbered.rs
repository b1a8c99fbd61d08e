//! Event ids of sources whose positions are one number: `TAG-NUMBER`, in lower-case base 16 and base 10. The tag is a hash of the
//! source's name, and one of what tells it from others that had its name; so ids mean the same on every replica.

use std::fmt::Write as _;

use crate::hub::{Decoded, Position};

/// Whose an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    name: u16,
    incarnation: u16,
}

impl Tag {
    /// Of the source of this name that is called so among all that had it.
    pub(super) fn new(name: &str, incarnation: &str) -> Self {
        Self { name: hash(name), incarnation: hash(incarnation) }
    }

    /// Appends the id of a position.
    pub(super) fn write(self, position: &Position, out: &mut String) {
        write!(out, "{:04x}{:04x}-{}", self.name, self.incarnation, position.next(0))
            .expect("writing to memory cannot fail");
    }

    /// What an id says.
    pub(super) fn read(self, id: &str) -> Decoded {
        match parse(id) {
            Some((tag, number)) if tag == self => Decoded::Position(Position::new(vec![number])),
            Some((tag, _)) if tag.name == self.name => Decoded::Recreated,
            _ => Decoded::Unknown,
        }
    }
}

/// The parts of an id, if it is one, in the only way in which that is written.
fn parse(id: &str) -> Option<(Tag, u64)> {
    let (tag, number) = id.split_once('-')?;
    let hex = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let digits = number.bytes().all(|b| b.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
    let sound = tag.len() == 8 && tag.bytes().all(hex) && digits;
    // Numbers are signed where they come from: what does not fit was never given.
    let number = number.parse().ok().filter(|number| *number <= i64::MAX as u64)?;
    let bits = sound.then(|| u32::from_str_radix(tag, 16).ok())??;
    Some((Tag { name: (bits >> 16) as u16, incarnation: bits as u16 }, number))
}

/// FNV-1a of 32 bits, folded.
fn hash(text: &str) -> u16 {
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        let mut id = String::new();
        Tag::new("a", "1").write(&Position::new(vec![i64::MAX as u64]), &mut id);
        assert_eq!(id.len(), crate::config::longest::TAGGED);
    }

    #[test]
    fn there_and_back() {
        let (own, anew, other) = (Tag::new("a", "1"), Tag::new("a", "2"), Tag::new("b", "1"));
        for number in [0, 1, 42, i64::MAX as u64] {
            let (position, mut id) = (Position::new(vec![number]), String::new());
            own.write(&position, &mut id);
            assert_eq!(own.read(&id), Decoded::Position(position), "{id}");
            assert_eq!((anew.read(&id), other.read(&id)), (Decoded::Recreated, Decoded::Unknown));
        }
    }

    #[test]
    fn what_was_never_given_is_none() {
        for id in [
            "",
            "-",
            "7",
            "-7",
            "000000ab",
            "000000ab-",
            "000000ab-07",
            "000000ab-+7",
            "000000ab-7 ",
            "0000ab-7",
            "000000AB-7",
            "000000ag-7",
            "000000ab--1",
            "000000ab-9223372036854775808",
            "000000ab-99999999999999999999",
        ] {
            assert_eq!(parse(id), None, "{id}");
        }
    }

    /// It stands in ids that clients keep.
    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!((hash(""), hash("a")), (0x811c ^ 0x9dc5, 0xe40c ^ 0x292c));
    }
}

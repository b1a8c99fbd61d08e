//! Event ids: positions as text. Clients hand them back in `Last-Event-ID` and otherwise leave them alone.

use serde_json::{Value, json};

use super::position::{Mark, Offset, Position};

/// Turns positions into ids and back. One for each log, given when the log opens.
pub trait IdCodec: Send + Sync + std::fmt::Debug {
    /// Appends the id of `position` to `out`; no control characters.
    fn encode(&self, position: &Position, out: &mut String);

    /// What `id` says.
    fn decode(&self, id: &str) -> Decoded;

    /// Whether the source has a single order, so that positions are numbers.
    fn single_order(&self) -> bool;

    /// What `id` says to a reader of this key, where the log stands at `position`.
    fn decode_for(&self, id: &str, _key: &[u8], _position: &Position) -> Decoded {
        self.decode(id)
    }

    /// The only partition in which records of `key` are, as far as is known; `None` where they may be in any.
    fn home(&self, _key: &[u8]) -> Option<u32> {
        None
    }

    /// Appends the id of a place in the only partition of a key.
    fn encode_home(&self, partition: u32, next: Offset, out: &mut String) {
        self.encode(&Mark { partition, next }.into(), out);
    }

    /// Records of some key were found elsewhere than at its home, or may be from now on: no key has a home any more.
    /// The log stands at `position`.
    fn scatter(&self, _position: &Position) {}

    /// The log holds nothing before this position any more: what is known of ids of before can go.
    fn forgets(&self, _floor: &Position) {}

    /// Whether ids tell sources apart that had the same name one after the other.
    fn tells_incarnations(&self) -> bool {
        true
    }

    /// Whether these numbers count events.
    fn counts(&self) -> bool {
        self.single_order()
    }

    /// One end of a gap's range, as it stands in `data:`.
    fn bound(&self, position: &Position, other: &Position) -> Value {
        if self.single_order() {
            return json!(position.next(0));
        }
        let partitions = position.as_slice().len().max(other.as_slice().len()) as u32;
        let differing = (0..partitions).filter(|&p| position.next(p) != other.next(p));
        differing.map(|p| (p.to_string(), json!(position.next(p)))).collect::<serde_json::Map<_, _>>().into()
    }
}

/// What an id turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A position of this source.
    Position(Position),
    /// A position in all partitions, though the reader's key has a home: it was another once.
    Wide(Position),
    /// An id that this source gave before it was let go for want of clients.
    Idle,
    /// An id of a source of the same name that was deleted since.
    Recreated,
    /// Malformed, of another route, or of another process.
    Unknown,
}

/// A random name for one incarnation of a log; ids of another incarnation are told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// A new one, unlike every other with near certainty (64 random bits).
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Its bits.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Ids of a source that keeps no history upstream: `epoch-seq`, both in lower-case base 16 and base 10.
#[derive(Debug, Clone)]
pub struct EpochCodec {
    epoch: Epoch,
    previous: Option<Epoch>,
}

impl EpochCodec {
    /// A codec for the log of this epoch. `previous` is the epoch of the same feed before it was idle.
    pub fn new(epoch: Epoch, previous: Option<Epoch>) -> Self {
        Self { epoch, previous }
    }
}

impl IdCodec for EpochCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        use std::fmt::Write as _;
        write!(out, "{:016x}-{}", self.epoch.0, position.next(0)).expect("writing to memory cannot fail");
    }

    fn decode(&self, id: &str) -> Decoded {
        let parts = id.split_once('-').and_then(|(epoch, seq)| {
            let hex = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            let canonical =
                epoch.len() == 16 && epoch.bytes().all(hex) && seq.bytes().all(|b| b.is_ascii_digit());
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            canonical.then_some((Epoch(epoch), seq.parse().ok()?))
        });
        match parts {
            Some((epoch, seq)) if epoch == self.epoch => Decoded::Position(Position::new(vec![seq])),
            Some((epoch, _)) if Some(epoch) == self.previous => Decoded::Idle,
            _ => Decoded::Unknown,
        }
    }

    fn single_order(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        let mut id = String::new();
        EpochCodec::new(Epoch(u64::MAX), None).encode(&Position::new(vec![u64::MAX]), &mut id);
        assert_eq!(id.len(), crate::config::longest::EPOCH);
    }

    #[test]
    fn an_epoch_knows_its_own_ids() {
        let (old, new) = (Epoch(0xab), Epoch(0xcd));
        let codec = EpochCodec::new(new, Some(old));
        let mut id = String::new();
        codec.encode(&Position::new(vec![42]), &mut id);
        assert_eq!(id, "00000000000000cd-42");
        assert_eq!(codec.decode(&id), Decoded::Position(Position::new(vec![42])));
        assert_eq!(codec.decode("00000000000000ab-42"), Decoded::Idle);
        for foreign in
            ["", "-", "42", "00000000000000ce-42", "cd-42", "00000000000000cd-", "00000000000000cd-+1"]
                .into_iter()
                .chain(["+0000000000000cd-42", "00000000000000CD-42", " 00000000000000cd-42"])
        {
            assert_eq!(codec.decode(foreign), Decoded::Unknown, "{foreign}");
        }
        assert_eq!(codec.decode("00000000000000cd-99999999999999999999"), Decoded::Unknown);
    }
}

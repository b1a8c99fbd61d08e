//! Event ids of a topic: its next offset in every partition, with a short hash of cluster and topic, so that
//! the id means the same on every replica and nothing on another route.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::topic_id::TopicId;
use crate::hub::{Decoded, IdCodec, Position};

/// Base64url of: version, four bytes of hash, two of another, the number of partitions up to the last that is not at
/// offset 0, and the next offset of each; numbers as LEB128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicCodec {
    /// Of cluster and topic.
    scope: [u8; 4],
    /// Of what tells the topic from others that had its name.
    incarnation: [u8; 2],
}

/// What tells a topic from others that had its name: offsets of one mean nothing in another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// Its id, where the broker tells it.
    pub id: Option<TopicId>,
    /// How often its offsets went back.
    pub count: u32,
}

/// Whose an id is.
pub(super) enum Scope {
    /// This topic's; the rest of it.
    Own(Vec<u8>),
    /// That of a topic that had its name.
    Recreated,
    /// Malformed, or another topic's.
    Foreign,
}

impl TopicCodec {
    /// The codec of a topic. Some brokers tell no cluster id; then the topic alone is told apart.
    pub fn new(cluster: Option<&str>, topic: &str, incarnation: Incarnation) -> Self {
        let named = cluster.unwrap_or_default().bytes().chain([0]).chain(topic.bytes());
        let id = incarnation.id.map(|TopicId(bytes)| bytes);
        let [a, b, ..] = hash(id.into_iter().flatten().chain(incarnation.count.to_be_bytes()));
        Self { scope: hash(named), incarnation: [a, b] }
    }

    /// Takes an id of a version apart.
    pub(super) fn open(&self, id: &str, version: u8) -> Scope {
        let Ok(bytes) = BASE64.decode(id) else { return Scope::Foreign };
        let rest = bytes.strip_prefix(&[version]).and_then(|rest| rest.strip_prefix(&self.scope));
        match rest.and_then(|rest| rest.split_first_chunk()) {
            Some((incarnation, rest)) if *incarnation == self.incarnation => Scope::Own(rest.to_vec()),
            Some(_) => Scope::Recreated,
            None => Scope::Foreign,
        }
    }

    /// Appends an id of a version.
    pub(super) fn seal(&self, version: u8, out: &mut String, rest: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::with_capacity(32);
        bytes.push(version);
        bytes.extend_from_slice(&self.scope);
        bytes.extend_from_slice(&self.incarnation);
        rest(&mut bytes);
        BASE64.encode_string(&bytes, out);
    }
}

/// The offsets in the rest of an id.
fn read(mut rest: &[u8]) -> Option<Position> {
    let partitions = take_number(&mut rest)?;
    let next: Vec<u64> = (0..partitions).map_while(|_| take_number(&mut rest)).collect();
    // Librdkafka's offsets are signed: what does not fit was never given by Kafka.
    let sound = next.len() as u64 == partitions && rest.is_empty() && next.iter().all(|&n| n <= MAX_OFFSET);
    // A forged id could hold many zeros, each of them a step for whoever compares positions.
    sound.then(|| Position::new(without_end_zeros(&next).to_vec()))
}

impl IdCodec for TopicCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        let next = without_end_zeros(position.as_slice());
        self.seal(VERSION, out, |bytes| {
            put_number(next.len() as u64, bytes);
            next.iter().for_each(|&offset| put_number(offset, bytes));
        });
    }

    fn decode(&self, id: &str) -> Decoded {
        match self.open(id, VERSION) {
            Scope::Own(rest) => read(&rest).map_or(Decoded::Unknown, Decoded::Position),
            Scope::Recreated => Decoded::Recreated,
            Scope::Foreign => Decoded::Unknown,
        }
    }

    fn single_order(&self) -> bool {
        false
    }
}

/// FNV-1a of 32 bits.
fn hash(bytes: impl Iterator<Item = u8>) -> [u8; 4] {
    bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME)).to_be_bytes()
}

/// Partitions at offset 0 say nothing where no other follows.
fn without_end_zeros(next: &[u64]) -> &[u64] {
    &next[..next.iter().rposition(|&offset| offset > 0).map_or(0, |last| last + 1)]
}

pub(super) fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        number |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

const VERSION: u8 = 1;
const MAX_OFFSET: u64 = i64::MAX as u64;
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::longest::longest_of_topic;

    fn codec_of(cluster: &str, topic: &str, count: u32) -> TopicCodec {
        TopicCodec::new(Some(cluster), topic, Incarnation { id: None, count })
    }

    fn encoded(codec: &TopicCodec, position: &Position) -> String {
        let mut id = String::new();
        codec.encode(position, &mut id);
        id
    }

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        for partitions in [1, 12, 127, 128, 1_000] {
            let id = encoded(&codec_of("c", "t", 7), &Position::new(vec![MAX_OFFSET; partitions]));
            assert_eq!(id.len(), longest_of_topic(partitions), "{partitions}");
        }
    }

    #[test]
    fn ids_of_other_topics_and_cut_ids_are_unknown() {
        let codec = codec_of("c1", "orders", 0);
        let id = encoded(&codec, &Position::new(vec![5, 1_000_000_000, 0]));
        assert_eq!(codec.decode(&id), Decoded::Position(Position::new(vec![5, 1_000_000_000])));
        for other in [codec_of("c1", "audit", 0), codec_of("c2", "orders", 0)] {
            assert_eq!(other.decode(&id), Decoded::Unknown);
        }
        assert_eq!(codec_of("c1", "orders", 1).decode(&id), Decoded::Recreated);
        for end in 0..id.len() {
            assert_eq!(codec.decode(&id[..end]), Decoded::Unknown, "{end}");
        }
        assert_eq!(codec.decode(&format!("{id}AA")), Decoded::Unknown);
    }

    #[test]
    fn five_hundred_partitions_take_at_most_eight_characters_each() {
        let codec = TopicCodec::new(None, "wide", Incarnation::default());
        let id = encoded(&codec, &Position::new((0..500).map(|n| 1_000_000_000 + n).collect()));
        assert!(id.len() <= 500 * 8, "{}", id.len());
    }

    proptest! {
        #[test]
        fn every_position_comes_back(next in proptest::collection::vec(0..=MAX_OFFSET, 0..40)) {
            let codec = codec_of("c", "t", 0);
            let position = Position::new(next);
            prop_assert_eq!(codec.decode(&encoded(&codec, &position)), Decoded::Position(position));
        }

        #[test]
        fn no_text_is_a_crash(id in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let codec = codec_of("c", "t", 0);
            codec.decode(&id);
            let mut own = vec![VERSION];
            own.extend(codec.scope);
            own.extend(codec.incarnation);
            own.extend(bytes);
            codec.decode(&BASE64.encode(own));
        }
    }
}

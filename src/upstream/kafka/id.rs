//! Event ids of a topic: its next offset in every partition, with a short hash of cluster and topic, so that
//! the id means the same on every replica and nothing on another route.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::hub::{Decoded, IdCodec, Position};

/// Base64url of: version, four bytes of hash, the number of partitions up to the last that is not at
/// offset 0, and the next offset of each; numbers as LEB128.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicCodec {
    scope: [u8; 4],
}

impl TopicCodec {
    /// The codec of a topic. Some brokers tell no cluster id; then the topic alone is told apart. `generation`
    /// counts how often the topic was seen to be created anew: offsets of before mean nothing after.
    pub(super) fn new(cluster: Option<&str>, topic: &str, generation: u32) -> Self {
        let mut hash = FNV_OFFSET;
        let generation = generation.to_be_bytes().into_iter().filter(|_| generation > 0);
        for byte in cluster.unwrap_or_default().bytes().chain([0]).chain(topic.bytes()).chain(generation) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME);
        }
        Self { scope: hash.to_be_bytes() }
    }

    fn parse(&self, id: &str) -> Option<Position> {
        let bytes = BASE64.decode(id).ok()?;
        let mut rest = bytes.strip_prefix(&[VERSION])?.strip_prefix(&self.scope)?;
        let partitions = take_number(&mut rest)?;
        let next: Vec<u64> = (0..partitions).map_while(|_| take_number(&mut rest)).collect();
        // Librdkafka's offsets are signed: what does not fit was never given by Kafka.
        let sound =
            next.len() as u64 == partitions && rest.is_empty() && next.iter().all(|&n| n <= MAX_OFFSET);
        // A forged id could hold many zeros, each of them a step for whoever compares positions.
        sound.then(|| Position::new(without_end_zeros(&next).to_vec()))
    }
}

impl IdCodec for TopicCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        let next = without_end_zeros(position.as_slice());
        let mut bytes = Vec::with_capacity(8 + next.len() * 5);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.scope);
        put_number(next.len() as u64, &mut bytes);
        next.iter().for_each(|&offset| put_number(offset, &mut bytes));
        BASE64.encode_string(&bytes, out);
    }

    fn decode(&self, id: &str) -> Decoded {
        self.parse(id).map_or(Decoded::Unknown, Decoded::Position)
    }

    fn single_order(&self) -> bool {
        false
    }
}

/// Partitions at offset 0 say nothing where no other follows.
fn without_end_zeros(next: &[u64]) -> &[u64] {
    &next[..next.iter().rposition(|&offset| offset > 0).map_or(0, |last| last + 1)]
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
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

    fn encoded(codec: &TopicCodec, position: &Position) -> String {
        let mut id = String::new();
        codec.encode(position, &mut id);
        id
    }

    #[test]
    fn ids_of_other_topics_and_cut_ids_are_unknown() {
        let codec = TopicCodec::new(Some("c1"), "orders", 0);
        let id = encoded(&codec, &Position::new(vec![5, 1_000_000_000, 0]));
        assert_eq!(codec.decode(&id), Decoded::Position(Position::new(vec![5, 1_000_000_000])));
        for other in [
            TopicCodec::new(Some("c1"), "audit", 0),
            TopicCodec::new(Some("c2"), "orders", 0),
            TopicCodec::new(Some("c1"), "orders", 1),
        ] {
            assert_eq!(other.decode(&id), Decoded::Unknown);
        }
        for end in 0..id.len() {
            assert_eq!(codec.decode(&id[..end]), Decoded::Unknown, "{end}");
        }
        assert_eq!(codec.decode(&format!("{id}AA")), Decoded::Unknown);
    }

    #[test]
    fn five_hundred_partitions_take_at_most_eight_characters_each() {
        let codec = TopicCodec::new(None, "wide", 0);
        let id = encoded(&codec, &Position::new((0..500).map(|n| 1_000_000_000 + n).collect()));
        assert!(id.len() <= 500 * 8, "{}", id.len());
    }

    proptest! {
        #[test]
        fn every_position_comes_back(next in proptest::collection::vec(0..=MAX_OFFSET, 0..40)) {
            let codec = TopicCodec::new(Some("c"), "t", 0);
            let position = Position::new(next);
            prop_assert_eq!(codec.decode(&encoded(&codec, &position)), Decoded::Position(position));
        }

        #[test]
        fn no_text_is_a_crash(id in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let codec = TopicCodec::new(Some("c"), "t", 0);
            codec.decode(&id);
            let mut own = vec![VERSION];
            own.extend(codec.scope);
            own.extend(bytes);
            codec.decode(&BASE64.encode(own));
        }
    }
}

//! Which partition holds a key: what producers do by default, so that a reader of one key need look at no other.

use crate::config::Partitioner;

/// The partition of a key among so many; `None` where it may be in any.
pub(super) fn partition_of(partitioner: Partitioner, key: &[u8], partitions: u32) -> Option<u32> {
    let hash = match partitioner {
        // Java's `toPositive` of a signed hash.
        Partitioner::Murmur2 => murmur2(key) & 0x7fff_ffff,
        Partitioner::Crc32 => crc32fast::hash(key),
        Partitioner::Any => return None,
    };
    (partitions > 0).then(|| hash % partitions)
}

/// MurmurHash2 of 32 bits as in Kafka's `org.apache.kafka.common.utils.Utils`, which librdkafka's `murmur2` follows.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107_i32),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_key_has_a_partition_or_may_be_in_any() {
        assert_eq!(
            partition_of(Partitioner::Murmur2, b"21", 6),
            Some((973_932_308_u32.wrapping_neg() & 0x7fff_ffff) % 6)
        );
        assert_eq!(partition_of(Partitioner::Crc32, b"123456789", 6), Some(0xcbf4_3926 % 6));
        assert_eq!(partition_of(Partitioner::Any, b"21", 6), None);
    }
}

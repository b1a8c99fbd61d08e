//! Event ids of a topic whose readers see one key each: the next offset in the only partition that holds the key, as
//! long as all keys are where the partitioner puts them, else those of all partitions, as for the whole topic.

use std::sync::OnceLock;

use super::id::{Scope, TopicCodec, put_number, take_number};
use super::partitioner::partition_of;
use crate::config::Partitioner;
use crate::hub::{Decoded, IdCodec, Mark, Offset, Position};

/// Base64url of: version, hashes as in the ids of a whole topic, the number of partitions, the partition, and the next
/// offset there; numbers as LEB128. The number tells ids from before partitions were added, when keys lived elsewhere.
#[derive(Debug)]
pub struct KeyedCodec {
    whole: TopicCodec,
    partitioner: Partitioner,
    partitions: u32,
    /// Where the log stood when keys ceased to have a home.
    scattered: OnceLock<Position>,
}

impl KeyedCodec {
    /// The codec of a topic with so many partitions.
    pub fn new(whole: TopicCodec, partitioner: Partitioner, partitions: usize) -> Self {
        Self { whole, partitioner, partitions: partitions as u32, scattered: OnceLock::new() }
    }

    fn read(&self, mut rest: &[u8], key: &[u8], position: &Position) -> Option<Decoded> {
        let partitions = u32::try_from(take_number(&mut rest)?).ok()?;
        let partition = u32::try_from(take_number(&mut rest)?).ok()?;
        let next = take_number(&mut rest).filter(|&next| next <= i64::MAX as u64)?;
        // An id of another key means something only if that lives in the same partition.
        let fits = rest.is_empty() && partition_of(self.partitioner, key, partitions) == Some(partition);
        // A replica may know of partitions that were added before this one does.
        let known = position.as_slice().len().max(self.partitions as usize);
        if !fits || partition as usize >= known + MOST_ADDED {
            return None;
        }
        let (mark, scattered) = (Mark::new(partition, next), self.scattered.get());
        if scattered.is_none() && partitions == self.partitions {
            return Some(Decoded::Position(mark.into()));
        }
        let mut position = scattered.unwrap_or(position).clone();
        // With each number of partitions since then the key had another home, of which nothing has been read.
        for partitions in partitions.saturating_add(1)..=self.partitions {
            let home = partition_of(self.partitioner, key, partitions);
            home.into_iter().for_each(|home| position.put(Mark::new(home, 0)));
        }
        position.put(mark);
        Some(if scattered.is_some() { Decoded::Position(position) } else { Decoded::Wide(position) })
    }
}

impl IdCodec for KeyedCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        self.whole.encode(position, out);
    }

    fn decode(&self, id: &str) -> Decoded {
        self.whole.decode(id)
    }

    fn decode_for(&self, id: &str, key: &[u8], position: &Position) -> Decoded {
        match self.whole.open(id, VERSION) {
            Scope::Own(rest) => self.read(&rest, key, position).unwrap_or(Decoded::Unknown),
            Scope::Recreated => Decoded::Recreated,
            Scope::Foreign => match self.whole.decode(id) {
                // Its reader may have been given records that were not at home, and may lack some.
                Decoded::Position(position) if self.scattered.get().is_none() => Decoded::Wide(position),
                decoded => decoded,
            },
        }
    }

    fn home(&self, key: &[u8]) -> Option<u32> {
        match self.scattered.get() {
            None => partition_of(self.partitioner, key, self.partitions),
            Some(_) => None,
        }
    }

    fn encode_home(&self, partition: u32, next: Offset, out: &mut String) {
        self.whole.seal(VERSION, out, |bytes| {
            put_number(self.partitions.into(), bytes);
            put_number(partition.into(), bytes);
            put_number(next.major, bytes);
        });
    }

    fn scatter(&self, position: &Position) {
        if self.scattered.set(position.clone()).is_ok() {
            let partitioner = self.partitioner;
            tracing::warn!(
                ?partitioner,
                "keys are not where the partitioner puts them; ids name all partitions from now on"
            );
        }
    }

    fn single_order(&self) -> bool {
        false
    }
}

const VERSION: u8 = 2;
/// How many more partitions than are known an id may speak of.
const MOST_ADDED: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::super::id::Incarnation;
    use super::*;

    fn codec(partitions: usize) -> KeyedCodec {
        let topic = TopicCodec::new(Some("c"), "orders", Incarnation::default());
        KeyedCodec::new(topic, Partitioner::Murmur2, partitions)
    }

    #[test]
    fn the_longest_is_as_long_as_the_configuration_has_it() {
        let mut id = String::new();
        codec(u32::MAX as usize).encode_home(u32::MAX, (i64::MAX as u64).into(), &mut id);
        assert_eq!(id.len(), crate::config::longest::KEY);
    }

    fn id(codec: &KeyedCodec, key: &[u8], next: u64) -> String {
        let mut id = String::new();
        codec.encode_home(codec.home(key).unwrap(), next.into(), &mut id);
        id
    }

    fn at(next: &[u64]) -> Position {
        Position::new(next.to_vec())
    }

    #[test]
    fn an_id_names_the_partition_of_its_key_alone() {
        let (codec, log) = (codec(6), at(&[10; 6]));
        let home = codec.home(b"21").unwrap();
        let id = id(&codec, b"21", 1_000_000_000);
        assert!(id.len() <= 20, "{id}");
        let mut expected = Position::default();
        expected.advance(Mark::new(home, 1_000_000_000));
        assert_eq!(codec.decode_for(&id, b"21", &log), Decoded::Position(expected));
        let stranger = (0..100).map(|n| n.to_string()).find(|key| codec.home(key.as_bytes()) != Some(home));
        assert_eq!(codec.decode_for(&id, stranger.unwrap().as_bytes(), &log), Decoded::Unknown);
        assert_eq!(codec.decode(&id), Decoded::Unknown, "it is none of the whole topic");
        for end in 0..id.len() {
            assert_eq!(codec.decode_for(&id[..end], b"21", &log), Decoded::Unknown, "{end}");
        }
        // One of the whole topic is one of each key.
        let mut whole = String::new();
        codec.encode(&at(&[1, 2, 3, 4, 5, 6]), &mut whole);
        assert_eq!(codec.decode_for(&whole, b"21", &log), Decoded::Wide(at(&[1, 2, 3, 4, 5, 6])));
    }

    #[test]
    fn partitions_that_were_added_give_a_key_other_homes() {
        let (old, new) = (codec(3), codec(5));
        let homes = |key: &str| [3, 4, 5].map(|partitions| codec(partitions).home(key.as_bytes()).unwrap());
        let moves_twice = |key: &String| matches!(homes(key), [a, b, c] if a != b && b != c && c != a);
        let key = (0..100).map(|n| n.to_string()).find(moves_twice).unwrap();
        let (key, [was, between, home]) = (key.as_bytes(), homes(&key));
        let mut expected = at(&[10; 5]);
        for (partition, next) in [(was, 4), (between, 0), (home, 0)] {
            expected.put(Mark::new(partition, next));
        }
        let id = id(&old, key, 4);
        assert_eq!(new.decode_for(&id, key, &at(&[10; 5])), Decoded::Wide(expected.clone()));
        new.scatter(&at(&[10; 5]));
        assert_eq!(new.decode_for(&id, key, &at(&[20; 5])), Decoded::Position(expected));
    }

    #[test]
    fn an_id_may_know_of_partitions_that_the_log_does_not_know_yet() {
        let (behind, ahead) = (codec(3), codec(4));
        let key = (0..100).map(|n| n.to_string()).find(|key| ahead.home(key.as_bytes()) == Some(3)).unwrap();
        let id = id(&ahead, key.as_bytes(), 4);
        let decoded = behind.decode_for(&id, key.as_bytes(), &at(&[10; 3]));
        assert_eq!(decoded, Decoded::Wide(at(&[10, 10, 10, 4])));
        let forged = codec(1_000_000);
        let key =
            (0..100).map(|n| n.to_string()).find(|key| forged.home(key.as_bytes()) > Some(9_999)).unwrap();
        let id = super::tests::id(&forged, key.as_bytes(), 4);
        assert_eq!(behind.decode_for(&id, key.as_bytes(), &at(&[10; 3])), Decoded::Unknown);
    }

    #[test]
    fn keys_that_are_elsewhere_make_ids_of_all_partitions() {
        let codec = codec(3);
        let (home, before) = (codec.home(b"21").unwrap(), id(&codec, b"21", 4));
        codec.scatter(&at(&[7, 8, 9]));
        assert_eq!(codec.home(b"21"), None);
        let mut expected = at(&[7, 8, 9]);
        expected.put(Mark::new(home, 4));
        assert_eq!(codec.decode_for(&before, b"21", &at(&[20, 20, 20])), Decoded::Position(expected));
    }
}

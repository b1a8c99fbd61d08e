//! Keys: of a keyed source, a subscriber sees the records of one key. A log holds them all, with an index from key to
//! entries, so that a record reaches its readers without a look at the others'.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use tokio::sync::Notify;

use super::chunk::Seq;
use super::id::{Decoded, IdCodec};
use super::position::{Mark, Position};
use super::ring::Ring;

/// Stands for a key: 128 bits under secrets of this process, so that nobody can make two keys that look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(u64, u64);

static SECRETS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);

impl KeyHash {
    /// Of this key.
    pub fn of(key: &[u8]) -> Self {
        Self(SECRETS[0].hash_one(key), SECRETS[1].hash_one(key))
    }
}

/// What a reader of a keyed log sees.
#[derive(Debug)]
pub struct Lens {
    key: Arc<[u8]>,
    /// Stands for the key.
    pub hash: KeyHash,
    /// The only partition in which the reader stands; `None` where it stands in all of them.
    pub home: Option<u32>,
    /// Wakes it, once its log is open.
    pub wake: Option<Arc<Notify>>,
}

impl Lens {
    /// Sees the records of this key.
    pub fn new(key: Arc<[u8]>) -> Self {
        let hash = KeyHash::of(&key);
        Self { key, hash, home: None, wake: None }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Is woken by what comes to a log, once.
    pub fn watch(&mut self, ring: &mut Ring) {
        if self.wake.is_none() {
            self.wake = ring.index().map(|(index, _)| index.watch(self.hash));
        }
    }

    /// What of a position concerns the reader.
    pub fn project(&self, position: &Position) -> Position {
        let Some(partition) = self.home else { return position.clone() };
        Mark { partition, next: position.at(partition) }.into()
    }

    /// Where a reader at `position` stands in all partitions, if its key has lost its home since it stood at home. From
    /// then on it does so.
    pub fn widen(&mut self, codec: &dyn IdCodec, position: &Position, log: &Position) -> Option<Position> {
        self.home.filter(|_| codec.home(&self.key).is_none())?;
        let mut id = String::new();
        self.encode(codec, position, &mut id);
        self.home = None;
        match codec.decode_for(&id, &self.key, log) {
            Decoded::Position(position) => Some(position),
            _ => None,
        }
    }

    /// Appends the id of a position.
    fn encode(&self, codec: &dyn IdCodec, position: &Position, out: &mut String) {
        match self.home {
            Some(partition) => codec.encode_home(partition, position.at(partition), out),
            None => codec.encode(position, out),
        }
    }
}

/// Appends the id of a position, of all partitions or, to a reader of one key, of its home.
pub fn encode_id(codec: &dyn IdCodec, lens: Option<&Lens>, position: &Position, out: &mut String) {
    match lens {
        Some(lens) => lens.encode(codec, position, out),
        None => codec.encode(position, out),
    }
}

/// An entry's key, and the entry of the same key before it.
#[derive(Debug, Clone, Copy)]
pub struct Keyed {
    /// `None` for a record without a key, and for what concerns every key.
    pub hash: Option<KeyHash>,
    /// `None` where there was none that the log still held.
    pub before: Option<Seq>,
}

/// Where a record is, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// In the only partition of its key.
    AtHome,
    /// Elsewhere.
    Astray,
    /// In any partition: it has no key, or no key has a home.
    Anywhere,
}

impl Lies {
    /// A record of this key in this partition.
    pub fn of(codec: &dyn IdCodec, key: Option<&[u8]>, partition: u32) -> Self {
        match key.and_then(|key| codec.home(key)) {
            Some(home) if home == partition => Self::AtHome,
            Some(_) => Self::Astray,
            None => Self::Anywhere,
        }
    }
}

/// The entries of each key that a log holds.
#[derive(Debug, Default)]
pub struct Index {
    keys: HashMap<KeyHash, Known>,
    /// Entries that concern every key.
    to_all: VecDeque<Seq>,
}

#[derive(Debug, Default)]
struct Known {
    latest: Option<Seq>,
    watched: Option<(Arc<Notify>, usize)>,
}

impl Index {
    /// Takes in the next entry of a key. Returns the one before it, and what wakes the key's readers.
    pub fn appended(&mut self, hash: KeyHash, seq: Seq) -> (Option<Seq>, Option<Arc<Notify>>) {
        let known = self.keys.entry(hash).or_default();
        let wake = known.watched.as_ref().map(|(wake, _)| Arc::clone(wake));
        (known.latest.replace(seq), wake)
    }

    /// Takes in an entry that concerns every key.
    pub fn appended_to_all(&mut self, seq: Seq) {
        self.to_all.push_back(seq);
    }

    /// The log has let go of all before `floor`. The newest of those that concern every key stays known, so that readers
    /// that had not read it find that they missed something.
    pub fn evicted_to_all(&mut self, floor: Seq) {
        while self.to_all.get(1).is_some_and(|&second| second < floor) {
            self.to_all.pop_front();
        }
    }

    /// The log has let go of an entry. A key that somebody reads is not forgotten with it, so that its next entry tells
    /// of this one.
    pub fn evicted(&mut self, hash: KeyHash, seq: Seq) {
        let newest =
            self.keys.get(&hash).is_some_and(|known| known.latest == Some(seq) && known.watched.is_none());
        if newest {
            self.keys.remove(&hash);
        }
    }

    /// The newest entry of a key.
    pub fn latest(&self, hash: KeyHash) -> Option<Seq> {
        self.keys.get(&hash)?.latest
    }

    /// The entries from `seq` on that concern every key.
    pub fn to_all_from(&self, seq: Seq) -> impl Iterator<Item = Seq> {
        self.to_all.iter().copied().skip_while(move |&at| at < seq)
    }

    /// Counts a reader of a key in, and returns what wakes it.
    pub fn watch(&mut self, hash: KeyHash) -> Arc<Notify> {
        let known = self.keys.entry(hash).or_default();
        let (wake, readers) = known.watched.get_or_insert_default();
        *readers += 1;
        Arc::clone(wake)
    }

    /// Counts a reader of a key out; `floor` is the oldest entry that the log holds.
    pub fn unwatch(&mut self, hash: KeyHash, floor: Seq) {
        let Some(known) = self.keys.get_mut(&hash) else { return };
        let Some((_, readers)) = &mut known.watched else { return };
        *readers -= 1;
        if *readers == 0 {
            known.watched = None;
            if known.latest.is_none_or(|latest| latest < floor) {
                self.keys.remove(&hash);
            }
        }
    }

    /// What wakes the readers of every key.
    pub fn all_wakes(&self) -> Vec<Arc<Notify>> {
        self.keys.values().filter_map(|known| Some(Arc::clone(&known.watched.as_ref()?.0))).collect()
    }

    /// Forgets all entries.
    pub fn restart(&mut self) {
        self.to_all.clear();
        self.keys.retain(|_, known| {
            known.latest = None;
            known.watched.is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::feed::Subscription;
    use super::*;

    /// What one more stream costs in the hub that waits for a key which nobody else reads.
    #[test]
    fn an_idle_reader_of_a_key_is_small() {
        const COUNTS: usize = 2 * size_of::<usize>();
        let (key, wake) = (COUNTS + 36, COUNTS + size_of::<Notify>());
        // A map is at least half as full as it may be, which is to seven eighths; a byte of each place is its own.
        let entry = (size_of::<(KeyHash, Known)>() + 1) * 16 / 7;
        let sizes = [size_of::<Subscription>(), size_of::<Lens>(), key, wake, entry];
        assert!(sizes.iter().sum::<usize>() <= 640, "{sizes:?}");
    }

    #[test]
    fn of_what_concerns_every_key_the_newest_that_was_let_go_stays_known() {
        let mut index = Index::default();
        (0..100).for_each(|seq| index.appended_to_all(seq));
        index.evicted_to_all(98);
        assert_eq!(index.to_all_from(0).collect::<Vec<_>>(), [97, 98, 99]);
        index.evicted_to_all(200);
        assert_eq!(index.to_all_from(0).collect::<Vec<_>>(), [99]);
    }
}

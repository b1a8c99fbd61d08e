//! How many records to ask for at a time: an upstream counts them and not their bytes, so what came tells how large they are.

/// The records to ask for next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace(usize);

impl Pace {
    /// Few, since nothing is known yet.
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// So many, of one source.
    pub(super) fn count(self) -> usize {
        self.0
    }

    /// So many of each of several streams. All may have some, but often one has most.
    pub(super) fn of_each(self, streams: usize) -> usize {
        (self.0 / streams.max(1)).max(self.0.min(OF_EACH))
    }

    /// Takes note of an answer of so many bytes.
    pub(super) fn note(&mut self, bytes: usize) {
        self.0 = match bytes {
            ..SMALL => (self.0 * 2).min(MOST),
            SMALL..LARGE => self.0,
            _ => (self.0 / 4).max(1),
        };
    }
}

const FIRST: usize = 64;
const MOST: usize = 1_000;
/// So many of each stream at least, unless entries are large.
const OF_EACH: usize = 16;
/// Bytes up to which more may be asked for at once.
const SMALL: usize = 128 * 1024;
/// Bytes beyond which it was too much.
const LARGE: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_grow_and_shrink_with_the_size_of_entries() {
        let mut pace = Pace::new();
        (0..10).for_each(|_| pace.note(1_000));
        assert_eq!(pace.count(), MOST);
        assert_eq!([1, 10, 1_000].map(|streams| pace.of_each(streams)), [MOST, MOST / 10, OF_EACH]);
        pace.note(LARGE);
        assert_eq!(pace.count(), MOST / 4);
        pace.note(SMALL);
        assert_eq!(pace.count(), MOST / 4);
        (0..10).for_each(|_| pace.note(usize::MAX));
        assert_eq!((pace.count(), pace.of_each(50)), (1, 1));
    }
}

//! Where events stand upstream. One type for every kind: a position is a vector partition → next offset,
//! and a source with a single order (a Redis channel, say) is a vector of one partition.

/// A place in one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// An offset of Kafka, a number of the log's own, or the milliseconds of a Redis entry id.
    pub major: u64,
    /// The sequence number of a Redis entry id; 0 for every other kind.
    pub minor: u64,
}

impl From<u64> for Offset {
    fn from(major: u64) -> Self {
        Self { major, minor: 0 }
    }
}

/// One step of a position: reading the entry that carries it moves `partition` to `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The partition; 0 for a source with a single order.
    pub partition: u32,
    /// The place after the entry: Kafka's first offset not yet read, Redis's id of the entry read last. Either
    /// way a reader standing there has the entry, and one standing before has not.
    pub next: Offset,
}

impl Mark {
    /// The step to `next`.
    pub fn new(partition: u32, next: impl Into<Offset>) -> Self {
        Self { partition, next: next.into() }
    }
}

/// For each partition the place that a reader has got to. A partition that it does not name stands at 0, which
/// is how a partition added later begins.
#[derive(Debug, Clone, Default)]
pub struct Position {
    next: Vec<u64>,
    /// Of partition 0: only Redis entry ids have one, and they have a single partition.
    minor: u64,
}

impl Position {
    /// The position with these next offsets for partitions 0, 1, 2, …
    pub fn new(next: Vec<u64>) -> Self {
        Self { next, minor: 0 }
    }

    /// The position of a source with a single order.
    pub fn single(offset: Offset) -> Self {
        Self { next: vec![offset.major], minor: offset.minor }
    }

    /// The next offset of one partition.
    pub fn next(&self, partition: u32) -> u64 {
        self.next.get(partition as usize).copied().unwrap_or(0)
    }

    /// The place in one partition.
    pub fn at(&self, partition: u32) -> Offset {
        Offset { major: self.next(partition), minor: if partition == 0 { self.minor } else { 0 } }
    }

    /// The next offsets of partitions 0, 1, 2, …
    pub fn as_slice(&self) -> &[u64] {
        &self.next
    }

    /// Whether a reader standing here has read the entry that carries `mark`.
    pub fn covers(&self, mark: Mark) -> bool {
        self.at(mark.partition) >= mark.next
    }

    /// Whether a reader standing here has read all that one standing at `other` has.
    pub fn covers_all(&self, other: &Self) -> bool {
        self.behind(other).next().is_none()
    }

    /// The partitions in which this position is short of `other`.
    pub fn behind(&self, other: &Self) -> impl Iterator<Item = u32> {
        (0..other.next.len() as u32).filter(|&partition| self.at(partition) < other.at(partition))
    }

    /// Moves past the entry that carries `mark`, if it is not behind already.
    pub fn advance(&mut self, mark: Mark) {
        if !self.covers(mark) {
            self.put(mark);
        }
    }

    /// Moves to `mark` in its partition, even if that is back.
    pub fn put(&mut self, mark: Mark) {
        let at = mark.partition as usize;
        if self.next.len() <= at {
            self.next.resize(at + 1, 0);
        }
        self.next[at] = mark.next.major;
        if at == 0 {
            self.minor = mark.next.minor;
        }
    }

    /// Moves to the later of the two in each partition.
    pub fn merge(&mut self, other: &Self) {
        for partition in 0..other.next.len() as u32 {
            self.advance(Mark { partition, next: other.at(partition) });
        }
    }

    /// How many offsets lie between this position and `end`, over all partitions.
    pub fn distance(&self, end: &Self) -> u64 {
        self.gaps(end).sum()
    }

    /// The position from which at most `count` offsets lie before `end`, not before this one: each partition gives
    /// its newest, as many as every other, or all it has.
    pub fn newest(&self, end: &Self, count: u64) -> Self {
        let mut gaps: Vec<u64> = self.gaps(end).filter(|&gap| gap > 0).collect();
        gaps.sort_unstable();
        let (mut left, mut share) = (count, 0);
        for (at, gap) in gaps.iter().enumerate() {
            share = left / (gaps.len() - at) as u64;
            if *gap > share {
                break;
            }
            left -= gap;
            share = u64::MAX;
        }
        let partitions = self.next.len().max(end.next.len()) as u32;
        let from = |partition| self.next(partition).max(end.next(partition).saturating_sub(share));
        Self::new((0..partitions).map(from).collect())
    }

    fn gaps(&self, end: &Self) -> impl Iterator<Item = u64> {
        (0..end.next.len() as u32).map(|partition| end.next(partition).saturating_sub(self.next(partition)))
    }
}

/// Equal where every partition is; trailing partitions at 0 make no difference.
impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        self.covers_all(other) && other.covers_all(self)
    }
}

impl Eq for Position {}

impl From<Mark> for Position {
    /// Past one entry, and at the beginning of all other partitions.
    fn from(mark: Mark) -> Self {
        let mut position = Self::default();
        position.advance(mark);
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_partition_stands_at_zero() {
        let mut short = Position::new(vec![5]);
        assert_eq!(short, Position::new(vec![5, 0]));
        assert!(!short.covers_all(&Position::new(vec![5, 1])));
        assert!(!short.covers(Mark::new(3, 1)));
        short.advance(Mark::new(3, 1));
        assert_eq!(short.as_slice(), [5, 0, 0, 1]);
        short.merge(&Position::new(vec![2, 7]));
        assert_eq!(short.as_slice(), [5, 7, 0, 1]);
        assert_eq!(short.behind(&Position::new(vec![6, 7, 1])).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn entry_ids_are_ordered_by_both_numbers() {
        let entry = |major, minor| Offset { major, minor };
        let mut position = Position::single(entry(5, 7));
        assert!(position.covers(Mark::new(0, entry(5, 7))) && position.covers(Mark::new(0, entry(4, 9))));
        assert!(!position.covers(Mark::new(0, entry(5, 8))));
        assert!(!position.covers_all(&Position::single(entry(6, 0))));
        position.advance(Mark::new(0, entry(6, 0)));
        assert_eq!(position, Position::single(entry(6, 0)));
        position.merge(&Position::single(entry(5, 9)));
        assert_eq!(position.at(0), entry(6, 0));
    }

    #[test]
    fn the_newest_are_shared_out_evenly() {
        let (low, end) = (Position::new(vec![0, 90, 0]), Position::new(vec![100, 100, 0]));
        let newest = |count| low.newest(&end, count).as_slice().to_vec();
        assert_eq!(low.distance(&end), 110);
        assert_eq!(newest(110), [0, 90, 0]);
        assert_eq!(newest(1_000), [0, 90, 0]);
        assert_eq!(newest(50), [60, 90, 0]);
        assert_eq!(newest(10), [95, 95, 0]);
        assert_eq!(newest(0), [100, 100, 0]);
        assert_eq!(low.newest(&Position::default(), 5), low);
    }
}

//! Where events stand upstream. One type for every kind: a position is a vector partition → next offset,
//! and a source with a single order (a Redis channel, say) is a vector of one partition.

/// One step of a position: reading the entry that carries it moves `partition` to `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The partition; 0 for a source with a single order.
    pub partition: u32,
    /// The offset after the entry, that is, the first one not yet read.
    pub next: u64,
}

/// For each partition the next offset to read. A partition that it does not name stands at 0, which is
/// how a partition added later begins.
#[derive(Debug, Clone, Default)]
pub struct Position(Vec<u64>);

impl Position {
    /// The position with these next offsets for partitions 0, 1, 2, …
    pub fn new(next: Vec<u64>) -> Self {
        Self(next)
    }

    /// The next offset of one partition.
    pub fn next(&self, partition: u32) -> u64 {
        self.0.get(partition as usize).copied().unwrap_or(0)
    }

    /// The next offsets of partitions 0, 1, 2, …
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// Whether a reader standing here has read the entry that carries `mark`.
    pub fn covers(&self, mark: Mark) -> bool {
        self.next(mark.partition) >= mark.next
    }

    /// Whether a reader standing here has read all that one standing at `other` has.
    pub fn covers_all(&self, other: &Self) -> bool {
        self.behind(other) == 0
    }

    /// The number of partitions in which this position is short of `other`.
    pub fn behind(&self, other: &Self) -> usize {
        other.0.iter().zip(self.0.iter().copied().chain(std::iter::repeat(0))).filter(|(o, s)| s < o).count()
    }

    /// Moves past the entry that carries `mark`, if it is not behind already.
    pub fn advance(&mut self, mark: Mark) {
        let at = mark.partition as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].max(mark.next);
    }

    /// Moves to the later of the two in each partition.
    pub fn merge(&mut self, other: &Self) {
        for (partition, next) in (0..).zip(other.0.iter().copied()) {
            self.advance(Mark { partition, next });
        }
    }
}

/// Equal where every partition is; trailing partitions at 0 make no difference.
impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        self.covers_all(other) && other.covers_all(self)
    }
}

impl Eq for Position {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_partition_stands_at_zero() {
        let mut short = Position::new(vec![5]);
        assert_eq!(short, Position::new(vec![5, 0]));
        assert!(!short.covers_all(&Position::new(vec![5, 1])));
        assert!(!short.covers(Mark { partition: 3, next: 1 }));
        short.advance(Mark { partition: 3, next: 1 });
        assert_eq!(short.as_slice(), [5, 0, 0, 1]);
        short.merge(&Position::new(vec![2, 7]));
        assert_eq!(short.as_slice(), [5, 7, 0, 1]);
        assert_eq!(short.behind(&Position::new(vec![6, 7, 1])), 2);
    }
}

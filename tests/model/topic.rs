//! What is published in partitions, of which retention lets go, and replicas that read it, each as it comes to it.

use std::sync::Arc;

use proptest::sample::Index;
use ssegate::hub::{IdCodec, Log, Mark, Opening, Position};
use ssegate::shape::Record;

use crate::past::Past;

/// A record of some kind at its place in a partition.
pub struct Published<K> {
    pub offset: u64,
    pub of: K,
}

/// The partitions of a source.
pub struct Topic<K> {
    partitions: Vec<Vec<Published<K>>>,
    /// What retention has passed, in each of them.
    pub low: Vec<u64>,
}

impl<K> Topic<K> {
    pub fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Vec::new()).collect(), low: vec![0; partitions] }
    }

    /// How many partitions there are.
    pub fn width(&self) -> usize {
        self.partitions.len()
    }

    /// The records of one partition.
    pub fn of(&self, partition: usize) -> &[Published<K>] {
        &self.partitions[partition]
    }

    /// Adds a record, after a hole such as compaction leaves.
    pub fn publish(&mut self, partition: usize, of: K, hole: u64) {
        let offset = self.end(partition) + hole;
        self.partitions[partition].push(Published { offset, of });
    }

    fn end(&self, partition: usize) -> u64 {
        self.partitions[partition].last().map_or(0, |last| last.offset + 1)
    }

    /// Where each of them ends, as a broker tells it.
    pub fn ends(&self) -> Vec<u64> {
        (0..self.width()).map(|partition| self.end(partition)).collect()
    }

    /// Retention passes some records of a partition.
    pub fn trim(&mut self, partition: usize, to: Index) {
        let records = &self.partitions[partition];
        let passed = records[..to.index(records.len() + 1)].last().map_or(0, |last| last.offset + 1);
        self.low[partition] = self.low[partition].max(passed);
    }

    /// Those of one partition that a reader is to be told of.
    pub fn own(&self, partition: usize, is_own: impl Fn(&K) -> bool) -> impl Iterator<Item = &Published<K>> {
        self.partitions[partition].iter().filter(move |published| is_own(&published.of))
    }

    /// How many of those there are, in each partition.
    pub fn counts(&self, is_own: impl Fn(&K) -> bool) -> Vec<usize> {
        (0..self.width()).map(|partition| self.own(partition, &is_own).count()).collect()
    }

    /// How many of those lie before an offset of a partition.
    pub fn rank(&self, partition: usize, next: u64, is_own: impl Fn(&K) -> bool) -> usize {
        self.own(partition, is_own).take_while(|published| published.offset < next).count()
    }

    /// How many of those lie before a position, in each partition.
    pub fn ranks(&self, position: &Position, is_own: impl Fn(&K) -> bool) -> Vec<usize> {
        assert!(position.as_slice().len() <= self.width());
        (0..self.width())
            .map(|partition| self.rank(partition, position.next(partition as u32), &is_own))
            .collect()
    }

    /// The records of each partition as the broker has them, with their offsets.
    pub fn records<R>(&self, record: impl Fn(usize, &Published<K>) -> R) -> impl Fn(usize) -> Vec<(u64, R)> {
        move |partition| {
            let published = self.partitions[partition].iter();
            published.map(|published| (published.offset, record(partition, published))).collect()
        }
    }

    /// So many records of one partition after the other, from where somebody has got to who has `taken` as many of each
    /// before; and the partition of each.
    pub fn take(
        &self,
        taken: &mut [usize],
        runs: impl IntoIterator<Item = (usize, usize)>,
    ) -> Vec<(usize, &Published<K>)> {
        let mut read = Vec::new();
        for (partition, count) in runs {
            let (records, from) = (self.of(partition), taken[partition]);
            let to = from.saturating_add(count).min(records.len());
            read.extend(records[from..to].iter().map(|published| (partition, published)));
            taken[partition] = to;
        }
        read
    }
}

impl<K> Published<K> {
    /// What it moves its partition to.
    pub fn mark(&self, partition: usize) -> Mark {
        Mark::new(partition as u32, self.offset + 1)
    }
}

/// A process that reads a topic.
pub struct Replica {
    pub log: Arc<Log>,
    /// What the broker gives it of what its log does not hold.
    pub past: Arc<Past>,
    /// How many records of each partition it has read.
    pub taken: Vec<usize>,
}

impl Replica {
    /// One whose log holds nothing yet, and goes on from the beginning or, if it comes `late`, from the end.
    pub fn new<K>(
        topic: &Topic<K>,
        log: Arc<Log>,
        past: Arc<Past>,
        codec: impl IdCodec + 'static,
        late: bool,
    ) -> Self {
        let taken = topic.partitions.iter().map(|records| if late { records.len() } else { 0 }).collect();
        let start = if late { Position::new(topic.ends()) } else { Position::default() };
        let history = Arc::clone(&past) as _;
        log.open_filled(Opening {
            codec: Arc::new(codec),
            history,
            segments: &[],
            start: start.clone(),
            end: start,
        });
        Self { log, past, taken }
    }

    /// Reads on: so many records of one partition after the other, in one append.
    pub fn fetch<K, R: Record>(
        &mut self,
        topic: &Topic<K>,
        runs: impl IntoIterator<Item = (usize, usize)>,
        record: impl Fn(usize, &Published<K>) -> R,
    ) {
        let read = topic.take(&mut self.taken, runs).into_iter();
        self.log.append(read.map(|(at, published)| (Some(published.mark(at)), record(at, published))));
    }
}

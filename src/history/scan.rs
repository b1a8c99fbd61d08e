//! A scan: all that lies before a log, read once for its table, partition by partition and side by side.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use crate::hub::{Mark, Offset, Position, Segment, Table};

/// How far a scan has got.
pub(super) struct Scan {
    /// The log may be let go before it is read.
    into: Weak<Table>,
    /// Where each partition is to be read on.
    pub at: Position,
    /// Where they end.
    end: Position,
    /// The partitions that are being read.
    pub busy: HashSet<u32>,
    is_over: bool,
}

impl Scan {
    /// From the beginning of all partitions.
    pub(super) fn new(end: Position, into: &Arc<Table>) -> Self {
        let into = Arc::downgrade(into);
        Self { into, at: Position::default(), end, busy: HashSet::new(), is_over: false }
    }

    /// Takes the next partition that is not being read.
    pub(super) fn take(&mut self) -> Option<(u32, Offset, Offset)> {
        self.into.upgrade()?;
        let partition = self.at.behind(&self.end).find(|partition| !self.busy.contains(partition))?;
        self.busy.insert(partition);
        Some((partition, self.at.at(partition), self.end.at(partition)))
    }

    /// Takes in what was read. Returns the table, which is to settle once no lock is held, if anybody wants more of it.
    pub(super) fn put(&mut self, segment: &Segment) -> Option<Arc<Table>> {
        let table = self.into.upgrade()?;
        table.put_read(segment);
        self.at.advance(Mark { partition: segment.partition, next: segment.to });
        Some(table)
    }

    /// Whether a partition is not through.
    pub(super) fn is_wanted(&self, partition: u32) -> bool {
        self.into.strong_count() > 0 && self.at.at(partition) < self.end.at(partition)
    }

    /// Tells the table, once, if all partitions are through.
    pub(super) fn end(&mut self) {
        if !self.is_over && self.at.covers_all(&self.end) {
            self.is_over = true;
            self.into.upgrade().iter().for_each(|table| table.is_whole());
        }
    }
}

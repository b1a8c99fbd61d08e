//! Which id holds at which number of a log: the ids of what the log holds, and for a while those of what it has let go,
//! since a reader that it left behind stands there. An id holds until the next one, as the standard has it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::hub::Memory;

/// Numbers and ids, in the order of the log.
pub(super) struct Table {
    memory: Arc<Memory>,
    /// Where ids begin to hold; there is always one.
    changes: VecDeque<Change>,
    places: HashMap<Bytes, u64>,
    /// Where what the log holds begins.
    floor: u64,
    /// How many of the changes are of what the log has let go.
    past: usize,
    /// When the log had let go of what is before these numbers.
    left: VecDeque<(Instant, u64)>,
    /// How many of the newest changes came without an event.
    bare: usize,
}

struct Change {
    from: u64,
    /// `None` where the upstream has given none.
    id: Option<Bytes>,
}

impl Table {
    /// Of a log that begins at `from`, where this id holds.
    pub(super) fn new(memory: &Arc<Memory>, from: u64, id: Option<&str>) -> Self {
        let mut table = Self {
            memory: Arc::clone(memory),
            changes: VecDeque::new(),
            places: HashMap::new(),
            floor: from,
            past: 0,
            left: VecDeque::new(),
            bare: 0,
        };
        table.change(from, id);
        table
    }

    /// From this number on, which is the newest, another id holds, if it is another. `event` tells whether there is an event
    /// at this number.
    pub(super) fn push(&mut self, number: u64, id: Option<&str>, event: bool) {
        if self.newest() != id {
            self.change(number, id);
            self.bare += 1;
        }
        if event {
            self.bare = 0;
        }
        if self.bare > BARE {
            self.forget(self.changes.len() - self.bare);
            self.bare -= 1;
        }
    }

    fn change(&mut self, from: u64, id: Option<&str>) {
        let id = id.map(|id| self.memory.charge(id.as_bytes().to_vec(), OVERHEAD));
        if let Some(id) = &id {
            // The first place counts, so that nothing is lost where an upstream gives an id twice.
            self.places.entry(id.clone()).or_insert(from);
        }
        self.changes.push_back(Change { from, id });
    }

    fn forget(&mut self, at: usize) {
        if let Some(Change { from, id: Some(id) }) = self.changes.remove(at)
            && self.places.get(&id) == Some(&from)
        {
            self.places.remove(&id);
        }
    }

    /// The id that holds at the end.
    pub(super) fn newest(&self) -> Option<&str> {
        self.changes.back().and_then(Change::text)
    }

    /// The id that holds at a number, as far as that is still known.
    pub(super) fn id_at(&self, number: u64) -> Option<&str> {
        // Most who ask are at the end.
        let newest = self.changes.back().filter(|newest| newest.from <= number);
        newest
            .or_else(|| {
                self.changes.get(self.changes.partition_point(|change| change.from <= number).checked_sub(1)?)
            })
            .and_then(Change::text)
    }

    /// Where this id begins to hold, if the log holds all that follows.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        self.places.get(id.as_bytes()).copied().filter(|number| *number >= self.floor)
    }

    /// The log has let go of what is before `floor`.
    pub(super) fn let_go(&mut self, floor: u64, now: Instant) {
        self.floor = self.floor.max(floor);
        let before = self.past;
        while self.changes.get(self.past + 1).is_some_and(|next| next.from <= self.floor) {
            let Change { from, id } = &self.changes[self.past];
            if let Some(id) = id.clone().filter(|id| self.places.get(id) == Some(from)) {
                self.places.remove(&id);
            }
            self.past += 1;
        }
        if self.past > before {
            self.left.push_back((now, self.changes[self.past].from));
        }
        while let Some((at, number)) = self.left.front().copied()
            && (now.duration_since(at) > KEPT || self.past > PAST)
        {
            self.left.pop_front();
            while self.past > 0 && self.changes[0].from < number {
                self.changes.pop_front();
                self.past -= 1;
            }
        }
    }

    /// Bytes of what can be let go without harm to the log.
    pub(super) fn spare(&self) -> usize {
        self.changes.iter().take(self.past).map(Change::size).sum()
    }

    /// Lets all of that go.
    pub(super) fn reclaim(&mut self) -> usize {
        let spare = self.spare();
        self.changes.drain(..self.past);
        self.past = 0;
        self.left.clear();
        spare
    }
}

impl Change {
    fn text(&self) -> Option<&str> {
        self.id.as_ref().map(text)
    }

    fn size(&self) -> usize {
        self.id.as_ref().map_or(0, |id| id.len() + OVERHEAD)
    }
}

/// An id as text, which it was.
pub(super) fn text(id: &Bytes) -> &str {
    str::from_utf8(id).expect("ids are made of text")
}

/// What an id takes beside its text: its places in both collections, and what counts it.
pub(super) const OVERHEAD: usize = 200;
/// How many ids without an event are kept one after the other: a quiet feed has a new one every few seconds.
const BARE: usize = 64;
/// How long ids are known of what the log let go: longer than a reader may take to notice.
const KEPT: Duration = Duration::from_secs(60);
/// How many of them at most.
const PAST: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (Table, Arc<Memory>) {
        let memory = Memory::new(usize::MAX);
        (Table::new(&memory, 100, Some("a")), memory)
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_holds_until_the_next_one() {
        let (mut table, _) = table();
        table.push(101, Some("a"), true);
        table.push(102, Some("b"), true);
        table.push(103, None, true);
        table.push(104, Some("b"), true);
        assert_eq!(
            [99, 100, 101, 102, 103, 104, 999].map(|n| table.id_at(n).unwrap_or("-")),
            ["-", "a", "a", "b", "-", "b", "b"]
        );
        assert_eq!(["a", "b", "c"].map(|id| table.number(id)), [Some(100), Some(102), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_let_go_is_known_for_a_while_and_not_found_by_its_id() {
        let (mut table, memory) = table();
        (101..200).for_each(|number| table.push(number, Some(&number.to_string()), true));
        table.let_go(150, Instant::now());
        assert_eq!((table.number("149"), table.number("150")), (None, Some(150)));
        assert_eq!((table.id_at(120), table.id_at(150)), (Some("120"), Some("150")));
        tokio::time::advance(KEPT / 2).await;
        table.let_go(180, Instant::now());
        tokio::time::advance(KEPT / 2 + Duration::from_secs(1)).await;
        table.let_go(181, Instant::now());
        assert_eq!((table.id_at(120), table.id_at(150), table.id_at(181)), (None, Some("150"), Some("181")));
        let used = memory.used();
        assert_eq!((table.spare(), table.reclaim()), (31 * (3 + OVERHEAD), 31 * (3 + OVERHEAD)));
        assert_eq!(used - memory.used(), 31 * (3 + OVERHEAD));
        assert_eq!((table.id_at(180), table.id_at(181)), (None, Some("181")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_part_of_whose_events_are_gone_is_not_found() {
        let (mut table, _) = table();
        (101..110).for_each(|number| table.push(number, Some("a"), true));
        table.let_go(105, Instant::now());
        assert_eq!((table.number("a"), table.id_at(105)), (None, Some("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn ids_without_events_are_few() {
        let (mut table, _) = table();
        (101..1_000).for_each(|number| table.push(number, Some(&number.to_string()), false));
        assert_eq!(table.changes.len(), 1 + BARE);
        assert_eq!(
            (table.number("999"), table.number("935"), table.number("936")),
            (Some(999), None, Some(936))
        );
        assert_eq!(table.id_at(500), Some("a"), "nothing was between");
        table.push(1_000, Some("x"), true);
        table.push(1_001, Some("y"), false);
        assert_eq!((table.number("936"), table.number("x")), (Some(936), Some(1_000)));
    }
}

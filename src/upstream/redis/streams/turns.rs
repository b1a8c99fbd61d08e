//! Whose turn it is on a connection that reads more slots than one command can name: so many slots at a time, one
//! command for each, none of which waits. The less comes, the longer it rests; what has more is read on at once. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// The turns of one connection.
pub(super) struct Turns {
    /// The slot to go on with.
    next: u16,
    /// When the next turn begins.
    due: Instant,
    /// How long a round through all slots takes, if they are few.
    round: Duration,
    /// Slots that have more.
    full: BTreeSet<u16>,
}

impl Turns {
    /// The first one begins at once.
    pub(super) fn new() -> Self {
        Self { next: 0, due: Instant::now(), round: ROUND.0, full: BTreeSet::new() }
    }

    /// What is to be read next of `slots`, and when.
    pub(super) fn take<T>(&mut self, mut slots: BTreeMap<u16, T>) -> (Instant, Vec<T>) {
        let now = Instant::now();
        if now < self.due {
            let more: Vec<T> =
                std::mem::take(&mut self.full).iter().filter_map(|slot| slots.remove(slot)).collect();
            if !more.is_empty() {
                return (now, more);
            }
        }
        let begins = now.max(self.due);
        let turns = slots.len().div_ceil(AT_ONCE).max(1) as u32;
        self.due = begins + self.round.max(EACH * slots.len() as u32) / turns;
        let later = slots.split_off(&self.next);
        let turn: Vec<(u16, T)> = later.into_iter().chain(slots).take(AT_ONCE).collect();
        self.next = turn.last().map_or(0, |(slot, _)| slot + 1);
        self.full.retain(|slot| !turn.iter().any(|(own, _)| own == slot));
        (begins, turn.into_iter().map(|(_, slot)| slot).collect())
    }

    /// Notes whether anything came of a turn, and which slots have more.
    pub(super) fn note(&mut self, came: bool, more: impl IntoIterator<Item = u16>) {
        self.round = if came { ROUND.0 } else { (self.round * 2).min(ROUND.1) };
        self.full.extend(more);
    }
}

/// The most slots that are read in one go.
const AT_ONCE: usize = 128;
/// How long a round takes while something comes, and while nothing does.
const ROUND: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// The time that each slot takes of a round at least: a server is asked no more than 10,000 times a second.
const EACH: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(slots: impl IntoIterator<Item = u16>) -> BTreeMap<u16, u16> {
        slots.into_iter().map(|slot| (slot, slot)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_slot_has_its_turn_whatever_comes_and_goes() {
        let (mut turns, mut at, mut seen) = (Turns::new(), Instant::now(), Vec::new());
        for turn in 0..3 {
            let (begins, taken) = turns.take(slots(0..300));
            assert_eq!(
                begins - at,
                Duration::from_millis(if turn == 0 { 0 } else { 10 }),
                "300 slots take 30 ms"
            );
            assert!(taken.len() <= AT_ONCE);
            tokio::time::sleep_until(begins).await;
            (at, seen) = (begins, [seen, taken].concat());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, Vec::from_iter(0..300));
        assert!(turns.take(slots([])).1.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_less_comes_the_longer_it_rests() {
        let mut turns = Turns::new();
        let mut rests = Vec::new();
        for came in [true, true, false, false, false, false, false, true] {
            let (begins, taken) = turns.take(slots([3, 16383]));
            assert_eq!(taken, [3, 16383]);
            rests.push((begins - Instant::now()).as_millis());
            tokio::time::sleep_until(begins).await;
            turns.note(came, []);
        }
        assert_eq!(rests, [0, 5, 5, 5, 10, 20, 40, 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_more_is_read_on_at_once_and_holds_nobody_up() {
        let mut turns = Turns::new();
        assert_eq!(turns.take(slots([1, 2, 3])).1, [1, 2, 3]);
        turns.note(true, [2]);
        let now = Instant::now();
        assert_eq!(turns.take(slots([1, 2, 3])), (now, vec![2]));
        turns.note(true, [2]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(turns.take(slots([1, 2, 3])).1, [1, 2, 3], "it is the turn of all");
        turns.note(true, [2]);
        let (begins, taken) = turns.take(slots([1, 3]));
        assert_eq!(((begins - Instant::now()).as_millis(), taken), (5, vec![1, 3]), "it has left");
    }
}

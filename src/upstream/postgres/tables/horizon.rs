//! Up to which row nothing more can come. Ids are given before transactions commit, so that rows become visible out of order,
//! and who goes past a hole would lose the rows of slow transactions. Pure.
//!
//! Whoever takes an id of a sequence locks the sequence first, until its transaction ends. So if some row is seen, and
//! only then those are listed who hold that lock, all that can still add a row before it are among them: once they have
//! ended, and the rows are read again, holes before that row stay for ever. Ids without a hole need no such proof.

use std::collections::HashSet;

/// A transaction, as pg_locks names it: of one server, for as long as that runs.
pub(super) type Holder = String;

/// What of one table is waited for.
#[derive(Debug, Default)]
pub(super) struct Horizon(Option<Held>);

/// Rows behind a hole.
#[derive(Debug)]
struct Held {
    /// The last of them that had been seen when holders were listed, or are to be.
    seen: u64,
    /// Who may still add rows before it; `None` where that was not asked yet.
    holders: Option<HashSet<Holder>>,
}

impl Horizon {
    /// Whether it has to be known who holds the lock before rows are read again.
    pub(super) fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// Whether somebody is known to be in the way.
    pub(super) fn is_held(&self) -> bool {
        let holders = self.0.as_ref().and_then(|held| held.holders.as_ref());
        holders.is_some_and(|holders| !holders.is_empty())
    }

    /// Takes in the `rows` that follow `at`, in order, and those who held the lock at some time after the rows before were
    /// read and before these were, if it waits. Where not all that follow were read, `more` do. Returns up to where nothing
    /// more can come but that.
    pub(super) fn settle(
        &mut self,
        at: u64,
        rows: &[u64],
        more: bool,
        holders: Option<HashSet<Holder>>,
    ) -> u64 {
        let proven = match (&mut self.0, holders) {
            (Some(held), Some(now)) => {
                let left = match held.holders.take() {
                    Some(before) => left(&before, &now),
                    None => now,
                };
                let is_over = left.is_empty();
                held.holders = Some(left);
                is_over.then_some(held.seen)
            }
            _ => None,
        };
        let mut settled = at;
        for &row in rows {
            if row == settled + 1 || proven.is_some_and(|proven| row <= proven) {
                settled = row;
            } else {
                break;
            }
        }
        // What had been seen is gone perhaps, if it was deleted since.
        let last = rows.last().copied();
        if !more || last > proven {
            settled = settled.max(proven.unwrap_or_default());
        }
        match last {
            Some(last)
                if last > settled
                    && (proven.is_some() || self.0.as_ref().is_none_or(|held| held.seen <= settled)) =>
            {
                self.0 = Some(Held { seen: last, holders: None });
            }
            _ if self.0.as_ref().is_some_and(|held| held.seen <= settled) => self.0 = None,
            _ => {}
        }
        settled
    }
}

/// Who is left of those `before`, by those that there are now.
///
/// A transaction that is prepared (PREPARE TRANSACTION) goes on without its backend. Postgres leaves it the name that it had, but
/// before 13.5 and 14.1 gives it another one: so where one has gone that had a backend, all are taken for it that have none and
/// are new. They are waited for in vain perhaps, and no longer than they last.
pub(super) fn left(before: &HashSet<Holder>, now: &HashSet<Holder>) -> HashSet<Holder> {
    let has_gone = before.iter().any(|holder| !is_prepared(holder) && !now.contains(holder));
    let is_left = |holder: &&Holder| before.contains(*holder) || (has_gone && is_prepared(holder));
    now.iter().filter(is_left).cloned().collect()
}

/// Whether a transaction has no backend: it was prepared, and lost its own with a restart of the server or by that alone.
fn is_prepared(holder: &str) -> bool {
    holder.starts_with("-1/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(names: &[&str]) -> Option<HashSet<Holder>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn without_a_hole_nothing_is_asked() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(0, &[1, 2, 3], false, None), 3);
        assert_eq!(horizon.settle(3, &[], false, None), 3);
        assert!(!horizon.waits());
    }

    #[test]
    fn a_hole_of_a_transaction_that_was_rolled_back_costs_one_look() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(3, &[4, 6, 7], false, None), 4);
        assert!(horizon.waits() && !horizon.is_held());
        assert_eq!(horizon.settle(4, &[6, 7], false, holders(&[])), 7);
        assert!(!horizon.waits());
    }

    #[test]
    fn rows_behind_a_hole_wait_for_those_who_may_fill_it_and_for_nobody_else() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(0, &[2], false, None), 0);
        assert_eq!(horizon.settle(0, &[2, 4], false, holders(&["a", "b"])), 0);
        assert!(horizon.is_held());
        // `c` came later, and can only be behind what had been seen.
        assert_eq!(horizon.settle(0, &[2, 4], false, holders(&["b", "c"])), 0);
        assert_eq!(horizon.settle(0, &[2, 4], false, holders(&["c"])), 2);
        assert!(horizon.waits() && !horizon.is_held(), "row 3 may be `c`'s");
        assert_eq!(horizon.settle(2, &[4], false, holders(&["c"])), 2);
        assert_eq!(horizon.settle(2, &[3, 4], false, holders(&[])), 4);
        assert!(!horizon.waits());
    }

    #[test]
    fn a_late_row_is_before_those_that_waited_for_it() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(0, &[2, 3], false, None), 0);
        assert_eq!(horizon.settle(0, &[2, 3], false, holders(&["a"])), 0);
        // It has committed; that its lock is still listed does no harm.
        assert_eq!(horizon.settle(0, &[1, 2, 3], false, holders(&["a"])), 3);
        assert!(!horizon.waits());
    }

    #[test]
    fn what_is_proven_is_not_gone_past_before_it_was_read() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(0, &[2, 3, 4, 5], true, None), 0);
        assert_eq!(horizon.settle(0, &[2, 3], true, holders(&[])), 3);
        assert!(horizon.waits() && !horizon.is_held());
        assert_eq!(horizon.settle(3, &[5], true, holders(&["a"])), 5, "it was proven before `a` came");
        assert!(!horizon.waits());
    }

    #[test]
    fn what_was_deleted_while_it_waited_is_gone_past() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(0, &[5], false, None), 0);
        assert_eq!(horizon.settle(0, &[], false, holders(&[])), 5);
        assert!(!horizon.waits());
        assert_eq!(horizon.settle(5, &[8], false, None), 5);
        assert_eq!(horizon.settle(5, &[], false, holders(&["a"])), 5);
        assert_eq!(horizon.settle(5, &[9], false, holders(&[])), 8);
        assert!(horizon.waits() && !horizon.is_held());
    }

    #[test]
    fn a_transaction_that_is_prepared_is_waited_for_by_its_other_name() {
        let mut horizon = Horizon::default();
        assert_eq!(horizon.settle(0, &[2], false, None), 0);
        assert_eq!(horizon.settle(0, &[2], false, holders(&["3/7", "4/1"])), 0);
        // One has ended, or is prepared now: that cannot be told.
        assert_eq!(horizon.settle(0, &[2], false, holders(&["4/1", "-1/900"])), 0);
        assert!(horizon.is_held());
        // What was prepared later, while nobody else has gone, came later.
        assert_eq!(horizon.settle(0, &[2], false, holders(&["4/1", "-1/900", "-1/950"])), 0);
        assert_eq!(horizon.settle(0, &[2], false, holders(&["4/1", "-1/950"])), 0);
        assert!(horizon.is_held(), "by the one that has a backend");
        assert_eq!(horizon.settle(0, &[2], false, holders(&["-1/950", "-1/960"])), 0);
        assert_eq!(horizon.settle(0, &[1, 2], false, holders(&["-1/970"])), 2, "none is left of those");
    }
}

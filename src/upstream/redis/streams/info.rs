//! What Redis says about a stream (XINFO STREAM), and what that proves: whether something was removed that a reader
//! has not read. Trimming takes the oldest; XDEL makes holes, which are no loss. `max-deleted-entry-id` is of no use
//! here, since trimming leaves it alone.

use redis::Value;

use super::id::{self, BEGIN};
use super::reply::Malformed;
use crate::hub::Offset;

/// A stream at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Info {
    /// The newest id that was ever given.
    pub last: Offset,
    /// Its oldest entry.
    pub first: Option<Offset>,
    /// How many entries it has.
    pub length: u64,
    /// How many were ever added; Redis tells it from 7.0 on.
    pub added: Option<u64>,
}

/// What was removed before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing.
    None,
    /// So many.
    Some(u64),
    /// Something may have been.
    Maybe,
}

impl Info {
    /// A stream that has never been there. Nothing was ever removed from it.
    pub(super) fn none() -> Self {
        Self { added: Some(0), ..Self::default() }
    }

    /// Reads the answer to XINFO STREAM.
    pub(super) fn parse(answer: &Value) -> Result<Self, Malformed> {
        let mut info = Self::default();
        let mut last = None;
        for (name, value) in answer.as_map_iter().ok_or(Malformed)? {
            match (text(name), value) {
                (Some("length"), Value::Int(length)) => info.length = *length as u64,
                (Some("entries-added"), Value::Int(added)) => info.added = Some(*added as u64),
                (Some("last-generated-id"), value) => last = text(value).and_then(id::parse),
                (Some("first-entry"), Value::Array(entry)) => {
                    info.first = Some(entry.first().and_then(text).and_then(id::parse).ok_or(Malformed)?);
                }
                _ => {}
            }
        }
        info.last = last.ok_or(Malformed)?;
        Ok(info)
    }

    /// Where a reader begins that wants all there is. One that stood before it may have missed something: its own
    /// entry is gone, and others were removed. (Redis before 7.0 counted nothing; a stream that was trimmed then, and
    /// taken over since, looks as if nothing ever was.)
    pub(super) fn beginning(&self) -> Offset {
        if self.added == Some(self.length) {
            return BEGIN;
        }
        self.first.map_or(self.last, id::before)
    }

    /// The place before its first entry, if nothing was ever removed: who stands before that, and yet not at the
    /// beginning, has read another stream of that name.
    pub(super) fn born(&self) -> Option<Offset> {
        self.first.filter(|_| self.added == Some(self.length)).map(id::before)
    }

    /// Whether this is not the stream that a reader at `at` has read: its ids, or its count, went back, or all there
    /// ever was of it follows. `rank` is how many entries had been added up to there, where that is known.
    pub(super) fn is_another(&self, at: Offset, rank: Option<u64>) -> bool {
        self.last < at
            || self.added.zip(rank).is_some_and(|(added, rank)| added < rank)
            || at > BEGIN && self.born().is_some_and(|born| at < born)
    }

    /// What a reader at `at` has lost before the entries that follow and that it holds (`held`, in order).
    pub(super) fn lost(&self, at: Offset, rank: Option<u64>, held: &[Offset]) -> Loss {
        if at >= self.last || at >= self.beginning() {
            return Loss::None;
        }
        // If even what it holds is gone, and more was added, then what is lost follows that, as far as one can tell:
        // a reader that waits is given the first entry, and what is trimmed is trimmed while that is on its way.
        let gone = |id: &Offset| self.first.is_none_or(|first| *id < first);
        if held.last().is_some_and(|last| gone(last) && *last < self.last) {
            return Loss::None;
        }
        // All that is there follows `at`.
        let Some((added, rank)) = self.added.zip(rank) else { return Loss::Maybe };
        let gone = held.partition_point(gone) as u64;
        match added.saturating_sub(rank).saturating_sub(self.length + gone) {
            0 => Loss::None,
            lost => Loss::Some(lost),
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(major: u64) -> Offset {
        Offset { major, minor: 0 }
    }

    /// Entries `first`, `last` and what lies between, `length` in all, of `added`.
    fn info(first: u64, last: u64, length: u64, added: Option<u64>) -> Info {
        Info { last: at(last), first: (length > 0).then(|| at(first)), length, added }
    }

    #[test]
    fn where_readers_begin_and_who_may_have_missed_something() {
        let just_before = |major| id::before(at(major));
        for (info, beginning, what) in [
            (Info::none(), BEGIN, "it is not there"),
            (info(0, 0, 0, None), BEGIN, "nothing was added, before 7.0"),
            (info(10, 30, 3, Some(3)), BEGIN, "nothing was removed"),
            (info(10, 30, 3, Some(5)), just_before(10), "trimmed, or deleted somewhere"),
            (info(10, 30, 3, None), just_before(10), "before 7.0 nobody knows"),
            (info(0, 30, 0, Some(5)), at(30), "emptied"),
            (info(0, 30, 0, None), at(30), "emptied, before 7.0"),
        ] {
            assert_eq!(info.beginning(), beginning, "{what}");
        }
    }

    #[test]
    fn what_a_reader_has_lost() {
        use Loss::{Maybe, None as Nothing, Some as Lost};
        for (info, stands, rank, held, loss, what) in [
            (info(10, 30, 3, Some(9)), 30, None, &[][..], Nothing, "all was read"),
            (info(10, 30, 3, Some(9)), 40, None, &[], Nothing, "further on than it"),
            (info(10, 30, 3, Some(9)), 10, None, &[20, 30], Nothing, "its own entry is there"),
            (
                info(10, 30, 2, Some(9)),
                20,
                None,
                &[30],
                Nothing,
                "an older entry is there, its own was deleted",
            ),
            (info(10, 30, 3, Some(3)), 0, None, &[10], Nothing, "nothing was ever removed"),
            (
                info(10, 30, 3, Some(9)),
                5,
                None,
                &[10],
                Maybe,
                "its own entry is gone, and who knows what else",
            ),
            (info(10, 30, 3, Some(9)), 5, Some(6), &[10], Nothing, "only what it had read is gone"),
            (info(10, 30, 3, Some(9)), 5, Some(4), &[10], Lost(2), "two that it had not read are gone"),
            (info(30, 30, 1, Some(9)), 5, Some(6), &[10, 20], Nothing, "what is gone since it holds"),
            (
                info(30, 30, 1, Some(9)),
                5,
                Some(5),
                &[10, 20],
                Nothing,
                "one more, which may follow what it holds",
            ),
            (info(30, 30, 1, Some(9)), 20, Some(7), &[30], Lost(1), "as is found out then"),
            (info(30, 30, 1, Some(9)), 5, None, &[10, 20], Nothing, "the same where nobody counts"),
            (info(20, 30, 2, Some(9)), 5, Some(5), &[10, 20], Lost(1), "one more is gone than it holds"),
            (info(0, 30, 0, Some(9)), 5, Some(6), &[10, 20, 30], Nothing, "emptied, but it holds all"),
            (info(0, 30, 0, Some(9)), 5, Some(6), &[], Lost(3), "emptied before it was read"),
            (info(0, 30, 0, Some(9)), 5, None, &[], Maybe, "emptied"),
            (info(10, 30, 3, None), 10, None, &[], Nothing, "before 7.0, and its own entry is there"),
            (info(10, 30, 3, None), 5, None, &[10], Maybe, "before 7.0, and its own entry is gone"),
        ] {
            let held: Vec<_> = held.iter().copied().map(at).collect();
            assert_eq!(info.lost(at(stands), rank, &held), loss, "{what}");
        }
    }

    #[test]
    fn a_stream_that_went_back_is_another() {
        assert!(info(10, 30, 3, Some(3)).is_another(at(31), None), "its ids went back");
        assert!(info(40, 50, 2, Some(2)).is_another(at(30), Some(3)), "its count went back");
        assert!(info(10, 30, 3, Some(3)).is_another(at(5), None), "nothing is gone, and all follows");
        assert!(!info(10, 30, 3, Some(3)).is_another(BEGIN, None), "nothing was read of either");
        assert!(!info(10, 30, 3, Some(3)).is_another(id::before(at(10)), None), "where it begins");
        assert!(!info(10, 30, 3, Some(4)).is_another(at(5), None), "what was read is gone");
        assert!(!info(10, 30, 3, Some(3)).is_another(at(30), Some(3)));
        assert!(!info(10, 30, 3, None).is_another(at(20), Some(9)), "before 7.0 only ids tell");
    }

    #[test]
    fn answers_of_old_and_new_servers() {
        let bulk = |text: &str| Value::BulkString(text.into());
        let entry = |id| Value::Array(vec![bulk(id), Value::Array(vec![bulk("f"), bulk("v")])]);
        let old = [
            (bulk("length"), Value::Int(2)),
            (bulk("last-generated-id"), bulk("7-1")),
            (bulk("first-entry"), entry("5-0")),
            (bulk("last-entry"), entry("7-1")),
        ];
        let array = |pairs: &[(Value, Value)]| {
            Value::Array(pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect())
        };
        let expected =
            Info { last: Offset { major: 7, minor: 1 }, first: Some(at(5)), length: 2, added: None };
        assert_eq!(Info::parse(&array(&old)).unwrap(), expected);
        let mut new = old.to_vec();
        new.push((bulk("entries-added"), Value::Int(4)));
        assert_eq!(Info::parse(&array(&new)).unwrap(), Info { added: Some(4), ..expected });
        let empty = [
            (bulk("length"), Value::Int(0)),
            (bulk("last-generated-id"), bulk("7-1")),
            (bulk("first-entry"), Value::Nil),
        ];
        assert_eq!(Info::parse(&array(&empty)).unwrap(), Info { first: None, length: 0, ..expected });
        assert!(Info::parse(&Value::Okay).is_err() && Info::parse(&array(&[])).is_err());
    }
}

//! The law where a source has no history, so that ids are of one process: events come in the order in which they were
//! published, each at most once by each process, and where some are missing between two, a gap between the two accounts for each.

use std::collections::{BTreeMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Entry, Pending, Seen, Violation, reason};

/// How one number was published; times in microseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// When that began.
    pub began: u64,
    /// When it was over.
    pub ended: u64,
    /// Whether the broker said that it was done. If not, nobody knows.
    pub acknowledged: bool,
}

/// What was published, in the order of the numbers.
#[derive(Debug, Default)]
pub struct Timed(pub BTreeMap<u64, Sent>);

impl Timed {
    /// What is wrong with a client's record.
    pub fn judge(&self, record: &[Entry]) -> Vec<Violation> {
        let (mut found, mut given, mut pending) = (Vec::new(), HashSet::new(), Pending::default());
        let (mut next, mut excuses) = (0, Vec::new());
        // What was given by this process alone, and from when on what it gives may have been given by another.
        let (mut here, mut behind) = (HashSet::new(), None);
        for (at, entry) in record.iter().enumerate() {
            for (at, gap) in pending.take_in(at, &entry.seen) {
                if reason(gap) == "unknown_id" {
                    here.clear();
                    behind = Some(entry.at.saturating_sub(BEHIND));
                }
                match Excuse::of(gap, entry.at) {
                    Some(excuse) => excuses.push(excuse),
                    None => found.push(Violation::Untrue(at)),
                }
            }
            if let (Seen::Event(number), Some(since)) = (&entry.seen, behind.take_if(|_| is_event(entry)))
                && self.0.get(number).is_some_and(|sent| sent.ended >= since)
            {
                next = next.min(*number);
            }
            if let Seen::Event(number) = entry.seen {
                given.insert(number);
            }
            match entry.seen {
                Seen::Event(number) if !self.0.contains_key(&number) => {
                    found.push(Violation::Strange(number))
                }
                Seen::Event(number) if !here.insert(number) => found.push(Violation::Repeated(number)),
                Seen::Event(number) if number < next => found.push(Violation::Disordered(number)),
                Seen::Event(number) => {
                    found.extend(self.missing(next, number, &excuses));
                    next = number + 1;
                    excuses.clear();
                }
                Seen::Refused(status) => found.push(Violation::Refused(status)),
                _ => {}
            }
        }
        found.extend(self.missing(next, u64::MAX, &excuses));
        // One that came late was not missing.
        found.retain(|violation| !matches!(violation, Violation::Missing(number) if given.contains(number)));
        found.sort_unstable();
        found
    }

    /// What was published from `from` up to `to`, and is in no gap that was told there.
    fn missing(&self, from: u64, to: u64, excuses: &[Excuse]) -> impl Iterator<Item = Violation> {
        let due = self.0.range(from..to).filter(|(_, sent)| sent.acknowledged);
        due.filter(|(_, sent)| !excuses.iter().any(|excuse| excuse.holds_for(sent)))
            .map(|(&number, _)| Violation::Missing(number))
    }
}

/// The time at which events were published that a gap says are missing; both ends count.
#[derive(Debug)]
struct Excuse(u64, u64);

impl Excuse {
    /// What a gap says that was told at this time; `None` if it has no reason to be.
    fn of(gap: &Value, told: u64) -> Option<Self> {
        let time = |member: &str| {
            let time: SystemTime = humantime::parse_rfc3339(gap[member].as_str()?).ok()?;
            Some(time.duration_since(UNIX_EPOCH).ok()?.as_micros() as u64)
        };
        match reason(gap) {
            // Times are told in whole milliseconds.
            "upstream_lost" => Some(Self(time("since")?, time("until")? + MILLISECOND)),
            // The client was with another process, or with none.
            "unknown_id" => Some(Self(0, told)),
            _ => None,
        }
    }

    fn holds_for(&self, sent: &Sent) -> bool {
        sent.began <= self.1 && self.0 <= sent.ended
    }
}

fn is_event(entry: &Entry) -> bool {
    matches!(entry.seen, Seen::Event(_))
}

const MILLISECOND: u64 = 1_000;
/// How far one process may be behind another, on a link that is silent and not yet given up. Ids of the other mean
/// nothing to it, so that it gives again what it has yet to receive.
const BEHIND: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Ten numbers, number n from n seconds on for half a second.
    fn published() -> Timed {
        let sent = |n| Sent { began: n * 1_000_000, ended: n * 1_000_000 + 500_000, acknowledged: true };
        Timed((0..10).map(|n| (n, sent(n))).collect())
    }

    fn judge(seen: impl IntoIterator<Item = (u64, Seen)>) -> Vec<Violation> {
        let record: Vec<_> = seen.into_iter().map(|(at, seen)| Entry { at: at * 1_000_000, seen }).collect();
        published().judge(&record)
    }

    fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, Seen)> {
        numbers.into_iter().map(|number| (number, Seen::Event(number))).collect()
    }

    fn lost(since: u64, until: u64) -> Vec<(u64, Seen)> {
        let time = |second| format!("1970-01-01T00:00:0{second}.000Z");
        let gap = json!({"reason": "upstream_lost", "since": time(since), "until": time(until)});
        vec![(until, Seen::Gap(gap.into())), (until, Seen::Position)]
    }

    fn unknown(at: u64) -> Vec<(u64, Seen)> {
        vec![(at, Seen::Gap(json!({"reason": "unknown_id"}).into())), (at, Seen::Position)]
    }

    #[test]
    fn all_that_was_published_is_fine() {
        assert_eq!(judge(events(0..10)), []);
    }

    #[test]
    fn a_missing_event_is_seen_wherever_it_is() {
        for missing in 0..10 {
            let seen = events((0..10).filter(|&n| n != missing));
            assert_eq!(judge(seen), [Violation::Missing(missing)]);
        }
    }

    #[test]
    fn what_was_not_acknowledged_may_come_or_not() {
        let mut published = published();
        published.0.get_mut(&4).unwrap().acknowledged = false;
        let record = |numbers: Vec<u64>| {
            numbers.into_iter().map(|n| Entry { at: n, seen: Seen::Event(n) }).collect::<Vec<_>>()
        };
        assert_eq!(published.judge(&record((0..10).collect())), []);
        assert_eq!(published.judge(&record((0..10).filter(|&n| n != 4).collect())), []);
    }

    #[test]
    fn repeated_disordered_and_strange_events_are_seen() {
        assert_eq!(judge(events([0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9])), [Violation::Repeated(2)]);
        assert_eq!(judge(events([0, 1, 3, 2, 4, 5, 6, 7, 8, 9])), [Violation::Disordered(2)]);
        assert_eq!(judge(events(0..11)), [Violation::Strange(10)]);
    }

    #[test]
    fn a_lost_link_covers_its_span_and_no_more() {
        let seen = |since, until| judge([events(0..3), lost(since, until), events(6..10)].concat());
        assert_eq!(seen(3, 5), []);
        assert_eq!(seen(4, 5), [Violation::Missing(3)]);
        assert_eq!(seen(3, 4), [Violation::Missing(5)]);
    }

    #[test]
    fn a_gap_accounts_for_what_is_missing_just_there() {
        let seen = [events([0, 1, 2, 4]), lost(3, 5), events(6..10)];
        assert_eq!(judge(seen.concat()), [Violation::Missing(3)], "told after the next event had come");
        let seen = [events(0..3), lost(3, 5), events([3]), events(6..10)];
        assert_eq!(judge(seen.concat()), [Violation::Missing(4), Violation::Missing(5)]);
    }

    #[test]
    fn an_unknown_id_covers_what_was_published_before_it_was_told() {
        assert_eq!(judge([events(0..3), unknown(5), events(6..10)].concat()), []);
        assert_eq!(judge([events(0..3), unknown(4), events(6..10)].concat()), [Violation::Missing(5)]);
        let cut = unknown(5)[..1].to_vec();
        let again = vec![(5, Seen::Opened(0, "".into())), (5, Seen::Position)];
        let missing: Vec<_> = (3..6).map(Violation::Missing).collect();
        assert_eq!(
            judge([events(0..3), cut, again, events(6..10)].concat()),
            missing,
            "cut before the position"
        );
    }

    #[test]
    fn another_process_may_be_behind_and_is_in_order_from_there_on() {
        assert_eq!(judge([events(0..6), unknown(6), events(3..10)].concat()), []);
        let seen = [events(0..6), unknown(6), events(3..6), events(5..10)];
        assert_eq!(judge(seen.concat()), [Violation::Repeated(5)]);
        let seen = [events(0..6), unknown(6), events([3, 4, 6, 7, 8, 9])];
        assert_eq!(judge(seen.concat()), [], "the other one has given it");
        assert_eq!(judge([events(0..6), unknown(6), events([4, 3]), events(5..10)].concat()).len(), 1);
        let seen = [events(0..10), unknown(20), events(3..10)];
        assert_eq!(judge(seen.concat()).len(), 7, "nothing is so late");
    }

    #[test]
    fn a_gap_without_a_reason_is_seen() {
        let gap = vec![(3, Seen::Gap(json!({"reason": "evicted"}).into())), (3, Seen::Position)];
        assert_eq!(judge([events(0..3), gap, events(3..10)].concat()), [Violation::Untrue(3)]);
    }
}

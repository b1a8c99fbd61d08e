//! The law where events have places: in each partition of each incarnation of the source, an event is given once and
//! after those before it, or lies within a gap that names its place.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{Entry, Pending, Seen, Violation, reason};

/// A place in a partition. Kafka's have one number, those of Redis Streams two.
pub type Offset = (u64, u64);

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The incarnation of the source, counted from 0.
    pub era: usize,
    /// The partition.
    pub partition: u32,
    /// Its place there.
    pub offset: Offset,
}

/// What was published.
#[derive(Debug, Default)]
pub struct Placed {
    /// Where each number was.
    pub places: HashMap<u64, Place>,
    /// Before what place records were taken away, by era and partition.
    pub lows: HashMap<(usize, u32), Offset>,
    /// How many incarnations there were, where each counts its places from the beginning.
    pub eras: usize,
    /// Where later incarnations began, in order, where places go on after those of the one before; and are times, in
    /// milliseconds since the epoch.
    pub births: Vec<Offset>,
}

impl Placed {
    /// What is wrong with a client's record, who is to be given what `concerns` it.
    pub fn judge(&self, concerns: impl Fn(u64) -> bool, record: &[Entry]) -> Vec<Violation> {
        let mut walk = Walk::new(self);
        let mut pending = Pending::default();
        for (at, entry) in record.iter().enumerate() {
            match entry.seen {
                Seen::Event(number) if !concerns(number) => walk.found.push(Violation::Strange(number)),
                Seen::Event(number) => walk.event(number),
                Seen::Refused(status) => walk.found.push(Violation::Refused(status)),
                _ => {}
            }
            for (at, gap) in pending.take_in(at, &entry.seen) {
                if !walk.gap(gap, entry.at / 1_000) {
                    walk.found.push(Violation::Untrue(at));
                }
            }
        }
        walk.arrive((u64::MAX, 0));
        let missing =
            self.places.iter().filter(|(number, place)| concerns(**number) && walk.misses(**number, place));
        walk.found.extend(missing.map(|(&number, _)| Violation::Missing(number)).collect::<Vec<_>>());
        walk.found.sort_unstable();
        walk.found
    }
}

/// One record while it is gone through.
struct Walk<'p> {
    published: &'p Placed,
    found: Vec<Violation>,
    given: HashSet<u64>,
    era: usize,
    /// When it was told that there is a later incarnation, of which nothing has come yet; in milliseconds.
    reborn: Option<u64>,
    /// What may come next.
    next: HashMap<(usize, u32), Offset>,
    /// What was told to be missing, half-open.
    told: BTreeMap<(usize, u32), Vec<(Offset, Offset)>>,
}

impl<'p> Walk<'p> {
    fn new(published: &'p Placed) -> Self {
        let (next, told) = (HashMap::new(), BTreeMap::new());
        Self { published, found: Vec::new(), given: HashSet::new(), era: 0, reborn: None, next, told }
    }

    fn event(&mut self, number: u64) {
        let Some(place) = self.published.places.get(&number) else {
            return self.found.push(Violation::Strange(number));
        };
        if !self.given.insert(number) {
            return self.found.push(Violation::Repeated(number));
        }
        self.arrive(place.offset);
        let next = self.next.entry((place.era, place.partition)).or_default();
        if place.era != self.era || place.offset < *next {
            return self.found.push(Violation::Disordered(number));
        }
        *next = after(place.offset);
    }

    /// Whether the gap may be told. What it says to be missing must not come any more.
    fn gap(&mut self, gap: &Value, told: u64) -> bool {
        match reason(gap) {
            "recreated" if self.era + 1 < self.published.eras => {
                self.era += 1;
                true
            }
            "recreated" => {
                self.arrive((0, 0));
                self.reborn = self.birth(told, (u64::MAX, 0)).map(|_| told);
                self.reborn.is_some()
            }
            // Where records are trimmed just while it is asked how old they are, that looks like a limit of age.
            "trimmed" | "replay_limit" => ranges(gap).is_some_and(|ranges| {
                let untrue =
                    ranges.into_iter().filter(|&(partition, from, to)| !self.trimmed(partition, from, to));
                untrue.count() == 0
            }),
            // Ids mean the same on every replica, and nobody here is slow or comes from too far back.
            _ => false,
        }
    }

    /// What comes, or is told, goes on at this place. If a later incarnation was told before, and there may have been
    /// several meanwhile, it is the one that this is in; and all before that is told to be missing.
    fn arrive(&mut self, at: Offset) {
        let Some(told) = self.reborn.take() else { return };
        let Some(birth) = self.birth(told, at).or_else(|| self.later().next()) else { return };
        let next = self.next.entry((self.era, 0)).or_default();
        self.told.entry((self.era, 0)).or_default().push((*next, birth));
        *next = birth;
    }

    /// Where the last incarnation began that there was at this time, and that had begun at this place.
    fn birth(&self, time: u64, at: Offset) -> Option<Offset> {
        self.later().take_while(|&birth| birth <= at && birth.0 <= time).last()
    }

    /// Where later incarnations began.
    fn later(&self) -> impl Iterator<Item = Offset> {
        let next = self.next.get(&(self.era, 0)).copied().unwrap_or_default();
        self.published.births.iter().copied().filter(move |birth| next < *birth)
    }

    /// Whether all of that is gone.
    fn trimmed(&mut self, partition: u32, from: Offset, to: Offset) -> bool {
        self.arrive(from);
        let of = (self.era, partition);
        self.told.entry(of).or_default().push((from, to));
        let next = self.next.entry(of).or_default();
        *next = to.max(*next);
        self.published.lows.get(&of).is_some_and(|low| to <= *low)
    }

    fn misses(&self, number: u64, place: &Place) -> bool {
        let of = (place.era, place.partition);
        let told = self.told.get(&of).into_iter().flatten();
        // With `recreated`, all is told that was still to come.
        let left_behind = place.era < self.era && self.next.get(&of).is_none_or(|next| place.offset >= *next);
        !self.given.contains(&number)
            && !left_behind
            && !told.clone().any(|(from, to)| (*from..*to).contains(&place.offset))
    }
}

fn after((major, minor): Offset) -> Offset {
    (major, minor + 1)
}

/// The partitions, and in each the first place missing and the first one not; `None` where the gap names none.
fn ranges(gap: &Value) -> Option<Vec<(u32, Offset, Offset)>> {
    match (&gap["from"], &gap["to"]) {
        (Value::Object(from), Value::Object(to)) => to
            .iter()
            .map(|(partition, to)| {
                Some((partition.parse().ok()?, offset(from.get(partition)?)?, offset(to)?))
            })
            .collect(),
        (from, to) => Some(vec![(0, offset(from)?, offset(to)?)]),
    }
}

/// A number, or two of them with a dash between.
fn offset(value: &Value) -> Option<Offset> {
    match value {
        Value::Number(number) => Some((number.as_u64()?, 0)),
        Value::String(text) => {
            let (major, minor) = text.split_once('-')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Ten numbers in turn in two partitions, the first four trimmed; then five in a topic made anew.
    fn published() -> Placed {
        let old = (0..10).map(|n| (n, Place { era: 0, partition: n as u32 % 2, offset: (n / 2, 0) }));
        let new = (10..15).map(|n| (n, Place { era: 1, partition: 0, offset: (n - 10, 0) }));
        let lows = [((0, 0), (2, 0)), ((0, 1), (2, 0))];
        Placed { places: old.chain(new).collect(), lows: lows.into(), eras: 2, births: Vec::new() }
    }

    fn judge(seen: impl IntoIterator<Item = Seen>) -> Vec<Violation> {
        let record: Vec<_> = seen.into_iter().map(|seen| Entry { at: 0, seen }).collect();
        published().judge(|_| true, &record)
    }

    fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<Seen> {
        numbers.into_iter().map(Seen::Event).collect()
    }

    fn told(gap: Value) -> Vec<Seen> {
        vec![Seen::Gap(gap.into()), Seen::Position]
    }

    fn recreated() -> Vec<Seen> {
        told(json!({"reason": "recreated"}))
    }

    fn trimmed(from: u64, to: u64) -> Vec<Seen> {
        told(json!({"reason": "trimmed", "from": {"0": from, "1": from}, "to": {"0": to, "1": to}}))
    }

    fn whole() -> Vec<Seen> {
        [events(0..10), recreated(), events(10..15)].concat()
    }

    #[test]
    fn all_that_was_published_is_fine_in_any_order_of_the_partitions() {
        assert_eq!(judge(whole()), []);
        let mixed = events([1, 3, 0, 5, 2, 4, 7, 9, 6, 8]);
        assert_eq!(judge([mixed, recreated(), events(10..15)].concat()), []);
    }

    #[test]
    fn a_missing_event_is_seen_wherever_it_is() {
        for missing in 0..15 {
            let mut seen = whole();
            seen.retain(|seen| *seen != Seen::Event(missing));
            // What was still to come of the old topic when it was left is told to be missing.
            let left = matches!(missing, 8 | 9);
            let expected = if left { vec![] } else { vec![Violation::Missing(missing)] };
            assert_eq!(judge(seen), expected, "{missing}");
        }
    }

    #[test]
    fn a_repeated_event_is_seen() {
        let seen =
            [events(0..5), vec![Seen::Opened(1, "x".into())], events(3..10), recreated(), events(10..15)];
        assert_eq!(judge(seen.concat()), [Violation::Repeated(3), Violation::Repeated(4)]);
    }

    #[test]
    fn a_wrong_order_within_a_partition_is_seen() {
        let seen = [events([0, 1, 4, 2, 3, 5, 6, 7, 8, 9]), recreated(), events(10..15)];
        assert_eq!(judge(seen.concat()), [Violation::Disordered(2)]);
    }

    #[test]
    fn what_nobody_published_or_what_is_for_others_is_seen() {
        assert_eq!(judge([whole(), events([99])].concat()), [Violation::Strange(99)]);
        let record: Vec<_> = whole().into_iter().map(|seen| Entry { at: 0, seen }).collect();
        let strange = published().judge(|n| n != 7, &record);
        assert_eq!(strange, [Violation::Strange(7)]);
    }

    #[test]
    fn a_gap_covers_its_range_and_no_more() {
        let seen = |from, to| [trimmed(from, to), events(4..10), recreated(), events(10..15)].concat();
        assert_eq!(judge(seen(0, 2)), []);
        assert_eq!(judge(seen(1, 2)), [Violation::Missing(0), Violation::Missing(1)]);
        assert_eq!(judge(seen(0, 1)), [Violation::Missing(2), Violation::Missing(3)]);
    }

    #[test]
    fn a_gap_that_says_more_than_is_gone_is_seen() {
        let seen = [trimmed(0, 3), events(6..10), recreated(), events(10..15)];
        assert_eq!(judge(seen.concat()), [Violation::Untrue(0)]);
        let seen = [trimmed(0, 2), events(2..10), recreated(), events(10..15)];
        assert_eq!(judge(seen.concat()), [Violation::Disordered(2), Violation::Disordered(3)]);
        let unknown = told(json!({"reason": "unknown_id", "from": null, "to": null}));
        let seen = [events(0..4), unknown, events(6..10), recreated(), events(10..15)];
        assert_eq!(
            judge(seen.concat()),
            [Violation::Missing(4), Violation::Missing(5), Violation::Untrue(4)]
        );
    }

    #[test]
    fn a_gap_counts_from_the_position_after_it() {
        let cut = vec![
            trimmed(0, 2)[0].clone(),
            Seen::Ended("cut".into()),
            Seen::Opened(0, "".into()),
            Seen::Position,
        ];
        let rest = [events(4..10), recreated(), events(10..15)].concat();
        let missing: Vec<_> = (0..4).map(Violation::Missing).collect();
        assert_eq!(judge([cut.clone(), rest.clone()].concat()), missing);
        assert_eq!(judge([cut, trimmed(0, 2), rest].concat()), []);
    }

    #[test]
    fn a_new_topic_must_be_told_and_only_once() {
        let seen = judge(events(0..15));
        assert_eq!(seen, (10..15).map(Violation::Disordered).collect::<Vec<_>>());
        let twice = judge([whole(), recreated()].concat());
        assert_eq!(twice, [Violation::Untrue(17)]);
    }

    #[test]
    fn places_of_two_numbers_are_ranges_too() {
        let place = |minor| Place { era: 0, partition: 0, offset: (7, minor) };
        let places = (0..4).map(|n| (n, place(n))).collect();
        let published = Placed { places, lows: [((0, 0), (7, 2))].into(), eras: 1, births: Vec::new() };
        let gap = told(json!({"reason": "trimmed", "from": "0-0", "to": "7-2"}));
        let record = |seen: Vec<Seen>| seen.into_iter().map(|seen| Entry { at: 0, seen }).collect::<Vec<_>>();
        assert_eq!(published.judge(|_| true, &record([gap, events(2..4)].concat())), []);
    }

    #[test]
    fn what_goes_on_after_its_predecessor_is_told_once_and_covers_what_was_left_of_that() {
        let places = (0..9).map(|n| (n, Place { era: 0, partition: 0, offset: (n, 0) })).collect();
        let published = Placed { places, eras: 1, births: vec![(3, 0), (6, 0)], ..Placed::default() };
        let judge = |at: u64, seen: &[Vec<Seen>]| {
            let entry = |seen| Entry { at: at * 1_000, seen };
            published.judge(|_| true, &seen.concat().into_iter().map(entry).collect::<Vec<_>>())
        };
        let missing = |numbers: &[u64]| numbers.iter().copied().map(Violation::Missing).collect::<Vec<_>>();
        for (first, second) in (0..=3).flat_map(|first| (3..=6).map(move |second| (first, second))) {
            let seen = [events(0..first), recreated(), events(3..second), recreated(), events(6..9)];
            // With nothing of the second, one gap tells of both.
            assert_eq!(judge(9, &seen), [], "{first} {second}");
        }
        assert_eq!(judge(9, &[events(0..2), recreated(), events(6..9)]), []);
        assert_eq!(judge(9, &[events(0..2), recreated()]), missing(&[6, 7, 8]));
        assert_eq!(judge(5, &[events(0..2), recreated()]), missing(&[3, 4, 5, 6, 7, 8]));
        assert_eq!(
            judge(5, &[events(0..2), recreated(), events(6..9)]),
            missing(&[3, 4, 5]),
            "not there yet"
        );
        assert_eq!(judge(9, &[events(0..2), events(3..6), recreated(), events(6..9)]), missing(&[2]));
        assert_eq!(judge(9, &[events([1]), recreated(), events(6..9)]), missing(&[0]));
        assert_eq!(judge(9, &[events(0..2), recreated(), events(7..9)]), missing(&[6]));
        let back = [events(0..2), recreated(), events(6..7), events(4..6), events(7..9)];
        assert_eq!(judge(9, &back), [Violation::Disordered(4), Violation::Disordered(5)]);
        let thrice = [events(0..2), recreated(), events(6..8), recreated(), events(8..9)];
        assert_eq!(judge(9, &thrice), [Violation::Untrue(6)]);
    }
}

//! Where a reader begins: what its id means, what the upstream has to say to that, and what it cannot be given.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::chunk::Seq;
use super::cursor::{Terms, View, Wish};
use super::gap::{Gap, Reason};
use super::history::{Answer, Found, History, Question};
use super::id::Decoded;
use super::key::Lens;
use super::position::Position;
use super::walk::NOWHERE;
use crate::config::Start;

/// A reader that has come, and does not know yet where it begins.
#[derive(Debug)]
pub struct Undecided {
    wish: Wish,
    came: Instant,
    /// The same moment by the clock that publishers have.
    came_at: SystemTime,
}

/// Where a reader begins once it is decided.
pub enum Begin {
    /// At the head.
    Live,
    /// Within what the log holds.
    At {
        /// The entry to go on with.
        seq: Seq,
        /// The position to tell.
        position: Position,
    },
    /// Before that.
    Past(Position),
}

/// Where to begin, and what is to be told before.
pub type Decision = (Vec<Gap>, Begin);

/// The value of a [`Found`], or returns what to wait for.
macro_rules! here {
    ($found:expr) => {
        match $found {
            Found::Here(value) => value,
            Found::Wait(wake) => return Found::Wait(wake),
        }
    };
}

impl Undecided {
    /// A reader that comes now.
    pub fn new(wish: Wish) -> Self {
        Self { wish, came: Instant::now(), came_at: SystemTime::now() }
    }

    /// Where the reader begins, and what it is told before. Says in `lens` in which partitions it stands. Of one that
    /// `filters` it is not known how many events it misses.
    pub fn decide(
        &self,
        terms: &Terms,
        view: &View<'_>,
        mut lens: Option<&mut Lens>,
        filters: bool,
    ) -> Found<Decision> {
        if let Some(lens) = &mut lens {
            lens.home = view.codec.home(lens.key());
        }
        let decoded = match (&self.wish.id, &lens) {
            (None, _) => None,
            // Whatever ids the source gives: its client was cut within a snapshot, and has no state.
            (Some(id), _) if id == NOWHERE => Some(Decoded::Unknown),
            (Some(id), None) => Some(view.codec.decode(id)),
            (Some(id), Some(lens)) => Some(view.codec.decode_for(id, lens.key(), view.ring.position())),
        };
        if let (Some(Decoded::Wide(_)), Some(lens)) = (&decoded, &mut lens) {
            lens.home = None;
        }
        Asking { reader: self, terms, view, lens: lens.as_deref(), filters }.place(decoded)
    }

    /// The oldest that may be replayed.
    fn oldest_allowed(&self, max_age: Duration) -> Option<SystemTime> {
        rounded(self.came_at.checked_sub(max_age)?, (max_age / 100).as_secs().clamp(1, 60))
    }
}

/// The time so long before `time`, in whole seconds; `None` where that is before 1970.
pub fn back(time: SystemTime, age: Duration) -> Option<SystemTime> {
    rounded(time.checked_sub(age)?, 1)
}

/// Rounded down to so many seconds, so that clients who come at about the same time ask the same.
fn rounded(time: SystemTime, seconds: u64) -> Option<SystemTime> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() / seconds * seconds))
}

/// One try to decide.
struct Asking<'r> {
    reader: &'r Undecided,
    terms: &'r Terms,
    view: &'r View<'r>,
    lens: Option<&'r Lens>,
    filters: bool,
}

impl Asking<'_> {
    fn place(&self, decoded: Option<Decoded>) -> Found<Decision> {
        let wanted = match decoded {
            None => return self.start(None),
            Some(Decoded::Position(position) | Decoded::Wide(position)) => position,
            Some(Decoded::Idle) => return self.start(Some(Reason::FeedIdle)),
            Some(Decoded::Unknown) => return self.start(Some(Reason::UnknownId)),
            Some(Decoded::Recreated) => {
                // Of the next one perhaps, which this process has yet to see: then there is no answer, and the log begins
                // anew.
                if let Some(history) = self.view.history {
                    here!(history.ask(&Question::Bounds, self.reader.came));
                }
                return self.resume(vec![Gap::of(Reason::Recreated)], Position::default(), None);
            }
        };
        let wanted = self.project(wanted);
        let mut end = Arc::clone(self.view.ring.position());
        if !end.covers_all(&wanted) {
            // Of a replica that is further on, perhaps; then it waits until this log has got there.
            if let Some(history) = self.view.history {
                let answer = here!(history.ask(&Question::Bounds, self.reader.came));
                Arc::make_mut(&mut end).merge(&answer.end);
            }
            if !end.covers_all(&wanted) {
                return self.start(Some(Reason::UnknownId));
            }
        }
        self.resume(Vec::new(), wanted, None)
    }

    /// Without an id, or with one that means nothing.
    fn start(&self, reason: Option<Reason>) -> Found<Decision> {
        let gaps: Vec<_> = reason.map(Gap::of).into_iter().collect();
        let since = match (self.reader.wish.since, self.terms.start) {
            (Some(since), _) => Some(since),
            (None, Start::Since(age)) => back(self.reader.came_at, age),
            (None, Start::Earliest | Start::Latest) => None,
        };
        let history = self.asked_history();
        if history.is_none() && self.terms.start == Start::Earliest {
            // The oldest that there is, since nobody keeps more.
            let oldest = floor(self.view, self.lens);
            let (gap, begin) = self.within(Position::clone(&oldest), &oldest);
            return Found::Here((gaps.into_iter().chain(gap).collect(), begin));
        }
        let question = match since {
            Some(since) => Question::At(since),
            None if self.terms.start == Start::Earliest => Question::Bounds,
            None => return Found::Here((gaps, self.live())),
        };
        let Some(history) = history else { return Found::Here((gaps, self.live())) };
        let answer = here!(history.ask(&question, self.reader.came));
        self.resume(gaps, self.project(answer.from.clone()), Some(answer))
    }

    /// The history of a source that can be asked where it begins, and when what was published.
    fn asked_history(&self) -> Option<&Arc<dyn History>> {
        self.view.history.filter(|history| history.is_asked())
    }

    /// With what comes next. Who has waited for the log to open of a source that cannot be asked for what was before is given
    /// all that came since: what an MQTT broker has retained, for example, or what a server of events begins with.
    fn live(&self) -> Begin {
        let ring = &self.view.ring;
        // A snapshot has all of it.
        let waited = self.asked_history().is_none() && self.view.table.is_none();
        match waited && self.reader.came < self.view.opened && ring.floor() < ring.head() {
            true => Begin::At {
                seq: ring.floor(),
                position: (*project(ring.floor_position(), self.lens)).clone(),
            },
            false => Begin::Live,
        }
    }

    /// Where a reader at `wanted` goes on, and what it cannot be given. `known` is what the upstream said if it was
    /// the upstream that said to begin there.
    fn resume(&self, mut gaps: Vec<Gap>, wanted: Position, known: Option<Answer>) -> Found<Decision> {
        let (ring, floor) = (&self.view.ring, floor(self.view, self.lens));
        let beyond = !wanted.covers_all(&floor) || self.has_read_nothing_of_it(&wanted);
        let Some(history) = self.view.history.filter(|_| beyond) else {
            let (gap, begin) = self.within(wanted, &floor);
            gaps.extend(gap);
            return Found::Here((gaps, begin));
        };
        // What was trimmed since is found out while reading. But whether this is the source that the reader has read is
        // what it is asked for where ids do not tell.
        let came = self.reader.came;
        let lately = if self.view.codec.tells_incarnations() { came.checked_sub(LATELY) } else { None };
        let lately = lately.unwrap_or(came);
        let answer = match known {
            Some(answer) => answer,
            None => here!(history.ask(&Question::Bounds, lately)),
        };
        if let Some(born) = answer.born.clone().filter(|born| is_of_another(&wanted, born)) {
            return self.resume(vec![Gap::of(Reason::Recreated)], born, Some(answer));
        }
        // Asked together with where the source begins, so that what was trimmed just now is not told as a limit.
        let by_age = match self.reader.oldest_allowed(self.terms.replay.max_age) {
            Some(oldest) => Some(here!(history.ask(&Question::At(oldest), lately))),
            None => None,
        };
        let mut position = wanted.clone();
        position.merge(&self.project(answer.from));
        if let Some(by_age) = &by_age {
            position.merge(&self.project(by_age.oldest.clone()));
        }
        let trimmed = position != wanted;
        let mut limit = position.clone();
        if history.counts() {
            let mut end = answer.end;
            end.merge(ring.position());
            limit = position.newest(&self.project(end), self.terms.replay.max_events as u64);
        }
        if let Some(by_age) = by_age {
            limit.merge(&self.project(by_age.from));
        }
        let limited = limit != position;
        position = limit;
        if limited || trimmed {
            let reason = if limited { Reason::ReplayLimit } else { Reason::Trimmed };
            gaps.push(Gap { range: Some((wanted, position.clone())), ..Gap::of(reason) });
        }
        let begin = if position.covers_all(&floor) {
            Begin::At { seq: self.first_uncovered(&position), position }
        } else {
            Begin::Past(position)
        };
        Found::Here((gaps, begin))
    }

    /// Where a reader at `wanted` goes on within what the log holds, and what it cannot be given.
    fn within(&self, wanted: Position, floor: &Position) -> (Option<Gap>, Begin) {
        let (ring, replay) = (&self.view.ring, &self.terms.replay);
        let evicted = !wanted.covers_all(floor);
        let first = if evicted { ring.floor() } else { self.first_uncovered(&wanted) };
        // The events of one key are not counted.
        let by_count = match self.lens {
            None => ring.head().saturating_sub(replay.max_events as Seq),
            Some(_) => 0,
        };
        let seq = first.max(by_count).max(ring.first_younger(replay.max_age, self.view.now));
        let reason = match (seq > first, evicted) {
            (true, _) => Reason::ReplayLimit,
            (false, true) => Reason::Evicted,
            (false, false) => return (None, Begin::At { seq, position: wanted }),
        };
        let mut position = wanted.clone();
        position.merge(&project(&ring.position_before(seq), self.lens));
        let noted = || ring.evicted_note_beyond(&wanted) || ring.note_within(first, seq);
        let known = self.view.codec.counts() && !self.filters && !noted();
        let missed = known.then(|| position.next(0) - wanted.next(0));
        let range = Some((wanted, position.clone()));
        (Some(Gap { missed, range, ..Gap::of(reason) }), Begin::At { seq, position })
    }

    /// Whether the log holds all that there ever was, and a reader who has read something has read nothing of that. Where
    /// offsets count, they tell by themselves.
    fn has_read_nothing_of_it(&self, wanted: &Position) -> bool {
        let (ring, none) = (&self.view.ring, Position::default());
        self.view.history.is_some_and(|history| !history.counts())
            && **ring.floor_position() == none
            && *wanted != none
            && ring.first_uncovered(wanted) == ring.floor()
    }

    fn first_uncovered(&self, position: &Position) -> Seq {
        first_uncovered(self.view, self.lens, position)
    }

    fn project(&self, position: Position) -> Position {
        match self.lens {
            Some(lens) => lens.project(&position),
            None => position,
        }
    }
}

/// Whether one who stands at `wanted` has read another source than the one that began after `born`.
fn is_of_another(wanted: &Position, born: &Position) -> bool {
    *wanted != Position::default() && !wanted.covers_all(born)
}

/// The entry with which a reader at `position` goes on.
pub fn first_uncovered(view: &View<'_>, lens: Option<&Lens>, position: &Position) -> Seq {
    match lens.and_then(|lens| lens.home) {
        Some(home) => view.ring.covered_before(home, position.at(home)),
        None => view.ring.first_uncovered(position),
    }
}

/// What of the log's floor concerns a reader.
pub fn floor(view: &View<'_>, lens: Option<&Lens>) -> Arc<Position> {
    project(view.ring.floor_position(), lens)
}

/// What of a position concerns a reader.
pub fn project(position: &Arc<Position>, lens: Option<&Lens>) -> Arc<Position> {
    match lens {
        Some(lens) if lens.home.is_some() => lens.project(position).into(),
        _ => Arc::clone(position),
    }
}

/// How old an answer may be that says what the upstream still holds.
const LATELY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::cursor::{Cursor, Read};
    use super::super::id::{Epoch, EpochCodec, IdCodec as _};
    use super::super::log::Log;
    use super::super::testing::{ANY_AGE, ROOM, TERMS, Text, log};
    use super::*;
    use crate::config::Replay;

    /// A log with five events, the last two of them ten seconds younger, and the id after the first.
    async fn five_events(events_kept: usize) -> (Arc<Log>, String) {
        let log = log(super::super::Bounds { events: events_kept, ..ROOM });
        let codec = Arc::new(EpochCodec::new(Epoch::random(), None));
        let mut id = String::new();
        codec.encode(&Position::new(vec![1]), &mut id);
        log.open(codec, Position::default());
        (0..3).for_each(|_| drop(log.append([(None, Text("old"))])));
        tokio::time::advance(Duration::from_secs(10)).await;
        (0..2).for_each(|_| drop(log.append([(None, Text("new"))])));
        (log, id)
    }

    /// What a reader with `id` misses, and how many events it is given.
    fn resume(log: &Log, id: &str, replay: Replay) -> (Option<Reason>, Option<u64>, usize) {
        let wish = Wish { id: Some(id.to_owned()), ..Wish::default() };
        let mut cursor = Cursor::new(wish, Terms { replay, ..TERMS });
        let Read::Control { bytes, gaps } = log.read(&mut cursor, 1_000) else { panic!("its start is told") };
        let text = str::from_utf8(&bytes).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let missed = serde_json::from_str::<serde_json::Value>(data).unwrap()["missed"].as_u64();
        let mut given = 0;
        while let Read::Slice { events, .. } = log.read(&mut cursor, 1_000) {
            given += events;
        }
        (gaps.first().copied(), missed, given)
    }

    #[tokio::test(start_paused = true)]
    async fn replay_limits_how_far_an_id_goes_back() {
        let (log, id) = five_events(5).await;
        let limit = |max_events, secs| Replay { max_events, max_age: Duration::from_secs(secs), ..ANY_AGE };
        let limited = Some(Reason::ReplayLimit);
        assert_eq!(resume(&log, &id, ANY_AGE), (None, None, 4));
        assert_eq!(resume(&log, &id, limit(4, 10)), (None, None, 4));
        assert_eq!(resume(&log, &id, limit(3, 10)), (limited, Some(1), 3));
        assert_eq!(resume(&log, &id, limit(0, 10)), (limited, Some(4), 0));
        assert_eq!(resume(&log, &id, limit(4, 9)), (limited, Some(2), 2));
        assert_eq!(resume(&log, &id, limit(1, 9)), (limited, Some(3), 1));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(resume(&log, &id, limit(4, 9)), (limited, Some(4), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_for_a_log_to_open_is_given_what_came_since() {
        let log = log(ROOM);
        let live = || Cursor::new(Wish::default(), TERMS);
        let mut early = live();
        tokio::time::advance(Duration::from_secs(1)).await;
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        log.append([(None, Text("retained"))]);
        let mut late = live();
        for (reader, expected) in [(&mut early, 1), (&mut late, 0)] {
            assert!(matches!(log.read(reader, 1_000), Read::Control { .. }), "its start is told");
            let mut given = 0;
            while let Read::Slice { events, .. } = log.read(reader, 1_000) {
                given += events;
            }
            assert_eq!(given, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_let_go_within_the_limit_is_evicted() {
        let (log, id) = five_events(3).await;
        assert_eq!(resume(&log, &id, ANY_AGE), (Some(Reason::Evicted), Some(1), 3));
        let limit = Replay { max_events: 2, ..ANY_AGE };
        assert_eq!(resume(&log, &id, limit), (Some(Reason::ReplayLimit), Some(2), 2));
    }

    #[tokio::test]
    async fn where_nobody_keeps_more_the_earliest_is_the_oldest_in_memory() {
        let log = log(super::super::Bounds { events: 3, ..ROOM });
        let codec = Arc::new(EpochCodec::new(Epoch::random(), None));
        let appended = log.open_after(codec, (0..5).map(|_| Text("before")));
        assert_eq!(log.held().events, 5, "of what comes at once nothing is let go alone");
        (0..5).for_each(|_| drop(log.append([(None, Text("after"))])));
        assert_eq!((appended.events, log.held().events), (5, 3));
        let given = |start| {
            let mut cursor = Cursor::new(Wish::default(), Terms { start, ..TERMS });
            let told = log.read(&mut cursor, 1_000);
            assert!(
                matches!(told, Read::Control { gaps, .. } if gaps.is_empty()),
                "nobody was promised more"
            );
            match log.read(&mut cursor, 1_000) {
                Read::Slice { events, .. } => events,
                _ => 0,
            }
        };
        assert_eq!((given(Start::Earliest), given(Start::Latest)), (3, 0));
    }
}

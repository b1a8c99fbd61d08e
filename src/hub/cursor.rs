//! A subscriber's place in a log: undecided until the log can say where its id stands, *replaying* while it reads
//! what only the upstream still holds, *catching up* while its own position and the log's differ, and *joined*, a
//! mere number, from then on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::chunk::Seq;
use super::gap::{Gap, Reason};
use super::history::{Answer, Found, History, Question};
use super::id::{Decoded, IdCodec};
use super::position::Position;
use super::replay::{Floor, Replaying};
use super::ring::Ring;
use crate::config::{OnLag, Replay, Start};
use crate::sse;

/// A reader's place.
#[derive(Debug)]
pub struct Cursor {
    state: State,
    terms: Terms,
}

/// What a route grants its subscribers.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Where one begins that brings no id.
    pub start: Start,
    /// How far back one is served.
    pub replay: Replay,
    /// What becomes of one that the log went past.
    pub on_lag: OnLag,
}

/// What a subscriber brings.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The id to go on after.
    pub id: Option<String>,
    /// Where there is no id: how old events may be at most. Means nothing where the upstream keeps no history.
    pub since: Option<SystemTime>,
}

#[derive(Debug)]
enum State {
    /// The log was not ready, or has to ask the upstream.
    Undecided(Box<Undecided>),
    /// Stands before what the log holds.
    Replaying(Box<Replaying>),
    CatchingUp(Box<CatchingUp>),
    /// Stands before entry `next`, at a position that it was told, `at`: the log's own before that entry,
    /// or short of it by records that made no event.
    Joined {
        next: Seq,
        at: Arc<Position>,
    },
}

#[derive(Debug)]
struct Undecided {
    wish: Wish,
    came: Instant,
    /// The same moment by the clock that publishers have.
    came_at: SystemTime,
}

/// Reads on a log whose partitions are interleaved otherwise than those of the log that gave the id.
#[derive(Debug)]
struct CatchingUp {
    next: Seq,
    /// The log's position before entry `next`.
    walked: Position,
    /// The position that the reader was told, which is ahead of `walked` in some partition.
    at: Position,
}

/// What a reader is given.
#[derive(Debug)]
pub enum Read {
    /// Nothing yet: wait for the log's wake.
    Pending,
    /// Nothing yet: wait for this, the log's wake does not matter.
    Wait(OwnedNotified),
    /// To be written before what follows: gaps of this reader's own, if any, and its position.
    Control {
        /// The bytes.
        bytes: Bytes,
        /// Why events are missing.
        gaps: Vec<Reason>,
    },
    /// Events of the log as they stand, shared by every reader.
    Slice {
        /// The bytes.
        bytes: Bytes,
        /// How many events they hold.
        events: usize,
    },
    /// Events with the reader's own ids: shared bodies and id blocks in turn. May be empty, where it went past what
    /// the reader has: the others have their turn before it reads on.
    Pieces {
        /// The bytes, in order.
        bytes: Vec<Bytes>,
        /// How many events they hold.
        events: usize,
    },
}

/// What the log knows beside its ring while a cursor reads.
pub struct View<'r> {
    /// The chunks.
    pub ring: &'r mut Ring,
    /// The log's codec.
    pub codec: &'r Arc<dyn IdCodec>,
    /// What the names of control events begin with.
    pub prefix: &'r str,
    /// What the upstream keeps beyond the ring, if it does.
    pub history: Option<&'r Arc<dyn History>>,
    /// The present.
    pub now: Instant,
}

/// What a look at the log comes to.
pub enum Step {
    /// This is what the reader is given.
    Read(Read),
    /// The reader stands before what the log holds: [`Cursor::replay`] reads on, without a look at the log.
    Replay(Floor),
}

/// Where a cursor begins once it is decided.
enum Begin {
    /// At the head.
    Live,
    /// Within what the log holds.
    At { seq: Seq, position: Position },
    /// Before that.
    Past(Position),
}

/// Where to begin, and what is to be told before.
type Decision = (Vec<Gap>, Begin);

/// The value of a [`Found`], or returns what to wait for.
macro_rules! here {
    ($found:expr) => {
        match $found {
            Found::Here(value) => value,
            Found::Wait(wake) => return Found::Wait(wake),
        }
    };
}

impl Cursor {
    /// A cursor that begins where `wish` and `terms` say.
    pub fn new(wish: Wish, terms: Terms) -> Self {
        let undecided = Undecided { wish, came: Instant::now(), came_at: SystemTime::now() };
        Self { state: State::Undecided(Box::new(undecided)), terms }
    }

    /// Reads on, at most `max` bytes unless a single event is larger.
    pub fn read(&mut self, view: &mut View<'_>, max: usize) -> Step {
        if let State::Replaying(replaying) = &self.state
            && let Some(history) = view.history
            && !view.ring.restarted_since(replaying.began_at())
            && !replaying.position().covers_all(view.ring.floor_position())
            && !replaying.is_over(&**history, &self.terms.replay, view.now)
        {
            let (position, codec) = (Arc::clone(view.ring.floor_position()), Arc::clone(view.codec));
            return Step::Replay(Floor { position, codec, history: Arc::clone(history) });
        }
        Step::Read(self.read_log(view, max))
    }

    /// Reads on before what the log holds; see `Step::Replay`.
    pub fn replay(&mut self, floor: &Floor, prefix: &str, max: usize) -> Read {
        match &mut self.state {
            State::Replaying(replaying) => replaying.read(floor, prefix, max),
            _ => Read::Pending,
        }
    }

    fn read_log(&mut self, view: &mut View<'_>, max: usize) -> Read {
        match &mut self.state {
            State::Undecided(undecided) => match undecided.decide(&self.terms, view) {
                Found::Here((gaps, begin)) => self.begin(view, &gaps, begin),
                Found::Wait(wake) => Read::Wait(wake),
            },
            State::Joined { next, .. } if *next < view.ring.floor() => self.lagged(view),
            State::Joined { next, at } => read_joined(next, at, view.ring, max),
            State::CatchingUp(catching) => {
                if catching.lags(view.ring) {
                    return self.lagged(view);
                }
                let read = catching.read(view, max);
                if catching.has_caught_up() {
                    let at = Arc::new(std::mem::take(&mut catching.at));
                    self.state = State::Joined { next: catching.next, at };
                }
                read
            }
            State::Replaying(replaying) => {
                if view.ring.restarted_since(replaying.began_at()) {
                    return self.restarted(view);
                }
                let from = replaying.position().clone();
                if from.covers_all(view.ring.floor_position()) {
                    self.join(view, view.ring.first_uncovered(&from), from);
                    return self.read_log(view, max);
                }
                let mut position = from.clone();
                position.merge(view.ring.floor_position());
                let gap = Gap { range: Some((from, position.clone())), ..Gap::of(Reason::ReplayLimit) };
                self.begin(view, &[gap], Begin::At { seq: view.ring.floor(), position })
            }
        }
    }

    /// The control event that tells the log's position, where records that made no event have moved it on, and
    /// this reader has read all there is.
    pub fn moved_on(&mut self, view: &View<'_>) -> Option<Bytes> {
        let State::Joined { next, at } = &mut self.state else { return None };
        let position = view.ring.position();
        if *next != view.ring.head() || Arc::ptr_eq(at, position) || at == position {
            return None;
        }
        *at = Arc::clone(position);
        let mut bytes = Vec::new();
        write_position(view, position, &mut bytes);
        Some(bytes.into())
    }

    /// The log went past this reader: tell it what it missed, and go on with the oldest left; or read that from
    /// the upstream.
    fn lagged(&mut self, view: &mut View<'_>) -> Read {
        let floor = view.ring.floor();
        let (next, from, in_order) = match &self.state {
            State::Joined { next, at } => (*next, Position::clone(at), true),
            State::CatchingUp(catching) => (catching.next, catching.at.clone(), false),
            State::Undecided(_) | State::Replaying(_) => return Read::Pending,
        };
        if view.ring.restarted_since(next) {
            return self.restarted(view);
        }
        if self.terms.on_lag == OnLag::Replay && view.history.is_some() {
            self.state = State::Replaying(Box::new(Replaying::new(from, &self.terms.replay, view)));
            return Read::Pieces { bytes: Vec::new(), events: 0 };
        }
        let known = in_order && !view.ring.evicted_note_since(next);
        let missed = known.then(|| floor - next);
        let mut position = from.clone();
        position.merge(view.ring.floor_position());
        let range = Some((from, position.clone()));
        let gap = Gap { missed, range, ..Gap::of(Reason::Lagged) };
        self.begin(view, &[gap], Begin::At { seq: floor, position })
    }

    /// The source was created anew while this reader read.
    fn restarted(&mut self, view: &mut View<'_>) -> Read {
        let position = Position::clone(view.ring.floor_position());
        let begin = Begin::At { seq: view.ring.floor(), position };
        self.begin(view, &[Gap::of(Reason::Recreated)], begin)
    }

    /// Fixes the place, and tells it.
    fn begin(&mut self, view: &mut View<'_>, gaps: &[Gap], begin: Begin) -> Read {
        let mut bytes = Vec::new();
        for gap in gaps {
            gap.encode(view.prefix, &**view.codec, &mut bytes);
            bytes.push(b'\n');
        }
        match begin {
            Begin::Live => {
                let position = Arc::clone(view.ring.position());
                write_position(view, &position, &mut bytes);
                self.join(view, view.ring.head(), Position::clone(&position));
            }
            Begin::At { seq, position } => {
                write_position(view, &position, &mut bytes);
                self.join(view, seq, position);
            }
            Begin::Past(position) => {
                write_position(view, &position, &mut bytes);
                self.state = State::Replaying(Box::new(Replaying::new(position, &self.terms.replay, view)));
            }
        }
        Read::Control { bytes: bytes.into(), gaps: gaps.iter().map(|gap| gap.reason).collect() }
    }

    /// Goes on with entry `seq` of the log, at a position that the reader was told.
    fn join(&mut self, view: &mut View<'_>, seq: Seq, position: Position) {
        if seq == view.ring.head() {
            view.ring.passed_all();
        }
        let walked = view.ring.position_before(seq);
        self.state = if walked.covers_all(&position) {
            State::Joined { next: seq, at: position.into() }
        } else {
            let walked = Arc::unwrap_or_clone(walked);
            State::CatchingUp(Box::new(CatchingUp { next: seq, walked, at: position }))
        };
    }
}

impl Undecided {
    /// Where the reader begins, and what it is told before.
    fn decide(&self, terms: &Terms, view: &View<'_>) -> Found<Decision> {
        let Some(id) = &self.wish.id else { return self.start(terms, view, None) };
        let wanted = match view.codec.decode(id) {
            Decoded::Position(position) => position,
            Decoded::Idle => return self.start(terms, view, Some(Reason::FeedIdle)),
            Decoded::Unknown => return self.start(terms, view, Some(Reason::UnknownId)),
            Decoded::Recreated => {
                let gaps = vec![Gap::of(Reason::Recreated)];
                return self.resume(terms, view, gaps, Position::default(), None);
            }
        };
        if !view.ring.position().covers_all(&wanted) {
            // Of a replica that is further on, perhaps; then it waits until this log has got there.
            let mut end = Position::clone(view.ring.position());
            if let Some(history) = view.history {
                end.merge(&here!(history.ask(&Question::Bounds, self.came)).end);
            }
            if !end.covers_all(&wanted) {
                return self.start(terms, view, Some(Reason::UnknownId));
            }
        }
        self.resume(terms, view, Vec::new(), wanted, None)
    }

    /// Without an id, or with one that means nothing.
    fn start(&self, terms: &Terms, view: &View<'_>, reason: Option<Reason>) -> Found<Decision> {
        let gaps = reason.map(Gap::of).into_iter().collect();
        let since = match (self.wish.since, terms.start) {
            (Some(since), _) => Some(since),
            (None, Start::Since(age)) => self.came_at.checked_sub(age),
            (None, Start::Earliest | Start::Latest) => None,
        };
        let question = match since {
            Some(since) => Question::At(since),
            None if terms.start == Start::Earliest => Question::Bounds,
            None => return Found::Here((gaps, Begin::Live)),
        };
        let Some(history) = view.history else { return Found::Here((gaps, Begin::Live)) };
        let answer = here!(history.ask(&question, self.came));
        self.resume(terms, view, gaps, answer.from.clone(), Some(answer))
    }

    /// Where a reader at `wanted` goes on, and what it cannot be given. `known` is what the upstream said if it was
    /// the upstream that said to begin there.
    fn resume(
        &self,
        terms: &Terms,
        view: &View<'_>,
        mut gaps: Vec<Gap>,
        wanted: Position,
        known: Option<Answer>,
    ) -> Found<Decision> {
        let ring = &view.ring;
        let Some(history) = view.history.filter(|_| !wanted.covers_all(ring.floor_position())) else {
            let (gap, begin) = within(view, &terms.replay, wanted);
            gaps.extend(gap);
            return Found::Here((gaps, begin));
        };
        // What was trimmed since is found out while reading.
        let lately = self.came.checked_sub(LATELY).unwrap_or(self.came);
        let answer = match known {
            Some(answer) => answer,
            None => here!(history.ask(&Question::Resume(wanted.clone()), lately)),
        };
        let mut position = wanted.clone();
        position.merge(&answer.from);
        let trimmed = position != wanted;
        let mut limit = position.clone();
        if history.counts() {
            let mut end = answer.end;
            end.merge(ring.position());
            limit = position.newest(&end, terms.replay.max_events as u64);
        }
        if let Some(oldest) = self.oldest(terms.replay.max_age) {
            limit.merge(&here!(history.ask(&Question::At(oldest), lately)).from);
        }
        let limited = limit != position;
        position = limit;
        if limited || trimmed {
            let reason = if limited { Reason::ReplayLimit } else { Reason::Trimmed };
            gaps.push(Gap { range: Some((wanted, position.clone())), ..Gap::of(reason) });
        }
        let begin = if position.covers_all(ring.floor_position()) {
            Begin::At { seq: ring.first_uncovered(&position), position }
        } else {
            Begin::Past(position)
        };
        Found::Here((gaps, begin))
    }

    /// The oldest that may be replayed. Rounded, so that clients who come at about the same time ask the same.
    fn oldest(&self, max_age: Duration) -> Option<SystemTime> {
        let step = (max_age / 100).as_secs().clamp(1, 60);
        let oldest = self.came_at.checked_sub(max_age)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(oldest.as_secs() / step * step))
    }
}

/// Where a reader at `wanted` goes on within what the log holds, and what it cannot be given.
fn within(view: &View<'_>, replay: &Replay, wanted: Position) -> (Option<Gap>, Begin) {
    let (ring, single) = (&view.ring, view.codec.single_order());
    let evicted = !wanted.covers_all(ring.floor_position());
    let first = if evicted { ring.floor() } else { ring.first_uncovered(&wanted) };
    let by_count = ring.head().saturating_sub(replay.max_events as Seq);
    let seq = first.max(by_count).max(ring.first_younger(replay.max_age, view.now));
    let reason = match (seq > first, evicted) {
        (true, _) => Reason::ReplayLimit,
        (false, true) => Reason::Evicted,
        (false, false) => return (None, Begin::At { seq, position: wanted }),
    };
    let mut position = wanted.clone();
    position.merge(&ring.position_before(seq));
    let noted = || ring.evicted_note_beyond(&wanted) || ring.note_within(first, seq);
    let missed = (single && !noted()).then(|| position.next(0) - wanted.next(0));
    let range = Some((wanted, position.clone()));
    (Some(Gap { missed, range, ..Gap::of(reason) }), Begin::At { seq, position })
}

/// Appends the control event that tells where the reader stands.
fn write_position(view: &View<'_>, position: &Position, out: &mut Vec<u8>) {
    let mut id = String::new();
    view.codec.encode(position, &mut id);
    sse::control_body(out, view.prefix, "position", "{}");
    sse::id_block(out, &id);
}

impl CatchingUp {
    /// Whether the log let go of what was to be read next. What this reader has anyway, it does not miss.
    fn lags(&mut self, ring: &Ring) -> bool {
        if self.next >= ring.floor() {
            return false;
        }
        if ring.restarted_since(self.next) || !self.at.covers_all(ring.floor_position()) {
            return true;
        }
        self.next = ring.floor();
        self.walked.merge(ring.floor_position());
        false
    }

    fn has_caught_up(&self) -> bool {
        self.walked.covers_all(&self.at)
    }

    fn read(&mut self, view: &mut View<'_>, max: usize) -> Read {
        let (mut pieces, mut events, mut size) = (Vec::new(), 0, 0);
        let mut id = String::new();
        for _ in 0..STEPS {
            if self.has_caught_up() {
                break;
            }
            let Some((chunk, at)) = view.ring.find(self.next) else {
                // What made no event has been walked as well.
                self.walked.merge(view.ring.position());
                if pieces.is_empty() && !self.has_caught_up() {
                    return Read::Pending;
                }
                break;
            };
            let mark = chunk.entries[at].mark;
            if !self.at.covers(mark) {
                let mut told = self.at.clone();
                chunk.step(&mut told, at);
                id.clear();
                view.codec.encode(&told, &mut id);
                let mut block = Vec::new();
                sse::id_block(&mut block, &id);
                let body = chunk.body(at);
                size += body.len() + block.len();
                if size > max && events > 0 {
                    break;
                }
                pieces.extend([body, block.into()]);
                events += 1;
                self.at = told;
            }
            chunk.step(&mut self.walked, at);
            self.next += 1;
            let passed = chunk.taken_before(at + 1);
            view.ring.passed(passed);
        }
        Read::Pieces { bytes: pieces, events }
    }
}

fn read_joined(next: &mut Seq, at: &mut Arc<Position>, ring: &mut Ring, max: usize) -> Read {
    let Some((chunk, from)) = ring.find(*next) else { return Read::Pending };
    let start = chunk.offset(from);
    let to = if chunk.bytes.len() - start <= max {
        chunk.entries.len()
    } else {
        let fitting = chunk.entries.partition_point(|entry| entry.body as usize <= start + max);
        (fitting - 1).max(from + 1)
    };
    *next += (to - from) as Seq;
    *at = chunk.position_before(to);
    let (bytes, passed) = (chunk.bytes.slice(start..chunk.offset(to)), chunk.taken_before(to));
    ring.passed(passed);
    Read::Slice { bytes, events: to - from }
}

/// How old an answer may be that says what the upstream still holds.
const LATELY: Duration = Duration::from_secs(5);

/// Entries that a reader who catches up walks at a time: as long as it does, nothing can be appended.
const STEPS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::super::id::{Epoch, EpochCodec};
    use super::super::log::Log;
    use super::super::testing::{ANY_AGE, ROOM, TERMS, Text, log};
    use super::*;

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
        let wish = Wish { id: Some(id.to_owned()), since: None };
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
    async fn what_was_let_go_within_the_limit_is_evicted() {
        let (log, id) = five_events(3).await;
        assert_eq!(resume(&log, &id, ANY_AGE), (Some(Reason::Evicted), Some(1), 3));
        let limit = Replay { max_events: 2, ..ANY_AGE };
        assert_eq!(resume(&log, &id, limit), (Some(Reason::ReplayLimit), Some(2), 2));
    }
}

//! A subscriber's place in a log: undecided until the log can say where its id stands, *catching up* while
//! its own position and the log's differ, and *joined*, a mere number, from then on.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::Seq;
use super::gap::{Gap, Reason};
use super::id::{Decoded, IdCodec};
use super::position::Position;
use super::ring::Ring;
use crate::config::Replay;
use crate::sse;

/// A reader's place.
#[derive(Debug)]
pub struct Cursor {
    state: State,
    replay: Replay,
}

#[derive(Debug)]
enum State {
    /// The log was not ready, or has to ask the upstream whether the id can be true.
    Undecided {
        id: Option<String>,
        asked: Option<u64>,
    },
    /// Stands before entry `next`, at a position that it was told, `at`: the log's own before that entry,
    /// or short of it by records that made no event.
    Joined {
        next: Seq,
        at: Arc<Position>,
    },
    CatchingUp(Box<CatchingUp>),
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
    /// To be written before what follows: a gap of this reader's own, if any, and its position.
    Control {
        /// The bytes.
        bytes: Bytes,
        /// Why events are missing.
        gap: Option<Reason>,
    },
    /// Events of the log as they stand, shared by every reader.
    Slice {
        /// The bytes.
        bytes: Bytes,
        /// How many events they hold.
        events: usize,
    },
    /// Events with the reader's own ids: shared bodies and id blocks in turn.
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
    pub codec: &'r dyn IdCodec,
    /// What the names of control events begin with.
    pub prefix: &'r str,
    /// The ends that the upstream told last, and how many times it was asked.
    pub ends: &'r mut Ends,
    /// The present.
    pub now: Instant,
}

/// The upstream's own ends, asked for when a client brings an id ahead of the log.
#[derive(Debug, Default)]
pub struct Ends {
    /// Counts the questions.
    pub asked: u64,
    /// The question answered last, and the answer.
    pub told: Option<(u64, Position)>,
}

impl Cursor {
    /// A cursor that begins after `id`, or at the head where there is none.
    pub fn new(id: Option<String>, replay: Replay) -> Self {
        Self { state: State::Undecided { id, asked: None }, replay }
    }

    /// Reads on, at most `max` bytes unless a single event is larger.
    pub fn read(&mut self, view: &mut View<'_>, max: usize) -> Read {
        match &mut self.state {
            State::Undecided { .. } => self.decide(view),
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

    /// Fixes where the cursor begins. Told by a position, and by a gap where the id cannot be honoured whole.
    fn decide(&mut self, view: &mut View<'_>) -> Read {
        let State::Undecided { id, asked } = &mut self.state else { return Read::Pending };
        let wanted = match id.as_deref().map(|id| view.codec.decode(id)) {
            None => return self.begin(view, None, Start::Live),
            Some(Decoded::Position(position)) => position,
            Some(Decoded::Idle) => return self.begin(view, Some(Gap::of(Reason::FeedIdle)), Start::Live),
            Some(Decoded::Unknown) => return self.begin(view, Some(Gap::of(Reason::UnknownId)), Start::Live),
        };
        if !view.ring.position().covers_all(&wanted) {
            match view.ends.beyond(view.ring, view.codec, &wanted, asked) {
                None => return Read::Pending,
                Some(true) => return self.begin(view, Some(Gap::of(Reason::UnknownId)), Start::Live),
                Some(false) => {}
            }
        }
        let (gap, start) = self.resume(view, wanted);
        self.begin(view, gap, start)
    }

    /// Where a reader at `wanted` goes on, and what it cannot be given.
    fn resume(&self, view: &View<'_>, wanted: Position) -> (Option<Gap>, Start) {
        let (ring, single) = (&view.ring, view.codec.single_order());
        let evicted = !wanted.covers_all(ring.floor_position());
        let first = if evicted { ring.floor() } else { ring.first_uncovered(&wanted) };
        let by_count = ring.head().saturating_sub(self.replay.max_events as Seq);
        let seq = first.max(by_count).max(ring.first_younger(self.replay.max_age, view.now));
        let reason = match (seq > first, evicted) {
            (true, _) => Reason::ReplayLimit,
            (false, true) => Reason::Evicted,
            (false, false) => return (None, Start::At { seq, position: wanted }),
        };
        let mut position = wanted.clone();
        position.merge(&ring.position_before(seq));
        let noted = || ring.evicted_note_beyond(&wanted) || ring.note_within(first, seq);
        let missed = (single && !noted()).then(|| position.next(0) - wanted.next(0));
        let range = Some((wanted, position.clone()));
        (Some(Gap { missed, range, ..Gap::of(reason) }), Start::At { seq, position })
    }

    /// The log went past this reader: tell it what it missed, and go on with the oldest left.
    fn lagged(&mut self, view: &mut View<'_>) -> Read {
        let floor = view.ring.floor();
        let next = match &self.state {
            State::Joined { next, .. } => *next,
            State::CatchingUp(catching) => catching.next,
            State::Undecided { .. } => return Read::Pending,
        };
        if view.ring.restarted_since(next) {
            let position = Position::clone(view.ring.floor_position());
            return self.begin(view, Some(Gap::of(Reason::Recreated)), Start::At { seq: floor, position });
        }
        let (from, missed) = match &self.state {
            State::Joined { next, at } => {
                let known = !view.ring.evicted_note_since(*next);
                (Position::clone(at), known.then(|| floor - next))
            }
            State::CatchingUp(catching) => (catching.at.clone(), None),
            State::Undecided { .. } => return Read::Pending,
        };
        let mut position = from.clone();
        position.merge(view.ring.floor_position());
        let range = Some((from, position.clone()));
        let gap = Gap { missed, range, ..Gap::of(Reason::Lagged) };
        self.begin(view, Some(gap), Start::At { seq: floor, position })
    }

    fn begin(&mut self, view: &mut View<'_>, gap: Option<Gap>, start: Start) -> Read {
        let (seq, position) = match start {
            Start::Live => (view.ring.head(), Arc::clone(view.ring.position())),
            Start::At { seq, position } => (seq, Arc::new(position)),
        };
        let mut bytes = Vec::new();
        if let Some(gap) = &gap {
            gap.encode(view.prefix, view.codec, &mut bytes);
            bytes.push(b'\n');
        }
        write_position(view, &position, &mut bytes);
        if seq == view.ring.head() {
            view.ring.passed_all();
        }
        let walked = view.ring.position_before(seq);
        self.state = if walked.covers_all(&position) {
            State::Joined { next: seq, at: position }
        } else {
            let (walked, at) = (Arc::unwrap_or_clone(walked), Arc::unwrap_or_clone(position));
            State::CatchingUp(Box::new(CatchingUp { next: seq, walked, at }))
        };
        Read::Control { bytes: bytes.into(), gap: gap.map(|gap| gap.reason) }
    }
}

/// Appends the control event that tells where the reader stands.
fn write_position(view: &View<'_>, position: &Position, out: &mut Vec<u8>) {
    let mut id = String::new();
    view.codec.encode(position, &mut id);
    sse::control_body(out, view.prefix, "position", "{}");
    sse::id_block(out, &id);
}

/// Where a cursor begins once it is decided.
enum Start {
    Live,
    At { seq: Seq, position: Position },
}

impl Ends {
    /// Whether `wanted` lies beyond the upstream's end. `None` until that is known; asks, if need be.
    fn beyond(
        &mut self,
        ring: &Ring,
        codec: &dyn IdCodec,
        wanted: &Position,
        asked: &mut Option<u64>,
    ) -> Option<bool> {
        if !codec.portable() {
            return Some(true);
        }
        let question = *asked.get_or_insert_with(|| {
            self.asked += 1;
            self.asked
        });
        let (_, ends) = self.told.as_ref().filter(|(answered, _)| *answered >= question)?;
        let mut known = ends.clone();
        known.merge(ring.position());
        Some(!known.covers_all(wanted))
    }
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

/// Entries that a reader who catches up walks at a time: as long as it does, nothing can be appended.
const STEPS: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::id::{Epoch, EpochCodec};
    use super::super::log::Log;
    use super::super::testing::{ANY_AGE, ROOM, Text, log};
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
        let mut cursor = Cursor::new(Some(id.to_owned()), replay);
        let Read::Control { bytes, gap } = log.read(&mut cursor, 1_000) else { panic!("its start is told") };
        let text = str::from_utf8(&bytes).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let missed = serde_json::from_str::<serde_json::Value>(data).unwrap()["missed"].as_u64();
        let mut given = 0;
        while let Read::Slice { events, .. } = log.read(&mut cursor, 1_000) {
            given += events;
        }
        (gap, missed, given)
    }

    #[tokio::test(start_paused = true)]
    async fn replay_limits_how_far_an_id_goes_back() {
        let (log, id) = five_events(5).await;
        let limit = |max_events, secs| Replay { max_events, max_age: Duration::from_secs(secs) };
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

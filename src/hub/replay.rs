//! A reader that stands before what its log holds: it walks segments of the upstream's history, partition by
//! partition, until the log takes over. Its ids are its own. Nothing here looks at the log but through its floor,
//! so that reading history never holds up appends.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::Seq;
use super::cursor::{Read, View};
use super::gap::{Gap, Reason};
use super::history::{Found, History, Sought};
use super::id::IdCodec;
use super::key::{self, Lens};
use super::note;
use super::position::{Mark, Position};
use super::sieve::Sieve;
use crate::config::Replay;
use crate::sse;

/// A reader that walks history.
#[derive(Debug)]
pub struct Replaying {
    at: Position,
    began: Instant,
    /// The log's head at that time.
    head: Seq,
    /// How many events it may still be given, or have withheld from it, where offsets do not tell that.
    left: Option<u64>,
    /// How many bytes of them.
    room: usize,
    /// For each partition when the newest event was published that it was given, in milliseconds since the epoch.
    times: Vec<u64>,
    /// Whether it has gone past what it was not given since it was told a place,
    is_past: bool,
    /// and where it stood then.
    untold: Option<String>,
}

/// What the log tells a reader of history.
pub struct Floor {
    /// Where what the log holds begins.
    pub position: Arc<Position>,
    /// The log's codec.
    pub codec: Arc<dyn IdCodec>,
    /// What lies before.
    pub history: Arc<dyn History>,
    /// Whether who misses something is given a snapshot.
    pub has_table: bool,
}

impl Replaying {
    /// A reader at a position that it was told.
    pub fn new(at: Position, replay: &Replay, view: &View<'_>) -> Self {
        let counts = view.history.is_none_or(|history| history.counts());
        let left = (!counts).then_some(replay.max_events as u64);
        let (head, times) = (view.ring.head(), Vec::new());
        Self { at, began: view.now, head, left, room: replay.max_bytes, times, is_past: false, untold: None }
    }

    /// Stands elsewhere from now on.
    pub fn put(&mut self, at: Position) {
        (self.at, self.is_past, self.untold) = (at, false, None);
    }

    /// The id of where it stands, if that is news: it goes on there if it comes back, however long nothing makes an event.
    pub fn take_untold(&mut self) -> Option<String> {
        self.untold.take()
    }

    /// Where it stands.
    pub fn position(&self) -> &Position {
        &self.at
    }

    /// The log's head when it began.
    pub fn began_at(&self) -> Seq {
        self.head
    }

    /// Whether it has been given too much or for too long, and is to go on with what the log holds. Time in which
    /// the upstream does not answer is not the reader's.
    pub fn is_over(&self, history: &dyn History, replay: &Replay, now: Instant) -> bool {
        let late = |since: Instant| now.duration_since(since.max(self.began)) > replay.timeout;
        self.left == Some(0) || self.room == 0 || history.answers_since().is_some_and(late)
    }

    /// Reads on, at most `max` bytes unless a single event is larger. Gives empty pieces when it is for the log to
    /// say how to go on, or much was withheld.
    pub fn read(
        &mut self,
        floor: &Floor,
        lens: Option<&Lens>,
        sieve: Option<&mut Sieve>,
        prefix: &str,
        max: usize,
    ) -> Read {
        let read = self.walk(floor, lens, sieve, prefix, max);
        if let Read::Pieces { bytes, .. } = &read {
            self.room = self.room.saturating_sub(bytes.iter().map(Bytes::len).sum());
        }
        if std::mem::take(&mut self.is_past) {
            // Written now: the codec is of the source that this was read of.
            self.untold = Some(Ids { codec: &*floor.codec, lens }.of(&self.at));
        }
        read
    }

    fn walk(
        &mut self,
        floor: &Floor,
        lens: Option<&Lens>,
        mut sieve: Option<&mut Sieve>,
        prefix: &str,
        max: usize,
    ) -> Read {
        let ids = Ids { codec: &*floor.codec, lens };
        let key = lens.map(|lens| lens.hash);
        let mut walk = Walk { ids: &ids, bytes: Vec::new(), events: 0, size: 0, max, id: String::new() };
        for _ in 0..SEGMENTS {
            let Some(partition) = self.turn(&floor.position) else { break };
            let (from, until) = (self.at.at(partition), floor.position.at(partition));
            match floor.history.segment(partition, from, until) {
                Found::Here(Sought::Segment(segment)) => {
                    if segment.to < until {
                        // Asked for early: it is there, with luck, when this one is through.
                        drop(floor.history.segment(partition, segment.to, until));
                    }
                    for (place, entry) in segment.after(from, key) {
                        let mark = Mark { partition, next: entry.next };
                        let withholds =
                            |sieve: &mut Sieve| !sieve.passes(segment.facts(place), entry.length());
                        let is_over = self.left == Some(0);
                        let withheld = !is_over && sieve.as_deref_mut().is_some_and(withholds);
                        if withheld {
                            self.at.advance(mark);
                            self.room = self.room.saturating_sub(entry.length());
                        } else if is_over || !walk.take(&mut self.at, mark, segment.body(entry)) {
                            return walk.done();
                        }
                        self.left = self.left.map(|left| left - 1);
                        self.note_time(partition, entry.time);
                        self.is_past = withheld;
                        if !withheld {
                            self.untold = None;
                        }
                        if let Some(sieve) = sieve.as_deref_mut() {
                            // That is told as what makes no event is.
                            sieve.untold = false;
                            if sieve.is_tired() {
                                return walk.done();
                            }
                        }
                    }
                    let end = Mark { partition, next: segment.to };
                    if !self.at.covers(end) {
                        self.at.advance(end);
                        self.is_past = true;
                    }
                }
                Found::Here(Sought::Trimmed(low)) if walk.events == 0 => {
                    return self.misses(Reason::Trimmed, Mark { partition, next: low }, &ids, prefix);
                }
                Found::Here(Sought::Leads { to, gap: None }) => self.at.put(Mark { partition, next: to }),
                Found::Here(Sought::Leads { to, gap: Some(reason) }) if walk.events == 0 => {
                    return self.misses(reason, Mark { partition, next: to }, &ids, prefix);
                }
                Found::Wait(wake) if walk.events == 0 => {
                    // The others are read meanwhile.
                    for other in self.at.behind(&floor.position).filter(|&p| p != partition).take(AHEAD) {
                        drop(floor.history.segment(other, self.at.at(other), floor.position.at(other)));
                    }
                    return Read::Wait(wake);
                }
                Found::Here(Sought::Trimmed(_) | Sought::Leads { .. }) | Found::Wait(_) => break,
            }
        }
        walk.done()
    }

    /// The partition to read on: of those that are behind, the one whose events are the oldest.
    fn turn(&self, floor: &Position) -> Option<u32> {
        self.at
            .behind(floor)
            .min_by_key(|&partition| self.times.get(partition as usize).copied().unwrap_or(0))
    }

    fn note_time(&mut self, partition: u32, time: u64) {
        let at = partition as usize;
        if self.times.len() <= at {
            self.times.resize(at + 1, 0);
        }
        self.times[at] = self.times[at].max(time);
    }

    /// The upstream cannot give what was to be read next.
    fn misses(&mut self, reason: Reason, to: Mark, ids: &Ids<'_>, prefix: &str) -> Read {
        let mut bytes = Vec::new();
        Gap::up_to(reason, &self.at, to, None).encode(prefix, ids.codec, &mut bytes);
        bytes.push(b'\n');
        self.at.advance(to);
        (self.is_past, self.untold) = (false, None);
        note::write_position(&ids.of(&self.at), prefix, &mut bytes);
        Read::Control { bytes: bytes.into(), gaps: vec![reason] }
    }
}

/// How a reader's positions are written.
struct Ids<'r> {
    codec: &'r dyn IdCodec,
    lens: Option<&'r Lens>,
}

impl Ids<'_> {
    fn of(&self, position: &Position) -> String {
        let mut id = String::new();
        self.encode(position, &mut id);
        id
    }

    fn encode(&self, position: &Position, out: &mut String) {
        key::encode_id(self.codec, self.lens, position, out);
    }
}

/// One read while it is made.
struct Walk<'r> {
    ids: &'r Ids<'r>,
    bytes: Vec<Bytes>,
    events: usize,
    size: usize,
    max: usize,
    id: String,
}

impl Walk<'_> {
    /// Takes in an event, unless it is one too many. Moves `at` past it if so.
    fn take(&mut self, at: &mut Position, mark: Mark, body: Bytes) -> bool {
        let before = Mark { partition: mark.partition, next: at.at(mark.partition) };
        at.advance(mark);
        self.id.clear();
        self.ids.encode(at, &mut self.id);
        let mut block = Vec::with_capacity(self.id.len() + 8);
        sse::id_block(&mut block, &self.id);
        let size = self.size + body.len() + block.len();
        if size > self.max && self.events > 0 {
            at.put(before);
            return false;
        }
        self.size = size;
        self.events += 1;
        self.bytes.extend([body, block.into()]);
        true
    }

    fn done(self) -> Read {
        Read::Pieces { bytes: self.bytes, events: self.events, times: None }
    }
}

/// The most segments that one read goes through, since most of a compacted topic may be holes.
const SEGMENTS: usize = 16;

/// How many other partitions are asked for while one is waited for.
const AHEAD: usize = 3;

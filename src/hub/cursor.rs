//! A subscriber's place in a log: undecided until the log can say where its id stands, *replaying* while it reads
//! what only the upstream still holds, *catching up* while its own position and the log's differ, and *joined*, a
//! mere number, from then on. How it comes from one of these to the next is in `onward`.

mod onward;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::catching::CatchingUp;
use super::chunk::{Seq, Times};
use super::decide::{Begin, Undecided, floor};
use super::gap::{Gap, Reason};
use super::history::{Found, History};
use super::id::IdCodec;
use super::joined::Joined;
use super::key::{self, KeyHash, Lens};
use super::note;
use super::position::Position;
use super::replay::{Floor, Replaying};
use super::ring::Ring;
use super::run::Forms;
use super::sieve::{Sieve, Sift, Withheld};
use super::table::Table;
use super::viewing::Viewing;
use super::walk::{self, Walk};
use crate::config::{EventRate, OnLag, Replay, Start};
use crate::shape::ClientFilter;

/// A reader's place.
#[derive(Debug)]
pub struct Cursor {
    state: State,
    terms: Arc<Terms>,
    /// What it sees of a keyed log.
    lens: Option<Box<Lens>>,
    /// What it is not given of what it sees.
    sieve: Option<Box<Sieve>>,
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
    /// How many events one that has joined the log is given at a time.
    pub rate: Option<EventRate>,
    /// Whether one begins with a snapshot, where the log has the newest of each key.
    pub snapshots: bool,
}

/// What a subscriber brings.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The id to go on after.
    pub id: Option<String>,
    /// Where there is no id: how old events may be at most. Means nothing where the upstream keeps no history.
    pub since: Option<SystemTime>,
    /// What its client's filter is, where the feed's shape has one that names what clients bring.
    pub filter: Option<Arc<ClientFilter>>,
}

#[derive(Debug)]
enum State {
    /// The log was not ready, or has to ask the upstream.
    Undecided(Box<Undecided>),
    /// Stands before what the log holds.
    Replaying(Box<Replaying>),
    CatchingUp(Box<CatchingUp>),
    Joined(Joined),
    /// The same, of one key.
    Viewing(Viewing),
    /// Is given a snapshot.
    Walking(Box<Walk>),
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
        /// When they came about, where they are read as they come.
        times: Option<Times>,
        /// What to send in their place, if they are for many.
        forms: Option<Arc<Forms>>,
    },
    /// Events with the reader's own ids: shared bodies and id blocks in turn; or those of some shared bytes that pass its
    /// filter. May be empty, where it went past what the reader has, or is not to have: the others have their turn before
    /// it reads on.
    Pieces {
        /// The bytes, in order.
        bytes: Vec<Bytes>,
        /// How many events they hold.
        events: usize,
        /// When they came about, where they are read as they come and are no history.
        times: Option<Times>,
    },
    /// Nothing of so many events, which are beyond the reader's rate.
    LeftOut(u64),
}

/// What the log knows beside its ring while a cursor reads.
pub struct View<'r> {
    /// The chunks.
    pub ring: &'r mut Ring,
    /// Up to where readers have been woken.
    pub reached: Seq,
    /// The log's codec.
    pub codec: &'r Arc<dyn IdCodec>,
    /// What the names of control events begin with.
    pub prefix: &'r str,
    /// What the upstream keeps beyond the ring, if it does.
    pub history: Option<&'r Arc<dyn History>>,
    /// The newest of each key, if readers begin with that.
    pub table: Option<&'r Arc<Table>>,
    /// The present.
    pub now: Instant,
    /// When the log was opened.
    pub opened: Instant,
}

/// What a look at the log comes to.
pub enum Step {
    /// This is what the reader is given.
    Read(Read),
    /// The reader stands before what the log holds: [`Cursor::replay`] reads on, without a look at the log.
    Replay(Floor),
    /// What of this passes the reader's filter: [`Cursor::sift`] tells, without a look at the log.
    Sift(Sift),
}

impl From<Read> for Step {
    fn from(read: Read) -> Self {
        Self::Read(read)
    }
}

impl Cursor {
    /// A cursor that begins where `wish` and `terms` say.
    pub fn new(wish: Wish, terms: impl Into<Arc<Terms>>) -> Self {
        Self::of_key(None, wish, terms.into())
    }

    /// The same, of a keyed log: sees the records of this key.
    pub fn of_key(key: Option<Arc<[u8]>>, mut wish: Wish, terms: Arc<Terms>) -> Self {
        let lens = key.map(|key| Box::new(Lens::new(key)));
        let sieve = Sieve::new(wish.filter.take(), terms.rate);
        Self { state: State::Undecided(Box::new(Undecided::new(wish))), terms, lens, sieve }
    }

    /// Reads on, at most `max` bytes unless a single event is larger.
    pub fn read(&mut self, view: &mut View<'_>, max: usize) -> Step {
        view.table = view.table.filter(|_| self.terms.snapshots);
        self.sieve.iter_mut().for_each(|sieve| sieve.begins());
        // The state is behind it already.
        if let Some(rest) = self.sieve.as_mut().and_then(|sieve| sieve.take_rest()) {
            return Step::Sift(rest);
        }
        self.widen(view);
        if let State::Replaying(replaying) = &self.state
            && let Some(history) = view.history
            && !view.ring.restarted_since(replaying.began_at())
            && !replaying.position().covers_all(&floor(view, self.lens.as_deref()))
            && !replaying.is_over(&**history, &self.terms.replay, view.now)
        {
            let (position, codec) = (floor(view, self.lens.as_deref()), Arc::clone(view.codec));
            let (history, has_table) = (Arc::clone(history), view.table.is_some());
            return Step::Replay(Floor { position, codec, history, has_table });
        }
        self.read_log(view, max)
    }

    /// Reads on before what the log holds; see `Step::Replay`.
    pub fn replay(&mut self, floor: &Floor, prefix: &str, max: usize) -> Read {
        let State::Replaying(replaying) = &mut self.state else { return Read::Pending };
        let read = replaying.read(floor, self.lens.as_deref(), self.sieve.as_deref_mut(), prefix, max);
        if let Read::Control { .. } = read {
            self.tells();
        }
        if floor.has_table && matches!(read, Read::Control { .. }) {
            // What it is to be told of is a gap, in the place of which it is given a snapshot.
            self.state = State::Undecided(Box::new(Undecided::new(Wish::default())));
            return Read::Pieces { bytes: Vec::new(), events: 0, times: None };
        }
        read
    }

    /// What of these bytes, which a look at the log has come to, the reader is given; see `Step::Sift`. Nothing where that is
    /// for the log to say.
    pub fn sift(&mut self, sift: &Sift) -> Option<Read> {
        self.sieve.as_mut()?.sift(sift)
    }

    /// Whether its filter was so much work in the last read that others are to have their turn before it reads on.
    pub fn is_tired(&self) -> bool {
        self.sieve.as_ref().is_some_and(|sieve| sieve.is_tired())
    }

    /// What its filter has withheld since this was asked last.
    pub fn take_withheld(&mut self) -> Option<Withheld> {
        self.sieve.as_mut()?.take_withheld()
    }

    /// The reader is told where it stands.
    fn tells(&mut self) {
        self.sieve.iter_mut().for_each(|sieve| sieve.untold = false);
    }

    fn filters(&self) -> bool {
        self.sieve.as_ref().is_some_and(|sieve| sieve.filters())
    }

    fn read_log(&mut self, view: &mut View<'_>, max: usize) -> Step {
        let filters = self.filters();
        let read = match &mut self.state {
            State::Undecided(undecided) => {
                match undecided.decide(&self.terms, view, self.lens.as_deref_mut(), filters) {
                    Found::Here((gaps, begin)) => self.begin(view, &gaps, begin),
                    Found::Wait(wake) => Read::Wait(wake),
                }
            }
            State::Joined(joined) if joined.next() < view.ring.floor() => return self.lagged(view),
            State::Joined(joined) => return joined.read(view, self.sieve.as_deref_mut(), max),
            State::CatchingUp(catching) => {
                if catching.lags(view.ring) {
                    return self.lagged(view);
                }
                let read = catching.read(view, self.lens.as_deref(), self.sieve.as_deref_mut(), max);
                if catching.has_caught_up() {
                    let (next, at) = (catching.next(), catching.position().clone());
                    self.join(view, next, at);
                }
                read
            }
            State::Viewing(viewing) => {
                if view.ring.restarted_since(viewing.next()) {
                    return self.restarted(view);
                }
                let sieve = self.sieve.as_deref_mut();
                match self.lens.as_deref().and_then(|lens| viewing.read(lens, view, sieve, max)) {
                    Some(read) => read,
                    None => return self.lagged(view),
                }
            }
            State::Walking(walk) => {
                if view.ring.restarted_since(walk.began_at()) {
                    return self.restarted(view);
                }
                let Some(table) = view.table else { return Read::Pending.into() };
                match walk.read(table, &floor(view, self.lens.as_deref()), self.sieve.as_deref_mut()) {
                    walk::Step::Page(read) => read,
                    walk::Step::Sift(sift) => return Step::Sift(sift),
                    walk::Step::End(ends) => self.walked(view, &ends),
                    walk::Step::Late(ends) => self.outrun(view, &ends),
                }
            }
            State::Replaying(replaying) => {
                if view.ring.restarted_since(replaying.began_at()) {
                    return self.restarted(view);
                }
                let (from, floor) = (replaying.position().clone(), floor(view, self.lens.as_deref()));
                if from.covers_all(&floor) {
                    let untold = replaying.take_untold();
                    // What a key's home does not say is looked at once more.
                    let homed = self.lens.as_ref().is_some_and(|lens| lens.home.is_some());
                    let seq = if homed { view.ring.floor() } else { view.ring.first_uncovered(&from) };
                    self.join(view, seq, from);
                    // From here on only what moves the log on is told: this would never be.
                    return match untold {
                        Some(id) => Read::Control { bytes: told(&id, view.prefix), gaps: Vec::new() }.into(),
                        None => self.read_log(view, max),
                    };
                }
                let mut position = from.clone();
                position.merge(&floor);
                let gap = Gap { range: Some((from, position.clone())), ..Gap::of(Reason::ReplayLimit) };
                self.begin(view, &[gap], Begin::At { seq: view.ring.floor(), position })
            }
        };
        read.into()
    }

    /// Whether it stands before what the log holds.
    pub fn replays(&self) -> bool {
        matches!(self.state, State::Replaying(_))
    }

    /// The number of the entry before which it stands. None while that is undecided or before what the log holds, and
    /// for one that sees a single key, of whose entries that would tell nothing.
    pub fn stands(&self) -> Option<Seq> {
        match &self.state {
            State::Joined(joined) => Some(joined.next()),
            State::CatchingUp(catching) if self.lens.is_none() => Some(catching.next()),
            _ => None,
        }
    }

    /// Whether it is to be sent away once it has been told that it lagged.
    pub fn leaves(&self) -> bool {
        self.terms.on_lag == OnLag::Disconnect
    }

    /// The key whose readers are woken for it.
    pub fn watched(&self) -> Option<KeyHash> {
        self.lens.as_ref().filter(|lens| lens.wake.is_some()).map(|lens| lens.hash)
    }

    /// The control event that tells the log's position, where records that made no event have moved it on, and
    /// this reader has read all there is; or its own, where it went past events that it was not given.
    pub fn moved_on(&mut self, view: &View<'_>) -> Option<Bytes> {
        if self.sieve.as_ref().is_some_and(|sieve| sieve.has_rest()) {
            return None;
        }
        if let State::Replaying(replaying) = &mut self.state {
            // Where the source was created anew, the place is one of the source before.
            let untold = replaying.take_untold().filter(|_| !view.ring.restarted_since(replaying.began_at()));
            return untold.map(|id| told(&id, view.prefix));
        }
        let untold = self.sieve.as_ref().is_some_and(|sieve| sieve.untold);
        if let (State::Viewing(viewing), Some(lens)) = (&mut self.state, &self.lens) {
            let bytes = viewing.moved_on(lens, view, untold)?;
            self.tells();
            return Some(bytes);
        }
        let mut bytes = Vec::new();
        match &mut self.state {
            State::Joined(joined) => write_position(view, None, joined.moved_on(view, untold)?, &mut bytes),
            // The same.
            State::CatchingUp(catching) if untold && !view.ring.restarted_since(catching.next()) => {
                write_position(view, self.lens.as_deref(), catching.position(), &mut bytes);
            }
            _ => return None,
        }
        self.tells();
        Some(bytes.into())
    }
}

/// The control event that tells a position by its id.
fn told(id: &str, prefix: &str) -> Bytes {
    let mut bytes = Vec::new();
    note::write_position(id, prefix, &mut bytes);
    bytes.into()
}

/// Appends the control event that tells where the reader stands.
fn write_position(view: &View<'_>, lens: Option<&Lens>, position: &Position, out: &mut Vec<u8>) {
    let mut id = String::new();
    key::encode_id(&**view.codec, lens, position, &mut id);
    note::write_position(&id, view.prefix, out);
}

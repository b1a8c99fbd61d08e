//! How a cursor comes from one state to the next: where it begins, and where it goes on when the log has gone past it, the
//! source was created anew, or a snapshot has been given. What it misses by that is told.

use std::sync::Arc;

use super::{Cursor, Read, State, Step, View, Wish, write_position};
use crate::config::OnLag;
use crate::hub::catching::CatchingUp;
use crate::hub::chunk::Seq;
use crate::hub::decide::{self, Begin, Undecided, floor, project};
use crate::hub::gap::{Gap, Reason};
use crate::hub::history::Found;
use crate::hub::joined::Joined;
use crate::hub::key;
use crate::hub::position::Position;
use crate::hub::replay::Replaying;
use crate::hub::viewing::Viewing;
use crate::hub::walk::{self, Walk};

impl Cursor {
    /// The log went past this reader: tell it what it missed, and go on with the oldest left; or read that from
    /// the upstream.
    pub(super) fn lagged(&mut self, view: &mut View<'_>) -> Step {
        let floor = view.ring.floor();
        let (next, from, in_order) = match &self.state {
            State::Joined(joined) => (joined.next(), joined.position().clone(), true),
            State::CatchingUp(catching) => (catching.next(), catching.position().clone(), false),
            State::Viewing(viewing) => {
                let (from, mut wide) = (viewing.position(), None);
                if let Some(lens) = &mut self.lens {
                    lens.home = viewing.home();
                    wide = lens.widen(&**view.codec, &from, view.ring.position());
                }
                (viewing.next(), wide.unwrap_or(from), false)
            }
            State::Undecided(_) | State::Replaying(_) | State::Walking(_) => return Read::Pending.into(),
        };
        if view.ring.restarted_since(next) {
            return self.restarted(view);
        }
        if self.terms.on_lag == OnLag::Replay && view.history.is_some() {
            self.state = State::Replaying(Box::new(Replaying::new(from, &self.terms.replay, view)));
            return Read::Pieces { bytes: Vec::new(), events: 0, times: None }.into();
        }
        let known = in_order && !self.filters() && !view.ring.evicted_note_since(next);
        let missed = known.then(|| floor - next);
        let mut position = from.clone();
        position.merge(&decide::floor(view, self.lens.as_deref()));
        let range = Some((from, position.clone()));
        let gap = Gap { missed, range, ..Gap::of(Reason::Lagged) };
        self.begin(view, &[gap], Begin::At { seq: floor, position }).into()
    }

    /// The source was created anew while this reader read.
    pub(super) fn restarted(&mut self, view: &mut View<'_>) -> Step {
        if let State::CatchingUp(catching) = &self.state
            && !view.codec.tells_incarnations()
        {
            // It came from a replica that was further on, and may have read the new source there.
            let mut id = String::new();
            view.codec.encode(catching.position(), &mut id);
            let wish = Wish { id: Some(id), ..Wish::default() };
            self.state = State::Undecided(Box::new(Undecided::new(wish)));
            return self.read_log(view, 0);
        }
        if let Some(lens) = &mut self.lens {
            lens.home = view.codec.home(lens.key());
        }
        let position = Position::clone(view.ring.floor_position());
        let begin = Begin::At { seq: view.ring.floor(), position };
        self.begin(view, &[Gap::of(Reason::Recreated)], begin).into()
    }

    /// Fixes the place, and tells it. Who would begin at the head, or miss something, is given a snapshot where there is a
    /// table; who is to be sent away for it is not.
    pub(super) fn begin(&mut self, view: &mut View<'_>, gaps: &[Gap], begin: Begin) -> Read {
        let leaves =
            self.terms.on_lag == OnLag::Disconnect && gaps.iter().any(|gap| gap.reason == Reason::Lagged);
        if view.table.is_some() && !leaves && (!gaps.is_empty() || matches!(begin, Begin::Live)) {
            return self.snapshot(view);
        }
        let mut bytes = Vec::new();
        for gap in gaps {
            gap.encode(view.prefix, &**view.codec, &mut bytes);
            bytes.push(b'\n');
        }
        match begin {
            Begin::Live => {
                let position = project(view.ring.position(), self.lens.as_deref());
                write_position(view, self.lens.as_deref(), &position, &mut bytes);
                self.join(view, view.ring.head(), Arc::unwrap_or_clone(position));
            }
            Begin::At { seq, position } => {
                write_position(view, self.lens.as_deref(), &position, &mut bytes);
                self.join(view, seq, position);
            }
            Begin::Past(position) => {
                write_position(view, self.lens.as_deref(), &position, &mut bytes);
                self.state = State::Replaying(Box::new(Replaying::new(position, &self.terms.replay, view)));
            }
        }
        self.tells();
        Read::Control { bytes: bytes.into(), gaps: gaps.iter().map(|gap| gap.reason).collect() }
    }

    /// Begins with a snapshot, as soon as there is one.
    fn snapshot(&mut self, view: &mut View<'_>) -> Read {
        let found = view.table.map(|table| Walk::new(table, view, self.lens.as_deref()));
        let (state, read) = match found {
            Some(Found::Here(walk)) => {
                let told = Read::Control { bytes: Walk::begin(view.prefix), gaps: Vec::new() };
                (State::Walking(Box::new(walk)), told)
            }
            Some(Found::Wait(wake)) => {
                (State::Undecided(Box::new(Undecided::new(Wish::default()))), Read::Wait(wake))
            }
            None => return Read::Pending,
        };
        self.state = state;
        read
    }

    /// The snapshot has been given: goes on where it ends.
    pub(super) fn walked(&mut self, view: &mut View<'_>, ends: &walk::Ends) -> Read {
        let mut bytes = Vec::new();
        let (gaps, lens) = (ends.tell(view, &mut bytes), self.lens.as_deref());
        let position = project(&ends.as_of, lens);
        if position.covers_all(&floor(view, lens)) {
            write_position(view, lens, &position, &mut bytes);
            let seq = decide::first_uncovered(view, lens, &position);
            self.join(view, seq, Arc::unwrap_or_clone(position));
        } else {
            // As one that comes back from there.
            let mut id = String::new();
            key::encode_id(&**view.codec, lens, &position, &mut id);
            let wish = Wish { id: Some(id), ..Wish::default() };
            self.state = State::Undecided(Box::new(Undecided::new(wish)));
        }
        self.tells();
        Read::Control { bytes: bytes.into(), gaps }
    }

    /// More changes than this reader can be given. What its snapshot lacks has come since: it goes on with that, or, where
    /// the log has gone past it and nobody keeps more, it is told what it misses.
    pub(super) fn outrun(&mut self, view: &mut View<'_>, ends: &walk::Ends) -> Read {
        let mut bytes = Vec::new();
        let (mut gaps, mut position) = (ends.tell(view, &mut bytes), Position::clone(&ends.as_of));
        self.tells();
        if !position.covers_all(view.ring.floor_position()) {
            if self.terms.on_lag == OnLag::Replay && view.history.is_some() {
                write_position(view, None, &position, &mut bytes);
                self.state = State::Replaying(Box::new(Replaying::new(position, &self.terms.replay, view)));
                return Read::Control { bytes: bytes.into(), gaps };
            }
            let from = position.clone();
            position.merge(view.ring.floor_position());
            let gap = Gap { range: Some((from, position.clone())), ..Gap::of(Reason::Lagged) };
            gap.encode(view.prefix, &**view.codec, &mut bytes);
            bytes.push(b'\n');
            gaps.push(Reason::Lagged);
        }
        write_position(view, None, &position, &mut bytes);
        let seq = decide::first_uncovered(view, None, &position);
        self.join(view, seq, position);
        Read::Control { bytes: bytes.into(), gaps }
    }

    /// A key that has lost its home while its reader read history: the reader stands in all partitions from then on.
    pub(super) fn widen(&mut self, view: &View<'_>) {
        if let (State::Replaying(replaying), Some(lens)) = (&mut self.state, &mut self.lens)
            && let Some(position) = lens.widen(&**view.codec, replaying.position(), view.ring.position())
        {
            replaying.put(position);
        }
    }

    /// Goes on with entry `seq` of the log, at a position that the reader was told.
    pub(super) fn join(&mut self, view: &mut View<'_>, seq: Seq, position: Position) {
        if seq == view.ring.head() {
            view.ring.passed_all();
        }
        if let Some(lens) = &mut self.lens {
            lens.watch(view.ring);
            if lens.home.is_some() {
                self.state = State::Viewing(Viewing::new(seq, position, lens));
                return;
            }
        }
        let walked = view.ring.position_before(seq);
        self.state = match &mut self.lens {
            _ if !walked.covers_all(&position) => {
                let walked = Arc::unwrap_or_clone(walked);
                State::CatchingUp(Box::new(CatchingUp::new(seq, walked, position)))
            }
            // One that stands in all partitions does so for good: what it was given elsewhere than at its key's home
            // could not be told in an id of that alone.
            Some(lens) => State::Viewing(Viewing::new(seq, position, lens)),
            // Where nothing tells the two apart, all share the log's.
            None if *walked == position => State::Joined(Joined::new(seq, walked)),
            None => State::Joined(Joined::new(seq, position.into())),
        };
    }
}

//! A reader that is given a snapshot: it walks a generation of the log's table, page by page at its own pace, and goes on in
//! the log from the position at which that was taken.
//!
//! Where the log has let go of what follows by then, or the generation had to make room for others, the reader goes on with
//! what changes in the table, until it has got to its end. So none begins anew however slow it is; and none walks for ever:
//! it does so in rounds, each of which has what changed during the one before. They become shorter, or it does not catch up,
//! and goes on in the log without. Of a reader with a filter rounds have what has changed, whatever passes of that.

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::Seq;
use super::cursor::{Read, View};
use super::gap::{Gap, Reason};
use super::generation::Page;
use super::history::Found;
use super::key::Lens;
use super::order::Sent;
use super::position::Position;
use super::run::Forms;
use super::sieve::{Contents, Sieve, Sift};
use super::table::{Changes, Entered, Table, Walked};
use crate::sse;

/// A reader that walks.
#[derive(Debug)]
pub struct Walk {
    through: Through,
    /// The log's head when it began.
    head: Seq,
}

#[derive(Debug)]
enum Through {
    /// All keys.
    All(Course),
    /// One key.
    Key(Option<Sent>, Ends),
}

/// How far one has got that walks all keys.
#[derive(Debug)]
struct Course {
    began: Entered,
    /// It has been given what is before this number.
    at: u64,
    stage: Stage,
    /// The round of changes that it is in.
    round: Option<Round>,
}

#[derive(Debug)]
enum Stage {
    /// It walks the generation with which it began; this is the next page.
    Generation(usize),
    /// It is given what changes.
    Changes,
    /// It has been given all up to there.
    Over(Ends),
    /// It does not catch up with what changes.
    Late(Ends),
}

/// What had changed when it began, since the one before did.
#[derive(Debug)]
struct Round {
    /// Where the table ended when it began, and where the log stood.
    end: u64,
    as_of: Arc<Position>,
    /// Bytes given in it, and in the one before.
    given: usize,
    before: usize,
}

/// Where a walk ends.
#[derive(Debug, Clone)]
pub struct Ends {
    /// All that came later is for the log to give.
    pub as_of: Arc<Position>,
    /// Whether something is missing for want of room.
    pub lacks: bool,
}

/// What a walk comes to.
pub enum Step {
    /// The reader is given this.
    Page(Read),
    /// Or what of this passes its filter.
    Sift(Sift),
    /// It has been given all that there is.
    End(Ends),
    /// It does not catch up: what it lacks has changed later than this.
    Late(Ends),
}

impl Walk {
    /// A reader that begins now, of all keys or of one.
    pub fn new(table: &Table, view: &View<'_>, lens: Option<&Lens>) -> Found<Self> {
        let through = match lens {
            None => match table.enter(view.ring, view.now) {
                Found::Here(began) => Through::All(Course::new(began)),
                Found::Wait(wake) => return Found::Wait(wake),
            },
            Some(lens) => match table.of_key(lens.hash) {
                Found::Here((body, as_of, lacks)) => Through::Key(body, Ends { as_of, lacks }),
                Found::Wait(wake) => return Found::Wait(wake),
            },
        };
        Found::Here(Self { through, head: view.ring.head() })
    }

    /// What tells the reader that a snapshot begins. Its id is that of no place: who is cut from here on, whatever it had
    /// been told before, comes back for another snapshot, since it has let go of its state.
    pub fn begin(prefix: &str) -> Bytes {
        let mut bytes = Vec::new();
        sse::control_body(&mut bytes, prefix, "snapshot-start", "{}");
        sse::id_block(&mut bytes, NOWHERE);
        bytes.into()
    }

    /// Reads on. What the log holds begins at `floor`.
    pub fn read(&mut self, table: &Table, floor: &Position, sieve: Option<&mut Sieve>) -> Step {
        match &mut self.through {
            Through::All(course) => {
                let filters = sieve.is_some_and(|sieve| sieve.filters());
                course.read(table, floor, filters)
            }
            Through::Key(newest, ends) => {
                let passes =
                    |Sent { bytes, facts }: &Sent| sieve.is_none_or(|sieve| sieve.passes(facts, bytes.len()));
                match newest.take().filter(passes) {
                    Some(Sent { bytes, .. }) => {
                        Step::Page(Read::Pieces { bytes: vec![bytes], events: 1, times: None })
                    }
                    None => Step::End(ends.clone()),
                }
            }
        }
    }

    /// The log's head when it began.
    pub fn began_at(&self) -> Seq {
        self.head
    }
}

impl Course {
    fn new(began: Entered) -> Self {
        Self { began, at: 0, stage: Stage::Generation(0), round: None }
    }

    fn read(&mut self, table: &Table, floor: &Position, filters: bool) -> Step {
        loop {
            match &mut self.stage {
                Stage::Generation(at) => match table.page(self.began.generation, *at) {
                    Walked::Page(page) => {
                        (*at, self.at) = (*at + 1, page.to);
                        return given(page, filters);
                    }
                    Walked::End => {
                        let (as_of, lacks) = (Arc::clone(&self.began.as_of), self.began.lacks);
                        (self.at, self.stage) = (self.began.end, Stage::Over(Ends { as_of, lacks }));
                    }
                    Walked::Gone => self.stage = Stage::Changes,
                },
                Stage::Over(ends) if ends.as_of.covers_all(floor) => return Step::End(ends.clone()),
                Stage::Over(ends) if self.round.as_ref().is_some_and(Round::is_no_shorter) => {
                    return Step::Late(ends.clone());
                }
                // The log has let go of what came later: it is in the table.
                Stage::Over(_) => self.stage = Stage::Changes,
                Stage::Late(ends) => return Step::Late(ends.clone()),
                Stage::Changes => {
                    let changes = table.changes(self.at, self.began.end);
                    let sifted = filters.then(|| table.to_sift(&changes)).flatten();
                    let read = self.take(changes);
                    // Nobody else is given the same: it is not worth to be packed.
                    return sifted.map_or(Step::Page(read), |piece| sift(piece, None));
                }
            }
        }
    }

    /// Is given some of what has changed. That may be nothing, where more is just being put in: others have their turn then.
    fn take(&mut self, changes: Changes) -> Read {
        let Changes { events, to, end, as_of, lacks } = changes;
        let before = self.round.take_if(|round| self.at >= round.end).map_or(usize::MAX, |round| round.given);
        let begin = || Round { end, as_of: Arc::clone(&as_of), given: 0, before };
        let round = self.round.get_or_insert_with(begin);
        round.given += events.iter().map(|event| event.bytes.len()).sum::<usize>();
        self.at = to;
        if to == end {
            self.stage = Stage::Over(Ends { as_of, lacks });
        } else if to >= round.end && round.is_no_shorter() {
            self.stage = Stage::Late(Ends { as_of: Arc::clone(&round.as_of), lacks });
        }
        let bytes: Vec<_> = events.into_iter().map(|event| event.bytes).collect();
        Read::Pieces { events: bytes.len(), bytes, times: None }
    }
}

impl Round {
    /// Whether it is not even an eighth shorter than the one before.
    fn is_no_shorter(&self) -> bool {
        self.given > self.before / 8 * 7
    }
}

fn given(page: Page, filters: bool) -> Step {
    let Page { bytes, events, forms, contents, .. } = page;
    match contents.filter(|_| filters) {
        Some(contents) => sift((bytes, contents), Some(forms)),
        None => Step::Page(Read::Slice { bytes, events, times: None, forms: Some(forms) }),
    }
}

fn sift((bytes, contents): (Bytes, Arc<Contents>), forms: Option<Arc<Forms>>) -> Step {
    Step::Sift(Sift { bytes, contents, from: 0, times: None, forms, paced: None, is_all: false })
}

impl Ends {
    /// Appends what tells the reader that this is all, and returns what it lacks. The position is to follow.
    pub fn tell(&self, view: &View<'_>, out: &mut Vec<u8>) -> Vec<Reason> {
        let mut gaps = Vec::new();
        if self.lacks {
            Gap::of(Reason::SnapshotLimit).encode(view.prefix, &**view.codec, out);
            out.push(b'\n');
            gaps.push(Reason::SnapshotLimit);
        }
        sse::control_body(out, view.prefix, "snapshot-end", "{}");
        out.push(b'\n');
        gaps
    }
}

/// The id of no place, whatever the source: every codec finds it malformed.
pub const NOWHERE: &str = "-";

#[cfg(test)]
mod tests;

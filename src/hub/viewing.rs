//! A reader of a keyed log that has joined: it stands before an entry, and reads those of its key, by the index. What it
//! is given is shared with every other reader of the key.

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{Chunk, Seq};
use super::cursor::{Read, View};
use super::key::Lens;
use super::note;
use super::position::{Mark, Offset, Position};
use super::sieve::Sieve;
use crate::sse;

/// A joined reader of one key.
#[derive(Debug)]
pub struct Viewing {
    next: Seq,
    told: Told,
}

/// The position that it was told.
#[derive(Debug)]
enum Told {
    /// In the only partition of its key.
    Home(u32, Offset),
    /// In all partitions; further on than the log in one of them, perhaps.
    All(Arc<Position>),
}

impl Viewing {
    /// Before entry `next`, at this position, which may be ahead of the log.
    pub fn new(next: Seq, position: Position, lens: &Lens) -> Self {
        let told = match lens.home {
            Some(home) => Told::Home(home, position.at(home)),
            None => Told::All(position.into()),
        };
        Self { next, told }
    }

    /// The number of the next entry to look at.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The only partition in which the reader stands, if it is one.
    pub fn home(&self) -> Option<u32> {
        match self.told {
            Told::Home(partition, _) => Some(partition),
            Told::All(_) => None,
        }
    }

    /// Where the reader stands.
    pub fn position(&self) -> Position {
        match &self.told {
            Told::Home(partition, next) => Mark { partition: *partition, next: *next }.into(),
            Told::All(position) => Position::clone(position),
        }
    }

    /// Reads on; `None` if the log has let go of something that was to be read.
    pub fn read(
        &mut self,
        lens: &Lens,
        view: &View<'_>,
        mut sieve: Option<&mut Sieve>,
        max: usize,
    ) -> Option<Read> {
        let seqs = view.ring.of_key(lens.hash, self.next)?;
        let (mut bytes, mut events, mut size, mut times) = (Vec::<Bytes>::new(), 0, 0, None);
        for seq in seqs {
            let (chunk, place) = view.ring.find(seq)?;
            let mark = chunk.entries[place].mark;
            let of_all = chunk.keys[place].hash.is_none();
            let passes = |sieve: &mut Sieve| sieve.passes(chunk.facts(place), chunk.length(place));
            if !self.skips(mark, of_all) && sieve.as_deref_mut().is_none_or(passes) {
                let told = self.told.after(chunk, place, lens, view);
                let pieces = pieces(chunk, place, &told, view);
                size += pieces.iter().map(Bytes::len).sum::<usize>();
                if size > max && events > 0 {
                    return Some(Read::Pieces { bytes, events, times });
                }
                bytes.extend(pieces);
                events += 1;
                times.get_or_insert(chunk.times());
                self.told = told;
                sieve.iter_mut().for_each(|sieve| sieve.untold = false);
            }
            self.next = seq + 1;
            if sieve.as_ref().is_some_and(|sieve| sieve.is_tired()) {
                return Some(Read::Pieces { bytes, events, times });
            }
        }
        self.next = view.ring.head();
        Some(if events > 0 { Read::Pieces { bytes, events, times } } else { wait(lens) })
    }

    /// Whether the reader has the entry, or is not concerned.
    fn skips(&self, mark: Mark, of_all: bool) -> bool {
        match &self.told {
            Told::Home(partition, next) if *partition == mark.partition => mark.next <= *next,
            Told::Home(..) => of_all,
            Told::All(position) => position.covers(mark),
        }
    }

    /// The control event that tells how far the log has got, if that is news and there is nothing to read. It is news also of
    /// one who stands there, if what took it there is `untold`: it was not for it, and read while it caught up.
    pub fn moved_on(&mut self, lens: &Lens, view: &View<'_>, untold: bool) -> Option<Bytes> {
        if !view.ring.of_key(lens.hash, self.next)?.is_empty() {
            return None;
        }
        let position = view.ring.position();
        let mut id = String::new();
        if let Told::Home(partition, next) = self.told
            && position.at(partition) >= next
            && view.codec.home(lens.key()).is_none()
        {
            self.told = Told::All(Arc::default());
        }
        match &mut self.told {
            Told::Home(partition, next) if position.at(*partition) > *next => {
                *next = position.at(*partition);
                view.codec.encode_home(*partition, *next, &mut id);
            }
            Told::All(told) if position.covers_all(told) && (untold || told != position) => {
                *told = Arc::clone(position);
                view.codec.encode(position, &mut id);
            }
            Told::Home(..) | Told::All(_) => return None,
        }
        self.next = view.ring.head();
        let mut bytes = Vec::new();
        note::write_position(&id, view.prefix, &mut bytes);
        Some(bytes.into())
    }
}

impl Told {
    /// What a reader who was told this is told with the entry at `place`.
    fn after(&self, chunk: &Chunk, place: usize, lens: &Lens, view: &View<'_>) -> Self {
        let (mark, log) = (chunk.entries[place].mark, chunk.position_before(place + 1));
        let ahead = match self {
            Self::Home(partition, _)
                if *partition == mark.partition && view.codec.home(lens.key()).is_some() =>
            {
                return Self::Home(*partition, mark.next);
            }
            // The key has no home any more: it is all partitions from now on.
            Self::Home(partition, next) => &Mark { partition: *partition, next: *next }.into(),
            Self::All(position) => &**position,
        };
        if log.covers_all(ahead) {
            return Self::All(log);
        }
        let mut position = Arc::unwrap_or_clone(log);
        position.merge(ahead);
        Self::All(position.into())
    }
}

/// The event at `place`, for a reader who is told this with it: with the log's id, if that is what it says.
fn pieces(chunk: &Chunk, place: usize, told: &Told, view: &View<'_>) -> Vec<Bytes> {
    let (at_home, mut id) = (chunk.entries[place].at_home, String::new());
    match told {
        Told::Home(..) if at_home => return vec![chunk.event(place)],
        Told::Home(partition, next) => view.codec.encode_home(*partition, *next, &mut id),
        Told::All(position) if !at_home && *position == chunk.position_before(place + 1) => {
            return vec![chunk.event(place)];
        }
        Told::All(position) => view.codec.encode(position, &mut id),
    }
    let mut block = Vec::new();
    sse::id_block(&mut block, &id);
    vec![chunk.body(place), block.into()]
}

/// What a reader of one key waits for, once its log is open.
pub fn wait(lens: &Lens) -> Read {
    lens.wake.as_ref().map_or(Read::Pending, |wake| Read::Wait(Arc::clone(wake).notified_owned()))
}

//! A reader of a keyed log that has joined: it stands before an entry, and reads those of its key, by the index. What it
//! is given is shared with every other reader of the key.

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{Chunk, Seq};
use super::cursor::{Read, View};
use super::key::Lens;
use super::note;
use super::pace::Pace;
use super::position::{Mark, Offset, Position};
use super::sieve::Sieve;
use crate::sse;

/// A joined reader of one key.
#[derive(Debug)]
pub struct Viewing {
    next: Seq,
    told: Told,
}

/// The position that it was told, or that of what was left out for it behind that.
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
        let left_out = sieve.as_deref_mut().and_then(Sieve::pace).and_then(Pace::take_left_out);
        if left_out.is_some() {
            return left_out;
        }
        let seqs = view.ring.of_key(lens.hash, self.next)?;
        let (mut bytes, mut events, mut size, mut times) = (Vec::<Bytes>::new(), 0, 0, None);
        for seq in seqs {
            let (chunk, place) = view.ring.find(seq)?;
            let mark = chunk.entries[place].mark;
            let of_all = chunk.keys[place].hash.is_none();
            let passes = |sieve: &mut Sieve| sieve.passes(chunk.facts(place), chunk.length(place));
            if !self.skips(mark, of_all) && sieve.as_deref_mut().is_none_or(passes) {
                let told = self.told.after(chunk, place, lens, view);
                let mut pace = sieve.as_deref_mut().and_then(Sieve::pace);
                let is_note = chunk.entries[place].note;
                let goes = is_note || pace.as_deref_mut().is_none_or(|pace| pace.admits(view.now));
                if goes {
                    let pieces = pieces(chunk, place, &told, view);
                    size += pieces.iter().map(Bytes::len).sum::<usize>();
                    if size > max && events > 0 {
                        return Some(Read::Pieces { bytes, events, times });
                    }
                    bytes.extend(pieces);
                    events += 1;
                    pace.into_iter().for_each(|pace| pace.gave(1));
                    times.get_or_insert(chunk.times());
                }
                // What was left out is not for it, also where it lags behind later on.
                self.told = told;
                sieve.iter_mut().for_each(|sieve| sieve.untold = !goes);
            }
            self.next = seq + 1;
            if sieve.as_ref().is_some_and(|sieve| sieve.is_tired()) {
                return Some(Read::Pieces { bytes, events, times });
            }
        }
        self.next = view.ring.head();
        if events > 0 {
            return Some(Read::Pieces { bytes, events, times });
        }
        let left_out = sieve.and_then(Sieve::pace).and_then(Pace::take_left_out);
        Some(left_out.unwrap_or_else(|| wait(lens)))
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
    /// one who stands there, if what took it there is `untold`: it was not for it, or beyond its rate.
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
        let is_news = |at: Offset, told: Offset| at > told || (untold && at == told);
        match &mut self.told {
            Told::Home(partition, next) if is_news(position.at(*partition), *next) => {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cursor::{Cursor, Terms, Wish};
    use super::super::id::{Epoch, EpochCodec};
    use super::super::testing::{ROOM, TERMS, shape};
    use super::super::{Linger, Log, Memory, Wake};
    use super::*;
    use crate::config::EventRate;
    use crate::shape::Record;

    /// A record of this key.
    struct Of(u8);

    impl Record for Of {
        fn payload(&self) -> Option<&[u8]> {
            Some(b"text")
        }

        fn name(&self) -> &str {
            "test"
        }

        fn key(&self) -> Option<&[u8]> {
            Some(std::slice::from_ref(&self.0))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_reader_of_a_key_has_a_rate_of_its_own() {
        let wake = Wake::new(Duration::ZERO, Linger::new());
        let log = Log::new(shape(), true, ROOM, &Memory::new(usize::MAX), wake);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        let rate = Some(EventRate { events: 2, every: Duration::from_secs(1) });
        let terms = Arc::new(Terms { rate, ..TERMS });
        let [mut a, mut b] = [b'a', b'b']
            .map(|key| Cursor::of_key(Some(Arc::from([key])), Wish::default(), Arc::clone(&terms)));
        for cursor in [&mut a, &mut b] {
            assert!(matches!(log.read(cursor, 1_000), Read::Control { .. }));
        }
        let mut last = 0;
        let mut append = |keys: &str| {
            let records = keys.bytes().zip(last + 1..).map(|(key, at)| (Some(Mark::new(0, at)), Of(key)));
            _ = log.append(records);
            last += keys.len() as u64;
        };
        append("aabaa");
        assert!(matches!(log.read(&mut a, 1_000), Read::Pieces { events: 2, .. }));
        assert!(matches!(log.read(&mut a, 1_000), Read::LeftOut(2)));
        assert!(matches!(log.read(&mut a, 1_000), Read::Pending | Read::Wait(_)));
        assert!(matches!(log.read(&mut b, 1_000), Read::Pieces { events: 1, .. }));
        let told = log.moved_on(&mut a).expect("it went past what was left out");
        assert!(str::from_utf8(&told).unwrap().ends_with("-5\n\n"));
        assert!(log.moved_on(&mut a).is_none(), "it is no news any more");
        append("a");
        assert!(matches!(log.read(&mut a, 1_000), Read::LeftOut(1)));

        tokio::time::advance(Duration::from_secs(1)).await;
        append("aba");
        assert!(matches!(log.read(&mut a, 1_000), Read::Pieces { events: 2, .. }));
        assert!(matches!(log.read(&mut a, 1_000), Read::Pending | Read::Wait(_)), "and nothing of before");
        assert!(matches!(log.read(&mut b, 1_000), Read::Pieces { events: 1, .. }));
    }
}

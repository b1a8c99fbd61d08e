//! A reader that is given a snapshot: it walks a generation of the log's table, page by page at its own pace, and goes on in
//! the log from the position at which that was taken.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::chunk::Seq;
use super::cursor::{Read, View};
use super::gap::{Gap, Reason};
use super::generation::{Generation, Made};
use super::history::Found;
use super::key::Lens;
use super::position::Position;
use super::sieve::{Sieve, Sift};
use super::table::{Sent, Table};
use crate::sse;

/// A reader that walks.
#[derive(Debug)]
pub struct Walk {
    through: Through,
    page: usize,
    /// Where it goes on.
    as_of: Arc<Position>,
    /// The log's head when it began.
    head: Seq,
    /// Whether keys are missing for want of room.
    lacks: bool,
}

#[derive(Debug)]
enum Through {
    /// All keys. The table lets go of it where too many are walked.
    Generation(Weak<Generation>),
    /// One key.
    Key(Option<Sent>),
}

/// What a walk comes to.
pub enum Step {
    /// The reader is given this.
    Page(Read),
    /// Or what of this passes its filter.
    Sift(Sift),
    /// It has been given all of it.
    End,
    /// The table has let go of it.
    Gone,
}

impl Walk {
    /// A reader that begins now, of all keys or of one.
    pub fn new(table: &Table, view: &View<'_>, lens: Option<&Lens>) -> Found<Self> {
        let (through, as_of, lacks) = match lens {
            None => match table.generation(view.ring, view.now) {
                Found::Here(walked) => {
                    let (as_of, lacks) = (Arc::clone(walked.as_of()), walked.lacks());
                    (Through::Generation(Arc::downgrade(&walked)), as_of, lacks)
                }
                Found::Wait(wake) => return Found::Wait(wake),
            },
            Some(lens) => match table.of_key(lens.hash) {
                Found::Here((body, as_of, lacks)) => (Through::Key(body), as_of, lacks),
                Found::Wait(wake) => return Found::Wait(wake),
            },
        };
        Found::Here(Self { through, page: 0, as_of, head: view.ring.head(), lacks })
    }

    /// What tells the reader that a snapshot begins. Its id is that of no place: who is cut from here on, whatever it had
    /// been told before, comes back for another snapshot, since it has let go of its state.
    pub fn begin(prefix: &str) -> Bytes {
        let mut bytes = Vec::new();
        sse::control_body(&mut bytes, prefix, "snapshot-start", "{}");
        sse::id_block(&mut bytes, NOWHERE);
        bytes.into()
    }

    /// Reads on.
    pub fn read(&mut self, sieve: Option<&mut Sieve>) -> Step {
        let page = match &mut self.through {
            Through::Key(body) => {
                let Some((body, facts)) = body.take() else { return Step::End };
                if sieve.is_some_and(|sieve| !sieve.passes(&facts, body.len())) {
                    return Step::End;
                }
                return Step::Page(Read::Pieces { bytes: vec![body], events: 1, times: None });
            }
            Through::Generation(walked) => match walked.upgrade() {
                Some(walked) => walked.page(self.page),
                None => return Step::Gone,
            },
        };
        let Some(Made { bytes, events, forms, contents }) = page else { return Step::End };
        self.page += 1;
        match contents.filter(|_| sieve.is_some_and(|sieve| sieve.filters())) {
            Some(contents) => {
                let forms = Some(forms);
                Step::Sift(Sift { bytes, contents, from: 0, times: None, forms, paced: None, is_all: false })
            }
            None => Step::Page(Read::Slice { bytes, events, times: None, forms: Some(forms) }),
        }
    }

    /// Appends what tells the reader that this is all, and returns what it lacks. The position is to follow.
    pub fn end(&self, view: &View<'_>, out: &mut Vec<u8>) -> Vec<Reason> {
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

    /// The log's head when it began.
    pub fn began_at(&self) -> Seq {
        self.head
    }

    /// Where it goes on.
    pub fn as_of(&self) -> &Arc<Position> {
        &self.as_of
    }
}

/// The id of no place, whatever the source: every codec finds it malformed.
pub const NOWHERE: &str = "-";

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;

    use super::super::cursor::{Cursor, Wish};
    use super::super::id::{Epoch, EpochCodec};
    use super::super::log::Log;
    use super::super::memory::Memory;
    use super::super::testing::{ROOM, TERMS, shape};
    use super::super::wake::{Linger, Wake};
    use super::*;
    use crate::config::{Digest, OnLag, Snapshot, Template};
    use crate::hub::{Bounds, Terms};
    use crate::shape::{Record, Shape};

    struct Of(String, String);

    impl Record for Of {
        fn payload(&self) -> Option<&[u8]> {
            Some(self.1.as_bytes())
        }

        fn name(&self) -> &str {
            "test"
        }

        fn key(&self) -> Option<&[u8]> {
            Some(self.0.as_bytes())
        }
    }

    fn log(bounds: Bounds, max_keys: usize, max_bytes: usize) -> (Arc<Log>, Arc<Memory>) {
        let snapshot = Snapshot { by: Template::parse("{key}").unwrap(), max_keys, max_bytes };
        let digest = Digest { snapshot: Some(snapshot), ..Digest::default() };
        let shape = Shape { digest: digest.into(), ..shape() };
        let memory = Memory::new(usize::MAX);
        let log = Log::new(shape, false, bounds, &memory, Wake::new(Duration::ZERO, Linger::new()));
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        (log, memory)
    }

    /// Changes these keys, together.
    fn put(log: &Log, keys: std::ops::Range<usize>, value: &str) {
        let record = |key| (None, Of(format!("k{key}"), format!("k{key} {value}")));
        log.append(keys.map(record));
    }

    fn reader() -> Cursor {
        Cursor::new(Wish::default(), TERMS)
    }

    /// What one read gives: its bytes, and how many events they hold.
    fn step(log: &Log, cursor: &mut Cursor) -> Option<(Bytes, usize)> {
        match log.read(cursor, MAX) {
            Read::Slice { bytes, events, .. } => Some((bytes, events)),
            Read::Control { bytes, .. } => Some((bytes, 0)),
            Read::Pending | Read::Wait(_) => None,
            other => panic!("nobody catches up here: {other:?}"),
        }
    }

    fn text(bytes: &Bytes) -> &str {
        str::from_utf8(bytes).unwrap()
    }

    /// All that there is to read, one text.
    fn all(log: &Log, cursor: &mut Cursor) -> String {
        std::iter::from_fn(|| step(log, cursor)).map(|(bytes, _)| text(&bytes).to_owned()).collect()
    }

    const MAX: usize = 32 * 1024;

    #[tokio::test]
    async fn ten_thousand_keys_are_the_same_bytes_for_a_thousand_readers() {
        let (log, memory) = log(ROOM, 100_000, 64 << 20);
        put(&log, 0..10_000, &"x".repeat(200));
        let before = memory.used();
        let mut first = Vec::new();
        for n in 0..1_000 {
            let mut cursor = reader();
            let begin = step(&log, &mut cursor).unwrap().0;
            assert!(text(&begin).starts_with("event: stream.snapshot-start\n"));
            let (mut pages, mut events) = (Vec::new(), 0);
            while events < 10_000 {
                let (bytes, count) = step(&log, &mut cursor).unwrap();
                assert!(bytes.len() <= 24 * 1024);
                events += count;
                pages.push(bytes.as_ptr_range());
            }
            let end = step(&log, &mut cursor).unwrap().0;
            assert!(
                text(&end).starts_with("event: stream.snapshot-end\ndata: {}\n\nevent: stream.position\n")
            );
            if n == 0 {
                first = pages;
            } else {
                assert_eq!(pages, first);
            }
            // A change now and then makes no snapshot out of date: it is read of the log.
            if n % 100 == 0 {
                put(&log, n..n + 1, "new");
            }
        }
        let pages = memory.used() - before;
        assert!(pages < 10_000 * 300, "{pages} bytes more for all of them");
        log.sweep(Instant::now() + Duration::from_secs(60));
        assert!(memory.used() - before < 100_000, "and nothing once they have it");
    }

    #[tokio::test]
    async fn who_walks_too_slowly_begins_anew_so_that_few_generations_are_kept() {
        let (log, memory) = log(Bounds { events: 10, ..ROOM }, 100_000, 64 << 20);
        let value = "x".repeat(200);
        put(&log, 0..1_000, &value);
        let mut readers: Vec<_> = (0..12).map(|_| reader()).collect();
        for cursor in &mut readers {
            // Each begins at another time, and stops in the middle.
            put(&log, 0..1_000, &value);
            (0..3).for_each(|_| _ = step(&log, cursor));
        }
        let held = log.held().bytes + log.tabled().unwrap().bytes;
        let more = memory.used() - held;
        assert!(more < 5 * 1_000 * 700, "{more} bytes beside the table");
        for cursor in &mut readers {
            let told = all(&log, cursor);
            let last = told.rfind("stream.snapshot-start").map_or(&*told, |at| &told[at..]);
            assert!(last.contains("event: stream.snapshot-end\n"), "each comes to an end");
        }
        assert!(all(&log, &mut readers[0]).is_empty());
        drop(readers);
        log.sweep(Instant::now() + Duration::from_secs(60));
        assert_eq!(memory.used(), log.held().bytes + log.tabled().unwrap().bytes);
        drop(log);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn who_lags_is_given_a_snapshot_unless_it_is_to_leave() {
        let (log, _) = log(Bounds { events: 2, ..ROOM }, 100, 1 << 20);
        put(&log, 0..3, "a");
        let (mut goes_on, mut leaves) =
            (reader(), Cursor::new(Wish::default(), Terms { on_lag: OnLag::Disconnect, ..TERMS }));
        all(&log, &mut goes_on);
        all(&log, &mut leaves);
        (0..20).for_each(|key| put(&log, key..key + 1, "b"));
        let told = all(&log, &mut goes_on);
        assert!(!told.contains("stream.gap") && told.starts_with("event: stream.snapshot-start\n"), "{told}");
        assert_eq!(told.matches("data: k").count(), 20);
        assert!(matches!(log.read(&mut leaves, MAX), Read::Control { gaps, .. } if gaps == [Reason::Lagged]));
    }

    #[tokio::test]
    async fn what_has_no_room_leaves_and_what_cannot_be_sent_stands_as_a_gap() {
        let (log, _) = log(ROOM, 3, 1 << 20);
        put(&log, 0..3, "a");
        put(&log, 0..1, "b");
        let appended = log.append([(None, Of("k9".into(), "x".repeat(2 << 20)))]);
        assert_eq!(appended.gaps, [Reason::TooLarge, Reason::SnapshotLimit], "told once");
        put(&log, 2..3, "b");
        let told = all(&log, &mut reader());
        let names: Vec<_> =
            told.lines().filter(|line| line.starts_with("data: k") || line.contains("reason")).collect();
        assert_eq!(names[0], "data: k0 b");
        assert!(
            names[1].contains("too_large") && names[2] == "data: k2 b" && names[3].contains("snapshot_limit")
        );
        assert_eq!(names.len(), 4, "k1 had to leave: {told}");
        let held = log.tabled().unwrap();
        assert_eq!((held.keys, held.is_whole, held.lacks), (3, true, true));

        log.append_link_lost((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
        put(&log, 0..1, "c");
        let told = all(&log, &mut reader());
        let (lost, newer) = (told.find("upstream_lost").unwrap(), told.find("k0 c").unwrap());
        assert!(lost < newer && told.find("k2 b").unwrap() < lost, "what came before it may be old");
    }
}

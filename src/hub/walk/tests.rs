//! Snapshots that are given while the table changes: who walks slowly, who is outrun, what is gone, what has no room.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::cursor::{Cursor, Wish};
use super::super::id::{Epoch, EpochCodec};
use super::super::key::KeyHash;
use super::super::log::Log;
use super::super::memory::Memory;
use super::super::table::{Change, Newest};
use super::super::testing::{ROOM, TERMS, shape};
use super::super::wake::{Linger, Wake};
use super::*;
use crate::config::{Digest, OnLag, Snapshot, Template};
use crate::hub::{Bounds, Terms};
use crate::shape::{Facts, Record, Shape};

/// A record of this key with this payload; without one it deletes its key.
struct Of(String, Option<String>);

impl Record for Of {
    fn payload(&self) -> Option<&[u8]> {
        self.1.as_deref().map(str::as_bytes)
    }

    fn name(&self) -> &str {
        "test"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }
}

fn snapshot(max_keys: usize, max_bytes: usize) -> Snapshot {
    Snapshot { by: Template::parse("{key}").unwrap(), max_keys, max_bytes }
}

fn shape_of(max_keys: usize, max_bytes: usize) -> Shape {
    let digest = Digest { snapshot: Some(snapshot(max_keys, max_bytes)), ..Digest::default() };
    Shape { digest: digest.into(), ..shape() }
}

fn log(bounds: Bounds, max_keys: usize, max_bytes: usize) -> (Arc<Log>, Arc<Memory>) {
    log_of(shape_of(max_keys, max_bytes), bounds)
}

fn log_of(shape: Shape, bounds: Bounds) -> (Arc<Log>, Arc<Memory>) {
    let memory = Memory::new(usize::MAX);
    let log = Log::new(shape, false, bounds, &memory, Wake::new(Duration::ZERO, Linger::new()));
    log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
    (log, memory)
}

/// Changes these keys, together.
fn put(log: &Log, keys: std::ops::Range<usize>, value: &str) {
    let record = |key| (None, Of(format!("k{key}"), Some(format!("k{key} {value}"))));
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
        Read::Pieces { bytes, events, .. } => Some((bytes.concat().into(), events)),
        Read::Pending | Read::Wait(_) => None,
        other @ Read::LeftOut(_) => panic!("nobody is bounded here: {other:?}"),
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
            if n == 0 {
                // What has left the table is in the others' pages for all that.
                put(&log, events - 1..events + 1, "new");
            }
        }
        let end = step(&log, &mut cursor).unwrap().0;
        assert!(text(&end).starts_with("event: stream.snapshot-end\ndata: {}\n\nevent: stream.position\n"));
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
    assert!(memory.used() - before < 200_000, "and nothing once they have it");
}

/// All readers together cost no more than a few, however slow they are.
#[tokio::test]
async fn who_walks_slowly_is_given_what_changed_meanwhile() {
    let (log, memory) = log(Bounds { events: 300, ..ROOM }, 100_000, 64 << 20);
    let value = |round: usize| format!("{round} {}", "x".repeat(200));
    put(&log, 0..1_000, &value(0));
    let mut readers: Vec<_> = (0..12).map(|_| (reader(), String::new())).collect();
    for round in 0..60 {
        // What changes in a round is half a page. More read at a time than there are generations.
        let from = 50 * (round % 20);
        put(&log, from..from + 50, &value(round));
        for (cursor, told) in &mut readers[..=(round / 2).min(11)] {
            told.push_str(text(&step(&log, cursor).unwrap().0));
        }
        let table = log.tabled().unwrap().bytes;
        let more = memory.used() - log.held().bytes - table;
        assert!(more < 8 * table, "{more} bytes beside the table");
    }
    for (cursor, told) in &mut readers {
        told.push_str(&all(&log, cursor));
        assert_eq!(told.matches("stream.snapshot-start").count(), 1, "none begins anew");
        let end = told.find("event: stream.snapshot-end\n").unwrap();
        assert!(!told.contains("stream.gap"));
        for key in 0..1_000 {
            // Of the last twenty rounds each changed others.
            let newest = (40..60).find(|round| key / 50 == round % 20).unwrap();
            let own = format!("data: k{key} ");
            let at = told.rfind(&own).unwrap() + own.len();
            assert!(told[at..].starts_with(&format!("{newest} x")), "k{key}");
            assert!(told[..end].contains(&own));
        }
    }
    assert!(all(&log, &mut readers[0].0).is_empty());
    drop(readers);
    log.sweep(Instant::now() + Duration::from_secs(60));
    assert_eq!(memory.used(), log.held().bytes + log.tabled().unwrap().bytes);
    drop(log);
    assert_eq!(memory.used(), 0);
}

/// One page is read between changes of more than that: nobody can be given all of them.
#[tokio::test]
async fn who_is_too_slow_for_all_changes_comes_to_an_end_and_is_told() {
    let value = "x".repeat(200);
    for (bounds, on_lag) in [(ROOM, OnLag::Gap), (Bounds { events: 10, ..ROOM }, OnLag::Gap)] {
        let (log, _) = log(bounds, 100_000, 64 << 20);
        put(&log, 0..1_000, &value);
        let mut cursor = Cursor::new(Wish::default(), Terms { on_lag, ..TERMS });
        let (mut told, mut gap) = (String::new(), None);
        for _ in 0..40 {
            put(&log, 0..1_000, &value);
            match log.read(&mut cursor, MAX) {
                Read::Control { bytes, gaps } => {
                    told.push_str(text(&bytes));
                    gap = gap.or(gaps.first().copied());
                }
                Read::Slice { bytes, .. } => told.push_str(text(&bytes)),
                Read::Pieces { bytes, .. } => told.push_str(text(&bytes.concat().into())),
                other => panic!("there is more at any time: {other:?}"),
            }
            if told.contains("stream.snapshot-end") {
                break;
            }
        }
        assert_eq!(told.matches("stream.snapshot-start").count(), 1);
        let end = told.find("event: stream.snapshot-end\n").expect("it comes to an end");
        let position = told.rfind("event: stream.position\n").expect("and goes on somewhere");
        assert!(end < position);
        // What the log still has it is given by that: then there is nothing to tell.
        assert_eq!(gap, (bounds.events == 10).then_some(Reason::Lagged));
        (0..1_000).for_each(|key| assert!(told.contains(&format!("data: k{key} ")), "{key}"));
    }
}

#[tokio::test]
async fn what_is_gone_while_it_is_given_is_told_and_forgotten_after_that() {
    let gone = |key: usize| [(None, Of(format!("k{key}"), None))];
    let shape = Shape { tombstone: Some(Template::parse("gone").unwrap()), ..shape_of(100_000, 64 << 20) };
    let (log, memory) = log_of(shape, Bounds { events: 10, ..ROOM });
    put(&log, 0..1_000, &"x".repeat(200));
    let mut cursor = reader();
    let begun: Vec<_> = (0..3).map(|_| step(&log, &mut cursor).unwrap().0).collect();
    assert!(text(&begun[1]).contains("data: k0 ") && !text(&begun[2]).contains("data: k999 "));
    [0, 999].iter().for_each(|&key| _ = log.append(gone(key)));
    put(&log, 1..21, "new");
    put(&log, 1..21, "newer");
    let told = all(&log, &mut cursor);
    let end = told.find("event: stream.snapshot-end\n").unwrap();
    for key in ["k0", "k999"] {
        assert!(told.find(&format!("event: gone\ndata: {key}\n")).unwrap() < end, "{key}");
    }
    assert!(told.find("data: k20 newer\n").unwrap() < end && !told.contains("stream.gap"));
    let fresh = all(&log, &mut reader());
    assert!(!fresh.contains("event: gone"), "who comes later is told of nothing that is gone");
    drop((cursor, begun));
    log.sweep(Instant::now() + Duration::from_secs(60));
    let keys = log.tabled().unwrap();
    assert_eq!(memory.used(), log.held().bytes + keys.bytes);
    assert!((keys.keys, keys.lacks) == (998, false) && keys.bytes < 998 * (192 + 230));
}

#[tokio::test]
async fn what_is_gone_takes_no_room_from_what_is_there() {
    let snapshot = snapshot(100, 1 << 20);
    let table = Table::new(&snapshot, &Memory::new(usize::MAX));
    let end = Arc::new(Position::new(vec![1_000]));
    let change = |key: usize, newest| {
        let key = Some(KeyHash::of(&key.to_be_bytes()));
        Change { key, newest, facts: Facts::default() }
    };
    // Until what lies before has been read, all that is gone has to be known.
    table.begin(Arc::clone(&end), false);
    let there = |key| change(key, Newest::of(b"data: x\n"));
    table.put((0..100).map(there).collect(), &end);
    table.put((100..5_000).map(|key| change(key, Newest::gone(b""))).collect(), &end);
    assert_eq!(table.held().keys, 100);
    assert!(table.held().bytes <= 100 * 220 + (1 << 20) / 4, "{:?}", table.held());
    assert!(table.held().lacks, "something older of those that were forgotten may seem to be there");
    table.is_whole();
    table.sweep(Instant::now());
    table.put(vec![there(0)], &end);
    table.put((0..50).map(|key| change(key, Newest::gone(b"data: k\n"))).collect(), &end);
    assert_eq!((table.held().keys, table.held().bytes / 50 / 192), (50, 1), "nobody walks");
}

#[tokio::test]
async fn tables_have_a_part_of_the_memory_and_say_what_they_lack() {
    let memory = Memory::new(2_000_000);
    let tables = memory.part(1_000_000);
    let log = |keys| {
        let wake = Wake::new(Duration::ZERO, Linger::new());
        let log = Log::within(shape_of(keys, 64 << 20), false, ROOM, (&memory, &tables), wake);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        log
    };
    let (small, large) = (log(100_000), log(100_000));
    put(&small, 0..100, &"x".repeat(200));
    let mut told = Vec::new();
    for key in 0..10_000 {
        told.extend(large.append([(None, Of(format!("k{key}"), Some("x".repeat(200))))]).gaps);
    }
    assert_eq!(told, [Reason::SnapshotLimit], "once");
    assert!(tables.used() <= 1_000_000 && memory.used() <= 2_000_000);
    assert!(tables.used() > 900_000 && large.held().bytes > 500_000, "each has its own");
    assert_eq!((small.tabled().unwrap().keys, small.tabled().unwrap().lacks), (100, false));
    assert!(all(&large, &mut reader()).contains("snapshot_limit"));
    assert!(!all(&small, &mut reader()).contains("snapshot_limit"));
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
    let appended = log.append([(None, Of("k9".into(), Some("x".repeat(2 << 20))))]);
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

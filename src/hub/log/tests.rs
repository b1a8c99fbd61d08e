//! What a log keeps, when its source is to pause, and what a source that was created anew does to it.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::cursor::{Cursor, Read, Wish};
use super::super::gap::Reason;
use super::super::id::{Epoch, EpochCodec};
use super::super::position::Position;
use super::super::ring::Bounds;
use super::super::testing::{ROOM, TERMS, Text, log};
use super::Log;

fn open(log: &Log) {
    log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
}

fn append(log: &Log, events: usize) {
    (0..events).for_each(|_| drop(log.append([(None, Text("text"))])));
}

fn read_all(log: &Log, cursor: &mut Cursor) {
    while !matches!(log.read(cursor, 1_000), Read::Pending) {}
}

#[tokio::test]
async fn the_larger_of_two_bounds_holds_before_and_after_it_is_open() {
    let log = log(Bounds { events: 1, ..ROOM });
    log.widen(Bounds { events: 3, bytes: 0, ..ROOM });
    open(&log);
    append(&log, 10);
    assert_eq!(log.held().events, 3);
    log.widen(Bounds { events: 5, ..ROOM });
    append(&log, 10);
    assert_eq!(log.held().events, 5);
    log.widen(Bounds { events: 2, ..ROOM });
    append(&log, 1);
    assert_eq!(log.held().events, 5);
}

#[tokio::test]
async fn lag_room_is_let_go_after_the_last_reader() {
    let log = log(Bounds { events: 1, buffer: usize::MAX, ..ROOM });
    open(&log);
    log.join();
    append(&log, 10);
    assert_eq!(log.held().events, 10);
    log.leave();
    log.sweep(Instant::now());
    assert_eq!(log.held().events, 1);
}

#[tokio::test]
async fn a_source_is_to_pause_while_not_even_the_foremost_reader_keeps_up() {
    let log = log(Bounds { buffer: 8_000, ..ROOM });
    open(&log);
    append(&log, 100);
    assert!(!log.congested(), "nobody reads");
    log.join();
    let (mut foremost, mut other) =
        (Cursor::new(Wish::default(), TERMS), Cursor::new(Wish::default(), TERMS));
    read_all(&log, &mut foremost);
    read_all(&log, &mut other);
    assert!(!log.congested(), "a reader at the head has nothing unread, whatever came before");
    while !log.congested() {
        append(&log, 1);
    }
    let half = log.held().events - 100;
    assert!((5..50).contains(&half), "{half} events are half a buffer");
    log.read(&mut foremost, 1_000);
    assert!(!log.congested(), "one of them reads on");
    read_all(&log, &mut foremost);
    append(&log, half - 1);
    assert!(!log.congested(), "what was read is not counted again");
    append(&log, 1);
    assert!(log.congested());
    log.leave();
    assert!(!log.congested());
}

#[tokio::test]
async fn a_source_that_was_created_anew_is_told_to_every_reader() {
    let log = log(ROOM);
    open(&log);
    let mut at_head = Cursor::new(Wish::default(), TERMS);
    let mut behind = Cursor::new(Wish::default(), TERMS);
    log.read(&mut behind, 1_000);
    append(&log, 3);
    read_all(&log, &mut at_head);
    assert!(log.restart(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::new(vec![7])));
    append(&log, 1);
    for mut cursor in [at_head, behind] {
        let told = log.read(&mut cursor, 1_000);
        assert!(matches!(&told, Read::Control { gaps, .. } if gaps[..] == [Reason::Recreated]), "{told:?}");
        let Read::Slice { bytes, events: 1, .. } = log.read(&mut cursor, 1_000) else {
            panic!("what is new")
        };
        assert!(bytes.ends_with(b"-8\n\n"));
        assert!(matches!(log.read(&mut cursor, 1_000), Read::Pending));
    }
    assert_eq!(log.held().events, 1);
}

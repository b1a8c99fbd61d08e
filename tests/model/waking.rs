//! One thread appends, several readers follow on a runtime with several threads: no wake is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ssegate::hub::{Epoch, EpochCodec, Linger, Log, Memory, Position, Read, Wake};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::record::{self, Kind, Message};
use crate::{ROOM, TERMS, cursor};

const EVENTS: u64 = 20_000;
const READERS: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_wake_is_lost_without_linger() {
    follow(Duration::ZERO, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_wake_is_lost_with_linger() {
    follow(Duration::from_millis(10), 250).await;
}

/// The writer waits for all readers after every `together` events: if one has missed its wake, for ever.
async fn follow(linger: Duration, together: u64) {
    let ticker = Linger::new();
    let mut tasks = JoinSet::new();
    let background = tokio::spawn({
        let ticker = Arc::clone(&ticker);
        async move { ticker.run().await }
    });
    let wake = Wake::new(linger, ticker);
    let log = Log::new(record::shape(), false, ROOM, &Memory::new(usize::MAX), wake);
    let seen: Arc<Vec<AtomicU64>> = Arc::new((0..READERS).map(|_| AtomicU64::new(0)).collect());
    let begun = Arc::new(Barrier::new(READERS as usize + 1));
    log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
    for reader in 0..READERS as usize {
        tasks.spawn(read_all(Arc::clone(&log), Arc::clone(&seen), reader, Arc::clone(&begun)));
    }
    begun.wait().await;
    let writer = std::thread::spawn({
        let log = Arc::clone(&log);
        move || write_all(&log, &seen, together)
    });
    let all = async { while tasks.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("a wake was lost");
    writer.join().unwrap();
    background.abort();
}

async fn read_all(log: Arc<Log>, seen: Arc<Vec<AtomicU64>>, reader: usize, begun: Arc<Barrier>) {
    let mut cursor = cursor(None, TERMS);
    assert!(matches!(log.read(&mut cursor, 1_000), Read::Control { gaps, .. } if gaps.is_empty()));
    begun.wait().await;
    while seen[reader].load(Ordering::Relaxed) < EVENTS {
        let wake = log.wake().next();
        loop {
            match log.read(&mut cursor, 1_000) {
                Read::Pending => break,
                Read::Slice { events, .. } => _ = seen[reader].fetch_add(events as u64, Ordering::Relaxed),
                other => panic!("{other:?}"),
            }
        }
        if seen[reader].load(Ordering::Relaxed) < EVENTS {
            wake.await;
        }
    }
}

fn write_all(log: &Log, seen: &[AtomicU64], together: u64) {
    for number in 1..=EVENTS {
        log.append([(None, Message::new(Kind::Event(10), "event"))]);
        let least = || seen.iter().map(|seen| seen.load(Ordering::Relaxed)).min();
        while number % together == 0 && least() < Some(number) {
            std::thread::yield_now();
        }
    }
}

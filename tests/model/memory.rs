//! The budget: what all logs hold together, and what readers hold on to after the logs have let go.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use ssegate::hub::{Bounds, Cursor, Epoch, EpochCodec, Log, Memory, Position, Read};

use crate::record::{self, Kind, Message};
use crate::{ROOM, TERMS, cases, cursor};

#[derive(Debug, Clone)]
enum Op {
    Append(Index, Vec<Kind>),
    /// A reader takes what there is, and keeps it.
    Hold(Index),
    LetGo,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<Index>(), prop::collection::vec(record::kind(), 1..40)).prop_map(|(l, k)| Op::Append(l, k)),
        3 => any::<Index>().prop_map(Op::Hold),
        1 => Just(Op::LetGo),
    ]
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn what_is_held_counts_until_the_last_reader_lets_go(
        limit in 0..200_000_usize,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let memory = Memory::new(limit);
        let mut logs: Vec<_> = (0..3).map(|_| Reading::new(&memory)).collect();
        let mut slices: Vec<Bytes> = Vec::new();
        let mut most = 0;
        for op in ops {
            match op {
                Op::Append(log, kinds) => {
                    let records = || kinds.iter().map(|&kind| (None, Message::new(kind, "x")));
                    logs[log.index(3)].log.append(records());
                    let alone = Reading::new(&Memory::new(usize::MAX)).log;
                    alone.append(records());
                    most = most.max(alone.held().bytes);
                }
                Op::Hold(log) => slices.extend(logs[log.index(3)].take()),
                Op::LetGo => slices.clear(),
            }
            let held: usize = logs.iter().map(|reading| reading.log.held().bytes).sum();
            let sliced: usize = slices.iter().map(Bytes::len).sum();
            prop_assert!(memory.used() >= held.max(sliced));
            if slices.is_empty() {
                prop_assert_eq!(memory.used(), held);
            }
            // What readers hold is not there for the logs, but for a little, since not every append asks for it.
            prop_assert!(held <= limit / 32 + most || memory.used() <= limit);
        }
        drop(logs);
        let sliced: usize = slices.iter().map(Bytes::len).sum();
        prop_assert!(memory.used() >= sliced && (sliced > 0 || memory.used() == 0));
        drop(slices);
        prop_assert_eq!(memory.used(), 0);
    }
}

struct Reading {
    log: Arc<Log>,
    cursor: Cursor,
}

impl Reading {
    fn new(memory: &Arc<Memory>) -> Self {
        let log = record::log(Bounds { events: 1_000, ..ROOM }, memory);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        log.join();
        Self { log, cursor: cursor(None, TERMS) }
    }

    fn take(&mut self) -> Vec<Bytes> {
        let mut taken = Vec::new();
        loop {
            match self.log.read(&mut self.cursor, usize::MAX) {
                Read::Pending | Read::Wait(_) => return taken,
                Read::Control { .. } => {}
                Read::Slice { bytes, .. } => taken.push(bytes),
                Read::Pieces { .. } | Read::LeftOut(_) => panic!("its id is the log's own"),
            }
        }
    }
}

/// The fattest log gives first, and only as much as is needed.
#[test]
fn a_small_log_keeps_its_history_beside_a_fat_one() {
    let memory = Memory::new(300_000);
    let (small, fat) = (Reading::new(&memory), Reading::new(&memory));
    small.log.append([(None, Message::new(Kind::Event(10_000), "small"))]);
    for n in 0..100 {
        fat.log.append([(None, Message::new(Kind::Event(10_000), &n.to_string()))]);
        assert_eq!(small.log.held().events, 1);
    }
    assert!(memory.used() > 250_000, "{}", memory.used());
    drop(fat);
    assert_eq!(memory.used(), small.log.held().bytes);
}

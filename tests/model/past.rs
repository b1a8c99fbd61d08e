//! What a broker still holds, for the model: answers and segments come when the test says so, and not before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use ssegate::hub::{
    Answer, Found, History, IdCodec, Memory, Offset, Position, Question, Segment, SegmentDraft, Sought, Table,
};
use ssegate::shape::{Record, Shape};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::record;
use crate::vector::VectorCodec;

/// The past as one replica sees it.
pub struct Past {
    shape: Shape,
    keyed: bool,
    state: Mutex<State>,
    arrived: Arc<Notify>,
    memory: Arc<Memory>,
}

#[derive(Default)]
struct State {
    low: Vec<u64>,
    wanted: BTreeMap<(u32, Offset), Offset>,
    segments: Vec<Arc<Segment>>,
    scans: Vec<(Position, Arc<Table>)>,
    asked: Vec<Question>,
    told: HashMap<Question, (Instant, Answer)>,
}

/// The records of each partition, with their offsets.
pub type Records<'r, R> = &'r dyn Fn(usize) -> Vec<(u64, R)>;

impl Past {
    /// Of so many partitions, whose records become events as the model's do.
    pub fn new(partitions: usize) -> Arc<Self> {
        Self::of(partitions, &record::shape(), false)
    }

    /// Of a source of this shape, keyed or not.
    pub fn of(partitions: usize, shape: &Shape, keyed: bool) -> Arc<Self> {
        let state = Mutex::new(State { low: vec![0; partitions], ..State::default() });
        let (shape, memory) = (shape.clone(), Memory::new(usize::MAX));
        Arc::new(Self { shape, keyed, state, arrived: Arc::default(), memory })
    }

    /// Retention has passed what lies before.
    pub fn trim(&self, low: &[u64]) {
        let mut state = self.state.lock();
        state.low = low.to_vec();
        state.segments.clear();
    }

    /// Whether somebody waits.
    pub fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        !state.wanted.is_empty() || !state.asked.is_empty() || !state.scans.is_empty()
    }

    /// Answers all questions, and reads of each place that is wanted so many records at most; and what is wanted for tables.
    pub fn serve<R: Record>(&self, end: &[u64], records: Records<'_, R>, most: usize) {
        let mut state = self.state.lock();
        let low = Position::new(state.low.clone());
        for question in std::mem::take(&mut state.asked) {
            let (from, oldest, end) = (low.clone(), low.clone(), Position::new(end.to_vec()));
            state.told.insert(question, (Instant::now(), Answer { from, oldest, end, born: None }));
        }
        for ((partition, from), until) in std::mem::take(&mut state.wanted) {
            if from.major >= low.next(partition) {
                state.segments.push(Arc::new(self.segment(partition, from, until, records, most)));
            }
        }
        let scans = std::mem::take(&mut state.scans);
        drop(state);
        self.arrived.notify_waiters();
        for (end, table) in scans {
            self.scan_into(&table, &end, records, most);
        }
    }

    fn scan_into<R: Record>(&self, table: &Table, end: &Position, records: Records<'_, R>, most: usize) {
        for partition in Position::default().behind(end) {
            let mut at = Offset::default();
            while at < end.at(partition) {
                let segment = self.segment(partition, at, end.at(partition), records, most);
                at = segment.to;
                table.put_read(&segment);
            }
        }
        table.is_whole();
    }

    /// What lies between two offsets, or the beginning of it.
    pub fn segment<R: Record>(
        &self,
        partition: u32,
        from: Offset,
        until: Offset,
        records: Records<'_, R>,
        most: usize,
    ) -> Segment {
        let codec: Arc<dyn IdCodec> = Arc::new(VectorCodec);
        let mut draft = SegmentDraft::new(&self.shape, &codec, self.keyed, &self.memory, partition, from);
        let records = records(partition as usize);
        let mut within = records.iter().filter(|(at, _)| (from.major..until.major).contains(at)).peekable();
        for (offset, record) in within.by_ref().take(most) {
            draft.push(Offset::from(offset + 1), record);
        }
        let to = if within.peek().is_some() { draft.at() } else { until };
        draft.finish(to)
    }
}

impl History for Past {
    fn segment(&self, partition: u32, from: Offset, until: Offset) -> Found<Sought> {
        assert!(from < until, "only what is not held by the log is read");
        let mut state = self.state.lock();
        let low = state.low[partition as usize];
        if from.major < low {
            return Found::Here(Sought::Trimmed(low.into()));
        }
        let held = |segment: &&Arc<Segment>| {
            segment.partition == partition && segment.from <= from && from < segment.to
        };
        if let Some(segment) = state.segments.iter().find(held) {
            return Found::Here(Sought::Segment(Arc::clone(segment)));
        }
        state.wanted.insert((partition, from), until);
        Found::Wait(Arc::clone(&self.arrived).notified_owned())
    }

    fn ask(&self, question: &Question, after: Instant) -> Found<Answer> {
        let mut state = self.state.lock();
        match state.told.get(question) {
            Some((at, answer)) if *at >= after => Found::Here(answer.clone()),
            _ => {
                state.asked.push(*question);
                Found::Wait(Arc::clone(&self.arrived).notified_owned())
            }
        }
    }

    fn scan(&self, end: &Position, into: Arc<Table>) {
        self.state.lock().scans.push((end.clone(), into));
    }

    fn answers_since(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn counts(&self) -> bool {
        true
    }

    fn reset(&self) {
        unreachable!("no source is created anew here");
    }
}

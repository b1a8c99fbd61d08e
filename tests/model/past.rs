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

use crate::record::{self, Message};
use crate::vector::VectorCodec;

/// The past as one replica sees it.
pub struct Past {
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
pub type Records<'r, R = Message> = &'r dyn Fn(usize) -> Vec<(u64, R)>;

impl Past {
    pub fn new(partitions: usize) -> Arc<Self> {
        let state = State { low: vec![0; partitions], ..State::default() };
        Arc::new(Self { state: Mutex::new(state), arrived: Arc::default(), memory: Memory::new(usize::MAX) })
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

    /// Answers all questions, and reads of each place that is wanted so many records at most.
    pub fn serve(&self, end: &[u64], records: Records<'_>, most: usize) {
        self.serve_with(end, |partition, from, until| self.segment(partition, from, until, records, most));
    }

    /// The same, of a keyed source.
    pub fn serve_keyed<R: Record>(&self, end: &[u64], records: Records<'_, R>, most: usize) {
        self.serve_with(end, |partition, from, until| self.read(true, partition, from, until, records, most));
    }

    /// The same, of a source of this shape; reads what is wanted for tables, too.
    pub fn serve_shaped<R: Record>(&self, shape: &Shape, end: &[u64], records: Records<'_, R>, most: usize) {
        let read = |partition: u32, from, until| {
            self.read_shaped(shape, false, partition, from, until, records, most)
        };
        self.serve_with(end, read);
        let scans = std::mem::take(&mut self.state.lock().scans);
        for (end, table) in scans {
            for partition in Position::default().behind(&end) {
                let mut at = Offset::default();
                while at < end.at(partition) {
                    let segment = read(partition, at, end.at(partition));
                    at = segment.to;
                    table.put_read(&segment);
                }
            }
            table.is_whole();
        }
    }

    fn serve_with(&self, end: &[u64], segment: impl Fn(u32, Offset, Offset) -> Segment) {
        let mut state = self.state.lock();
        let low = Position::new(state.low.clone());
        for question in std::mem::take(&mut state.asked) {
            let (from, oldest, end) = (low.clone(), low.clone(), Position::new(end.to_vec()));
            state.told.insert(question, (Instant::now(), Answer { from, oldest, end, born: None }));
        }
        for ((partition, from), until) in std::mem::take(&mut state.wanted) {
            if from.major >= low.next(partition) {
                state.segments.push(Arc::new(segment(partition, from, until)));
            }
        }
        self.arrived.notify_waiters();
    }

    /// What lies between two offsets, or the beginning of it.
    pub fn segment(
        &self,
        partition: u32,
        from: Offset,
        until: Offset,
        records: Records<'_>,
        most: usize,
    ) -> Segment {
        self.read(false, partition, from, until, records, most)
    }

    fn read<R: Record>(
        &self,
        keyed: bool,
        partition: u32,
        from: Offset,
        until: Offset,
        records: Records<'_, R>,
        most: usize,
    ) -> Segment {
        self.read_shaped(&record::shape(), keyed, partition, from, until, records, most)
    }

    #[expect(clippy::too_many_arguments, reason = "what is read, of what, and how much of it")]
    fn read_shaped<R: Record>(
        &self,
        shape: &Shape,
        keyed: bool,
        partition: u32,
        from: Offset,
        until: Offset,
        records: Records<'_, R>,
        most: usize,
    ) -> Segment {
        let codec: Arc<dyn IdCodec> = Arc::new(VectorCodec);
        let mut draft = SegmentDraft::new(shape, &codec, keyed, &self.memory, partition, from);
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

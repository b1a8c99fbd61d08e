//! The shelf of one log: segments of its source's history, kept while there is room, and what is wanted of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::pool::Pool;
use super::scan::Scan;
use super::wanted::{Places, Questions};
use super::{End, Reader, Unreadable};
use crate::hub::{
    Answer, Found, History, IdCodec, Mark, Memory, Offset, Position, Question, Reclaim, Segment,
    SegmentDraft, Sought, Table,
};
use crate::shape::Shape;

/// The history of one log, as far as it has been read.
pub struct Shelf<R> {
    reader: R,
    shape: Shape,
    codec: Arc<dyn IdCodec>,
    keyed: bool,
    memory: Arc<Memory>,
    pool: Weak<Pool<R>>,
    own: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often the source was created anew: what was asked for before is of no use.
    generation: u64,
    segments: BTreeMap<(u32, Offset), Kept>,
    bytes: usize,
    /// Where the upstream's oldest begins, as far as that was found out.
    low: HashMap<u32, Offset>,
    places: Places,
    questions: Questions,
    /// What of the log's source is read into its table.
    scan: Option<Scan>,
    /// Counts the uses of segments.
    uses: u64,
    /// How far the narrowest reached that was closed because it was full: as far as any does at least.
    narrowest: Option<u64>,
}

struct Kept {
    segment: Arc<Segment>,
    used: u64,
    /// Until then it stays even where room is short, if nobody has looked at it yet: whoever waits for it is to find it.
    stays_until: Instant,
}

/// Something to do at the upstream.
pub(super) struct Job {
    generation: u64,
    what: What,
}

enum What {
    Ask(Question),
    Read { partition: u32, from: Offset, until: Offset },
    Scan { partition: u32, from: Offset, until: Offset },
}

impl<R: Reader> Shelf<R> {
    pub(super) fn new(
        reader: R,
        shape: &Shape,
        codec: &Arc<dyn IdCodec>,
        keyed: bool,
        memory: &Arc<Memory>,
        pool: &Arc<Pool<R>>,
    ) -> Arc<Self> {
        let shelf = Arc::new_cyclic(|own| Self {
            reader,
            shape: shape.clone(),
            codec: Arc::clone(codec),
            keyed,
            memory: Arc::clone(memory),
            pool: Arc::downgrade(pool),
            own: own.clone(),
            state: Mutex::default(),
        });
        let holder: Arc<dyn Reclaim> = shelf.clone();
        memory.register(Arc::downgrade(&holder));
        shelf
    }

    /// Reads a stretch of a partition, and gives each segment to `keep`, which says whether to go on.
    pub(super) async fn read(
        self: &Arc<Self>,
        partition: u32,
        from: Offset,
        until: Offset,
        mut keep: impl FnMut(Segment) -> bool + Send + 'static,
    ) -> Result<End, Unreadable> {
        let mut left = self.stretch();
        let hand_over = move |segment: Segment| {
            let to = segment.to;
            left = left.saturating_sub(segment.size());
            keep(segment) && left > 0 && to < until
        };
        let draft = SegmentDraft::new(&self.shape, &self.codec, self.keyed, &self.memory, partition, from);
        self.reader.read(draft, until, hand_over).await
    }

    /// Takes the next thing to do.
    pub(super) fn take_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let generation = state.generation;
        if let Some(question) = state.questions.take() {
            return Some(Job { generation, what: What::Ask(question) });
        }
        let Some((partition, from, until)) = state.places.take() else {
            let (partition, from, until) = state.scan.as_mut()?.take()?;
            return Some(Job { generation, what: What::Scan { partition, from, until } });
        };
        // What is there already is not read again, but for small pieces: going on behind them would cost more.
        let mut beyond = state.segments.range((partition, from)..(partition + 1, Offset::default()));
        let next = beyond.find(|(_, kept)| kept.segment.is_full());
        let until = next.map_or(until, |(&(_, next), _)| until.min(next));
        let from = if R::COUNTS { state.widen(partition, from, until) } else { from };
        Some(Job { generation, what: What::Read { partition, from, until } })
    }

    pub(super) async fn serve(self: Arc<Self>, job: Job) -> Result<(), Unreadable> {
        match job.what {
            What::Ask(question) => self.answer(job.generation, question).await,
            What::Read { partition, from, until } => {
                let reading = Reading { shelf: &self, generation: job.generation, partition };
                reading.read(from, until).await?;
                // One that failed is for the pool to try again, after a pause.
                if self.state.lock().places.is_wanted(partition) {
                    self.queue();
                }
                Ok(())
            }
            What::Scan { partition, from, until } => self.scan(job.generation, partition, from, until).await,
        }
    }

    /// Reads on for the table. However it ends, the partition can be read again.
    async fn scan(
        self: &Arc<Self>,
        generation: u64,
        partition: u32,
        from: Offset,
        until: Offset,
    ) -> Result<(), Unreadable> {
        let done = Scanning { shelf: self, generation, partition };
        let shelf = Arc::clone(self);
        let keep = move |segment: Segment| {
            let table = shelf.with_scan(generation, |scan| scan.put(&segment)).flatten();
            table.inspect(|table| table.settle()).is_some()
        };
        let end = self.read(partition, from, until, keep).await?;
        if let End::Trimmed(low) = end {
            self.with_scan(generation, |scan| scan.at.advance(Mark { partition, next: low }));
        }
        drop(done);
        // There is one thing to do for each partition that is not through.
        if self.with_scan(generation, |scan| scan.is_wanted(partition)) == Some(true) {
            self.queue();
        }
        self.with_scan(generation, Scan::end);
        Ok(())
    }

    /// Does something with the scan, if it is of the source that there is.
    fn with_scan<T>(&self, generation: u64, with: impl FnOnce(&mut Scan) -> T) -> Option<T> {
        let mut state = self.state.lock();
        if state.generation != generation {
            return None;
        }
        state.scan.as_mut().map(with)
    }

    async fn answer(&self, generation: u64, question: Question) -> Result<(), Unreadable> {
        let at = Instant::now();
        let answer = self.reader.answer(question).await;
        let mut state = self.state.lock();
        if state.generation != generation {
            return Ok(());
        }
        match answer {
            Ok(answer) => {
                state.questions.told(&question, at, answer);
                Ok(())
            }
            Err(error) => {
                state.questions.put_back(&question);
                Err(error)
            }
        }
    }

    /// Takes in what was read, and says whether it is of use still.
    fn put(&self, generation: u64, segment: Segment) -> bool {
        let mut state = self.state.lock();
        if state.generation != generation {
            return false;
        }
        state.put(segment);
        drop(state);
        self.memory.settle();
        true
    }

    /// Bytes that one read may bring: going elsewhere costs the upstream what was fetched ahead, and who wants what was
    /// read wants what follows. But readers go through all partitions side by side, and what is read too early has to go
    /// before it is looked at.
    fn stretch(&self) -> usize {
        let partitions = self.state.lock().places.partitions();
        STRETCH.min(self.memory.limit() / 4 / partitions.max(4))
    }

    fn queue(&self) {
        if let (Some(pool), Some(own)) = (self.pool.upgrade(), self.own.upgrade()) {
            pool.queue(own);
        }
    }
}

/// A read of one partition. However it ends, the partition can be read again.
struct Reading<'s, R: Reader> {
    shelf: &'s Arc<Shelf<R>>,
    generation: u64,
    partition: u32,
}

impl<R: Reader> Reading<'_, R> {
    async fn read(self, from: Offset, until: Offset) -> Result<(), Unreadable> {
        let (shelf, generation) = (Arc::clone(self.shelf), self.generation);
        let keep = move |segment| shelf.put(generation, segment);
        let end = self.shelf.read(self.partition, from, until, keep).await?;
        let mut state = self.shelf.state.lock();
        if let End::Trimmed(low) = end
            && state.generation == self.generation
        {
            state.low.insert(self.partition, low);
            state.places.arrived(self.partition, Offset::default(), low);
        }
        Ok(())
    }
}

impl<R: Reader> Drop for Reading<'_, R> {
    fn drop(&mut self) {
        let mut state = self.shelf.state.lock();
        if state.generation == self.generation {
            state.places.done(self.partition);
        }
    }
}

/// One partition of a scan that is being read.
struct Scanning<'s, R: Reader> {
    shelf: &'s Shelf<R>,
    generation: u64,
    partition: u32,
}

impl<R: Reader> Drop for Scanning<'_, R> {
    fn drop(&mut self) {
        self.shelf.with_scan(self.generation, |scan| scan.busy.remove(&self.partition));
    }
}

impl State {
    fn put(&mut self, segment: Segment) {
        self.uses += 1;
        let (partition, from, to) = (segment.partition, segment.from, segment.to);
        if segment.is_full() {
            let width = to.major - from.major;
            self.narrowest = Some(self.narrowest.map_or(width, |narrowest| narrowest.min(width)));
        }
        for (_, old) in self.segments.extract_if((partition, from)..(partition, to), |_, _| true) {
            self.bytes -= old.segment.size();
        }
        self.bytes += segment.size();
        let (now, waited_for) = (Instant::now(), self.places.arrived(partition, from, to));
        let stays_until = if waited_for { now + STAYS } else { now };
        let kept = Kept { segment: Arc::new(segment), used: self.uses, stays_until };
        self.segments.insert((partition, from), kept);
    }

    /// Where to begin a read that is to end at `until`. A whole segment costs the upstream little more than a part of
    /// one, and those who come back one after the other want places all over: so there are few such reads.
    fn widen(&self, partition: u32, from: Offset, until: Offset) -> Offset {
        let whole = Offset::from(until.major.saturating_sub(self.narrowest.unwrap_or_default()));
        let before = self.segments.range((partition, Offset::default())..(partition, until)).next_back();
        let before = before.map(|(_, kept)| kept.segment.to);
        let low = self.low.get(&partition).copied();
        from.min(whole.max(before.unwrap_or_default()).max(low.unwrap_or_default()))
    }

    /// The segment in which a reader at `from` reads on.
    fn find(&mut self, partition: u32, from: Offset) -> Option<Arc<Segment>> {
        self.uses += 1;
        let uses = self.uses;
        let (&(of, _), kept) = self.segments.range_mut(..=(partition, from)).next_back()?;
        if of != partition || kept.segment.to <= from {
            return None;
        }
        (kept.used, kept.stays_until) = (uses, Instant::now());
        Some(Arc::clone(&kept.segment))
    }
}

impl<R: Reader> History for Shelf<R> {
    fn segment(&self, partition: u32, from: Offset, until: Offset) -> Found<Sought> {
        let mut state = self.state.lock();
        if let Some(segment) = state.find(partition, from) {
            return Found::Here(Sought::Segment(segment));
        }
        if let Some(&low) = state.low.get(&partition)
            && from < low
        {
            return Found::Here(Sought::Trimmed(low));
        }
        let (wake, news) = state.places.want(partition, from, until);
        drop(state);
        if news {
            self.queue();
        }
        Found::Wait(wake)
    }

    fn ask(&self, question: &Question, after: Instant) -> Found<Answer> {
        let asked = self.state.lock().questions.ask(*question, after);
        match asked {
            Ok(answer) => Found::Here(answer),
            Err((wake, news)) => {
                if news {
                    self.queue();
                }
                Found::Wait(wake)
            }
        }
    }

    fn answers_since(&self) -> Option<Instant> {
        self.pool.upgrade()?.answers_since()
    }

    fn counts(&self) -> bool {
        R::COUNTS
    }

    fn scan(&self, end: &Position, into: Arc<Table>) {
        let mut scan = Scan::new(end.clone(), &into);
        let partitions = scan.at.behind(end).count();
        scan.end();
        self.state.lock().scan = Some(scan);
        (0..partitions).for_each(|_| self.queue());
    }

    fn reset(&self) {
        self.reader.begins_anew();
        let mut state = self.state.lock();
        state.generation += 1;
        state.segments.clear();
        (state.bytes, state.narrowest) = (0, None);
        state.low.clear();
        state.places.clear();
        state.questions.clear();
        state.scan = None;
    }
}

impl<R: Reader> Reclaim for Shelf<R> {
    fn held(&self) -> usize {
        self.state.lock().bytes
    }

    fn reclaim(&self, bytes: usize) -> usize {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let mut given = 0;
        while given < bytes {
            let free = state.segments.iter().filter(|(_, kept)| kept.stays_until <= now);
            let oldest = free.min_by_key(|(_, kept)| kept.used).map(|(&place, _)| place);
            let Some(kept) = oldest.and_then(|place| state.segments.remove(&place)) else { break };
            given += kept.segment.size();
            state.bytes -= kept.segment.size();
        }
        given
    }
}

/// How long what nobody has looked at stays.
const STAYS: Duration = Duration::from_secs(1);

/// Bytes that one read may bring where there is room for much.
const STRETCH: usize = 4 << 20;

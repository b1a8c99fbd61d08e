//! Shelves and the pool, over a source that counts how often each record is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::*;
use crate::config::{Digest, Snapshot, Template};
use crate::hub::{
    Decoded, FeedKey, Found, History, IdCodec, Memory, Position, Sought, Source as Reads, Table,
};
use crate::metrics::HistoryMetrics;
use crate::shape::{Record, Shape};

/// Two partitions of a thousand records each.
#[derive(Clone, Default)]
struct Source(Arc<Inner>);

struct Inner {
    /// How often each offset of each partition was read.
    read: Mutex<HashMap<(u32, u64), u32>>,
    asked: AtomicU32,
    /// How many reads there were.
    reads: AtomicU32,
    /// Bytes of each record.
    size: AtomicUsize,
    /// Of so many offsets in a row of partition 1 one is there.
    sparse: AtomicUsize,
    /// How many reads are under way, and the most that ever were.
    under_way: (AtomicUsize, AtomicUsize),
    /// A read takes one; a test that holds some back sees reads wait.
    permits: Semaphore,
    /// What the next reads come to before they succeed.
    troubles: Mutex<Vec<Trouble>>,
    low: Mutex<u64>,
}

enum Trouble {
    Fails,
    Panics,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            read: Mutex::default(),
            asked: AtomicU32::new(0),
            reads: AtomicU32::new(0),
            size: AtomicUsize::new(9),
            sparse: AtomicUsize::new(1),
            under_way: Default::default(),
            permits: Semaphore::new(PERMITS as usize),
            troubles: Mutex::default(),
            low: Mutex::new(0),
        }
    }
}

const PERMITS: u32 = 1_000;
const RECORDS: u64 = 1_000;
/// Bytes of each record where 32 of them fill a segment.
const FULL_OF_32: usize = 16 * 1024;
/// The most records of one segment.
const AT_ONCE: u64 = 50;

impl Reader for Source {
    const COUNTS: bool = true;

    async fn answer(&self, _: Question) -> Result<Answer, Unreadable> {
        drop(self.0.permits.acquire().await);
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let end = Position::new(vec![RECORDS; 2]);
        let oldest = Position::new(vec![*self.0.low.lock(); 2]);
        Ok(Answer { from: oldest.clone(), oldest, end, born: None })
    }

    async fn read(
        &self,
        mut draft: SegmentDraft,
        until: Offset,
        mut hand_over: impl FnMut(Segment) -> bool + Send + 'static,
    ) -> Result<End, Unreadable> {
        let (now, most) = &self.0.under_way;
        most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        drop(self.0.permits.acquire().await);
        now.fetch_sub(1, Ordering::Relaxed);
        match self.0.troubles.lock().pop() {
            Some(Trouble::Fails) => return Err(Unreadable("on purpose".to_owned())),
            Some(Trouble::Panics) => panic!("on purpose"),
            None => {}
        }
        let low = *self.0.low.lock();
        if draft.at().major < low {
            return Ok(End::Trimmed(low.into()));
        }
        loop {
            let (partition, from) = (draft.partition(), draft.at().major);
            let step = if partition == 1 { self.0.sparse.load(Ordering::Relaxed) } else { 1 };
            for offset in (from..until.major).step_by(step).take(AT_ONCE as usize) {
                *self.0.read.lock().entry((partition, offset)).or_default() += 1;
                draft.push(
                    (offset + step as u64).min(until.major).into(),
                    &Text(offset, vec![b'x'; self.0.size.load(Ordering::Relaxed)], offset.to_be_bytes()),
                );
                if draft.is_full() {
                    break;
                }
            }
            if !hand_over(draft.close()) {
                return Ok(End::Read);
            }
        }
    }
}

struct Text(u64, Vec<u8>, [u8; 8]);

impl Record for Text {
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.1)
    }
    fn name(&self) -> &str {
        "test"
    }
    fn timestamp(&self) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(self.0))
    }
    /// Records of an offset have it in common.
    fn header(&self, _: &str) -> Option<&[u8]> {
        Some(&self.2)
    }
}

#[derive(Debug)]
struct Codec;

impl IdCodec for Codec {
    fn encode(&self, _: &Position, _: &mut String) {}
    fn decode(&self, _: &str) -> Decoded {
        Decoded::Unknown
    }
    fn single_order(&self) -> bool {
        false
    }
}

/// A shelf served by so many slots, with so much room; it is served for as long as the set lives.
fn shelf(source: &Source, slots: usize, memory: &Arc<Memory>) -> (Arc<Shelf<Source>>, JoinSet<()>) {
    let (_, shelf, serving) = pool(source, slots, memory);
    (shelf, serving)
}

fn pool(
    source: &Source,
    slots: usize,
    memory: &Arc<Memory>,
) -> (Arc<Pool<Source>>, Arc<Shelf<Source>>, JoinSet<()>) {
    let pool = Pool::new(slots, Arc::clone(memory), HistoryMetrics::default(), |_| {});
    let shelf = another(&pool, source);
    let mut serving = JoinSet::new();
    serving.spawn(Arc::clone(&pool).run());
    (pool, shelf, serving)
}

/// One more shelf of a pool.
fn another(pool: &Arc<Pool<Source>>, source: &Source) -> Arc<Shelf<Source>> {
    let feed = FeedKey { upstream: "u".into(), source: Reads::Topic("t".into()), shape: Shape::default() };
    let codec: Arc<dyn IdCodec> = Arc::new(Codec);
    pool.shelf(source.clone(), &feed, &codec)
}

/// Walks a partition from one offset to another, and returns how many events there were.
async fn walk(shelf: &Shelf<Source>, partition: u32, from: u64, to: u64) -> usize {
    let (mut at, to, mut events) = (Offset::from(from), Offset::from(to), 0);
    while at < to {
        match shelf.segment(partition, at, to) {
            Found::Here(Sought::Segment(segment)) => {
                events += segment.after(at, None).count();
                at = segment.to;
            }
            Found::Here(Sought::Trimmed(to) | Sought::Leads { to, .. }) => at = to,
            Found::Wait(wake) => timeout(LONG, wake).await.expect("a wake was lost"),
        }
    }
    events
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_a_thousand_want_from_a_thousand_places_is_read_about_once() {
    let source = Source::default();
    source.0.size.store(FULL_OF_32, Ordering::Relaxed);
    let (shelf, _serving) = shelf(&source, 4, &Memory::new(usize::MAX));
    let mut readers = JoinSet::new();
    for n in 0..1_000_u64 {
        let (shelf, from) = (Arc::clone(&shelf), n * 7_919 % RECORDS);
        readers.spawn(async move { (from, walk(&shelf, (n % 2) as u32, from, RECORDS).await) });
    }
    while let Some(reader) = readers.join_next().await {
        let (from, events) = reader.unwrap();
        assert_eq!(events as u64, RECORDS - from);
    }
    let read: u32 = source.0.read.lock().values().sum();
    assert!(u64::from(read) < 2 * RECORDS * 5 / 4, "{read} records were read");
    let most = source.0.under_way.1.load(Ordering::Relaxed);
    assert!(most <= 2, "a partition is read by one at a time, and there are {most}");
}

#[tokio::test]
async fn who_comes_later_and_lacks_a_little_more_costs_a_read_only_now_and_then() {
    let source = Source::default();
    source.0.size.store(FULL_OF_32, Ordering::Relaxed);
    let (shelf, _serving) = shelf(&source, 4, &Memory::new(usize::MAX));
    for from in (0..RECORDS).rev() {
        assert_eq!(walk(&shelf, 0, from, RECORDS).await as u64, RECORDS - from);
    }
    let reads = source.0.reads.load(Ordering::Relaxed);
    assert!(u64::from(reads) < RECORDS / 10, "{reads} reads");
}

#[tokio::test]
async fn a_sparse_partition_makes_no_read_of_a_dense_one_begin_far_too_early() {
    let source = Source::default();
    source.0.size.store(FULL_OF_32, Ordering::Relaxed);
    source.0.sparse.store(10_000, Ordering::Relaxed);
    let (shelf, _serving) = shelf(&source, 4, &Memory::new(usize::MAX));
    assert_eq!(walk(&shelf, 1, 0, 1_000_000).await, 100);
    assert_eq!(walk(&shelf, 0, 0, 100).await, 100);
    assert_eq!(walk(&shelf, 0, 999_990, 1_000_000).await, 10);
    assert!(source.0.read.lock().keys().filter(|(partition, _)| *partition == 0).count() <= 100 + 32);
}

#[tokio::test]
async fn questions_of_readers_that_left_are_not_asked() {
    let source = Source::default();
    let all = source.0.permits.acquire_many(PERMITS).await.unwrap();
    let (shelf, _serving) = shelf(&source, 1, &Memory::new(usize::MAX));
    let at = |second| Question::At(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    for second in 0..1_000 {
        assert!(matches!(shelf.ask(&at(second), Instant::now()), Found::Wait(_)));
    }
    let Found::Wait(stays) = shelf.ask(&at(1_000), Instant::now()) else { panic!("nothing is known") };
    drop(all);
    timeout(LONG, stays).await.expect("it is answered");
    assert!(source.0.asked.load(Ordering::Relaxed) <= 2, "who is asked for first was asked for");
}

#[tokio::test(start_paused = true)]
async fn reads_are_counted_while_they_wait_and_by_how_they_end() {
    let (source, metrics) = (Source::default(), HistoryMetrics::default());
    source.0.troubles.lock().push(Trouble::Fails);
    let all = source.0.permits.acquire_many(PERMITS).await.unwrap();
    let pool = Pool::new(1, Memory::new(usize::MAX), metrics.clone(), |_| {});
    let shelves = [another(&pool, &source), another(&pool, &source)];
    let mut serving = JoinSet::new();
    serving.spawn(Arc::clone(&pool).run());
    let until = async |queued, running| {
        let stands = async {
            while (metrics.queued.get(), metrics.running.get()) != (queued, running) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, stands).await.expect("reads are counted");
    };
    for shelf in &shelves {
        assert!(matches!(shelf.segment(0, Offset::default(), RECORDS.into()), Found::Wait(_)));
    }
    until(1, 1).await;
    drop(all);
    for shelf in &shelves {
        assert_eq!(walk(shelf, 0, 0, RECORDS).await as u64, RECORDS);
    }
    until(0, 0).await;
    assert_eq!((metrics.failed.get(), metrics.read.get()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_leaves_the_others_their_turn() {
    let (good, bad) = (Source::default(), Source::default());
    bad.0.troubles.lock().extend((0..10_000).map(|_| Trouble::Fails));
    let (pool, shelf, _serving) = pool(&bad, 1, &Memory::new(usize::MAX));
    let Found::Wait(_wanted) = shelf.segment(0, 0.into(), 9.into()) else { panic!("nothing is there") };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bad.0.reads.load(Ordering::Relaxed) <= 121, "one read in half a second");
    let other = another(&pool, &good);
    let began = Instant::now();
    assert_eq!(walk(&other, 0, 0, 9).await, 9);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_was_read_before_it_was_trimmed_is_still_given() {
    let source = Source::default();
    let (shelf, _serving) = shelf(&source, 1, &Memory::new(usize::MAX));
    assert_eq!(walk(&shelf, 0, 0, 50).await, 50);
    *source.0.low.lock() = 600;
    assert_eq!(walk(&shelf, 0, 60, 650).await, 50);
    assert_eq!(walk(&shelf, 0, 0, 650).await, 100);
}

#[tokio::test]
async fn small_pieces_are_read_over() {
    let source = Source::default();
    let (shelf, _serving) = shelf(&source, 4, &Memory::new(usize::MAX));
    for from in (0..RECORDS).step_by(20) {
        assert_eq!(walk(&shelf, 0, from, from + 10).await, 10);
    }
    let before = source.0.reads.load(Ordering::Relaxed);
    for from in [0, 5, 500] {
        assert_eq!(walk(&shelf, 0, from, RECORDS).await as u64, RECORDS - from);
    }
    assert_eq!(source.0.reads.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn what_has_to_make_room_is_read_again() {
    let source = Source::default();
    let memory = Memory::new(usize::MAX);
    // Less than a segment takes: each makes room for the next, and is there until it has been looked at.
    let part = memory.part(1_000);
    let (shelf, _serving) = shelf(&source, 2, &part);
    for _ in 0..2 {
        assert_eq!(walk(&shelf, 0, 0, RECORDS).await as u64, RECORDS);
        assert!(part.used() < 20_000 && memory.used() == part.used(), "{} {}", part.used(), memory.used());
    }
    assert!(source.0.read.lock().values().all(|&times| times == 2));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_or_panics_is_tried_again_and_stops_the_clock() {
    let source = Source::default();
    source.0.troubles.lock().extend([Trouble::Fails, Trouble::Panics]);
    let (shelf, _serving) = shelf(&source, 1, &Memory::new(usize::MAX));
    assert!(shelf.answers_since().is_some());
    let Found::Wait(first) = shelf.segment(1, 10.into(), 20.into()) else { panic!("nothing is there yet") };
    while shelf.answers_since().is_some() {
        tokio::task::yield_now().await;
    }
    timeout(LONG, first).await.expect("it is read in the end");
    assert!(shelf.answers_since().is_some());
    assert_eq!(walk(&shelf, 1, 10, 20).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_question_of_many_is_asked_once_and_an_old_answer_is_none() {
    let source = Source::default();
    let (shelf, _serving) = shelf(&source, 4, &Memory::new(usize::MAX));
    let came = Instant::now();
    let questions = [Question::Bounds; 3];
    for question in &questions {
        let Found::Wait(wake) = shelf.ask(question, came) else { continue };
        timeout(LONG, wake).await.expect("it is answered");
    }
    assert!(questions.iter().all(|question| matches!(shelf.ask(question, came), Found::Here(_))));
    assert_eq!(source.0.asked.load(Ordering::Relaxed), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let Found::Wait(wake) = shelf.ask(&Question::Bounds, Instant::now()) else { panic!("that is not known") };
    timeout(LONG, wake).await.expect("it is answered");
    assert_eq!(source.0.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_was_asked_of_a_source_that_is_gone_is_of_no_use() {
    let source = Source::default();
    let all = source.0.permits.acquire_many(PERMITS).await.unwrap();
    let (shelf, _serving) = shelf(&source, 4, &Memory::new(usize::MAX));
    let Found::Wait(of_the_old) = shelf.segment(0, 0.into(), 9.into()) else { panic!("nothing is there") };
    let Found::Wait(answer) = shelf.ask(&Question::Bounds, Instant::now()) else {
        panic!("nothing is known")
    };
    while source.0.under_way.0.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    shelf.reset();
    timeout(LONG, of_the_old).await.expect("nobody waits for the old one");
    timeout(LONG, answer).await.expect("nobody waits for the old one");
    drop(all);
    assert_eq!(walk(&shelf, 0, 0, 9).await, 9);
    assert_eq!(source.0.read.lock()[&(0, 0)], 2, "the new one is read for itself");
}

#[tokio::test]
async fn what_was_trimmed_is_known_to_all_who_come_later() {
    let source = Source::default();
    *source.0.low.lock() = 600;
    let (shelf, _serving) = shelf(&source, 1, &Memory::new(usize::MAX));
    assert_eq!(walk(&shelf, 0, 100, RECORDS).await, 400);
    assert!(
        matches!(shelf.segment(0, 5.into(), 9.into()), Found::Here(Sought::Trimmed(low)) if low == 600.into())
    );
}

#[tokio::test]
async fn a_fill_is_the_newest_of_each_partition_without_a_hole() {
    let source = Source::default();
    let (pool, shelf, _serving) = pool(&source, 2, &Memory::new(usize::MAX));
    let (from, end) = (Position::new(vec![RECORDS - 200, RECORDS]), Position::new(vec![RECORDS; 2]));
    let whole = fill(&pool, &shelf, &from, &end, usize::MAX).await;
    assert_eq!(whole.start, from);
    assert_eq!(whole.segments.iter().map(|segment| segment.entries().len()).sum::<usize>(), 200);
    // As much as there is room for, and whole reads.
    let part = fill(&pool, &shelf, &Position::default(), &end, 3_000).await;
    for partition in 0..2 {
        let mut own = part.segments.iter().filter(|segment| segment.partition == partition);
        let first = own.next().unwrap();
        assert_eq!(first.from, part.start.at(partition));
        assert!(first.from > Offset::default(), "not all of it fits");
        assert_eq!(own.fold(first.to, |at, next| if next.from == at { next.to } else { at }), RECORDS.into());
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_read_does_not_hold_up_a_fill() {
    let source = Source::default();
    source.0.troubles.lock().extend((0..1_000).map(|_| Trouble::Fails));
    let (pool, shelf, _serving) = pool(&source, 1, &Memory::new(usize::MAX));
    let end = Position::new(vec![RECORDS, 0]);
    let fill = fill(&pool, &shelf, &Position::default(), &end, usize::MAX).await;
    assert!(fill.segments.is_empty());
    assert_eq!(fill.start, end);
}

/// What a log's table is made of comes by the same slots, and each record once, whatever fails meanwhile.
#[tokio::test(start_paused = true)]
async fn a_scan_reads_all_there_is_once_and_is_tried_again() {
    let (source, memory) = (Source::default(), Memory::new(usize::MAX));
    *source.0.troubles.lock() = vec![Trouble::Fails, Trouble::Panics, Trouble::Fails];
    *source.0.low.lock() = 100;
    let (pool, _, _serving) = pool(&source, 2, &memory);
    let snapshot =
        Snapshot { by: Template::parse("{header.n}").unwrap(), max_keys: 10_000, max_bytes: 1 << 30 };
    let digest = Digest { snapshot: Some(snapshot.clone()), ..Digest::default() };
    let shape = Shape { digest: digest.into(), ..Shape::default() };
    let feed = FeedKey { upstream: "u".into(), source: Reads::Topic("t".into()), shape };
    let codec: Arc<dyn IdCodec> = Arc::new(Codec);
    let shelf = pool.shelf(source.clone(), &feed, &codec);
    let table = Table::new(&snapshot, &memory);
    table.begin(Arc::default(), false);
    shelf.scan(&Position::new(vec![RECORDS, 500]), Arc::clone(&table));
    while !table.held().is_whole {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(table.held().keys, 900, "each offset is a key");
    {
        let read = source.0.read.lock();
        assert!(read.values().all(|&times| times == 1));
        assert_eq!(read.len(), 900 + 400, "from where they begin, to where the log does");
    }

    // One whose log is let go is read no further.
    source.0.permits.acquire_many(PERMITS).await.unwrap().forget();
    let table = Table::new(&snapshot, &memory);
    table.begin(Arc::default(), false);
    let before = source.0.reads.load(Ordering::Relaxed);
    shelf.scan(&Position::new(vec![RECORDS; 2]), Arc::clone(&table));
    drop(table);
    source.0.permits.add_permits(PERMITS as usize);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(source.0.reads.load(Ordering::Relaxed) - before <= 2);
}

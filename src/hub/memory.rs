//! The budget `limits.memory`: what all logs together hold, counted until the last reader has let go.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Something that can give memory back.
pub trait Reclaim: Send + Sync {
    /// Bytes that it holds now.
    fn held(&self) -> usize;
    /// Lets go of at least `bytes` of its oldest, or of all it can; returns what was let go.
    fn reclaim(&self, bytes: usize) -> usize;
}

/// Counts bytes against a limit, and takes them from the fattest log when there are too many.
pub struct Memory {
    limit: usize,
    used: AtomicUsize,
    /// The least that was in use since the holders had nothing left to give; 0 when they may have.
    in_vain: AtomicUsize,
    /// When that was.
    tried: Mutex<Instant>,
    holders: Mutex<Vec<Weak<dyn Reclaim>>>,
    /// The budget of which this is a part.
    whole: Option<Arc<Memory>>,
}

impl Memory {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Self::within(limit, None)
    }

    /// A budget of `limit` bytes within this one: what counts there counts here, too.
    pub fn part(self: &Arc<Self>, limit: usize) -> Arc<Self> {
        Self::within(limit, Some(Arc::clone(self)))
    }

    fn within(limit: usize, whole: Option<Arc<Self>>) -> Arc<Self> {
        let (used, in_vain) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let tried = Mutex::new(Instant::now());
        Arc::new(Self { limit, used, in_vain, tried, holders: Mutex::default(), whole })
    }

    /// Bytes in use, those that only a reader still holds included.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Makes `holder` one of those that are asked to give back, here and in the whole.
    pub fn register(&self, holder: Weak<dyn Reclaim>) {
        self.register_here(Weak::clone(&holder));
        if let Some(whole) = &self.whole {
            whole.register(holder);
        }
    }

    /// The same here alone: what it holds is not given up for what others want of the whole.
    pub fn register_here(&self, holder: Weak<dyn Reclaim>) {
        let mut holders = self.holders.lock();
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
            // Room for as many again: the next search for those that are gone is as far away as it is long.
            let count = holders.len();
            holders.shrink_to(2 * count + 1);
            holders.reserve(count + 1);
        }
        holders.push(holder);
    }

    /// Wraps `data` so that `data.len() + overhead` bytes count as used until the last clone or slice is
    /// dropped.
    pub fn charge(self: &Arc<Self>, data: Vec<u8>, overhead: usize) -> Bytes {
        let bytes = data.len() + overhead;
        self.add(bytes);
        Bytes::from_owner(Charged { data: data.into_boxed_slice(), bytes, memory: Arc::clone(self) })
    }

    /// Counts bytes that are kept elsewhere until what is returned is dropped; `None` where there is no room.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        self.add(bytes);
        let reserved = Reserved { bytes, memory: Arc::clone(self) };
        (self.used() <= self.limit).then_some(reserved)
    }

    /// Counts bytes that are kept elsewhere and come and go: none at first.
    pub fn count(self: &Arc<Self>) -> Reserved {
        Reserved { bytes: 0, memory: Arc::clone(self) }
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.add(bytes);
        }
    }

    fn take(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.take(bytes);
        }
    }

    /// Brings the use under the limit again as far as the holders can: the fattest gives first, and what
    /// readers still hold of it does not help. Makes some room more, and where too little was given rests a moment, so
    /// that not every append has to ask all holders. Called after an append and a read, with no lock of a holder held.
    pub fn settle(&self) {
        if let Some(whole) = &self.whole {
            whole.settle();
        }
        if !self.rests(self.used()) {
            self.settle_now();
        }
    }

    /// The same, even if it was in vain a moment ago: afterwards what is over the limit is held by readers.
    pub fn settle_now(&self) {
        if self.used() <= self.limit {
            return;
        }
        let goal = self.limit - self.limit / 32;
        let holders: Vec<_> = self.holders.lock().iter().filter_map(Weak::upgrade).collect();
        let mut holders: Vec<_> = holders.into_iter().map(|holder| (holder.held(), holder)).collect();
        holders.sort_unstable_by_key(|(held, _)| Reverse(*held));
        // What was given may be held by readers still: whoever has given something is asked again.
        while !holders.is_empty() {
            holders.retain(|(_, holder)| {
                let excess = self.used().saturating_sub(goal);
                excess > 0 && holder.reclaim(excess) > 0
            });
        }
        let left = self.used();
        if left > self.limit {
            *self.tried.lock() = Instant::now();
            self.in_vain.store(left, Ordering::Relaxed);
        }
    }

    /// Whether it was in vain a moment ago, and not much has come since.
    fn rests(&self, used: usize) -> bool {
        match self.in_vain.load(Ordering::Relaxed) {
            0 => false,
            _ if used <= self.limit => {
                self.in_vain.store(0, Ordering::Relaxed);
                false
            }
            _ => {
                let least = self.in_vain.fetch_min(used, Ordering::Relaxed).min(used);
                used < least + self.limit / 32 && self.tried.lock().elapsed() < REST
            }
        }
    }
}

/// How long holders that had too little to give are not asked.
const REST: Duration = Duration::from_millis(100);

struct Charged {
    data: Box<[u8]>,
    bytes: usize,
    memory: Arc<Memory>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.memory.take(self.bytes);
    }
}

/// Bytes that count as used until this is dropped.
pub struct Reserved {
    bytes: usize,
    memory: Arc<Memory>,
}

impl Reserved {
    /// From now on it is so many, if there is room for that; where there is none it stays as it was.
    pub fn fit(&mut self, bytes: usize) -> bool {
        let before = self.bytes;
        self.set(bytes);
        let fits = bytes <= before || self.memory.used() <= self.memory.limit;
        if !fits {
            self.set(before);
        }
        fits
    }

    /// From now on it is so many.
    pub fn set(&mut self, bytes: usize) {
        self.memory.add(bytes);
        self.memory.take(std::mem::replace(&mut self.bytes, bytes));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.take(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_counts_until_it_is_given_back_and_never_goes_over_the_limit() {
        let memory = Memory::new(1_000);
        let part = memory.part(100);
        let first = part.reserve(60);
        assert!(first.is_some() && part.reserve(41).is_none());
        let second = part.reserve(40);
        assert!(second.is_some());
        assert_eq!((part.used(), memory.used()), (100, 100));
        let (first, mut second) = (first, second.unwrap());
        assert!(!second.fit(41) && second.fit(30) && second.fit(40));
        assert_eq!((part.used(), memory.used()), (100, 100));
        drop((first, second));
        assert_eq!((part.used(), memory.used()), (0, 0));
    }

    /// Counts how often it is asked what it holds, and gives that, if it is willing.
    #[derive(Default)]
    struct Full {
        holds: Mutex<Option<Bytes>>,
        unwilling: bool,
        asked: AtomicUsize,
    }

    impl Full {
        fn of(memory: &Arc<Memory>, unwilling: bool) -> Arc<Self> {
            let holder = Arc::new(Self { unwilling, ..Self::default() });
            let registered: Arc<dyn Reclaim> = holder.clone();
            memory.register(Arc::downgrade(&registered));
            holder
        }

        fn hold(&self, memory: &Arc<Memory>, bytes: usize) {
            *self.holds.lock() = Some(memory.charge(vec![0; bytes], 0));
        }
    }

    impl Reclaim for Full {
        fn held(&self) -> usize {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.holds.lock().as_ref().map_or(0, Bytes::len)
        }

        fn reclaim(&self, _bytes: usize) -> usize {
            let given = if self.unwilling { None } else { self.holds.lock().take() };
            given.map_or(0, |bytes| bytes.len())
        }
    }

    #[test]
    fn one_that_gives_nothing_is_no_reason_not_to_ask_the_others() {
        let memory = Memory::new(1_000);
        let (fat, lean) = (Full::of(&memory, true), Full::of(&memory, false));
        fat.hold(&memory, 700);
        lean.hold(&memory, 400);
        memory.settle();
        assert_eq!(memory.used(), 700);
    }

    #[tokio::test(start_paused = true)]
    async fn holders_that_had_nothing_to_give_are_asked_again_a_moment_later_or_when_there_is_more() {
        let memory = Memory::new(3_200);
        let holder = Full::of(&memory, false);
        let asked = || {
            memory.settle();
            holder.asked.swap(0, Ordering::Relaxed) > 0
        };
        let reader = |bytes| memory.charge(vec![0; bytes], 0);
        let _first = reader(3_200);
        assert!(!asked(), "it is not over the limit");
        let _second = reader(1_000);
        assert!(asked());
        let _third = reader(99);
        assert!(!asked(), "there was nothing a moment ago");
        let _fourth = reader(1);
        assert!(asked(), "much has come since");
        holder.hold(&memory, 10);
        assert!(!asked());
        tokio::time::advance(REST).await;
        assert!(asked() && memory.used() == 4_300, "it has given that");
    }

    #[test]
    fn who_is_registered_in_a_part_alone_gives_nothing_to_others() {
        let memory = Memory::new(1_000);
        let part = memory.part(500);
        let holder = Arc::new(Full::default());
        let registered: Arc<dyn Reclaim> = holder.clone();
        part.register_here(Arc::downgrade(&registered));
        holder.hold(&part, 400);
        let reader = memory.charge(vec![0; 700], 0);
        memory.settle();
        part.settle();
        assert_eq!(memory.used(), 1_100);
        drop(reader);
        let _another = part.charge(vec![0; 200], 0);
        part.settle();
        assert_eq!((part.used(), memory.used()), (200, 200));
    }

    struct Idle;

    impl Reclaim for Idle {
        fn held(&self) -> usize {
            0
        }

        fn reclaim(&self, _bytes: usize) -> usize {
            0
        }
    }

    #[test]
    fn holders_that_are_gone_are_forgotten_and_the_others_are_not() {
        let memory = Memory::new(1);
        let part = memory.part(1);
        let stay: [Arc<dyn Reclaim>; 100] = std::array::from_fn(|_| Arc::new(Idle) as _);
        for holder in &stay {
            part.register(Arc::downgrade(holder));
            for _ in 0..100 {
                part.register(Arc::downgrade(&(Arc::new(Idle) as Arc<dyn Reclaim>)));
            }
        }
        for memory in [&memory, &part] {
            let holders = memory.holders.lock();
            assert_eq!(holders.iter().filter(|holder| holder.strong_count() > 0).count(), stay.len());
            assert!(holders.len() < 4 * stay.len(), "{} are remembered", holders.len());
        }
    }
}

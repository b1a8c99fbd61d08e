//! The budget `limits.memory`: what all logs together hold, counted until the last reader has let go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

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
    holders: Mutex<Vec<Weak<dyn Reclaim>>>,
    /// The budget of which this is a part.
    whole: Option<Arc<Memory>>,
}

impl Memory {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), holders: Mutex::default(), whole: None })
    }

    /// A budget of `limit` bytes within this one: what counts there counts here, too.
    pub fn part(self: &Arc<Self>, limit: usize) -> Arc<Self> {
        let whole = Some(Arc::clone(self));
        Arc::new(Self { limit, used: AtomicUsize::new(0), holders: Mutex::default(), whole })
    }

    /// Bytes in use, those that only a reader still holds included.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Makes `holder` one of those that are asked to give back.
    pub fn register(&self, holder: Weak<dyn Reclaim>) {
        let mut holders = self.holders.lock();
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
            // Room for as many again: the next search for those that are gone is as far away as it is long.
            let count = holders.len();
            holders.shrink_to(2 * count + 1);
            holders.reserve(count + 1);
        }
        holders.push(Weak::clone(&holder));
        drop(holders);
        if let Some(whole) = &self.whole {
            whole.register(holder);
        }
    }

    /// Wraps `data` so that `data.len() + overhead` bytes count as used until the last clone or slice is
    /// dropped.
    pub fn charge(self: &Arc<Self>, data: Vec<u8>, overhead: usize) -> Bytes {
        let bytes = data.len() + overhead;
        self.add(bytes);
        Bytes::from_owner(Charged { data: data.into_boxed_slice(), bytes, memory: Arc::clone(self) })
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
    /// readers still hold of it does not help. Makes some room more, so that not every append has to ask all
    /// holders once the limit is reached. Called after an append, with no lock of a holder held.
    pub fn settle(&self) {
        if let Some(whole) = &self.whole {
            whole.settle();
        }
        if self.used() <= self.limit {
            return;
        }
        let goal = self.limit - self.limit / 32;
        let holders: Vec<_> = self.holders.lock().iter().filter_map(Weak::upgrade).collect();
        loop {
            let excess = self.used().saturating_sub(goal);
            let fattest = holders.iter().max_by_key(|holder| holder.held());
            if excess == 0 || fattest.is_none_or(|fattest| fattest.reclaim(excess) == 0) {
                return;
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

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

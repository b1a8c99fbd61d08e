//! How much a log holds, and what it lets go of: what is beyond its bounds or too old, and more where memory is short.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Log;
use crate::hub::memory::{Memory, Reclaim};
use crate::hub::ring::Bounds;
use crate::hub::table::Tabled;

/// What a log holds, for `/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Events.
    pub events: usize,
    /// Bytes, index and bookkeeping included.
    pub bytes: usize,
}

impl Log {
    /// How much it is to hold.
    pub fn bounds(&self) -> Bounds {
        *self.bounds.lock()
    }

    /// Makes room for just so much. What is too much goes with the next look for what is old.
    pub fn bound(&self, bounds: Bounds) {
        *self.bounds.lock() = bounds;
    }

    /// Makes room for the larger of the present bounds and these.
    pub fn widen(&self, bounds: Bounds) {
        let mut own = self.bounds.lock();
        *own = own.max(bounds);
    }

    /// Lets go of what is too old.
    pub fn sweep(&self, now: Instant) {
        let bounds = *self.bounds.lock();
        if let Some(open) = self.open.lock().as_mut() {
            open.evict(&bounds, self.attended(), now);
            open.ring.forget_old_runs(now);
        }
        self.table.iter().for_each(|table| table.sweep(now));
    }

    /// The budget that it counts in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// What it holds.
    pub fn held(&self) -> Held {
        let (open, waiting) = (self.open.lock(), self.waiting.load(Ordering::Relaxed));
        open.as_ref().map_or(Held::default(), |open| Held {
            events: open.ring.events(),
            bytes: open.ring.bytes() + waiting,
        })
    }

    /// Records that newer ones of their keys replaced so far; `None` where it does not conflate.
    pub fn replaced(&self) -> Option<u64> {
        self.shape.digest.conflate.as_ref().map(|_| self.replaced.load(Ordering::Relaxed))
    }

    /// What its table holds, if it has one.
    pub fn tabled(&self) -> Option<Tabled> {
        self.table.as_ref().map(|table| table.held())
    }

    /// For how long no event has come in: since there is the log, if none ever has.
    pub fn silent_for(&self) -> Duration {
        let newest = self.open.lock().as_ref().and_then(|open| open.ring.newest());
        newest.unwrap_or(self.made).elapsed()
    }
}

impl Reclaim for Log {
    fn held(&self) -> usize {
        Self::held(self).bytes
    }

    fn reclaim(&self, bytes: usize) -> usize {
        let mut given = 0;
        // What waits is appended, so that the oldest may go. Whoever appends just now is not waited for.
        if self.waiting.load(Ordering::Relaxed) > 0
            && let Some(mut writer) = self.writer.try_lock()
            && let Some(writer) = writer.as_mut()
        {
            let batch = writer.flush(Instant::now());
            let (_, news) = self.push(writer, batch);
            news.into_iter().for_each(|news| self.tell(news));
        }
        if let Some(open) = self.open.lock().as_mut() {
            given += open.ring.forget_runs();
            while given < bytes {
                match open.ring.evict_oldest() {
                    0 => break,
                    size => given += size,
                }
            }
            open.codec.forgets(open.ring.floor_position());
        }
        given
    }
}

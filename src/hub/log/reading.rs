//! What readers ask of a log: to read on at their cursors, and to be woken.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Log, Open};
use crate::hub::cursor::{Cursor, Read, Step, View};
use crate::hub::wake::Wake;

impl Log {
    /// Reads on at `cursor`, at most `max` bytes unless a single event is larger.
    pub fn read(&self, cursor: &mut Cursor, max: usize) -> Read {
        let mut looked = 0;
        loop {
            let Some(step) = self.with_view(|view| cursor.read(view, max)) else { return Read::Pending };
            // Reading makes runs.
            self.memory.settle();
            let sift = match step {
                Step::Read(read) => return read,
                Step::Replay(floor) => return cursor.replay(&floor, &self.shape.control_prefix, max),
                Step::Sift(sift) => sift,
            };
            if let Some(read) = cursor.sift(&sift) {
                return read;
            }
            looked += sift.bytes.len();
            if looked >= max {
                return Read::Pieces { bytes: Vec::new(), events: 0, times: None };
            }
        }
    }

    /// See [`Cursor::moved_on`].
    pub fn moved_on(&self, cursor: &mut Cursor) -> Option<Bytes> {
        self.with_view(|view| cursor.moved_on(view)).flatten()
    }

    fn with_view<T>(&self, read: impl FnOnce(&mut View<'_>) -> T) -> Option<T> {
        let mut open = self.open.lock();
        let Open { ring, codec, history, at } = open.as_mut()?;
        let (prefix, history) = (&*self.shape.control_prefix, history.as_ref());
        let (reached, table, now) = (self.wake.reached(), self.table.as_ref(), Instant::now());
        Some(read(&mut View { ring, reached, codec, prefix, history, table, now, opened: *at }))
    }

    /// A reader leaves: nobody is to be woken for it.
    pub fn unwatch(&self, cursor: &Cursor) {
        let Some(key) = cursor.watched() else { return };
        if let Some(open) = self.open.lock().as_mut()
            && let Some((index, floor)) = open.ring.index()
        {
            index.unwatch(key, floor);
        }
    }

    /// What ends the wait of a reader that found nothing.
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Counts a reader in.
    pub fn join(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reader out.
    pub fn leave(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }
}

//! How many feeds may be kept for one purpose, such as a route whose feeds clients name by their paths. The hub counts,
//! under its own lock.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on the number of feeds, how many of them there are, and how many of these nobody reads.
#[derive(Debug)]
pub struct Quota {
    most: AtomicUsize,
    kept: AtomicUsize,
    idle: AtomicUsize,
}

impl Quota {
    /// Room for `most`.
    pub fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), kept: AtomicUsize::new(0), idle: AtomicUsize::new(0) }
    }

    /// How many it allows.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// From now on it allows `most`. Those beyond make way when new ones come.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept() >= self.most()
    }

    /// Whether there may be one that could make way: where there is none, nobody has to look.
    pub(super) fn has_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// There is another one, which nobody reads yet.
    pub(super) fn add(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
        self.left();
    }

    /// One is gone that nobody read.
    pub(super) fn remove(&self) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
        self.joined();
    }

    /// One has its first reader.
    pub(super) fn joined(&self) {
        self.idle.fetch_sub(1, Ordering::Relaxed);
    }

    /// One has lost its last reader.
    pub(super) fn left(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
    }
}

//! What is known of each topic for as long as the process runs: sessions come and go, while logs and those who read
//! their history stay.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::id::Incarnation;
use super::topic_id::TopicId;

/// The topics of one cluster.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Arc<str>, Arc<Facts>>>);

/// What is known of one topic.
#[derive(Debug, Default)]
pub(super) struct Facts {
    partitions: AtomicUsize,
    incarnation: Mutex<Incarnation>,
    another: AtomicBool,
}

impl Known {
    /// What is known of this topic.
    pub(super) fn topic(&self, name: &Arc<str>) -> Arc<Facts> {
        Arc::clone(self.0.lock().entry(Arc::clone(name)).or_default())
    }
}

impl Facts {
    /// How many partitions it has.
    pub(super) fn partitions(&self) -> usize {
        self.partitions.load(Ordering::Relaxed)
    }

    /// It has so many partitions.
    pub(super) fn has_partitions(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// Which topic of its name it is.
    pub(super) fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock()
    }

    /// It was created anew, or its offsets went back, and no id says so.
    pub(super) fn is_made_anew(&self) {
        self.incarnation.lock().count += 1;
    }

    /// It has this id. Returns whether it is another topic than it was.
    pub(super) fn has_id(&self, id: TopicId) -> bool {
        let is_another = self.incarnation.lock().id.replace(id).is_some_and(|before| before != id);
        self.another.fetch_or(is_another, Ordering::Relaxed);
        is_another
    }

    /// Whether it is another topic than its logs were read from. A session may end before they have begun anew.
    pub(super) fn is_another(&self) -> bool {
        self.another.load(Ordering::Relaxed)
    }

    /// Its logs are read from the topic that it is now.
    pub(super) fn is_read(&self) {
        self.another.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_topic_is_another_is_known_until_its_logs_are_read_from_it() {
        let (facts, [one, two]) = (Facts::default(), [1, 2].map(|byte| TopicId([byte; 16])));
        assert!(!facts.has_id(one) && !facts.is_another());
        assert!(facts.has_id(two));
        // A session that comes after one which was cut off asks again.
        assert!(!facts.has_id(two) && facts.is_another());
        facts.is_read();
        assert!(!facts.is_another());
    }
}

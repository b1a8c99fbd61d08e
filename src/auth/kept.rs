//! What a task keeps up to date, and what configurations that follow each other share. The task ends with the last of
//! those who have it.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Something with its task.
pub(super) struct Kept<T> {
    what: Arc<T>,
    task: Mutex<JoinSet<()>>,
}

impl<T> Kept<T> {
    /// Without its task.
    pub fn new(what: Arc<T>) -> Arc<Self> {
        Arc::new(Self { what, task: Mutex::default() })
    }

    /// Starts its task, unless it runs.
    pub fn start<F: Future<Output = ()> + Send + 'static>(&self, run: impl FnOnce(Arc<T>) -> F) {
        let mut task = self.task.lock();
        if task.is_empty() {
            task.spawn(run(Arc::clone(&self.what)));
        }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.what
    }
}

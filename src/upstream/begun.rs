//! Whether what was wanted at first has begun, of sources that are read by a task each.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The tasks of one session, of which the first are waited for.
pub(super) struct Begun {
    /// One permit for each task that has begun.
    permits: Arc<Semaphore>,
    /// How many are waited for; `None` before it is known what is wanted.
    first: Option<u32>,
}

/// For one task, to say that it has begun, or was refused.
pub(super) struct Begins(Option<Arc<Semaphore>>);

impl Begun {
    /// Of a session that has just begun.
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)), first: None }
    }

    /// For another task.
    pub(super) fn begins(&self) -> Begins {
        Begins(Some(Arc::clone(&self.permits)))
    }

    /// So many are wanted. What is said first counts.
    pub(super) fn are(&mut self, tasks: usize) {
        self.first.get_or_insert(u32::try_from(tasks).unwrap_or(DONE));
    }

    /// Ends, once, when those that are waited for have begun. May be cancelled.
    pub(super) async fn all(&mut self) {
        let Some(first) = self.first.filter(|first| *first < DONE) else {
            return std::future::pending().await;
        };
        // It is never closed.
        let _ = self.permits.acquire_many(first).await;
        self.first = Some(DONE);
    }
}

impl Begins {
    /// It has begun, or was refused. Said again it means nothing.
    pub(super) fn now(&mut self) {
        self.0.take().iter().for_each(|permits| permits.add_permits(1));
    }
}

/// More than there are tasks.
const DONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_are_waited_for_and_no_others() {
        let mut begun = Begun::new();
        assert!(begun.all().now_or_never().is_none(), "it is not known yet how many");
        let mut tasks = [begun.begins(), begun.begins()];
        begun.are(2);
        tasks[0].now();
        tasks[0].now();
        begun.are(0);
        assert!(begun.all().now_or_never().is_none());
        tasks[1].now();
        assert!(begun.all().now_or_never().is_some());
        assert!(begun.all().now_or_never().is_none(), "that is said once");
        let mut none = Begun::new();
        none.are(0);
        assert!(none.all().now_or_never().is_some());
    }
}

//! A client that takes nothing of an answer's body: its task would never see that by itself, for hyper asks for more of a
//! body only when the client has taken some. So another one watches, and ends it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::supervise::Slot;

/// Watches one body for as long as it is there.
pub struct Stall {
    /// Since when the client has not asked for more than it was handed.
    handed: Arc<Mutex<Option<Instant>>>,
    watch: AbortHandle,
}

impl Stall {
    /// A client that takes nothing for `limit` has the task ended that this is called in. `what` is what it takes nothing of.
    pub fn watch(limit: Duration, what: &'static str) -> Self {
        let (handed, task) = (Arc::<Mutex<_>>::default(), Slot::current());
        let stalled = stalled(Arc::clone(&handed), limit);
        let watch = tokio::spawn(async move {
            stalled.await;
            tracing::debug!("a client takes nothing of {what}, and is ended");
            task.kill();
        });
        Self { handed, watch: watch.abort_handle() }
    }

    /// More was asked for; and something was handed over, or nothing was there.
    pub fn asked(&self, handed: bool) {
        *self.handed.lock() = handed.then(Instant::now);
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Ends once nobody has asked for more for so long.
async fn stalled(handed: Arc<Mutex<Option<Instant>>>, limit: Duration) {
    loop {
        let since = *handed.lock();
        match since {
            Some(at) if at.elapsed() >= limit => return,
            Some(at) => sleep_until(at + limit).await,
            None => sleep(limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_stall_begins_when_something_was_handed_and_ends_when_more_is_asked_for() {
        let handed = Arc::<Mutex<_>>::default();
        let began = Instant::now();
        let reading = async {
            for (wait, at) in [(100, true), (29, false), (40, true), (29, true)] {
                sleep(wait * SECOND).await;
                *handed.lock() = at.then(Instant::now);
            }
        };
        tokio::join!(stalled(Arc::clone(&handed), 30 * SECOND), reading);
        assert_eq!(began.elapsed(), (100 + 29 + 40 + 29 + 30) * SECOND);
    }
}

//! Following the wanted set. Whoever follows it goes through all of it at each change, which is simple and cannot
//! drift, but would be quadratic while thousands of feeds open one by one: so looks rest in proportion to what they
//! take, and many changes share one.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Broken;

/// The changes of a wanted set, as seen by one follower.
pub(super) struct Changes {
    changed: watch::Receiver<()>,
    /// When the last look has rested.
    rested: Instant,
}

impl Changes {
    /// Those after this call.
    pub(super) fn new(changed: watch::Receiver<()>) -> Self {
        Self { changed, rested: Instant::now() }
    }

    /// The set as it is counts as a change.
    pub(super) fn and_now(mut self) -> Self {
        self.changed.mark_changed();
        self
    }

    /// Ends when the set has changed since the last time, and the last look has rested. May be cancelled.
    ///
    /// # Errors
    /// The set is gone.
    pub(super) async fn next(&mut self) -> Result<(), Broken> {
        sleep_until(self.rested).await;
        self.changed.changed().await.map_err(|_| Broken("the wanted set is gone".to_owned()))
    }

    /// The same for who cannot wait: whether it is time for a look.
    pub(super) fn are_due(&mut self) -> bool {
        let due = self.changed.has_changed().unwrap_or(false) && Instant::now() >= self.rested;
        if due {
            self.changed.mark_unchanged();
        }
        due
    }

    /// Goes through the set.
    pub(super) fn look<T>(&mut self, through: impl FnOnce() -> T) -> T {
        let began = std::time::Instant::now();
        let seen = through();
        self.rested = Instant::now() + (began.elapsed() * REST).min(LONGEST);
        seen
    }
}

/// How much longer than a look it rests: looks take a fifth of a core at most.
const REST: u32 = 4;
/// A feed waits no longer than that for its subscription, however many others there are.
const LONGEST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_changes_share_a_look_and_none_is_missed() {
        let set = watch::Sender::new(());
        let mut changes = Changes::new(set.subscribe());
        assert!(changes.next().now_or_never().is_none(), "nothing has changed");
        set.send_replace(());
        changes.next().now_or_never().expect("the first change is seen at once").unwrap();
        let before = Instant::now();
        changes.look(|| sleep(Duration::from_millis(20)));
        (0..1_000).for_each(|_| set.send_replace(()));
        assert!(!changes.are_due());
        // Cancelled while it rests, and nothing is lost by that.
        assert!(changes.next().now_or_never().is_none());
        changes.next().await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(20) * REST);
        assert!(changes.next().now_or_never().is_none(), "one look is enough for all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_already_is_a_change() {
        let set = watch::Sender::new(());
        let mut changes = Changes::new(set.subscribe()).and_now();
        assert!(changes.are_due());
        assert!(!changes.are_due());
        drop(set);
        assert!(changes.next().await.is_err());
    }
}

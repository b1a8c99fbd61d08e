//! The shared runner: keeps one link up for ever. It alone knows about reconnecting, backing off, marking
//! what was lost, and panics; a kind knows about none of these.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Upstream;
use super::link::Link;

/// The wait before the second attempt, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long to wait before the next attempt: longer each time, jittered.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF.0)
    }
}

impl Backoff {
    /// The wait after a link that was up for `lasted`. One that lasted long begins anew.
    pub(super) fn wait_after(&mut self, lasted: Duration) -> Duration {
        if lasted > BACKOFF.1 {
            self.0 = BACKOFF.0;
        }
        let wait = self.0.mul_f64(rand::random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(BACKOFF.1);
        wait
    }
}

/// Runs sessions of `upstream` one after the other. Ends only by being dropped.
pub(super) async fn run<U: Upstream>(upstream: Arc<U>, link: Arc<Link>) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let session = Arc::clone(&upstream).session(Arc::clone(&link));
        let cause = match Owned(tokio::spawn(session)).join().await {
            Ok(broken) => broken.to_string(),
            Err(panic) => format!("a defect in ssegate: {panic}"),
        };
        link.down(&cause);
        let was_up = link.take_was_up();
        if U::LOSSY && was_up {
            link.lose_feeds();
        }
        let lasted = if was_up { began.elapsed() } else { Duration::ZERO };
        tokio::time::sleep(backoff.wait_after(lasted)).await;
        link.reconnecting();
    }
}

/// A task that ends with its owner.
struct Owned<T>(JoinHandle<T>);

impl<T> Owned<T> {
    async fn join(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::metrics::Metrics;
    use crate::upstream::Broken;

    struct Flaky(AtomicU32);

    impl Upstream for Flaky {
        const LOSSY: bool = true;
        async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("on purpose"),
                1 | 2 => Broken("refused".into()),
                _ => {
                    link.up();
                    std::future::pending().await
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_refusals_are_tried_again_until_it_is_up() {
        let metrics = Metrics::new();
        let link = Link::new("flaky".into(), Arc::default(), metrics.upstream("flaky"));
        let task = tokio::spawn(run(Arc::new(Flaky(AtomicU32::new(0))), Arc::clone(&link)));
        link.tried().await;
        while !link.health().up {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let health = link.health();
        assert_eq!(health.reconnects, 3);
        assert_eq!(health.last_error.unwrap().0, "refused");
        task.abort();
    }
}

//! The shared runner: keeps one link up for ever. It alone knows about reconnecting, backing off, marking
//! what was lost, and panics; a kind knows about none of these.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
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

/// Runs sessions of `upstream` one after the other, and has one followed by another whenever it is to be entered `anew`.
/// Ends only by being dropped.
pub(super) async fn run<U: Upstream>(upstream: Arc<U>, link: Arc<Link>, anew: Arc<Notify>) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let mut session = Owned(tokio::spawn(Arc::clone(&upstream).session(Arc::clone(&link))));
        let ended = tokio::select! {
            ended = &mut session.0 => ended,
            () = anew.notified() => {
                session.stop().await;
                if link.take_was_up() {
                    upstream.leaves(&link);
                }
                link.renews();
                backoff = Backoff::default();
                continue;
            }
        };
        let cause = match ended {
            Ok(broken) => broken.to_string(),
            Err(panic) => format!("a defect in ssegate: {panic}"),
        };
        link.down(&cause);
        let was_up = link.take_was_up();
        if U::LOSSY && was_up {
            link.lose_feeds();
        }
        let lasted = if was_up { began.elapsed() } else { Duration::ZERO };
        tokio::select! {
            () = anew.notified() => backoff = Backoff::default(),
            () = tokio::time::sleep(backoff.wait_after(lasted)) => {}
        }
        link.reconnecting();
    }
}

/// A task that ends with its owner.
struct Owned<T>(JoinHandle<T>);

impl<T> Owned<T> {
    /// Ends it, and returns once it has ended.
    async fn stop(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
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
        let task = tokio::spawn(run(Arc::new(Flaky(AtomicU32::new(0))), Arc::clone(&link), Arc::default()));
        link.tried().await;
        while !link.health().up {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let health = link.health();
        assert_eq!(health.reconnects, 3);
        assert_eq!(health.last_error.unwrap().0, "refused");
        task.abort();
    }

    /// Counts sessions, those that are open, and how often a link that stood was left.
    #[derive(Default)]
    struct Steady {
        begun: AtomicU32,
        open: AtomicU32,
        left: AtomicU32,
    }

    impl Upstream for Steady {
        const LOSSY: bool = true;

        async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
            struct Open(Arc<Steady>);
            impl Drop for Open {
                fn drop(&mut self) {
                    self.0.open.fetch_sub(1, Ordering::Relaxed);
                }
            }
            assert_eq!(self.open.fetch_add(1, Ordering::Relaxed), 0, "the one before has ended");
            let _open = Open(Arc::clone(&self));
            if self.begun.fetch_add(1, Ordering::Relaxed) == 2 {
                return Broken("refused".into());
            }
            link.up();
            std::future::pending().await
        }

        fn leaves(&self, _: &Link) {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_is_entered_anew_waits_for_nothing() {
        let metrics = Metrics::new();
        let link = Link::new("steady".into(), Arc::default(), metrics.upstream("steady"));
        let (steady, anew) = (Arc::<Steady>::default(), Arc::<Notify>::default());
        let task = tokio::spawn(run(Arc::clone(&steady), Arc::clone(&link), Arc::clone(&anew)));
        let begun = async |count| {
            while steady.begun.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        };
        let up = async || {
            while !link.health().up {
                tokio::task::yield_now().await;
            }
        };
        up().await;
        let began = Instant::now();
        anew.notify_one();
        begun(2).await;
        up().await;
        let health = link.health();
        assert!(health.last_error.is_none() && health.reconnects == 0, "nothing went wrong");
        anew.notify_one();
        while link.health().last_error.is_none() {
            tokio::task::yield_now().await;
        }
        // While it waits to be tried again.
        anew.notify_one();
        begun(4).await;
        up().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(steady.left.load(Ordering::Relaxed), 2, "so often a link stood that was left");
        task.abort();
    }
}

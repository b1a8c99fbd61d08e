//! Waking the readers of a log. A lone append wakes at once; what follows within `linger` shares one wake at
//! the window's end. One task for the whole process keeps the windows: no timer per event or per client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

/// Wakes the readers of one log.
#[derive(Debug)]
pub struct Wake {
    readers: Arc<Notify>,
    window: Mutex<Window>,
    linger: Arc<Linger>,
}

#[derive(Debug)]
struct Window {
    length: Duration,
    woken: Option<Instant>,
    pending: bool,
}

impl Wake {
    /// Readers are woken at most once in `length`.
    pub fn new(length: Duration, linger: Arc<Linger>) -> Arc<Self> {
        let window = Mutex::new(Window { length, woken: None, pending: false });
        Arc::new(Self { readers: Arc::new(Notify::new()), window, linger })
    }

    /// A future that ends at the next wake after this call, polled or not.
    pub fn next(&self) -> OwnedNotified {
        Arc::clone(&self.readers).notified_owned()
    }

    /// Shortens the window, for a feed that two routes share.
    pub fn shorten(&self, length: Duration) {
        let mut window = self.window.lock();
        window.length = window.length.min(length);
    }

    /// Something was appended.
    pub fn ring(self: &Arc<Self>) {
        let now = Instant::now();
        {
            let mut window = self.window.lock();
            if window.pending {
                return;
            }
            let due = window.woken.map_or(now, |woken| woken + window.length);
            if due > now {
                window.pending = true;
                self.linger.schedule(due, Arc::clone(self));
                return;
            }
            window.woken = Some(now);
        }
        self.readers.notify_waiters();
    }

    /// Wakes now, whatever the window says.
    pub fn ring_now(&self) {
        {
            let mut window = self.window.lock();
            window.pending = false;
            window.woken = Some(Instant::now());
        }
        self.readers.notify_waiters();
    }
}

/// The windows that are open, over all logs.
#[derive(Debug, Default)]
pub struct Linger {
    due: Mutex<BTreeMap<Instant, Vec<Arc<Wake>>>>,
    bell: Notify,
}

impl Linger {
    /// Nothing is due.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Rings every wake when its window ends; never returns.
    pub async fn run(&self) {
        loop {
            let next = self.due.lock().first_key_value().map(|(at, _)| *at);
            match next {
                None => self.bell.notified().await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.bell.notified() => continue,
                },
            }
            let now = Instant::now();
            while let Some(wakes) = self.take_due(now) {
                wakes.iter().for_each(|wake| wake.ring_now());
            }
        }
    }

    fn take_due(&self, now: Instant) -> Option<Vec<Arc<Wake>>> {
        let mut due = self.due.lock();
        let first = due.first_entry().filter(|first| *first.key() <= now)?;
        Some(first.remove())
    }

    fn schedule(&self, at: Instant, wake: Arc<Wake>) {
        let mut due = self.due.lock();
        let sooner = due.first_key_value().is_none_or(|(first, _)| at < *first);
        due.entry(at).or_default().push(wake);
        drop(due);
        if sooner {
            self.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_wakes_at_once_and_the_rest_share_one_wake() {
        let linger = Linger::new();
        let task = tokio::spawn({
            let linger = Arc::clone(&linger);
            async move { linger.run().await }
        });
        let wake = Wake::new(Duration::from_millis(20), linger);
        let start = Instant::now();
        let first = wake.next();
        wake.ring();
        first.await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        let second = wake.next();
        wake.ring();
        wake.ring();
        second.await;
        assert_eq!(start.elapsed().as_millis(), 20);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let third = wake.next();
        wake.ring();
        third.await;
        assert_eq!(start.elapsed().as_millis(), 70);
        task.abort();
    }
}

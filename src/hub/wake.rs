//! Waking the readers of a log. A lone append wakes at once; what follows within `linger` shares one wake at
//! the window's end. One task for the whole process keeps these windows, and those of `conflate`: no timer per event, per
//! feed or per client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::chunk::Seq;

/// Wakes the readers of one log.
#[derive(Debug)]
pub struct Wake {
    readers: Arc<Notify>,
    /// The head of the log at the last wake.
    reached: AtomicU64,
    window: Mutex<Window>,
    linger: Arc<Linger>,
}

#[derive(Debug)]
struct Window {
    length: Duration,
    woken: Option<Instant>,
    /// When readers will be woken for what was appended since.
    due: Option<Instant>,
    /// The head of the log.
    head: Seq,
    /// Readers of single keys that are to be woken with the others.
    keys: Vec<Arc<Notify>>,
}

impl Wake {
    /// Readers are woken at most once in `length`.
    pub fn new(length: Duration, linger: Arc<Linger>) -> Arc<Self> {
        let window = Mutex::new(Window { length, woken: None, due: None, head: 0, keys: Vec::new() });
        let (readers, reached) = (Arc::new(Notify::new()), AtomicU64::new(0));
        Arc::new(Self { readers, reached, window, linger })
    }

    /// A future that ends at the next wake after this call, polled or not.
    pub fn next(&self) -> OwnedNotified {
        Arc::clone(&self.readers).notified_owned()
    }

    /// The number of the entry up to which readers have been woken: those that have joined read no further before the
    /// next wake, so that all who were woken are given the same.
    pub fn reached(&self) -> Seq {
        self.reached.load(Ordering::Acquire)
    }

    /// Shortens the window, for a feed that two routes share.
    pub fn shorten(&self, length: Duration) {
        let mut window = self.window.lock();
        window.length = window.length.min(length);
    }

    /// From now on readers are woken at most once in `length`.
    pub fn gather(&self, length: Duration) {
        self.window.lock().length = length;
    }

    /// Something was appended up to `head`, for all readers and, in a keyed log, for those whom `keys` wake.
    pub fn ring(self: &Arc<Self>, head: Seq, keys: Vec<Arc<Notify>>) {
        let now = Instant::now();
        {
            let mut window = self.window.lock();
            window.head = window.head.max(head);
            if window.due.is_some() {
                window.keys.extend(keys);
                return;
            }
            let due = window.woken.map_or(now, |woken| woken + window.length);
            if due > now {
                window.due = Some(due);
                window.keys.extend(keys);
                self.linger.schedule(due, self.own());
                return;
            }
            window.woken = Some(now);
            self.reached.store(window.head, Ordering::Release);
        }
        self.readers.notify_waiters();
        keys.iter().for_each(|wake| wake.notify_waiters());
    }

    /// Wakes now, whatever the window says: what was appended up to `head` is there at once.
    pub fn ring_now(&self, head: Seq) {
        let mut window = self.window.lock();
        window.head = window.head.max(head);
        self.end_window(window);
    }

    /// What keeps its windows, and those of others.
    pub fn linger(&self) -> &Arc<Linger> {
        &self.linger
    }

    fn own(self: &Arc<Self>) -> Weak<dyn Due> {
        let own: Weak<Self> = Arc::downgrade(self);
        own
    }

    fn end_window(&self, mut window: MutexGuard<'_, Window>) {
        self.reached.store(window.head, Ordering::Release);
        (window.due, window.woken) = (None, Some(Instant::now()));
        let keys = std::mem::take(&mut window.keys);
        drop(window);
        self.readers.notify_waiters();
        keys.iter().for_each(|wake| wake.notify_waiters());
    }
}

impl Due for Wake {
    /// The window that was to end then is over, unless readers have been woken before.
    fn due(&self, at: Instant) {
        let window = self.window.lock();
        if window.due == Some(at) {
            self.end_window(window);
        }
    }
}

/// Something whose window ends.
pub trait Due: Send + Sync {
    /// The window that was to end at this time is over.
    fn due(&self, at: Instant);
}

/// The windows that are open, over all logs.
#[derive(Default)]
pub struct Linger {
    due: Mutex<BTreeMap<Instant, Vec<Weak<dyn Due>>>>,
    bell: Notify,
}

impl fmt::Debug for Linger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.due.lock().keys()).finish()
    }
}

impl Linger {
    /// Nothing is due.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Tells each whose window ends; never returns.
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
            while let Some((at, windows)) = self.take_due(now) {
                windows.iter().filter_map(Weak::upgrade).for_each(|window| window.due(at));
            }
        }
    }

    fn take_due(&self, now: Instant) -> Option<(Instant, Vec<Weak<dyn Due>>)> {
        let mut due = self.due.lock();
        let first = due.first_entry().filter(|first| *first.key() <= now)?;
        Some(first.remove_entry())
    }

    /// A window ends then.
    pub fn schedule(&self, at: Instant, window: Weak<dyn Due>) {
        let mut due = self.due.lock();
        let sooner = due.first_key_value().is_none_or(|(first, _)| at < *first);
        due.entry(at).or_default().push(window);
        drop(due);
        if sooner {
            self.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long `woken` takes; never waits for ever.
    async fn until(woken: OwnedNotified) -> Duration {
        let start = Instant::now();
        tokio::time::timeout(Duration::from_secs(1), woken).await.expect("a wake was lost");
        start.elapsed()
    }

    fn ticking() -> Arc<Linger> {
        let linger = Linger::new();
        let ticker = Arc::clone(&linger);
        tokio::spawn(async move { ticker.run().await });
        linger
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_wakes_at_once_and_the_rest_share_one_wake() {
        let wake = Wake::new(Duration::from_millis(20), ticking());
        let first = wake.next();
        wake.ring(0, Vec::new());
        assert_eq!(until(first).await, Duration::ZERO);
        let second = wake.next();
        wake.ring(0, Vec::new());
        wake.ring(0, Vec::new());
        assert_eq!(until(second).await, Duration::from_millis(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let third = wake.next();
        wake.ring(0, Vec::new());
        assert_eq!(until(third).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn windows_of_several_logs_end_each_in_its_time() {
        let linger = ticking();
        let wakes = [50, 20, 20, 70].map(|millis| Wake::new(Duration::from_millis(millis), linger.clone()));
        wakes.iter().for_each(|wake| wake.ring(0, Vec::new()));
        // The ticker waits for the first of them when a shorter window opens.
        tokio::task::yield_now().await;
        let nexts = wakes.each_ref().map(|wake| {
            let next = wake.next();
            wake.ring(0, Vec::new());
            tokio::spawn(until(next))
        });
        let mut lengths = Vec::new();
        for next in nexts {
            lengths.push(next.await.unwrap().as_millis());
        }
        assert_eq!(lengths, [50, 20, 20, 70]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_that_comes_early_leaves_no_other_behind() {
        let wake = Wake::new(Duration::from_millis(20), ticking());
        let mut wakes = 0;
        for at in 0..100 {
            let woken = wake.next();
            wake.ring(at, Vec::new());
            if at < 10 {
                wake.ring_now(at);
                wake.ring(at, Vec::new());
            } else {
                wakes += u32::from(tokio::time::timeout(Duration::from_millis(1), woken).await.is_ok());
            }
        }
        assert!((4..=5).contains(&wakes), "{wakes} in 90 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortened_window_holds_from_the_next_on() {
        let wake = Wake::new(Duration::from_millis(50), ticking());
        wake.shorten(Duration::from_millis(10));
        wake.shorten(Duration::from_millis(90));
        wake.ring(0, Vec::new());
        let next = wake.next();
        wake.ring(0, Vec::new());
        assert_eq!(until(next).await, Duration::from_millis(10));
    }
}

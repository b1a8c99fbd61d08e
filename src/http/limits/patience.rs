//! When those are to come back for whom there was no room. Each time a client comes back to the same answer it is given
//! twice the time, up to minutes: so the longer there is no room, the less those who wait cost.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::clients::Prefix;

/// Whom it has sent away of late.
pub struct Patience {
    epoch: Instant,
    waits: Mutex<Waits>,
}

struct Waits {
    of: HashMap<Prefix, Wait>,
    /// When to look for those who came back no more.
    sweep_at: u64,
    /// For clients that find no room in the table either.
    all: Wait,
}

/// How long somebody was told to wait, and since when.
#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    since: u64,
    millis: u64,
}

impl Default for Patience {
    /// Nobody yet.
    fn default() -> Self {
        let waits = Waits { of: HashMap::new(), sweep_at: SWEEP, all: Wait::default() };
        Self { epoch: Instant::now(), waits: Mutex::new(waits) }
    }
}

impl Patience {
    /// After what time `client` is to come back, where it is `base` for one who comes for the first time. Not jittered.
    pub fn wait(&self, client: Prefix, base: Duration) -> Duration {
        let base = base.as_millis() as u64;
        let mut waits = self.waits.lock();
        // Under the lock, so that it is never before what another has noted. Not 0, which is the time of one who never
        // waited.
        let now = self.epoch.elapsed().as_millis() as u64 + 1;
        if now >= waits.sweep_at {
            waits.of.retain(|_, wait| !wait.is_over(now));
            waits.sweep_at = now + SWEEP;
        }
        let all = waits.all.longer(base, now);
        if waits.of.len() >= KEPT && !waits.of.contains_key(&client) {
            return Duration::from_millis(all);
        }
        Duration::from_millis(waits.of.entry(client).or_default().longer(base, now))
    }
}

impl Wait {
    /// The time for one who comes now. Many clients may share an address: it grows once in the time that was given, and
    /// not with each of them.
    fn longer(&mut self, base: u64, now: u64) -> u64 {
        let waited = now - self.since;
        if self.millis == 0 || self.is_over(now) {
            *self = Self { since: now, millis: base };
        } else if waited >= self.millis / 2 {
            *self = Self { since: now, millis: (self.millis * 2).min(MOST).max(base) };
        }
        self.millis.max(base)
    }

    /// Whether it found room meanwhile, or lost interest.
    fn is_over(&self, now: u64) -> bool {
        now - self.since > self.millis * 4
    }
}

/// The longest time by which waits grow: five minutes.
const MOST: u64 = 300_000;
/// How often those who came back no more are looked for, at most.
const SWEEP: u64 = 10_000;
const KEPT: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(3);

    async fn after(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_in_vain_waits_longer() {
        let patience = Patience::default();
        let a = Prefix::V4(1);
        let mut told = Vec::new();
        for _ in 0..9 {
            let wait = patience.wait(a, BASE).as_secs();
            told.push(wait);
            assert_eq!(patience.wait(a, BASE).as_secs(), wait, "another client of the same address");
            after(wait * 1_000).await;
        }
        assert_eq!(told, [3, 6, 12, 24, 48, 96, 192, 300, 300]);
        assert_eq!(patience.wait(Prefix::V4(2), BASE), BASE, "another one");
        after(1_200_001).await;
        assert_eq!(patience.wait(a, BASE), BASE, "it was away");
        assert_eq!(
            patience.wait(a, Duration::from_secs(600)).as_secs(),
            600,
            "never less than the route says"
        );
    }

    /// With the clock itself: that of tests stands still between two threads.
    #[test]
    fn several_may_come_at_the_same_time() {
        let patience = Patience::default();
        let come = || (0..60_000).for_each(|n| assert!(patience.wait(Prefix::V4(n), BASE) >= BASE));
        std::thread::scope(|scope| drop([scope.spawn(come), scope.spawn(come), scope.spawn(come)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_told_what_all_are_told() {
        let patience = Patience::default();
        for n in 0..100_000 {
            patience.wait(Prefix::V4(n), BASE);
        }
        assert_eq!(patience.waits.lock().of.len(), KEPT);
        after(2_000).await;
        assert_eq!(patience.wait(Prefix::V4(99_999), BASE).as_secs(), 6);
        after(60_000).await;
        assert_eq!(patience.wait(Prefix::V4(99_999), BASE), BASE);
        assert_eq!(patience.waits.lock().of.len(), 1, "those who did not come back are forgotten");
    }
}

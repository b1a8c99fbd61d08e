//! How long to wait before coming back: as long as the server says, and longer each time that it does not answer.

use std::time::Duration;

/// The pauses between the links to one path.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Pause {
    retry: Option<Duration>,
    failures: u32,
}

impl Pause {
    /// The server says when to come back.
    pub(in crate::upstream) fn set_retry(&mut self, retry: Duration) {
        self.retry = Some(retry.clamp(LEAST, MOST));
    }

    /// The next one, after a link that stood for so long, or one that did not come about.
    pub(in crate::upstream) fn next(&mut self, stood: Option<Duration>) -> Duration {
        let well = stood.is_some_and(|stood| stood > LONGEST || self.retry.is_some());
        self.failures = if well { 0 } else { self.failures + 1 };
        let first = self.retry.unwrap_or(LEAST);
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.failures.saturating_sub(1).min(16)));
        let wait = doubled.min(LONGEST.max(first));
        // Never before a server wants it, and not all at once.
        wait.mul_f64(if self.retry.is_some() {
            rand::random_range(1.0..1.25)
        } else {
            rand::random_range(0.5..1.0)
        })
    }

    /// The server has said that there is no more. A browser would never come back; who serves many for a long time looks
    /// again.
    pub(in crate::upstream) fn over(&mut self) -> Duration {
        self.failures = 0;
        OVER.mul_f64(rand::random_range(0.75..1.25))
    }
}

const LEAST: Duration = Duration::from_millis(100);
/// As long as a server may say.
const MOST: Duration = Duration::from_mins(5);
/// The longest wait where it says nothing.
const LONGEST: Duration = Duration::from_secs(10);
const OVER: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a pause is one of about this length.
    fn is(pause: Duration, millis: u64, (least, most): (f64, f64)) -> bool {
        let about = Duration::from_millis(millis);
        (about.mul_f64(least)..=about.mul_f64(most)).contains(&pause)
    }

    #[test]
    fn pauses_grow_while_a_server_does_not_answer() {
        let (mut pause, own) = (Pause::default(), (0.5, 1.0));
        for millis in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let next = pause.next(None);
            assert!(is(next, millis, own), "{next:?} for {millis}");
        }
        assert!(is(pause.next(Some(Duration::from_secs(60))), 100, own), "it was well");
        assert!(is(pause.next(Some(Duration::from_millis(5))), 100, own));
        assert!(is(pause.next(Some(Duration::from_millis(5))), 200, own), "it ends as soon as it stands");
    }

    #[test]
    fn a_server_says_when_to_come_back() {
        let (mut pause, told) = (Pause::default(), (1.0, 1.25));
        pause.set_retry(Duration::from_millis(300));
        assert!(is(pause.next(Some(Duration::ZERO)), 300, told));
        assert!(is(pause.next(Some(Duration::ZERO)), 300, told), "as often as it says");
        for millis in [300, 600, 1_200] {
            assert!(is(pause.next(None), millis, told));
        }
        pause.set_retry(Duration::from_secs(60));
        assert!(is(pause.next(None), 60_000, told), "longer than own pauses ever are");
        pause.set_retry(Duration::MAX);
        assert!(is(pause.next(None), 300_000, told));
        pause.set_retry(Duration::ZERO);
        assert!(is(pause.next(Some(Duration::ZERO)), 100, told));
    }
}

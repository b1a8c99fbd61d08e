//! What is said of one that does not answer, an application or a collector: that it is away and that it is back, whatever
//! the number of requests that notice it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whether it is away, and what was said of it.
#[derive(Debug, Default)]
pub struct Absence(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether it was said that it is away, and not that it is back.
    away: bool,
    said: Option<Instant>,
    /// Requests without an answer since then.
    unsaid: u64,
}

impl Absence {
    /// A request got no answer. Gives the number of requests that it is time to speak of, this one included: at once
    /// if all was well, and then every minute.
    pub fn failed(&self) -> Option<u64> {
        let (mut state, now) = (self.0.lock(), Instant::now());
        state.unsaid += 1;
        let pause = if state.away { REMINDED } else { CHANGED };
        if state.said.is_some_and(|said| now - said < pause) {
            return None;
        }
        (state.away, state.said) = (true, Some(now));
        Some(std::mem::take(&mut state.unsaid))
    }

    /// A request got an answer. Gives the number of those without one that were not spoken of, if it was said to be
    /// away.
    pub fn answered(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let was_away = std::mem::take(&mut state.away);
        was_away.then(|| std::mem::take(&mut state.unsaid))
    }
}

/// How often it is said of one that stays away.
const REMINDED: Duration = Duration::from_secs(60);
/// How often of one that comes and goes.
const CHANGED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_when_it_goes_and_when_it_is_back() {
        let (absence, seconds) = (Absence::default(), |n| tokio::time::advance(Duration::from_secs(n)));
        assert_eq!((absence.answered(), absence.failed()), (None, Some(1)));
        for _ in 0..100 {
            assert_eq!(absence.failed(), None);
        }
        seconds(60).await;
        assert_eq!((absence.failed(), absence.failed()), (Some(101), None), "it is still away");
        assert_eq!((absence.answered(), absence.answered()), (Some(1), None));
        seconds(60).await;
        assert_eq!(absence.failed(), Some(1), "it is away again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_and_goes_is_spoken_of_now_and_then() {
        let absence = Absence::default();
        let mut lines = 0;
        for _ in 0..1_000 {
            lines += u32::from(absence.failed().is_some()) + u32::from(absence.answered().is_some());
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(lines, 20, "in a hundred seconds");
    }
}

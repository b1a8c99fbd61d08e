//! Log lines about what goes on for long or comes back all the time: one a minute, with the number of those that it stands
//! for.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When something was last said.
#[derive(Debug, Default)]
pub struct Said(Mutex<Option<(Instant, u64)>>);

impl Said {
    /// If it is to be said now, how often it was not since the last time.
    pub fn again(&self) -> Option<u64> {
        let mut said = self.0.lock();
        let now = Instant::now();
        match &mut *said {
            Some((at, unsaid)) if now.duration_since(*at) < EVERY => {
                *unsaid += 1;
                None
            }
            _ => Some(said.replace((now, 0)).map_or(0, |(_, unsaid)| unsaid)),
        }
    }
}

const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn once_a_minute_and_how_often_besides() {
        let said = Said::default();
        assert_eq!([said.again(), said.again(), said.again()], [Some(0), None, None]);
        tokio::time::advance(EVERY).await;
        assert_eq!([said.again(), said.again()], [Some(2), None]);
    }
}

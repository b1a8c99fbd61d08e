//! A topic that is held: the schema of its next record is not there yet.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::upstream::schemas::Missing;

/// What it waits for.
pub(super) struct Held {
    missing: Missing,
    /// When it is time to speak of what is in the way.
    say_at: Instant,
}

impl Held {
    pub(super) fn begins(missing: Missing) -> Self {
        Self { missing, say_at: Instant::now() + SAY_EVERY }
    }

    /// Whether it is there, or will never be. Looked at between two polls.
    pub(super) fn is_over(&mut self, runtime: &Handle, trouble: impl Fn(&str)) -> bool {
        let answer = runtime.block_on(self.missing.learn(Duration::ZERO));
        if let Err(cause) = answer
            && self.say_at <= Instant::now()
        {
            trouble(&cause);
            self.say_at = Instant::now() + SAY_EVERY;
        }
        self.missing.is_over()
    }
}

const SAY_EVERY: Duration = Duration::from_secs(1);

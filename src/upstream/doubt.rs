//! What is believed only once it has been seen for a while: that a source ends before what was read of it, so that it has to be
//! another one. A server of several that is behind the others looks the same, until it has caught up.

use std::time::Duration;

use tokio::time::Instant;

/// Since when it has been seen at every look.
#[derive(Debug, Default)]
pub(super) struct Doubt(Option<Seen>);

#[derive(Debug)]
struct Seen {
    first: Instant,
    last: Instant,
}

impl Doubt {
    /// Takes in what a look shows. Whether it can be believed: every look of late has shown it, for long enough.
    pub(super) fn lasts(&mut self, is_seen: bool, now: Instant) -> bool {
        // Looks that lie far apart say nothing of what was between them.
        let before = self.0.take().filter(|seen| now.duration_since(seen.last) < LONG);
        if !is_seen {
            return false;
        }
        let first = before.map_or(now, |seen| seen.first);
        self.0 = Some(Seen { first, last: now });
        now.duration_since(first) >= LONG
    }
}

/// Longer than a server takes that has come back with little to catch up on, and than those need who say how much there is.
const LONG: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_not_believed() {
        let (mut doubt, begin) = (Doubt::default(), Instant::now());
        let mut look = |seconds, is_seen| doubt.lasts(is_seen, begin + Duration::from_secs(seconds));
        assert!(!look(0, true) && !look(5, true) && !look(9, true));
        assert!(!look(10, false), "it has caught up");
        assert!(!look(11, true) && !look(20, true));
        assert!(look(21, true));
        assert!(!look(31, true), "nobody knows what was between");
        assert!(!look(40, true) && look(41, true));
    }
}

//! How far reading is behind an upstream's end, of sources that keep what they gave.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::metrics::Lag;

/// How far behind one source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Behind {
    /// Records that are there and were not read.
    pub records: u64,
    /// Since when: the time of what was read last, or since when the upstream has told nothing. `None` where all is read.
    pub since: Option<SystemTime>,
}

impl Behind {
    fn lag(&self, now: SystemTime) -> Lag {
        let time = self.since.and_then(|since| now.duration_since(since).ok());
        Lag { records: self.records, time: time.unwrap_or_default() }
    }
}

/// The sources of one upstream that are behind. Those of which all was read take no room.
#[derive(Debug, Default)]
pub(super) struct Lags(HashMap<Arc<str>, Behind>);

impl Lags {
    /// A source is so far behind now.
    pub(super) fn note(&mut self, source: &Arc<str>, behind: Behind) {
        if behind == Behind::default() {
            self.0.remove(source);
        } else {
            self.0.insert(Arc::clone(source), behind);
        }
    }

    /// Forgets all sources but these.
    pub(super) fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|source, _| wanted(source));
    }

    /// The most records and the longest time of any source, and the source that has been behind for that long. While the
    /// link is down, for the time in brackets, nobody knows better than that.
    pub(super) fn worst(&self, now: SystemTime, down: Option<Duration>) -> (Lag, Option<Arc<str>>) {
        let mut worst = Lag { records: 0, time: down.unwrap_or_default() };
        let mut of = None;
        for (source, behind) in &self.0 {
            let lag = behind.lag(now);
            worst.records = worst.records.max(lag.records);
            if of.is_none() || lag.time > worst.time {
                of = Some(Arc::clone(source));
            }
            worst.time = worst.time.max(lag.time);
        }
        (worst, of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_source_counts_and_what_is_read_takes_no_room() {
        let now = SystemTime::now();
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        let mut lags = Lags::default();
        assert_eq!(lags.worst(now, None), (Lag::default(), None));
        lags.note(&a, Behind { records: 500, since: ago(3) });
        lags.note(&b, Behind { records: 2, since: ago(70) });
        lags.note(&c, Behind { records: 0, since: None });
        let lag = |records, seconds| Lag { records, time: Duration::from_secs(seconds) };
        assert_eq!(lags.worst(now, None), (lag(500, 70), Some(Arc::clone(&b))));
        let down = Some(Duration::from_secs(90));
        assert_eq!(lags.worst(now, down).0, lag(500, 90), "nobody knows what came since");
        lags.note(&b, Behind::default());
        assert_eq!(lags.worst(now, None), (lag(500, 3), Some(a)));
        lags.keep(|source| source != "a");
        assert!(lags.0.is_empty());
    }
}

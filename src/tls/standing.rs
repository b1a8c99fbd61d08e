//! How it stands with something that is replaced while ssegate runs: whether the last replacement worked out.

use std::time::SystemTime;

use parking_lot::Mutex;

use crate::metrics::TlsMetrics;

/// The last error, with its time, and what is counted.
pub struct Standing {
    metrics: TlsMetrics,
    last_error: Mutex<Option<(String, SystemTime)>>,
}

impl Standing {
    /// Nothing has failed yet.
    pub fn new(metrics: TlsMetrics) -> Self {
        metrics.outdated.set(0);
        Self { metrics, last_error: Mutex::new(None) }
    }

    /// What was new is in use.
    pub fn replaced(&self) {
        self.metrics.replaced.inc();
        self.unchanged();
    }

    /// What is there is what is in use. Says whether that was different before.
    pub fn unchanged(&self) -> bool {
        self.metrics.outdated.set(0);
        self.last_error.lock().take().is_some()
    }

    /// What is new cannot be used, and what was stays in use. Says whether that is news.
    pub fn failed(&self, error: &str) -> bool {
        let mut last = self.last_error.lock();
        let news = last.as_ref().is_none_or(|(known, _)| known != error);
        if news {
            self.metrics.failed.inc();
            self.metrics.outdated.set(1);
            *last = Some((error.to_owned(), SystemTime::now()));
        }
        news
    }

    /// Until when what is in use holds.
    pub fn holds_until(&self, time: SystemTime) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.holds_until(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }

    /// Why what is new cannot be used, and since when.
    pub fn last_error(&self) -> Option<(String, SystemTime)> {
        self.last_error.lock().clone()
    }
}

//! What is counted of the configuration, and of reading it again.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::OfResult;

/// Everything about the configuration.
#[derive(Default)]
pub struct ConfigMetrics {
    reloads: Family<OfResult, Counter>,
    success: Gauge,
    /// In seconds since 1970.
    succeeded: Gauge<f64, AtomicU64>,
    generation: Gauge,
}

impl ConfigMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "How often the configuration was to be read again, by what came of it";
        registry.register("config_reloads", help, metrics.reloads.clone());
        let help =
            "1 while the last reading of the configuration is what is served, 0 since one that was refused";
        registry.register("config_last_reload_success", help, metrics.success.clone());
        let help = "When what is served was read, since 1970";
        let name = "config_last_reload_success_timestamp";
        registry.register_with_unit(name, help, Unit::Seconds, metrics.succeeded.clone());
        let help = "Configurations that were served so far, the present one included";
        registry.register("config_generation", help, metrics.generation.clone());
        [SUCCESS, FAILURE].into_iter().for_each(|result| drop(metrics.of(result)));
        metrics
    }

    /// The process serves what it was started with.
    pub fn begins(&self) {
        self.serves(1);
    }

    /// A reload has made this generation of it, counted from 1.
    pub fn reloaded(&self, generation: u64) {
        self.of(SUCCESS).inc();
        self.serves(generation);
    }

    /// A reload was refused; what was served before still is.
    pub fn refused(&self) {
        self.of(FAILURE).inc();
        self.success.set(0);
    }

    fn serves(&self, generation: u64) {
        self.success.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.succeeded.set(now.as_secs_f64());
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    fn of(&self, result: &'static str) -> Counter {
        self.reloads.get_or_create_owned(&OfResult { result })
    }
}

const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

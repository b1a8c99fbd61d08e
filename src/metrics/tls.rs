//! What is counted of certificates, and of what else of TLS may be replaced.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::labels::{OfTls, TlsOutcome};

/// Everything about TLS.
#[derive(Default)]
pub(super) struct Families {
    expiry: Family<OfTls, Gauge>,
    updates: Family<TlsOutcome, Counter>,
    outdated: Family<OfTls, Gauge>,
}

/// The handles of a certificate, or of something else of TLS that may be replaced.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    /// Replacements that are in use.
    pub replaced: Counter,
    /// Replacements that could not be used.
    pub failed: Counter,
    /// 1 while what is in use is not what should be.
    pub outdated: Gauge,
    name: String,
    expiry: Family<OfTls, Gauge>,
}

impl Families {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let families = Self::default();
        let (name, help) = ("certificate_expiry_timestamp", "When a certificate ends to hold, since 1970");
        registry.register_with_unit(name, help, Unit::Seconds, families.expiry.clone());
        let help = "Attempts to replace a certificate, an authority or ticket keys";
        registry.register("tls_updates", help, families.updates.clone());
        registry.register(
            "tls_outdated",
            "1 while the last such attempt has failed",
            families.outdated.clone(),
        );
        families
    }
}

impl Metrics {
    /// The handles of a certificate, or of something else of TLS that may be replaced.
    pub fn tls(&self, name: &str) -> TlsMetrics {
        let (of, families) = (OfTls { name: name.to_owned() }, &self.tls);
        let updates =
            |outcome| families.updates.get_or_create_owned(&TlsOutcome { name: name.to_owned(), outcome });
        TlsMetrics {
            replaced: updates("replaced"),
            failed: updates("failed"),
            outdated: families.outdated.get_or_create_owned(&of),
            name: name.to_owned(),
            expiry: families.expiry.clone(),
        }
    }
}

impl TlsMetrics {
    /// Until when the certificate holds, in seconds since 1970. There is no such figure before there is a certificate.
    pub fn holds_until(&self, seconds: i64) {
        self.expiry.get_or_create(&OfTls { name: self.name.clone() }).set(seconds);
    }
}

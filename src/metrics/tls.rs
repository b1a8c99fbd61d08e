//! What is counted of certificates, and of what else of TLS may be replaced.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::labels::{OfTls, TlsOutcome};
use super::shown::Shown;

/// Everything about TLS.
#[derive(Clone, Default)]
pub(super) struct Families {
    expiry: Family<OfTls, Gauge>,
    updates: Family<TlsOutcome, Counter>,
    outdated: Family<OfTls, Gauge>,
}

/// The handles of a certificate, or of something else of TLS that may be replaced. Its series go with the last of them.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Replacements that are in use.
    pub replaced: Counter,
    /// Replacements that could not be used.
    pub failed: Counter,
    /// 1 while what is in use is not what should be.
    pub outdated: Gauge,
    name: String,
    expiry: Family<OfTls, Gauge>,
    _shown: Shown,
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
        let outcome = |outcome| TlsOutcome { name: name.to_owned(), outcome };
        let outcomes = ["replaced", "failed"].map(outcome);
        let begin = || {
            let updates = |outcome| families.updates.get_or_create_owned(outcome);
            (outcomes.each_ref().map(updates), families.outdated.get_or_create_owned(&of))
        };
        let (all, gone) = (families.clone(), (of.clone(), outcomes.clone()));
        let forget = move || {
            gone.1.iter().for_each(|outcome| _ = all.updates.remove(outcome));
            [&all.outdated, &all.expiry].iter().for_each(|family| _ = family.remove(&gone.0));
        };
        let (([replaced, failed], outdated), shown) = self.handles.show("tls", name, begin, forget);
        let expiry = families.expiry.clone();
        TlsMetrics { replaced, failed, outdated, name: name.to_owned(), expiry, _shown: shown }
    }
}

impl TlsMetrics {
    /// Until when the certificate holds, in seconds since 1970. There is no such figure before there is a certificate.
    pub fn holds_until(&self, seconds: i64) {
        self.expiry.get_or_create(&OfTls { name: self.name.clone() }).set(seconds);
    }
}

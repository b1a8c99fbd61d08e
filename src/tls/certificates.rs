//! The certificates that are served: a slot for each that is configured, and the choice between them by the name that
//! a client asks for. A slot is filled anew while handshakes go on; whoever has begun keeps what was chosen.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::names::Names;
use super::standing::Standing;
use crate::config::Identity;

/// All slots, in the order of the configuration.
pub struct Certificates {
    slots: Vec<Slot>,
    chosen_from: RwLock<Arc<Choice>>,
}

/// The place of one certificate.
pub struct Slot {
    /// What it is called in logs, metrics and status: a file, or a domain.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: Source,
    /// How it stands.
    pub standing: Standing,
    identity: Mutex<Option<Identity>>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Files, read again when they change.
    File,
    /// An authority, by ACME.
    Acme,
    /// Made at the start.
    SelfSigned,
}

/// What handshakes choose from.
#[derive(Default)]
struct Choice {
    names: Names,
    /// By slot; `None` until there is one.
    keys: Vec<Option<Arc<CertifiedKey>>>,
}

impl Source {
    /// Its name in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Acme => "acme",
            Self::SelfSigned => "self_signed",
        }
    }
}

impl Slot {
    /// A slot with what it is filled with at first.
    pub fn new(name: Arc<str>, source: Source, standing: Standing, identity: Option<Identity>) -> Self {
        Self { name, source, standing, identity: Mutex::new(identity) }
    }

    /// What it is filled with.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.lock().clone()
    }
}

impl Certificates {
    /// These slots.
    pub fn new(slots: Vec<Slot>) -> Arc<Self> {
        for slot in &slots {
            if let Some(identity) = slot.identity() {
                slot.standing.holds_until(identity.not_after);
                warn_of_expiry(&slot.name, &identity);
            }
        }
        let choice = Choice::of(&slots);
        Arc::new(Self { slots, chosen_from: RwLock::new(Arc::new(choice)) })
    }

    /// All slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Fills a slot, unless what is offered is there already, or does not hold now while what is there does.
    ///
    /// # Errors
    /// Why what was there stays.
    pub fn offer(&self, slot: &Slot, identity: Identity) -> Result<(), String> {
        let now = SystemTime::now();
        let there = slot.identity();
        if there.as_ref().is_some_and(|there| there.is_same(&identity)) {
            if slot.standing.unchanged() {
                tracing::info!(certificate = %slot.name, "the certificate is again the one that is served");
            }
            return Ok(());
        }
        if there.is_some_and(|there| holds(&there, now)) && !holds(&identity, now) {
            let time = humantime::format_rfc3339_seconds;
            let (from, to) = (time(identity.not_before), time(identity.not_after));
            return Err(format!(
                "this certificate holds from {from} to {to} alone, and the one before it holds now"
            ));
        }
        tracing::info!(
            certificate = %slot.name, names = ?identity.names,
            not_after = %humantime::format_rfc3339_seconds(identity.not_after), "new certificate",
        );
        warn_of_expiry(&slot.name, &identity);
        slot.standing.holds_until(identity.not_after);
        slot.standing.replaced();
        *slot.identity.lock() = Some(identity);
        // Made under the lock, lest of two slots that are filled at once one is forgotten.
        let mut chosen_from = self.chosen_from.write();
        *chosen_from = Arc::new(Choice::of(&self.slots));
        Ok(())
    }
}

fn holds(identity: &Identity, now: SystemTime) -> bool {
    identity.not_before <= now && now < identity.not_after
}

fn warn_of_expiry(name: &str, identity: &Identity) {
    if identity.not_after <= SystemTime::now() {
        let expired = humantime::format_rfc3339_seconds(identity.not_after);
        tracing::warn!(certificate = name, %expired, "this certificate has expired; clients will refuse it");
    }
}

impl Choice {
    fn of(slots: &[Slot]) -> Self {
        let mut choice = Self::default();
        for (place, slot) in slots.iter().enumerate() {
            let identity = slot.identity();
            for name in identity.iter().flat_map(|identity| &identity.names) {
                choice.names.add(name, place);
            }
            choice.keys.push(identity.map(|identity| identity.key));
        }
        choice
    }

    /// Of the certificates for `name` the first with a key of a kind that the client knows; for a name that none has, and
    /// for no name, the first of all.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let places = name.map_or(&[][..], |name| self.names.find(name));
        let mut named = places.iter().filter_map(|&place| self.keys[place].as_ref());
        let known = named.clone().find(|key| key.key.choose_scheme(schemes).is_some());
        known.or_else(|| named.next()).or_else(|| self.keys.iter().flatten().next())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choice = Arc::clone(&self.chosen_from.read());
        choice.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| &slot.name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};

    use super::*;
    use crate::metrics::Metrics;

    const P256: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;

    fn identity(names: &[&str], algorithm: &'static SignatureAlgorithm, until: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = params.self_signed(&key).unwrap();
        Identity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    fn certificates(identities: Vec<Option<Identity>>) -> Arc<Certificates> {
        let metrics = Metrics::new();
        let slot =
            |identity| Slot::new("slot".into(), Source::File, Standing::new(metrics.tls("slot")), identity);
        Certificates::new(identities.into_iter().map(slot).collect())
    }

    /// The slot whose certificate is chosen.
    fn chosen(from: &Certificates, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<usize> {
        let choice = Arc::clone(&from.chosen_from.read());
        let key = choice.choose(name, schemes)?;
        from.slots
            .iter()
            .position(|slot| slot.identity().is_some_and(|identity| Arc::ptr_eq(&identity.key, key)))
    }

    const BOTH: &[SignatureScheme] = &[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];

    #[test]
    fn by_name_and_by_kind_of_key() {
        let all = certificates(vec![
            Some(identity(&["a.example"], P256, 2040)),
            Some(identity(&["b.example"], &PKCS_ED25519, 2040)),
            Some(identity(&["b.example"], P256, 2040)),
            None,
        ]);
        for (name, schemes, place) in [
            (Some("a.example"), BOTH, 0),
            (Some("b.example"), BOTH, 1),
            (Some("b.example"), &BOTH[1..], 2),
            (Some("b.example"), &[][..], 1),
            (Some("c.example"), BOTH, 0),
            (None, BOTH, 0),
        ] {
            assert_eq!(chosen(&all, name, schemes), Some(place), "{name:?}");
        }
        all.offer(&all.slots[3], identity(&["c.example"], P256, 2040)).unwrap();
        assert_eq!(chosen(&all, Some("c.example"), BOTH), Some(3));
        assert_eq!(chosen(&certificates(vec![None]), None, BOTH), None);
    }

    #[test]
    fn what_does_not_hold_replaces_nothing_that_does() {
        let all = certificates(vec![Some(identity(&["a.example"], P256, 2040))]);
        let (slot, first) = (&all.slots[0], all.slots[0].identity().unwrap());
        let expired = identity(&["a.example"], P256, 2021);
        let why = all.offer(slot, expired.clone()).unwrap_err();
        assert!(why.contains("to 2021-01-01T00:00:00Z alone") && slot.standing.failed(&why), "{why}");
        assert!(!slot.standing.failed(&why), "is no news");
        all.offer(slot, first.clone()).unwrap();
        assert!(slot.standing.last_error().is_none() && slot.identity().unwrap().is_same(&first));
        let all = certificates(vec![Some(expired)]);
        all.offer(&all.slots[0], identity(&["a.example"], P256, 2022)).unwrap();
        assert_eq!(all.slots[0].identity().unwrap().not_after, identity(&[], P256, 2022).not_after);
    }
}

//! Certificates that are had from an authority and renewed in time (RFC 8555), each domain's by itself, so that one
//! that cannot be had costs no other. The proof is a handshake with this very server (TLS-ALPN-01, RFC 8737).
//!
//! `authority` asks, through `client`; `challenge` answers the handshake that proves; `cache` is what a restart finds.

mod authority;
mod cache;
mod challenge;
mod client;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authority::Authority;
use cache::Cache;
pub(super) use challenge::Challenges;

use super::certificates::{Certificates, Slot};
use crate::config::{Acme, Identity};

/// The domains that certificates are wanted for.
#[derive(Clone)]
pub(super) struct Domains {
    config: Acme,
    cache: Cache,
    /// The place of the first one's slot; the others follow.
    first: usize,
}

/// When a domain is to be seen to.
struct Due {
    at: SystemTime,
    failures: u32,
}

impl Domains {
    /// Domains whose slots begin at `first`.
    pub fn new(config: &Acme, first: usize) -> Self {
        let cache = Cache::new(&config.cache, &config.directory);
        Self { config: config.clone(), cache, first }
    }

    /// Each domain, with what the cache has for it.
    pub fn cached(&self) -> impl Iterator<Item = (&Arc<str>, Option<Identity>)> {
        self.config.domains.iter().map(|domain| (domain, self.cache.certificate(domain)))
    }
}

/// Keeps the domains' slots filled, for as long as it is polled.
pub(super) async fn run(domains: Domains, certificates: Arc<Certificates>, challenges: Arc<Challenges>) {
    let slots = &certificates.slots()[domains.first..][..domains.config.domains.len()];
    let mut due: Vec<Due> =
        slots.iter().map(|slot| Due { at: renewal(slot.identity()), failures: 0 }).collect();
    let mut authority = Authority::new(&domains.config, &domains.cache, &challenges);
    loop {
        let next = (0..due.len()).min_by_key(|&at| due[at].at).expect("at least one domain");
        // In pieces: a clock may be set, a machine may sleep.
        if let Ok(wait) = due[next].at.duration_since(SystemTime::now()) {
            tokio::time::sleep(wait.min(LONGEST)).await;
            continue;
        }
        let slot = &slots[next];
        due[next] = match see_to(slot, &domains.cache, &mut authority, &certificates).await {
            Ok(()) => Due { at: renewal(slot.identity()).max(SystemTime::now() + SOONEST), failures: 0 },
            Err(error) => {
                let (failures, wait) = (due[next].failures + 1, backoff(due[next].failures));
                let error = format!("{error:#}");
                slot.standing.failed(&error);
                tracing::warn!(domain = %slot.name, %error, again_in = ?wait, "no certificate by ACME");
                Due { at: SystemTime::now() + wait, failures }
            }
        };
    }
}

/// Fills a slot with a certificate that is not due.
async fn see_to(
    slot: &Slot,
    cache: &Cache,
    authority: &mut Authority<'_>,
    certificates: &Certificates,
) -> anyhow::Result<()> {
    // Another process that shares the cache may have been first.
    let found = cache.certificate(&slot.name);
    if let Some(found) = found.filter(|found| renewal(Some(found.clone())) > SystemTime::now()) {
        return certificates.offer(slot, found).map_err(anyhow::Error::msg);
    }
    // Before anything is asked for: what could not be kept would be asked for again at each start.
    cache.prepare()?;
    tracing::info!(domain = %slot.name, "asking for a certificate");
    let pem = tokio::time::timeout(ORDER, authority.certify(&slot.name)).await??;
    let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes())?;
    let kept = cache.keep_certificate(&slot.name, &pem);
    certificates.offer(slot, identity).map_err(anyhow::Error::msg)?;
    // It is in use, even where it could not be kept.
    kept
}

/// When two thirds of its time are over, or a little before, so that not all come at once.
fn renewal(identity: Option<Identity>) -> SystemTime {
    let Some(identity) = identity else { return SystemTime::UNIX_EPOCH };
    let lifetime = identity.not_after.duration_since(identity.not_before).unwrap_or_default();
    identity.not_before + lifetime.mul_f64(rand::random_range(0.63..0.66))
}

/// Authorities count failures: Let's Encrypt allows five an hour for a domain.
fn backoff(failures: u32) -> Duration {
    let wait = FIRST_WAIT * 3_u32.saturating_pow(failures.min(8));
    wait.min(LAST_WAIT).mul_f64(rand::random_range(0.8..1.2))
}

/// How long one certificate may take to be had.
const ORDER: Duration = Duration::from_mins(5);
const FIRST_WAIT: Duration = Duration::from_mins(1);
const LAST_WAIT: Duration = Duration::from_hours(3);
/// How soon a certificate that was just had may be renewed, whatever it says.
const SOONEST: Duration = Duration::from_mins(10);
const LONGEST: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_ever_longer_and_five_fit_an_hour() {
        let waits: Vec<Duration> = (0..12).map(backoff).collect();
        assert!(waits[0] <= FIRST_WAIT.mul_f64(1.2) && waits[11] <= LAST_WAIT.mul_f64(1.2));
        assert!(waits.iter().take(5).sum::<Duration>() > Duration::from_hours(1));
    }
}

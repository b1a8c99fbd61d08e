//! Session tickets under keys that replicas share (RFC 5077, RFC 8446 section 4.6.1): whoever has the keys resumes what
//! another began. Nothing is kept; a ticket says when it was made, and is no good to those who ask other certificates of
//! their clients.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;

use crate::config::TicketKeys;

/// Makes tickets with the first key, and takes those of all.
pub struct SharedTickets {
    keys: Vec<Key>,
    /// What a client had to show; not the same everywhere.
    context: Context,
}

/// Stands for what is asked of clients. Only a ticket of the same is taken.
pub type Context = [u8; 32];

struct Key {
    name: [u8; NAME],
    cipher: RandomizedNonceKey,
}

impl SharedTickets {
    /// With these keys.
    pub fn new(keys: &TicketKeys, context: Context) -> Self {
        Self { keys: keys.expose().map(Key::of).collect(), context }
    }

    fn encrypt_at(&self, plain: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut sealed = seconds(now).to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(self.bound_to(key)), &mut sealed).ok()?;
        Some([&key.name[..], &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt_at(&self, ticket: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(self.bound_to(key)));
        let mut sealed = sealed.to_vec();
        let plain = key.cipher.open_in_place(nonce, aad, &mut sealed).ok()?;
        let (made, plain) = plain.split_first_chunk()?;
        // The clocks of replicas differ a little.
        let age = seconds(now).saturating_sub(u64::from_be_bytes(*made));
        (age <= LIFETIME.as_secs()).then(|| plain.to_vec())
    }

    fn bound_to(&self, key: &Key) -> [u8; NAME + 32] {
        let mut bound = [0; NAME + 32];
        bound[..NAME].copy_from_slice(&key.name);
        bound[NAME..].copy_from_slice(&self.context);
        bound
    }
}

impl Key {
    fn of(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |label: &str| hmac::sign(&secret, label.as_bytes());
        let mut name = [0; NAME];
        name.copy_from_slice(&derived("ssegate ticket name").as_ref()[..NAME]);
        // Many processes choose nonces at random under one key for long: hence SIV (RFC 8452 section 9).
        let cipher = RandomizedNonceKey::new(&AES_256_GCM_SIV, derived("ssegate ticket key").as_ref());
        Self { name, cipher: cipher.expect("a key of 32 bytes") }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(plain, SystemTime::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(cipher, SystemTime::now())
    }
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedTickets[{} keys]", self.keys.len())
    }
}

const NAME: usize = 16;
/// As long as rustls's own.
const LIFETIME: Duration = Duration::from_hours(12);

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(keys: &[u8], context: u8) -> SharedTickets {
        let lines: Vec<String> = keys.iter().map(|key| format!("{key:02x}").repeat(32)).collect();
        SharedTickets::new(&TicketKeys::parse(lines.join("\n").as_bytes()).unwrap(), [context; 32])
    }

    #[test]
    fn what_one_made_another_takes_that_has_the_key() {
        let ticket = tickets(&[1], 0).encrypt(b"session").unwrap();
        assert_eq!(tickets(&[2, 1], 0).decrypt(&ticket).unwrap(), b"session", "after a rotation");
        assert_ne!(ticket, tickets(&[1], 0).encrypt(b"session").unwrap());
        assert!(!ticket.windows(7).any(|part| part == b"session"));
        assert_eq!(tickets(&[2], 0).decrypt(&ticket), None);
        assert_eq!(tickets(&[1], 1).decrypt(&ticket), None, "where clients have to show something else");
    }

    #[test]
    fn what_was_changed_or_is_too_old_is_none() {
        let (one, now) = (tickets(&[1], 0), SystemTime::now());
        let ticket = one.encrypt_at(b"session", now).unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(one.decrypt_at(&changed, now), None, "{at}");
            assert_eq!(one.decrypt_at(&ticket[..at], now), None, "{at}");
        }
        assert!(one.decrypt_at(&ticket, now + LIFETIME).is_some());
        assert!(one.decrypt_at(&ticket, now - Duration::from_secs(30)).is_some());
        assert_eq!(one.decrypt_at(&ticket, now + LIFETIME + Duration::from_secs(2)), None);
    }
}

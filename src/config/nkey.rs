//! NATS's keys: the seed of an Ed25519 key as text, and the file of credentials that holds one beside its JWT. Made into
//! what signs here, so that a mistake is told before anything is served.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use data_encoding::BASE32_NOPAD;

use super::model::Secret;

/// The key of a user. Shows nothing but its public half.
#[derive(Clone)]
pub struct Nkey {
    public: Arc<str>,
    pair: Arc<Ed25519KeyPair>,
}

impl Nkey {
    /// Of a seed, `SU…`.
    ///
    /// # Errors
    /// A sentence that quotes nothing of it.
    pub(super) fn of_seed(seed: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "this is not the seed of an nkey, which begins with `SU` and has 58 characters";
        let bytes = BASE32_NOPAD.decode(seed.trim().as_bytes()).map_err(|_| WRONG)?;
        let (sealed, check) = bytes.split_last_chunk::<2>().ok_or(WRONG)?;
        if crc16(sealed).to_le_bytes() != *check {
            return Err("this seed of an nkey is damaged: its check sum is another; copy it anew");
        }
        let (prefix, seed) = sealed.split_first_chunk::<2>().ok_or(WRONG)?;
        if prefix[0] & 0xf8 != SEED {
            return Err(WRONG);
        }
        if ((prefix[0] & 0x07) << 5) | ((prefix[1] & 0xf8) >> 3) != USER {
            return Err("this is the seed of an account or server; a user's begins with `SU`");
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| WRONG)?;
        let mut public = vec![USER];
        public.extend_from_slice(pair.public_key().as_ref());
        public.extend_from_slice(&crc16(&public).to_le_bytes());
        Ok(Self { public: BASE32_NOPAD.encode(&public).into(), pair: Arc::new(pair) })
    }

    /// Its public half, `U…`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The signature of what a server asks to be signed, as it is sent.
    pub fn sign(&self, nonce: &str) -> String {
        BASE64.encode(self.pair.sign(nonce.as_bytes()))
    }
}

/// The JWT and the key of a file of credentials, as `nsc` writes it.
///
/// # Errors
/// A sentence that quotes nothing of it.
pub(super) fn read_credentials(file: &str) -> Result<(Secret, Nkey), &'static str> {
    let part = |name: &str| {
        let (_, rest) = file.split_once(&format!("BEGIN {name}-----"))?;
        let (body, _) = rest.split_once("-----")?;
        Some(body.trim_end_matches('-').trim())
    };
    let jwt = part("NATS USER JWT").ok_or("this file of credentials has no `BEGIN NATS USER JWT`")?;
    let seed = part("USER NKEY SEED").ok_or("this file of credentials has no `BEGIN USER NKEY SEED`")?;
    Ok((Secret::new(jwt), Nkey::of_seed(seed)?))
}

impl PartialEq for Nkey {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl fmt::Debug for Nkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nkey").field(&self.public).finish()
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

const SEED: u8 = 18 << 3;
const USER: u8 = 20 << 3;

#[cfg(test)]
mod tests {
    use super::*;

    // A key of nobody, made for this.
    const SEED_TEXT: &str = "SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ";

    #[test]
    fn a_seed_is_a_key() {
        let key = Nkey::of_seed(SEED_TEXT).unwrap();
        assert_eq!(key.sign("nonce").len(), 86);
        assert!(!format!("{key:?}").contains("SUAACA"));
        assert!(key.public().starts_with('U') && key.public().len() == 56);
        for (seed, text) in [
            ("", "is not the seed"),
            ("SUAM", "is not the seed"),
            (&SEED_TEXT.replace("QMBY", "QMBZ"), "check sum"),
        ] {
            let why = Nkey::of_seed(seed).unwrap_err();
            assert!(why.contains(text), "{seed}: {why}");
        }
    }

    #[test]
    fn a_file_of_credentials() {
        let file = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.e30.c2ln\n------END NATS USER JWT------\n\nnotes\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED_TEXT}\n------END USER NKEY SEED------\n"
        );
        let (jwt, key) = read_credentials(&file).unwrap();
        assert_eq!((jwt.expose(), key), ("eyJ0.e30.c2ln", Nkey::of_seed(SEED_TEXT).unwrap()));
        let cut = file.split_once("notes").unwrap();
        assert!(read_credentials(cut.0).unwrap_err().contains("SEED"));
        assert!(read_credentials(cut.1).unwrap_err().contains("JWT"));
    }
}

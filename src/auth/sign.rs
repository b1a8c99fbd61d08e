//! What is signed here: tickets, and the links by which streams are renewed.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Signs and checks with HMAC-SHA256, for one use: what was signed for another does not pass.
pub struct Signer {
    key: hmac::Key,
    usage: String,
}

impl Signer {
    /// With this secret.
    pub fn new(secret: &[u8], usage: impl Into<String>) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), usage: usage.into() }
    }

    /// With a secret of this process alone.
    pub fn of_this_process(usage: &'static str) -> Self {
        Self::new(&rand::random::<[u8; 32]>(), usage)
    }

    /// `content.signature`, both in base64url.
    pub fn sign(&self, content: &[u8]) -> String {
        let signature = hmac::sign(&self.key, &self.with_usage(content));
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(content), BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// What was signed, if this signer did.
    pub fn check(&self, signed: &str) -> Option<Vec<u8>> {
        let (content, signature) = signed.split_once('.')?;
        let content = BASE64_URL_SAFE_NO_PAD.decode(content).ok()?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, &self.with_usage(&content), &signature).ok()?;
        Some(content)
    }

    fn with_usage(&self, content: &[u8]) -> Vec<u8> {
        [self.usage.as_bytes(), b"\n", content].concat()
    }
}

/// SHA-256.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_for_this_use_passes() {
        let (signer, other) = (Signer::new(b"secret", "a"), Signer::new(b"secret", "b"));
        let signed = signer.sign(b"content");
        assert_eq!(signer.check(&signed).as_deref(), Some(&b"content"[..]));
        assert_eq!(other.check(&signed), None);
        assert_eq!(Signer::new(b"other", "a").check(&signed), None);
        for at in 0..signed.len() {
            let mut changed = signed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(signer.check(str::from_utf8(&changed).unwrap()), None, "at {at}");
        }
        for text in ["", ".", "a", "a.b", &signed[..signed.len() - 1], &format!("{signed}x")] {
            assert_eq!(signer.check(text), None, "{text}");
        }
    }
}

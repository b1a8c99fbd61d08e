//! Keys that check signatures, each with the algorithms that it is good for: a token cannot choose another (RFC 8725
//! section 3.1), so that neither `none` nor a public key taken for a secret gets anywhere.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::grant::KeyName;
use super::sign;
use crate::config::{PublicKey, Secret};

/// One key.
pub(super) struct Key {
    /// What grants remember of it.
    pub name: KeyName,
    /// The key.
    pub key: DecodingKey,
    /// What may be signed with it.
    pub algorithms: Vec<Algorithm>,
}

impl Key {
    /// A shared secret.
    pub fn secret(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        let algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Self {
            name: KeyName { id: None, print: sign::digest(bytes) },
            key: DecodingKey::from_secret(bytes),
            algorithms,
        }
    }

    /// A public key of the configuration.
    pub fn public(public: &PublicKey) -> Self {
        let name = KeyName { id: None, print: sign::digest(public.pem.as_bytes()) };
        Self { name, key: public.key.clone(), algorithms: public.algorithms.clone() }
    }

    /// Whether it is the one that a grant remembers so.
    pub fn is(&self, name: &KeyName) -> bool {
        self.name.print == name.print && (self.name.id.is_none() || self.name.id == name.id)
    }

    /// Whether it may be the one that a token means: what it names, if it names one, signed in this way.
    pub fn may_be(&self, name: Option<&str>, algorithm: Algorithm) -> bool {
        let named = name.is_none() || self.name.id.is_none() || self.name.id.as_deref() == name;
        named && self.algorithms.contains(&algorithm)
    }

    /// One of a JWK set (RFC 7517); `None` for what is not a public key that checks signatures.
    fn of_jwk(value: &Value) -> Option<Self> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(params) => match params.curve {
                EllipticCurve::P256 => vec![ES256],
                EllipticCurve::P384 => vec![ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![EdDSA],
            // A secret that anybody can fetch is none.
            _ => return None,
        };
        if let Some(named) = value.get("alg") {
            let named: Algorithm = serde_json::from_value(named.clone()).ok()?;
            algorithms.retain(|algorithm| *algorithm == named);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let parts = ["kty", "crv", "n", "e", "x", "y"]
            .map(|part| value.get(part).and_then(Value::as_str).unwrap_or(""));
        let name = KeyName { id: jwk.common.key_id, print: sign::digest(parts.join("\n").as_bytes()) };
        (!algorithms.is_empty()).then_some(Self { name, key, algorithms })
    }
}

/// The usable keys of a JWK set.
///
/// # Errors
/// Why the text is none, or that it has no key that can be used.
pub(super) fn of_set(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(text).map_err(|_| "the answer is not JSON".to_owned())?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("the answer is not a JWK set (RFC 7517)")?;
    let usable: Vec<_> = keys.iter().take(MOST).filter_map(Key::of_jwk).collect();
    if usable.is_empty() {
        return Err("the set has no key that can be used".to_owned());
    }
    Ok(usable)
}

/// More than any issuer serves.
const MOST: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_that_check_signatures_are_taken() {
        let rsa = r#""kty":"RSA","n":"AQAB","e":"AQAB""#;
        let set = format!(
            r#"{{"keys":[{{{rsa},"kid":"a"}},{{{rsa},"kid":"b","alg":"PS256"}},{{{rsa},"use":"enc","kid":"c"}},
            {{{rsa},"alg":"HS256","kid":"d"}},{{"kty":"oct","k":"AQAB","kid":"e"}},{{"kty":"EC","crv":"P-521","x":"AQAB","y":"AQAB"}},
            {{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"f"}},{{"kty":"new"}}, 7]}}"#
        );
        let keys = of_set(set.as_bytes()).unwrap();
        let named: Vec<_> = keys.iter().map(|key| key.name.id.as_deref().unwrap()).collect();
        assert_eq!(named, ["a", "b", "f"]);
        assert_eq!((keys[0].algorithms.len(), &*keys[1].algorithms), (6, &[Algorithm::PS256][..]));
        assert_eq!(keys[0].name.print, keys[1].name.print, "it is the same key");
        assert!(keys[0].is(&keys[0].name) && !keys[0].is(&keys[1].name), "of another name");
        let may_be = |name, algorithm| keys.iter().map(|key| key.may_be(name, algorithm)).collect::<Vec<_>>();
        assert_eq!(may_be(Some("a"), Algorithm::RS256), [true, false, false]);
        assert_eq!(may_be(None, Algorithm::PS256), [true, true, false]);
        assert_eq!(may_be(None, Algorithm::EdDSA), [false, false, true]);
        for text in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AQAB"}]}"#] {
            assert!(of_set(text.as_bytes()).is_err(), "{text}");
        }
    }
}

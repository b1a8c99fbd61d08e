//! Keys of an issuer, and the tokens that it signs with them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

/// A key that signs with ES256.
pub struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl SigningKey {
    /// A new one of this name.
    pub fn new(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { kid: kid.into(), pair }
    }

    /// Its public half in PEM.
    pub fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// A token of the issuer `issuer` with these claims, and an end in five minutes where they name none.
    pub fn sign(&self, claims: Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).expect("our key");
        encode(&header, &complete(claims), &key).expect("a token")
    }

    fn jwk(&self) -> Value {
        // An uncompressed point (SEC 1 section 2.3.3): 4, x, y.
        let point = self.pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..65]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": x, "y": y })
    }
}

/// A JWK set of these keys.
pub fn jwks(keys: &[&SigningKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// A token that a shared secret signs.
pub fn hs256(secret: &str, claims: Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &complete(claims), &key).expect("a token")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn complete(mut claims: Value) -> Value {
    if claims.get("exp").is_none() {
        claims["exp"] = json!(now() + 300);
    }
    claims
}

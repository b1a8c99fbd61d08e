//! Signed tokens (RFC 7519) of one issuer: found in the request, checked, and turned into a grant.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, encode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::asked::Asked;
use super::grant::{Check, Grant, KeyName, Refusal};
use super::jwks::{Jwks, Lookup};
use super::kept::Kept;
use super::keys::Key;
use crate::config::{Jwt, JwtKeys, Roots};
use crate::fetch::Http;
use crate::metrics::Metrics;

/// Those of one provider.
pub(super) struct Tokens {
    provider: Arc<str>,
    config: Jwt,
    keys: Keys,
}

enum Keys {
    Fixed(Vec<Key>),
    Served(Arc<Kept<Jwks>>),
}

impl Tokens {
    /// As configured; a key set that was known `before` is still known.
    pub fn new(
        provider: &Arc<str>,
        config: &Jwt,
        before: Option<&Self>,
        http: &dyn Fn(Option<&Roots>) -> Http,
        changed: &watch::Sender<u64>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let keys = match &config.keys {
            JwtKeys::Secret(secret) => Keys::Fixed(vec![Key::secret(secret)]),
            JwtKeys::Public(keys) => Keys::Fixed(keys.iter().map(Key::public).collect()),
            JwtKeys::Jwks { url, refresh, roots } => {
                let known = before.filter(|before| before.config.keys == config.keys).and_then(Self::jwks);
                if let Some(known) = known.cloned() {
                    return Self {
                        provider: Arc::clone(provider),
                        config: config.clone(),
                        keys: Keys::Served(known),
                    };
                }
                let (http, metrics) = (http(roots.as_ref()), metrics.jwks(provider));
                Keys::Served(Kept::new(Jwks::new(provider, (url, *refresh), http, changed, metrics)))
            }
        };
        Self { provider: Arc::clone(provider), config: config.clone(), keys }
    }

    /// The key set that has to be kept up to date, if there is one.
    pub fn jwks(&self) -> Option<&Arc<Kept<Jwks>>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Served(jwks) => Some(jwks),
        }
    }

    /// Whether this key is still believed; it may be that it cannot be told.
    pub fn holds(&self, name: &KeyName) -> Option<bool> {
        match &self.keys {
            Keys::Fixed(keys) => Some(keys.iter().any(|key| key.is(name))),
            Keys::Served(jwks) => jwks.holds(name),
        }
    }

    /// The same, after the issuer was asked about a key that is not known.
    pub async fn confirm(&self, name: &KeyName, came: Instant) -> Lookup<()> {
        let among = |keys: &[Key]| keys.iter().any(|key| key.is(name)).then_some(());
        match &self.keys {
            Keys::Fixed(keys) => among(keys).map_or(Lookup::Unknown, Lookup::Found),
            Keys::Served(jwks) => jwks.find(came, among).await,
        }
    }

    pub fn status(&self) -> Value {
        self.jwks().map_or(Value::Null, |jwks| jwks.status())
    }

    /// The token that the request carries, and what it proves.
    pub async fn check(&self, asked: &Asked) -> Check {
        let query = || self.config.query.as_ref().and_then(|name| asked.query(name));
        let carried = asked.bearer().map(Cow::Borrowed);
        let cookie = || self.config.cookie.as_ref().and_then(|name| asked.cookies(name).next());
        if let Some(token) = carried.or_else(query) {
            return self.verify(&token, asked.came).await;
        }
        match cookie() {
            None => Check::Absent,
            // A page of any site could make the browser send it.
            Some(_) if !asked.origin_is_listed => Check::Refused(Refusal::Origin),
            Some(token) => self.verify(token, asked.came).await,
        }
    }

    async fn verify(&self, token: &str, came: Instant) -> Check {
        let Some(head) = Head::of(token) else { return Check::Refused(Refusal::Malformed) };
        let jwks = match &self.keys {
            Keys::Fixed(keys) => {
                return self.verdict(token, &head, keys).unwrap_or(Check::Refused(Refusal::Signature));
            }
            Keys::Served(jwks) => jwks,
        };
        // The issuer is not asked about what no key of his would make good; another provider's it is perhaps.
        if let Some(why) = self.unfit(token, &head) {
            return Check::Refused(why);
        }
        match jwks.find(came, |keys| self.verdict(token, &head, keys)).await {
            Lookup::Found(check) => check,
            Lookup::Unknown => Check::Refused(Refusal::Signature),
            Lookup::Unavailable => Check::Undecided,
        }
    }

    /// What becomes of a token that one of these keys has signed.
    fn verdict(&self, token: &str, head: &Head, keys: &[Key]) -> Option<Check> {
        let validation = self.validation(head.algorithm);
        let mut fitting =
            keys.iter().filter(|key| key.may_be(head.key.as_deref(), head.algorithm)).take(TRIED);
        fitting.find_map(|key| match jsonwebtoken::decode::<Value>(token, &key.key, &validation) {
            Ok(token) => Some(self.grant(token.claims, key, head.key.clone())),
            Err(error) => match why(error.kind()) {
                Refusal::Signature => None,
                why => Some(Check::Refused(why)),
            },
        })
    }

    /// Why a token would be refused whoever had signed it. Nothing of it is believed: its claims are signed anew, so that
    /// the library looks at them as it does at those of others.
    fn unfit(&self, token: &str, head: &Head) -> Option<Refusal> {
        if matches!(head.algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Some(Refusal::Signature);
        }
        let checked = || {
            let claims: Value = insecure_decode_claims(token)?;
            let token = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(NOBODYS))?;
            let key = DecodingKey::from_secret(NOBODYS);
            jsonwebtoken::decode::<Value>(&token, &key, &self.validation(Algorithm::HS256))
        };
        checked().err().map(|error| why(error.kind()))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.config.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if !self.config.issuer.is_empty() {
            validation.set_issuer(&self.config.issuer);
            required.push("iss");
        }
        if !self.config.audience.is_empty() {
            validation.set_audience(&self.config.audience);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn grant(&self, claims: Value, key: &Key, named: Option<String>) -> Check {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str).map(str::to_owned);
        let (subject, token) = (text("sub").unwrap_or_default(), text("jti"));
        let Some(end) = claims.get("exp").and_then(Value::as_f64) else {
            return Check::Refused(Refusal::Malformed);
        };
        // As long as it would be let in anew.
        let end = Duration::try_from_secs_f64(end.max(0.0)).unwrap_or(LATEST).min(LATEST);
        let expires = SystemTime::UNIX_EPOCH + (end + self.config.leeway).min(LATEST);
        // From its `exp` on a token is not good any more (RFC 7519 section 4.1.4).
        if expires <= SystemTime::now() {
            return Check::Refused(Refusal::Expired);
        }
        // What a fixed key is called is up to the token, so that a deny list can name it.
        let key = KeyName { id: key.name.id.clone().or(named), print: key.name.print };
        let expires = Some(expires);
        let grant = Grant { key: Some(key), token, expires, ..Grant::new(&self.provider, &subject, claims) };
        Check::Known(Arc::new(grant), None)
    }
}

/// The head of a token, as far as it decides on the key. Nothing of it is believed.
struct Head {
    algorithm: Algorithm,
    key: Option<String>,
}

impl Head {
    /// `None` where it is no signed token, or asks for more than signatures (`crit`, RFC 7515 section 4.1.11).
    fn of(token: &str) -> Option<Self> {
        if token.len() > LONGEST || token.bytes().filter(|b| *b == b'.').count() != 2 {
            return None;
        }
        let head = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
        let head: Value = serde_json::from_slice(&head).ok()?;
        if head.get("crit").is_some() || head.get("b64").is_some() {
            return None;
        }
        let algorithm = serde_json::from_value(head.get("alg")?.clone()).ok()?;
        Some(Self { algorithm, key: head.get("kid").and_then(Value::as_str).map(str::to_owned) })
    }
}

fn why(error: &ErrorKind) -> Refusal {
    match error {
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => Refusal::Early,
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim != "exp" => Refusal::Audience,
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Refusal::Signature,
        _ => Refusal::Malformed,
    }
}

/// Bytes of a token.
const LONGEST: usize = 16 * 1024;
/// Keys that are tried for a token.
const TRIED: usize = 8;
/// The last second that RFC 3339 can write, since 1970. What ends later does not end.
const LATEST: Duration = Duration::from_secs(253_402_300_799);
/// A secret that signs nothing that is believed.
const NOBODYS: &[u8] = b"nobody's";

#[cfg(test)]
mod tests;

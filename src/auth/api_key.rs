//! Keys of programs, known by their hashes. Every hash is compared, and each in constant time.

use std::sync::Arc;

use serde_json::json;

use super::asked::Asked;
use super::grant::{Check, Grant, Refusal};
use super::sign;
use crate::config::ApiKey;

/// Those of one provider.
pub(super) struct ApiKeys(ApiKey);

impl ApiKeys {
    pub fn new(config: &ApiKey) -> Self {
        Self(config.clone())
    }

    pub fn check(&self, provider: &Arc<str>, asked: &Asked) -> Check {
        let Some(key) = asked.headers.get(&self.0.header) else { return Check::Absent };
        let hash = sign::digest(key.as_bytes());
        let mut found = None;
        for (name, known) in &self.0.keys {
            if sign::same(known, &hash) {
                found = Some(name);
            }
        }
        match found {
            Some(name) => Check::Known(Arc::new(Grant::new(provider, name, json!({ "sub": name }))), None),
            None => Check::Refused(Refusal::Signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::asked::testing::asked;
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash() {
        let config = ApiKey {
            header: http::HeaderName::from_static("x-api-key"),
            keys: vec![("ci".into(), sign::digest(b"one")), ("cd".into(), sign::digest(b"two"))],
        };
        let (keys, provider) = (ApiKeys::new(&config), Arc::from("machines"));
        let check = |key| keys.check(&provider, &asked(&[("x-api-key", key)], ""));
        assert!(matches!(check("two"), Check::Known(grant, None) if &*grant.subject == "cd"));
        assert!(matches!(check("three"), Check::Refused(Refusal::Signature)));
        assert!(matches!(keys.check(&provider, &asked(&[], "x-api-key=one")), Check::Absent));
    }
}

//! Keys of programs, known by their hashes. Every hash is compared, and each in constant time.

use std::sync::Arc;

use serde_json::json;

use super::asked::Asked;
use super::grant::{Check, Grant, KeyName, Refusal};
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
            Some(name) => {
                let grant = Grant::new(provider, name, json!({ "sub": name }));
                let key = Some(KeyName { id: None, print: hash });
                Check::Known(Arc::new(Grant { key, ..grant }), None)
            }
            None => Check::Refused(Refusal::Signature),
        }
    }

    /// Whether it is still one of them.
    pub fn holds(&self, key: &KeyName) -> bool {
        self.0.keys.iter().any(|(_, known)| *known == key.print)
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
        let Check::Known(grant, None) = check("two") else { panic!("it is known") };
        assert_eq!(&*grant.subject, "cd");
        let key = grant.key.as_ref().unwrap();
        assert!(keys.holds(key));
        let others = ApiKey { keys: config.keys[..1].to_vec(), ..config.clone() };
        assert!(!ApiKeys::new(&others).holds(key), "it was taken out");
        assert!(matches!(check("three"), Check::Refused(Refusal::Signature)));
        assert!(matches!(keys.check(&provider, &asked(&[], "x-api-key=one")), Check::Absent));
    }
}

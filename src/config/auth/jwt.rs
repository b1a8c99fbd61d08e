//! `jwt:`: whose tokens are believed, and where requests carry them.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::super::fields::{Bounds, Fields};
use super::super::keys;
use super::super::tree::Node;
use super::super::walk::Walk;
use super::{Jwt, JwtKeys, PublicKey, read_ca, read_secret, read_token, read_url};

pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Jwt> {
    let fields = Fields::open(walk, node, keys::JWT)?;
    let keys = read_keys(walk, &fields);
    let token = |key, what| fields.node(key).map(|node| read_token(walk, node, what));
    let (cookie, query) =
        (token("cookie", "the name of a cookie"), token("query", "the name of a query parameter"));
    let leeway = fields.duration("leeway", &LEEWAY).unwrap_or(LEEWAY.default);
    let issuer = fields.node("issuer").map_or(Some(Vec::new()), |node| read_texts(walk, node, "an issuer"));
    let audience =
        fields.node("audience").map_or(Some(Vec::new()), |node| read_texts(walk, node, "an audience"));
    Some(Jwt {
        keys: keys?,
        issuer: issuer?,
        audience: audience?,
        leeway,
        cookie: cookie.flatten(),
        query: query.flatten(),
    })
}

fn read_keys(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<JwtKeys> {
    let refresh = fields.duration("refresh", &REFRESH);
    let present: Vec<_> =
        ["jwks", "keys", "secret"].into_iter().filter_map(|key| fields.entry(key)).collect();
    let Some(first) = present.first() else {
        let text = "`jwt` lacks what signatures are checked with; give it `jwks: URL`, `keys: \"file:…\"` or `secret: \"file:…\"`";
        walk.problem(fields.span(), text);
        return None;
    };
    for second in &present[1..] {
        let text = format!("signatures are checked with `{}` already; use one of them", first.key.text);
        walk.conflict(second.key.span, text, first.key.span, "the first one");
    }
    for key in ["refresh", "ca"] {
        if let (Some(entry), true) = (fields.entry(key), first.key.text != "jwks") {
            walk.problem(entry.key.span, format!("`{key}` goes with `jwks` alone; leave it out"));
        }
    }
    let node = fields.node(&first.key.text)?;
    match first.key.text.as_str() {
        "secret" => read_secret(walk, node).map(JwtKeys::Secret),
        "keys" => read_public(walk, node).map(JwtKeys::Public),
        _ => {
            let url = read_url(walk, node)?;
            let roots = read_ca(walk, fields, &url);
            Some(JwtKeys::Jwks { url, refresh: refresh.unwrap_or(REFRESH.default), roots })
        }
    }
}

fn read_public(walk: &Walk<'_>, node: &Node) -> Option<Vec<PublicKey>> {
    let expected = "a public key in PEM, such as `\"file:issuer.pem\"`";
    let read = |node| {
        let scalar = walk.text(node, expected)?;
        let key = public_key(&scalar.text);
        if key.is_none() {
            let text = "this is not a public key in PEM (`BEGIN PUBLIC KEY`) of RSA, P-256, P-384 or Ed25519; write `\"file:PATH\"` where it is in a file";
            walk.problem(scalar.span(), text);
        }
        key
    };
    walk.one_or_more(node, expected)?.iter().map(read).collect()
}

/// The kind of the key decides on the algorithms, so that no token can choose one that the key is not meant for.
fn public_key(pem: &str) -> Option<PublicKey> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    if pem.contains("PRIVATE KEY") {
        return None;
    }
    let bytes = pem.as_bytes();
    let rsa =
        || Some((DecodingKey::from_rsa_pem(bytes).ok()?, vec![RS256, RS384, RS512, PS256, PS384, PS512]));
    let ec = || Some((DecodingKey::from_ec_pem(bytes).ok()?, vec![ES256, ES384]));
    let ed = || Some((DecodingKey::from_ed_pem(bytes).ok()?, vec![EdDSA]));
    let (key, algorithms) = rsa().or_else(ec).or_else(ed)?;
    Some(PublicKey { key, algorithms, pem: pem.to_owned() })
}

fn read_texts(walk: &Walk<'_>, node: &Node, what: &str) -> Option<Vec<String>> {
    let read = |node| Some(walk.text(node, what)?.text.into_owned());
    walk.one_or_more(node, what)?.iter().map(read).collect()
}

pub(in crate::config) const LEEWAY: Bounds<Duration> =
    Bounds { default: Duration::from_secs(30), min: Duration::ZERO, max: Duration::from_secs(300) };
pub(in crate::config) const REFRESH: Bounds<Duration> = Bounds {
    default: Duration::from_secs(300),
    min: Duration::from_secs(1),
    max: Duration::from_secs(86_400),
};

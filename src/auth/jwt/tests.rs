//! Tokens that pass and, above all, those that must not.

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::json;

use super::super::asked::testing::asked;
use super::*;
use crate::config::parse;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The tokens of a provider with these settings.
fn tokens(settings: &str) -> Tokens {
    let text = format!(
        "server: {{ tls: none }}\nauth:\n  users:\n    jwt:\n{settings}\nupstreams: {{ t: {{ ticker: {{}} }} }}\nroutes: [{{ path: /t, from: {{ upstream: t }} }}]\n"
    );
    let config = parse("c.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let crate::config::AuthKind::Jwt(jwt) = &config.auth[0].kind else { panic!("a jwt") };
    Tokens::new(
        &config.auth[0].name,
        jwt,
        None,
        &|roots| Http::new(roots),
        &watch::Sender::new(0),
        &Metrics::new(),
    )
}

fn with_secret(more: &str) -> Tokens {
    tokens(&format!("      secret: {SECRET}\n      leeway: 0s\n{more}"))
}

fn with_key(key: &KeyPair) -> Tokens {
    let pem = key.public_key_pem().replace('\n', "\n        ");
    tokens(&format!("      leeway: 0s\n      keys: |\n        {pem}"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn signed(algorithm: Algorithm, claims: &Value, key: &EncodingKey) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

async fn check(tokens: &Tokens, token: &str) -> Result<Arc<Grant>, Refusal> {
    match tokens.check(&asked(&[("authorization", &format!("Bearer {token}"))], "")).await {
        Check::Known(grant, None) => Ok(grant),
        Check::Refused(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_kind_of_key_checks_its_own_algorithms_and_no_other() {
    let claims = json!({ "sub": "alice", "jti": "7", "exp": now() + 60, "tenant": "acme" });
    let [rsa, ec, ed] = [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ED25519]
        .map(|algorithm| KeyPair::generate_for(algorithm).unwrap());
    let pem = |key: &KeyPair| key.serialize_pem().into_bytes();
    let all = [
        (with_secret(""), hs256(&claims)),
        (with_key(&rsa), signed(Algorithm::RS256, &claims, &EncodingKey::from_rsa_pem(&pem(&rsa)).unwrap())),
        (with_key(&rsa), signed(Algorithm::PS384, &claims, &EncodingKey::from_rsa_pem(&pem(&rsa)).unwrap())),
        (with_key(&ec), signed(Algorithm::ES256, &claims, &EncodingKey::from_ec_pem(&pem(&ec)).unwrap())),
        (with_key(&ed), signed(Algorithm::EdDSA, &claims, &EncodingKey::from_ed_pem(&pem(&ed)).unwrap())),
    ];
    for (at, (tokens, token)) in all.iter().enumerate() {
        let grant = check(tokens, token).await.unwrap();
        assert_eq!((&*grant.subject, &grant.claims["tenant"]), ("alice", &json!("acme")));
        assert_eq!(grant.token.as_deref(), Some("7"));
        assert!(grant.expires.unwrap() > SystemTime::now());
        for (other, (_, token)) in all.iter().enumerate() {
            // Two of them have the same key.
            if at != other && [at, other] != [1, 2] && [at, other] != [2, 1] {
                assert_eq!(check(tokens, token).await.unwrap_err(), Refusal::Signature, "{at} {other}");
            }
        }
    }
}

/// The classic: a token signed with the public key as if it were a shared secret.
#[tokio::test]
async fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let claims = json!({ "sub": "mallory", "exp": now() + 60 });
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let tokens = with_key(&rsa);
    let public = rsa.public_key_pem();
    for secret in [public.as_bytes(), public.trim().as_bytes(), rsa.public_key_raw(), b""] {
        let token = signed(Algorithm::HS256, &claims, &EncodingKey::from_secret(secret));
        assert_eq!(check(&tokens, &token).await.unwrap_err(), Refusal::Signature);
    }
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let token = hs256(&claims);
    let signature = token.rsplit('.').next().unwrap();
    for algorithm in ["none", "None", "NONE", "", "HS1", "hs256"] {
        for end in ["", signature] {
            let token =
                format!("{}.{}.{end}", part(&json!({ "alg": algorithm, "typ": "JWT" })), part(&claims));
            for tokens in [&tokens, &with_secret("")] {
                assert_eq!(check(tokens, &token).await.unwrap_err(), Refusal::Malformed, "{algorithm}");
            }
        }
    }
}

#[tokio::test]
async fn times_issuer_and_audience_are_checked() {
    let tokens = with_secret("      issuer: [us, them]\n      audience: events");
    let good =
        json!({ "sub": "a", "exp": now() + 60, "nbf": now() - 1, "iss": "us", "aud": ["x", "events"] });
    assert!(check(&tokens, &hs256(&good)).await.is_ok());
    for (claim, value, why) in [
        ("exp", json!(now() - 5), Refusal::Expired),
        ("exp", Value::Null, Refusal::Malformed),
        ("exp", json!("tomorrow"), Refusal::Malformed),
        ("nbf", json!(now() + 60), Refusal::Early),
        ("iss", json!("else"), Refusal::Audience),
        ("iss", Value::Null, Refusal::Audience),
        ("aud", json!("else"), Refusal::Audience),
        ("aud", json!([]), Refusal::Audience),
        ("aud", Value::Null, Refusal::Audience),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        assert_eq!(check(&tokens, &hs256(&claims)).await.unwrap_err(), why, "{claim} {value}");
    }
    let plain = with_secret("");
    assert_eq!(check(&plain, &hs256(&good)).await.unwrap_err(), Refusal::Audience, "it is for somebody");
    let forever = json!({ "exp": 1e300 });
    assert!(check(&plain, &hs256(&forever)).await.is_err());
}

#[tokio::test]
async fn an_end_that_no_date_can_write_is_the_last_one_that_can() {
    for exp in [253_402_300_799_u64, 253_402_300_800, 1 << 60] {
        let grant = check(&with_secret(""), &hs256(&json!({ "sub": "a", "exp": exp }))).await.unwrap();
        let expires = humantime::format_rfc3339_seconds(grant.expires.unwrap()).to_string();
        assert_eq!(expires, "9999-12-31T23:59:59Z");
    }
}

#[tokio::test]
async fn keys_of_other_algorithms_are_not_counted_among_those_that_are_tried() {
    let ec: Vec<_> = (0..20).map(|_| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()).collect();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let pem = |key: &KeyPair| {
        format!("\n        - |\n          {}", key.public_key_pem().replace('\n', "\n          "))
    };
    let all: String = ec.iter().chain([&ed]).map(pem).collect();
    let tokens = tokens(&format!("      keys:{all}"));
    let key = EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).unwrap();
    let claims = json!({ "sub": "a", "exp": now() + 60 });
    assert!(check(&tokens, &signed(Algorithm::EdDSA, &claims, &key)).await.is_ok());
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let tokens = with_secret("");
    let good = hs256(&json!({ "exp": now() + 60 }));
    assert!(check(&tokens, &good).await.is_ok());
    let changed = good.replacen('.', ".A", 1);
    assert!(check(&tokens, &changed).await.is_err());
    let head = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    let critical = format!("{head}.{}", good.split_once('.').unwrap().1);
    for token in ["", ".", "..", "a.b.c", "a.b.c.d", &critical, &"a".repeat(20_000), &format!("{good}.")] {
        assert_eq!(check(&tokens, token).await.unwrap_err(), Refusal::Malformed, "{token:.20}");
    }
}

#[tokio::test]
async fn a_token_comes_from_where_it_may_come() {
    let token = hs256(&json!({ "sub": "a", "exp": now() + 60 }));
    let (cookie, query) = (format!("x=1; session={token}"), format!("a=b&access_token={token}"));
    let everywhere = with_secret("      cookie: session\n      query: access_token");
    assert!(matches!(everywhere.check(&asked(&[("cookie", &cookie)], "")).await, Check::Known(..)));
    assert!(matches!(everywhere.check(&asked(&[], &query)).await, Check::Known(..)));
    let header_alone = with_secret("");
    assert!(matches!(header_alone.check(&asked(&[("cookie", &cookie)], &query)).await, Check::Absent));
    let mut foreign = asked(&[("cookie", &cookie)], "");
    foreign.origin_is_listed = false;
    assert!(matches!(everywhere.check(&foreign).await, Check::Refused(Refusal::Origin)));
    foreign.headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    assert!(
        matches!(everywhere.check(&foreign).await, Check::Known(..)),
        "no page of another site can know it"
    );
}

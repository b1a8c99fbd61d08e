//! Attacks on who may listen, as a client: none of them gets a stream, none of them shows in the log with what it brought,
//! and clients that may listen lose nothing meanwhile.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::origin::Origin;
use crate::support::ssegate::Ssegate;
use crate::support::token::{SigningKey, hs256, jwks, now};
use crate::support::witness::Witness;

/// A stream for the tokens of two issuers, one that serves its keys and one whose RSA key stands in a file.
struct Target {
    ssegate: Ssegate,
    key: SigningKey,
    rsa: KeyPair,
    _issuer: Origin,
    _dir: tempfile::TempDir,
}

impl Target {
    async fn start() -> Self {
        let (key, rsa) = (SigningKey::new("k1"), KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
        let issuer = Origin::start().await;
        issuer.say("/jwks", 200, jwks(&[&key]));
        let dir = crate::support::scratch::dir("auth");
        let file = dir.path().join("rsa.pem");
        std::fs::write(&file, rsa.public_key_pem()).unwrap();
        let ssegate = Ssegate::start(format!(
            r#"
auth:
  users: {{ jwt: {{ jwks: "{}", issuer: us, audience: events, leeway: 0s, cookie: session }} }}
  staff: {{ jwt: {{ keys: "file:{}", issuer: us, audience: events, leeway: 0s }} }}
  tickets: {{ ticket: {{ path: /tickets, of: staff, secret: "a secret of 32 bytes or some more" }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - path: /a
    from: {{ upstream: lobby, channel: a }}
    auth: [users, staff, tickets]
    cors: {{ origins: ["https://app.example"], credentials: true }}
  - {{ path: /b, from: {{ upstream: lobby, channel: a }}, auth: [users, staff, tickets] }}
"#,
            issuer.url("/jwks"),
            file.display(),
        ))
        .await;
        let target = Self { ssegate, key, rsa, _issuer: issuer, _dir: dir };
        assert_eq!(target.status(&target.key.sign(claims())).await, 200, "what it must be");
        target
    }

    /// Whether it gets nothing: it is refused, or held until its issuer has been asked about it, and sent away then.
    async fn refuses(&self, what: &str, token: &str) {
        let bearer = format!("Bearer {token}");
        let options = Options::http1().header("authorization", &bearer);
        let mut stream = EventSource::request(self.ssegate.url("/a"), options).await;
        if stream.status() == 200 {
            stream.until_end().await;
            assert!(stream.events().is_empty(), "{what}: {stream}");
        } else {
            assert_eq!(stream.status(), 401, "{what}");
        }
    }

    /// Two clients that may listen.
    async fn witness(&self) -> Witness {
        let bearer = format!("Bearer {}", self.rs256(&claims()));
        let clients = [Options::http1(), Options::http2()];
        let clients = clients.map(|options| options.header("authorization", &bearer));
        Witness::reading(&self.ssegate, "/a", "a", clients).await
    }

    async fn unharmed(&self, witness: Witness) {
        let growth = witness.growth(&self.ssegate);
        assert!(growth < GROWTH, "{growth}");
        witness.unharmed(&self.ssegate).await;
    }

    async fn status(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let options = Options::http1().header("authorization", &bearer);
        EventSource::request(self.ssegate.url("/a"), options).await.status().as_u16()
    }

    fn rs256(&self, claims: &Value) -> String {
        let key = EncodingKey::from_rsa_pem(self.rsa.serialize_pem().as_bytes()).unwrap();
        encode(&Header::new(Algorithm::RS256), claims, &key).unwrap()
    }
}

fn claims() -> Value {
    json!({ "sub": "alice", "iss": "us", "aud": "events", "exp": now() + 300 })
}

fn with(claim: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[claim] = value.into();
    claims
}

/// What the process may grow by during an attack.
const GROWTH: usize = 32 << 20;

#[tokio::test]
async fn forged_tokens_get_nowhere() {
    let target = Target::start().await;
    let witness = target.witness().await;
    let good = target.key.sign(claims());
    assert_eq!(target.status(&target.rs256(&claims())).await, 200);

    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = good.rsplit('.').next().unwrap();
    let none = |algorithm: &str, end: &str| {
        format!("{}.{}.{end}", part(&json!({ "alg": algorithm, "kid": "k1" })), part(&claims()))
    };
    let public = target.rsa.public_key_pem();
    let confused = |kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims(), &EncodingKey::from_secret(public.as_bytes())).unwrap()
    };
    // It brings its own key along, which nobody asked for.
    let mut header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::ES256) };
    header.jku = Some("https://evil.example/jwks".into());
    let evil = KeyPair::generate().unwrap();
    let evil = EncodingKey::from_ec_pem(evil.serialize_pem().as_bytes()).unwrap();
    let own_key = encode(&header, &claims(), &evil).unwrap();
    let stranger = SigningKey::new("k1");
    let claimed = {
        let mut parts = good.split('.');
        let (head, end) = (parts.next().unwrap(), parts.next_back().unwrap());
        format!("{head}.{}.{end}", part(&with("sub", "root")))
    };
    let forged = [
        ("another issuer's key of the same name", stranger.sign(claims())),
        ("another issuer's key of another name", SigningKey::new("k2").sign(claims())),
        ("alg none", none("none", "")),
        ("alg None with a signature", none("None", signature)),
        ("no alg", none("", signature)),
        ("HS256 with the public key as the secret", confused(None)),
        ("the same with a name of a key", confused(Some("k1"))),
        ("HS256 with an empty secret", hs256("", claims())),
        ("a key that it names itself", own_key),
        ("claims that were changed", claimed),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned()),
        ("an empty signature", format!("{}.", good.rsplit_once('.').unwrap().0)),
        ("nothing", "x".to_owned()),
    ];
    futures_util::future::join_all(forged.iter().map(|(what, token)| target.refuses(what, token))).await;
    let let_in =
        target.ssegate.metrics().await.sum("ssegate_auth_decisions_total", &[("outcome", "allowed")]);
    assert_eq!(let_in, 4.0, "the two that were not forged, and the witness");
    target.unharmed(witness).await;
}

#[tokio::test]
async fn tokens_that_are_not_now_or_not_for_us_get_nowhere() {
    let target = Target::start().await;
    let witness = target.witness().await;
    for (what, claims) in [
        ("expired", with("exp", now() - 1)),
        ("without an end", with("exp", Value::Null)),
        ("not yet valid", with("nbf", now() + 100)),
        ("of another audience", with("aud", "else")),
        ("of no audience", with("aud", Value::Null)),
        ("of another issuer", with("iss", "them")),
        ("of no issuer", with("iss", Value::Null)),
    ] {
        for token in [target.key.sign(claims.clone()), target.rs256(&claims)] {
            assert_eq!(target.status(&token).await, 401, "{what}");
        }
    }
    target.unharmed(witness).await;
}

/// As many as there are ways: once more, elsewhere, changed, and the credential in its place.
#[tokio::test]
async fn tickets_that_are_used_again_or_elsewhere_get_nowhere() {
    let target = Target::start().await;
    let witness = target.witness().await;
    let bearer = format!("Bearer {}", target.rs256(&claims()));
    let ask = async |path: &str, ticket: &str, options: Options| {
        let url = target.ssegate.url(&format!("{path}?ticket={ticket}"));
        EventSource::request(url, options).await.status().as_u16()
    };
    for _ in 0..20 {
        let url = target.ssegate.url("/tickets?path=/a");
        let answer =
            request(Method::POST, &url, &[("authorization", &bearer)], "", &Connect::http1()).await.json();
        let ticket = answer["ticket"].as_str().unwrap();
        let cut = &ticket[..ticket.len() - 2];
        for options in [Options::http1(), Options::http2()] {
            for (what, path, ticket) in [
                ("elsewhere", "/b", ticket),
                ("cut", "/a", cut),
                ("with more at its end", "/a", &format!("{ticket}AA")),
                ("a token", "/a", &bearer["Bearer ".len()..]),
                ("nothing", "/a", ""),
            ] {
                assert_eq!(ask(path, ticket, options.clone()).await, 401, "{what}");
            }
        }
        assert_eq!(ask("/a", ticket, Options::http1()).await, 200, "none of that has used it up");
        for options in [Options::http1(), Options::http2()] {
            assert_eq!(ask("/a", ticket, options).await, 401, "once more");
        }
    }
    target.unharmed(witness).await;
}

#[tokio::test]
async fn a_cookie_counts_only_for_pages_that_are_listed() {
    let target = Target::start().await;
    let witness = target.witness().await;
    let cookie = format!("session={}", target.key.sign(claims()));
    let own = format!("https://localhost:{}", target.ssegate.addr().port());
    let in_the_clear = own.replace("https", "http");
    let ask = async |headers: &[(&str, &str)]| {
        let mut options = Options::http2().header("cookie", &cookie);
        for (name, value) in headers {
            options = options.header(name, value);
        }
        EventSource::request(target.ssegate.url("/a"), options).await.status().as_u16()
    };
    for (headers, status) in [
        (&[][..], 200),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("origin", &*own)], 200),
        (&[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], 200),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "https://app.example.evil")], 403),
        (&[("origin", &*in_the_clear)], 403),
        (&[("origin", "https://before.a.proxy"), ("sec-fetch-site", "same-origin")], 200),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
    ] {
        assert_eq!(ask(headers).await, status, "{headers:?}");
    }
    target.unharmed(witness).await;
}

#[tokio::test]
async fn no_credential_shows_in_the_log() {
    let target = Target::start().await;
    let good = target.key.sign(claims());
    let (head, _) = good.split_once('.').unwrap();
    for token in [&*good, "not-a-token-but-a-secret"] {
        target.status(token).await;
        let url = target.ssegate.url(&format!("/a?access_token={token}&ticket={token}&renew={token}"));
        for method in [Method::GET, Method::POST] {
            request(method, &url, &[], "", &Connect::http1()).await;
        }
    }
    target.ssegate.wait_log("the end of a stream", |line| line["message"] == "stream ended").await;
    for line in target.ssegate.log() {
        let line = line.to_string();
        assert!(!line.contains(head) && !line.contains("not-a-token"), "{line}");
    }
}

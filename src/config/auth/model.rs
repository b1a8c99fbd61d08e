//! What `auth:` means once it is known to be right: the ways in which a client can prove who it is.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::super::client_tls::Roots;
use super::super::model::Secret;

/// One entry of `auth:`, which routes name.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthProvider {
    /// Its key in the file; `[A-Za-z0-9_-]{1,64}`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: AuthKind,
}

/// The kind of a provider, named in YAML by its only key.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthKind {
    /// `jwt`: signed tokens of an issuer.
    Jwt(Jwt),
    /// `ticket`: short-lived ones of our own, for the URL.
    Ticket(Ticket),
    /// `api_key`: keys that are known by their hash.
    ApiKey(ApiKey),
    /// `forward`: an HTTP endpoint is asked.
    Forward(Forward),
    /// `client_cert: {}`: who has shown a certificate in the TLS handshake.
    ClientCert,
}

impl AuthKind {
    /// What the file and metrics call it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Ticket(_) => "ticket",
            Self::ApiKey(_) => "api_key",
            Self::Forward(_) => "forward",
            Self::ClientCert => "client_cert",
        }
    }
}

/// `jwt:`
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// `secret`, `keys` or `jwks`: what signatures are checked with.
    pub keys: JwtKeys,
    /// `issuer`: those that `iss` may name; without any it is not looked at.
    pub issuer: Vec<String>,
    /// `audience`: of these `aud` must name one; without any, tokens with an `aud` are refused.
    pub audience: Vec<String>,
    /// `leeway`: how far clocks may differ. Default 30 s, at most 5 min.
    pub leeway: Duration,
    /// `cookie`: the cookie that may carry a token.
    pub cookie: Option<String>,
    /// `query`: the query parameter that may carry one.
    pub query: Option<String>,
}

/// What signatures of tokens are checked with.
#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeys {
    /// `secret`: HS256, HS384 and HS512. At least 32 bytes.
    Secret(Secret),
    /// `keys`: public keys in PEM, at least one.
    Public(Vec<PublicKey>),
    /// `jwks`: a set that the issuer serves.
    Jwks {
        /// Where.
        url: Uri,
        /// `refresh`: how often it is fetched. Default 5 min, 1 s to 1 day.
        refresh: Duration,
        /// `ca`: whom to trust in fetching it, instead of the system's authorities.
        roots: Option<Roots>,
    },
}

/// A public key, and the algorithms that its kind allows. A token's own `alg` chooses among these and no others.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// The key.
    pub key: DecodingKey,
    /// What may be signed with it.
    pub algorithms: Vec<Algorithm>,
    /// Its PEM text, by which it is told from others.
    pub pem: String,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem && self.algorithms == other.algorithms
    }
}

/// `ticket:`
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket {
    /// `path`: where tickets are asked for with `POST`.
    pub path: Arc<str>,
    /// `of`: what who asks for one must prove, by these providers in order.
    pub of: Vec<Arc<str>>,
    /// `secret`: what tickets are signed with, the same on all replicas. Without it one is made at each start.
    pub secret: Option<Secret>,
    /// `ttl`: how long a ticket may wait for its use. Default 30 s, 1 s to 5 min.
    pub ttl: Duration,
    /// `bind_address`: whether only the address that asked may use it. Default false.
    pub bind_address: bool,
}

/// `api_key:`
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// `header`: which carries the key. Default `x-api-key`.
    pub header: HeaderName,
    /// `keys`: who has which, by its SHA-256.
    pub keys: Vec<(Arc<str>, [u8; 32])>,
}

/// `forward:`
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `url`: what is asked.
    pub url: Uri,
    /// `ca`: whom to trust in asking, instead of the system's authorities.
    pub roots: Option<Roots>,
    /// `headers`: of the client's request that are passed on. Default `authorization` and `cookie`.
    pub headers: Vec<HeaderName>,
    /// `claims`: headers of the answer that rules see as claims; the first is the subject.
    pub claims: Vec<HeaderName>,
    /// `cache`: how long an answer holds for the same question. Default 10 s, 0 to 1 h.
    pub cache: Duration,
    /// `timeout`: for an answer. Default 2 s, 10 ms to 1 min.
    pub timeout: Duration,
    /// `on_error`: what becomes of a client while there is no answer.
    pub on_error: OnError,
}

/// `forward.on_error:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// `hold`: its stream is open, and has no data until there is an answer. The default.
    Hold,
    /// `deny`: it is refused.
    Deny,
}

/// `allow:`, an expression in CEL.
#[derive(Clone)]
pub struct Rule {
    /// The compiled expression.
    pub program: Arc<cel::Program>,
    /// As it stands in the file: what variables and other files hold is not in it.
    pub text: Arc<str>,
    variables: Vec<&'static str>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        // The text may be that of a variable.
        self.text == other.text && self.program.expression() == other.program.expression()
    }
}

impl Rule {
    /// What an expression can speak of.
    pub const VARIABLES: [&str; 5] = ["claims", "params", "query", "headers", "client"];

    /// One that was compiled from `text`.
    pub fn new(program: cel::Program, text: &str) -> Self {
        let mut variables = Self::VARIABLES.to_vec();
        variables.retain(|variable| program.references().has_variable(variable));
        Self { program: Arc::new(program), text: text.into(), variables }
    }

    /// Whether it speaks of one of [`Self::VARIABLES`].
    pub fn reads(&self, variable: &str) -> bool {
        self.variables.contains(&variable)
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

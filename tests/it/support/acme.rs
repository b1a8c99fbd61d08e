//! A small ACME server (RFC 8555) over TLS: accounts, orders of one name, the TLS-ALPN-01 challenge (RFC 8737), which it
//! tries in earnest, and certificates of an authority of its own. It checks what it is sent: nonces, URLs, signatures.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::serve::serve;
use super::tls::{TestCa, blind_config, default_provider, handshake, shown};

/// A running server. Dropping it ends it.
pub struct Acme {
    server: Arc<Server>,
    tasks: JoinSet<()>,
}

struct Server {
    base: String,
    ca: TestCa,
    state: Mutex<State>,
    /// Where every domain leads.
    domains_at: watch::Sender<Option<SocketAddr>>,
}

#[derive(Default)]
struct State {
    nonces: HashSet<String>,
    /// Their keys, by number.
    accounts: Vec<Value>,
    orders: Vec<Order>,
    /// How old a certificate is when it is issued.
    age: Duration,
}

struct Order {
    domain: String,
    token: String,
    status: &'static str,
    error: Value,
    certificate: Option<String>,
}

/// What is wrong with a request: a status, and a type of RFC 8555 section 6.7.
type Refused = (u16, &'static str);

impl Acme {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let (ca, state) = (TestCa::new(), Mutex::default());
        let server = Arc::new(Server { base, ca, state, domains_at: watch::Sender::new(None) });
        let acceptor = TlsAcceptor::from(server.ca.server_config(&["http/1.1"]));
        let mut tasks = JoinSet::new();
        let asked = Arc::clone(&server);
        tasks.spawn(serve(listener, Some(acceptor), move |request| answer(Arc::clone(&asked), request)));
        Self { server, tasks }
    }

    /// Ends it; the files of its authority stay.
    pub fn stop(&mut self) {
        self.tasks.abort_all();
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("{}/dir", self.server.base)
    }

    /// Its authority's certificate, a PEM file; its own certificate is of the same.
    pub fn ca_path(&self) -> PathBuf {
        self.server.ca.cert_path()
    }

    /// Trusts its authority alone.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.server.ca.client_config(&[])
    }

    /// From now on every domain leads there. Before, proofs are waited for.
    pub fn lead_domains_to(&self, addr: SocketAddr) {
        self.server.domains_at.send_replace(Some(addr));
    }

    /// From now on proofs are waited for again.
    pub fn lead_domains_to_nowhere(&self) {
        self.server.domains_at.send_replace(None);
    }

    /// Certificates are this old from now on, of the 90 days that they hold.
    pub fn issue_aged(&self, age: Duration) {
        self.server.state.lock().age = age;
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> usize {
        self.server.state.lock().accounts.len()
    }

    /// The domains of the orders so far.
    pub fn orders(&self) -> Vec<String> {
        self.server.state.lock().orders.iter().map(|order| order.domain.clone()).collect()
    }
}

async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answered = match (method, &*path) {
        (Method::GET, "/dir") => Ok((200, String::new(), server.directory().to_string())),
        (Method::HEAD | Method::GET, "/nonce") => Ok((200, String::new(), String::new())),
        (Method::POST, path) => server.post(path, &body),
        _ => Err((404, "malformed")),
    };
    let (status, location, text) = answered.unwrap_or_else(|(status, kind)| {
        let problem =
            json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": kind, "status": status });
        (status, String::new(), problem.to_string())
    });
    let mut response = Response::builder().status(status).header("replay-nonce", server.nonce());
    if !location.is_empty() {
        response = response.header("location", location);
    }
    response.body(Full::from(text)).expect("a response")
}

impl Server {
    fn directory(&self) -> Value {
        let url = |path: &str| format!("{}/{path}", self.base);
        json!({
            "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
            "revokeCert": url("revoke"), "keyChange": url("key"),
        })
    }

    fn nonce(&self) -> String {
        let nonce = random();
        self.state.lock().nonces.insert(nonce.clone());
        nonce
    }

    /// The answer to a signed request: a status, a place and a text.
    fn post(self: &Arc<Self>, path: &str, body: &[u8]) -> Result<(u16, String, String), Refused> {
        let (key, payload) = self.verified(path, body)?;
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = parts.get(1).and_then(|number| number.parse::<usize>().ok());
        match (parts[0], number) {
            ("account", None) => {
                let mut state = self.state.lock();
                state.accounts.push(key);
                let location = format!("{}/account/{}", self.base, state.accounts.len() - 1);
                Ok((201, location, json!({ "status": "valid" }).to_string()))
            }
            ("order", None) => self.order(&payload),
            ("order", Some(at)) => Ok((200, String::new(), self.shown_order(at)?)),
            ("authz", Some(at)) => Ok((200, String::new(), self.shown_authorization(at)?)),
            ("challenge", Some(at)) => {
                tokio::spawn(try_challenge(Arc::clone(self), at, thumbprint(&key)));
                Ok((200, String::new(), self.shown_challenge(at)?.to_string()))
            }
            ("finalize", Some(at)) => self.finalize(at, &payload),
            ("certificate", Some(at)) => {
                let state = self.state.lock();
                let order = state.orders.get(at).ok_or(NOT_FOUND)?;
                Ok((200, String::new(), order.certificate.clone().ok_or(NOT_FOUND)?))
            }
            _ => Err(NOT_FOUND),
        }
    }

    /// RFC 8555 section 6.2: who signed, and what.
    fn verified(&self, path: &str, body: &[u8]) -> Result<(Value, Value), Refused> {
        let malformed = (400, "malformed");
        let jws: Value = serde_json::from_slice(body).map_err(|_| malformed)?;
        let text = |name: &str| jws[name].as_str().ok_or(malformed);
        let decode = |text: &str| BASE64.decode(text).map_err(|_| malformed);
        let head: Value = serde_json::from_slice(&decode(text("protected")?)?).map_err(|_| malformed)?;
        let mut state = self.state.lock();
        if !head["nonce"].as_str().is_some_and(|nonce| state.nonces.remove(nonce)) {
            return Err((400, "badNonce"));
        }
        if head["url"] != format!("{}{path}", self.base) || head["alg"] != "ES256" {
            return Err(malformed);
        }
        let key = match head["kid"].as_str() {
            None => head["jwk"].clone(),
            Some(kid) => {
                let number = kid.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
                let known = number.and_then(|number| state.accounts.get(number));
                known.ok_or((400, "accountDoesNotExist"))?.clone()
            }
        };
        let coordinate = |name: &str| decode(key[name].as_str().ok_or(malformed)?);
        let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        let signed = format!("{}.{}", text("protected")?, text("payload")?);
        let signature = decode(text("signature")?)?;
        let verified =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature);
        verified.map_err(|_| (403, "unauthorized"))?;
        let payload = decode(text("payload")?)?;
        Ok((
            key,
            if payload.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&payload).map_err(|_| malformed)?
            },
        ))
    }

    fn order(&self, payload: &Value) -> Result<(u16, String, String), Refused> {
        let named = &payload["identifiers"];
        let domain =
            named[0]["value"].as_str().filter(|_| named[0]["type"] == "dns").ok_or((400, "malformed"))?;
        let order = Order {
            domain: domain.into(),
            token: random(),
            status: "pending",
            error: Value::Null,
            certificate: None,
        };
        let at = {
            let mut state = self.state.lock();
            state.orders.push(order);
            state.orders.len() - 1
        };
        Ok((201, format!("{}/order/{at}", self.base), self.shown_order(at)?))
    }

    fn shown_order(&self, at: usize) -> Result<String, Refused> {
        let state = self.state.lock();
        let order = state.orders.get(at).ok_or(NOT_FOUND)?;
        let mut shown = json!({
            "status": order.status,
            "identifiers": [{ "type": "dns", "value": order.domain }],
            "authorizations": [format!("{}/authz/{at}", self.base)],
            "finalize": format!("{}/finalize/{at}", self.base),
        });
        if order.certificate.is_some() {
            shown["certificate"] = json!(format!("{}/certificate/{at}", self.base));
        }
        Ok(shown.to_string())
    }

    fn shown_authorization(&self, at: usize) -> Result<String, Refused> {
        let challenge = self.shown_challenge(at)?;
        let state = self.state.lock();
        let order = &state.orders[at];
        let status = if order.status == "ready" { "valid" } else { order.status };
        let other = json!({ "type": "http-01", "url": format!("{}/other/{at}", self.base), "token": "x", "status": "pending" });
        let shown = json!({
            "identifier": { "type": "dns", "value": order.domain },
            "status": status,
            "challenges": [other, challenge],
        });
        Ok(shown.to_string())
    }

    fn shown_challenge(&self, at: usize) -> Result<Value, Refused> {
        let state = self.state.lock();
        let order = state.orders.get(at).ok_or(NOT_FOUND)?;
        let status = if order.status == "ready" { "valid" } else { order.status };
        let mut shown = json!({
            "type": "tls-alpn-01", "url": format!("{}/challenge/{at}", self.base),
            "token": order.token, "status": status,
        });
        if !order.error.is_null() {
            shown["error"] = order.error.clone();
        }
        Ok(shown)
    }

    fn finalize(&self, at: usize, payload: &Value) -> Result<(u16, String, String), Refused> {
        {
            let mut state = self.state.lock();
            let age = state.age;
            let order = state.orders.get_mut(at).ok_or(NOT_FOUND)?;
            if order.status != "ready" {
                return Err((403, "orderNotReady"));
            }
            let request = payload["csr"].as_str().and_then(|csr| BASE64.decode(csr).ok());
            let leaf = self.ca.certify(request.ok_or((400, "badCSR"))?, &order.domain, age);
            let root = std::fs::read_to_string(self.ca.cert_path()).expect("ca.pem");
            (order.status, order.certificate) = ("valid", Some(leaf + &root));
        }
        Ok((200, String::new(), self.shown_order(at)?))
    }
}

async fn try_challenge(server: Arc<Server>, at: usize, thumbprint: String) {
    let mut place = server.domains_at.subscribe();
    let addr = place.wait_for(Option::is_some).await.map(|addr| addr.expect("waited for"));
    let Ok(addr) = addr else { return };
    let (domain, token) = {
        let state = server.state.lock();
        (state.orders[at].domain.clone(), state.orders[at].token.clone())
    };
    let tried = prove(addr, &domain, &format!("{token}.{thumbprint}")).await;
    let order = &mut server.state.lock().orders[at];
    match tried {
        Ok(()) => order.status = "ready",
        Err(why) => {
            order.status = "invalid";
            order.error = json!({ "type": "urn:ietf:params:acme:error:tls", "detail": why, "status": 400 });
        }
    }
}

/// RFC 8737 section 3.
async fn prove(addr: SocketAddr, domain: &str, authorization: &str) -> Result<(), String> {
    let config = blind_config(&["acme-tls/1"], &[&rustls::version::TLS13], default_provider());
    let mut stream =
        handshake(addr, domain, &config).await.map_err(|error| format!("no handshake: {error}"))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("another protocol".to_owned());
    }
    let der = shown(&stream);
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or("no names")?;
    if names.value.general_names != [GeneralName::DNSName(domain)] {
        return Err(format!("other names: {:?}", names.value.general_names));
    }
    let hash = certificate
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let hash = hash.filter(|extension| extension.critical).ok_or("no critical acmeIdentifier")?;
    if hash.value != [&[4, 32], digest(&SHA256, authorization.as_bytes()).as_ref()].concat() {
        return Err("another key authorization".to_owned());
    }
    match stream.read(&mut [0]).await {
        Ok(0) => Ok(()),
        read => Err(format!("the connection goes on: {read:?}")),
    }
}

/// RFC 7638.
fn thumbprint(key: &Value) -> String {
    let members =
        format!(r#"{{"crv":{},"kty":{},"x":{},"y":{}}}"#, key["crv"], key["kty"], key["x"], key["y"]);
    BASE64.encode(digest(&SHA256, members.as_bytes()))
}

fn random() -> String {
    BASE64.encode(rand::random::<[u8; 16]>())
}

const NOT_FOUND: Refused = (404, "malformed");

//! The proof that a domain leads here: the authority opens a TLS connection for it, asks for the protocol `acme-tls/1`
//! and is shown a certificate with the hash of what it knows (RFC 8737 section 3). Such a handshake goes by terms of its
//! own, which ask for no client certificate and speak no HTTP.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The proofs that are asked for just now: none, but for seconds in weeks.
pub struct Challenges {
    open: Mutex<HashMap<String, Arc<ServerConfig>>>,
    count: AtomicUsize,
    /// Connections that may be looked at again, since there was only a part at first.
    again: Semaphore,
}

/// A domain for which a proof is answered until this is dropped.
pub struct Answered {
    challenges: Arc<Challenges>,
    domain: String,
}

/// What the beginning of a connection is.
#[derive(Debug, PartialEq, Eq)]
enum Hello {
    /// It is not whole yet.
    Part,
    /// An authority that asks for this domain.
    Challenge(String),
    /// Anything else.
    Other,
}

impl Challenges {
    /// From now on, answers for `domain` with `hash`, that of the key authorization.
    ///
    /// # Errors
    /// Where no certificate can be made for such a name.
    pub fn begin(self: &Arc<Self>, domain: &str, hash: &[u8]) -> anyhow::Result<Answered> {
        let config = Arc::new(config(domain, hash)?);
        let mut open = self.open.lock();
        open.insert(domain.to_owned(), config);
        self.count.store(open.len(), Ordering::Relaxed);
        Ok(Answered { challenges: Arc::clone(self), domain: domain.to_owned() })
    }

    /// What the handshake goes by, if the client on `socket` asks for a proof. Takes nothing from the socket, and looks
    /// at it only while there is something to prove.
    pub async fn answer(&self, socket: &TcpStream) -> Option<Arc<ServerConfig>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let (mut seen, mut wait, mut turn) = (0, AGAIN.start, None);
        loop {
            let beginning = peek(socket).await.ok().filter(|beginning| !beginning.is_empty())?;
            if beginning.len() > seen {
                seen = beginning.len();
                match Hello::of(&beginning) {
                    Hello::Challenge(domain) => return self.open.lock().get(&domain).cloned(),
                    Hello::Part if seen < LONGEST => {}
                    _ => return None,
                }
            }
            drop(beginning);
            // An authority's comes in one piece. So whoever sends pieces while many do is left to the usual terms.
            turn = match turn {
                Some(turn) => Some(turn),
                None => Some(self.again.try_acquire().ok()?),
            };
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.end);
        }
    }
}

impl Default for Challenges {
    fn default() -> Self {
        Self { open: Mutex::default(), count: AtomicUsize::new(0), again: Semaphore::new(AT_A_TIME) }
    }
}

/// What the client has sent so far, up to [`LONGEST`]; nothing where it has gone.
async fn peek(socket: &TcpStream) -> std::io::Result<Vec<u8>> {
    socket.readable().await?;
    let mut beginning = vec![0; LONGEST];
    let length = socket.peek(&mut beginning).await?;
    beginning.truncate(length);
    Ok(beginning)
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut open = self.challenges.open.lock();
        open.remove(&self.domain);
        self.challenges.count.store(open.len(), Ordering::Relaxed);
    }
}

impl Hello {
    fn of(mut bytes: &[u8]) -> Self {
        let mut acceptor = Acceptor::default();
        // It reads a part at a time.
        while !bytes.is_empty() {
            if !acceptor.read_tls(&mut bytes).is_ok_and(|read| read > 0) {
                return Self::Other;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Self::asked(&accepted.client_hello()),
                Ok(None) => {}
                Err(_) => return Self::Other,
            }
        }
        Self::Part
    }

    /// An authority names this protocol alone.
    fn asked(hello: &ClientHello<'_>) -> Self {
        let mut protocols = hello.alpn().into_iter().flatten();
        match (protocols.next(), protocols.next(), hello.server_name()) {
            (Some(ALPN), None, Some(domain)) => Self::Challenge(domain.to_ascii_lowercase()),
            _ => Self::Other,
        }
    }
}

fn config(domain: &str, hash: &[u8]) -> anyhow::Result<ServerConfig> {
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(hash));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Without a look at the certificate, whose critical extension is none that TLS knows.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl fmt::Debug for Always {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Always")
    }
}

const ALPN: &[u8] = b"acme-tls/1";
/// Bytes of a first message; an authority's is far shorter.
const LONGEST: usize = 16 * 1024;
/// Between two looks at a first message in pieces, less often each time; the handshake's own time bounds it.
const AGAIN: std::ops::Range<Duration> = Duration::from_millis(5)..Duration::from_millis(250);
/// Connections with pieces that are looked at again at a time.
const AT_A_TIME: usize = 64;

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn hello(alpn: &[&str], name: &str) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut bytes = Vec::new();
        ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_authority_is_told_from_others() {
        let asked = hello(&["acme-tls/1"], "Shop.example");
        assert_eq!(Hello::of(&asked), Hello::Challenge("shop.example".to_owned()));
        for length in 0..asked.len() {
            assert_eq!(Hello::of(&asked[..length]), Hello::Part, "{length}");
        }
        assert_eq!(Hello::of(&hello(&["h2", "acme-tls/1"], "shop.example")), Hello::Other);
        assert_eq!(Hello::of(&hello(&["acme-tls/1"], "192.0.2.1")), Hello::Other);
        assert_eq!(Hello::of(&hello(&[], "shop.example")), Hello::Other);
        assert_eq!(Hello::of(b"GET / HTTP/1.1\r\n\r\n"), Hello::Other);
    }

    /// A connection of which this has arrived.
    async fn connection(sent: &[u8]) -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        (client, socket)
    }

    #[tokio::test]
    async fn half_a_message_is_waited_for_and_many_halves_keep_no_authority_out() {
        let challenges = Arc::new(Challenges::default());
        let _answered = challenges.begin("shop.example", &[7; 32]).unwrap();
        let whole = hello(&["acme-tls/1"], "shop.example");
        let (first, rest) = whole.split_at(100);
        let mut waiting = tokio::task::JoinSet::new();
        let mut clients = Vec::new();
        for _ in 0..AT_A_TIME {
            let (client, socket) = connection(first).await;
            let challenges = Arc::clone(&challenges);
            waiting.spawn(async move { challenges.answer(&socket).await.is_some() });
            clients.push(client);
        }
        while challenges.again.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let (_client, one_more) = connection(first).await;
        assert!(challenges.answer(&one_more).await.is_none(), "it is served as anybody is");
        let (_client, authority) = connection(&whole).await;
        assert!(challenges.answer(&authority).await.is_some());
        for client in &mut clients {
            client.write_all(rest).await.unwrap();
        }
        while let Some(answered) = waiting.join_next().await {
            assert!(answered.unwrap(), "its second half came");
        }
        assert_eq!(challenges.again.available_permits(), AT_A_TIME);
    }
}

//! TLS termination: the server's side of the handshake, by file or self-signed.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::config::Tls;

/// ALPN names, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Plain or TLS; `None` inside is plain.
#[derive(Clone)]
pub struct Terminator(Option<Arc<ServerConfig>>);

impl Terminator {
    /// The terminator that `server.tls` asks for. A self-signed certificate is made for `localhost` and the
    /// addresses that are listened on.
    ///
    /// # Errors
    /// Where a certificate cannot be made, which would be a defect of the crypto library.
    pub fn new(tls: &Tls, listen: &[SocketAddr]) -> anyhow::Result<Self> {
        let key = match tls {
            Tls::None => return Ok(Self(None)),
            Tls::Certificate(key) => Arc::clone(key),
            Tls::SelfSigned => Arc::new(self_signed(listen)?),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = ALPN.map(Vec::from).to_vec();
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // A client that comes back needs one ticket, not a choice of them.
        config.send_tls13_tickets = 1;
        Ok(Self(Some(Arc::new(config))))
    }

    /// How TLS is spoken; `None` where connections are plain.
    pub fn config(&self) -> Option<&Arc<ServerConfig>> {
        self.0.as_ref()
    }
}

fn self_signed(listen: &[SocketAddr]) -> anyhow::Result<CertifiedKey> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(
        listen.iter().map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()),
    );
    names.sort();
    names.dedup();
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    Ok(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &aws_lc_rs::default_provider())?)
}

//! How clients reach the server: its address, what they ask for, and how they speak TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::args::{Coding, KeyExchange, Options};
use crate::sse::Subscriber;

/// How clients reach the server.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What they call it.
    pub host: String,
    /// What they ask for.
    pub path: String,
    /// The coding that they accept.
    pub coding: Coding,
    /// How they speak TLS, if they do.
    pub tls: Option<Arc<ClientConfig>>,
    /// HTTP/2, and how many streams share a connection.
    pub h2: Option<usize>,
    /// Whether the server tells by a `stream.position` event that a stream stands.
    pub announces: bool,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What the server is called.
    pub host: &'a str,
    /// What is asked for.
    pub path: &'a str,
    /// The coding that is accepted; to all others nothing is said of codings.
    pub coding: Coding,
    /// The id to go on after; empty for none.
    pub id: &'a [u8],
}

impl Dial {
    /// Clients of an ssegate as the options want them. Of a new TLS configuration, which resumes nothing.
    ///
    /// # Errors
    /// A TLS configuration that rustls does not take.
    pub fn new(addr: SocketAddr, path: &str, options: &Options) -> anyhow::Result<Self> {
        let tls = if options.plain { None } else { Some(Arc::new(tls(options)?)) };
        let h2 = options.h2.then(|| options.streams_per_connection.into());
        Ok(Self {
            addr,
            host: addr.to_string(),
            path: path.to_owned(),
            coding: options.coding,
            tls,
            h2,
            announces: true,
        })
    }

    /// What a subscriber asks for.
    pub fn asks<'a>(&'a self, subscriber: &'a Subscriber) -> Ask<'a> {
        let path = subscriber.path.as_deref().unwrap_or(&self.path);
        Ask { host: &self.host, path, coding: self.coding, id: &subscriber.id }
    }

    /// The protocol, for people.
    pub fn protocol(&self) -> String {
        let http = match self.h2 {
            None => "HTTP/1.1".to_owned(),
            Some(1) => "HTTP/2".to_owned(),
            Some(streams) => format!("HTTP/2 ×{streams}"),
        };
        if self.tls.is_some() { format!("TLS, {http}") } else { format!("plain, {http}") }
    }

    /// The name that clients check the certificate for, if they would.
    ///
    /// # Errors
    /// Where the host cannot be such a name.
    pub fn server_name(&self) -> anyhow::Result<ServerName<'static>> {
        let name = self.host.rsplit_once(':').map_or(&*self.host, |(name, _)| name);
        ServerName::try_from(name.to_owned()).with_context(|| format!("no TLS name: {name}"))
    }
}

fn tls(options: &Options) -> anyhow::Result<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    // The last is what browsers offer to those that know nothing newer.
    provider.kx_groups = match options.kx {
        KeyExchange::Hybrid => vec![X25519MLKEM768, X25519, SECP256R1],
        KeyExchange::X25519 => vec![X25519, SECP256R1],
    };
    // First, as in browsers.
    provider.cipher_suites.sort_by_key(|suite| *suite != TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![if options.h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    if !options.resume {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Takes every certificate and checks no signature: the server is ours, and the tool is to cost little.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

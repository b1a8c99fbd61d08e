//! Whom the commands believe over TLS: the system's authorities, those of a file, or anybody.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::offer;
use crate::config::{ClientTls, Roots, read_roots};

/// How a server has to prove who it is, and what it is offered.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Trust {
    /// A PEM file of authorities, instead of the system's.
    pub cacert: Option<PathBuf>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// Whether HTTP/1.1 alone is offered.
    pub http1: bool,
}

impl Trust {
    /// What handshakes go by.
    pub fn config(&self) -> anyhow::Result<ClientConfig> {
        let roots = self.cacert.as_ref().map(|file| {
            let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let roots = read_roots(&pem).map_err(|what| anyhow!("{}: {what}", file.display()))?;
            anyhow::Ok(Roots::from(roots))
        });
        let roots = roots.transpose()?;
        let mut config = if self.insecure {
            anybody()
        } else {
            ClientTls::trusting(roots.as_ref()).config().map_err(|_| anyhow!(NO_ROOTS))?
        };
        offer(&mut config, self.http1);
        Ok(config)
    }
}

fn anybody() -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has what the versions need")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth()
}

/// Believes any certificate, and that its key is the server's only if the handshake shows it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const NO_ROOTS: &str = "this system has no certificate authorities; install its package ca-certificates, or name one \
                        with --cacert FILE";

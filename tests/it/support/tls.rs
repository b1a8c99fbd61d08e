//! A certificate authority for tests, the certificates it issues as PEM files, and TLS configurations
//! that trust it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

use super::scratch;

/// A certificate authority with one certificate for `localhost` and 127.0.0.1.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
    leaf: Leaf,
}

/// A certificate and its key, as the files a server's configuration names.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate's PEM file.
    pub cert: PathBuf,
    /// The key's PEM file.
    pub key: PathBuf,
}

impl TestCa {
    /// The one that the whole test binary shares.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<TestCa> = LazyLock::new(TestCa::new);
        &SHARED
    }

    /// Another one, which clients of the shared one do not trust.
    pub fn new() -> Self {
        let issuer = CertifiedIssuer::self_signed(ca_params(), new_key()).expect("a root certificate");
        let dir = scratch::dir("tls");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("write ca.pem");
        let names = ["localhost", "127.0.0.1"];
        let leaf = issue(&issuer, dir.path(), names[0], &names, ExtendedKeyUsagePurpose::ServerAuth);
        Self { issuer, dir, leaf }
    }

    /// The authority's own certificate, a PEM file.
    pub fn cert_path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate for `localhost` and 127.0.0.1.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Issues a certificate for other names or addresses, written to files named after the first one.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        issue(&self.issuer, self.dir.path(), names[0], names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a certificate by which a client called `name` proves who it is.
    pub fn issue_client(&self, name: &str) -> Leaf {
        issue(&self.issuer, self.dir.path(), name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Trusts this authority alone, and offers the ALPN protocols given (`h2`, `http/1.1`).
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("our root");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// For a server of the rig's own, with the certificate for `localhost`.
    pub fn server_config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(&self.leaf.cert).expect("our certificate")];
        let key = PrivateKeyDer::from_pem_file(&self.leaf.key).expect("our key");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key fits the certificate");
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn issue(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    dir: &Path,
    stem: &str,
    names: &[&str],
    purpose: ExtendedKeyUsagePurpose,
) -> Leaf {
    let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, stem);
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    bound_validity(&mut params);
    let key = new_key();
    let cert = params.signed_by(&key, issuer).expect("a certificate");
    let leaf = Leaf { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) };
    fs::write(&leaf.cert, cert.pem()).expect("write the certificate");
    fs::write(&leaf.key, key.serialize_pem()).expect("write the key");
    leaf
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ssegate test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    bound_validity(&mut params);
    params
}

/// rcgen's own default ends in the year 4096. Browsers judge only public roots by their lifetime.
fn bound_validity(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

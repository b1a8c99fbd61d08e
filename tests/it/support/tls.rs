//! A certificate authority for tests, the certificates it issues as PEM files, and TLS configurations
//! that trust it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::pki_types::{CertificateSigningRequestDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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

impl Leaf {
    /// The certificate itself.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).expect("our certificate")
    }
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

    /// Issues another certificate for `localhost`, with a key of its own.
    pub fn issue_again(&self, nth: usize) -> Leaf {
        let names = ["localhost", "127.0.0.1"];
        let params = params("localhost", &names, ExtendedKeyUsagePurpose::ServerAuth);
        write(&params, &self.issuer, self.dir.path(), &format!("again-{nth}"))
    }

    /// Issues a certificate by which a client called `name` proves who it is.
    pub fn issue_client(&self, name: &str) -> Leaf {
        issue(&self.issuer, self.dir.path(), name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// What a configuration has to say as `tls` to trust this authority alone, and to show such a certificate.
    pub fn tls_of_client(&self, name: &str) -> String {
        let (ca, client) = (self.cert_path(), self.issue_client(name));
        let [ca, cert, key] = [&ca, &client.cert, &client.key].map(|path| path.display());
        format!("{{ ca: {ca}, cert: {cert}, key: {key} }}")
    }

    /// The same as [`Self::issue_client`], and the certificate holds until then. It is for no name but has a SPIFFE id.
    pub fn issue_client_until(&self, name: &str, until: SystemTime) -> Leaf {
        let mut params = params(name, &[], ExtendedKeyUsagePurpose::ClientAuth);
        let id = format!("spiffe://test/{name}").try_into().expect("a URI");
        params.subject_alt_names.push(rcgen::SanType::URI(id));
        let since = until.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since;
        write(&params, &self.issuer, self.dir.path(), name)
    }

    /// Certifies what is asked for, for 90 days of which `age` is over; the certificate as PEM.
    ///
    /// # Panics
    /// Where that is no sound request for just this name.
    pub fn certify(&self, request: Vec<u8>, name: &str, age: Duration) -> String {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request).expect("a request, signed");
        let wanted = [rcgen::SanType::DnsName(name.try_into().expect("a name"))];
        assert_eq!(request.params.subject_alt_names, wanted);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        request.params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - age);
        request.params.not_after = request.params.not_before + Duration::from_hours(90 * 24);
        request.signed_by(&self.issuer).expect("a certificate").pem()
    }

    /// Trusts this authority alone, and shows a client's certificate.
    pub fn client_config_with(&self, leaf: &Leaf) -> Arc<ClientConfig> {
        let chain = vec![leaf.der()];
        let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("our key");
        let config = client(provider(), rustls::ALL_VERSIONS).with_root_certificates(self.roots());
        Arc::new(config.with_client_auth_cert(chain, key).expect("the key fits the certificate"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("our root");
        roots
    }

    /// Trusts this authority alone, and offers the ALPN protocols given (`h2`, `http/1.1`).
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let config = client(provider(), rustls::ALL_VERSIONS).with_root_certificates(self.roots());
        let mut config = config.with_no_client_auth();
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

/// Believes any certificate, to see which one it is; for these versions and groups of the key exchange.
pub fn blind_config(
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
    provider: CryptoProvider,
) -> Arc<ClientConfig> {
    let provider = Arc::new(provider);
    let blind = Arc::new(Blind(Arc::clone(&provider)));
    let config = client(provider, versions).dangerous().with_custom_certificate_verifier(blind);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A handshake for `name` with who listens at `addr`.
pub async fn handshake(
    addr: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// A handshake for `name` and one request after it, which is answered. Gives the connection's end.
pub async fn visit(
    addr: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut stream = handshake(addr, name, config).await?;
    ask(&mut stream, name).await?;
    Ok(stream)
}

/// Sends a request, which ends the connection, and waits for the answer.
pub async fn ask(stream: &mut TlsStream<TcpStream>, name: &str) -> io::Result<()> {
    let request = format!("GET /none HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.starts_with("HTTP/1.1 404") {
        true => Ok(()),
        false => Err(io::Error::other(format!("no answer: {answer:?}"))),
    }
}

/// The certificate that the server has shown.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

fn client(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("TLS versions")
}

#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    /// Of a challenge's certificate not even that can be seen: its critical extension is unknown to webpki.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms) {
            Err(Error::InvalidCertificate(_)) => Ok(HandshakeSignatureValid::assertion()),
            verified => verified,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn issue(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    dir: &Path,
    stem: &str,
    names: &[&str],
    purpose: ExtendedKeyUsagePurpose,
) -> Leaf {
    write(&params(stem, names, purpose), issuer, dir, stem)
}

fn params(common_name: &str, names: &[&str], purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    bound_validity(&mut params);
    params
}

fn write(
    params: &CertificateParams,
    issuer: &CertifiedIssuer<'static, KeyPair>,
    dir: &Path,
    stem: &str,
) -> Leaf {
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
    Arc::new(default_provider())
}

/// The cryptography that everything here uses.
pub fn default_provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

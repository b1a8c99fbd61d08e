//! Certificates with their keys, as PEM files hold them: read with the configuration, and again when the files
//! change. Never shows what a key file holds.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::interpolate;

/// A file that a value names, and that may change while ssegate runs.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path as the configuration writes it: what a variable holds does not show.
    pub name: Arc<str>,
}

/// A certificate's chain and its private key, as files.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateFiles {
    /// `cert`
    pub cert: WatchedFile,
    /// `key`
    pub key: WatchedFile,
}

/// A certificate with its chain and its key, which fit each other.
#[derive(Clone)]
pub struct Identity {
    /// What a handshake needs.
    pub key: Arc<CertifiedKey>,
    /// The DNS names it is for, in lower case, wildcards included.
    pub names: Vec<String>,
    /// From when on it holds.
    pub not_before: SystemTime,
    /// Until when it holds.
    pub not_after: SystemTime,
}

/// Why a chain and a key make no [`Identity`].
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The PEM of the chain.
    #[error("of the certificate: {0}")]
    Chain(&'static str),
    /// The PEM of the key.
    #[error("of the private key: {0}")]
    Key(&'static str),
    /// Each of them is sound.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// What the TLS library says.
    #[error("this certificate and key cannot be used: {0}")]
    Unusable(String),
}

impl WatchedFile {
    /// What it holds now.
    ///
    /// # Errors
    /// Why it cannot be read, in a sentence that names it.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        interpolate::read_bounded(&self.path).map_err(|why| format!("cannot read `{}`: {why}", self.name))
    }
}

impl Identity {
    /// Of a chain, the leaf first, and its key.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Unfit> {
        let leaf = chain.first().ok_or(Unfit::Chain(EMPTY))?.clone();
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Unfit::OtherKey,
            error => Unfit::Unusable(error.to_string()),
        })?;
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|e| Unfit::Unusable(e.to_string()))?;
        let validity = leaf.validity();
        Ok(Self {
            key: Arc::new(key),
            names: dns_names(&leaf),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// Of the PEM of a chain, the leaf first, and of its key; both may be the same text.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Unfit> {
        Self::new(read_chain(chain).map_err(Unfit::Chain)?, read_key(key).map_err(Unfit::Key)?)
    }

    /// Whether both have the same chain.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// RFC 9525 section 6.3: names are those of `subjectAltName`, never the common name.
fn dns_names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// Of seconds since 1970: what lies before holds as that does, and cannot be told in a log.
fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or_default())
}

const EMPTY: &str = "this file holds no certificate; it must be PEM with `BEGIN CERTIFICATE`";
const DAMAGED: &str = "this file is damaged: one of its PEM sections cannot be decoded; write it anew";

/// The certificates of a PEM file: at least one.
pub(super) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(EMPTY),
        Ok(chain) => Ok(chain),
        Err(_) => Err(DAMAGED),
    }
}

/// The private key of a PEM file.
pub(super) fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound if pem.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) => {
            "the private key in this file is encrypted; store it decrypted, readable by ssegate alone"
        }
        PemError::NoItemsFound => "this file holds no private key; it must be PEM with `BEGIN PRIVATE KEY`",
        _ => DAMAGED,
    })
}

/// The authorities of a PEM file, all of them to be trusted.
///
/// # Errors
/// What is wrong with the file.
pub fn read_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate in this file cannot be trusted: {error}"))?;
    }
    Ok(roots)
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_times_of_a_certificate() {
        let names = ["Shop.example.com", "*.example.org", "127.0.0.1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let both = format!("{}{}", key.serialize_pem(), cert.pem());
        let identity = Identity::from_pem(both.as_bytes(), both.as_bytes()).unwrap();
        assert_eq!(identity.names, ["shop.example.com", "*.example.org"], "addresses are no names");
        let lasts = identity.not_after.duration_since(identity.not_before).unwrap();
        assert_eq!(lasts, Duration::from_hours(90 * 24));
        assert_eq!(
            (time(-1), time(7)),
            (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(7))
        );
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }
}

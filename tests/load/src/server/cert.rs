//! The certificate of a run: every server gets one of the same kind, so that handshakes cost the same work.

use std::process::Stdio;

use anyhow::bail;

use crate::args::{Cert, Options};
use crate::server::child::Child;

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The chain, as PEM.
    pub cert: String,
    /// The private key, as PEM.
    pub key: String,
}

impl Certificate {
    /// Makes one in `folder`; none where clients speak no TLS.
    ///
    /// # Errors
    /// Where `openssl` is missing or fails.
    pub fn make(options: &Options, folder: &str) -> anyhow::Result<Option<Self>> {
        if options.plain {
            return Ok(None);
        }
        // Names that condure finds by itself.
        let files = Self { cert: format!("{folder}/load.crt"), key: format!("{folder}/load.key") };
        let kind: &[&str] = match options.cert {
            Cert::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Cert::Rsa => &["-newkey", "rsa:2048"],
        };
        let rest = ["-nodes", "-days", "2", "-subj", "/CN=localhost"];
        let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
        let out = ["-keyout", &files.key, "-out", &files.cert];
        let arguments = [&["openssl", "req", "-x509"], kind, &rest, &names, &out].concat();
        let mut openssl = Child::start(&arguments, &[], |command| command.stderr(Stdio::null()))?;
        let status = openssl.process().wait()?;
        if !status.success() {
            bail!("openssl could not make a certificate ({status})");
        }
        Ok(Some(files))
    }
}

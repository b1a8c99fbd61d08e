//! `server.tls`: which of the three ways, and the certificate with its key, read and proven to fit
//! each other. Never shows what the key file holds.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::fields::Fields;
use super::keys;
use super::model::Tls;
use super::place::Span;
use super::tree::{Node, Value};
use super::walk::Walk;

const CHOICES: &str = "write `tls: { cert: FILE, key: FILE }`, or `tls: self_signed` for development, or \
                       `tls: none` behind another TLS terminator";

/// Reads `tls`, which has no default; `root` is where a missing `server` is reported.
pub(super) fn read(walk: &Walk<'_>, server: Option<&Fields<'_>>, root: Span) -> Tls {
    let Some(server) = server else {
        walk.problem(root, format!("`server.tls` is missing and has no default; {CHOICES}"));
        return Tls::None;
    };
    server.required("tls", CHOICES).and_then(|node| read_tls(walk, node)).unwrap_or(Tls::None)
}

fn read_tls(walk: &Walk<'_>, node: &Node) -> Option<Tls> {
    if let Value::Map(_) = &node.value {
        return read_certificate(walk, node);
    }
    let scalar = walk.scalar(node, "`none`, `self_signed` or a mapping of `cert` and `key`")?;
    match &*scalar.text {
        "none" => Some(Tls::None),
        "self_signed" => Some(Tls::SelfSigned),
        _ => {
            walk.problem(scalar.span(), format!("`tls` cannot be {}; {CHOICES}", scalar.shown()));
            None
        }
    }
}

fn read_certificate(walk: &Walk<'_>, node: &Node) -> Option<Tls> {
    let fields = Fields::open(walk, node, keys::TLS)?;
    read_pair(walk, &fields, node).map(Tls::Certificate)
}

/// Reads `cert` and `key` of a section, which must fit each other.
pub(super) fn read_pair(walk: &Walk<'_>, fields: &Fields<'_>, node: &Node) -> Option<Arc<CertifiedKey>> {
    let cert = fields.required("cert", "it names the PEM file of the certificate and its chain");
    let key = fields.required("key", "it names the PEM file of the private key");
    let chain = cert.and_then(|node| from_file(walk, node, read_chain));
    let private = key.and_then(|node| from_file(walk, node, read_key));
    let (chain, private, key) = (chain?, private?, key?);
    match CertifiedKey::from_der(chain, private, &default_provider()) {
        Ok(certified) => Some(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            walk.problem(key.span, "this private key does not belong to the certificate in `cert`; name the key it was issued for");
            None
        }
        Err(error) => {
            walk.problem(node.span, format!("this certificate and key cannot be used: {error}"));
            None
        }
    }
}

/// Reads a PEM file whose path is the value.
pub(super) fn from_file<T>(
    walk: &Walk<'_>,
    node: &Node,
    read: fn(&[u8]) -> Result<T, &'static str>,
) -> Option<T> {
    let pem = walk.file(node, "the path of a PEM file")?;
    read(&pem).map_err(|what| walk.problem(node.span, what)).ok()
}

const DAMAGED: &str = "this file is damaged: one of its PEM sections cannot be decoded; write it anew";

/// The certificates of a PEM file: at least one.
pub(super) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err("this file holds no certificate; it must be PEM with `BEGIN CERTIFICATE`")
        }
        Ok(chain) => Ok(chain),
        Err(_) => Err(DAMAGED),
    }
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound if pem.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) => {
            "the private key in this file is encrypted; store it decrypted, readable by ssegate alone"
        }
        PemError::NoItemsFound => "this file holds no private key; it must be PEM with `BEGIN PRIVATE KEY`",
        _ => DAMAGED,
    })
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::parse;
    use crate::config::testing::{TAIL, env, expect, sound};

    /// A folder with two certificates and files that are none; removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ssegate-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            for name in ["one", "two"] {
                let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
                std::fs::write(path.join(format!("{name}.crt")), made.cert.pem()).unwrap();
                std::fs::write(path.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
            }
            let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
            std::fs::write(path.join("broken"), broken).unwrap();
            std::fs::write(
                path.join("encrypted"),
                broken.replace("CERTIFICATE", "ENCRYPTED PRIVATE KEY").replace('!', "A"),
            )
            .unwrap();
            std::fs::write(
                path.join("nonsense.key"),
                broken.replace("CERTIFICATE", "PRIVATE KEY").replace("!!!", "AAAA"),
            )
            .unwrap();
            Self(path)
        }

        /// The problems when `cert` and `key` are these files of the folder.
        fn pair(&self, cert: &str, key: &str) -> Result<Tls, String> {
            let text = format!("server:\n  tls:\n    cert: {cert}\n    key: {key}\n{TAIL}");
            let file = self.0.join("c.yaml");
            let folder = |name: &str| (name == "FOLDER").then(|| self.0.display().to_string());
            let parsed = parse(&file.display().to_string(), &text, &folder);
            parsed.map(|config| config.server.tls).map_err(|problems| problems.to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn three_ways() {
        assert!(matches!(sound(&format!("server: {{ tls: none }}\n{TAIL}")).server.tls, Tls::None));
        assert!(matches!(
            sound(&format!("server: {{ tls: self_signed }}\n{TAIL}")).server.tls,
            Tls::SelfSigned
        ));
        let folder = Folder::new("ways");
        for key in ["one.key", "${FOLDER}/one.key"] {
            let Ok(Tls::Certificate(certified)) = folder.pair("one.crt", key) else { panic!("{key}") };
            assert_eq!(certified.cert.len(), 1);
        }
    }

    #[test]
    fn it_has_no_default() {
        let three =
            "`tls: { cert: FILE, key: FILE }`, or `tls: self_signed` for development, or `tls: none` behind";
        expect(TAIL, &[(1, 1, "`server.tls` is missing and has no default; write")]);
        expect(TAIL, &[(1, 1, three)]);
        expect(&format!("server: {{ drain: 1s }}\n{TAIL}"), &[(1, 9, "`server` lacks `tls`; write")]);
        expect(&format!("server: {{ tls: maybe }}\n{TAIL}"), &[(1, 16, "`tls` cannot be `maybe`; write")]);
        expect(
            &format!("server: {{ tls: [] }}\n{TAIL}"),
            &[(1, 16, "expected `none`, `self_signed` or a mapping")],
        );
    }

    #[test]
    fn keys_of_the_mapping() {
        let found = [
            (1, 16, "`tls` lacks `cert`"),
            (1, 16, "`tls` lacks `key`"),
            (1, 18, "unknown key `crt` in `tls`; did you mean `cert`?"),
        ];
        expect(&format!("server: {{ tls: {{ crt: x }} }}\n{TAIL}"), &found);
    }

    #[test]
    fn files_that_are_wrong() {
        let folder = Folder::new("wrong");
        for (cert, key, line, text) in [
            ("one.crt", "two.key", 4, "this private key does not belong to the certificate in `cert`"),
            ("none.crt", "one.key", 3, "none.crt`: No such file or directory"),
            ("one.key", "one.key", 3, "this file holds no certificate"),
            ("one.crt", "one.crt", 4, "this file holds no private key"),
            ("broken", "one.key", 3, "this file is damaged"),
            ("one.crt", "encrypted", 4, "the private key in this file is encrypted"),
            ("one.crt", "nonsense.key", 3, "this certificate and key cannot be used"),
            ("file:one.crt", "one.key", 3, "remove `file:`"),
            ("''", "one.key", 3, "this is not a path"),
            (".", "one.key", 3, "Is a directory"),
        ] {
            let drawn = folder.pair(cert, key).unwrap_err();
            assert!(drawn.contains(text) && drawn.contains(&format!("c.yaml:{line}:")), "{drawn}");
            assert!(drawn.ends_with("c.yaml") && drawn.contains("1 problem in"), "{drawn}");
        }
        let both = folder.pair("none.crt", "none.key").unwrap_err();
        assert!(both.contains("2 problems in"), "{both}");
    }

    #[test]
    fn a_key_in_the_wrong_place_does_not_show() {
        let pem =
            "server:\n  tls:\n    cert: a\n    key: |\n      -----BEGIN PRIVATE KEY-----\n      s3cr3t\n";
        expect(
            &format!("{pem}{TAIL}"),
            &[(3, 11, "cannot read `a`"), (5, 7, "this is not a path; write the path of a PEM file")],
        );
        let from_env = parse(
            "c.yaml",
            &format!("server: {{ tls: {{ cert: '${{HIDDEN}}', key: '${{HIDDEN}}' }} }}\n{TAIL}"),
            &env,
        );
        let drawn = from_env.unwrap_err().to_string();
        assert!(drawn.contains("cannot read `${HIDDEN}`") && !drawn.contains("s3cr3t"), "{drawn}");
    }
}

//! TLS as a client: the authority to trust instead of the system's, and the certificate to show; `tls:` of a Redis
//! upstream, and `ca:` wherever HTTPS is spoken. Files are read and proven here, so that a mistake is told before anything
//! is served.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::fields::Fields;
use super::identity;
use super::keys;
use super::model::ClientTls;
use super::tls;
use super::tree::Node;
use super::walk::Walk;

/// Reads `tls`; all of its keys may be left out.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<ClientTls> {
    let fields = Fields::open(walk, node, keys::REDIS_TLS)?;
    let ca = fields.node("ca").map(|node| read_roots(walk, node));
    let shows_one = fields.entry("cert").is_some() || fields.entry("key").is_some();
    let certificate = shows_one.then(|| tls::read_pair(walk, &fields, node));
    let certificate = certificate.flatten().map(|certificate| certificate.identity.key);
    Some(ClientTls { roots: ca.flatten(), certificate })
}

/// Reads `ca`: the path of a file with the authorities to trust.
pub(super) fn read_roots(walk: &Walk<'_>, node: &Node) -> Option<Roots> {
    let pem = walk.file(node, "the path of a PEM file")?;
    let roots = identity::read_roots(&pem).map_err(|what| walk.problem(node.span, what)).ok()?;
    Some(Roots(Arc::new(roots)))
}

/// Authorities that are trusted.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RootCertStore>);

impl From<RootCertStore> for Roots {
    fn from(store: RootCertStore) -> Self {
        Self(Arc::new(store))
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        // A key belongs to its certificate.
        let shown = |tls: &Self| tls.certificate.as_ref().map(|shown| shown.cert.clone());
        self.roots == other.roots && shown(self) == shown(other)
    }
}

impl ClientTls {
    /// Of a connection to whom these, or the system's authorities, speak for.
    pub fn trusting(roots: Option<&Roots>) -> Self {
        Self { roots: roots.cloned(), certificate: None }
    }

    /// What handshakes go by.
    ///
    /// # Errors
    /// What to do where the system trusts nobody.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let roots = match &self.roots {
            Some(roots) => Arc::clone(&roots.0),
            None => Arc::new(system_roots()?),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has what the versions need")
            .with_root_certificates(roots);
        Ok(match &self.certificate {
            Some(shown) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(shown))))
            }
            None => config.with_no_client_auth(),
        })
    }
}

/// What the system trusts. One odd certificate among them does no harm.
fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        false => Ok(roots),
        true => Err(
            "this system has no certificate authorities; install its package ca-certificates, or name one \
                     with `ca: FILE`"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::testing::expect;
    use crate::config::{Config, UpstreamKind, parse};

    /// A folder with a certificate, two keys and a file that is none; removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ssegate-client-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            for name in ["one", "two"] {
                let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
                std::fs::write(path.join(format!("{name}.crt")), made.cert.pem()).unwrap();
                std::fs::write(path.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
            }
            let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            std::fs::write(path.join("nonsense.crt"), nonsense).unwrap();
            std::fs::write(path.join("text"), "no PEM").unwrap();
            Self(path)
        }

        fn parse(&self, url: &str, tls: &str) -> Result<Config, String> {
            let text = with(url, tls);
            parse(&self.0.join("c.yaml").display().to_string(), &text, &|_| None)
                .map_err(|problems| problems.to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// `tls` stands on line 6, its mapping from column 12 on.
    fn with(url: &str, tls: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  r:\n    redis:\n      url: {url}\n      tls: {tls}\nroutes: [{{ path: /r, from: {{ upstream: r, channel: c }} }}]\n"
        )
    }

    #[test]
    fn an_authority_and_a_certificate() {
        let folder = Folder::new("sound");
        let read = |tls: &str| match folder.parse("rediss://h", tls).unwrap().upstreams.remove(0).kind {
            UpstreamKind::Redis(redis) => redis.tls.unwrap(),
            other => panic!("{other:?}"),
        };
        let tls = read("{ ca: one.crt, cert: two.crt, key: two.key }");
        assert_eq!(tls.roots.unwrap().0.len(), 1);
        assert!(tls.certificate.is_some());
        let tls = read("{ ca: one.crt }");
        assert!(tls.roots.is_some() && tls.certificate.is_none());
        assert!(read("{}").roots.is_none());
    }

    #[test]
    fn files_that_are_wrong() {
        let folder = Folder::new("wrong");
        for (tls, column, text) in [
            ("{ ca: none.crt }", 18, "none.crt`: No such file or directory"),
            ("{ ca: text }", 18, "this file holds no certificate; it must be PEM"),
            ("{ ca: nonsense.crt }", 18, "a certificate in this file cannot be trusted"),
            ("{ ca: file:one.crt }", 18, "remove `file:`"),
            ("{ cert: one.crt }", 12, "`tls` lacks `key`"),
            ("{ key: one.key }", 12, "`tls` lacks `cert`"),
            ("{ cert: one.crt, key: two.key }", 34, "this private key does not belong to the certificate"),
            ("{ cert: one.crt, key: one.crt }", 34, "this file holds no private key"),
        ] {
            let drawn = folder.parse("rediss://h", tls).unwrap_err();
            assert!(drawn.contains(text) && drawn.contains(&format!("c.yaml:6:{column}")), "{drawn}");
            assert!(drawn.contains("1 problem in"), "{drawn}");
        }
    }

    #[test]
    fn it_needs_a_url_that_speaks_tls() {
        expect(&with("redis://h", "{}"), &[(6, 7, "`tls` is for `rediss://`, and no URL here says so")]);
        expect(&with("rediss://h", "self_signed"), &[(6, 12, "expected a mapping, found `self_signed`")]);
        expect(
            &with("rediss://h", "{ roots: x }"),
            &[(6, 14, "unknown key `roots` in `tls`; it takes `ca`, `cert` and `key`")],
        );
    }
}

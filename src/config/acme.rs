//! `server.tls.acme`: certificates that are had from an authority by themselves (RFC 8555).

use std::path::PathBuf;
use std::sync::Arc;

use super::client_tls::{self, Roots};
use super::fields::Fields;
use super::keys;
use super::tree::Node;
use super::walk::Walk;

/// `acme: { domains, contact, directory, cache, ca }`
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// `domains`: at least one, in lower case, each with a certificate of its own.
    pub domains: Vec<Arc<str>>,
    /// `contact`: where the authority may write to, as URLs. Default: nowhere.
    pub contact: Vec<String>,
    /// `directory`: the authority's directory. Default: that of Let's Encrypt.
    pub directory: String,
    /// `cache`: the folder that keeps the account and the certificates.
    pub cache: PathBuf,
    /// `ca`: whom to trust in talking to the authority, instead of the system's.
    pub roots: Option<Roots>,
}

/// Reads `acme`.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Acme> {
    let fields = Fields::open(walk, node, keys::TLS_ACME)?;
    let domains = fields.required("domains", "it lists the names that certificates are wanted for");
    let domains = domains.and_then(|node| read_domains(walk, node));
    let contact = fields.node("contact").map(|node| read_contact(walk, node));
    let directory = match fields.node("directory") {
        Some(node) => read_directory(walk, node),
        None => Some(LETS_ENCRYPT.to_owned()),
    };
    let cache = fields.required("cache", "it names a folder that keeps the account and the certificates");
    let cache = cache.and_then(|node| read_cache(walk, node));
    let roots = fields.node("ca").and_then(|node| client_tls::read_roots(walk, node));
    let contact = contact.unwrap_or_default();
    Some(Acme { domains: domains?, contact, directory: directory?, cache: cache?, roots })
}

fn read_domains(walk: &Walk<'_>, node: &Node) -> Option<Vec<Arc<str>>> {
    let nodes = walk.one_or_more(node, "a name such as `shop.example.com`")?;
    let mut domains: Vec<Arc<str>> = Vec::new();
    for node in nodes {
        let Some(scalar) = walk.text(node, "a name such as `shop.example.com`") else { continue };
        let name: Arc<str> = scalar.text.to_ascii_lowercase().into();
        if let Some(what) = wrong_domain(&name) {
            walk.problem(scalar.span(), format!("{} {what}", scalar.shown()));
        } else if domains.contains(&name) {
            walk.problem(scalar.span(), format!("{} is listed twice; keep one of them", scalar.shown()));
        } else {
            domains.push(name);
        }
    }
    Some(domains)
}

/// What makes a text no name that TLS-ALPN-01 (RFC 8737) can prove.
fn wrong_domain(name: &str) -> Option<&'static str> {
    if name.starts_with("*.") {
        return Some(
            "is a wildcard, which this way of proving (TLS-ALPN-01) cannot have; list the names one by one",
        );
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let sound = name.len() <= 253 && name.contains('.') && name.split('.').all(label);
    let address = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    (!sound || address).then_some(
        "is not a public name; write one such as `shop.example.com`, in ASCII (`xn--…` for others)",
    )
}

fn read_contact(walk: &Walk<'_>, node: &Node) -> Vec<String> {
    let nodes = walk.one_or_more(node, "a URL such as `mailto:ops@example.com`").unwrap_or_default();
    let scalars = nodes.iter().filter_map(|node| walk.text(node, "a URL such as `mailto:ops@example.com`"));
    let urls = scalars.filter_map(|scalar| {
        let sound = scalar.text.strip_prefix("mailto:").is_some_and(|address| address.contains('@'));
        if !sound {
            let text =
                format!("{} is not a way to write to you; write `mailto:ops@example.com`", scalar.shown());
            walk.problem(scalar.span(), text);
        }
        sound.then(|| scalar.text.into_owned())
    });
    urls.collect()
}

fn read_directory(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let scalar = walk.text(node, "a URL such as `https://acme.example.com/directory`")?;
    let url = scalar.text.parse::<http::Uri>().ok();
    let sound = url.is_some_and(|url| url.scheme_str() == Some("https") && url.host().is_some());
    if !sound {
        let text =
            format!("{} is not the URL of an ACME directory; it must begin with `https://`", scalar.shown());
        walk.problem(scalar.span(), text);
    }
    sound.then(|| scalar.text.into_owned())
}

/// The folder is made when it is needed; what is there in its place is told now.
fn read_cache(walk: &Walk<'_>, node: &Node) -> Option<PathBuf> {
    let (scalar, path) = walk.path(node, "the path of a folder")?;
    if path.exists() && !path.is_dir() {
        walk.problem(
            scalar.span(),
            format!("{} is no folder; name one that ssegate may write to", scalar.shown()),
        );
        return None;
    }
    Some(path)
}

pub(super) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

#[cfg(test)]
mod tests {
    use crate::config::testing::{TAIL, expect, sound};
    use crate::config::{Acme, Tls};

    fn with(acme: &str) -> String {
        format!("server:\n  tls:\n    acme: {acme}\n{TAIL}")
    }

    fn read(acme: &str) -> Acme {
        let Tls::Certificates(tls) = sound(&with(acme)).server.tls else { panic!("{acme}") };
        assert!(tls.certificates.is_empty());
        tls.acme.unwrap()
    }

    #[test]
    fn defaults_and_values() {
        let acme = read("{ domains: Shop.example.com, cache: /var/lib/ssegate/acme }");
        assert_eq!(acme.domains.iter().map(|domain| &**domain).collect::<Vec<_>>(), ["shop.example.com"]);
        assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert!(acme.contact.is_empty() && acme.roots.is_none());
        let acme = read(
            "{ domains: [a.example, b.example], cache: c, contact: mailto:ops@a.example, directory: https://ca.internal:9000/acme/directory }",
        );
        assert_eq!((acme.domains.len(), &*acme.contact[0]), (2, "mailto:ops@a.example"));
        assert_eq!(acme.directory, "https://ca.internal:9000/acme/directory");
    }

    #[test]
    fn what_is_wrong() {
        expect(&with("{}"), &[(3, 11, "`acme` lacks `cache`"), (3, 11, "`acme` lacks `domains`")]);
        for (domain, what) in [
            ("'*.example.com'", "is a wildcard"),
            ("localhost", "is not a public name"),
            ("192.0.2.1", "is not a public name"),
            ("a..example", "is not a public name"),
            ("bücher.example", "is not a public name"),
            ("[a.example, A.example]", "is listed twice"),
        ] {
            let column = if domain.starts_with('[') { 34 } else { 22 };
            expect(&with(&format!("{{ domains: {domain}, cache: c }}")), &[(3, column, what)]);
        }
        let sound = "domains: a.example, cache: c";
        for (more, column, what) in [
            ("contact: ops@a.example", 52, "is not a way to write to you"),
            ("directory: http://ca.example/", 54, "it must begin with `https://`"),
            ("ca: none.pem", 47, "cannot read `none.pem`"),
            ("agree: true", 43, "unknown key `agree` in `acme`"),
        ] {
            expect(&with(&format!("{{ {sound}, {more} }}")), &[(3, column, what)]);
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        expect(&with(&format!("{{ domains: a.example, cache: {file} }}")), &[(3, 40, "is no folder")]);
    }
}

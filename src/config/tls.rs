//! `server.tls`: which of the three ways, and the certificates with their keys, read and proven to fit
//! each other. What else a mapping may hold is read by [`super::acme`], [`super::client_auth`] and [`super::tickets`].

use super::fields::Fields;
use super::identity::{self, CertificateFiles, Identity, Unfit, WatchedFile};
use super::model::{Certificate, ServerTls, Tls};
use super::place::Span;
use super::tree::{Node, Value};
use super::walk::Walk;
use super::{acme, client_auth, keys, tickets};

const CHOICES: &str = "write `tls: { cert: FILE, key: FILE }`, or `tls: self_signed` for development, or \
                       `tls: none` behind another TLS terminator";

/// Reads `tls`, which has no default; `root` is where a missing `server` is reported.
pub(super) fn read(walk: &Walk<'_>, server: Option<&Fields<'_>>, root: Span) -> Tls {
    let Some(server) = server else {
        walk.problem(root, format!("`server.tls` is missing and has no default; {CHOICES}"));
        return Tls::None;
    };
    let Some(node) = server.required("tls", CHOICES) else { return Tls::None };
    let passthrough = node.child("client").and_then(|client| client.child("passthrough"));
    if let (Some(passthrough), None) = (passthrough, server.entry("proxy_protocol")) {
        let text = "`passthrough` is about clients whom the header of `proxy_protocol` names; set that as well, or leave this out";
        walk.problem(passthrough.span, text);
    }
    read_tls(walk, node).unwrap_or(Tls::None)
}

fn read_tls(walk: &Walk<'_>, node: &Node) -> Option<Tls> {
    if let Value::Map(_) = &node.value {
        return read_mapping(walk, node);
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

fn read_mapping(walk: &Walk<'_>, node: &Node) -> Option<Tls> {
    let fields = Fields::open(walk, node, keys::TLS)?;
    let acme = fields.node("acme").map(|node| acme::read(walk, node));
    let has_pair = fields.entry("cert").is_some() || fields.entry("key").is_some();
    let has_more = acme.is_some() || fields.entry("certificates").is_some();
    let first = (has_pair || !has_more).then(|| read_pair(walk, &fields, node));
    let more = fields.node("certificates").map(|node| read_list(walk, node)).unwrap_or_default();
    let client = fields.node("client").map(|node| client_auth::read(walk, node));
    let tickets = fields.node("tickets").map(|node| tickets::read(walk, node));
    let certificates = first.flatten().into_iter().chain(more).collect();
    let (acme, client, tickets) = (acme.flatten(), client.flatten(), tickets.flatten());
    Some(Tls::Certificates(Box::new(ServerTls { certificates, acme, client, tickets })))
}

/// Reads `certificates`: those that are chosen by name, so that each must have one.
fn read_list(walk: &Walk<'_>, node: &Node) -> Vec<Certificate> {
    let expected = "a list of mappings of `cert` and `key`";
    let Value::List(nodes) = &node.value else {
        walk.wrong_type(node, expected);
        return Vec::new();
    };
    if nodes.is_empty() {
        walk.problem(node.span, format!("this list is empty; it needs {expected}"));
    }
    let read = |node| {
        let fields = Fields::open(walk, node, keys::TLS_CERTIFICATE)?;
        let certificate = read_pair(walk, &fields, node)?;
        if certificate.identity.names.is_empty() {
            walk.problem(node.span, "this certificate is for no DNS name (`subjectAltName`), so that no client could ask for it; name another one");
        }
        Some(certificate)
    };
    nodes.iter().filter_map(read).collect()
}

/// Reads `cert` and `key` of a section, which must fit each other.
pub(super) fn read_pair(walk: &Walk<'_>, fields: &Fields<'_>, node: &Node) -> Option<Certificate> {
    let cert = fields.required("cert", "it names the PEM file of the certificate and its chain");
    let key = fields.required("key", "it names the PEM file of the private key");
    let chain = cert.and_then(|node| from_file(walk, node, identity::read_chain));
    let private = key.and_then(|node| from_file(walk, node, identity::read_key));
    let ((cert, chain), (key_file, private), key) = (chain?, private?, key?);
    match Identity::new(chain, private) {
        Ok(identity) => Some(Certificate { files: CertificateFiles { cert, key: key_file }, identity }),
        Err(Unfit::OtherKey) => {
            walk.problem(key.span, "this private key does not belong to the certificate in `cert`; name the key it was issued for");
            None
        }
        Err(error) => {
            walk.problem(node.span, error.to_string());
            None
        }
    }
}

/// Reads a PEM file whose path is the value.
fn from_file<T>(
    walk: &Walk<'_>,
    node: &Node,
    read: fn(&[u8]) -> Result<T, &'static str>,
) -> Option<(WatchedFile, T)> {
    let (file, pem) = walk.watched(node, "the path of a PEM file")?;
    read(&pem).map(|read| (file, read)).map_err(|what| walk.problem(node.span, what)).ok()
}

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
            self.parse(&format!("    cert: {cert}\n    key: {key}\n"))
        }

        /// The problems when `tls` holds these lines, from line 3 on.
        fn parse(&self, lines: &str) -> Result<Tls, String> {
            let text = format!("server:\n  tls:\n{lines}{TAIL}");
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
            let Ok(Tls::Certificates(tls)) = folder.pair("one.crt", key) else { panic!("{key}") };
            assert_eq!(tls.certificates[0].identity.key.cert.len(), 1);
            assert_eq!(&*tls.certificates[0].files.key.name, key, "what a variable holds does not show");
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
    fn several_certificates_and_what_belongs_to_them() {
        let folder = Folder::new("several");
        std::fs::write(folder.0.join("tickets"), format!("{}\n", "ab".repeat(32))).unwrap();
        let pair = "    cert: one.crt\n    key: one.key\n";
        let more = "    certificates: [{ cert: two.crt, key: two.key }]\n";
        let rest = "    client: { ca: two.crt, mode: optional }\n    tickets: { keys: tickets }\n";
        let Ok(Tls::Certificates(tls)) = folder.parse(&format!("{pair}{more}{rest}")) else {
            panic!("is sound")
        };
        assert_eq!(tls.certificates.len(), 2);
        let client = tls.client.unwrap();
        assert!(!client.required && !client.passthrough && client.roots.len() == 1);
        assert_eq!(tls.tickets.unwrap().keys.expose().count(), 1);
        let proxies = "  proxy_protocol: v2\n  trusted_proxies: 10.0.0.7\n";
        let Ok(Tls::Certificates(tls)) =
            folder.parse(&format!("{pair}    client: {{ ca: two.crt, passthrough: true }}\n{proxies}"))
        else {
            panic!("is sound")
        };
        assert!(tls.client.is_some_and(|client| client.required && client.passthrough));
        let Ok(Tls::Certificates(tls)) = folder.parse(more) else { panic!("a first one is no must") };
        assert_eq!((tls.certificates.len(), tls.client.is_none()), (1, true));
        for (lines, place, text) in [
            ("certificates: [{ cert: two.crt, key: one.key }]", "3:42", "does not belong to the certificate"),
            ("certificates: [{ cert: two.crt }]", "3:20", "a certificate lacks `key`"),
            ("certificates: { cert: two.crt, key: two.key }", "3:19", "expected a list of mappings"),
            ("certificates: []", "3:19", "this list is empty"),
            ("client: { mode: optional }", "5:13", "`client` lacks `ca`"),
            ("client: { ca: two.crt, mode: maybe }", "5:34", "`mode` cannot be `maybe`"),
            ("client: { ca: one.key }", "5:19", "this file holds no certificate"),
            (
                "client: { ca: two.crt, passthrough: true }",
                "5:41",
                "clients whom the header of `proxy_protocol`",
            ),
            ("tickets: { keys: one.crt }", "5:22", "line 1 of this file is not a key"),
            ("tickets: {}", "5:14", "`tickets` lacks `keys`"),
        ] {
            let pair = if place.starts_with('5') { pair } else { "" };
            let drawn = folder.parse(&format!("{pair}    {lines}\n")).unwrap_err();
            assert!(drawn.contains(text) && drawn.contains(&format!("c.yaml:{place}")), "{drawn}");
            assert!(drawn.contains("1 problem in"), "{drawn}");
        }
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

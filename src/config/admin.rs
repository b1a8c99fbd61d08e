//! `admin:`: where operators and their tools are answered, and what they must show there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::fields::Fields;
use super::keys;
use super::model::{Admin, AdminListen, Secret};
use super::place::Span;
use super::server::{Taken, read_address};
use super::tree::Node;
use super::walk::{Scalar, Walk};

pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
const EXPECTED: &str = "an address such as `127.0.0.1:9090`, `unix:` and a path, or `none`";

/// Characters that a token has at least.
const TOKEN: usize = 16;
/// Bytes that the path of a socket has at most (`sun_path` of unix(7), with the zero at its end).
const PATH: usize = 107;

/// Reads the section; `taken` are the addresses that are listened on already.
pub(super) fn read(walk: &Walk<'_>, node: Option<&Node>, taken: &mut Taken) -> Admin {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::ADMIN));
    let (token, tried) = match fields.as_ref().and_then(|fields| fields.entry("token")) {
        Some(_) => (fields.as_ref().and_then(|fields| read_token(walk, fields.node("token")?)), true),
        None => (None, false),
    };
    // With a problem the default stands in: a listener that is off would be another matter.
    let default = Some(AdminListen::Tcp(LISTEN));
    let Some(node) = fields.as_ref().and_then(|fields| fields.node("listen")) else {
        if let Some(span) = taken.clash(LISTEN) {
            let text = format!(
                "this is where `admin` listens by default, {LISTEN}; set `admin.listen` to another address, or to `none`"
            );
            walk.problem(span, text);
        }
        return Admin { listen: default, token };
    };
    let listen = match walk.scalar(node, EXPECTED) {
        Some(scalar) if &*scalar.text == "none" => None,
        Some(scalar) => read_listen(walk, &scalar, taken).or(default),
        None => default,
    };
    // A token that has a problem of its own is one that is meant.
    if let Some(AdminListen::Tcp(address)) = &listen
        && !tried
        && !address.ip().to_canonical().is_loopback()
    {
        open_to_others(walk, node.span, *address);
    }
    Admin { listen, token }
}

fn open_to_others(walk: &Walk<'_>, span: Span, address: SocketAddr) {
    let port = address.port();
    walk.problem(
        span,
        format!(
            "others than this machine can reach {address}, and whoever reaches the admin listener may do everything there; set `admin.token`, made with `openssl rand -hex 24`, or listen on `127.0.0.1:{port}` or on a socket such as `unix:/run/ssegate/admin.sock`"
        ),
    );
}

fn read_listen(walk: &Walk<'_>, scalar: &Scalar<'_>, taken: &mut Taken) -> Option<AdminListen> {
    let Some(path) = scalar.text.strip_prefix("unix:") else {
        let address = read_address(walk, scalar)?;
        taken.add(walk, address, scalar.span());
        return Some(AdminListen::Tcp(address));
    };
    let why = match path {
        _ if !path.starts_with('/') || path.ends_with('/') => {
            "the path of a socket is written in whole, such as `unix:/run/ssegate/admin.sock`".to_owned()
        }
        _ if path.len() > PATH || path.contains('\0') => {
            format!("the path of a socket has {PATH} bytes at most; choose a shorter one")
        }
        _ => return Some(AdminListen::Unix(PathBuf::from(path))),
    };
    walk.problem(scalar.span(), why);
    None
}

fn read_token(walk: &Walk<'_>, node: &Node) -> Option<Secret> {
    let scalar = walk.text(node, "a token, from a file or the environment")?;
    // It goes as it is into a header field.
    let fits = scalar.text.len() >= TOKEN && scalar.text.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        let text = format!(
            "this is no token: it has at least {TOKEN} characters, of ASCII and without spaces; make one with `openssl rand -hex 24`"
        );
        walk.problem(scalar.span(), text);
        return None;
    }
    Some(Secret::new(scalar.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{TAIL, expect, sound};

    /// `admin:` on line 2, its keys from line 3 on.
    fn with(keys: &str) -> String {
        format!("server: {{ tls: none }}\nadmin:\n{keys}{TAIL}")
    }

    #[test]
    fn where_it_listens() {
        let listen = |keys: &str| sound(&with(keys)).admin.listen;
        assert_eq!(
            sound(&format!("server: {{ tls: none }}\n{TAIL}")).admin.listen,
            Some(AdminListen::Tcp(LISTEN))
        );
        assert_eq!(listen("  listen: none\n"), None);
        assert_eq!(listen("  listen: '[::1]:7000'\n"), Some(AdminListen::Tcp("[::1]:7000".parse().unwrap())));
        assert_eq!(listen("  listen: unix:/run/a.sock\n"), Some(AdminListen::Unix("/run/a.sock".into())));
        assert_eq!(listen("  token: 0123456789abcdef\n"), Some(AdminListen::Tcp(LISTEN)));
        for bad in ["unix:", "unix:a.sock", "unix:/run/"] {
            expect(&with(&format!("  listen: '{bad}'\n")), &[(3, 11, "is written in whole")]);
        }
        expect(&with(&format!("  listen: unix:/{}\n", "x".repeat(107))), &[(3, 11, "107 bytes at most")]);
    }

    #[test]
    fn who_can_be_reached_by_others_needs_a_token() {
        for open in ["0.0.0.0:9090", "'[::]:9090'", "10.0.0.1:9090", "'[::ffff:10.0.0.1]:1'"] {
            expect(&with(&format!("  listen: {open}\n")), &[(3, 11, "set `admin.token`")]);
            let config = sound(&with(&format!("  listen: {open}\n  token: 0123456789abcdef\n")));
            assert_eq!(config.admin.token.unwrap().expose(), "0123456789abcdef");
        }
        for own in ["127.0.0.2:1", "'[::1]:1'", "'[::ffff:127.0.0.1]:1'", "unix:/a"] {
            assert_eq!(sound(&with(&format!("  listen: {own}\n"))).admin.token, None);
        }
    }

    #[test]
    fn a_token_is_long_and_never_shown() {
        for bad in ["0123456789abcde", "'0123456789 abcdef'", "0123456789äbcdefg", "${HIDDEN}"] {
            let text = with(&format!("  listen: 0.0.0.0:1\n  token: {bad}\n"));
            expect(&text, &[(4, 10, "this is no token: it has at least 16 characters")]);
            let told = crate::config::parse("c.yaml", &text, &|_| Some("hunter2".into())).unwrap_err();
            assert!(!told.to_string().contains("0123456789"), "{told}");
        }
        let config = sound(&with("  token: 0123456789abcdef\n"));
        assert!(!format!("{:?}", config.admin).contains("0123456789"));
    }
}

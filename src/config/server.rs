//! `server:` and `admin:`: where ssegate listens, and how it ends. Certificates are read by
//! [`super::tls`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Admin, Server, Tls};
use super::place::Span;
use super::tls;
use super::tree::Node;
use super::walk::{Scalar, Walk};

const DRAIN: Bounds<Duration> =
    Bounds { default: Duration::from_secs(5), min: Duration::ZERO, max: Duration::from_mins(5) };

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

const CONTROL_PREFIX: &str = "stream.";

/// Reads both sections; `root` is where a missing one is reported.
pub(super) fn read(
    walk: &Walk<'_>,
    server: Option<&Node>,
    admin: Option<&Node>,
    root: Span,
) -> (Server, Admin) {
    let (server, mut taken) = read_server(walk, server, root);
    let admin = read_admin(walk, admin, &mut taken);
    (server, admin)
}

fn read_server(walk: &Walk<'_>, node: Option<&Node>, root: Span) -> (Server, Taken) {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::SERVER));
    let mut taken = Taken::default();
    let listen = match fields.as_ref().and_then(|fields| fields.node("listen")) {
        Some(node) => read_listen(walk, node, &mut taken),
        None => {
            taken.0.push((LISTEN, node.map_or(root, |node| node.span)));
            vec![LISTEN]
        }
    };
    // A `server` of the wrong type has been reported; what it lacks is beside the point.
    let tls = match (&fields, node) {
        (None, Some(_)) => Tls::None,
        _ => tls::read(walk, fields.as_ref(), root),
    };
    let drain = fields.as_ref().and_then(|fields| fields.duration("drain", &DRAIN)).unwrap_or(DRAIN.default);
    let prefix = fields.as_ref().and_then(|fields| read_prefix(walk, fields.node("control_prefix")?));
    let control_prefix = prefix.unwrap_or_else(|| CONTROL_PREFIX.into());
    (Server { listen, tls, drain, control_prefix }, taken)
}

fn read_listen(walk: &Walk<'_>, node: &Node, taken: &mut Taken) -> Vec<SocketAddr> {
    let nodes = walk.one_or_more(node, "an address such as `0.0.0.0:8443`").unwrap_or_default();
    let mut listen = Vec::new();
    for node in nodes {
        let Some(scalar) = walk.scalar(node, "an address such as `0.0.0.0:8443`") else { continue };
        if let Some(address) = read_address(walk, &scalar) {
            taken.add(walk, address, scalar.span());
            listen.push(address);
        }
    }
    listen
}

fn read_admin(walk: &Walk<'_>, node: Option<&Node>, taken: &mut Taken) -> Admin {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::ADMIN));
    let Some(node) = fields.as_ref().and_then(|fields| fields.node("listen")) else {
        if let Some(span) = taken.clash(ADMIN_LISTEN) {
            let text = format!(
                "this is where `admin` listens by default, {ADMIN_LISTEN}; set `admin.listen` to another address, or to `none`"
            );
            walk.problem(span, text);
        }
        return Admin { listen: Some(ADMIN_LISTEN) };
    };
    // With a problem the default stands in: a listener that is off would be another matter.
    let unread = Admin { listen: Some(ADMIN_LISTEN) };
    let Some(scalar) = walk.scalar(node, "an address such as `127.0.0.1:9090`, or `none`") else {
        return unread;
    };
    if &*scalar.text == "none" {
        return Admin { listen: None };
    }
    let Some(address) = read_address(walk, &scalar) else { return unread };
    taken.add(walk, address, scalar.span());
    Admin { listen: Some(address) }
}

fn read_address(walk: &Walk<'_>, scalar: &Scalar<'_>) -> Option<SocketAddr> {
    if let Ok(address) = scalar.text.parse() {
        return Some(address);
    }
    let advice = match &*scalar.text {
        text if !scalar.is_indirect() && text.parse::<u16>().is_ok() => {
            format!("to serve on every interface write `0.0.0.0:{text}`")
        }
        text if text.starts_with("localhost:") => {
            "write the IP address, `127.0.0.1` or `[::1]`, instead of `localhost`".to_owned()
        }
        text if text.parse::<std::net::IpAddr>().is_ok() => {
            "add a port, such as `:8443`; IPv6 addresses stand in brackets".to_owned()
        }
        _ => "write an IP address and a port, such as `0.0.0.0:8443` or `\"[::]:8443\"`".to_owned(),
    };
    walk.problem(scalar.span(), format!("{} is not an address to listen on; {advice}", scalar.shown()));
    None
}

fn read_prefix(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let scalar = walk.text(node, "a prefix such as `stream.`")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:/-".contains(&b);
    if scalar.text.is_empty() || scalar.text.len() > 64 || !scalar.text.bytes().all(plain) {
        let text = format!(
            "{} cannot be the prefix of control events; use 1 to 64 letters, digits and `.`, `_`, `:`, `/`, `-`",
            scalar.shown()
        );
        walk.problem(scalar.span(), text);
        return None;
    }
    Some(scalar.text.into())
}

/// Addresses that are listened on already.
#[derive(Default)]
struct Taken(Vec<(SocketAddr, Span)>);

impl Taken {
    fn add(&mut self, walk: &Walk<'_>, address: SocketAddr, span: Span) {
        if let Some(other) = self.clash(address) {
            let text = format!(
                "{address} overlaps with another address that ssegate listens on; change one of them"
            );
            walk.conflict(span, text, other, "the other one");
        }
        self.0.push((address, span));
    }

    /// Where the address is taken: by itself, or by all of its family on its port. Port 0 never is.
    fn clash(&self, address: SocketAddr) -> Option<Span> {
        let clashes = |other: &SocketAddr| {
            let any = address.ip().is_unspecified() || other.ip().is_unspecified();
            address.port() != 0
                && address.port() == other.port()
                && (address.ip() == other.ip() || (any && address.is_ipv4() == other.is_ipv4()))
        };
        self.0.iter().find(|(other, _)| clashes(other)).map(|(_, span)| *span)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{TAIL, expect, sound};

    /// `server:` on line 1, its keys from line 2 on.
    fn with(keys: &str) -> String {
        format!("server:\n  tls: none\n{keys}{TAIL}")
    }

    #[test]
    fn defaults() {
        let config = sound(&with(""));
        assert_eq!(config.server.listen, ["0.0.0.0:8443".parse().unwrap()]);
        assert_eq!(config.server.drain.as_secs(), 5);
        assert_eq!(&*config.server.control_prefix, "stream.");
        assert_eq!(config.admin.listen, Some("127.0.0.1:9090".parse().unwrap()));
    }

    #[test]
    fn listening() {
        let config = sound(&with(
            "  listen: [\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::1]:${PORT}\"]\nadmin: { listen: none }\n",
        ));
        assert_eq!(config.server.listen[2], "[::1]:7000".parse().unwrap());
        assert_eq!(config.admin.listen, None);
        assert_eq!(sound(&with("  listen: 127.0.0.1:80\n")).server.listen, ["127.0.0.1:80".parse().unwrap()]);
    }

    #[test]
    fn bad_addresses() {
        for (value, column, text) in [
            (
                "8443",
                11,
                "`8443` is not an address to listen on; to serve on every interface write `0.0.0.0:8443`",
            ),
            ("localhost:80", 11, "instead of `localhost`"),
            ("127.0.0.1", 11, "add a port"),
            ("':80'", 11, "write an IP address and a port"),
            ("127.0.0.1:99999", 11, "write an IP address and a port"),
            ("${HIDDEN}", 11, "this value is not an address to listen on"),
            ("[]", 11, "this list is empty; it needs an address"),
            ("[[a]]", 12, "expected an address such as `0.0.0.0:8443`, found a list"),
            ("{a: b}", 11, "expected an address such as `0.0.0.0:8443`, or a list of them, found a mapping"),
            ("*:80", 11, "put text that begins with `*` in quotes"),
        ] {
            expect(&with(&format!("  listen: {value}\n")), &[(3, column, text)]);
        }
        expect(&with("  listen:\n"), &[(3, 3, "`listen` has no value; give it one or remove the key")]);
    }

    #[test]
    fn the_same_address_twice() {
        let twice = "overlaps with another address";
        expect(&with("  listen: [127.0.0.1:80, 127.0.0.1:80]\n"), &[(3, 26, twice)]);
        expect(&with("  listen: [127.0.0.1:80, 0.0.0.0:80]\n"), &[(3, 26, twice)]);
        expect(&with("  listen: 127.0.0.1:80\nadmin:\n  listen: 127.0.0.1:80\n"), &[(5, 11, twice)]);
        expect(&with("admin: { listen: 0.0.0.0:8443 }\n"), &[(3, 18, "0.0.0.0:8443 overlaps")]);
        expect(
            &with("  listen: 127.0.0.1:9090\n"),
            &[(3, 11, "where `admin` listens by default, 127.0.0.1:9090")],
        );
        let push = "upstreams: { p: { push: } }\nroutes: [{ path: /p, from: { upstream: p, channel: c } }]\n";
        let bad = format!("server: {{ tls: none }}\nadmin: {{ listen: x }}\n{push}");
        expect(&bad, &[(2, 18, "`x` is not an address to listen on")]);
        sound(&with("  listen: [127.0.0.1:80, '[::1]:80', 127.0.0.2:80, 127.0.0.1:81]\n"));
    }

    #[test]
    fn drain_and_prefix() {
        let config = sound(&with("  drain: 0\n  control_prefix: 'my:'\n"));
        assert_eq!((config.server.drain.as_secs(), &*config.server.control_prefix), (0, "my:"));
        expect(&with("  drain: 6m\n"), &[(3, 10, "`6m` is out of bounds; it must be from 0 to 5m")]);
        expect(&with("  drain: 10\n"), &[(3, 10, "`10` has no unit; write `10s` for seconds")]);
        for value in ["''", "'a b'", "\"a\\nb\"", &"x".repeat(65)] {
            expect(
                &with(&format!("  control_prefix: {value}\n")),
                &[(3, 19, "cannot be the prefix of control events")],
            );
        }
    }

    #[test]
    fn sections_of_the_wrong_type() {
        expect(&format!("server: none\n{TAIL}"), &[(1, 9, "expected a mapping, found `none`")]);
        expect(
            &format!("server: {{ tls: none }}\nadmin: [a]\n{TAIL}"),
            &[(2, 8, "expected a mapping, found a list")],
        );
        expect(&with("  tsl: none\n"), &[(3, 3, "unknown key `tsl` in `server`; did you mean `tls`?")]);
        expect(&with("  port: 80\n"), &[(3, 3, "it takes `listen`, `tls`, `drain` and `control_prefix`")]);
    }
}

//! `server:`: where ssegate listens, and how it ends. Certificates are read by [`super::tls`], whom it believes by
//! [`super::proxies`], and `admin:` by [`super::admin`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Hsts, Proxies, Server, Tls};
use super::place::Span;
use super::proxies;
use super::tls;
use super::tree::{Node, Value};
use super::walk::{Scalar, Walk};

pub(super) const DRAIN: Bounds<Duration> =
    Bounds { default: Duration::from_secs(20), min: Duration::ZERO, max: Duration::from_mins(5) };

pub(super) const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8443);
pub(super) const MAX_AGE: Bounds<Duration> =
    Bounds { default: Duration::ZERO, min: Duration::ZERO, max: Duration::from_hours(2 * 365 * 24) };

/// What the list of browsers asks for (hstspreload.org).
const PRELOAD: Duration = Duration::from_hours(365 * 24);

pub(super) const CONTROL_PREFIX: &str = "stream.";

/// Reads the section; `root` is where a missing one is reported. Also tells the addresses that are taken.
pub(super) fn read(walk: &Walk<'_>, node: Option<&Node>, root: Span) -> (Server, Taken) {
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
    let nobody = || Proxies { protocol: None, trusted: Vec::new(), header: None };
    let proxies = fields.as_ref().map_or_else(nobody, |fields| proxies::read(walk, fields));
    let hsts = fields.as_ref().and_then(|fields| read_hsts(walk, fields, &tls));
    (Server { listen, tls, drain, control_prefix, hsts, proxies }, taken)
}

/// A duration, or a mapping.
fn read_hsts(walk: &Walk<'_>, server: &Fields<'_>, tls: &Tls) -> Option<Hsts> {
    let node = server.node("hsts")?;
    if let Tls::None = tls {
        let text = "browsers heed `hsts` over HTTPS alone, and `tls` is `none`; set it where TLS ends, or leave it out";
        walk.problem(server.entry("hsts")?.key.span, text);
    }
    if !matches!(node.value, Value::Map(_)) {
        return Some(Hsts { max_age: server.duration("hsts", &MAX_AGE)?, subdomains: false, preload: false });
    }
    let fields = Fields::open(walk, node, keys::HSTS)?;
    let subdomains = fields.flag("subdomains").unwrap_or(false);
    let preload = fields.flag("preload").unwrap_or(false);
    let max_age =
        fields.required("max_age", "it is how long browsers are to come by HTTPS alone, such as `365d`");
    let max_age = max_age.and_then(|_| fields.duration("max_age", &MAX_AGE))?;
    if preload && !(subdomains && max_age >= PRELOAD) {
        let text = "browsers build in only what has `subdomains: true` and a `max_age` of 365d or more; set these, or leave `preload` out";
        walk.problem(fields.entry("preload")?.key.span, text);
    }
    Some(Hsts { max_age, subdomains, preload })
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

pub(super) fn read_address(walk: &Walk<'_>, scalar: &Scalar<'_>) -> Option<SocketAddr> {
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

pub(super) fn read_prefix(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
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
pub(super) struct Taken(Vec<(SocketAddr, Span)>);

impl Taken {
    pub fn add(&mut self, walk: &Walk<'_>, address: SocketAddr, span: Span) {
        if let Some(other) = self.clash(address) {
            let text = format!(
                "{address} overlaps with another address that ssegate listens on; change one of them"
            );
            walk.conflict(span, text, other, "the other one");
        }
        self.0.push((address, span));
    }

    /// Where the address is taken: by itself, or by all of its family on its port. Port 0 never is.
    pub fn clash(&self, address: SocketAddr) -> Option<Span> {
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
        assert_eq!(config.server.drain.as_secs(), 20);
        assert_eq!(&*config.server.control_prefix, "stream.");
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
        let both = "admin: { listen: 0.0.0.0:8443, token: 0123456789abcdef }\n";
        expect(&with(both), &[(3, 18, "0.0.0.0:8443 overlaps")]);
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
    fn hsts() {
        let tls = |hsts: &str| with(&format!("  hsts: {hsts}\n")).replace("tls: none", "tls: self_signed");
        let days = |text: &str| {
            let found = sound(&tls(text)).server.hsts.unwrap();
            (found.max_age.as_secs() / 86_400, found.subdomains, found.preload)
        };
        assert_eq!(sound(&with("")).server.hsts, None);
        assert_eq!(days("30d"), (30, false, false));
        assert_eq!(days("0s"), (0, false, false), "browsers are to forget it");
        assert_eq!(days("{ max_age: 1d, subdomains: true }"), (1, true, false));
        assert_eq!(days("{ max_age: 365d, subdomains: true, preload: true }"), (365, true, true));
        for (value, column, text) in [
            ("731d", 9, "it must be from 0 to 730d"),
            ("1", 9, "`1` has no unit"),
            ("{ subdomains: true }", 9, "`hsts` lacks `max_age`"),
            ("{ max_age: 1d, subdomain: true }", 24, "unknown key `subdomain` in `hsts`"),
            ("{ max_age: 30d, subdomains: true, preload: true }", 43, "a `max_age` of 365d or more"),
            ("{ max_age: 365d, preload: true }", 26, "`subdomains: true`"),
        ] {
            expect(&tls(value), &[(3, column, text)]);
        }
        expect(
            &with("  hsts: 365d\n"),
            &[(3, 3, "browsers heed `hsts` over HTTPS alone, and `tls` is `none`")],
        );
    }

    #[test]
    fn sections_of_the_wrong_type() {
        expect(&format!("server: none\n{TAIL}"), &[(1, 9, "expected a mapping, found `none`")]);
        expect(
            &format!("server: {{ tls: none }}\nadmin: [a]\n{TAIL}"),
            &[(2, 8, "expected a mapping, found a list")],
        );
        expect(&with("  tsl: none\n"), &[(3, 3, "unknown key `tsl` in `server`; did you mean `tls`?")]);
        expect(&with("  port: 80\n"), &[(3, 3, "it takes `listen`, `tls`, `drain`, `control_prefix`")]);
    }
}

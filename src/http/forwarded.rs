//! The client as trusted proxies tell it, in `forwarded` (RFC 7239) or `x-forwarded-for` and `-proto`. Each proxy adds
//! whom it got the request from at the end; so the client is the last one that is no trusted proxy, and what stands
//! before that is only what this client says.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::config::{Proxies, RealIpHeader};

/// The client, if the header names one. Where all it names are trusted proxies, the first of them.
pub fn client(headers: &HeaderMap, header: RealIpHeader, proxies: &Proxies) -> Option<SocketAddr> {
    nearest(headers, header, proxies).map(|element| element.addr)
}

/// Whether the client came over TLS, if the proxy that it came to says so, or says otherwise.
pub fn is_secure(headers: &HeaderMap, header: RealIpHeader, proxies: &Proxies) -> Option<bool> {
    match header {
        RealIpHeader::Forwarded => nearest(headers, header, proxies)?.secure,
        RealIpHeader::XForwardedFor => {
            let value = headers.get_all("x-forwarded-proto").iter().next_back()?.to_str().ok()?;
            means_tls(elements(value).next_back()?)
        }
    }
}

/// One that the header names.
struct Element {
    addr: SocketAddr,
    secure: Option<bool>,
}

fn nearest(headers: &HeaderMap, header: RealIpHeader, proxies: &Proxies) -> Option<Element> {
    let (name, parse): (_, fn(&str) -> Option<Element>) = match header {
        RealIpHeader::XForwardedFor => (HeaderName::from_static("x-forwarded-for"), |node| {
            Some(Element { addr: parse_node(node)?, secure: None })
        }),
        RealIpHeader::Forwarded => (HeaderName::from_static("forwarded"), parse_element),
    };
    let mut nearest = None;
    for value in headers.get_all(name).iter().rev().map(HeaderValue::to_str) {
        // What cannot be read is no address that a trusted proxy would have written.
        let Ok(value) = value else { return nearest };
        for element in elements(value).rev() {
            let Some(element) = parse(element) else { return nearest };
            let is_client = !proxies.trusts(element.addr.ip());
            nearest = Some(element);
            if is_client {
                return nearest;
            }
        }
    }
    nearest
}

/// The elements of a list, whose commas may stand in quotes.
fn elements(value: &str) -> impl DoubleEndedIterator<Item = &str> {
    // `split` cannot look at what is quoted from behind. No address holds a comma: one within quotes belongs to a
    // name that is made up, which ends the search either way.
    value.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// `for=192.0.2.60;proto=http`, `for="[2001:db8::1]:4711"`.
fn parse_element(element: &str) -> Option<Element> {
    let one = |wanted: &str| {
        let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut named = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
        let (Some(value), None) = (named.next(), named.next()) else { return None };
        Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    };
    Some(Element { addr: parse_node(one("for")?)?, secure: one("proto").and_then(means_tls) })
}

/// What a scheme says; for WebSockets some proxies write those.
fn means_tls(scheme: &str) -> Option<bool> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(true),
        "http" | "ws" => Some(false),
        _ => None,
    }
}

/// An address, with a port perhaps; IPv6 may stand in brackets.
fn parse_node(node: &str) -> Option<SocketAddr> {
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0));
    let addr = address.or_else(|_| node.parse::<SocketAddr>()).ok()?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config;

    /// 10.0.0.0/8 and fd00::/8 are trusted.
    fn proxies() -> Proxies {
        let text = "server: { tls: none, trusted_proxies: [10.0.0.0/8, 'fd00::/8'] }\nupstreams: { t: { ticker: {} } }\nroutes: [ { path: /x, from: { upstream: t } } ]\n";
        config::parse("c.yaml", text, &|_| None).unwrap().server.proxies
    }

    fn found(header: RealIpHeader, values: &[&str]) -> Option<String> {
        let name = if header == RealIpHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let values = values
            .iter()
            .map(|value| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        client(&values.collect(), header, &proxies()).map(|addr| addr.to_string())
    }

    #[test]
    fn the_last_that_is_no_trusted_proxy_is_the_client() {
        for (values, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1:0")),
            (&["192.0.2.1:555"], Some("192.0.2.1:555")),
            (&["2001:db8::1"], Some("[2001:db8::1]:0")),
            (&["[2001:db8::1]:9"], Some("[2001:db8::1]:9")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1:0")),
            (&["1.1.1.1, 192.0.2.1"], Some("192.0.2.1:0")),
            (&["1.1.1.1,192.0.2.1 , 10.0.0.1,10.0.0.2"], Some("192.0.2.1:0")),
            (&["1.1.1.1, 192.0.2.1", "10.0.0.1"], Some("192.0.2.1:0")),
            (&["10.0.0.9, 10.0.0.1"], Some("10.0.0.9:0")),
            (&["192.0.2.1, unknown, 10.0.0.1"], Some("10.0.0.1:0")),
            (&["192.0.2.1, é"], None),
            (&["unknown"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(found(RealIpHeader::XForwardedFor, values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn forwarded_says_it_with_more_words() {
        for (values, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], Some("192.0.2.60:0")),
            (&["For=\"[2001:db8:cafe::17]:4711\""], Some("[2001:db8:cafe::17]:4711")),
            (&["for=1.1.1.1, for=192.0.2.1", "for=10.0.0.1;secret=\"a,b\""], None),
            (&["for=1.1.1.1, for=192.0.2.1", "proto=https;for=10.0.0.1"], Some("192.0.2.1:0")),
            (&["for=192.0.2.1, for=_hidden, for=10.0.0.1"], Some("10.0.0.1:0")),
            (&["for=192.0.2.1;for=1.1.1.1"], None),
            (&["for=\"192.0.2.1"], None),
            (&["192.0.2.1"], None),
        ] {
            assert_eq!(found(RealIpHeader::Forwarded, values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn proxies_say_how_the_client_came() {
        let told = |header, name: &'static str, values: &[&'static str]| {
            let values =
                values.iter().map(|value| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_secure(&values.collect(), header, &proxies())
        };
        for (values, expected) in [
            (&["https"][..], Some(true)),
            (&["http"], Some(false)),
            (&["HTTPS, http"], Some(false)),
            (&["http", "wss"], Some(true)),
            (&["gopher"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(
                told(RealIpHeader::XForwardedFor, "x-forwarded-proto", values),
                expected,
                "{values:?}"
            );
            assert_eq!(told(RealIpHeader::Forwarded, "x-forwarded-proto", values), None, "the other header");
        }
        for (values, expected) in [
            (&["for=192.0.2.1;proto=https"][..], Some(true)),
            (&["for=192.0.2.1;proto=\"http\""], Some(false)),
            (&["for=1.1.1.1;proto=https, for=192.0.2.1;proto=http", "for=10.0.0.1;proto=https"], Some(false)),
            (&["for=192.0.2.1;proto=https;proto=http"], None),
            (&["for=192.0.2.1"], None),
        ] {
            assert_eq!(told(RealIpHeader::Forwarded, "forwarded", values), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(value in "[ -~]{0,60}", forwarded in "(for=|;|,|\"|[0-9.:\\[\\]]|x){0,30}") {
            let _ = found(RealIpHeader::XForwardedFor, &[&value]);
            let _ = found(RealIpHeader::Forwarded, &[&value, &forwarded]);
            let mut spoofed = format!("{value}, 192.0.2.7");
            prop_assert_eq!(found(RealIpHeader::XForwardedFor, &[&spoofed]), Some("192.0.2.7:0".to_owned()));
            spoofed = format!("{forwarded}, for=192.0.2.7");
            prop_assert_eq!(found(RealIpHeader::Forwarded, &[&spoofed]), Some("192.0.2.7:0".to_owned()));
        }
    }
}

//! Host names and addresses, as they stand in routes, origins, brokers and URLs. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a text is a host name, an IPv4 address or a bracketed IPv6 address.
pub(super) fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        // What ends in a number can only be an address (WHATWG URL, host parsing).
        None if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) => {
            text.parse::<Ipv4Addr>().is_ok()
        }
        None => text.len() <= 253 && text.split('.').all(is_label),
    }
}

/// Whether what is sent there does not leave the machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match inner.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        // RFC 6761 section 6.3.
        Err(_) => host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")),
    }
}

/// Splits `host:port`; the port is from 1 to 65535.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0)?;
    is_host(host).then_some((host, port))
}

/// Underscores are no part of host names, yet container networks use them.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in [
            "localhost",
            "kafka-1",
            "shop.example.com",
            "my_service",
            "10.0.0.1",
            "[::1]",
            "1a",
            "xn--bcher-kva.example",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            ".",
            "a..b",
            "a.",
            "-a",
            "a-",
            "a b",
            "é.de",
            "::1",
            "[::1",
            "[x]",
            "1.2.3",
            "300.1.1.1",
            "a:1",
            "*",
            "*.a",
            "a/b",
        ] {
            assert!(!is_host(host), "{host}");
        }
        assert!(!is_host(&"a".repeat(64)));
        assert!(!is_host(&"a.".repeat(200)));
    }

    #[test]
    fn ports() {
        assert_eq!(host_and_port("kafka-1:9092"), Some(("kafka-1", 9092)));
        assert_eq!(host_and_port("[::1]:1"), Some(("[::1]", 1)));
        for text in [
            "kafka-1",
            "kafka-1:",
            "kafka-1:0",
            "kafka-1:+1",
            "kafka-1:65536",
            ":9092",
            "::1:9092",
            "a:1,b:2",
        ] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}

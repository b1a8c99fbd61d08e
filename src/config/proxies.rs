//! `server.proxy_protocol`, `trusted_proxies` and `real_ip_header`: who may say that it speaks for somebody else, and how.

use super::fields::Fields;
use super::model::{Proxies, ProxyProtocol, RealIpHeader};
use super::network::Network;
use super::tree::Node;
use super::walk::Walk;

/// Reads the three keys of `server`.
pub(super) fn read(walk: &Walk<'_>, fields: &Fields<'_>) -> Proxies {
    let protocols = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2), ("any", ProxyProtocol::Any)];
    let headers = [
        ("x-forwarded-for", Some(RealIpHeader::XForwardedFor)),
        ("forwarded", Some(RealIpHeader::Forwarded)),
        ("none", None),
    ];
    let header = fields.choice("real_ip_header", &headers);
    let trusted = fields.node("trusted_proxies").map(|node| read_networks(walk, node)).unwrap_or_default();
    if fields.entry("trusted_proxies").is_none() {
        for key in ["proxy_protocol", "real_ip_header"] {
            if let Some(entry) = fields.entry(key) {
                let text = format!(
                    "`{key}` believes what a client says of itself unless `trusted_proxies` names who may; add it, such as `[10.0.0.7]`"
                );
                walk.problem(entry.key.span, text);
            }
        }
    }
    Proxies {
        protocol: fields.choice("proxy_protocol", &protocols),
        trusted,
        header: header.unwrap_or(Some(RealIpHeader::XForwardedFor)),
    }
}

fn read_networks(walk: &Walk<'_>, node: &Node) -> Vec<Network> {
    let expected = "a network such as `10.0.0.0/8`";
    let nodes = walk.one_or_more(node, expected).unwrap_or_default();
    let read = |node| {
        let scalar = walk.scalar(node, expected)?;
        let network = Network::parse(&scalar.text);
        let what = |what: String| match scalar.is_indirect() {
            true => format!("is not {expected}"),
            false => what,
        };
        network.map_err(|why| walk.problem(scalar.span(), format!("{} {}", scalar.shown(), what(why)))).ok()
    };
    nodes.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{TAIL, expect, sound};

    fn with(keys: &str) -> String {
        format!("server:\n  tls: none\n{keys}{TAIL}")
    }

    #[test]
    fn nobody_is_trusted_unless_named() {
        let proxies = sound(&with("")).server.proxies;
        assert!(proxies.protocol.is_none() && !proxies.trusts("127.0.0.1".parse().unwrap()));
        let text =
            "  proxy_protocol: any\n  trusted_proxies: [10.0.0.0/8, '::1']\n  real_ip_header: forwarded\n";
        let proxies = sound(&with(text)).server.proxies;
        assert_eq!(proxies.protocol, Some(ProxyProtocol::Any));
        assert_eq!(proxies.header, Some(RealIpHeader::Forwarded));
        assert!(proxies.trusts("10.1.1.1".parse().unwrap()) && proxies.trusts("::1".parse().unwrap()));
        assert!(!proxies.trusts("11.1.1.1".parse().unwrap()));
        let proxies = sound(&with("  trusted_proxies: 10.0.0.0/8\n")).server.proxies;
        assert_eq!((proxies.protocol, proxies.header), (None, Some(RealIpHeader::XForwardedFor)));
        let text = "  trusted_proxies: 10.0.0.0/8\n  real_ip_header: none\n";
        assert_eq!(sound(&with(text)).server.proxies.header, None);
    }

    #[test]
    fn problems() {
        for (keys, at, text) in [
            ("  proxy_protocol: v1\n", (3, 3), "`proxy_protocol` believes what a client says of itself"),
            ("  real_ip_header: forwarded\n", (3, 3), "`real_ip_header` believes"),
            (
                "  trusted_proxies: 10.0.0.0/8\n  proxy_protocol: true\n",
                (4, 19),
                "`proxy_protocol` cannot be `true`; write `v1`, `v2` or `any`",
            ),
            (
                "  trusted_proxies: 10.0.0.0/8\n  real_ip_header: x-real-ip\n",
                (4, 19),
                "`real_ip_header` cannot be `x-real-ip`",
            ),
            ("  trusted_proxies: []\n", (3, 20), "this list is empty; it needs a network"),
            ("  trusted_proxies: [10.0.0.1/8]\n", (3, 21), "has bits beyond its prefix; write `10.0.0.0/8`"),
            ("  trusted_proxies: lan\n", (3, 20), "`lan` is not a network"),
            ("  trusted_proxies: '${HIDDEN}'\n", (3, 20), "this value is not a network such as `10.0.0.0/8`"),
        ] {
            expect(&with(keys), &[(at.0, at.1, text)]);
        }
    }
}

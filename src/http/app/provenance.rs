//! Who asked, as applications are told it: `forwarded` (RFC 7239) and `x-forwarded-for`, `-proto`, `-host`.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

/// What is known of who asked, and for what.
pub struct Provenance {
    /// The client's address.
    pub client: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Host and, if there is one, port that it asked for.
    pub authority: String,
}

impl Provenance {
    /// Tells it, and nothing of what the client says about itself: anyone can send these headers.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
        let (address, scheme) = (self.client.ip().to_canonical(), if self.secure { "https" } else { "http" });
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            // Section 6: an IPv6 address stands in brackets, and so in quotes.
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let host = self.authority.replace(['"', '\\'], "");
        let told = [
            (FORWARDED, format!("for={node};host=\"{host}\";proto={scheme}")),
            (HeaderName::from_static("x-forwarded-for"), address.to_string()),
            (HeaderName::from_static("x-forwarded-host"), host),
            (HeaderName::from_static("x-forwarded-proto"), scheme.to_owned()),
        ];
        for (name, value) in told {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whether a header says who asked. Many applications see `_` and `-` as the same.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_claim_is_replaced() {
        let mut headers = HeaderMap::new();
        for name in
            ["forwarded", "x-forwarded-for", "x_forwarded_for", "x-forwarded-port", "x-real-ip", "x-other"]
        {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("10.0.0.1"));
        }
        let client = "[2001:db8::1]:7".parse().unwrap();
        let from = Provenance { client, secure: true, authority: "shop.example.com:8443".to_owned() };
        from.tell(&mut headers);
        let mut told: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        told.sort_unstable();
        assert_eq!(
            told,
            [
                ("forwarded", "for=\"[2001:db8::1]\";host=\"shop.example.com:8443\";proto=https"),
                ("x-forwarded-for", "2001:db8::1"),
                ("x-forwarded-host", "shop.example.com:8443"),
                ("x-forwarded-proto", "https"),
                ("x-other", "10.0.0.1"),
            ]
        );
        let mut headers = HeaderMap::new();
        let client = "[::ffff:192.0.2.1]:7".parse().unwrap();
        Provenance { client, secure: false, authority: "a\"b".to_owned() }.tell(&mut headers);
        assert_eq!(headers[FORWARDED], "for=192.0.2.1;host=\"ab\";proto=http");
    }
}

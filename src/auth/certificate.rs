//! What a client's certificate says of it, for rules and logs. The handshake has proven it; here it is only read, once for
//! each connection.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use x509_parser::der_parser::asn1_rs::{Oid, ToDer as _};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What a client's certificate says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as in RFC 4514, the most specific part first: `CN=till-7,OU=shops,O=Example`.
    pub subject: String,
    /// `subjectAltName`, by kind: DNS names,
    pub dns: Vec<String>,
    /// URIs, such as those of SPIFFE,
    pub uris: Vec<String>,
    /// e-mail addresses,
    pub emails: Vec<String>,
    /// and IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint: String,
    /// Until when it holds, its `notAfter`.
    pub expires: SystemTime,
}

impl Certificate {
    /// Of a certificate in DER; `None` where it is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut found = Self {
            subject: rfc4514(certificate.subject()),
            dns: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            addresses: Vec::new(),
            fingerprint: HEXLOWER.encode(digest(&SHA256, der).as_ref()),
            expires: time(certificate.validity().not_after.timestamp()),
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => found.dns.push((*name).to_owned()),
                GeneralName::URI(uri) => found.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) => found.emails.push((*email).to_owned()),
                GeneralName::IPAddress(bytes) => found.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(found)
    }

    /// Its other names as rules see them, by kind: who may choose a name of one kind does not choose those of another.
    pub(super) fn sans(&self) -> Value {
        let Self { dns, uris, emails, addresses, .. } = self;
        json!({ "dns": dns, "uri": uris, "email": emails, "ip": addresses })
    }
}

/// Seconds since 1970. What lies before has ended in any case.
fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or_default())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// RFC 4514 section 2: the last part of the name first, several attributes of one part joined by `+`.
fn rfc4514(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// A type by its short name and a value that is text; or both as numbers (section 2.4).
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let short = short_name(attribute.attr_type());
    match (short, attribute.as_str()) {
        (Some(short), Ok(value)) => format!("{short}={}", escaped(value)),
        _ => {
            let value = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", attribute.attr_type(), HEXLOWER.encode(&value))
        }
    }
}

fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    let oid = oid.to_id_string();
    SHORT.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short)
}

/// RFC 4514 section 3, and `emailAddress`, which is not in it and is what everyone writes.
const SHORT: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Characters that mean something are escaped, so that no value can look like another part; control characters are
/// written as numbers.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => text.extend(['\\', c]),
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(subject: &[(DnType, &str)], names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(2033, 5, 18);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn what_a_certificate_says() {
        let subject = [
            (DnType::OrganizationName, "Example"),
            (DnType::OrganizationalUnitName, "shops"),
            (DnType::CommonName, "till-7"),
        ];
        let names = vec![
            SanType::DnsName("till-7.example.com".try_into().unwrap()),
            SanType::URI("spiffe://example.com/till/7".try_into().unwrap()),
            SanType::Rfc822Name("till-7@example.com".try_into().unwrap()),
            SanType::IpAddress("2001:db8::7".parse().unwrap()),
        ];
        let der = certificate(&subject, names);
        let found = Certificate::of(&der).unwrap();
        assert_eq!(found.subject, "CN=till-7,OU=shops,O=Example");
        assert_eq!(found.dns, ["till-7.example.com"]);
        assert_eq!(found.uris, ["spiffe://example.com/till/7"]);
        assert_eq!(found.emails, ["till-7@example.com"]);
        assert_eq!(found.addresses, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.fingerprint, HEXLOWER.encode(digest(&SHA256, &der).as_ref()));
        assert_eq!(found.expires, humantime::parse_rfc3339("2033-05-18T00:00:00Z").unwrap());
        assert_eq!(Certificate::of(&der[1..]), None);
    }

    #[test]
    fn a_value_cannot_look_like_another_part() {
        for (value, shown) in [
            ("a,O=Example", "CN=a\\,O\\=Example"),
            ("a+OU=x", "CN=a\\+OU\\=x"),
            (" #1 ", "CN=\\ #1\\ "),
            ("#1", "CN=\\#1"),
            ("a\nb\u{85}", "CN=a\\0Ab\\C2\\85"),
            ("Bücher \"x\" \\", "CN=Bücher \\\"x\\\" \\\\"),
            ("", "CN="),
        ] {
            let found = Certificate::of(&certificate(&[(DnType::CommonName, value)], Vec::new())).unwrap();
            assert_eq!(found.subject, shown);
        }
        let custom = || DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999]);
        for (value, header) in
            [("ab".to_owned(), "0c02"), ("a".repeat(200), "0c81c8"), ("a".repeat(300), "0c82012c")]
        {
            let found = Certificate::of(&certificate(&[(custom(), &value)], Vec::new())).unwrap();
            let digits = HEXLOWER.encode(value.as_bytes());
            assert_eq!(found.subject, format!("1.3.6.1.4.1.99999=#{header}{digits}"));
        }
    }
}

//! Which content coding a client is sent a route's stream in, and how it is told (RFC 9110 sections 8.4 and 12.5.3).

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};

use crate::compress::{Coding, Encoding};
use crate::config::Compress;

/// The encoding that the route offers and the client likes best; of those that it likes as much the one that the route
/// names first. `None` sends the stream as it is: also to clients that say nothing, since few of those decode.
pub fn agree(compress: Option<&Compress>, request: &HeaderMap) -> Option<Encoding> {
    let compress = compress?;
    let wanted = Wanted::of(request);
    let mut best = (None, wanted.identity());
    for &coding in compress.codings.iter().rev() {
        let weight = wanted.coding(coding);
        if weight > 0 && weight >= best.1 {
            best = (Some(coding), weight);
        }
    }
    let (level, min_length) = (compress.level, compress.min_length);
    best.0.map(|coding| Encoding { coding, level, min_length })
}

/// Tells the encoding, and caches that other clients may be sent another.
pub fn tell(compress: Option<&Compress>, encoding: Option<Encoding>, response: &mut HeaderMap) {
    if compress.is_some() {
        response.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    if let Some(encoding) = encoding {
        response.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.coding.as_str()));
    }
}

/// What a client accepts: names, and how much it wants each, in thousandths.
struct Wanted(Vec<(String, u16)>);

impl Wanted {
    fn of(request: &HeaderMap) -> Self {
        let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        Self(values.flat_map(|value| value.split(',')).filter_map(weighed).collect())
    }

    fn named(&self, names: &[&str]) -> Option<u16> {
        self.0.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, weight)| *weight)
    }

    fn coding(&self, coding: Coding) -> u16 {
        let names: &[&str] = match coding {
            Coding::Zstd => &["zstd"],
            // Section 8.4.1.3: the same.
            Coding::Gzip => &["gzip", "x-gzip"],
        };
        self.named(names).or_else(|| self.named(&["*"])).unwrap_or(0)
    }

    /// What is not coded is acceptable even where it is not named, but wanted least then.
    fn identity(&self) -> u16 {
        self.named(&["identity"]).unwrap_or(0)
    }
}

/// A name and its weight; `None` where it is no weight of section 12.4.2.
fn weighed(item: &str) -> Option<(String, u16)> {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let weight = match parts.next() {
        None => 1_000,
        Some(parameter) => {
            let q: f32 =
                parameter.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?.trim().parse().ok()?;
            (0.0..=1.0).contains(&q).then(|| (q * 1_000.0).round() as u16)?
        }
    };
    Some((name, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(codings: &[Coding], accept: &'static str) -> Option<Coding> {
        let compress = Compress { codings: codings.to_vec(), level: 3, min_length: 0 };
        let request = [(ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect();
        agree(Some(&compress), &request).map(|encoding| encoding.coding)
    }

    #[test]
    fn the_client_weighs_and_the_route_decides_between_equals() {
        use Coding::{Gzip, Zstd};
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip", Some(Gzip)),
            ("X-GZIP", Some(Gzip)),
            ("zstd;q=0.5, gzip;q=0.9", Some(Gzip)),
            ("zstd; q=0.5 ,gzip ; Q=0.5", Some(Zstd)),
            ("*", Some(Zstd)),
            ("zstd;q=0, *;q=0.1", Some(Gzip)),
            ("gzip;q=0.001", Some(Gzip)),
            ("identity;q=0.5, gzip", Some(Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity, gzip", Some(Gzip)),
            ("identity;q=0, br", None),
            ("gzip;q=0, zstd;q=0.000", None),
            ("gzip;q=2, zstd;q=x, br", None),
            ("", None),
            ("br;q=1.0, deflate", None),
        ] {
            assert_eq!(agreed(&[Zstd, Gzip], accept), expected, "{accept}");
        }
        assert_eq!(agreed(&[Gzip, Zstd], "gzip, zstd"), Some(Gzip));
        assert_eq!(agreed(&[Gzip], "zstd"), None);
        assert_eq!(agree(None, &HeaderMap::new()), None);
        let offered = Compress { codings: vec![Zstd], level: 3, min_length: 0 };
        assert_eq!(agree(Some(&offered), &HeaderMap::new()), None, "who says nothing is sent it as it is");
    }
}

//! What is published: a record as applications have them, with a number and a time by which it is known again.

use memchr::memmem;

/// What a payload of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its number.
    pub seq: u64,
    /// When it was sent, in nanoseconds since the epoch.
    pub at: u64,
}

impl Stamp {
    /// Finds it in a payload.
    pub fn read(data: &[u8]) -> Option<Self> {
        // Some servers wrap a payload in JSON of their own.
        let begin = memmem::find(data, SEQ)?;
        let rest = &data[begin + SEQ.len()..];
        let (seq, rest) = number(rest)?;
        let (at, _) = number(rest.strip_prefix(br#","at":"#)?)?;
        Some(Self { seq, at })
    }
}

/// Writes the payload of event `seq`, published at `at`, with `size` bytes if they suffice: an order with names of fields
/// that are always the same and values that are not, so that it compresses as real ones do. All but the time follows
/// from the number.
pub fn payload(seq: u64, at: u64, size: usize) -> String {
    payload_of(None, seq, at, size)
}

/// The same of an event that names the symbol with this number.
pub fn payload_of(symbol: Option<u64>, seq: u64, at: u64, size: usize) -> String {
    let mut draw = Draw(seq);
    let mut text = format!(r#"{{"seq":{seq},"at":{at}"#);
    if let Some(symbol) = symbol {
        text.push_str(&format!(r#","symbol":"{}""#, symbol_name(symbol)));
    }
    let order = format!(
        r#","type":"order.{}","order":"{:08x}","customer":{},"total":{}.{:02},"items":{},"city":"{}""#,
        draw.of(&STATES),
        draw.below(1 << 32),
        draw.below(100_000),
        draw.below(1_000),
        draw.below(100),
        1 + draw.below(9),
        draw.of(&CITIES),
    );
    let note = r#","note":""#;
    if text.len() + order.len() + note.len() + 2 <= size {
        text.push_str(&order);
    }
    if text.len() + note.len() + 2 <= size {
        text.push_str(note);
        while text.len() < size - 2 {
            text.extend([draw.of(&WORDS), " "]);
        }
        text.truncate(size - 2);
        text.push('"');
    }
    text.push('}');
    text
}

/// What the symbol with this number is called.
pub fn symbol_name(number: u64) -> String {
    format!("s{number}")
}

/// Values by chance, the same for the same number (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn of(&mut self, list: &[&'static str]) -> &'static str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// The digits that `bytes` begins with, and what follows them.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let value = bytes[..end].iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    (end > 0).then_some((value, &bytes[end..]))
}

const SEQ: &[u8] = br#"{"seq":"#;

const STATES: [&str; 6] = ["placed", "paid", "packed", "shipped", "delivered", "returned"];

const CITIES: [&str; 12] = [
    "Lisbon", "Oslo", "Vienna", "Nairobi", "Lima", "Osaka", "Quebec", "Hanoi", "Dublin", "Tunis", "Perth",
    "Cork",
];

const WORDS: [&str; 32] = [
    "walnut",
    "desk",
    "lamp",
    "please",
    "leave",
    "at",
    "the",
    "door",
    "gift",
    "for",
    "blue",
    "large",
    "fragile",
    "second",
    "floor",
    "ring",
    "twice",
    "chair",
    "oak",
    "with",
    "cushion",
    "after",
    "six",
    "call",
    "before",
    "returned",
    "screw",
    "missing",
    "green",
    "small",
    "neighbour",
    "table",
];

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    #[test]
    fn a_payload_is_json_of_its_size_and_is_read_back() {
        for size in [60, 120, 200, 5_000] {
            let text = payload(7, 123, size);
            assert_eq!(text.len(), size);
            assert_eq!(Stamp::read(text.as_bytes()), Some(Stamp { seq: 7, at: 123 }));
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
        assert_eq!(payload(7, 123, 0), r#"{"seq":7,"at":123}"#);
        assert_eq!(payload(7, 123, 300), payload(7, 123, 300));
        let of_symbol = payload_of(Some(12), 7, 123, 200);
        assert!(of_symbol.len() == 200 && of_symbol.contains(r#","symbol":"s12","#), "{of_symbol}");
        assert_eq!(Stamp::read(of_symbol.as_bytes()), Some(Stamp { seq: 7, at: 123 }));
    }

    /// What the help says of it.
    #[test]
    fn payloads_compress_as_records_do() {
        let share = |events: u64| {
            let at = |seq| 1_800_000_000_000_000_000 + seq * 1_234_567;
            let plain: String = (1_000..1_000 + events)
                .map(|seq| format!("data: {}\n\n", payload(seq, at(seq), 200)))
                .collect();
            let mut packed = Vec::with_capacity(plain.len());
            let mut deflate = Compress::new(Compression::new(6), false);
            deflate.compress_vec(plain.as_bytes(), &mut packed, FlushCompress::Full).expect("it has room");
            packed.len() as f64 / plain.len() as f64
        };
        let shares = [1, 5, 20, 1_000].map(share);
        let expected = [0.76, 0.42, 0.3, 0.22];
        for (share, expected) in shares.into_iter().zip(expected) {
            assert!((share - expected).abs() < 0.02, "{shares:?}");
        }
    }
}

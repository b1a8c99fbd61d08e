//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): what a request says of the trace that it belongs to, and what
//! is said to whoever it is passed on to.

use data_encoding::HEXLOWER;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Tells a trace from all others; never all zeros.
pub type TraceId = [u8; 16];
/// Tells a span from all others of its trace; never all zeros.
pub type SpanId = [u8; 8];

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span within which the request was sent.
    pub span: SpanId,
    /// Whether it is traced there.
    pub sampled: bool,
}

impl Parent {
    /// The parent of a request, if it names one and no second. What is malformed names none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    /// Version, trace, span and flags, two, 32, 16 and two digits (section 3.2). Later versions may say more after these.
    fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let version = HEXLOWER.decode(&known[..2]).ok()?[0];
        let fits = match version {
            0 => rest.is_empty(),
            255 => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let (mut trace, mut span, mut flags) = (TraceId::default(), SpanId::default(), [0]);
        HEXLOWER.decode_mut(&known[3..35], &mut trace).ok()?;
        HEXLOWER.decode_mut(&known[36..52], &mut span).ok()?;
        HEXLOWER.decode_mut(&known[53..], &mut flags).ok()?;
        let is_one = trace != TraceId::default() && span != SpanId::default();
        (dashes && fits && is_one).then_some(Self { trace, span, sampled: flags[0] & SAMPLED != 0 })
    }

    /// Tells whoever gets these headers, and nothing of what they said before.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let (trace, span) = (HEXLOWER.encode(&self.trace), HEXLOWER.encode(&self.span));
        let value = format!("00-{trace}-{span}-{:02x}", u8::from(self.sampled) * SAMPLED);
        headers.insert(TRACEPARENT, HeaderValue::try_from(value).expect("digits and dashes"));
    }
}

/// What goes with the parent for others, as it came, if it is not longer than has to be passed on (section 3.3.1.5).
pub fn state(headers: &HeaderMap) -> String {
    let values: Vec<_> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    Some(values.join(",")).filter(|state| state.len() <= STATE).unwrap_or_default()
}

/// The header of the parent.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of what goes with it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes of what every version begins with.
const LENGTH: usize = 55;
/// The flag of what is traced.
const SAMPLED: u8 = 1;
/// Bytes of `tracestate`.
const STATE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_parent_is_what_the_text_says() {
        let parent = Parent::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        assert_eq!(HEXLOWER.encode(&parent.trace), TRACE);
        assert_eq!((HEXLOWER.encode(&parent.span).as_str(), parent.sampled), (SPAN, true));
        let mut headers = HeaderMap::new();
        parent.tell(&mut headers);
        assert_eq!(Parent::of(&headers), Some(parent));
        headers.append(TRACEPARENT, headers[TRACEPARENT].clone());
        assert_eq!(Parent::of(&headers), None, "two are none");
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let parent = Parent::parse(format!("00-{TRACE}-{SPAN}-{flags}").as_bytes());
            assert_eq!(parent.map(|parent| parent.sampled), Some(sampled), "{flags}");
        }
        for later in ["01-T-S-01", "cc-T-S-01-what-else", "fe-T-S-01-"] {
            let later = later.replace('T', TRACE).replace('S', SPAN);
            assert!(Parent::parse(later.as_bytes()).is_some(), "{later}");
        }
    }

    #[test]
    fn what_is_malformed_is_no_parent() {
        for text in [
            "",
            "00",
            "00-T-S",
            "00-T-S-",
            "00-T-S-1",
            "00-T-S-01-",
            "00-T-S-01-x",
            "00-T-S-011",
            "ff-T-S-01",
            "0-T-S-01",
            "01-T-S-01x",
            "00-T-S-0x",
            "00-T-S-+1",
            "00_T-S-01",
            "00-T_S-01",
            " 00-T-S-01",
            "0g-T-S-01",
            "0A-T-S-01",
            "00-00000000000000000000000000000000-S-01",
            "00-T-0000000000000000-01",
            "00-T-S-0A",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-S-01",
            "00-T-00F067AA0BA902B7-01",
            "00-T-S-01,00-T-S-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-0101",
        ] {
            let text = text.replace('T', TRACE).replace('S', SPAN);
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Parent::parse(&[0xff; 55]), None);
    }

    proptest::proptest! {
        #[test]
        fn a_parent_is_told_as_it_was_understood(value in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", at in 0..60_usize, byte: u8) {
            let mut value = value.into_bytes();
            for value in [value.clone(), { if let Some(there) = value.get_mut(at) { *there = byte; } value }] {
                if let Some(parent) = Parent::parse(&value) {
                    let mut headers = HeaderMap::new();
                    parent.tell(&mut headers);
                    assert_eq!(headers[TRACEPARENT].as_bytes()[2..53], value[2..53]);
                    assert_eq!(Parent::of(&headers), Some(parent));
                }
            }
        }
    }

    #[test]
    fn a_state_goes_along_unless_it_is_too_long() {
        let mut headers = HeaderMap::new();
        assert_eq!(state(&headers), "");
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2".parse().unwrap());
        assert_eq!(state(&headers), "a=1,b=2");
        headers.append(TRACESTATE, "x".repeat(512).parse().unwrap());
        assert_eq!(state(&headers), "");
    }
}

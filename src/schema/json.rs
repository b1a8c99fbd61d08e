//! JSON text while it is written. It has a bound, since a few bytes of a payload can stand for any number of values.

use std::fmt::Display;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Undecoded;

/// A text of so many bytes at most.
pub(super) struct Json {
    text: Vec<u8>,
    limit: usize,
}

type Written = Result<(), Undecoded>;

impl Json {
    pub fn new(limit: usize) -> Self {
        Self { text: Vec::new(), limit }
    }

    pub fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// Adds what is JSON already.
    pub fn raw(&mut self, text: &str) -> Written {
        self.write_all(text.as_bytes()).map_err(|_| Undecoded::TooLarge)
    }

    pub fn string(&mut self, text: &str) -> Written {
        serde_json::to_writer(self, text).map_err(|_| Undecoded::TooLarge)
    }

    /// A whole number, or anything else that displays as JSON.
    pub fn number(&mut self, number: impl Display) -> Written {
        write!(self, "{number}").map_err(|_| Undecoded::TooLarge)
    }

    /// JSON has no name for what is no number: these are strings, as in Protobuf's mapping.
    pub fn float(&mut self, number: f64) -> Written {
        match number {
            f64::INFINITY => self.raw("\"Infinity\""),
            f64::NEG_INFINITY => self.raw("\"-Infinity\""),
            number if number.is_nan() => self.raw("\"NaN\""),
            number => serde_json::to_writer(self, &number).map_err(|_| Undecoded::TooLarge),
        }
    }

    /// The same for one of half the precision, which has fewer digits.
    pub fn single(&mut self, number: f32) -> Written {
        match number.is_finite() {
            true => serde_json::to_writer(self, &number).map_err(|_| Undecoded::TooLarge),
            false => self.float(number.into()),
        }
    }

    /// Bytes, as base64 (RFC 4648 section 4).
    pub fn bytes(&mut self, bytes: &[u8]) -> Written {
        if bytes.len() > self.limit {
            return Err(Undecoded::TooLarge);
        }
        self.quoted(BASE64.encode(bytes))
    }

    /// A string that needs no escaping.
    pub fn quoted(&mut self, text: impl Display) -> Written {
        write!(self, "\"{text}\"").map_err(|_| Undecoded::TooLarge)
    }
}

/// Fails where it is too much.
impl Write for Json {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.text.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! MessagePack as JSON, written while it is read. What JSON has no type for: bytes are base64, times (the extension -1)
//! RFC 3339, other extensions `{"type": …, "data": base64}`; keys that are whole numbers become strings.

use rmp::Marker;

use super::input::Input;
use super::json::Json;
use super::{DEPTH, Undecoded, time};

/// One value, which is all of the payload.
pub(super) fn write(payload: &[u8], out: &mut Json) -> Result<(), Undecoded> {
    let mut reader = Reader { input: Input(payload), out };
    reader.value(DEPTH)?;
    reader.input.end()
}

struct Reader<'p, 'o> {
    input: Input<'p>,
    out: &'o mut Json,
}

impl<'p> Reader<'p, '_> {
    fn value(&mut self, depth: usize) -> Result<(), Undecoded> {
        let marker = Marker::from_u8(self.input.byte()?);
        match marker {
            Marker::Null => self.out.raw("null"),
            Marker::False => self.out.raw("false"),
            Marker::True => self.out.raw("true"),
            Marker::F32 => {
                let number = f32::from_be_bytes(self.input.array()?);
                self.out.single(number)
            }
            Marker::F64 => {
                let number = f64::from_be_bytes(self.input.array()?);
                self.out.float(number)
            }
            Marker::FixArray(len) => self.array(len.into(), depth),
            Marker::Array16 => self.len16().and_then(|len| self.array(len, depth)),
            Marker::Array32 => self.len32().and_then(|len| self.array(len, depth)),
            Marker::FixMap(len) => self.map(len.into(), depth),
            Marker::Map16 => self.len16().and_then(|len| self.map(len, depth)),
            Marker::Map32 => self.len32().and_then(|len| self.map(len, depth)),
            Marker::Bin8 => self.len8().and_then(|len| self.bytes(len)),
            Marker::Bin16 => self.len16().and_then(|len| self.bytes(len)),
            Marker::Bin32 => self.len32().and_then(|len| self.bytes(len)),
            Marker::FixExt1 => self.extension(1),
            Marker::FixExt2 => self.extension(2),
            Marker::FixExt4 => self.extension(4),
            Marker::FixExt8 => self.extension(8),
            Marker::FixExt16 => self.extension(16),
            Marker::Ext8 => self.len8().and_then(|len| self.extension(len)),
            Marker::Ext16 => self.len16().and_then(|len| self.extension(len)),
            Marker::Ext32 => self.len32().and_then(|len| self.extension(len)),
            marker => match self.whole(marker)? {
                Some(number) => self.out.number(number),
                None => {
                    let text = self.text(marker)?;
                    self.out.string(text)
                }
            },
        }
    }

    fn array(&mut self, len: usize, depth: usize) -> Result<(), Undecoded> {
        let depth = depth.checked_sub(1).ok_or(Undecoded::Malformed)?;
        self.out.raw("[")?;
        for at in 0..len {
            if at > 0 {
                self.out.raw(",")?;
            }
            self.value(depth)?;
        }
        self.out.raw("]")
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<(), Undecoded> {
        let depth = depth.checked_sub(1).ok_or(Undecoded::Malformed)?;
        self.out.raw("{")?;
        for at in 0..len {
            if at > 0 {
                self.out.raw(",")?;
            }
            self.key()?;
            self.out.raw(":")?;
            self.value(depth)?;
        }
        self.out.raw("}")
    }

    fn key(&mut self) -> Result<(), Undecoded> {
        let marker = Marker::from_u8(self.input.byte()?);
        match self.whole(marker)? {
            Some(number) => self.out.quoted(number),
            None => {
                let text = self.text(marker)?;
                self.out.string(text)
            }
        }
    }

    /// The whole number that begins so, if it is one.
    fn whole(&mut self, marker: Marker) -> Result<Option<i128>, Undecoded> {
        Ok(Some(match marker {
            Marker::FixPos(number) => number.into(),
            Marker::FixNeg(number) => number.into(),
            Marker::U8 => u8::from_be_bytes(self.input.array()?).into(),
            Marker::U16 => u16::from_be_bytes(self.input.array()?).into(),
            Marker::U32 => u32::from_be_bytes(self.input.array()?).into(),
            Marker::U64 => u64::from_be_bytes(self.input.array()?).into(),
            Marker::I8 => i8::from_be_bytes(self.input.array()?).into(),
            Marker::I16 => i16::from_be_bytes(self.input.array()?).into(),
            Marker::I32 => i32::from_be_bytes(self.input.array()?).into(),
            Marker::I64 => i64::from_be_bytes(self.input.array()?).into(),
            _ => return Ok(None),
        }))
    }

    /// The text that begins so.
    fn text(&mut self, marker: Marker) -> Result<&'p str, Undecoded> {
        let len = match marker {
            Marker::FixStr(len) => len.into(),
            Marker::Str8 => self.len8()?,
            Marker::Str16 => self.len16()?,
            Marker::Str32 => self.len32()?,
            _ => return Err(Undecoded::Malformed),
        };
        self.input.text(len)
    }

    fn bytes(&mut self, len: usize) -> Result<(), Undecoded> {
        let bytes = self.input.take(len)?;
        self.out.bytes(bytes)
    }

    fn extension(&mut self, len: usize) -> Result<(), Undecoded> {
        let kind = i8::from_be_bytes(self.input.array()?);
        let data = self.input.take(len)?;
        if kind == TIMESTAMP {
            let (seconds, nanos) = timestamp(data)?;
            return self.out.quoted(format_args!("{}Z", time::date_and_time(seconds, nanos)));
        }
        self.out.raw("{\"type\":")?;
        self.out.number(kind)?;
        self.out.raw(",\"data\":")?;
        self.out.bytes(data)?;
        self.out.raw("}")
    }

    fn len8(&mut self) -> Result<usize, Undecoded> {
        self.input.byte().map(usize::from)
    }

    fn len16(&mut self) -> Result<usize, Undecoded> {
        self.input.array().map(|bytes| u16::from_be_bytes(bytes).into())
    }

    fn len32(&mut self) -> Result<usize, Undecoded> {
        self.input.array().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }
}

/// Seconds since the epoch, and nanoseconds: the specification, "Timestamp extension type".
fn timestamp(data: &[u8]) -> Result<(i64, u32), Undecoded> {
    let mut input = Input(data);
    let (seconds, nanos) = match data.len() {
        4 => (u32::from_be_bytes(input.array()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(input.array()?);
            ((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
        }
        12 => {
            let nanos = u32::from_be_bytes(input.array()?);
            (i64::from_be_bytes(input.array()?), nanos)
        }
        _ => return Err(Undecoded::Malformed),
    };
    if nanos < 1_000_000_000 { Ok((seconds, nanos)) } else { Err(Undecoded::Malformed) }
}

const TIMESTAMP: i8 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(payload: &[u8]) -> Result<String, Undecoded> {
        let mut out = Json::new(10_000);
        write(payload, &mut out)?;
        Ok(String::from_utf8(out.into_text()).unwrap())
    }

    #[test]
    fn values() {
        for (payload, text) in [
            (&b"\xc0"[..], "null"),
            (b"\x93\xc2\xc3\x7f", "[false,true,127]"),
            (b"\x93\xe0\xcc\xff\xd0\x80", "[-32,255,-128]"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd3\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
            (b"\xca\x3f\x8c\xcc\xcd", "1.1"),
            (b"\xcb\x7f\xf8\0\0\0\0\0\0", "\"NaN\""),
            (b"\x82\xa1a\xa2\"\n\x07\x90", "{\"a\":\"\\\"\\n\",\"7\":[]}"),
            (b"\xc4\x02\xff\0", "\"/wA=\""),
            (b"\xd6\xff\0\0\0\0", "\"1970-01-01T00:00:00Z\""),
            (b"\xd7\xff\x00\x00\x00\x04\x00\x00\x00\x01", "\"1970-01-01T00:00:01.000000001Z\""),
            (b"\xc7\x0c\xff\x1d\xcd\x65\x00\xff\xff\xff\xff\xff\xff\xff\xff", "\"1969-12-31T23:59:59.500Z\""),
            (b"\xd4\x05x", "{\"type\":5,\"data\":\"eA==\"}"),
        ] {
            assert_eq!(decoded(payload).as_deref(), Ok(text), "{payload:?}");
        }
    }

    #[test]
    fn what_is_not_sound_has_no_text() {
        for payload in [
            &b""[..],
            b"\xc1",
            b"\xc0\xc0",
            b"\xa2a",
            b"\xa1\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff\xa1a",
            b"\xc6\xff\xff\xff\xffx",
            b"\x81\xc0\xc0",
            b"\x81\xcb\0\0\0\0\0\0\0\0\xc0",
            b"\xd5\xff\0\0",
            b"\xd7\xff\xff\xff\xff\xff\0\0\0\0",
        ] {
            assert_eq!(decoded(payload), Err(Undecoded::Malformed), "{payload:?}");
        }
        assert!(decoded(&[&[0x91; DEPTH][..], b"\xc0"].concat()).is_ok());
        assert_eq!(decoded(&[0x91; DEPTH + 1]), Err(Undecoded::Malformed));
        assert_eq!(decoded(&[0x91; 100_000]), Err(Undecoded::Malformed));
        let many = [&b"\xdd\0\0\x27\x10"[..], &[0xc0; 10_000]].concat();
        assert_eq!(decoded(&many), Err(Undecoded::TooLarge));
    }
}

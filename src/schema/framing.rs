//! How producers tell by which schema a value is written, as Confluent's serializers do: a magic byte and an id, before the
//! value or in a header of the record. The magic byte 0 is followed by the id of four bytes that one registry has given,
//! 1 by the UUID of 16 that is the same in all of them. For Protobuf it goes on with where the message stands in its file.

use std::fmt;

use super::Undecoded;
use super::input::Input;

/// The header of a Kafka record that may have the id of its value's schema.
pub const HEADER: &str = "__value_schema_id";

/// What a registry knows a schema by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaId {
    /// By its number.
    Number(u32),
    /// By its UUID.
    Uuid(Uuid),
}

/// A UUID (RFC 9562 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

/// A value, and what was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framed<'p> {
    /// The id of its schema.
    pub id: SchemaId,
    /// What follows the id.
    after: &'p [u8],
    /// The payload, where the id stands in the header.
    payload: Option<&'p [u8]>,
}

impl<'p> Framed<'p> {
    /// A record with this payload and this [`HEADER`].
    pub fn of(payload: &'p [u8], header: Option<&'p [u8]>) -> Result<Self, Undecoded> {
        let mut input = Input(header.unwrap_or(payload));
        let id = match input.byte()? {
            0 => SchemaId::Number(u32::from_be_bytes(input.array()?)),
            1 => SchemaId::Uuid(Uuid(input.array()?)),
            _ => return Err(Undecoded::Malformed),
        };
        Ok(Self { id, after: input.0, payload: header.map(|_| payload) })
    }

    /// The value, of a format that has one a schema.
    pub fn body(self) -> &'p [u8] {
        self.payload.unwrap_or(self.after)
    }

    /// The value of Protobuf: at which places its message stands, each within the one before, and the message.
    pub fn message(self) -> Result<(Vec<usize>, &'p [u8]), Undecoded> {
        let mut input = Input(self.after);
        let count = input.len()?;
        // The first message of a file, which most are, is told by a count of none.
        let path = match count {
            0 => vec![0],
            count if count > input.0.len() => return Err(Undecoded::Malformed),
            count => (0..count).map(|_| input.len()).collect::<Result<_, _>>()?,
        };
        Ok((path, self.payload.unwrap_or(input.0)))
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, rest @ ..] = &self.0;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        write!(f, "{}-{}-{}", hex(&[*a, *b, *c, *d]), hex(&[*e, *g]), hex(&[*h, *i]))?;
        write!(f, "-{}-{}", hex(&rest[..2]), hex(&rest[2..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";

    #[test]
    fn an_id_stands_before_the_value_or_in_the_header() {
        let before = Framed::of(b"\0\0\0\x01\x02value", None).unwrap();
        assert_eq!((before.id, before.body()), (SchemaId::Number(258), &b"value"[..]));
        let header = [&[1][..], &UUID].concat();
        let framed = Framed::of(b"value", Some(&header)).unwrap();
        assert_eq!((framed.id, framed.body()), (SchemaId::Uuid(Uuid(UUID)), &b"value"[..]));
        assert_eq!(framed.id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        for (payload, header) in [
            (&b""[..], None),
            (b"\0\0\0\x01", None),
            (b"\x02\0\0\0\x01x", None),
            (b"{\"a\":1}", None),
            (b"\0\0\0\0\x01x", Some(&b"\x01short"[..])),
            (b"\0\0\0\0\x01x", Some(b"")),
        ] {
            assert_eq!(Framed::of(payload, header), Err(Undecoded::Malformed), "{payload:?}");
        }
    }

    #[test]
    fn where_a_message_stands() {
        let read = |after: &[u8]| {
            let payload = [b"\0\0\0\0\x01", after].concat();
            let (path, body) = Framed::of(&payload, None).unwrap().message()?;
            Ok((path, body.to_vec()))
        };
        assert_eq!(read(b"\0x"), Ok((vec![0], b"x".to_vec())));
        assert_eq!(read(b"\x04\x02\0x"), Ok((vec![1, 0], b"x".to_vec())));
        for after in [&b""[..], b"\x01", b"\x04\x02", b"\x02\x01x", b"\xfe\xff\xff\xff\x0fxx"] {
            assert_eq!(read(after), Err(Undecoded::Malformed), "{after:?}");
        }
        let header = [&[1][..], &UUID, b"\x02\x04"].concat();
        let framed = Framed::of(b"x", Some(&header)).unwrap();
        assert_eq!(framed.message(), Ok((vec![2], &b"x"[..])));
    }
}

//! What is left of a payload while it is read. No length is believed before the bytes are there.

use super::Undecoded;

/// The bytes that are left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'p>(pub &'p [u8]);

impl<'p> Input<'p> {
    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'p [u8], Undecoded> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Undecoded::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// As many as an array has.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecoded> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Undecoded::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn byte(&mut self) -> Result<u8, Undecoded> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Text in UTF-8.
    pub fn text(&mut self, len: usize) -> Result<&'p str, Undecoded> {
        str::from_utf8(self.take(len)?).map_err(|_| Undecoded::Malformed)
    }

    /// A number as Avro and Protobuf write it: seven bits a byte, the lowest first, and the sign in the last of them.
    pub fn zigzag(&mut self) -> Result<i64, Undecoded> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return Err(Undecoded::Malformed);
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(Undecoded::Malformed)
    }

    /// A length as Avro writes it.
    pub fn len(&mut self) -> Result<usize, Undecoded> {
        usize::try_from(self.zigzag()?).map_err(|_| Undecoded::Malformed)
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Undecoded> {
        if self.0.is_empty() { Ok(()) } else { Err(Undecoded::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size() {
        let read = |bytes: &[u8]| Input(bytes).zigzag();
        for (bytes, number) in
            [(&[0][..], 0), (&[1], -1), (&[2], 1), (&[0x7f], -64), (&[0x80, 1], 64), (&[0xff, 1], -128)]
        {
            assert_eq!(read(bytes), Ok(number), "{bytes:?}");
        }
        let most = [0xff; 9];
        assert_eq!(read(&[&most[..], &[1]].concat()), Ok(i64::MIN));
        assert_eq!(read(&[&[0xfe][..], &most[..8], &[1]].concat()), Ok(i64::MAX));
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[&most[..], &[2]].concat()] {
            assert_eq!(read(bytes), Err(Undecoded::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn nothing_is_taken_that_is_not_there() {
        let mut input = Input(b"abc");
        assert_eq!(input.take(usize::MAX), Err(Undecoded::Malformed));
        assert_eq!(input.array::<2>(), Ok(*b"ab"));
        assert_eq!((input.array::<2>(), input.end()), (Err(Undecoded::Malformed), Err(Undecoded::Malformed)));
        assert_eq!((input.text(1), input.end()), (Ok("c"), Ok(())));
    }
}

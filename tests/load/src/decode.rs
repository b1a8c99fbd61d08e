//! Content codings as clients have them: what has come is decoded at once, whatever is still to come.

use anyhow::{anyhow, bail};
use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

use crate::args::Coding;

/// Decodes one response body.
#[derive(Default)]
pub enum Decoder {
    /// No coding.
    #[default]
    Identity,
    /// gzip (RFC 1952).
    Gzip(Box<Decompress>),
    /// zstd (RFC 8878): frames, one after the other.
    Zstd(DCtx<'static>),
}

impl Decoder {
    /// Of a body in this coding.
    pub fn new(coding: Coding) -> Self {
        match coding {
            Coding::Identity => Self::Identity,
            Coding::Gzip => Self::Gzip(Box::new(Decompress::new_gzip(WINDOW_BITS))),
            Coding::Zstd => Self::Zstd(DCtx::create()),
        }
    }

    /// Hands to `plain` all that the next bytes of the body complete.
    ///
    /// # Errors
    /// Where they are of another coding, or of none.
    pub fn feed(&mut self, bytes: &[u8], mut plain: impl FnMut(&[u8])) -> anyhow::Result<()> {
        match self {
            Self::Identity => plain(bytes),
            Self::Gzip(inflate) => {
                let (mut part, mut rest) = ([0; PART], bytes);
                loop {
                    let (taken, given) = (inflate.total_in(), inflate.total_out());
                    let status = inflate
                        .decompress(rest, &mut part, FlushDecompress::None)
                        .map_err(|error| anyhow!("not the gzip that was asked for: {error}"))?;
                    rest = &rest[(inflate.total_in() - taken) as usize..];
                    let given = (inflate.total_out() - given) as usize;
                    plain(&part[..given]);
                    if rest.is_empty() && given < PART {
                        break;
                    }
                    if status == Status::StreamEnd {
                        bail!("bytes after the end of gzip");
                    }
                }
            }
            Self::Zstd(context) => {
                let (mut part, mut input) = ([0; PART], InBuffer::around(bytes));
                loop {
                    let mut output = OutBuffer::around(&mut part[..]);
                    context.decompress_stream(&mut output, &mut input).map_err(|code| {
                        anyhow!("not the zstd that was asked for: {}", get_error_name(code))
                    })?;
                    let given = output.pos();
                    plain(&part[..given]);
                    if input.pos == bytes.len() && given < PART {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The largest window that deflate has, as a power of two.
const WINDOW_BITS: u8 = 15;

/// Bytes decoded at a time; on the stack.
const PART: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// gzip as servers flush it after each event: fully or not.
    fn gzip(events: &[String], flush: FlushCompress) -> Vec<u8> {
        let mut out = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
        let mut deflate = Compress::new(Compression::new(1), false);
        for event in events {
            let mut packed = Vec::with_capacity(event.len() + 100);
            deflate.compress_vec(event.as_bytes(), &mut packed, flush).expect("it has room");
            out.extend(packed);
        }
        out
    }

    fn zstd(events: &[String]) -> Vec<u8> {
        let frame = |event: &String| {
            let mut frame = Vec::with_capacity(event.len() + 100);
            zstd_safe::compress(&mut frame, event.as_bytes(), 3).expect("it has room");
            frame
        };
        events.iter().flat_map(frame).collect()
    }

    #[test]
    fn all_that_was_flushed_comes_however_it_is_cut() {
        let events: Vec<_> = [1, 3, 900, 2].map(|n| format!("data: {n} {}\n\n", "text ".repeat(n))).to_vec();
        for (coding, stream) in [
            (Coding::Identity, events.concat().into_bytes()),
            (Coding::Gzip, gzip(&events, FlushCompress::Full)),
            (Coding::Gzip, gzip(&events, FlushCompress::Sync)),
            (Coding::Zstd, zstd(&events)),
        ] {
            for cut in 0..stream.len() {
                let (mut decoder, mut plain) = (Decoder::new(coding), Vec::new());
                for piece in [&stream[..cut], &stream[cut..]] {
                    decoder.feed(piece, |part| plain.extend_from_slice(part)).expect("it is whole");
                }
                assert!(plain == events.concat().as_bytes(), "{coding:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_of_another_coding_is_an_error() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            assert!(Decoder::new(coding).feed(b": hi\n\ndata: text\n\n", |_| {}).is_err(), "{coding:?}");
        }
    }
}

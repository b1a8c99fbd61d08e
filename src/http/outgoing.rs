//! What a stream has read and not yet handed to hyper: pieces of shared bytes, in order, and in the stream's coding if
//! it has one.

use std::collections::VecDeque;

use bytes::Bytes;

use super::tls_stream::RECORD;
use crate::compress::{BLOCK, Coding, Framing, Packed};

/// Bytes handed over at a time; what a stalled client can hold of a large event. With what HTTP/1.1 puts around them
/// they make one TLS record.
pub const FRAME: usize = RECORD - 16;

/// Pieces below this size are copied, and sent together: each that is handed over costs far more than a copy, and one
/// that waits keeps alive the whole block of which it is a part.
const SMALL: usize = 4 * 1024;

/// Pieces that wait to be sent.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Bytes>,
    /// Small ones after them.
    open: Vec<u8>,
    length: usize,
    /// Of a stream in a coding.
    framing: Option<Framing>,
    /// Where the header stands in `open` of a stored block that goes on to its end.
    block: Option<usize>,
    /// Bytes put since this was asked last, as they were before they were coded.
    plain: usize,
}

impl Outgoing {
    /// Nothing yet, of a stream in this coding.
    pub fn new(coding: Option<Coding>) -> Self {
        let mut outgoing = Self { framing: coding.map(Framing::new), ..Self::default() };
        if let Some(framing) = &outgoing.framing {
            let opening = framing.opening();
            outgoing.push(Bytes::from_static(opening));
        }
        outgoing
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether a whole frame waits.
    pub fn fills_a_frame(&self) -> bool {
        self.length >= FRAME
    }

    /// Adds what is sent after all that waits, to this client alone: in a coding it is not compressed.
    pub fn put(&mut self, mut bytes: Bytes) {
        self.plain += bytes.len();
        let Some(framing) = &mut self.framing else { return self.push(bytes) };
        framing.sum(&bytes);
        if self.open.len() + framing.stored_length() + bytes.len() > FRAME {
            self.close();
        }
        if bytes.len() < SMALL {
            self.begin_block();
            return self.push(bytes);
        }
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(BLOCK - FRAME));
            self.begin_block();
            self.end_block(part.len());
            self.push(part);
        }
    }

    /// Adds `bytes`, which many clients are sent, in the form that they have in the stream's coding.
    pub fn put_packed(&mut self, bytes: &Bytes, packed: Packed) {
        self.plain += bytes.len();
        self.end_block(0);
        if let Some(framing) = &mut self.framing {
            framing.sum_packed(&packed.sum, bytes.len());
        }
        self.push(packed.bytes);
    }

    /// Nothing is put after this.
    pub fn end(&mut self) {
        self.end_block(0);
        if let Some(framing) = &self.framing {
            self.push(framing.closing().into());
        }
    }

    /// Bytes put since this was asked last, as they were before they were coded.
    pub fn take_plain(&mut self) -> usize {
        std::mem::take(&mut self.plain)
    }

    /// Begins a stored block where none is open. How long it is will be known at its end.
    fn begin_block(&mut self) {
        if let (Some(framing), None) = (&self.framing, self.block) {
            self.block = Some(self.open.len());
            self.open.resize(self.open.len() + framing.stored_length(), 0);
            self.length += framing.stored_length();
        }
    }

    /// Ends the stored block, if there is one, with so many bytes that will be pushed next.
    fn end_block(&mut self, next: usize) {
        if let (Some(framing), Some(at)) = (&self.framing, self.block.take()) {
            let content = at + framing.stored_length();
            framing.write_stored(self.open.len() - content + next, &mut self.open[at..content]);
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() >= SMALL || self.open.len() + bytes.len() > FRAME {
            self.close();
        }
        if bytes.len() >= SMALL {
            self.pieces.push_back(bytes);
        } else {
            self.open.extend_from_slice(&bytes);
        }
    }

    /// Takes what is sent next: at most a frame.
    pub fn take(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.close();
        }
        let front = self.pieces.front_mut()?;
        let bytes = if front.len() > FRAME { front.split_to(FRAME) } else { self.pieces.pop_front()? };
        self.length -= bytes.len();
        Some(bytes)
    }

    fn close(&mut self) {
        self.end_block(0);
        if !self.open.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.open).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// The sizes in which pieces of these sizes are sent, all bytes of which arrive in order.
    fn sent(sizes: &[usize]) -> Vec<usize> {
        let mut outgoing = Outgoing::default();
        let all: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| at as u8).collect();
        let mut rest = Bytes::from(all.clone());
        sizes.iter().for_each(|&size| outgoing.put(rest.split_to(size)));
        let taken: Vec<_> = std::iter::from_fn(|| outgoing.take()).collect();
        assert!(outgoing.is_empty() && taken.concat() == all);
        taken.iter().map(Bytes::len).collect()
    }

    #[test]
    fn small_pieces_are_joined_and_large_ones_split() {
        assert!(sent(&[]).is_empty());
        assert_eq!(sent(&[100, 200, 300]), [600]);
        assert_eq!(sent(&[100, SMALL, 100, 100]), [100, SMALL, 200]);
        assert_eq!(sent(&[2 * FRAME + 1, 10]), [FRAME, FRAME, 1, 10]);
        assert_eq!(sent(&[SMALL - 1; 5]), [4 * (SMALL - 1), SMALL - 1]);
    }

    /// How what is put is decoded is tested with the codings; here, that all of it is framed, whatever its sizes.
    #[test]
    fn pieces_of_all_sizes_are_stored_in_blocks() {
        let sizes = [
            3,
            SMALL - 1,
            1,
            SMALL,
            5,
            3 * BLOCK,
            7,
            FRAME,
            BLOCK - FRAME + 1,
            100,
            SMALL - 1,
            SMALL - 1,
            SMALL - 1,
            9,
        ];
        let mut outgoing = Outgoing::new(Some(Coding::Gzip));
        let (mut stream, mut plain) = (Vec::new(), Vec::new());
        for (at, size) in sizes.into_iter().enumerate() {
            let bytes = Bytes::from(vec![at as u8; size]);
            plain.extend_from_slice(&bytes);
            outgoing.put(bytes);
            if at % 3 == 0 {
                stream.extend(
                    std::iter::from_fn(|| outgoing.take())
                        .inspect(|bytes| assert!(bytes.len() <= FRAME))
                        .flatten(),
                );
                assert!(outgoing.is_empty());
            }
        }
        outgoing.end();
        stream.extend(std::iter::from_fn(|| outgoing.take()).flatten());
        assert_eq!(outgoing.take_plain(), plain.len());
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(&stream[..]).read_to_end(&mut decoded).expect("with its checksum");
        assert!(decoded == plain);
    }

    #[test]
    fn a_large_piece_is_shared_and_a_small_one_keeps_nothing_alive() {
        let block = Bytes::from(vec![b'x'; SMALL]);
        let mut outgoing = Outgoing::default();
        outgoing.put(block.clone());
        assert_eq!(outgoing.take().map(|bytes| bytes.as_ptr()), Some(block.as_ptr()));
        outgoing.put(block.slice(1..));
        assert!(block.is_unique());
    }
}

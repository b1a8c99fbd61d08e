//! What a stream has read and not yet handed to hyper: pieces of shared bytes, in order.

use std::collections::VecDeque;

use bytes::Bytes;

use super::tls_stream::RECORD;

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
}

impl Outgoing {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether a whole frame waits.
    pub fn fills_a_frame(&self) -> bool {
        self.length >= FRAME
    }

    /// Adds what is sent after all that waits.
    pub fn put(&mut self, bytes: Bytes) {
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
        if !self.open.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.open).into());
        }
    }
}

#[cfg(test)]
mod tests {
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

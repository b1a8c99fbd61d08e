//! What a stream has read and not yet handed to hyper: pieces of shared bytes, in order.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes handed over at a time; what a stalled client can hold of a large event.
pub const FRAME: usize = 16 * 1024;

/// Pieces below this size are sent together: each that is handed over costs far more than a copy.
const SMALL: usize = 4 * 1024;

/// Pieces that wait to be sent.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Bytes>,
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
        self.pieces.push_back(bytes);
    }

    /// Takes what is sent next: at most a frame.
    pub fn take(&mut self) -> Option<Bytes> {
        let front = self.pieces.front_mut()?;
        let bytes = if front.len() > FRAME {
            front.split_to(FRAME)
        } else {
            let first = self.pieces.pop_front()?;
            self.join(first)
        };
        self.length -= bytes.len();
        Some(bytes)
    }

    /// Adds to `first` the small pieces that follow it, as far as a frame has room.
    fn join(&mut self, first: Bytes) -> Bytes {
        let mut length = first.len();
        let fits = |piece: &&Bytes| {
            let sum = length + piece.len();
            let fits = piece.len() < SMALL && sum <= FRAME;
            length = if fits { sum } else { length };
            fits
        };
        let count = if first.len() < SMALL { self.pieces.iter().take_while(fits).count() } else { 0 };
        if count == 0 {
            return first;
        }
        let mut joined = Vec::with_capacity(length);
        joined.extend_from_slice(&first);
        self.pieces.drain(..count).for_each(|piece| joined.extend_from_slice(&piece));
        joined.into()
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
        assert_eq!(sent(&[2 * FRAME + 1, 10]), [FRAME, FRAME, 11]);
        assert_eq!(sent(&[SMALL - 1; 5]), [4 * (SMALL - 1), SMALL - 1]);
    }

    #[test]
    fn a_large_piece_is_shared_and_not_copied() {
        let piece = Bytes::from(vec![b'x'; SMALL]);
        let mut outgoing = Outgoing::default();
        outgoing.put(piece.clone());
        assert_eq!(outgoing.take().map(|bytes| bytes.as_ptr()), Some(piece.as_ptr()));
    }
}

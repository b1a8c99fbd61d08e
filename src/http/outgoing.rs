//! What a stream has read and not yet handed over: pieces of shared bytes, in order, and in the stream's coding if
//! it has one; or the lines of JSON that they are for scripts.

use std::collections::VecDeque;

use bytes::Bytes;

use super::lines::Lines;
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
    /// Of a stream that is sent as lines. Boxed, since few are.
    lines: Option<Box<Lines>>,
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

    /// Nothing yet, of a stream that is sent as these lines.
    pub fn in_lines(lines: Lines) -> Self {
        Self { lines: Some(Box::new(lines)), ..Self::default() }
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
        if let Some(lines) = &mut self.lines {
            bytes = lines.of(&bytes);
        }
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
            self.begin_block();
            // The header of a block, sent alone, would cost as much as a whole frame: some of the bytes go with it.
            let first = bytes.split_to(bytes.len().min(FRAME - self.open.len()));
            self.length += first.len();
            self.open.extend_from_slice(&first);
            let rest = bytes.split_to(bytes.len().min(BLOCK - FRAME));
            self.end_block(rest.len());
            self.push(rest);
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
        let bytes = match self.pieces.front_mut() {
            Some(front) if front.len() > FRAME => front.split_to(FRAME),
            Some(_) => self.pieces.pop_front()?,
            // Small ones alone, of which there is never more than a frame, need no room in the queue.
            None => self.take_open()?,
        };
        self.length -= bytes.len();
        Some(bytes)
    }

    fn close(&mut self) {
        if let Some(small) = self.take_open() {
            self.pieces.push_back(small);
        }
    }

    fn take_open(&mut self) -> Option<Bytes> {
        self.end_block(0);
        (!self.open.is_empty()).then(|| std::mem::take(&mut self.open).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    use super::*;
    use crate::compress::Encoding;
    use crate::compress::testing::Decoder;

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
        assert_eq!(sent(&[SMALL - 1; 5]), [3 * (SMALL - 1), 2 * (SMALL - 1)]);
    }

    #[test]
    fn what_is_not_packed_takes_as_many_frames_in_a_coding() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let mut outgoing = Outgoing::new(Some(coding));
            while outgoing.take().is_some() {}
            for size in [SMALL, FRAME, 24 * 1024, 2 * FRAME - 100, 200_000] {
                outgoing.put(vec![b'x'; size].into());
                let frames = std::iter::from_fn(|| outgoing.take()).count();
                assert!(frames <= size.div_ceil(FRAME) + 1 + size / BLOCK, "{frames} for {size}");
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        /// So many bytes for this client alone.
        Put(usize),
        /// So many for all, that get shorter or not.
        Share(usize, bool),
        /// A frame is taken, or all that waits.
        Take,
        TakeAll,
    }

    fn op() -> impl Strategy<Value = Op> {
        let size = || prop_oneof![8 => 1..300_usize, 3 => 300..20_000_usize, 1 => 20_000..200_000_usize];
        prop_oneof![
            3 => size().prop_map(Op::Put),
            3 => (size(), any::<bool>()).prop_map(|(size, shrinks)| Op::Share(size, shrinks)),
            2 => Just(Op::Take),
            1 => Just(Op::TakeAll),
        ]
    }

    proptest! {
        #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

        /// What has been taken is decoded at once, be it the whole of what waits or not.
        #[test]
        fn what_is_taken_decodes_to_what_was_put(gzip in any::<bool>(), ops in vec(op(), 1..60)) {
            let coding = if gzip { Coding::Gzip } else { Coding::Zstd };
            let encoding = Encoding { coding, level: 1, min_length: 100 };
            let (mut outgoing, mut decoder) = (Outgoing::new(Some(coding)), Decoder::new(coding.as_str()));
            let (mut put, mut seen, mut told) = (Vec::new(), Vec::new(), 0);
            for op in ops {
                match op {
                    Op::Put(size) => {
                        let bytes = content(put.len(), size, true);
                        put.extend_from_slice(&bytes);
                        outgoing.put(bytes);
                    }
                    Op::Share(size, shrinks) => {
                        let bytes = content(put.len(), size, shrinks);
                        put.extend_from_slice(&bytes);
                        match encoding.pack(&bytes) {
                            Some(packed) => outgoing.put_packed(&bytes, Packed::new(&bytes, packed.into())),
                            None => outgoing.put(bytes),
                        }
                    }
                    Op::Take => {
                        let frame = outgoing.take().unwrap_or_default();
                        prop_assert!(frame.len() <= FRAME);
                        seen.extend(decoder.feed(&frame));
                    }
                    Op::TakeAll => {
                        std::iter::from_fn(|| outgoing.take()).for_each(|frame| seen.extend(decoder.feed(&frame)));
                        prop_assert!(outgoing.is_empty() && seen.len() == put.len());
                        told += outgoing.take_plain();
                        prop_assert_eq!(told, put.len());
                    }
                }
                prop_assert!(put.starts_with(&seen));
            }
            outgoing.end();
            std::iter::from_fn(|| outgoing.take()).for_each(|frame| seen.extend(decoder.feed(&frame)));
            prop_assert!(seen == put && decoder.is_whole());
        }
    }

    /// Bytes that are the `at`th of a stream, and text or nothing that gets shorter.
    fn content(at: usize, size: usize, text: bool) -> Bytes {
        let byte = |at: usize| match text {
            true => b"data: and so on\n\n"[at % 17],
            false => ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29) as u8,
        };
        (at..at + size).map(byte).collect()
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

//! Messages that are larger than any event may be. What a payload has beyond that is skipped as it comes in, so that no message
//! takes more room than one that can be sent on; what is left of it is too large all the same, and told as such. A broker
//! that was told how much we take would not send it, and be silent about it (MQTT 5.0 section 3.1.2.11.4). Pure.

/// Cuts the packets of a stream of bytes.
#[derive(Debug)]
pub(super) struct Cutter {
    most: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// What has come of a fixed header (MQTT 5.0 section 2.1).
    Head(Vec<u8>),
    /// Within a packet: so many bytes are handed over, and so many behind them are not.
    Body { left: usize, skipped: usize },
}

/// A packet that can be no message is larger than messages may be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent a packet of {0} bytes that is no message")]
pub(super) struct TooLarge(usize);

impl Cutter {
    /// Of what follows the fixed header of a message `most` bytes are kept.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.min(LARGEST), state: State::Head(Vec::new()) }
    }

    /// Takes the next bytes; hands over what is to be read, each piece of one packet, with whether that is cut.
    ///
    /// # Errors
    /// There is a packet that cannot be cut. Nothing can be read behind it.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        mut hand_over: impl FnMut(&[u8], bool),
    ) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(bytes[0]);
                    bytes = &bytes[1..];
                    if is_whole(head) {
                        let head = std::mem::take(head);
                        self.begin(&head, &mut hand_over)?;
                    }
                }
                State::Body { left, skipped } => {
                    let (own, rest) = bytes.split_at(bytes.len().min(*left));
                    let (gone, rest) = rest.split_at(rest.len().min(*skipped));
                    let is_cut = *skipped > 0;
                    (*left, *skipped, bytes) = (*left - own.len(), *skipped - gone.len(), rest);
                    if *left == 0 && *skipped == 0 {
                        self.state = State::Head(Vec::new());
                    }
                    if !own.is_empty() {
                        hand_over(own, is_cut);
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: &[u8], hand_over: &mut impl FnMut(&[u8], bool)) -> Result<(), TooLarge> {
        if is_unfinished(head) {
            // Whoever reads it will say that it is malformed.
            hand_over(head, false);
            return Ok(());
        }
        let size = size(&head[1..]);
        let left = match size.checked_sub(self.most) {
            None | Some(0) => size,
            Some(_) if head[0] >> 4 == PUBLISH => self.most,
            Some(_) => return Err(TooLarge(size)),
        };
        self.state = match size {
            0 => State::Head(Vec::new()),
            _ => State::Body { left, skipped: size - left },
        };
        if left == size {
            hand_over(head, false);
        } else {
            hand_over(&[&head[..1], &sized(left)].concat(), true);
        }
        Ok(())
    }
}

/// Whether a fixed header is there in whole, or in as many bytes as one has at most.
fn is_whole(head: &[u8]) -> bool {
    head.len() == LONGEST || (head.len() > 1 && !is_unfinished(head))
}

/// Whether more is to follow.
fn is_unfinished(head: &[u8]) -> bool {
    head.last().is_some_and(|byte| *byte >= 0x80)
}

/// The size that these bytes say (MQTT 5.0 section 1.5.5).
fn size(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |size, byte| (size << 7) | usize::from(byte & 0x7f))
}

/// How a size is written.
fn sized(mut size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while size >= 0x80 {
        bytes.push(size as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes
}

/// The type of packets that are messages.
const PUBLISH: u8 = 3;
/// Bytes of the longest fixed header.
const LONGEST: usize = 5;
/// The largest size of a packet behind that.
const LARGEST: usize = 268_435_455;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &sized(body.len()), body].concat()
    }

    /// What is left of bytes that come in pieces, and of how many bytes packets that are cut.
    fn cut(most: usize, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), TooLarge> {
        let (mut cutter, mut all, mut of_cut) = (Cutter::new(most), Vec::new(), 0);
        for piece in pieces {
            cutter.take(piece, |bytes, is_cut| {
                all.extend_from_slice(bytes);
                of_cut += if is_cut { bytes.len() } else { 0 };
            })?;
        }
        Ok((all, of_cut))
    }

    #[test]
    fn a_message_loses_what_is_too_much_and_nothing_else_does() {
        let (small, pong) = (packet(0x32, b"12345"), packet(0xd0, b""));
        let large = packet(0x31, &[b'x'; 300]);
        let all = [&small[..], &large, &pong, &small].concat();
        let left = [&small[..], &packet(0x31, &[b'x'; 200]), &pong, &small].concat();
        let of_cut = 1 + 2 + 200;
        assert_eq!(cut(200, &[&all]), Ok((left.clone(), of_cut)));
        for at in 0..all.len() {
            assert_eq!(cut(200, &[&all[..at], &all[at..]]), Ok((left.clone(), of_cut)), "in two, at {at}");
        }
        assert_eq!(cut(300, &[&all]), Ok((all.clone(), 0)), "it is not too large");
        assert_eq!(cut(usize::MAX, &[&all]), Ok((all, 0)));
        assert_eq!(cut(200, &[&packet(0x90, &[0; 300])]), Err(TooLarge(300)));
        let malformed = [0x30, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert_eq!(cut(200, &[&malformed]), Ok((malformed.to_vec(), 0)), "whoever reads it ends there");
    }

    #[test]
    fn sizes_there_and_back() {
        for (of, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_384, &[0x80, 0x80, 1]),
            (LARGEST, &[0xff, 0xff, 0xff, 0x7f]),
        ] {
            assert_eq!((sized(of), size(bytes)), (bytes.to_vec(), of));
        }
    }

    proptest! {
        #[test]
        fn what_is_not_cut_is_what_came(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..200) {
            let at = at.min(bytes.len());
            let (whole, of_cut) = cut(usize::MAX, &[&bytes[..at], &bytes[at..]]).unwrap();
            prop_assert_eq!(of_cut, 0);
            prop_assert!(bytes.starts_with(&whole) && whole.len() + LONGEST > bytes.len());
            let _ = cut(8, &[&bytes]);
        }
    }
}

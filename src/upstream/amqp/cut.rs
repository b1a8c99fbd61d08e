//! Messages that are larger than any event may be. What a body has beyond that is skipped as it comes in, so that no message
//! takes more room than one that can be sent on; what is left of it is too large all the same, and told as such. AMQP has
//! no bound of the kind to ask for: `prefetch_size` RabbitMQ does not have, and how large messages may be is said by its
//! node, 16 MiB or 128 MiB. Pure.

use std::collections::HashMap;

/// Cuts the bodies in a stream of bytes from a broker.
#[derive(Debug)]
pub(super) struct Cutter {
    most: usize,
    /// Of the body that is cut on a channel: how many bytes are still to be handed over.
    left: HashMap<u16, usize>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// What has come of the head of a frame (AMQP 0-9-1 section 2.3.5), and of what a content header begins with.
    Head(Vec<u8>),
    /// Within a frame: so many bytes are handed over, so many behind them are not, and so many are again.
    Frame { own: usize, skipped: usize, end: usize },
    /// These are no frames. Whoever reads them will say so.
    Foreign,
}

impl Cutter {
    /// Of a body `most` bytes are kept.
    pub(super) fn new(most: usize) -> Self {
        Self { most, left: HashMap::new(), state: State::Head(Vec::new()) }
    }

    /// Takes the next bytes, and appends to `out` what is to be read.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(bytes[0]);
                    bytes = &bytes[1..];
                    if head.len() == length(head[0]) {
                        let head = std::mem::take(head);
                        self.begin(head, out);
                    }
                }
                State::Frame { own, skipped, end } => {
                    let (passed, rest) = bytes.split_at(bytes.len().min(*own));
                    let (gone, rest) = rest.split_at(rest.len().min(*skipped));
                    let (last, rest) = rest.split_at(rest.len().min(*end));
                    out.extend_from_slice(passed);
                    out.extend_from_slice(last);
                    (*own, *skipped, *end) = (*own - passed.len(), *skipped - gone.len(), *end - last.len());
                    if *own + *skipped + *end == 0 {
                        self.state = State::Head(Vec::new());
                    }
                    bytes = rest;
                }
                State::Foreign => {
                    out.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// A frame begins with this head.
    fn begin(&mut self, mut head: Vec<u8>, out: &mut Vec<u8>) {
        let (channel, size) = (u16::from_be_bytes([head[1], head[2]]), number(&head[3..HEAD]) as usize);
        self.state = match head[0] {
            METHOD | HEARTBEAT => State::Frame { own: size + END, skipped: 0, end: 0 },
            CONTENT if size >= SIZED => {
                let body = number(&head[HEAD + SIZED - 8..]);
                self.left.remove(&channel);
                if body > self.most as u64 {
                    self.left.insert(channel, self.most);
                    head[HEAD + SIZED - 8..].copy_from_slice(&(self.most as u64).to_be_bytes());
                }
                State::Frame { own: size - SIZED + END, skipped: 0, end: 0 }
            }
            BODY => {
                let own = match self.left.get_mut(&channel) {
                    Some(left) => {
                        let own = size.min(*left);
                        *left -= own;
                        own
                    }
                    None => size,
                };
                if own == 0 && size > 0 {
                    self.state = State::Frame { own: 0, skipped: size + END, end: 0 };
                    return;
                }
                head[3..HEAD].copy_from_slice(&(own as u32).to_be_bytes());
                State::Frame { own, skipped: size - own, end: END }
            }
            _ => State::Foreign,
        };
        out.append(&mut head);
    }
}

/// How long the head of a frame of this type is. That of a content header goes on to the size of the body.
fn length(kind: u8) -> usize {
    if kind == CONTENT { HEAD + SIZED } else { HEAD }
}

/// A number as it stands in a frame.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The types of frames.
const METHOD: u8 = 1;
const CONTENT: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// Bytes of type, channel and size.
const HEAD: usize = 7;
/// What a content header begins with: class, weight, and the size of the body, which has eight of them.
const SIZED: usize = 12;
/// What a frame ends with.
const END: usize = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let size = (payload.len() as u32).to_be_bytes();
        [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat()
    }

    /// What comes before the body of a message, which has two bytes of properties.
    fn header(channel: u16, body: usize) -> Vec<u8> {
        let payload = [&[0, 60, 0, 0][..], &(body as u64).to_be_bytes(), &[0, 0]].concat();
        frame(CONTENT, channel, &payload)
    }

    fn cut(most: usize, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut cutter, mut out) = (Cutter::new(most), Vec::new());
        pieces.iter().for_each(|piece| cutter.take(piece, &mut out));
        out
    }

    #[test]
    fn a_body_loses_what_is_too_much_and_nothing_else_does() {
        let (method, beat) = (frame(METHOD, 1, &[7; 400]), frame(HEARTBEAT, 0, b""));
        let (small, empty) = ([header(1, 5), frame(BODY, 1, b"small")].concat(), header(2, 0));
        // Two messages at a time, each on a channel of its own, in frames that break anywhere.
        let came = [
            &method[..],
            &header(1, 300),
            &frame(BODY, 1, &[b'a'; 150]),
            &header(2, 120),
            &frame(BODY, 1, &[b'b'; 100]),
            &beat,
            &frame(BODY, 2, &[b'c'; 120]),
            &frame(BODY, 1, &[b'd'; 50]),
            &small,
            &empty,
            &method,
        ]
        .concat();
        let left = [
            &method[..],
            &header(1, 200),
            &frame(BODY, 1, &[b'a'; 150]),
            &header(2, 120),
            &frame(BODY, 1, &[b'b'; 50]),
            &beat,
            &frame(BODY, 2, &[b'c'; 120]),
            &small,
            &empty,
            &method,
        ]
        .concat();
        assert_eq!(cut(200, &[&came]), left);
        for at in 0..came.len() {
            assert_eq!(cut(200, &[&came[..at], &came[at..]]), left, "in two, at {at}");
        }
        assert_eq!(cut(300, &[&came]), came, "it is not too large");
    }

    #[test]
    fn what_is_no_frame_is_for_others_to_say() {
        for foreign in [&b"AMQP\x00\x00\x09\x01 and more"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            assert_eq!(cut(8, &[foreign]), foreign);
        }
        let short = [&frame(CONTENT, 1, b"short")[..], &[1; 20]].concat();
        assert_eq!(cut(8, &[&short]), short);
    }

    proptest! {
        #[test]
        fn what_is_not_cut_is_what_came(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..200) {
            let at = at.min(bytes.len());
            let whole = cut(usize::MAX, &[&bytes[..at], &bytes[at..]]);
            prop_assert!(bytes.starts_with(&whole) && whole.len() + HEAD + SIZED > bytes.len());
            cut(8, &[&bytes]);
        }
    }
}

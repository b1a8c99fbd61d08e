//! Bytes of events taken apart into blocks again, for who reads several feeds and gives each event an id of its own. Only for
//! what `encode` has written: there a payload cannot be taken for structure, the name is the first line of its block, and the
//! id the last.

use std::vec::IntoIter;

use bytes::Bytes;

/// One block, sliced out of the bytes that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its lines but for the id, each with its end.
    pub body: Bytes,
    /// The value of its `id:` line, if it has one.
    pub id: Option<Bytes>,
}

impl Block {
    /// The value of its `event:` line, if it has one.
    pub fn name(&self) -> Option<&[u8]> {
        let line = self.body.strip_prefix(EVENT)?;
        line.get(..memchr::memchr(b'\n', line)?)
    }

    /// Where its `data:` lines begin within the body.
    pub fn data_at(&self) -> usize {
        self.name().map_or(0, |name| EVENT.len() + name.len() + 1)
    }

    /// Of the bytes of a block without its empty line.
    fn of(bytes: Bytes) -> Self {
        let last = memchr::memrchr(b'\n', &bytes[..bytes.len().saturating_sub(1)]).map_or(0, |at| at + 1);
        if !bytes[last..].starts_with(ID) {
            return Self { body: bytes, id: None };
        }
        let id = bytes.slice(last + ID.len()..bytes.len() - 1);
        Self { body: bytes.slice(..last), id: Some(id) }
    }
}

/// The blocks of some pieces of bytes, in order. A piece ends with a block, or with the body of one whose end the next piece
/// begins with: its id and the empty line, or that alone.
#[derive(Debug)]
pub struct Blocks {
    front: Bytes,
    rest: IntoIter<Bytes>,
}

impl Blocks {
    /// Those of these pieces.
    pub fn new(pieces: Vec<Bytes>) -> Self {
        Self { front: Bytes::new(), rest: pieces.into_iter() }
    }

    /// What the first piece that is left begins with, up to and without an empty line; or all of it, if it has none.
    fn split(&mut self) -> (Bytes, bool) {
        let line_is_empty = self.front.starts_with(b"\n");
        let end =
            if line_is_empty { Some(0) } else { memchr::memmem::find(&self.front, b"\n\n").map(|at| at + 1) };
        let before = self.front.split_to(end.unwrap_or(self.front.len()));
        if end.is_some() {
            drop(self.front.split_to(1));
        }
        (before, end.is_some())
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        while self.front.is_empty() {
            self.front = self.rest.next()?;
        }
        let (bytes, is_whole) = self.split();
        if is_whole {
            return Some(Block::of(bytes));
        }
        self.front = self.rest.next().unwrap_or_default();
        let (end, _) = self.split();
        Some(Block { body: bytes, ..Block::of(end) })
    }
}

const EVENT: &[u8] = b"event: ";
const ID: &[u8] = b"id: ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{EventName, body, control_body, id_block};
    use super::*;

    /// Name, lines of data and id of each block.
    fn parts(pieces: &[&[u8]]) -> Vec<(Option<String>, String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Blocks::new(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect())
            .map(|block| {
                let data = text(&block.body[block.data_at()..]);
                (block.name().map(text), data, block.id.as_deref().map(text))
            })
            .collect()
    }

    fn part(name: &str, data: &str, id: &str) -> (Option<String>, String, Option<String>) {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        (some(name), data.to_owned(), some(id))
    }

    #[test]
    fn a_slice_is_its_blocks() {
        let slice = b"data: a\nid: 1\n\nevent: e\ndata: b\ndata: \nid: 2\n\nevent: stream.gap\ndata: {}\n\nevent: stream.position\ndata: {}\nid: 3\n\ndata: c\n\n";
        let expected = [
            part("", "data: a\n", "1"),
            part("e", "data: b\ndata: \n", "2"),
            part("stream.gap", "data: {}\n", ""),
            part("stream.position", "data: {}\n", "3"),
            part("", "data: c\n", ""),
        ];
        assert_eq!(parts(&[slice]), expected);
        assert_eq!(parts(&[]), []);
        assert_eq!(parts(&[b""]), []);
    }

    #[test]
    fn a_body_and_its_end_may_be_two_pieces() {
        let pieces: [&[u8]; 7] = [
            b"data: a\n",
            b"id: 1\n\n",
            b"event: g\ndata: {}\n\nevent: p\ndata: {}\n",
            b"id: 2\n\nevent: q\ndata: {}\nid: 3\n\n",
            b"data: b\nid: 4\n\n",
            b"data: c\n",
            b"\nevent: r\ndata: {}\n\n",
        ];
        let expected = [
            part("", "data: a\n", "1"),
            part("g", "data: {}\n", ""),
            part("p", "data: {}\n", "2"),
            part("q", "data: {}\n", "3"),
            part("", "data: b\n", "4"),
            part("", "data: c\n", ""),
            part("r", "data: {}\n", ""),
        ];
        assert_eq!(parts(&pieces), expected);
    }

    #[test]
    fn bodies_are_not_copied() {
        let whole = Bytes::from_static(b"event: e\ndata: b\nid: 2\n\ndata: c\nid: 3\n\n");
        let second = Blocks::new(vec![whole.clone()]).nth(1).unwrap();
        assert_eq!(second.body.as_ptr(), whole[24..].as_ptr());
    }

    proptest! {
        #[test]
        fn what_was_written_is_taken_apart_as_it_was(
            events in prop::collection::vec((any::<String>(), "[ -~\r\n\\PC]{0,60}", "[!-~]{0,12}", any::<bool>()), 0..12),
        ) {
            let (mut pieces, mut expected) = (vec![Vec::new()], Vec::new());
            for (name, payload, id, is_apart) in &events {
                let name = EventName::new(name.clone());
                let begun = pieces.last().unwrap().len();
                body(pieces.last_mut().unwrap(), name.as_ref(), payload);
                let written = String::from_utf8(pieces.last().unwrap()[begun..].to_vec()).unwrap();
                let named = name.as_ref().map_or(String::new(), |name| name.as_str().to_owned());
                let line = if named.is_empty() { 0 } else { written.find('\n').unwrap() + 1 };
                expected.push(part(&named, &written[line..], id));
                if *is_apart {
                    pieces.push(Vec::new());
                }
                match id.as_str() {
                    "" => pieces.last_mut().unwrap().push(b'\n'),
                    id => id_block(pieces.last_mut().unwrap(), id),
                }
                control_body(pieces.last_mut().unwrap(), "stream.", "gap", "{}");
                pieces.last_mut().unwrap().push(b'\n');
                expected.push(part("stream.gap", "data: {}\n", ""));
            }
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(parts(&pieces), expected);
        }
    }
}

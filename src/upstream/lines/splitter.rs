//! From bytes, cut anywhere, to lines. Holds a line that is not whole yet and no more, up to a bound.

use bytes::Bytes;

/// Cuts what it is fed at LF; a CR before it belongs to the end of the line.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// What there is of a line that has not ended.
    open: Vec<u8>,
}

impl Splitter {
    /// The lines that these bytes complete. Of one that is longer than `most`, a byte more than that is kept, by which it
    /// is seen to be too long.
    pub fn feed(&mut self, bytes: &Bytes, most: usize) -> Vec<Bytes> {
        let (mut lines, mut begin) = (Vec::new(), 0);
        for end in memchr::memchr_iter(b'\n', bytes) {
            let part = bytes.slice(begin..end);
            begin = end + 1;
            if self.open.is_empty() {
                lines.push(without_cr(part));
            } else {
                self.push(&part, most);
                lines.extend(self.end());
            }
        }
        self.push(&bytes[begin..], most);
        lines
    }

    /// The last line, if it has begun: nothing is to follow.
    pub fn end(&mut self) -> Option<Bytes> {
        (!self.open.is_empty()).then(|| without_cr(std::mem::take(&mut self.open).into()))
    }

    fn push(&mut self, part: &[u8], most: usize) {
        let room = (most + 1).saturating_sub(self.open.len());
        self.open.extend_from_slice(&part[..part.len().min(room)]);
    }
}

fn without_cr(line: Bytes) -> Bytes {
    let length = line.len() - usize::from(line.ends_with(b"\r"));
    line.slice(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8;

    fn split(pieces: &[&[u8]]) -> (Vec<Bytes>, Option<Bytes>) {
        let mut splitter = Splitter::default();
        let lines =
            pieces.iter().flat_map(|piece| splitter.feed(&Bytes::copy_from_slice(piece), MOST)).collect();
        (lines, splitter.end())
    }

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let text = b"one\n\ntwo\r\nthr\ree\r\nfo";
        let expected = ["one", "", "two", "thr\ree"].map(Bytes::from).to_vec();
        for cut in 0..=text.len() {
            let (before, after) = text.split_at(cut);
            assert_eq!(split(&[before, after]), (expected.clone(), Some("fo".into())), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes), (expected, Some("fo".into())));
        assert_eq!(split(&[b"x\n"]), (vec!["x".into()], None));
    }

    #[test]
    fn of_what_is_too_long_little_is_held_and_it_is_seen_to_be() {
        let mut splitter = Splitter::default();
        for _ in 0..1_000 {
            assert!(splitter.feed(&Bytes::from_static(b"0123"), MOST).is_empty());
        }
        assert_eq!(splitter.open.len(), MOST + 1);
        let lines = splitter.feed(&Bytes::from_static(b"45\nnext\n"), MOST);
        assert_eq!(lines, [Bytes::from("012301230"), "next".into()]);
    }
}

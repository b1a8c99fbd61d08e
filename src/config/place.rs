//! Where things stand in the configuration's text: byte spans, lines and columns. Pure; used by
//! every part of `config` that reports a problem.

/// A stretch of the text, in bytes; `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From `start` up to `end`, or empty at `start` where `end` lies before it.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }
}

/// The text with an index of its lines and characters, so that a place in a long line is found fast.
#[derive(Debug)]
pub(super) struct Text<'t> {
    whole: &'t str,
    starts: Vec<usize>,
    /// How many characters begin before each multiple of [`STEP`].
    counts: Vec<usize>,
}

const STEP: usize = 1024;

impl<'t> Text<'t> {
    /// Indexes `whole`.
    pub fn new(whole: &'t str) -> Self {
        let starts = std::iter::once(0).chain(whole.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut counts = vec![0];
        for block in whole.as_bytes().chunks(STEP) {
            counts.push(counts.last().copied().unwrap_or(0) + beginnings(block));
        }
        Self { whole, starts, counts }
    }

    /// The text itself.
    pub fn whole(&self) -> &'t str {
        self.whole
    }

    /// What `span` covers; nothing where it does not fit the text.
    pub fn slice(&self, span: Span) -> &'t str {
        self.whole.get(span.start..span.end).unwrap_or_default()
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let column = 1 + self.characters(at) - self.characters(self.starts[line - 1]);
        let mark = usize::from(line == 1 && at > 0 && self.whole.starts_with('\u{feff}'));
        (line, column - mark)
    }

    /// How many characters begin before a byte.
    fn characters(&self, at: usize) -> usize {
        let at = at.min(self.whole.len());
        let block = at / STEP;
        self.counts[block] + beginnings(&self.whole.as_bytes()[block * STEP..at])
    }

    /// The span of a line without its line break; lines count from 1.
    pub fn line(&self, line: usize) -> Span {
        let start = self.starts.get(line - 1).copied().unwrap_or(self.whole.len());
        let end = self.starts.get(line).map_or(self.whole.len(), |next| next - 1);
        let cut = self.whole.get(start..end).unwrap_or_default().trim_end_matches('\r');
        Span::new(start, start + cut.len())
    }

    /// The nearest place at or before `at` where a character begins.
    pub fn floor(&self, at: usize) -> usize {
        let at = at.min(self.whole.len());
        (0..=at).rev().find(|at| self.whole.is_char_boundary(*at)).unwrap_or(0)
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.starts.len()
    }
}

/// How many characters begin in these bytes of UTF-8.
fn beginnings(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let text = Text::new("a: é\r\nbc: d\n");
        assert_eq!(text.position(0), (1, 1));
        assert_eq!(text.position(3), (1, 4));
        assert_eq!(text.position(5), (1, 5));
        assert_eq!(text.position(7), (2, 1));
        assert_eq!(text.position(99), (3, 1));
        let long = "é".repeat(5000);
        let long = Text::new(&long);
        assert!((0..=5000).all(|at| long.position(2 * at) == (1, at + 1)));
        assert_eq!(text.slice(text.line(1)), "a: é");
        assert_eq!(text.slice(text.line(2)), "bc: d");
        assert_eq!(text.slice(text.line(3)), "");
        assert_eq!(text.slice(text.line(9)), "");
    }

    #[test]
    fn a_byte_order_mark_takes_no_column() {
        assert_eq!(Text::new("\u{feff}a: b").position(6), (1, 4));
    }
}

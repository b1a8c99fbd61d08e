//! The lines of a stream, cut anywhere.

/// A line that has begun.
#[derive(Debug)]
pub(super) struct Lines {
    begun: Vec<u8>,
    most: usize,
}

impl Lines {
    /// Of what is longer than `most` the rest is not kept: a byte more tells that it is too long.
    pub(super) fn new(most: usize) -> Self {
        Self { begun: Vec::new(), most }
    }

    /// Takes the next bytes, and gives the lines that end in them. Those without anything in them only show that
    /// somebody is there.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = (self.most + 1).saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < part.len() {
                let line = std::mem::take(&mut self.begun);
                lines.extend(Some(line.trim_ascii().to_vec()).filter(|line| !line.is_empty()));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let stream = b"{\"a\":1}\r\n\n[2]\n123456789012\nx";
        for cut in 0..=stream.len() {
            let mut lines = Lines::new(10);
            let mut found = lines.feed(&stream[..cut]);
            found.extend(lines.feed(&stream[cut..]));
            let found: Vec<_> = found.iter().map(|line| str::from_utf8(line).unwrap()).collect();
            assert_eq!(found, ["{\"a\":1}", "[2]", "12345678901"], "cut at {cut}");
        }
    }
}

//! How deep braces and brackets of a text lie within each other. Whoever reads it later may follow them by recursion, to
//! any depth.

/// The depth outside of strings, and of comments as a `.proto` has them, of which JSON has none.
pub(super) fn depth(bytes: &[u8]) -> usize {
    let (mut at, mut depth, mut deepest) = (0, 0usize, 0);
    while at < bytes.len() {
        let after = |from: usize, end: &str| {
            memchr::memmem::find(&bytes[from..], end.as_bytes()).map_or(bytes.len(), |found| from + found)
        };
        match bytes[at] {
            b'#' => at = after(at, "\n"),
            b'/' if bytes[at..].starts_with(b"//") => at = after(at, "\n"),
            b'/' if bytes[at..].starts_with(b"/*") => at = after(at + 2, "*/"),
            // What a line break ends is no string, and what follows counts.
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote && bytes[at] != b'\n' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' | b'<' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_opens_counts() {
        for (text, expected) in [
            ("", 0),
            ("a { b [ // {{{\n /* {{ */ \"\\\"{{\" '{' ] } {", 2),
            ("[[],{\"a\":[{}]}]", 4),
            ("]]][", 1),
            ("\"{", 0),
            ("/* {", 0),
            ("/*/ \" */ { {", 2),
            ("# \"\n{ \"\n{", 2),
        ] {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(depth(&[b'['; 100_000]), 100_000);
    }
}

//! What of an answer is an event, and which of them the answer before did not have.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use serde::de::IgnoredAny;

use crate::config::Split;

/// The parts of answers that the newest one had, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Items(HashSet<[u8; 32]>);

impl Items {
    /// The parts of an answer that are new.
    ///
    /// # Errors
    /// Why it has no parts.
    pub(super) fn changes<'a>(&mut self, answer: &'a [u8], split: Split) -> Result<Vec<&'a [u8]>, String> {
        let all = match split {
            Split::None => vec![answer],
            Split::Lines => answer
                .split(|&b| b == b'\n')
                .map(<[u8]>::trim_ascii)
                .filter(|line| !line.is_empty())
                .collect(),
            Split::Array => elements(answer)?,
        };
        let mut seen = HashSet::new();
        let news = all.into_iter().filter(|item| {
            let hash = hash(item);
            // What an answer has twice is one event.
            seen.insert(hash) && !self.0.contains(&hash)
        });
        let news = news.collect();
        self.0 = seen;
        Ok(news)
    }
}

fn hash(item: &[u8]) -> [u8; 32] {
    digest(&SHA256, item).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The elements of a JSON array, each as it is written.
fn elements(json: &[u8]) -> Result<Vec<&[u8]>, String> {
    serde_json::from_slice::<Vec<IgnoredAny>>(json)
        .map_err(|error| format!("the answer is no JSON array: {error}"))?;
    // It is one: what remains is to see where its elements end.
    let inner = json.trim_ascii();
    let inner = &inner[1..inner.len() - 1];
    let (mut elements, mut begin, mut depth, mut text) = (Vec::new(), 0, 0, false);
    let mut bytes = inner.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if text => drop(bytes.next()),
            b'"' => text = !text,
            _ if text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                elements.push(inner[begin..at].trim_ascii());
                begin = at + 1;
            }
            _ => {}
        }
    }
    let last = inner[begin..].trim_ascii();
    elements.extend((!last.is_empty()).then_some(last));
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(items: &mut Items, answer: &str, split: Split) -> Vec<String> {
        let news = items.changes(answer.as_bytes(), split).unwrap();
        news.into_iter().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect()
    }

    #[test]
    fn what_the_answer_before_had_is_no_news() {
        let mut whole = Items::default();
        assert_eq!(changes(&mut whole, "a", Split::None), ["a"]);
        assert!(changes(&mut whole, "a", Split::None).is_empty());
        assert_eq!(changes(&mut whole, "b\n", Split::None), ["b\n"]);
        assert_eq!(changes(&mut whole, "a", Split::None), ["a"], "it is news again");
        let mut lines = Items::default();
        assert_eq!(changes(&mut lines, "a\r\n\nb\nb", Split::Lines), ["a", "b"]);
        assert_eq!(changes(&mut lines, "b\nc\n", Split::Lines), ["c"]);
        assert!(changes(&mut lines, "", Split::Lines).is_empty());
    }

    #[test]
    fn elements_are_as_they_are_written() {
        let mut items = Items::default();
        let array =
            r#" [ {"a":[1,2],"b":"],\"}"} , 1.50, "x,\\", 123456789012345678901234567890 ,null,[[]] ] "#;
        let expected = [
            r#"{"a":[1,2],"b":"],\"}"}"#,
            "1.50",
            r#""x,\\""#,
            "123456789012345678901234567890",
            "null",
            "[[]]",
        ];
        assert_eq!(changes(&mut items, array, Split::Array), expected);
        assert_eq!(changes(&mut items, "[null, 2]", Split::Array), ["2"]);
        assert!(changes(&mut items, "[ ]", Split::Array).is_empty());
        for bad in ["", "{}", "[1", "[1,]", "x"] {
            assert!(items.changes(bad.as_bytes(), Split::Array).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(items.changes(deep.as_bytes(), Split::Array).is_err());
    }
}

//! The file that `deny:` names: who is no longer let in, whatever credential he has. Read at the start and again
//! whenever it changes, so that its parser is used from outside, too.

use std::collections::HashSet;

use super::super::model::WatchedFile;
use super::super::tree::Node;
use super::super::walk::Walk;

/// The file, and what it says.
#[derive(Debug, Clone)]
pub struct Deny {
    /// Where it is.
    pub file: WatchedFile,
    /// What it said when the configuration was read.
    pub list: DenyList,
}

/// Reads `deny`: the path of a file, which can be read as it is now.
pub(in super::super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Deny> {
    let (file, content) = walk.watched(node, "the path of a file such as `/etc/ssegate/deny`")?;
    let list = DenyList::of(&content).map_err(|why| walk.problem(node.span, why)).ok()?;
    Some(Deny { file, list })
}

/// Subjects, tokens and keys that are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenyList {
    /// `sub:NAME`: whoever is called so.
    pub subjects: HashSet<String>,
    /// `jti:ID`: single tokens.
    pub tokens: HashSet<String>,
    /// `kid:ID`: all that was signed with a key.
    pub keys: HashSet<String>,
}

impl DenyList {
    /// What a file says.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn of(content: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(content).map_err(|_| "this file is not UTF-8 text".to_owned())?;
        Self::parse(text).map_err(|line| {
            format!(
                "line {line} of this file says nothing; write `sub:NAME`, `jti:ID` or `kid:ID`, or a comment that begins with `#`"
            )
        })
    }

    /// Reads one entry a line; empty lines and those that begin with `#` say nothing.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut list = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kind, name) = line.split_once(':').ok_or(number + 1)?;
            let names = match kind.trim() {
                "sub" => &mut list.subjects,
                "jti" => &mut list.tokens,
                "kid" => &mut list.keys,
                _ => return Err(number + 1),
            };
            let name = name.trim();
            if name.is_empty() {
                return Err(number + 1);
            }
            names.insert(name.to_owned());
        }
        Ok(list)
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.subjects.len() + self.tokens.len() + self.keys.len()
    }

    /// Whether nobody is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_a_line() {
        let list = DenyList::parse("# gone\nsub: alice\n\n jti:a:b \nkid:2024\nsub:bob\n").unwrap();
        assert_eq!(list.subjects, HashSet::from(["alice".to_owned(), "bob".to_owned()]));
        assert_eq!(list.tokens, HashSet::from(["a:b".to_owned()]));
        assert_eq!((list.keys.len(), list.len()), (1, 4));
        for (text, line) in [("alice", 1), ("sub:a\nuser:b", 2), ("#\n\nsub:", 3)] {
            assert_eq!(DenyList::parse(text), Err(line), "{text}");
        }
    }
}

//! JSON as its text and an index of it: what is read of a payload is looked up there, and what is sent on unchanged is
//! copied as it stands, so that a number keeps its digits. One pass without recursion and, but for the index, without
//! memory of its own. (A tree of `serde_json` values costs three times as much, and rounds numbers.)
//!
//! Of members with the same name the last one counts. Half a surrogate pair is taken, as by browsers, and reads as U+FFFD.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// How deep lists and mappings may be nested. What is deeper is not taken for JSON: all that walks a value recurses so deep.
pub const DEPTH: usize = 128;

/// How many values and names a text may have: so much of an index is 64 MiB.
const MOST: usize = 4 << 20;

/// A text in JSON (RFC 8259).
#[derive(Debug)]
pub struct Document<'t> {
    text: &'t str,
    /// Values in the order of the text, each member's name before its value.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    start: u32,
    end: u32,
    /// What follows the value and all within it.
    next: u32,
    kind: Kind,
    /// Whether a text holds escapes.
    escaped: bool,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// A mapping.
    Map,
}

/// A value of a document.
#[derive(Debug, Clone, Copy)]
pub struct Json<'d> {
    document: &'d Document<'d>,
    at: u32,
}

impl<'t> Document<'t> {
    /// Reads a text; `None` if it is not JSON, or more of it than is taken.
    pub fn parse(text: &'t str) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let nodes = Vec::with_capacity((text.len() / 8).min(1 << 12));
        let parser = Parser { bytes: text.as_bytes(), at: 0, nodes };
        Some(Self { text, nodes: parser.document()? })
    }

    /// The text.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// The value that it is.
    pub fn root(&self) -> Json<'_> {
        Json { document: self, at: 0 }
    }
}

impl<'d> Json<'d> {
    fn node(self) -> &'d Node {
        &self.document.nodes[self.at as usize]
    }

    fn with(self, at: u32) -> Self {
        Self { at, ..self }
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// As it stands in the text.
    pub fn raw(self) -> &'d str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
    }

    /// What a text says.
    pub fn text(self) -> Option<Cow<'d, str>> {
        let (node, raw) = (self.node(), self.raw());
        let inner = || &raw[1..raw.len() - 1];
        match node.kind {
            Kind::Text if node.escaped => Some(Cow::Owned(unescape(inner()))),
            Kind::Text => Some(Cow::Borrowed(inner())),
            _ => None,
        }
    }

    /// As it is said in a text: what a text says, digits, `true` or `false`; nothing of anything else.
    pub fn said(self) -> Option<Cow<'d, str>> {
        match self.kind() {
            Kind::Text => self.text(),
            Kind::Bool | Kind::Number => Some(Cow::Borrowed(self.raw())),
            Kind::Null | Kind::List | Kind::Map => None,
        }
    }

    /// The member of this name, where it is a mapping that has one.
    pub fn member(self, name: &str) -> Option<Self> {
        self.find(name).0
    }

    /// The same, and about how many nanoseconds it takes to find that.
    pub(super) fn find(self, name: &str) -> (Option<Self>, usize) {
        if self.kind() != Kind::Map {
            return (None, 0);
        }
        let nodes = &self.document.nodes;
        let (mut at, end, mut found, mut took) = (self.at + 1, self.node().next, None, 0);
        while at < end {
            let key = &nodes[at as usize];
            let size = (key.end - key.start) as usize;
            // Most names differ in length.
            let may_be = size == name.len() + 2 || key.escaped;
            took += match (may_be, key.escaped) {
                (false, _) => 2,
                (true, false) => 2 + size / 16,
                // Such a name is written out to be compared.
                (true, true) => 30 + size,
            };
            if may_be && self.with(at).says(name) {
                found = Some(self.with(at + 1));
            }
            at = nodes[at as usize + 1].next;
        }
        (found, took)
    }

    /// Whether it is this text.
    pub fn says(self, text: &str) -> bool {
        let node = self.node();
        let (start, end) = (node.start as usize + 1, node.end as usize - 1);
        match node.kind {
            Kind::Text if node.escaped => unescape(&self.document.text[start..end]) == text,
            Kind::Text => {
                end - start == text.len() && self.document.text.as_bytes()[start..end] == *text.as_bytes()
            }
            _ => false,
        }
    }

    /// How many bytes it has in the text.
    pub fn size(self) -> usize {
        let node = self.node();
        (node.end - node.start) as usize
    }

    /// The names and values of a mapping; none of anything else.
    pub fn members(self) -> impl Iterator<Item = (Self, Self)> {
        let (mut at, end) = (self.at + 1, if self.kind() == Kind::Map { self.node().next } else { 0 });
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (name, value) = (self.with(at), self.with(at + 1));
                at = value.node().next;
                (name, value)
            })
        })
    }

    /// The values of a list; none of anything else.
    pub fn items(self) -> impl Iterator<Item = Self> {
        let (mut at, end) = (self.at + 1, if self.kind() == Kind::List { self.node().next } else { 0 });
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let item = self.with(at);
                at = item.node().next;
                item
            })
        })
    }

    /// What a path of names, and of places in lists, leads to.
    pub fn at<'p>(self, path: impl IntoIterator<Item = &'p str>) -> Option<Self> {
        path.into_iter().try_fold(self, |value, step| match value.kind() {
            Kind::List => value.items().nth(step.parse().ok()?),
            _ => value.member(step),
        })
    }
}

/// Reads a text from its beginning to its end.
struct Parser<'b> {
    bytes: &'b [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Parser<'_> {
    fn document(mut self) -> Option<Vec<Node>> {
        let (mut open, mut depth) = ([0_u32; DEPTH], 0);
        loop {
            self.space();
            let start = self.at;
            match self.take()? {
                bracket @ (b'{' | b'[') => {
                    let (kind, end) = match bracket {
                        b'{' => (Kind::Map, b'}'),
                        _ => (Kind::List, b']'),
                    };
                    *open.get_mut(depth)? = self.nodes.len() as u32;
                    self.push(kind, start, false)?;
                    self.space();
                    if self.peek() == Some(end) {
                        self.at += 1;
                        self.close(open[depth]);
                    } else {
                        depth += 1;
                        if kind == Kind::Map {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b'"' => self.text(start)?,
                b'-' | b'0'..=b'9' => self.number(start)?,
                b't' => self.word(start, b"true", Kind::Bool)?,
                b'f' => self.word(start, b"false", Kind::Bool)?,
                b'n' => self.word(start, b"null", Kind::Null)?,
                _ => return None,
            }
            // A value has ended, and with it those that it is the last of.
            loop {
                self.space();
                if depth == 0 {
                    return (self.at == self.bytes.len()).then_some(self.nodes);
                }
                let parent = open[depth - 1];
                match (self.take()?, self.nodes[parent as usize].kind) {
                    (b',', Kind::Map) => {
                        self.space();
                        self.name()?;
                        break;
                    }
                    (b',', _) => break,
                    (b'}', Kind::Map) | (b']', Kind::List) => {
                        self.close(parent);
                        depth -= 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes in a value that ends here, as far as is known.
    fn push(&mut self, kind: Kind, start: usize, escaped: bool) -> Option<()> {
        let next = self.nodes.len() + 1;
        self.nodes.push(Node { start: start as u32, end: self.at as u32, next: next as u32, kind, escaped });
        (next <= MOST).then_some(())
    }

    fn close(&mut self, at: u32) {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[at as usize];
        (node.end, node.next) = (self.at as u32, next);
    }

    /// The name of a member, and the colon after it.
    fn name(&mut self) -> Option<()> {
        let start = self.at;
        (self.take()? == b'"').then_some(())?;
        self.text(start)?;
        self.space();
        (self.take()? == b':').then_some(())
    }

    /// The rest of a text.
    fn text(&mut self, start: usize) -> Option<()> {
        let mut escaped = false;
        loop {
            let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
            self.at += self.bytes[self.at..].iter().take_while(|byte| plain(byte)).count();
            match self.take()? {
                b'"' => return self.push(Kind::Text, start, escaped),
                b'\\' => {
                    escaped = true;
                    match self.take()? {
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 4;
                        }
                        byte => b"\"\\/bfnrt".contains(&byte).then_some(())?,
                    }
                }
                _ => return None,
            }
        }
    }

    /// The rest of a number.
    fn number(&mut self, start: usize) -> Option<()> {
        self.at = start + usize::from(self.bytes[start] == b'-');
        match self.take()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        self.push(Kind::Number, start, false)
    }

    fn some_digits(&mut self) -> Option<()> {
        self.take()?.is_ascii_digit().then_some(())?;
        self.digits();
        Some(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, start: usize, word: &[u8], kind: Kind) -> Option<()> {
        self.bytes[start..].starts_with(word).then_some(())?;
        self.at = start + word.len();
        self.push(kind, start, false)
    }
}

/// A text whose escapes are known to be sound.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let (escape, after) = (rest.as_bytes()[at + 1], &rest[at + 2..]);
        rest = after;
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (c, length) = unit(after);
                rest = &after[length..];
                c
            }
            other => char::from(other),
        });
    }
    text.push_str(rest);
    text
}

/// The character of the four digits after a `\u`, or of these and the other half of a pair, and how long they are.
fn unit(digits: &str) -> (char, usize) {
    let code = |digits: &str| u32::from_str_radix(digits.get(..4)?, 16).ok();
    let Some(first) = code(digits) else { return (char::REPLACEMENT_CHARACTER, 0) };
    let second = || code(digits.get(4..)?.strip_prefix("\\u")?).filter(|low| (0xdc00..0xe000).contains(low));
    if (0xd800..0xdc00).contains(&first)
        && let Some(second) = second()
    {
        let c = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        return (c.unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

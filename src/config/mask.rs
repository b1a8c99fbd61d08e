//! What a snippet or a message must not show: passwords in URLs, and the values of keys that name a
//! secret. Works on the text, and on the tree where there is one; used when problems are drawn, and
//! by whatever quotes a value. It covers too much rather than too little.

use std::sync::LazyLock;

use regex::Regex;

use super::endpoint::{Endpoint, Names};
use super::kafka;
use super::place::{Span, Text};
use super::tree::{Node, Value};

/// The stretches of a text that are never shown.
#[derive(Debug, Default)]
pub(super) struct Masks(Vec<Span>);

impl Masks {
    /// Finds them; `root` is missing where the text is not YAML.
    pub fn of(text: &Text<'_>, root: Option<&Node>) -> Self {
        let mut masks = Self::default();
        match root {
            Some(root) => masks.add_tree(text, root, false),
            None => masks.add_continued(text),
        }
        for line in 1..=text.lines() {
            masks.add_line(text, text.line(line));
        }
        masks.merged()
    }

    /// The mask that hides the byte at `at`.
    pub fn covering(&self, at: usize) -> Option<Span> {
        let before = self.0.partition_point(|span| span.start <= at);
        self.0[..before].last().copied().filter(|span| at < span.end)
    }

    /// Whether some of `span` is hidden.
    pub fn touch(&self, span: Span) -> bool {
        let before = self.0.partition_point(|mask| mask.start < span.end);
        self.0[..before].last().is_some_and(|mask| mask.end > span.start)
    }

    /// In order, and without overlaps.
    fn merged(mut self) -> Self {
        self.0.sort();
        self.0.dedup_by(|next, span| {
            let overlaps = next.start <= span.end;
            if overlaps {
                span.end = span.end.max(next.end);
            }
            overlaps
        });
        self
    }

    fn add(&mut self, text: &Text<'_>, span: Span) {
        if !is_reference(text.slice(span)) {
            self.0.push(span);
        }
    }

    /// Values as YAML sees them, of however many lines.
    fn add_tree(&mut self, text: &Text<'_>, node: &Node, secret: bool) {
        match &node.value {
            Value::Scalar { text: value, .. } if secret || value.contains(PEM) => self.add(text, node.span),
            Value::List(items) => items.iter().for_each(|item| self.add_tree(text, item, secret)),
            Value::Map(entries) => {
                for entry in entries {
                    let key = entry.key.text.as_str();
                    let odd_url = is_url_key(key) && !shows_safely(&entry.value);
                    // Of header fields any may be one.
                    let fields = key == "headers" && matches!(entry.value.value, Value::Map(_));
                    self.add_tree(text, &entry.value, secret || odd_url || fields || names_secret(key));
                    if key == "properties" {
                        self.add_misspelt(text, &entry.value);
                    }
                }
            }
            Value::Broken if secret => self.add(text, node.span),
            Value::Scalar { .. } | Value::Null | Value::Broken => {}
        }
    }

    /// Values of properties that librdkafka does not have: their names may be misspelt names of secrets.
    fn add_misspelt(&mut self, text: &Text<'_>, properties: &Node) {
        let Value::Map(entries) = &properties.value else { return };
        for entry in entries.iter().filter(|entry| !kafka::is_known(&entry.key.text)) {
            self.add_tree(text, &entry.value, true);
        }
    }

    /// What can be seen in one line without YAML's help: comments and text that does not parse.
    fn add_line(&mut self, text: &Text<'_>, line: Span) {
        let content = text.slice(line);
        for found in USERINFO.captures_iter(content).filter_map(|found| found.name("secret")) {
            self.add(text, Span::new(line.start + found.start(), line.start + found.end()));
        }
        for found in SECRET_KEY.find_iter(content) {
            let value = value_after(content, found.end());
            self.add(text, Span::new(line.start + value.start, line.start + value.end));
        }
    }

    /// Lines of PEM, and lines below a key that names a secret and to which they seem to belong.
    fn add_continued(&mut self, text: &Text<'_>) {
        let (mut pem, mut under) = (false, None);
        for line in (1..=text.lines()).map(|line| text.line(line)) {
            let content = text.slice(line);
            let indent = content.len() - content.trim_start().len();
            under = under.filter(|under: &Under| under.covers(indent, content));
            pem |= content.contains(PEM);
            if pem || under.is_some() {
                self.0.push(Span::new(line.start + indent, line.end));
                pem &= !content.contains(PEM_END);
                under = under.filter(|under| under.quote.is_none_or(|quote| !content.contains(quote)));
            } else if let Some(found) = SECRET_KEY.find(content).or_else(|| URL_KEY.find(content)) {
                under = Some(Under { indent, quote: open_quote(content[found.end()..].trim_start()) });
            }
        }
    }
}

/// A key whose value may go on in the next lines.
struct Under {
    indent: usize,
    /// The quote that its value has opened.
    quote: Option<char>,
}

impl Under {
    fn covers(&self, indent: usize, line: &str) -> bool {
        self.quote.is_some() || line.trim().is_empty() || indent > self.indent
    }
}

/// What every section of PEM begins with.
pub(super) const PEM: &str = "-----BEGIN";
const PEM_END: &str = "-----END";

/// A value that came from the file, fit to be quoted in a message: short, on one line, no secret.
pub(super) fn quotable(value: &str) -> String {
    let hidden =
        USERINFO.replace_all(value, |found: &regex::Captures<'_>| format!("{}***@", &found["scheme"]));
    let key = SECRET_KEY.find(&hidden).map(|found| found.end());
    let safe = &hidden[..key.or(hidden.find(PEM)).unwrap_or(hidden.len())];
    let cut = safe.len() < hidden.len() || safe.chars().count() > QUOTED;
    let shown: String =
        safe.chars().take(QUOTED).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("`{shown}{}`", if cut { "…" } else { "" })
}

/// Longer values are cut in messages.
const QUOTED: usize = 60;

/// Whether the value of a key of this name is likely a secret.
pub(super) fn names_secret(key: &str) -> bool {
    SECRET_WORD.is_match(key)
}

/// Keys that hold the URL of a Redis server or a list of them, or may by mistake.
fn is_url_key(key: &str) -> bool {
    matches!(key, "url" | "sentinels" | "redis")
}

/// A URL whose secrets are where [`USERINFO`] looks for them.
fn shows_safely(node: &Node) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => Endpoint::parse(text, Names::Server).is_ok() || is_reference(text),
        // What a mapping holds is looked at by itself.
        Value::Map(_) => true,
        _ => false,
    }
}

/// A reference to a secret is none itself: `${NAME}`, `:${NAME}@`, `file:PATH`. A URL is no path, and may hold one.
fn is_reference(text: &str) -> bool {
    let bare = text.trim().trim_matches(['"', '\'']);
    bare.strip_prefix("file:").is_some_and(|path| !path.contains("://")) || REFERENCE.is_match(bare)
}

/// The value that follows a key's colon: up to a flow delimiter when a brace is open, and outside of
/// its quotes; else to the end of the line.
fn value_after(line: &str, from: usize) -> std::ops::Range<usize> {
    let rest = &line[from..];
    let start = from + (rest.len() - rest.trim_start().len());
    let value = &line[start..];
    let in_flow = line[..from].contains('{');
    let length = match value.chars().next() {
        _ if !in_flow => value.len(),
        Some(quote @ ('"' | '\'')) => closing(value, quote),
        _ => value.find([',', '}']).unwrap_or(value.len()),
    };
    start..start + length
}

/// One past the quote that ends a value: what follows it can only be a delimiter.
fn closing(value: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        let ends = c == quote && !escaped && value[at + 1..].trim_start().starts_with([',', '}']);
        if ends {
            return at + 1;
        }
        escaped = c == '\\' && quote == '"' && !escaped;
    }
    value.len()
}

/// The quote that a value opens and does not close.
fn open_quote(value: &str) -> Option<char> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    (!value[1..].contains(quote)).then_some(quote)
}

/// A pattern, compiled when it is first needed.
macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($pattern).expect("a constant, compiled by the tests"));
    };
}

pattern!(USERINFO, r#"(?P<scheme>(?:[A-Za-z][A-Za-z0-9+.-]*://)?)(?P<secret>[^\s"'{}\[\],]*:[^\s"']*)@"#);
pattern!(
    SECRET_WORD,
    r"(?i)pas+w|pass?phrase|pwd|secret|token|nkey|authorization|jaas|private.?key|key\.pem|ssl_key|bearer"
);
pattern!(
    SECRET_KEY,
    r#"(?i)[\w.\-]*(?:pas+w|pass?phrase|pwd|secret|token|nkey|authorization|jaas|private.?key|key\.pem|ssl_key|bearer)[\w.\-]*["']?\s*[:=]"#
);
pattern!(URL_KEY, r#"(?i)\b(?:url|sentinels)["']?\s*:"#);
pattern!(REFERENCE, r"^[A-Za-z0-9_.-]*:?\$\{[A-Za-z_][A-Za-z0-9_]*\}@?$");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    /// The text as a snippet of it would show, with or without a tree.
    fn masked(content: &str, with_tree: bool) -> String {
        let text = Text::new(content);
        let root = with_tree.then(|| tree::parse(content, &mut |problem| panic!("{problem:?}")).unwrap());
        let masks = Masks::of(&text, root.as_ref());
        let mut until = 0;
        content
            .char_indices()
            .filter_map(|(at, c)| {
                if at < until {
                    return None;
                }
                let mask = masks.covering(at);
                until = mask.map_or(until, |mask| mask.end);
                Some(if mask.is_some() { '#' } else { c })
            })
            .collect()
    }

    #[test]
    fn secrets_of_one_line() {
        for (content, shown) in [
            ("url: redis://u:pss@h:1/0", "url: redis://#@h:1/0"),
            ("a: b # redis://u:p@ss@h:1/0", "a: b # redis://#@h:1/0"),
            ("url: redis://:${PASS}@h:1/0", "url: redis://:${PASS}@h:1/0"),
            ("url: redis://:x${PASS}@h:1/0", "url: redis://#@h:1/0"),
            ("sasl.password: hunter2, etc", "sasl.password: #"),
            ("sasl.password: ${PASS}", "sasl.password: ${PASS}"),
            ("sasl.password: file:/run/x", "sasl.password: file:/run/x"),
            ("p: { sasl.password: hunter2, b: c }", "p: { sasl.password: #, b: c }"),
            ("p: { \"sasl.password\": 'hun,ter2', b: c }", "p: { \"sasl.password\": #, b: c }"),
            ("p: { \"sasl.password\": \"hun\\\"ter, \", b: c }", "p: { \"sasl.password\": #, b: c }"),
            ("p: { sasl.password: 'hun''ter', b: c }", "p: { sasl.password: #, b: c }"),
            ("brokers: [ u:pw@h:1, b ]", "brokers: [ #@h:1, b ]"),
            ("a: b # ssl.key.pem: MIIE", "a: b # ssl.key.pem: #"),
            ("a: b # see https://x:y@z", "a: b # see https://#@z"),
            ("tls: { cert: a, key: b }", "tls: { cert: a, key: b }"),
        ] {
            assert_eq!(masked(content, false), shown, "without a tree");
            assert_eq!(masked(content, true), shown, "with a tree");
        }
    }

    #[test]
    fn secrets_of_several_lines() {
        let block = "p:\n  ssl.key.pem: |\n    MIIE\n    FOO\n  b: c\n";
        for tree in [true, false] {
            let shown = masked(block, tree);
            assert!(!shown.contains("MIIE") && !shown.contains("FOO") && shown.contains("b: c"), "{shown}");
        }
        let quoted = "sasl.password: \"hun\nter2\"\nb: c\n";
        for tree in [true, false] {
            let shown = masked(quoted, tree);
            assert!(!shown.contains("hun") && !shown.contains("ter2") && shown.contains("b: c"), "{shown}");
        }
        assert_eq!(masked("sasl.password:\n  hunter2\nb: c", false), "sasl.password:\n  #\nb: c");
    }

    #[test]
    fn keys_of_certificates() {
        let pem = "a:\n  key: |\n    -----BEGIN PRIVATE KEY-----\n    MIIE\n    -----END PRIVATE KEY-----\n  b: c\n";
        for tree in [true, false] {
            let shown = masked(pem, tree);
            assert!(!shown.contains("MIIE") && shown.contains("b: c"), "{shown}");
        }
        assert_eq!(quotable("x-----BEGIN PRIVATE KEY-----MIIE"), "`x…`");
    }

    #[test]
    fn a_url_that_makes_no_sense_is_hidden_whole() {
        for content in [
            "url: redis:/:hunter2@h",
            "url: ':hunter2@h'",
            "url: redis://u:hunter2",
            "url: [redis://hunter2]",
            "sentinels: [redis://s1, redis:/:hunter2@s2]",
        ] {
            let shown = masked(content, true);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn quoted_values_are_short_and_safe() {
        assert_eq!(quotable("abc"), "`abc`");
        assert_eq!(quotable("a\nb"), "`a\u{fffd}b`");
        assert_eq!(quotable("redis://u:p@h"), "`redis://***@h`");
        assert_eq!(quotable("u:p@h"), "`***@h`");
        assert_eq!(quotable("redis:/:hunter2@h"), "`***@h`");
        assert_eq!(quotable("__keyspace@0__:*"), "`__keyspace@0__:*`");
        assert_eq!(quotable("sasl.password:hunter2"), "`sasl.password:…`");
        assert_eq!(quotable(&"é".repeat(100)).chars().count(), 63);
    }
}

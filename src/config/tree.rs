//! YAML text into a tree that keeps where everything stands, duplicate keys included. Knows nothing
//! of what the configuration means. Called by [`super::parse`].
//!
//! Bounded in depth and in what aliases expand to; the size is bounded by the caller.

use std::collections::HashMap;

use serde_yaml::granit_parser::{
    Event, Parser, ScalarStyle, ScanError, Span as YamlSpan, StructureStyle, options,
};

use super::place::Span;
use super::problem::Problem;
use super::syntax;

/// A value and where it stands. A block collection stands at its first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub span: Span,
    pub value: Value,
}

/// What a value is. Scalars are text: what they mean is decided where they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, and whether it stands without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something about which a problem has been reported; readers pass it over in silence.
    Broken,
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: Key,
    pub value: Node,
}

/// The text of a key and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub span: Span,
    pub text: String,
}

/// No configuration is nested deeper than this, block and flow counted apart.
pub(super) const DEPTH: usize = 32;

/// How many values anchors and aliases may add.
const EXPANSION: usize = 100_000;

/// Parses `text`, telling `report` every problem; `None` where there is no tree to walk.
pub(super) fn parse(text: &str, report: &mut dyn FnMut(Problem)) -> Option<Node> {
    let options = options! {
        emit_comments: false,
        emit_anchor_events: true,
        emit_unresolved_aliases: true,
        disallow_directives: true,
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    let mut builder =
        Builder { text, report, stack: Vec::new(), root: None, anchors: HashMap::new(), budget: EXPANSION };
    for next in Parser::new_from_str_with_options(text, options) {
        let more = match next {
            Ok((event, span)) => builder.event(&event, span),
            Err(error) => {
                builder.syntax(&error);
                return None;
            }
        };
        if !more {
            break;
        }
    }
    builder.root
}

/// A collection that has begun.
enum Frame {
    List { span: Span, anchor: usize, items: Vec<Node> },
    Map { span: Span, anchor: usize, entries: Vec<Entry>, key: Pending },
}

/// The key of a mapping whose value comes next.
enum Pending {
    No,
    Key(Key),
    /// A key that cannot be one; reported, its value is dropped.
    Bad,
}

struct Builder<'t, 'r> {
    text: &'t str,
    report: &'r mut dyn FnMut(Problem),
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    budget: usize,
}

impl Builder<'_, '_> {
    /// Takes one event; false ends the parse.
    fn event(&mut self, event: &Event<'_>, yaml: YamlSpan) -> bool {
        let span = self.span(yaml);
        if let Some(tag) = yaml.tag_span() {
            let tag = self.span(tag);
            self.problem(tag, "a YAML tag has no meaning here; remove it".to_owned());
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.problem(
                    span,
                    "a second YAML document begins here; keep one document in the file".to_owned(),
                );
                return false;
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = scalar(text, *style, span);
                self.place(Node { span, value }, *anchor);
            }
            Event::SequenceStart(style, anchor, _) => {
                let span = opening(span, *style);
                self.stack.push(Frame::List { span, anchor: *anchor, items: Vec::new() });
            }
            Event::MappingStart(style, anchor, _) => {
                let span = opening(span, *style);
                self.stack.push(Frame::Map { span, anchor: *anchor, entries: Vec::new(), key: Pending::No });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(id) => self.alias(*id, span),
            Event::UnresolvedAlias(_) => {
                // Not quoted: it may be a password that begins with `*`.
                self.problem(
                    span,
                    "no anchor has the name of this alias; put text that begins with `*` in quotes"
                        .to_owned(),
                );
                self.place(Node { span, value: Value::Broken }, 0);
            }
            _ => {}
        }
        true
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node, anchor: usize) {
        if anchor != 0 && self.afford(&node) {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, .. }) => match std::mem::replace(key, Pending::No) {
                Pending::Key(key) => entries.push(Entry { key, value: node }),
                Pending::Bad => {}
                Pending::No => {
                    let (next, bad) = as_key(node);
                    *key = next;
                    if let Some(span) = bad {
                        self.problem(
                            span,
                            "a key must be plain text; put values that begin with `{` or `[` in quotes"
                                .to_owned(),
                        );
                    }
                }
            },
        }
    }

    fn close(&mut self, end: Span) {
        let (opened, anchor, value) = match self.stack.pop() {
            Some(Frame::List { span, anchor, items }) => (span, anchor, Value::List(items)),
            Some(Frame::Map { span, anchor, entries, .. }) => (span, anchor, Value::Map(entries)),
            None => return,
        };
        let first = match &value {
            Value::List(items) => items.first().map(|item| item.span),
            Value::Map(entries) => entries.first().map(|entry| entry.key.span),
            _ => None,
        };
        // A block collection has no brackets to mark: its opening is empty.
        let span = if opened.start < opened.end {
            Span::new(opened.start, end.end)
        } else {
            first.unwrap_or(opened)
        };
        self.place(Node { span, value }, anchor);
    }

    fn alias(&mut self, id: usize, span: Span) {
        let value = match self.anchors.get(&id).cloned() {
            Some(node) if self.afford(&node) => node.value,
            Some(_) => Value::Broken,
            None => {
                if self.budget > 0 {
                    self.problem(span, "this alias stands inside what it refers to; remove it".to_owned());
                }
                Value::Broken
            }
        };
        self.place(Node { span, value }, 0);
    }

    /// Whether a copy of `node` may be made; the refusal is reported once.
    fn afford(&mut self, node: &Node) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget = self.budget.saturating_sub(node.count());
        if self.budget == 0 {
            self.problem(
                node.span,
                format!("anchors and aliases expand to more than {EXPANSION} values; write them out"),
            );
        }
        self.budget > 0
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = error.marker().byte_offset().unwrap_or(self.text.len());
        let after = self.text.get(at..).unwrap_or_default();
        let end = at + after.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        let text = syntax::explain(error.kind(), self.text, at);
        self.problem(Span::new(at, end), text);
    }

    fn span(&self, span: YamlSpan) -> Span {
        let start = span.start.byte_offset().unwrap_or(self.text.len());
        Span::new(start, span.end.byte_offset().unwrap_or(start))
    }

    fn problem(&mut self, span: Span, text: String) {
        (self.report)(Problem { at: Some(span), text, also: None });
    }
}

impl Node {
    /// The value of a key, where this is a mapping that has it.
    pub fn child(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
    }

    /// How many values it holds, itself included.
    fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
            _ => 0,
        }
    }
}

/// An empty span for block style, where the parser's may cover something.
fn opening(span: Span, style: StructureStyle) -> Span {
    if style == StructureStyle::Flow { span } else { Span::new(span.start, span.start) }
}

fn scalar(text: &str, style: ScalarStyle, span: Span) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && (span.start == span.end || matches!(text, "" | "~" | "null" | "Null" | "NULL")) {
        return Value::Null;
    }
    Value::Scalar { text: text.to_owned(), plain }
}

/// What a mapping makes of a value in the place of a key, and where it stands if it cannot be one.
fn as_key(node: Node) -> (Pending, Option<Span>) {
    match node.value {
        Value::Scalar { text, .. } => (Pending::Key(Key { span: node.span, text }), None),
        Value::Null => (Pending::Key(Key { span: node.span, text: String::new() }), None),
        Value::Broken => (Pending::Bad, None),
        Value::List(_) | Value::Map(_) => (Pending::Bad, Some(node.span)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        parse(text, &mut |p| found.push((p.at.map_or(0, |span| span.start), p.text)));
        found
    }

    fn one(text: &str) -> (usize, String) {
        let mut found = problems(text);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn tree(text: &str) -> Node {
        parse(text, &mut |problem| panic!("{problem:?}")).unwrap()
    }

    fn entries(node: &Node) -> &[Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spans_and_duplicate_keys_are_kept() {
        let text = "a: 1\na: {b: 'x', c: [y]}\nd:\n  - é: |\n      f\n";
        let root = tree(text);
        let keys: Vec<(&str, usize)> =
            entries(&root).iter().map(|e| (e.key.text.as_str(), e.key.span.start)).collect();
        assert_eq!(keys, [("a", 0), ("a", 5), ("d", 25)]);
        let flow = entries(&root)[1].value.span;
        assert_eq!(&text[flow.start..flow.end], "{b: 'x', c: [y]}");
        let block = entries(&root)[2].value.span;
        assert_eq!(&text[block.start..block.end], "é");
        assert_eq!(root.span, Span::new(0, 1));
    }

    #[test]
    fn scalars_keep_their_text() {
        let root = tree("a: 010\nb: 'true'\nc:\nd: ~\ne: ''\n");
        let values: Vec<&Value> = entries(&root).iter().map(|e| &e.value.value).collect();
        let text = |text: &str, plain| Value::Scalar { text: text.into(), plain };
        assert_eq!(
            values,
            [&text("010", true), &text("true", false), &Value::Null, &Value::Null, &text("", false)]
        );
    }

    #[test]
    fn aliases_are_copies_that_stand_where_they_are_used() {
        let text = "a: &x {k: v}\nb: *x\n";
        let root = tree(text);
        assert_eq!(entries(&root)[0].value.value, entries(&root)[1].value.value);
        assert_eq!(entries(&root)[1].value.span, Span::new(16, 18));
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        assert!(one(&text).1.contains("expand to more than 100000 values"));
        assert!(one("a: &a [*a]").1.contains("stands inside what it refers to"));
    }

    #[test]
    fn what_is_not_yaml_is_one_problem() {
        assert_eq!(one("a: 1\nb: c: d\n").0, 9);
        assert!(one("a: {b: /x/{c}}\nd: [").1.starts_with("expected `,` or `}` here; put a value"));
        assert!(one("a:\n\tb: c\n").1.ends_with("indent with spaces"));
        assert!(one("a: 'b").1.contains("this quote is not closed"));
        assert!(one("a: {b: [c]").1.contains("this `{` is not closed"));
        assert!(one("a: *\n").1.contains("begins with `*` or `&` in quotes"));
        assert!(one("a: 1\n b: 2\nc").1.starts_with("this"));
        assert!(one("a: {b: [::]:80}").1.ends_with("put an address such as `\"[::]:8443\"` in quotes"));
        assert!(one("a:\n  - b\n c: d\n").1.contains("align it"));
    }

    #[test]
    fn depth_is_bounded_quickly() {
        for open in ["[", "{a: ", "- ", "? "] {
            let begun = std::time::Instant::now();
            assert!(one(&open.repeat(100_000)).1.contains("nested deeper than 32 levels"), "{open}");
            assert!(begun.elapsed().as_secs() < 2, "{open}");
        }
    }

    #[test]
    fn what_yaml_allows_and_a_configuration_has_no_use_for() {
        assert_eq!(one("a: 1\n---\nb: 2\n").0, 5);
        assert_eq!(one("a: !!str b\n"), (3, "a YAML tag has no meaning here; remove it".into()));
        assert!(one("a: *:8443\n").1.contains("put text that begins with `*` in quotes"));
        assert!(one("[a]: b\n").1.starts_with("a key must be plain text"));
        assert!(one("%YAML 1.2\n---\na: b\n").1.contains("directive"));
        assert_eq!(parse("", &mut |_| panic!()), None);
        assert_eq!(parse("# only this\n", &mut |_| panic!()), None);
    }
}

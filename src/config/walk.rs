//! Walking the tree: what every section's reader uses to take values out of it. Owns the list of
//! problems and how a scalar becomes text; the sections know what their keys mean.
//!
//! A value with a problem is reported and read as absent, so that the walk goes on and finds the
//! rest. What it yields is only handed out when nothing was reported.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::interpolate;
use super::mask::{self, Masks};
use super::model::WatchedFile;
use super::place::{Span, Text};
use super::problem::Problem;
use super::tree::{Entry, Node, Value};

/// What the readers share.
pub(super) struct Walk<'w> {
    text: &'w Text<'w>,
    masks: &'w Masks,
    env: &'w dyn Fn(&str) -> Option<String>,
    folder: PathBuf,
    problems: RefCell<Vec<Problem>>,
}

/// A scalar with its variables filled in.
#[derive(Debug)]
pub(super) struct Scalar<'n> {
    /// What it says.
    pub text: Cow<'n, str>,
    /// Whether it stands without quotes and is written in the file itself.
    pub plain: bool,
    raw: &'n str,
    span: Span,
}

impl<'w> Walk<'w> {
    /// Begins a walk; `masks` covers the secrets of `text`, and relative paths in values start at `folder`.
    pub fn new(
        text: &'w Text<'w>,
        masks: &'w Masks,
        env: &'w dyn Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Self {
        Self { text, masks, env, folder: folder.to_owned(), problems: RefCell::new(Vec::new()) }
    }

    /// Everything that was reported.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// Reports a problem at a place.
    pub fn problem(&self, at: Span, text: impl Into<String>) {
        self.report(Problem { at: Some(at), text: text.into(), also: None });
    }

    /// Reports a problem that has to do with another place, too.
    pub fn conflict(&self, at: Span, text: impl Into<String>, other: Span, label: &str) {
        self.report(Problem { at: Some(at), text: text.into(), also: Some((other, label.to_owned())) });
    }

    /// Reports a problem made elsewhere.
    pub fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The entries of a mapping, the first of each key; others are reported.
    pub fn entries<'n>(&self, node: &'n Node, expected: &str) -> Option<Vec<&'n Entry>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, expected);
            return None;
        };
        let mut seen: HashMap<&str, Span> = HashMap::new();
        let mut first = Vec::new();
        for entry in entries {
            let key = &entry.key;
            if let Some(earlier) = seen.get(key.text.as_str()) {
                let text =
                    format!("the key {} is written twice; keep one of them", mask::quotable(&key.text));
                self.conflict(key.span, text, *earlier, "first written here");
            } else {
                seen.insert(&key.text, key.span);
                first.push(entry);
            }
        }
        Some(first)
    }

    /// The values of a list, or a lone scalar as a list of one.
    pub fn one_or_more<'n>(&self, node: &'n Node, expected: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.problem(node.span, format!("this list is empty; it needs {expected}"));
                None
            }
            Value::List(items) => Some(items),
            Value::Scalar { .. } => Some(std::slice::from_ref(node)),
            _ => {
                self.wrong_type(node, &format!("{expected}, or a list of them"));
                None
            }
        }
    }

    /// A scalar with its variables filled in and its `file:` read.
    pub fn scalar<'n>(&self, node: &'n Node, expected: &str) -> Option<Scalar<'n>> {
        let scalar = self.expanded(node, expected)?;
        if interpolate::file_of(scalar.raw).is_none() {
            return Some(scalar);
        }
        let content = self.read(&scalar, interpolate::file_of(&scalar.text)?)?;
        match String::from_utf8(content) {
            Ok(content) => {
                Some(Scalar { text: Cow::Owned(interpolate::without_line_end(content)), ..scalar })
            }
            Err(_) => {
                self.problem(
                    scalar.span,
                    "this file is not UTF-8 text, which the value of a setting must be",
                );
                None
            }
        }
    }

    /// The content of a file whose path is the value.
    pub fn file(&self, node: &Node, expected: &str) -> Option<Vec<u8>> {
        let (scalar, _) = self.path(node, expected)?;
        self.read(&scalar, &scalar.text)
    }

    /// The same, of a file that is read again when it changes.
    pub fn watched(&self, node: &Node, expected: &str) -> Option<(WatchedFile, Vec<u8>)> {
        let (scalar, path) = self.path(node, expected)?;
        let content = self.read(&scalar, &scalar.text)?;
        Some((WatchedFile { path, name: scalar.raw.into() }, content))
    }

    /// The path that is the value, as it stands and from the configuration file's folder on; `file:` has no meaning
    /// in it.
    pub fn path<'n>(&self, node: &'n Node, expected: &str) -> Option<(Scalar<'n>, PathBuf)> {
        let scalar = self.expanded(node, expected)?;
        if interpolate::file_of(scalar.raw).is_some() {
            self.problem(scalar.span, "this is the path of a file already; remove `file:`");
            return None;
        }
        if scalar.text.is_empty() || scalar.text.contains(mask::PEM) {
            self.problem(scalar.span, format!("this is not a path; write {expected}"));
            return None;
        }
        let path = self.folder.join(&*scalar.text);
        Some((scalar, path))
    }

    fn read(&self, scalar: &Scalar<'_>, path: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(path);
        let content = interpolate::read_bounded(&path);
        content.map_err(|why| self.unreadable(scalar, &path, &why)).ok()
    }

    /// Reports that the file at `path`, named by `scalar`, cannot be read.
    pub fn unreadable(&self, scalar: &Scalar<'_>, path: &Path, why: &str) {
        // What a variable holds is a secret perhaps, even where a path is meant; and so is what a URL holds.
        let shown = if scalar.raw.contains("${") || scalar.raw.contains("://") {
            mask::quotable(scalar.raw)
        } else {
            format!("`{}`", path.display())
        };
        self.problem(scalar.span, format!("cannot read {shown}: {why}"));
    }

    /// Text in the sense of YAML: `true` and `false` must be quoted to be text.
    pub fn text<'n>(&self, node: &'n Node, expected: &str) -> Option<Scalar<'n>> {
        if let Some(bracket) = self.bracket(node) {
            let found = self.found(node).unwrap_or_default();
            let text = format!(
                "expected {expected}, found {found}; text that begins with `{bracket}` goes in quotes"
            );
            self.problem(node.span, text);
            return None;
        }
        let scalar = self.scalar(node, expected)?;
        if scalar.plain && matches!(&*scalar.text, "true" | "false") {
            self.problem(
                scalar.span,
                format!("expected {expected}, found `{}`; put it in quotes if it is text", scalar.text),
            );
            return None;
        }
        Some(scalar)
    }

    /// What a collection in flow style begins with.
    fn bracket(&self, node: &Node) -> Option<char> {
        let first = self.text.slice(node.span).chars().next();
        first.filter(|c| matches!((c, &node.value), ('{', Value::Map(_)) | ('[', Value::List(_))))
    }

    /// Reports that something else than `expected` is there.
    pub fn wrong_type(&self, node: &Node, expected: &str) {
        self.wrong_type_but(node, expected, "");
    }

    /// The same, with what is to be said of the right one.
    pub fn wrong_type_but(&self, node: &Node, expected: &str, more: &str) {
        if let Some(found) = self.found(node) {
            self.problem(node.span, format!("expected {expected}, found {found}{more}"));
        }
    }

    /// The part of a scalar that begins `at` bytes in; the whole where the file says it differently.
    pub fn part(&self, scalar: &Scalar<'_>, at: usize, len: usize) -> Span {
        let source = self.text.slice(scalar.span);
        if scalar.text != scalar.raw {
            return scalar.span;
        }
        let begin = if source == scalar.raw {
            Some(at)
        } else if source.get(1..source.len().saturating_sub(1)) == Some(scalar.raw) {
            Some(at + 1)
        } else {
            in_block(source, scalar.raw, at)
        };
        let Some(begin) = begin.map(|begin| scalar.span.start + begin) else { return scalar.span };
        Span::new(begin, (begin + len).min(scalar.span.end))
    }

    /// A scalar with its variables filled in.
    fn expanded<'n>(&self, node: &'n Node, expected: &str) -> Option<Scalar<'n>> {
        let Value::Scalar { text: raw, plain } = &node.value else {
            self.wrong_type(node, expected);
            return None;
        };
        let unread = Scalar { text: Cow::Borrowed(raw), plain: false, raw, span: node.span };
        match interpolate::expand(raw, self.env) {
            Ok(text) => {
                let plain = *plain && !interpolate::is_indirect(raw);
                Some(Scalar { text, plain, ..unread })
            }
            Err(faults) => {
                for fault in faults {
                    self.problem(self.part(&unread, fault.at, fault.len), fault.what);
                }
                None
            }
        }
    }

    /// Whether a value is likely a secret, or holds one. Where keys may have any name, one may have got there by mistake.
    pub fn is_masked(&self, node: &Node) -> bool {
        self.masks.touch(node.span)
    }

    /// What a message calls a value; nothing where a problem has been reported already.
    fn found(&self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Null => Some("nothing".to_owned()),
            Value::Scalar { .. } if self.is_masked(node) => Some("a value".to_owned()),
            Value::Scalar { text, .. } => Some(mask::quotable(text)),
            Value::List(_) => Some("a list".to_owned()),
            Value::Map(_) => Some("a mapping".to_owned()),
            Value::Broken => None,
        }
    }
}

/// Where `at` of a text of several lines stands in a block whose lines are indented.
fn in_block(source: &str, raw: &str, mut at: usize) -> Option<usize> {
    let mut begin = 0;
    for (line, text) in source.split_inclusive('\n').zip(raw.split_inclusive('\n')) {
        let indent = line.strip_suffix(text).or_else(|| line.strip_suffix(text.trim_end()))?.len();
        if at < text.len() {
            return Some(begin + indent + at);
        }
        (at, begin) = (at - text.len(), begin + line.len());
    }
    None
}

impl Scalar<'_> {
    /// Where it stands.
    pub fn span(&self) -> Span {
        self.span
    }

    /// As it stands in the file.
    pub fn raw(&self) -> &str {
        self.raw
    }

    /// How a message names it: quoted where the file itself says it, never what came from elsewhere.
    pub fn shown(&self) -> String {
        if self.is_indirect() { "this value".to_owned() } else { mask::quotable(&self.text) }
    }

    /// Whether some of it came from the environment or from another file.
    pub fn is_indirect(&self) -> bool {
        interpolate::is_indirect(self.raw)
    }
}

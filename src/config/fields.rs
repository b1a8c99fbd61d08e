//! The fields of one section: a mapping whose keys are known. Reports unknown, missing and empty
//! ones, and reads durations, sizes, counts, ratios, flags and choices within their bounds.

use std::time::Duration;

use super::keys::{Section, Shape};
use super::mask;
use super::place::Span;
use super::suggest;
use super::tree::{Entry, Node, Value};
use super::units;
use super::walk::{Scalar, Walk};

/// A setting with bounds, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds<T> {
    /// What holds when nothing is said.
    pub default: T,
    pub min: T,
    pub max: T,
}

/// One section, opened for reading.
pub(super) struct Fields<'n> {
    walk: &'n Walk<'n>,
    section: &'static Section,
    span: Span,
    entries: Vec<&'n Entry>,
}

impl<'n> Fields<'n> {
    /// Opens `node` as `section`, reporting what does not belong there.
    pub fn open(walk: &'n Walk<'n>, node: &'n Node, section: &'static Section) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            let keys: Vec<&str> = section.keys().collect();
            let takes = if keys.is_empty() {
                String::new()
            } else {
                format!("; it takes {}", suggest::list(&keys, "and"))
            };
            walk.wrong_type_but(node, "a mapping", &takes);
            return None;
        }
        let entries = walk.entries(node, "a mapping")?;
        let fields = Self { walk, section, span: node.span, entries };
        for entry in &fields.entries {
            let key = &entry.key;
            if !section.keys().any(|known| known == key.text) {
                walk.problem(key.span, unknown_key(&key.text, section));
            }
        }
        Some(fields)
    }

    /// Where the section stands.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The known keys that are there, in the order of the file.
    pub fn present(&self) -> impl Iterator<Item = &'n Entry> {
        self.entries.iter().copied().filter(|entry| self.section.keys().any(|known| known == entry.key.text))
    }

    /// Whether nothing at all is there, not even something unknown.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a key, with whatever value it has.
    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        debug_assert!(
            self.section.keys().any(|known| known == key),
            "`{key}` is missing from the table of keys"
        );
        self.entries.iter().copied().find(|entry| entry.key.text == key)
    }

    /// The table of keys is what `explain` and the schema tell: what is read must be the same.
    fn check(&self, key: &str, same: impl Fn(&Shape) -> bool) {
        debug_assert!(
            self.section.key(key).is_some_and(|key| same(&key.shape)),
            "`{key}` is read as something else than the table of keys says"
        );
    }

    /// The value of a key; one without a value is reported.
    pub fn node(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entry(key)?;
        if entry.value.value == Value::Null {
            self.walk.problem(entry.key.span, format!("`{key}` has no value; give it one or remove the key"));
            return None;
        }
        Some(&entry.value)
    }

    /// The value of a key that must be there.
    pub fn required(&self, key: &str, advice: &str) -> Option<&'n Node> {
        if self.entry(key).is_none() {
            self.walk.problem(self.span, format!("{} lacks `{key}`; {advice}", self.section.name));
            return None;
        }
        self.node(key)
    }

    /// A duration such as `15s`.
    pub fn duration(&self, key: &str, bounds: &'static Bounds<Duration>) -> Option<Duration> {
        self.check(key, |shape| shape.takes(&Shape::Duration(bounds)));
        let expected = "a duration such as `15s`";
        let scalar = self.walk.scalar(self.node(key)?, expected)?;
        let value = self.parsed(&scalar, expected, units::parse_duration(&scalar.text))?;
        self.bounded(&scalar, value, bounds, units::show_duration)
    }

    /// A size in bytes such as `8MiB`.
    pub fn size(&self, key: &str, bounds: &'static Bounds<usize>) -> Option<usize> {
        self.check(key, |shape| shape.takes(&Shape::Size(bounds)));
        let expected = "a size such as `8MiB`";
        let scalar = self.walk.scalar(self.node(key)?, expected)?;
        let value = self.parsed(&scalar, expected, units::parse_size(&scalar.text))?;
        self.bounded(&scalar, usize::try_from(value).unwrap_or(usize::MAX), bounds, units::show_size)
    }

    /// A whole number.
    pub fn count(&self, key: &str, bounds: &'static Bounds<usize>) -> Option<usize> {
        self.check(key, |shape| shape.takes(&Shape::Count(bounds)));
        let scalar = self.walk.scalar(self.node(key)?, "a whole number")?;
        let digits = !scalar.text.is_empty() && scalar.text.bytes().all(|b| b.is_ascii_digit());
        let value = match scalar.text.parse() {
            Ok(value) if digits => Ok(value),
            _ if digits => Err("is too large a number".to_owned()),
            _ => Err("is not a whole number; write digits alone, such as `1000`".to_owned()),
        };
        let value = self.parsed(&scalar, "a whole number", value)?;
        self.bounded(&scalar, value, bounds, |count| count.to_string())
    }

    /// A part of one, such as `0.1`.
    pub fn ratio(&self, key: &str, bounds: &'static Bounds<f64>) -> Option<f64> {
        self.check(key, |shape| shape.takes(&Shape::Ratio(bounds)));
        let expected = "a number such as `0.1`";
        let scalar = self.walk.scalar(self.node(key)?, expected)?;
        let value = scalar.text.parse().map_err(|_| format!("is not {expected}"));
        let value = self.parsed(&scalar, expected, value)?;
        self.bounded(&scalar, value, bounds, |ratio| ratio.to_string())
    }

    /// A whole number, or the word `none`.
    pub fn count_or_none(&self, key: &str, bounds: &'static Bounds<usize>) -> Option<Option<usize>> {
        let none = |node: &Node| matches!(&node.value, Value::Scalar { text, .. } if text == "none");
        if self.entry(key).is_some_and(|entry| none(&entry.value)) {
            return Some(None);
        }
        self.count(key, bounds).map(Some)
    }

    /// `true` or `false`, and none of YAML's other words for them.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.check(key, |shape| shape.takes(&Shape::Flag(false)));
        let scalar = self.walk.scalar(self.node(key)?, "`true` or `false`")?;
        match &*scalar.text {
            "true" if scalar.plain || scalar.is_indirect() => Some(true),
            "false" if scalar.plain || scalar.is_indirect() => Some(false),
            "true" | "false" => self.reject(&scalar, "is text; write it without quotes"),
            _ => self.reject(&scalar, "is neither `true` nor `false`; write one of these"),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.check(key, |shape| shape.has_words(&words));
        let expected = suggest::list(&words, "or");
        let scalar = self.walk.scalar(self.node(key)?, &expected)?;
        let found = choices.iter().find(|(word, _)| *word == scalar.text);
        if found.is_none() {
            let text = format!("`{key}` cannot be {}; write {expected}", scalar.shown());
            self.walk.problem(scalar.span(), text);
        }
        found.map(|(_, value)| *value)
    }

    fn parsed<T>(&self, scalar: &Scalar<'_>, expected: &str, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            // The error quotes the value, which must not show if it came from elsewhere.
            Err(_) if scalar.is_indirect() => self.reject(scalar, &format!("is not {expected}")),
            Err(what) => self.reject(scalar, &what),
        }
    }

    fn bounded<T: Copy + PartialOrd>(
        &self,
        scalar: &Scalar<'_>,
        value: T,
        bounds: &Bounds<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        if bounds.min <= value && value <= bounds.max {
            return Some(value);
        }
        self.reject(
            scalar,
            &format!("is out of bounds; it must be from {} to {}", show(bounds.min), show(bounds.max)),
        )
    }

    fn reject<T>(&self, scalar: &Scalar<'_>, what: &str) -> Option<T> {
        self.walk.problem(scalar.span(), format!("{} {what}", scalar.shown()));
        None
    }
}

fn unknown_key(key: &str, section: &Section) -> String {
    if key == "<<" {
        return "merge keys are not supported; write the keys out, or set them once in `defaults`".to_owned();
    }
    let none = if section.keys().next().is_none() { "; it takes no keys" } else { "" };
    let hint = suggest::hint(key, section.keys(), "it takes");
    format!("unknown key {} in {}{hint}{none}", mask::quotable(key), section.name)
}

//! What the table of keys is made of: a key, the shape of its value, and what holds without it.

use std::time::Duration;

use super::super::fields::Bounds;
use super::super::units;

/// A mapping with a fixed set of keys.
#[derive(Debug)]
pub(in crate::config) struct Section {
    /// What messages call it.
    pub name: &'static str,
    /// Its keys, in groups that sections share.
    pub(super) groups: &'static [&'static [Key]],
    /// Keys of which there must be one, and no second.
    pub one_of: &'static [&'static str],
}

impl Section {
    /// Its keys, in the order in which they are told.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.entries().map(|key| key.name)
    }

    /// The same, with all that is known of them.
    pub fn entries(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// One of its keys.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.entries().find(|key| key.name == name)
    }
}

/// A key of a section.
#[derive(Debug)]
pub(in crate::config) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub unset: Unset,
    /// What it means, where the example has no room for a comment of its own.
    pub doc: Option<&'static str>,
}

/// What holds where a key is not there.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Unset {
    /// Nothing: it must be there.
    Required,
    /// The default of its shape, if that has one.
    Usual,
    /// This.
    Is(fn() -> String),
    /// What its comment says: no limit, for example.
    Nothing,
}

/// What a value can be.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Shape {
    Duration(&'static Bounds<Duration>),
    Size(&'static Bounds<usize>),
    Count(&'static Bounds<usize>),
    /// A part of one.
    Ratio(&'static Bounds<f64>),
    /// `true` or `false`, and which of them is the default.
    Flag(bool),
    /// One of these, the first by default.
    Words(&'static [&'static str]),
    /// Text, and what it is.
    Text(&'static str),
    /// Text, a number, `true` or `false`.
    Scalar(&'static str),
    Section(&'static Section),
    /// A mapping, or a list of such.
    Sections(&'static Section),
    /// A mapping whose keys are names, and what these are of.
    Named(&'static str, &'static Shape),
    List(&'static Shape),
    /// A list, or one of what it may hold.
    OneOrMore(&'static Shape),
    Either(&'static [Shape]),
    /// A key without a value.
    Empty,
}

/// A key that has the default of its shape, if any.
pub(super) const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, unset: Unset::Usual, doc: None }
}

impl Key {
    /// A key that must be there.
    pub const fn required(self) -> Self {
        Self { unset: Unset::Required, ..self }
    }

    /// A key without a default.
    pub const fn unset(self) -> Self {
        Self { unset: Unset::Nothing, ..self }
    }

    /// A key with this default.
    pub const fn or(self, default: fn() -> String) -> Self {
        Self { unset: Unset::Is(default), ..self }
    }

    /// A key that the example shows on a line with others.
    pub const fn doc(self, doc: &'static str) -> Self {
        Self { doc: Some(doc), ..self }
    }

    /// What holds without it, as it would be written.
    pub fn default(&self) -> Option<String> {
        match self.unset {
            Unset::Required | Unset::Nothing => None,
            Unset::Usual => self.shape.default(),
            Unset::Is(default) => Some(default()),
        }
    }
}

impl Shape {
    fn default(&self) -> Option<String> {
        match self {
            Self::Duration(bounds) => Some(units::show_duration(bounds.default)),
            Self::Size(bounds) => Some(units::show_size(bounds.default)),
            Self::Count(bounds) => Some(bounds.default.to_string()),
            Self::Ratio(bounds) => Some(bounds.default.to_string()),
            Self::Flag(flag) => Some(flag.to_string()),
            Self::Words(words) => words.first().map(ToString::to_string),
            Self::Either(shapes) => shapes.first().and_then(Self::default),
            _ => None,
        }
    }

    /// The least and the most that it may be.
    pub fn bounds(&self) -> Option<(String, String)> {
        match self {
            Self::Duration(bounds) => {
                Some((units::show_duration(bounds.min), units::show_duration(bounds.max)))
            }
            Self::Size(bounds) => Some((units::show_size(bounds.min), units::show_size(bounds.max))),
            Self::Count(bounds) => Some((bounds.min.to_string(), bounds.max.to_string())),
            Self::Ratio(bounds) => Some((bounds.min.to_string(), bounds.max.to_string())),
            Self::Either(shapes) => shapes.iter().find_map(Self::bounds),
            _ => None,
        }
    }

    /// Whether the reader of a key that asks for `other` reads what the table says.
    pub fn takes(&self, other: &Shape) -> bool {
        match (self, other) {
            (Self::Either(shapes), _) => shapes.iter().any(|shape| shape.takes(other)),
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Size(a), Self::Size(b)) | (Self::Count(a), Self::Count(b)) => a == b,
            (Self::Ratio(a), Self::Ratio(b)) => a == b,
            (Self::Flag(_), Self::Flag(_)) => true,
            _ => false,
        }
    }

    /// Whether the reader of a key that knows these words reads what the table says; the first is the default in both.
    pub fn has_words(&self, words: &[&str]) -> bool {
        matches!(self, Self::Words(known) if *known == words)
    }

    /// In words: "a duration".
    pub fn words(&self) -> String {
        match self {
            Self::Duration(_) => "a duration such as 1h30m".to_owned(),
            Self::Size(_) => "a size such as 8MiB".to_owned(),
            Self::Count(_) => "a whole number".to_owned(),
            Self::Ratio(_) => "a number such as 0.1".to_owned(),
            Self::Flag(_) => "true or false".to_owned(),
            Self::Words(words) => words.join(", "),
            Self::Text(what) | Self::Scalar(what) => (*what).to_owned(),
            Self::Section(_) => "a mapping".to_owned(),
            Self::Sections(_) => "a mapping, or a list of these".to_owned(),
            Self::Named(what, shape) => format!("a mapping of {what} to {}", shape.words()),
            Self::List(shape) => format!("a list of: {}", shape.words()),
            Self::OneOrMore(shape) => format!("{}, or a list of these", shape.words()),
            Self::Either(shapes) => shapes.iter().map(Self::words).collect::<Vec<_>>().join(", or "),
            Self::Empty => "nothing".to_owned(),
        }
    }
}

/// Every key below `section`, which stands at `path`, with its own: `*` is any name, `[]` any entry of a list.
pub(in crate::config) fn visit(
    section: &'static Section,
    path: &str,
    take: &mut dyn FnMut(&str, &'static Key),
) {
    for key in section.entries() {
        let path = join(path, key.name);
        take(&path, key);
        visit_shape(&key.shape, &path, take);
    }
}

fn visit_shape(shape: &Shape, path: &str, take: &mut dyn FnMut(&str, &'static Key)) {
    match shape {
        // An entry of the list is told with the mapping that stands alone.
        Shape::Section(section) | Shape::Sections(section) => visit(section, path, take),
        Shape::Named(_, shape) => visit_shape(shape, &join(path, "*"), take),
        Shape::List(shape) | Shape::OneOrMore(shape) => visit_shape(shape, &join(path, "[]"), take),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| visit_shape(shape, path, take)),
        _ => {}
    }
}

/// A path with one more part.
pub(in crate::config) fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") }
}

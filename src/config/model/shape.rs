//! What a route makes of its records: what its expressions speak of, which fields are sent, and what is put around them.

use std::sync::Arc;

use super::Route;
use crate::expression::Expression;

/// What an expression can speak of, in the order in which it is given their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// `event`: the payload as JSON, `null` where it is none.
    Event,
    /// `key`: the record's key, as text; `null` where it has none.
    Key,
    /// `headers`: the record's headers, as texts.
    Headers,
    /// `channel`, `topic` or `stream`: the name of what it came on.
    Name,
    /// `fields`: those of a stream's entry, as texts.
    Fields,
    /// `timestamp`: when it was published, in RFC 3339 with milliseconds, in UTC; `null` where that is not known.
    Timestamp,
}

impl Variable {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Event, Self::Key, Self::Headers, Self::Name, Self::Fields, Self::Timestamp];

    /// Their names.
    pub const NAMES: [(&str, Self); 8] = [
        ("event", Self::Event),
        ("key", Self::Key),
        ("headers", Self::Headers),
        ("channel", Self::Name),
        ("topic", Self::Name),
        ("stream", Self::Name),
        ("fields", Self::Fields),
        ("timestamp", Self::Timestamp),
    ];
}

/// What a `filter` can speak of that is another one for each client: mappings whose members it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// `query`: the parameters of its request's query, as texts; of several of a name the first.
    Query,
    /// `claims`: what its credential says.
    Claims,
}

impl Brought {
    /// Their names.
    pub const NAMES: [(&str, Self); 2] = [("query", Self::Query), ("claims", Self::Claims)];
}

/// What of a payload in JSON is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Projection {
    /// `keep`: these fields alone, in this order.
    Keep(Paths),
    /// `drop`: all but these fields.
    Drop(Paths),
    /// `map`: the value of an expression.
    Map(Expression),
}

impl Projection {
    /// The expression that it is, if it is one.
    pub fn expression(&self) -> Option<&Expression> {
        match self {
            Self::Map(expression) => Some(expression),
            Self::Keep(_) | Self::Drop(_) => None,
        }
    }

    /// The same, where the parameters of the path are what `value` gives for them.
    pub fn bind(&self, value: impl Fn(&str) -> Option<String>) -> Self {
        match self {
            Self::Map(expression) => Self::Map(expression.bind(value)),
            other => other.clone(),
        }
    }
}

impl Route {
    /// The expressions of which its events are made.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let map = self.projection.as_ref().and_then(Projection::expression);
        self.filter.iter().chain(map)
    }
}

/// Fields by their paths, such as `a.b`. Of a list each value is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Paths {
    /// As they stand in the file.
    pub texts: Vec<Arc<str>>,
    /// The same as a tree.
    pub tree: Vec<Branch>,
}

/// The fields that begin with one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Branch {
    /// The name.
    pub name: Arc<str>,
    /// What of it; empty where all is meant.
    pub below: Vec<Branch>,
}

impl Branch {
    /// Adds a path to a tree. Returns whether it was in it, or in the way of one that was.
    pub(in crate::config) fn add(tree: &mut Vec<Self>, path: &str) -> bool {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let known = tree.iter_mut().find(|branch| *branch.name == *name);
        match (known, rest) {
            (Some(branch), Some(rest)) if !branch.below.is_empty() => Self::add(&mut branch.below, rest),
            (Some(_), _) => true,
            (None, rest) => {
                let mut below = Vec::new();
                if let Some(rest) = rest {
                    Self::add(&mut below, rest);
                }
                tree.push(Self { name: name.into(), below });
                false
            }
        }
    }
}

/// `wrap:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrap {
    /// `envelope`: key, headers, time, name and data.
    Envelope,
    /// `cloudevents`: a CloudEvent 1.0 in JSON.
    CloudEvents,
}

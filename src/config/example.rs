//! The example configuration, which ships with the program: what it says of each key, in the comment right above it,
//! and how it is used.

use std::collections::HashMap;

use super::keys::join;

/// `config.example.yaml`.
pub(super) const TEXT: &str = include_str!("../../config.example.yaml");

/// What the example shows of the keys, each by its path: `*` for names, `[]` for entries of lists.
#[derive(Debug, Default)]
pub(super) struct Shown(HashMap<String, Entry>);

/// What it shows of one.
#[derive(Debug, Default)]
struct Entry {
    /// The first comment right above it.
    comment: Option<String>,
    /// The lines in which it first stands, those below it included.
    lines: Vec<String>,
}

impl Shown {
    /// Reads the example: blocks of YAML that are indented, with comments of whole lines. A setting that stands as
    /// `#key: …`, with nothing between, is one that excludes another.
    pub fn read() -> Self {
        let mut shown = Self::default();
        let (mut place, mut comment) = (Place::default(), Vec::<&str>::new());
        for line in TEXT.lines() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            let setting =
                trimmed.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            match setting {
                None if trimmed.is_empty() => comment.clear(),
                None if trimmed.starts_with('#') => {
                    comment.push(trimmed.strip_prefix("# ").unwrap_or_default());
                    continue;
                }
                _ => {
                    let mut setting = (indent, setting.unwrap_or(trimmed));
                    // The first key of an entry of a list stands as far in as the others, and what is said above it is
                    // of the entry.
                    if let Some(rest) = setting.1.strip_prefix("- ") {
                        setting = (indent + 2, rest);
                        comment.clear();
                    }
                    let (indent, setting) = setting;
                    place.enter(indent, setting);
                    shown.add(&mut place, indent, setting, &comment);
                }
            }
            comment.clear();
        }
        shown
    }

    fn add(&mut self, place: &mut Place, indent: usize, setting: &str, comment: &[&str]) {
        let last = place.0.len().saturating_sub(1);
        for (at, key) in place.0.iter_mut().enumerate() {
            let entry = self.0.entry(key.path.clone()).or_default();
            if at == last {
                key.first = entry.lines.is_empty();
                if entry.comment.is_none() && !comment.is_empty() {
                    entry.comment = Some(comment.join("\n"));
                }
            }
            if key.first && entry.lines.len() < MOST_LINES {
                entry.lines.push(format!("{}{setting}", " ".repeat(indent.saturating_sub(key.indent))));
            }
        }
    }

    /// The comment of a key.
    pub fn comment(&self, path: &str) -> Option<&str> {
        self.0.get(path)?.comment.as_deref()
    }

    /// How it is written.
    pub fn lines(&self, path: &str) -> &[String] {
        self.0.get(path).map_or(&[], |entry| &entry.lines)
    }
}

/// The keys within which a line stands, the outermost first.
#[derive(Debug, Default)]
struct Place(Vec<Within>);

#[derive(Debug)]
struct Within {
    indent: usize,
    path: String,
    /// Whether the example shows it for the first time.
    first: bool,
}

impl Place {
    fn enter(&mut self, indent: usize, setting: &str) {
        self.0.retain(|key| key.indent < indent);
        let Some((name, _)) = setting.split_once(':') else { return };
        let above = self.0.last().map_or("", |key| &key.path);
        let path = match above {
            "upstreams" | "auth" | "schema_registries" => join(above, "*"),
            "routes" => join(&join(above, "[]"), name),
            _ => join(above, name),
        };
        self.0.push(Within { indent, path, first: false });
    }
}

/// An example of more says no more.
const MOST_LINES: usize = 12;

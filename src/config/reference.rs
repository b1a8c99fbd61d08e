//! What is known of each key, in words: of the table of keys, and of the comments of the example.

use std::collections::BTreeSet;

use super::example::Shown;
use super::keys::{self, Key, Shape, Unset};
use super::suggest;

/// A key, explained.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Where it stands: `*` is any name, `[]` any entry of a list.
    pub path: String,
    /// What it means.
    pub doc: String,
    /// What its value can be.
    pub value: String,
    /// What holds without it.
    pub default: String,
    /// The least and the most that it may be.
    pub bounds: Option<(String, String)>,
    /// How it is written.
    pub example: String,
}

/// Every key, in the order of the table.
pub fn reference() -> Vec<Explained> {
    let shown = Shown::read();
    keys::all().into_iter().map(|(path, key)| explain(&shown, path, key)).collect()
}

/// "; did you mean …?" where a key has nearly the name that somebody asks for.
pub fn suggest_key(asked: &str) -> String {
    let names: BTreeSet<&str> = keys::all().into_iter().map(|(_, key)| key.name).collect();
    suggest::hint(asked.rsplit('.').next().unwrap_or(asked), names, "there are")
}

fn explain(shown: &Shown, path: String, key: &Key) -> Explained {
    let shared = in_defaults(&path);
    let lines = Some(shown.lines(&path)).filter(|lines| !lines.is_empty());
    let lines = lines.or_else(|| Some(shown.lines(shared.as_ref()?))).unwrap_or_default();
    Explained {
        doc: doc(shown, &path, key),
        value: key.shape.words(),
        default: default(key, shared.is_some()),
        bounds: key.shape.bounds(),
        example: lines.join("\n"),
        path,
    }
}

/// What a key means. What a route can say for itself is explained where it is said for all.
pub(super) fn doc(shown: &Shown, path: &str, key: &Key) -> String {
    let shared = in_defaults(path);
    let comment = shared.as_ref().and_then(|path| shown.comment(path)).or_else(|| shown.comment(path));
    key.doc.or(comment).unwrap_or_default().to_owned()
}

/// The same key of `defaults`.
pub(super) fn in_defaults(path: &str) -> Option<String> {
    let rest = path.strip_prefix("routes.[].")?;
    let first = rest.split('.').next()?;
    keys::DEFAULTS.key(first).map(|_| format!("defaults.{rest}"))
}

fn default(key: &Key, shared: bool) -> String {
    let own = match (key.unset, key.default(), key.shape) {
        (Unset::Required, ..) => return "none: it must be there".to_owned(),
        (_, Some(default), _) => default,
        (_, None, Shape::Section(_) | Shape::Sections(_)) => "those of its keys".to_owned(),
        (_, None, _) => "none".to_owned(),
    };
    if shared { format!("what `defaults` says, or else {own}") } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_explained() {
        let lacking: Vec<_> =
            reference().into_iter().filter(|key| key.doc.len() < 8).map(|key| key.path).collect();
        assert!(
            lacking.is_empty(),
            "write a comment right above these in config.example.yaml, or `.doc(…)` in config/keys.rs: {lacking:#?}"
        );
        let unseen: Vec<_> =
            reference().into_iter().filter(|key| key.example.is_empty()).map(|key| key.path).collect();
        // Those that the example shows on a line with others.
        let inline =
            |path: &String| keys::all().iter().any(|(known, key)| known == path && key.doc.is_some());
        assert!(unseen.iter().all(inline), "{unseen:#?}");
    }

    #[test]
    fn a_meaning_is_written_once() {
        let shown = Shown::read();
        let twice =
            keys::all().into_iter().filter(|(path, key)| key.doc.is_some() && shown.comment(path).is_some());
        assert_eq!(twice.map(|(path, _)| path).collect::<Vec<_>>(), [] as [&str; 0]);
    }

    /// The comments of the example are for people, and tell the same defaults and bounds as the code.
    #[test]
    fn comments_tell_the_defaults_and_bounds() {
        let shown = Shown::read();
        let mut wrong = Vec::new();
        for (path, key) in keys::all() {
            let Some(comment) = shown.comment(&path).filter(|_| in_defaults(&path).is_none()) else {
                continue;
            };
            let comment = comment.replace('\n', " ");
            let plain = comment.replace('"', "").replace("Default:", "Default");
            let says =
                |text: &str| plain.contains(text) || plain.contains(&text.replace("Default", "default"));
            if let Some(default) = key.default().filter(|default| !says(&format!("Default {default}"))) {
                wrong.push(format!("{path}: no `Default {default}` in {comment:?}"));
            }
            if let Some((min, max)) =
                key.shape.bounds().filter(|(min, max)| !says(&format!("{min} to {max}")))
            {
                wrong.push(format!("{path}: no `{min} to {max}` in {comment:?}"));
            }
            if matches!(key.unset, Unset::Required) && !says("Required") {
                wrong.push(format!("{path}: no `Required` in {comment:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn the_shape_of_an_explanation() {
        let find = |path: &str| reference().into_iter().find(|key| key.path == path).unwrap();
        let key = find("routes.[].replay.max_events");
        assert!(key.doc.starts_with("How many") && key.default.ends_with("or else 100000"), "{key:?}");
        assert_eq!(key.bounds, Some(("0".to_owned(), "1000000000".to_owned())));
        assert_eq!(
            (find("defaults.keepalive").example.as_str(), key.value.as_str()),
            ("keepalive: 15s", "a whole number")
        );
        assert!(find("server.tls").example.starts_with("tls: self_signed"));
    }
}

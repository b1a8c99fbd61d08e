//! `ssegate explain`: what a key of the configuration means, its default, its bounds, and how it is written.

use std::fmt::Write as _;

use anyhow::bail;

use super::text;
use crate::config::{self, Explained};

/// Prints what is known of `key`, or which sections there are.
pub(super) fn run(key: Option<&str>) -> anyhow::Result<()> {
    let all = config::reference();
    match key {
        None => text::print(&sections(&all)),
        Some(key) => match answer(&all, key) {
            Some(answer) => text::print(&answer),
            None => bail!(
                "no key is called {key}{}; `ssegate explain` alone lists the sections",
                config::suggest_key(key)
            ),
        },
    }
}

fn sections(all: &[Explained]) -> String {
    let sections: Vec<&Explained> = all.iter().filter(|key| !key.path.contains('.')).collect();
    let mut text = list(&sections);
    text.push_str("\nssegate explain KEY tells more, such as: ssegate explain routes.replay.max_events\n");
    text
}

/// One key, or those that may be meant.
fn answer(all: &[Explained], asked: &str) -> Option<String> {
    let asked = parts(asked);
    let exact = all.iter().find(|key| parts(&key.path) == asked);
    let ends: Vec<&Explained> =
        all.iter().filter(|key| parts(&key.path).ends_with(&asked) && !asked.is_empty()).collect();
    let only = if ends.len() == 1 { ends.first().copied() } else { None };
    match (exact.or(only), ends.as_slice()) {
        (Some(key), _) => {
            let others: Vec<&Explained> =
                ends.iter().copied().filter(|other| other.path != key.path).collect();
            Some(one(all, key, &others))
        }
        (None, []) => {
            let word = asked.last()?;
            let near: Vec<&Explained> = all
                .iter()
                .filter(|key| parts(&key.path).last().is_some_and(|last| last.contains(word)))
                .collect();
            (asked.len() == 1 && !near.is_empty()).then(|| list(&near))
        }
        (None, several) => Some(list(several)),
    }
}

/// What a path is made of, without the names and entries of lists that people leave out.
fn parts(path: &str) -> Vec<&str> {
    let parts = path.split('.').map(|part| part.split('[').next().unwrap_or_default());
    parts.filter(|part| !part.is_empty() && *part != "*" && !part.starts_with('<')).collect()
}

fn one(all: &[Explained], key: &Explained, others: &[&Explained]) -> String {
    let mut text = format!("{}\n\n", shown(&key.path));
    key.doc.lines().for_each(|line| {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
    });
    text.push('\n');
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<9}{value}");
    };
    fact("Value", &key.value);
    fact("Default", &key.default);
    if let Some((min, max)) = &key.bounds {
        fact("Bounds", &format!("{min} to {max}"));
    }
    if !key.example.is_empty() {
        fact("Example", &key.example.replace('\n', &format!("\n{:11}", "")));
    }
    let below = format!("{}.", key.path);
    let depth = parts(&key.path).len() + 1;
    let keys: Vec<&Explained> = all
        .iter()
        .filter(|other| other.path.starts_with(&below) && parts(&other.path).len() == depth)
        .collect();
    for (title, keys) in [("Keys", &keys[..]), ("Of the same name", others)] {
        if !keys.is_empty() {
            let _ = write!(text, "\n{title}:\n\n{}", list(keys));
        }
    }
    text
}

fn list(keys: &[&Explained]) -> String {
    let rows: Vec<Vec<String>> =
        keys.iter().map(|key| vec![format!("  {}", shown(&key.path)), brief(&key.doc)]).collect();
    text::columns(&rows).iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The first sentence, or as much of it as a line has room for.
fn brief(doc: &str) -> String {
    let line = doc.replace('\n', " ");
    let sentence = line.split_once(". ").map_or(line.as_str(), |(sentence, _)| sentence);
    let sentence = sentence.split_once(':').map_or(sentence, |(sentence, _)| sentence).trim_end_matches('.');
    match sentence.char_indices().nth(BRIEF) {
        Some((end, _)) => format!("{}…", sentence[..end].trim_end()),
        None => sentence.to_owned(),
    }
}

/// A path as people read it.
fn shown(path: &str) -> String {
    path.replace(".[]", "[]").replace(".*", ".<name>")
}

const BRIEF: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(key: &str) -> String {
        answer(&config::reference(), key).unwrap_or_default()
    }

    #[test]
    fn a_key() {
        for key in ["routes.replay.max_events", "routes[].replay.max_events", "routes.[].replay.max_events"] {
            let text = explained(key);
            assert!(text.starts_with("routes[].replay.max_events\n\n  How many events."), "{text}");
            for line in [
                "  Value    a whole number\n",
                "  Default  what `defaults` says, or else 100000\n",
                "  Bounds   0 to 1000000000\n",
                "  Example  max_events: 100000\n",
            ] {
                assert!(text.contains(line), "no {line:?} in {text}");
            }
        }
        assert!(explained("upstreams.redis.url").contains("  Default  none: it must be there\n"));
        assert!(explained("shed").contains("limits.shed\n\n"));
    }

    #[test]
    fn a_section_lists_its_keys_and_no_others() {
        let text = explained("defaults.replay");
        assert!(text.contains("  defaults.replay.max_age "), "{text}");
        assert!(!explained("defaults").contains("defaults.replay.max_age"));
        assert!(explained("upstreams").contains("  upstreams.<name>.redis "));
        assert!(explained("auth").contains("Of the same name:\n\n  defaults.auth"));
    }

    #[test]
    fn what_may_be_meant_is_listed() {
        let text = explained("replay");
        assert!(text.contains("  defaults.replay ") && text.contains("  routes[].replay "), "{text}");
        assert!(explained("handshake").contains("limits.handshake_timeout"));
        assert_eq!((explained("nonsense"), explained("")), (String::new(), String::new()));
    }

    #[test]
    fn the_sections() {
        let text = sections(&config::reference());
        for section in ["server", "admin", "log", "limits", "auth", "deny", "upstreams", "defaults", "routes"]
        {
            assert!(text.contains(&format!("  {section} ")), "{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

//! Dependencies inside the library point one way. Reads every file of `src/` and compares the modules that it
//! names by `crate::…` with what its own module may know.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module and those that it may use. A new module needs a line here, and a place in `lib.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("sse", &[]),
    ("config", &["expression"]),
    ("compress", &["config"]),
    ("shape", &["sse", "schema", "config", "expression"]),
    ("hub", &["compress", "sse", "shape", "config"]),
    ("history", &["hub", "shape", "config", "metrics"]),
    ("metrics", &["hub"]),
    ("fetch", &["config"]),
    ("traces", &["fetch", "config", "metrics"]),
    ("watch", &[]),
    ("tls", &["watch", "config", "metrics"]),
    ("auth", &["fetch", "config", "metrics"]),
    ("upstream", &["watch", "fetch", "history", "hub", "shape", "schema", "sse", "config", "metrics"]),
    (
        "http",
        &["auth", "fetch", "tls", "traces", "hub", "compress", "sse", "shape", "schema", "config", "metrics"],
    ),
    ("admin", &["auth", "http", "tls", "hub", "upstream", "sse", "schema", "config", "metrics"]),
    (
        "app",
        &[
            "auth", "admin", "http", "tls", "traces", "upstream", "hub", "schema", "shape", "sse", "config",
            "metrics",
        ],
    ),
    ("cli", &["app", "admin", "http", "upstream", "hub", "shape", "sse", "config", "metrics"]),
    ("main", &["cli"]),
    ("lib", &[]),
    ("expression", &[]),
    ("schema", &["fetch", "config"]),
];

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files(&root) {
        let path = file.strip_prefix(&root).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let module = Module::of(path);
        seen.insert(module.top().to_owned());
        match LAYERS.iter().find(|(name, _)| *name == module.top()) {
            None => violations.push(format!("src/{}: its module is not listed in this test", path.display())),
            Some((name, allowed)) => {
                let used = module.uses(&tokens(&text));
                let forbidden =
                    used.into_iter().filter(|(used, _)| used != name && !allowed.contains(&&**used));
                violations.extend(forbidden.map(|(used, line)| {
                    let allowed = if allowed.is_empty() { "nothing".into() } else { allowed.join(", ") };
                    format!("src/{}:{line}: `{name}` uses `{used}`; it may use {allowed}", path.display())
                }));
            }
        }
    }
    for (name, _) in LAYERS {
        if !seen.contains(*name) {
            violations.push(format!("`{name}` is listed in this test, and there is no such module"));
        }
    }
    assert!(violations.is_empty(), "dependencies that point the wrong way:\n  {}", violations.join("\n  "));
}

/// A module by its path from the crate root.
struct Module(Vec<String>);

impl Module {
    fn of(path: &Path) -> Self {
        let mut parts: Vec<_> =
            path.with_extension("").iter().map(|p| p.to_str().unwrap().to_owned()).collect();
        parts.pop_if(|last| last == "mod");
        Self(parts)
    }

    fn top(&self) -> &str {
        &self.0[0]
    }

    /// The modules at the top of the crate that `tokens` name, each with its line: by `crate::a`,
    /// `crate::{a, b::c}`, `ssegate::a`, or enough of `super::`.
    fn uses(&self, tokens: &[Token]) -> Vec<(String, usize)> {
        let mut uses = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let inside = at > 0 && tokens[at - 1].text == ":";
            match token.text.as_str() {
                "crate" | "ssegate" if !inside => named(&tokens[at + 1..], &mut uses),
                "super" if !inside => {
                    let path = tokens[at..].iter().take_while(|t| t.text == "super" || t.text == ":");
                    let (mut length, mut ups) = (0, 0);
                    path.for_each(|token| {
                        length += 1;
                        ups += usize::from(token.text == "super");
                    });
                    // Modules within a file go up further than its path tells, so that only names of modules at
                    // the top count.
                    if ups >= self.0.len() {
                        let mut above = Vec::new();
                        named(&tokens[at + length - 2..], &mut above);
                        above.retain(|(name, _)| LAYERS.iter().any(|(layer, _)| layer == name));
                        uses.append(&mut above);
                    }
                }
                _ => {}
            }
        }
        uses
    }
}

/// What `tokens`, which begin with `::`, name first.
fn named(tokens: &[Token], uses: &mut Vec<(String, usize)>) {
    let [colon, second, first, rest @ ..] = tokens else { return };
    if colon.text != ":" || second.text != ":" {
        return;
    }
    if first.text != "{" {
        uses.push((first.text.clone(), first.line));
        return;
    }
    let (mut depth, mut begins) = (1, true);
    for token in rest {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => {}
            name if depth == 1 && begins => uses.push((name.to_owned(), token.line)),
            _ => {}
        }
        if depth == 0 {
            return;
        }
        begins = token.text == ",";
    }
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

/// Words and single signs, without comments, strings and characters.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let end = match chars[at] {
            c if c.is_alphanumeric() || c == '_' => {
                let word = |c: &&char| c.is_alphanumeric() || **c == '_';
                let end = at + chars[at..].iter().take_while(word).count();
                let text: String = chars[at..end].iter().collect();
                match raw_string(&text, &chars, end) {
                    Some(end) => end,
                    None => {
                        tokens.push(Token { text, line });
                        end
                    }
                }
            }
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, "\n"),
            '/' if chars.get(at + 1) == Some(&'*') => find(&chars, at + 2, "*/") + 2,
            '"' => string(&chars, at),
            '\'' => character(&chars, at),
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.into(), line });
                }
                at + 1
            }
        };
        let end = end.min(chars.len());
        line += chars[at..end].iter().filter(|&&c| c == '\n').count();
        at = end;
    }
    tokens
}

/// Where the raw string ends that `prefix` introduces, if it does.
fn raw_string(prefix: &str, chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    let raw = matches!(prefix, "r" | "br" | "cr") && chars.get(at + hashes) == Some(&'"');
    raw.then(|| find(chars, at + hashes + 1, &format!("\"{}", "#".repeat(hashes))) + 1 + hashes)
}

fn string(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

/// A character, or the sign alone where it begins a lifetime.
fn character(chars: &[char], at: usize) -> usize {
    match chars.get(at + 1) {
        Some('\\') => find(chars, at + 3, "'") + 1,
        _ if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at + 1,
    }
}

/// Where `what` is found next; the end if nowhere.
fn find(chars: &[char], at: usize, what: &str) -> usize {
    let what: Vec<char> = what.chars().collect();
    (at..chars.len()).find(|&at| chars[at..].starts_with(&what)).unwrap_or(chars.len())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_way_of_naming_a_module_is_seen() {
    let source = r##"
        // crate::comment
        /* crate::comment */
        use crate::hub::Log;
        use crate::{config::{Binary, Field}, sse, shape::Shape as S};
        pub(crate) fn f<'a>(_: &'a str) -> char { '"' }
        const TEXT: &str = "crate::string \" crate::string";
        const RAW: &str = r#"crate::raw " crate::raw"#;
        fn g() { let _ = crate::http::serve; super::super::metrics::count(); super::admin(); }
    "##;
    let module = Module::of(Path::new("upstream/link.rs"));
    let used: Vec<_> =
        module.uses(&tokens(source)).into_iter().map(|(name, line)| format!("{line} {name}")).collect();
    assert_eq!(used, ["4 hub", "5 config", "5 sse", "5 shape", "9 http", "9 metrics"]);
    let top = Module::of(Path::new("upstream/mod.rs"));
    let used = top.uses(&tokens("use super::http::x; mod tests { use super::*; use super::link::Link; }"));
    assert_eq!(used, [("http".to_owned(), 1)]);
}

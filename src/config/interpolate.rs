//! `${NAME}` and `$$` inside values, and values that name a file with `file:`. What comes from
//! either is taken for a secret: it is never quoted. Called by [`super::walk`] for values alone,
//! never for keys.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Why a value cannot be filled in; `at` and `len` are bytes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub len: usize,
    pub what: String,
}

/// Replaces every `${NAME}` by what `env` gives and every `$$` by a dollar.
///
/// # Errors
/// Every fault of the value.
pub(super) fn expand<'t>(
    raw: &'t str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'t, str>, Vec<Fault>> {
    if !raw.contains('$') {
        return Ok(Cow::Borrowed(raw));
    }
    let (mut text, mut faults) = (String::new(), Vec::new());
    let mut rest = raw;
    while let Some(dollar) = rest.find('$') {
        text.push_str(&rest[..dollar]);
        let at = raw.len() - rest.len() + dollar;
        let after = &rest[dollar + 1..];
        rest = if let Some(next) = after.strip_prefix('$') {
            text.push('$');
            next
        } else {
            match variable(after) {
                Ok((name, next)) => {
                    match env(name) {
                        Some(value) => text.push_str(&value),
                        None => faults.push(Fault {
                            at,
                            len: name.len() + 3,
                            what: format!("the environment has no variable `{name}`; set it, or write `$$` if a dollar is meant"),
                        }),
                    }
                    next
                }
                Err(what) => {
                    faults.push(Fault { at, len: 1, what });
                    after
                }
            }
        };
    }
    text.push_str(rest);
    if faults.is_empty() { Ok(Cow::Owned(text)) } else { Err(faults) }
}

/// Whether a value names a file that holds it.
pub(super) fn file_of(raw: &str) -> Option<&str> {
    raw.strip_prefix("file:")
}

/// Whether a value, as written, takes something from outside the file.
pub(super) fn is_indirect(raw: &str) -> bool {
    raw.contains("${") || file_of(raw).is_some()
}

/// The content of a file that holds a value, without the line break that ends it.
pub(super) fn without_line_end(mut content: String) -> String {
    if content.ends_with('\n') {
        content.pop();
        content.truncate(content.strip_suffix('\r').unwrap_or(&content).len());
    }
    content
}

/// Reads a whole file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// Why not, to follow "cannot read `path`: ".
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > MAX_FILE {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(bytes)
}

/// The largest file of any sort that the configuration reads, itself included.
pub(super) const MAX_FILE: usize = 1 << 20;

/// Splits `{NAME}rest`.
fn variable(after: &str) -> Result<(&str, &str), String> {
    let Some(inner) = after.strip_prefix('{') else {
        return Err("a lone `$` means nothing; write `$$` for a dollar, or `${NAME}` for a variable of the environment".to_owned());
    };
    let close = inner.find('}').ok_or("`${` has no `}`; write `$$` if a dollar is meant")?;
    let name = &inner[..close];
    if is_name(name) {
        return Ok((name, &inner[close + 1..]));
    }
    Err("`${…}` must hold the name of a variable, of letters, digits and `_`; write `$$` if a dollar is meant".to_owned())
}

/// Whether a text is a name as shells and path parameters have them.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "A").then(|| "1$${B}".to_owned())
    }

    #[test]
    fn variables_and_dollars() {
        assert_eq!(expand("plain", &env).unwrap(), "plain");
        assert_eq!(expand("x${A}y$$z$$", &env).unwrap(), "x1$${B}y$z$");
        assert_eq!(expand("$${A}", &env).unwrap(), "${A}");
    }

    #[test]
    fn every_fault_with_its_place() {
        let faults = expand("a${B}b$c${}${A", &env).unwrap_err();
        let places: Vec<(usize, usize)> = faults.iter().map(|f| (f.at, f.len)).collect();
        assert_eq!(places, [(1, 4), (6, 1), (8, 1), (11, 1)]);
        assert!(faults[0].what.contains("no variable `B`"));
        assert!(faults[1].what.contains("write `$$` for a dollar"));
        assert!(faults[2].what.contains("must hold the name"));
        assert!(faults[3].what.contains("has no `}`"));
    }

    #[test]
    fn one_line_break_is_no_part_of_a_value() {
        for (content, value) in
            [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("\n", ""), ("", "")]
        {
            assert_eq!(without_line_end(content.to_owned()), value);
        }
    }
}

//! What people write where CEL has another word or sign: told in place of what its parser says. Pure.

use super::Flaw;

/// The first of them in `text`, which is no expression.
pub(super) fn first(text: &str) -> Option<Flaw> {
    let (mut at, mut quote, mut before) = (0, None, None);
    while let Some(c) = text[at..].chars().next() {
        let length = match quote {
            Some(_) if c == '\\' => c.len_utf8() + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            Some(end) => {
                quote = Some(end).filter(|end| *end != c);
                c.len_utf8()
            }
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                c.len_utf8()
            }
            None => {
                let word = word(&text[at..]);
                let is_member = before == Some('.');
                if let Some((_, right)) =
                    SLIPS.iter().find(|(slip, _)| !is_member && word.eq_ignore_ascii_case(slip))
                {
                    let what = match word {
                        "=" => "`=` compares nothing in CEL; write `==`".to_owned(),
                        _ => format!("this is not an expression in CEL: write `{right}` for `{word}`"),
                    };
                    return Some(Flaw { at: at..at + word.len(), what });
                }
                word.len()
            }
        };
        before = text[at..at + length].chars().next_back().filter(|c| !c.is_whitespace()).or(before);
        at += length;
    }
    None
}

/// The word or sign that a text begins with, which has a character at least.
fn word(text: &str) -> &str {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let is_sign = |c: char| matches!(c, '=' | '!' | '<' | '>' | '&' | '|');
    let end = |is: &dyn Fn(char) -> bool| text.find(|c| !is(c)).unwrap_or(text.len());
    match text.chars().next() {
        Some(c) if is_letter(c) => &text[..end(&is_letter)],
        Some(c) if is_sign(c) => &text[..end(&is_sign)],
        c => &text[..c.map_or(0, char::len_utf8)],
    }
}

/// Each with what is right.
const SLIPS: [(&str, &str); 9] = [
    ("=", "=="),
    ("===", "=="),
    ("!==", "!="),
    ("<>", "!="),
    ("&", "&&"),
    ("|", "||"),
    ("and", "&&"),
    ("or", "||"),
    ("not", "!"),
];

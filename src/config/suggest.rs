//! "did you mean": the nearest of a few known names. Pure.

/// ``; did you mean `x`?`` where one of `known` is near to `word`, else a list of them introduced by
/// `lead`, such as "it takes".
pub(super) fn hint<'k>(word: &str, known: impl IntoIterator<Item = &'k str>, lead: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, &known) {
        Some(name) => format!("; did you mean `{name}`?"),
        None if known.is_empty() => String::new(),
        None if known.len() > LISTED => String::new(),
        None => format!("; {lead} {}", list(&known, "and")),
    }
}

/// A longer list helps nobody.
const LISTED: usize = 16;

/// `` `a`, `b` and `c` ``, with `last` as the word before the last one.
pub(super) fn list(names: &[&str], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The name that a slip of the finger turns into `word`: at most a third of its letters differ.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let reach = (word.chars().count() / 3).max(1);
    let near = known.iter().map(|name| (distance(&word, &name.to_lowercase()), *name));
    near.filter(|(far, name)| *far <= reach && *far < name.chars().count())
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// A longer word is no slip of the finger, and the distance is quadratic.
const LONGEST: usize = 64;

/// Edit distance with neighbours swapped counting once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// A key or kind with its article: "a `topic`", "an `exchange`".
pub(super) fn one(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} `{name}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["channel", "pattern", "topic"];
        assert_eq!(nearest("chanel", &known), Some("channel"));
        assert_eq!(nearest("Channel", &known), Some("channel"));
        assert_eq!(nearest("tpoic", &known), Some("topic"));
        assert_eq!(nearest("stream", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(100_000), &known), None);
        assert_eq!(nearest("x", &["y"]), None);
    }

    #[test]
    fn hints_read_well() {
        assert_eq!(hint("topik", ["topic", "start"], "it takes"), "; did you mean `topic`?");
        assert_eq!(hint("zzz", ["a1", "b1", "c1"], "it takes"), "; it takes `a1`, `b1` and `c1`");
        assert_eq!(hint("zzz", ["a1"], "it has"), "; it has `a1`");
        assert_eq!(hint("zzz", [], "it takes"), "");
        assert_eq!(hint("zzz", ["a1"; 17], "it takes"), "");
    }
}

//! Text for terminals: nothing in it commands them, tables stand in columns, numbers are readable.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// Prints to standard output. Whoever reads may leave before the end, as `head` does.
///
/// # Errors
/// There is no room for it, on a full disk for example.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// The text without anything that a terminal would obey: control characters but for tabs and line breaks are written out.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => plain.push(c),
            c if c.is_control() => plain.extend(c.escape_unicode()),
            c => plain.push(c),
        }
    }
    plain
}

/// JSON without anything that a terminal would obey: it escapes the control characters of ASCII by itself, and there are more.
pub(super) fn plain_json(json: &str) -> Cow<'_, str> {
    // Between values, where it is written over several lines.
    let is_obeyed = |c: char| c.is_control() && c != '\n';
    if !json.contains(is_obeyed) {
        return Cow::Borrowed(json);
    }
    let escape = |c: char| if is_obeyed(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    Cow::Owned(json.chars().map(escape).collect())
}

/// Rows in columns, each as wide as its widest cell; the last is not filled up.
pub(super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Bytes, to three digits.
pub(super) fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1000.0 {
            let digits = if unit == "B" || amount >= 99.95 { 0 } else { 1 };
            return format!("{amount:.digits$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows =
            [vec!["a".into(), "bb".into()], vec!["ccc".into(), String::new()], vec!["é".into(), "d".into()]];
        assert_eq!(columns(&rows), ["a    bb", "ccc", "é    d"]);
        assert_eq!(columns(&[]), [] as [&str; 0]);
    }

    #[test]
    fn sizes() {
        for (size, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (512 << 20, "512 MiB"),
            (3 << 40, "3.0 TiB"),
            (9 << 50, "9216.0 TiB"),
        ] {
            assert_eq!(bytes(size), shown);
        }
    }
}

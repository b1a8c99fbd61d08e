//! Durations and sizes as people write them: `1h30m`, `8MiB`. Pure, both ways.

use std::fmt::Write as _;
use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `250ms`, `15s`, `10m`, `1h`, `7d`, sums such as `1h30m`, and `0`.
///
/// # Errors
/// What is wrong, to follow the quoted value: "has no unit; …".
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("has no unit; write `{text}s` for seconds, or use `ms`, `m`, `h` or `d`"));
    }
    let mut rest = text;
    let (mut total, mut last) = (0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(no_duration)?;
        let factor = find(&DURATION_UNITS, unit)
            .ok_or_else(|| format!("has an unknown unit `{unit}`; units are `ms`, `s`, `m`, `h` and `d`"))?;
        if factor >= last {
            return Err("is out of order; write larger units first and each once, such as `1h30m`".to_owned());
        }
        let part = number.checked_mul(factor).and_then(|part| total.checked_add(part));
        (total, last, rest) = (part.ok_or_else(too_large)?, factor, after);
    }
    if last == u64::MAX { Err(no_duration()) } else { Ok(Duration::from_millis(total)) }
}

/// Reads `64KiB`, `8MiB`, `100KB`, `512B` and plain bytes.
///
/// # Errors
/// What is wrong, to follow the quoted value.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let none = || {
        "is not a size; write a whole number with a unit, such as `64KiB` or `8MiB`, or plain bytes"
            .to_owned()
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| too_large());
    }
    let (number, unit, after) = number_and_unit(text).ok_or_else(none)?;
    if !after.is_empty() {
        return Err(none());
    }
    let factor = find(&SIZE_UNITS, unit).ok_or_else(|| {
        format!("has an unknown unit `{unit}`; units are `B`, `KiB`, `MiB`, `GiB`, `TiB` (of 1024) and `KB`, `MB`, `GB`, `TB` (of 1000)")
    })?;
    number.checked_mul(factor).ok_or_else(too_large)
}

/// The shortest exact way to write it: `1m30s`.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        if rest >= factor {
            _ = write!(text, "{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    text
}

/// The shortest exact way to write it: `8MiB`.
pub(super) fn show_size(bytes: usize) -> String {
    let bytes = bytes as u64;
    let binary = SIZE_UNITS[..4].iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    binary.map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Splits `30m15s` into 30, `m` and `15s`.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    let tail = &text[digits..];
    let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
    (letters > 0).then(|| (number, &tail[..letters], &tail[letters..]))
}

fn find(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

fn no_duration() -> String {
    "is not a duration; write whole numbers with units, such as `250ms`, `15s` or `1h30m`".to_owned()
}

fn too_large() -> String {
    "is too large a number".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text: &str| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("15s"), Ok(15_000));
        assert_eq!(ms("10m"), Ok(600_000));
        assert_eq!(ms("7d"), Ok(604_800_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("1m500ms"), Ok(60_500));
        assert_eq!(ms("0"), Ok(0));
        assert_eq!(ms("0s"), Ok(0));
    }

    #[test]
    fn no_durations() {
        let why = |text: &str| parse_duration(text).unwrap_err();
        assert!(why("15").starts_with("has no unit; write `15s`"));
        for text in ["", "s", "1.5s", "-1s", "1 s", "15s ", "1h 30m", "é"] {
            assert!(why(text).starts_with("is not a duration"), "{text}");
        }
        assert!(why("15sec").contains("unknown unit `sec`"));
        assert!(why("10M").contains("unknown unit `M`"));
        assert!(why("30m1h").contains("out of order"));
        assert!(why("1s1s").contains("out of order"));
        assert!(why("99999999999999999d").contains("too large"));
        assert!(why("99999999999999999999999d").contains("not a duration"));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("8MiB"), Ok(8 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("100KB"), Ok(100_000));
        assert_eq!(parse_size("512B"), Ok(512));
        assert_eq!(parse_size("4096"), Ok(4096));
        for text in ["", "MiB", "1.5MiB", "-1", "8 MiB", "8MiB1", "1_000"] {
            assert!(parse_size(text).unwrap_err().starts_with("is not a size"), "{text}");
        }
        assert!(parse_size("8M").unwrap_err().contains("unknown unit `M`"));
        assert!(parse_size("99999999TiB").unwrap_err().contains("too large"));
        assert!(parse_size("99999999999999999999999").unwrap_err().contains("too large"));
    }

    #[test]
    fn shown_as_written() {
        for text in ["0", "250ms", "15s", "1m30s", "7d", "1h", "1d1ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["0", "512", "64KiB", "8MiB", "1GiB", "1500", "2TiB"] {
            let size = usize::try_from(parse_size(text).unwrap()).unwrap();
            assert_eq!(show_size(size), text);
        }
    }
}

//! What is said of text that is not YAML: the parser's finding in words that tell what to do. Quotes
//! nothing of the text. Called by [`super::tree`].

use serde_yaml::granit_parser::ErrorKind;

use super::tree::DEPTH;

/// Explains an error at byte `at` of `text`; the usual mistakes have words of their own.
pub(super) fn explain(kind: &ErrorKind, text: &str, at: usize) -> String {
    let start = text.get(..at).and_then(|head| head.rfind('\n')).map_or(0, |newline| newline + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let separator = |close: char| {
        let hint = if line.contains("[::]") {
            "put an address such as `\"[::]:8443\"` in quotes"
        } else {
            "put a value that holds `{`, `}`, `[`, `]`, `,` or `: ` in quotes, or close what is open"
        };
        format!("expected `,` or `{close}` here; {hint}")
    };
    match kind {
        ErrorKind::RecursionLimitExceeded => {
            format!("collections are nested deeper than {DEPTH} levels; flatten them")
        }
        ErrorKind::DirectiveDisallowed => "a YAML directive has no meaning here; remove the line".to_owned(),
        ErrorKind::UnclosedQuotedScalar => "this quote is not closed; add the other one".to_owned(),
        ErrorKind::UnclosedFlowCollection { open } => format!("this `{open}` is not closed; add its partner"),
        ErrorKind::ExpectedFlowMappingSeparator => separator('}'),
        ErrorKind::ExpectedFlowSequenceSeparator => separator(']'),
        ErrorKind::MissingAnchorOrAliasName => "put text that begins with `*` or `&` in quotes".to_owned(),
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::ExpectedBlockMappingKey => {
            "this line does not go with those above it; align it with the ones it belongs to".to_owned()
        }
        kind => format!("this is not valid YAML: {kind}{}", advice(line)),
    }
}

/// The usual reasons for which a line is not YAML.
fn advice(line: &str) -> &'static str {
    if line.trim_start_matches(' ').starts_with('\t') {
        "; indent with spaces"
    } else if line.contains('{') {
        "; inside `{ … }`, put values that hold `{`, `}`, `,` or `:` in quotes"
    } else if line.contains(": ") {
        "; put a value that holds `: ` in quotes, and check the indentation"
    } else {
        ""
    }
}

//! `log:`: what is logged, and how.

use super::fields::Fields;
use super::keys;
use super::model::{LogFormat, LogLevel, Logging};
use super::tree::Node;
use super::walk::Walk;

/// Reads `log`.
pub(super) fn read(walk: &Walk<'_>, node: Option<&Node>) -> Logging {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::LOG));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let access = fields.as_ref().and_then(|fields| fields.flag("access"));
    let redact = fields.as_ref().and_then(|fields| fields.entry("redact"));
    let is_off =
        access == Some(false) || fields.as_ref().is_some_and(|fields| fields.entry("access").is_none());
    if let (Some(redact), true) = (redact, is_off) {
        walk.problem(redact.key.span, "`redact` is for the access log; add `access: true`, or leave it out");
    }
    Logging {
        format: fields
            .as_ref()
            .and_then(|fields| fields.choice("format", &formats))
            .unwrap_or(LogFormat::Text),
        level: fields.as_ref().and_then(|fields| fields.choice("level", &levels)).unwrap_or(LogLevel::Info),
        access: access.unwrap_or_default(),
        redact: redact.map(|entry| read_names(walk, &entry.value)).unwrap_or_default(),
    }
}

fn read_names(walk: &Walk<'_>, node: &Node) -> Vec<String> {
    let expected = "the name of a parameter of the query, such as `code`";
    let read = |node| Some(walk.text(node, expected)?.text.into_owned());
    walk.one_or_more(node, expected).unwrap_or_default().iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{TAIL, expect, sound};

    fn with(keys: &str) -> String {
        format!("server: {{ tls: none }}\n{keys}{TAIL}")
    }

    #[test]
    fn defaults_and_values() {
        let config = sound(&with(""));
        assert_eq!((config.log.format, config.log.level), (LogFormat::Text, LogLevel::Info));
        let config = sound(&with("log: { format: json, level: trace }\n"));
        assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LogLevel::Trace));
        assert!(!config.log.access && config.log.redact.is_empty());
        let config = sound(&with("log: { access: true, redact: [code, state] }\n"));
        assert!(config.log.access);
        assert_eq!(config.log.redact, ["code", "state"]);
        assert_eq!(sound(&with("log: { access: true, redact: code }\n")).log.redact, ["code"]);
    }

    #[test]
    fn log_problems() {
        expect(
            &with("log: { format: xml }\n"),
            &[(2, 16, "`format` cannot be `xml`; write `text` or `json`")],
        );
        expect(
            &with("log: { level: ${HIDDEN} }\n".replace("${HIDDEN}", "'${HIDDEN}'").as_str()),
            &[(2, 15, "`level` cannot be this value; write `error`, `warn`, `info`, `debug` or `trace`")],
        );
        expect(&with("log: json\n"), &[(2, 6, "expected a mapping, found `json`")]);
        expect(
            &with("log: { lvl: info }\n"),
            &[(2, 8, "unknown key `lvl` in `log`; it takes `format`, `level`, `access` and `redact`")],
        );
        let text = "`redact` is for the access log; add `access: true`, or leave it out";
        expect(&with("log: { redact: [code] }\n"), &[(2, 8, text)]);
        let text = "`1` is neither `true` nor `false`; write one of these";
        expect(&with("log: { access: 1, redact: [code] }\n"), &[(2, 16, text)]);
        let text = "this list is empty; it needs the name of a parameter of the query, such as `code`";
        expect(&with("log: { access: true, redact: [] }\n"), &[(2, 30, text)]);
    }
}

//! `log:` and `limits:`: what holds for the whole process.

use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Limits, LogFormat, LogLevel, Logging};
use super::tree::Node;
use super::walk::Walk;

const MIB: usize = 1 << 20;

const MEMORY: Bounds<usize> = Bounds { default: 512 * MIB, min: 16 * MIB, max: MIB << 20 };

const WRITE_STALL: Bounds<Duration> =
    Bounds { default: Duration::from_secs(30), min: Duration::from_secs(1), max: Duration::from_mins(10) };

const MAX_EVENT: Bounds<usize> = Bounds { default: MIB, min: 1 << 10, max: 64 * MIB };

/// Reads `log`.
pub(super) fn read_log(walk: &Walk<'_>, node: Option<&Node>) -> Logging {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::LOG));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    Logging {
        format: fields
            .as_ref()
            .and_then(|fields| fields.choice("format", &formats))
            .unwrap_or(LogFormat::Text),
        level: fields.as_ref().and_then(|fields| fields.choice("level", &levels)).unwrap_or(LogLevel::Info),
    }
}

/// Reads `limits`.
pub(super) fn read_limits(walk: &Walk<'_>, node: Option<&Node>) -> Limits {
    let fields = node.and_then(|node| Fields::open(walk, node, keys::LIMITS));
    let size = |key, bounds: &Bounds<usize>| {
        fields.as_ref().and_then(|fields| fields.size(key, bounds)).unwrap_or(bounds.default)
    };
    Limits {
        memory: size("memory", &MEMORY),
        write_stall: fields
            .as_ref()
            .and_then(|fields| fields.duration("write_stall", &WRITE_STALL))
            .unwrap_or(WRITE_STALL.default),
        max_event: size("max_event", &MAX_EVENT),
    }
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
        assert_eq!((config.limits.memory, config.limits.max_event), (512 * MIB, MIB));
        assert_eq!(config.limits.write_stall.as_secs(), 30);
        let config = sound(&with(
            "log: { format: json, level: trace }\nlimits: { memory: 1GiB, write_stall: 1m, max_event: 1024 }\n",
        ));
        assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LogLevel::Trace));
        assert_eq!((config.limits.memory, config.limits.max_event), (1024 * MIB, 1024));
        assert_eq!(config.limits.write_stall.as_secs(), 60);
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
            &[(2, 8, "unknown key `lvl` in `log`; it takes `format` and `level`")],
        );
    }

    #[test]
    fn limits_problems() {
        expect(
            &with("limits: { memory: 15MiB }\n"),
            &[(2, 19, "`15MiB` is out of bounds; it must be from 16MiB to 1TiB")],
        );
        expect(
            &with("limits: { memory: 512M }\n"),
            &[(2, 19, "`512M` has an unknown unit `M`; units are `B`, `KiB`")],
        );
        expect(
            &with("limits: { memory: '${HIDDEN}' }\n"),
            &[(2, 19, "this value is not a size such as `8MiB`")],
        );
        expect(
            &with("limits: { write_stall: 500ms }\n"),
            &[(2, 24, "`500ms` is out of bounds; it must be from 1s to 10m")],
        );
        expect(&with("limits: { max_event: 65MiB }\n"), &[(2, 22, "it must be from 1KiB to 64MiB")]);
        expect(
            &with("limits: { max_event: [1] }\n"),
            &[(2, 22, "expected a size such as `8MiB`, found a list")],
        );
        expect(&with("limits: { max_event: }\n"), &[(2, 11, "`max_event` has no value")]);
    }
}

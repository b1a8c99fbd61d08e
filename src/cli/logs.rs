//! Where log lines go: standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogLevel, Logging};
use crate::http;

/// Begins logging. `RUST_LOG` wins over the configured level.
pub(super) fn init(logging: &Logging) {
    let level = match logging.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // librdkafka, lapin, h2 and rustls speak in their own names, and only when asked to. What the latter two warn of is what
    // clients do, who could fill the log with it; we count it.
    let access = http::ACCESS_LOG;
    let default = format!(
        "warn,ssegate={level},{access}=info,librdkafka=off,rdkafka=off,lapin=off,h2=error,rustls=error"
    );
    let set = std::env::var("RUST_LOG").ok().filter(|set| !set.is_empty());
    let filter = set.and_then(|set| EnvFilter::try_new(set).ok()).unwrap_or_else(|| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second init would be a defect; it is not worth ending the process for.
    let _ = match logging.format {
        LogFormat::Text => {
            lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).finish().try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
}

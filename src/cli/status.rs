//! `ssegate status`: how a running ssegate is, of its admin listener, as a table or as it tells it. It reads what it
//! knows of the document, and takes nothing for granted: the server may be of another version.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::operator::{self, Operator};
use super::text::{self, bytes, columns, plain};

/// The arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS)]
pub(super) struct Options {
    #[command(flatten)]
    operator: operator::Options,
    /// Print the document as it is
    #[arg(long)]
    json: bool,
    /// Ask for nothing but whether it is ready, as health checks do: exit status 0 or 1
    #[arg(long, conflicts_with = "json")]
    ready: bool,
}

const STATUS: &str = "Exit status: 0 when all is well, 1 when there is no answer, 2 when an upstream is down or the \
process is draining.";

/// Asks once, and prints the answer.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&options.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if options.ready {
        let (ready, said) = runtime.block_on(operator.ready()).with_context(|| no_answer(&operator))?;
        text::print(&plain(&said))?;
        return Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let document = runtime.block_on(operator.status());
    let document = document.with_context(|| no_answer(&operator))?;
    match options.json {
        true => text::print(&text::plain_json(&format!("{document:#}\n")))?,
        false => text::print(&render(&document, SystemTime::now()))?,
    }
    Ok(if is_well(&document) { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
}

/// What to say where nobody answers.
pub(super) fn no_answer(operator: &Operator) -> String {
    format!(
        "no answer from {}; is `ssegate serve` running, and is this its `admin.listen`? Say where it is with --admin \
         or --config",
        operator.name()
    )
}

/// Whether nothing needs anybody.
fn is_well(document: &Value) -> bool {
    !is_draining(document) && entries(document, "upstreams").all(|upstream| upstream["up"] != false)
}

fn is_draining(document: &Value) -> bool {
    document["draining"] == true
}

/// The whole table.
fn render(document: &Value, now: SystemTime) -> String {
    let mut lines = head(document, now);
    for table in [upstreams(document, now), routes(document)] {
        if table.len() > 1 {
            lines.push(String::new());
            lines.extend(columns(&table));
        }
    }
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The process, in a few lines.
pub(super) fn head(document: &Value, now: SystemTime) -> Vec<String> {
    let mut first = format!("ssegate {}", word(&document["version"]));
    if let Some(up) = since(&document["started"], now) {
        let _ = write!(first, ", up {up}");
    }
    first.push_str(if is_draining(document) { ", DRAINING" } else { "" });
    let (memory, connections) = (&document["memory"], &document["connections"]);
    let of = |limit: Option<String>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let size = |value: &Value| value.as_u64().map(bytes);
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: Option<String>| {
        facts.extend(value.map(|value| vec![format!("  {name}"), value]));
    };
    fact("subscribers", document["subscribers"].as_u64().map(|count| count.to_string()));
    fact("memory", size(&memory["used"]).map(|used| format!("{used}{}", of(size(&memory["limit"])))));
    let open = connections["open"].as_u64();
    let limit = connections["limit"].as_u64().map(|limit| limit.to_string());
    fact("connections", open.map(|open| format!("{open}{}", of(limit))));
    let refused = document["config"]["last_error"]["error"].as_str();
    fact("configuration", refused.map(|error| format!("REFUSED: {}", line(error))));
    std::iter::once(first).chain(columns(&facts)).collect()
}

/// A row for each upstream, below their titles.
pub(super) fn upstreams(document: &Value, now: SystemTime) -> Vec<Vec<String>> {
    let mut rows = vec![titles(&["UPSTREAM", "KIND", "STATE", "FOR", "RECONNECTS", "LAST ERROR"])];
    rows.extend(entries(document, "upstreams").map(|upstream| {
        let state = match upstream["up"].as_bool() {
            Some(true) => "up",
            Some(false) => "DOWN",
            None => "-",
        };
        let last = &upstream["last_error"];
        let error = match (last["error"].as_str(), since(&last["at"], now)) {
            (Some(error), Some(at)) => format!("{} ({at} ago)", line(error)),
            (Some(error), None) => line(error),
            _ => "-".to_owned(),
        };
        vec![
            word(&upstream["name"]),
            word(&upstream["kind"]),
            state.to_owned(),
            since(&upstream["since"], now).unwrap_or_else(|| "-".to_owned()),
            word(&upstream["reconnects"]),
            error,
        ]
    }));
    rows
}

fn routes(document: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![titles(&["ROUTE", "UPSTREAM", "SUBSCRIBERS", "EVENTS", "SENT"])];
    rows.extend(entries(document, "routes").map(|route| {
        vec![
            word(&route["route"]),
            word(&route["upstream"]),
            word(&route["subscribers"]),
            word(&route["events_out"]),
            route["bytes_out"].as_u64().map_or_else(|| "-".to_owned(), bytes),
        ]
    }));
    rows
}

/// The entries of a list of the document.
pub(super) fn entries<'d>(document: &'d Value, name: &str) -> impl Iterator<Item = &'d Value> + use<'d> {
    document[name].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// Titles of columns.
pub(super) fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(ToString::to_string).collect()
}

/// A value as a cell.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => line(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => "-".to_owned(),
    }
}

fn line(text: &str) -> String {
    plain(&text.replace(['\n', '\t'], " "))
}

/// How long ago a time was, to its two largest units.
fn since(time: &Value, now: SystemTime) -> Option<String> {
    let then = humantime::parse_rfc3339(time.as_str()?).ok()?;
    // Clocks may differ.
    let passed = Duration::from_secs(now.duration_since(then).unwrap_or_default().as_secs());
    let shown = humantime::format_duration(passed).to_string();
    Some(shown.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

const UNWELL: u8 = 2;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "version": "1.2.3",
            "started": "2026-01-01T00:00:00.000Z",
            "draining": false,
            "subscribers": 7,
            "memory": { "used": 1_572_864, "limit": 536_870_912_u64 },
            "connections": { "open": 9, "limit": 10_000 },
            "upstreams": [
                { "name": "cache", "kind": "redis", "up": true, "since": "2026-01-01T01:00:00Z", "reconnects": 0, "last_error": null },
                { "name": "bus", "kind": "kafka", "up": true, "since": "2026-01-01T01:00:00Z", "reconnects": 3,
                  "last_error": { "error": "gone\n\u{1b}[2J", "at": "2026-01-01T02:03:04Z" } },
            ],
            "routes": [ { "route": "/news", "upstream": "cache", "subscribers": 7, "events_out": 12, "bytes_out": 2048 } ],
        })
    }

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-01T02:04:05Z").unwrap()
    }

    #[test]
    fn a_table() {
        let expected = "\
ssegate 1.2.3, up 2h 4m
  subscribers  7
  memory       1.5 MiB of 512 MiB
  connections  9 of 10000

UPSTREAM  KIND   STATE  FOR    RECONNECTS  LAST ERROR
cache     redis  up     1h 4m  0           -
bus       kafka  up     1h 4m  3           gone \\u{1b}[2J (1m 1s ago)

ROUTE  UPSTREAM  SUBSCRIBERS  EVENTS  SENT
/news  cache     7            12      2.0 KiB
";
        assert_eq!(render(&document(), now()), expected);
    }

    #[test]
    fn what_needs_somebody() {
        let mut document = document();
        assert!(is_well(&document));
        document["upstreams"][0]["up"] = json!(false);
        assert!(!is_well(&document) && render(&document, now()).contains("redis  DOWN"));
        document["upstreams"][0]["up"] = json!(true);
        document["draining"] = json!(true);
        assert!(!is_well(&document) && render(&document, now()).contains(", DRAINING\n"));
    }

    #[test]
    fn a_configuration_that_was_refused_is_told() {
        let mut document = document();
        document["config"] =
            json!({ "generation": 2, "last_error": { "error": "c.yaml:1:2: bad", "at": "x" } });
        assert!(render(&document, now()).contains("  configuration  REFUSED: c.yaml:1:2: bad\n"));
    }

    #[test]
    fn a_document_of_another_version_is_read_as_far_as_it_goes() {
        for document in [json!({}), json!([]), json!({ "upstreams": 7, "routes": [7], "started": "x" })] {
            assert!(render(&document, now()).starts_with("ssegate -\n"), "{document}");
            assert!(is_well(&document));
        }
    }
}

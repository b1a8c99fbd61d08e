//! The lines of a file, as `tail -F` reads them: appended, rotated by name and by truncation, and what was there before.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventsource::{EventSource, Options};
use crate::support::scratch;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

struct Log {
    path: PathBuf,
    file: File,
    _dir: TempDir,
}

impl Log {
    fn new() -> Self {
        let dir = scratch::dir("log");
        let path = dir.path().join("app.log");
        Self { file: open(&path), path, _dir: dir }
    }

    fn write(&mut self, text: impl AsRef<[u8]>) {
        self.file.write_all(text.as_ref()).unwrap();
    }

    fn lines(&mut self, numbers: std::ops::Range<usize>) {
        self.write(numbers.map(|n| format!("{n}\n")).collect::<String>());
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn config(path: &Path) -> String {
    format!(
        r#"
limits: {{ max_event: 1KiB }}
upstreams: {{ log: {{ file: {{ path: "{}" }} }} }}
routes:
  - {{ path: /log, from: {{ upstream: log }} }}
  - {{ path: /all, from: {{ upstream: log, start: earliest }} }}
  - {{ path: "/named/{{name}}", from: {{ upstream: log, start: earliest }}, event: "{{name}}" }}
"#,
        path.display()
    )
}

async fn connect(ssegate: &Ssegate, path: &str) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), Options::http1()).await;
    stream.next_named("stream.position").await;
    stream
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn each_line_that_is_appended_is_an_event() {
    let mut log = Log::new();
    log.write("before\n");
    let ssegate = Ssegate::start(config(&log.path)).await;
    let mut stream = connect(&ssegate, "/log").await;
    log.write("one\r\n\ntw");
    assert_eq!(stream.next_data(2).await, ["one", ""]);
    log.write("o\nthree");
    assert_eq!(stream.next_data(1).await, ["two"], "the last line is not whole");
    log.write("\n");
    assert_eq!(stream.next_data(1).await, ["three"]);
    let id = stream.events()[2].id.clone();
    let mut resumed = EventSource::connect(ssegate.url("/log"), Options::http2().resume(&id)).await;
    assert_eq!(resumed.next_data(2).await, ["two", "three"]);
    assert_eq!(ssegate.metrics().await.sum("ssegate_upstream_up", &[("upstream", "log")]), 1.0);
}

#[tokio::test]
async fn lines_are_of_a_file_by_its_name_alone() {
    let mut log = Log::new();
    log.write("before\n");
    let more = "  - { path: /wrapped, from: { upstream: log, start: earliest }, wrap: envelope }\n";
    let ssegate = Ssegate::start(format!("{}{more}", config(&log.path))).await;
    let mut stream = connect(&ssegate, "/wrapped").await;
    for text in ["before", "after"] {
        let event = stream.next_message().await;
        let told: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((&told["channel"], &told["data"]), (&json!("app.log"), &json!(text)));
        log.write("after\n");
    }
}

#[tokio::test]
async fn what_was_there_before_is_history_as_far_as_memory_goes() {
    let mut log = Log::new();
    log.lines(0..2_000);
    log.write("half");
    let ssegate = Ssegate::start(config(&log.path)).await;
    let mut all = connect(&ssegate, "/all").await;
    // `history.events` is 1,000; what is more is let go in pieces, and where somebody reads not at once.
    let first = all.next_message().await.data.parse::<usize>().unwrap();
    assert!(first <= 1_000, "{first}");
    for n in first + 1..2_000 {
        assert_eq!(all.next_message().await.data, n.to_string());
    }
    log.write(" of it\n");
    assert_eq!(all.next_data(1).await, ["half of it"]);
    // A feed that comes later begins as the others did.
    let mut named = connect(&ssegate, "/named/x").await;
    let begun = named.next_message().await;
    assert_eq!((&*begun.event, begun.data.parse::<usize>().unwrap() <= 1_001), ("x", true));
    log.lines(2_000..2_001);
    for stream in [&mut all, &mut named] {
        while stream.next_message().await.data != "2000" {}
    }
}

#[tokio::test]
async fn a_file_that_is_renamed_is_read_to_its_end_and_then_the_new_one() {
    let mut log = Log::new();
    let ssegate = Ssegate::start(config(&log.path)).await;
    let mut stream = connect(&ssegate, "/log").await;
    let mut expected = 0;
    for round in 0..3 {
        log.lines(expected..expected + 10);
        fs::rename(&log.path, log.path.with_extension(round.to_string())).unwrap();
        // Whoever writes goes on with the old one for a while, though the new one is there.
        let mut new = open(&log.path);
        log.lines(expected + 10..expected + 20);
        assert_eq!(stream.next_data(20).await, numbers(expected..expected + 20));
        log.write(format!("{}", expected + 20));
        writeln!(new, "{}", expected + 21).unwrap();
        log.file = new;
        assert_eq!(stream.next_data(2).await, numbers(expected + 20..expected + 22));
        expected += 22;
    }
}

/// The reader is always in the middle of a file that is renamed. (Twice between two looks would be too fast for it.)
#[tokio::test]
async fn nothing_is_missing_while_it_is_rotated_under_load() {
    const LINES: usize = 2_500;
    let mut log = Log::new();
    let ssegate = Ssegate::start(config(&log.path)).await;
    let mut stream = connect(&ssegate, "/log").await;
    let mut expected = 0;
    for (round, begin) in (0..20 * LINES).step_by(LINES).enumerate() {
        log.lines(begin..begin + LINES / 2);
        while expected <= begin {
            assert_eq!(stream.next_message().await.data, expected.to_string());
            expected += 1;
        }
        log.lines(begin + LINES / 2..begin + LINES);
        fs::rename(&log.path, log.path.with_extension(round.to_string())).unwrap();
        log.file = open(&log.path);
    }
    for n in expected..20 * LINES {
        assert_eq!(stream.next_message().await.data, n.to_string());
    }
}

#[tokio::test]
async fn a_truncation_is_told_and_reading_begins_anew() {
    let mut log = Log::new();
    log.lines(0..10);
    let ssegate = Ssegate::start(config(&log.path)).await;
    let mut stream = connect(&ssegate, "/log").await;
    log.write("lost in part");
    fs::copy(&log.path, log.path.with_extension("1")).unwrap();
    log.file.set_len(0).unwrap();
    let gap = stream.next_gap().await;
    assert_eq!((&gap["reason"], gap["missed"].is_null()), (&json!("trimmed"), true));
    let position = stream.next().await;
    assert_eq!(position.event, "stream.position");
    log.write("first\n");
    assert_eq!(stream.next_message().await.data, "first");
    // The gap is one of the log's entries, and so is in replay.
    let mut all = connect(&ssegate, "/all").await;
    assert_eq!(all.next_gap().await["reason"], "trimmed");
    ssegate.wait_log("the gap", |line| line["reason"] == "trimmed").await;
}

#[tokio::test]
async fn a_file_that_is_not_there_is_waited_for() {
    let dir = scratch::dir("log");
    let path = dir.path().join("later/app.log");
    let ssegate = Ssegate::start(config(&path)).await;
    ssegate
        .wait_log("the trouble", |line| {
            line["cause"].as_str().is_some_and(|cause| cause.contains("No such file"))
        })
        .await;
    eventually("it to be ready", async || match ssegate.admin_get("/readyz").await.status.as_u16() {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
    let mut stream = EventSource::connect(ssegate.url("/all"), Options::http1()).await;
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "first\n").unwrap();
    assert_eq!(stream.next_message().await.data, "first");
    fs::remove_file(&path).unwrap();
    ssegate
        .wait_log("that it is gone", |line| {
            line["cause"].as_str().is_some_and(|cause| cause.contains("still read"))
        })
        .await;
    fs::write(&path, "second\n").unwrap();
    assert_eq!(stream.next_message().await.data, "second");
}

#[tokio::test]
async fn lines_that_cannot_be_sent_are_gaps() {
    let mut log = Log::new();
    let ssegate = Ssegate::start(config(&log.path)).await;
    let mut stream = connect(&ssegate, "/log").await;
    for _ in 0..30 {
        log.write("x".repeat(100));
    }
    log.write("\nshort\n");
    assert_eq!(stream.next_gap().await["reason"], "too_large");
    assert_eq!(stream.next_message().await.data, "short");
    log.write(b"\xff\xfe\nnext\n");
    assert_eq!(stream.next_gap().await["reason"], "undecodable");
    assert_eq!(stream.next_message().await.data, "next");
}

#[tokio::test]
async fn ids_of_another_run_are_unknown_and_history_follows() {
    let mut log = Log::new();
    log.lines(0..3);
    let mut ssegate = Ssegate::start(config(&log.path)).await;
    let mut stream = connect(&ssegate, "/all").await;
    stream.next_data(3).await;
    let id = stream.last_event_id().to_owned();
    ssegate.terminate().await;
    let again = Ssegate::start(config(&log.path)).await;
    let mut stream = EventSource::connect(again.url("/all"), Options::http1().resume(&id)).await;
    assert_eq!(stream.next_gap().await["reason"], "unknown_id");
    assert_eq!(stream.next_data(3).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn what_is_no_file_is_told() {
    let dir = scratch::dir("log");
    let ssegate = Ssegate::start(config(dir.path())).await;
    ssegate
        .wait_log("the trouble", |line| {
            line["cause"].as_str().is_some_and(|cause| cause.contains("no regular file"))
        })
        .await;
}

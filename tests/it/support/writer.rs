//! Payloads as other programs write them: `tests/decode/write.py`, with Confluent's serializers and other implementations
//! of each format, in an environment of its own. `target/python` keeps that; pip fills it once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::kafka::{Record, say};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decode");

/// What was written: a payload, and headers to send along.
#[derive(Debug, Clone)]
pub struct Written {
    /// The payload.
    pub payload: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Written {
    /// As a record of a topic.
    pub fn to(&self, topic: &str) -> Record {
        let record = Record::to(topic).payload(&self.payload);
        self.headers.iter().fold(record, |record, (name, value)| record.header(name, value))
    }
}

/// The records of a scenario of `write.py`, with these further arguments.
pub async fn write(scenario: &str, args: &[&str]) -> Vec<Written> {
    let args: Vec<String> = [scenario].iter().chain(args).map(|&arg| arg.to_owned()).collect();
    let run = move || {
        let python = PYTHON.as_ref().unwrap_or_else(|why| panic!("there is no Python to write with: {why}"));
        let mut command = Command::new(python);
        command.arg(format!("{FOLDER}/write.py")).args(args).stdin(Stdio::null());
        let output = command.output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "write.py: {errors}");
        serde_json::from_slice::<Vec<Value>>(&output.stdout).expect("JSON")
    };
    let written = tokio::task::spawn_blocking(run).await.expect("no panic");
    let bytes = |value: &Value| BASE64.decode(value.as_str().expect("text")).expect("base64");
    let read = |record: &Value| Written {
        payload: bytes(&record["payload"]),
        headers: record["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.clone(), bytes(value)))
            .collect(),
    };
    written.iter().map(read).collect()
}

/// Found once a run. Blocks, for a minute or more the first time.
static PYTHON: LazyLock<Result<PathBuf, String>> =
    LazyLock::new(|| install().map_err(|error| error.to_string()));

fn install() -> io::Result<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python");
    fs::create_dir_all(&home)?;
    // Only one of several test binaries asks pip; the others find what it brought.
    let lock = File::create(home.join("lock"))?;
    lock.lock()?;
    let (wanted, known, python) =
        (format!("{FOLDER}/requirements.txt"), home.join("requirements.txt"), home.join("bin/python"));
    if fs::read(&known).ok() != fs::read(&wanted).ok() {
        say("installing Confluent's serializers from PyPI, once");
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r", &wanted]))?;
        // Last, as it vouches for the rest.
        fs::copy(wanted, known)?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {}: {said}", output.status)))
}

//! Temporary directories that are gone after the run, however it ends.
//!
//! A `TempDir` cleans up in `drop`, but statics are never dropped and a killed process drops nothing.
//! So all of them live under one root, and a tiny shell that reads a pipe from this process removes
//! the root when the pipe closes.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

/// A fresh directory, removed when dropped, or else when this process ends.
pub fn dir(label: &str) -> TempDir {
    tempfile::Builder::new().prefix(label).tempdir_in(&ROOT.path).expect("a temporary directory")
}

struct Root {
    path: PathBuf,
    /// Its stdin is the pipe. Never read: it only has to live as long as the process.
    _sweeper: Child,
}

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let path =
        tempfile::Builder::new().prefix("ssegate-it-").tempdir().expect("a temporary directory").keep();
    let sweeper = sweeper(&path);
    Root { path, _sweeper: sweeper }
});

/// Children die with this process, but may still write for a moment: hence the second tries.
const SWEEP: &str = r#"cat; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" && exit; sleep 0.3; done"#;

fn sweeper(root: &PathBuf) -> Child {
    Command::new("sh")
        .args(["-c", SWEEP, "sweeper"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // Ctrl-C in the terminal must not take it along.
        .spawn()
        .expect("sh")
}

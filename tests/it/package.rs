//! The Debian package in a Debian of its own: `tests/package/run.sh`, with the binary that the other tests run.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::support::child::{self, Child};
use crate::support::scratch;

#[tokio::test]
async fn it_is_installed_upgraded_removed_and_purged() {
    let missing = ["mmdebstrap", "dpkg-deb", "unshare", "target/tools/bin/cargo-deb"]
        .into_iter()
        .find(|tool| !is_there(tool));
    let missing = match rustix::process::geteuid().is_root() {
        true => missing,
        false => Some("root"),
    };
    // Also root needs the right to it, which containers may not have.
    let may = || Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).status();
    if missing.is_none() && !may().is_ok_and(|status| status.success()) {
        println!("skipped: the kernel does not let us have namespaces");
        return;
    }
    if let Some(missing) = missing {
        assert!(std::env::var_os("CI").is_none(), "this needs {missing}");
        println!("skipped: this needs {missing}");
        return;
    }
    let folder = scratch::dir("package");
    let mut command = child::command("tests/package/run.sh");
    command.arg(folder.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut script = Child::spawn(command);
    let (stdout, stderr) = script.take_output();
    let read = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut said = String::new();
            from.read_to_string(&mut said).map(|_| said)
        })
    };
    let said = [read(Box::new(stdout.expect("piped"))), read(Box::new(stderr.expect("piped")))];
    // Packages come over the network, and all of it may take minutes on a machine that has other things to do.
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match script.try_wait() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => sleep(Duration::from_millis(100)).await,
        }
    };
    script.kill();
    let [stdout, stderr] = said.map(|said| said.join().expect("no panic").expect("text"));
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{stdout}\n{stderr}");
}

const PATIENCE: Duration = Duration::from_mins(10);

fn is_there(tool: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match tool.contains('/') {
        true => root.join(tool).exists(),
        false => std::env::split_paths(&folders).any(|folder| folder.join(tool).exists()),
    }
}

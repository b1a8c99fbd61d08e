//! Runs a command of the product that is no server, `ssegate tail` for example, and reads along what it prints.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;

use super::child::{self, Child};
use super::wait::eventually;

/// A running command. Dropping it kills it.
pub struct Running {
    process: Child,
    stdout: Printed,
    stderr: Printed,
}

/// What it has printed.
struct Printed {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// How it ended, and all that it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Lines of standard output.
    pub stdout: Vec<String>,
    /// Lines of standard error.
    pub stderr: Vec<String>,
}

impl Running {
    /// Starts `ssegate` with these arguments, and neither `NO_COLOR` nor a terminal.
    pub fn start(args: &[&str]) -> Self {
        Self::start_reading(args, usize::MAX)
    }

    /// The same, with somebody at its standard output who leaves after so many lines.
    pub fn start_reading(args: &[&str], lines: usize) -> Self {
        let mut command = child::command(env!("CARGO_BIN_EXE_ssegate"));
        command.args(args).env_remove("NO_COLOR").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Child::spawn(command);
        let (stdout, stderr) = process.take_output();
        let stdout = Printed::read(stdout.expect("piped"), lines);
        let stderr = Printed::read(stderr.expect("piped"), usize::MAX);
        Self { process, stdout, stderr }
    }

    /// Waits until it has printed so many lines, and gives all that there are.
    pub async fn lines(&self, count: usize) -> Vec<String> {
        self.stdout.until(&format!("{count} lines"), |lines| lines.len() >= count).await
    }

    /// Waits for a line on standard error that holds `text`, the `nth` of them, the first being 1.
    pub async fn told(&self, text: &str, nth: usize) -> String {
        let matching = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count() >= nth;
        let lines = self.stderr.until(&format!("{text:?} ({nth})"), matching).await;
        lines.into_iter().filter(|line| line.contains(text)).nth(nth - 1).expect("it was seen")
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> Ended {
        let status = self.process.wait_exit("the command to end").await;
        Ended { status, stdout: self.stdout.all(), stderr: self.stderr.all() }
    }
}

/// Runs `ssegate` with these arguments to its end.
pub async fn run(args: &[&str]) -> Ended {
    Running::start(args).ended().await
}

impl Printed {
    fn read(from: impl Read + Send + 'static, most: usize) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&lines);
        let read = move || {
            for line in BufReader::new(from).lines().map_while(Result::ok).take(most) {
                into.lock().unwrap().push(line);
            }
        };
        Self { lines, reader: Some(thread::spawn(read)) }
    }

    async fn until(&self, what: &str, reached: impl Fn(&[String]) -> bool) -> Vec<String> {
        eventually(what, async || {
            let lines = self.lines.lock().unwrap().clone();
            if reached(&lines) { Ok(lines) } else { Err(format!("so far {lines:#?}")) }
        })
        .await
    }

    fn all(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
        self.lines.lock().unwrap().clone()
    }
}

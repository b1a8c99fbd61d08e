//! Runs the product: the real binary on a configuration of the test's, with its log at hand.
//!
//! A configuration may leave out what most tests do not care about: where it has no `server:`,
//! `admin:` or `log:` of its own, it gets a TLS server and an admin listener on free ports of 127.0.0.1
//! and JSON logs. Top-level keys start at column 1. The bound addresses are read from the log: a line
//! with message `listening` and fields `addr` and `name` (`server` or `admin`).

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::child::{self, Child};
use super::http::{Connect, Reply, request};
use super::scratch;
use super::tls::TestCa;
use super::wait::{eventually, within};

/// A running ssegate. Dropping it kills it.
pub struct Ssegate {
    process: Child,
    log: Arc<Log>,
    config: PathBuf,
    scheme: &'static str,
    _dir: TempDir,
}

/// How to run it.
pub struct Builder {
    config: String,
    env: Vec<(String, String)>,
    servers: usize,
    launcher: Vec<String>,
}

/// How a process ended that was expected to.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Ssegate {
    /// Starts with an empty configuration.
    pub fn builder() -> Builder {
        Builder { config: String::new(), env: Vec::new(), servers: 1, launcher: Vec::new() }
    }

    /// `Ssegate::builder().config(text).start()`.
    pub async fn start(config: impl Into<String>) -> Self {
        Self::builder().config(config).start().await
    }

    /// A URL on the first server listener; its host is `localhost`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.addr().port())
    }

    /// Where the first server listener is bound.
    pub fn addr(&self) -> SocketAddr {
        self.addrs("server")[0]
    }

    /// Where the listeners of this name (`server` or `admin`) are bound, in the log's order.
    pub fn addrs(&self, name: &str) -> Vec<SocketAddr> {
        self.log.addrs(name)
    }

    /// `GET` on the admin listener.
    pub async fn admin_get(&self, path: &str) -> Reply {
        self.admin(Method::GET, path, "").await
    }

    /// Publishes to a channel of the `push` upstream; `channel` may carry a query.
    pub async fn publish(&self, channel: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref().to_vec();
        let reply = self.admin(Method::POST, &format!("/publish/{channel}"), body).await;
        assert!(reply.status.is_success(), "publish: {} {}", reply.status, reply.text());
        reply
    }

    /// The parsed answer of `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        Metrics { text: self.admin_get("/metrics").await.text() }
    }

    /// Waits until the sum of these samples is `count`. Much is counted after its client has seen it.
    pub async fn until_counted(&self, name: &str, labels: &[(&str, &str)], count: f64) {
        eventually(&format!("{name} {labels:?} to be {count}"), async || {
            let sum = self.metrics().await.sum(name, labels);
            if sum == count { Ok(()) } else { Err(sum) }
        })
        .await;
    }

    /// The parsed answer of `/status`.
    pub async fn status(&self) -> Value {
        self.admin_get("/status").await.json()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has ended by itself and its log is there to the end.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let status = self.process.wait_exit("ssegate to end").await;
        // Its last lines may still stand in the pipe, which a successor keeps open.
        within("the last line of the log", self.log.find(|line| line["message"] == "stopped")).await;
        status
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit().await
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> &PathBuf {
        &self.config
    }

    /// Writes another configuration into the file, completed as the first one was. Nobody is told.
    pub fn rewrite(&self, yaml: &str) {
        // As a whole, as editors and deployments do it.
        let new = self.config.with_extension("new");
        fs::write(&new, complete(yaml)).expect("write the configuration");
        fs::rename(new, &self.config).expect("replace the configuration");
    }

    /// `POST /reload`, and the answer.
    pub async fn post_reload(&self) -> Reply {
        self.admin(Method::POST, "/reload", "").await
    }

    /// Has another configuration served, and returns the changes that are told.
    pub async fn reload(&self, yaml: &str) -> Vec<String> {
        self.rewrite(yaml);
        let answer = self.post_reload().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let changes = answer.json()["changes"].as_array().expect("a list").clone();
        changes.iter().map(|change| change.as_str().expect("text").to_owned()).collect()
    }

    /// All log lines so far. A line that is not JSON (a panic's) is a JSON string.
    pub fn log(&self) -> Vec<Value> {
        self.log.lines.lock().unwrap().clone()
    }

    /// Waits for a log line that satisfies `wanted` and returns it.
    pub async fn wait_log(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        within(&format!("{what} in the log"), self.log.find(wanted)).await.expect("the log ended without it")
    }

    /// Waits until an upstream is said to be down; the cause that the log tells.
    pub async fn cause(&self) -> String {
        let is_down = |line: &Value| field(line, "message").unwrap_or_default().contains("is down");
        let line = self.wait_log("that an upstream is down", is_down).await;
        field(&line, "cause").expect("a cause").to_owned()
    }

    /// Panics unless why its only upstream is down is told once, however often that is tried again, and nothing shows this
    /// secret.
    pub async fn assert_told_once_without(&self, secret: &str) {
        eventually("a few tries", async || {
            let tries = self.status().await["upstreams"][0]["reconnects"].as_u64();
            if tries >= Some(3) { Ok(()) } else { Err(format!("{tries:?}")) }
        })
        .await;
        let log = self.log();
        let is_cause = |line: &&Value| field(line, "cause").is_some() && field(line, "level") == Some("WARN");
        assert_eq!(log.iter().filter(is_cause).count(), 1, "{log:?}");
        assert!(!format!("{log:?}{}", self.status().await).contains(secret));
    }

    /// A URL on the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        let addr = self.addrs("admin").first().copied().expect("an admin listener");
        format!("http://{addr}{path}")
    }

    /// A request to the admin listener.
    pub async fn admin(&self, method: Method, path: &str, body: impl Into<bytes::Bytes>) -> Reply {
        request(method, &self.admin_url(path), &[], body, &Connect::http1()).await
    }
}

impl Drop for Ssegate {
    fn drop(&mut self) {
        self.process.kill();
        if thread::panicking() {
            let lines = self.log();
            eprintln!("the last log lines of ssegate:");
            lines[lines.len().saturating_sub(100)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Builder {
    /// The configuration, in YAML; see the file's head for what may be left out.
    pub fn config(self, yaml: impl Into<String>) -> Self {
        Self { config: yaml.into(), ..self }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// How many server listeners to wait for; 1 by default.
    pub fn servers(self, servers: usize) -> Self {
        Self { servers, ..self }
    }

    /// How many descriptors it may have.
    pub fn descriptors(self, descriptors: u64) -> Self {
        Self {
            launcher: ["prlimit", &format!("--nofile={descriptors}"), "--"].map(Into::into).into(),
            ..self
        }
    }

    /// A command that becomes the one which follows it.
    pub fn launcher(self, launcher: &[&str]) -> Self {
        Self { launcher: launcher.iter().copied().map(Into::into).collect(), ..self }
    }

    /// Starts `ssegate serve` and waits until its listeners are bound.
    pub async fn start(self) -> Ssegate {
        let yaml = complete(&self.config);
        let scheme = if yaml.contains("tls: none") { "http" } else { "https" };
        let (dir, config) = write(&yaml);
        let mut command = self.command(&["serve", "--config", &config.to_string_lossy()]);
        command.stdout(Stdio::null()); // A pipe that nobody reads would fill.
        let mut process = Child::spawn(command);
        let log = Log::collect(process.take_output().1.expect("standard error is piped"));
        let ssegate = Ssegate { process, log, config, scheme, _dir: dir };
        for (name, count) in [("server", self.servers), ("admin", 1)] {
            let bound = async || ssegate.log.until(|log| log.listening(name) >= count).await;
            let what = format!("ssegate to log `listening` for {count} × {name}");
            assert!(within(&what, bound()).await, "ssegate ended instead of listening");
        }
        ssegate
    }

    /// Runs `ssegate serve`, which is expected to end by itself.
    pub async fn serve_to_exit(self) -> Exit {
        self.run("serve").await
    }

    /// Runs `ssegate check`.
    pub async fn check(self) -> Exit {
        self.run("check").await
    }

    async fn run(self, subcommand: &str) -> Exit {
        let (_dir, config) = write(&complete(&self.config));
        let mut process = Child::spawn(self.command(&[subcommand, "--config", &config.to_string_lossy()]));
        let (stdout, stderr) = process.take_output();
        let stdout = thread::spawn(|| read_all(stdout.expect("piped")));
        let stderr = thread::spawn(|| read_all(stderr.expect("piped")));
        let status = process.wait_exit(&format!("ssegate {subcommand} to end")).await;
        Exit { status, stdout: stdout.join().expect("no panic"), stderr: stderr.join().expect("no panic") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_ssegate");
        let mut words = self.launcher.iter().map(String::as_str).chain([program]).chain(args.iter().copied());
        let mut command = child::command(words.next().expect("a program"));
        command.args(words).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// What `/metrics` says.
#[derive(Debug)]
pub struct Metrics {
    /// The answer as it came, in the Prometheus text format.
    pub text: String,
}

impl Metrics {
    /// The sum of all samples of this name that carry these labels (and maybe others); 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).sum()
    }

    /// Whether there is such a sample.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.samples(name, labels).next().is_some()
    }

    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        self.text.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, set) = series.split_once('{').unwrap_or((series, ""));
            let carries = |(label, value): &(&str, &str)| set.contains(&format!("{label}=\"{value}\""));
            if found == name && labels.iter().all(carries) { value.parse::<f64>().ok() } else { None }
        })
    }
}

/// The log so far, filled by a thread that reads the process's standard error to its end.
struct Log {
    lines: Mutex<Vec<Value>>,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy)]
struct Progress {
    lines: usize,
    ended: bool,
}

impl Log {
    fn collect(stderr: ChildStderr) -> Arc<Self> {
        let progress = watch::Sender::new(Progress { lines: 0, ended: false });
        let log = Arc::new(Self { lines: Mutex::default(), progress });
        let filled = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                filled.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
            filled.progress.send_modify(|progress| progress.ended = true);
        });
        log
    }

    fn push(&self, line: Value) {
        self.lines.lock().unwrap().push(line);
        self.progress.send_modify(|progress| progress.lines += 1);
    }

    /// Waits until `reached`; false where the log ends before.
    async fn until(&self, reached: impl Fn(&Self) -> bool) -> bool {
        let mut progress = self.progress.subscribe();
        loop {
            let ended = progress.borrow_and_update().ended;
            if reached(self) {
                return true;
            }
            if ended || progress.changed().await.is_err() {
                return false;
            }
        }
    }

    async fn find(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let found = || self.lines.lock().unwrap().iter().find(|line| wanted(line)).cloned();
        self.until(|_| found().is_some()).await;
        found()
    }

    /// How many listeners of this name are bound, those that have no address included.
    fn listening(&self, name: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| is_listening(line, name)).count()
    }

    fn addrs(&self, name: &str) -> Vec<SocketAddr> {
        let lines = self.lines.lock().unwrap();
        let named = lines.iter().filter(|line| is_listening(line, name));
        named.filter_map(|line| field(line, "addr")?.parse().ok()).collect()
    }
}

fn is_listening(line: &Value, name: &str) -> bool {
    field(line, "message") == Some("listening") && field(line, "name") == Some(name)
}

/// A text field of a log line, be the fields nested under `fields` or flattened.
pub fn field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line["fields"][name].as_str().or_else(|| line[name].as_str())
}

/// Adds the top-level keys that the configuration leaves out.
fn complete(yaml: &str) -> String {
    let leaf = TestCa::shared().leaf();
    let (cert, key) = (leaf.cert.display(), leaf.key.display());
    let defaults = [
        ("server", format!("{{ listen: \"127.0.0.1:0\", tls: {{ cert: \"{cert}\", key: \"{key}\" }} }}")),
        ("admin", "{ listen: \"127.0.0.1:0\" }".into()),
        ("log", "{ format: json }".into()),
    ];
    let mut complete = yaml.to_owned();
    if !complete.is_empty() && !complete.ends_with('\n') {
        complete.push('\n');
    }
    for (name, value) in defaults {
        // At the end, so that the lines of the test's own text keep their numbers.
        if !yaml.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            complete.push_str(&format!("{name}: {value}\n"));
        }
    }
    complete
}

fn write(yaml: &str) -> (TempDir, PathBuf) {
    let dir = scratch::dir("ssegate");
    let path = dir.path().join("config.yaml");
    fs::write(&path, yaml).expect("write the configuration");
    (dir, path)
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("read the output");
    String::from_utf8_lossy(&bytes).into_owned()
}

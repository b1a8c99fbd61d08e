//! A real nats-server for one test: with or without JetStream, on a port of its own that it keeps, spoken to by NATS's own
//! client.

use std::fs;
use std::path::PathBuf;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use rustix::process::Signal;
use tempfile::TempDir;

use super::child::{self, Child};
use super::http;
use super::ports;
use super::scratch;
use super::tls::{Leaf, TestCa};
use super::wait::{DEADLINE, eventually, within};

/// A running nats-server. Dropping it kills it.
pub struct Nats {
    server: Option<Child>,
    port: u16,
    /// Where it tells of itself.
    monitor: u16,
    /// What else its configuration says.
    config: String,
    dir: TempDir,
}

impl Nats {
    /// One that keeps nothing and lets everybody in.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// One with JetStream, which keeps on disk what it acknowledged.
    pub async fn start_jetstream() -> Self {
        Self::start_with("jetstream { store_dir: \"STORE\" }").await
    }

    /// One with this in its configuration, in which `STORE` stands for a folder of its own.
    pub async fn start_with(config: &str) -> Self {
        let dir = scratch::dir("nats");
        let config = config.replace("STORE", &dir.path().join("store").display().to_string());
        let mut nats = Self { server: None, port: 0, monitor: 0, config, dir };
        for _ in 0..3 {
            (nats.port, nats.monitor) = (ports::free(), ports::free());
            if nats.launch().await {
                return nats;
            }
        }
        panic!("nats-server does not start: {}", nats.log());
    }

    /// What a configuration has to say for TLS that shows `leaf` and, if `verify`, wants certificates of `ca`.
    pub fn tls_config(ca: &TestCa, leaf: &Leaf, verify: bool) -> String {
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}",
            leaf.cert.display(),
            leaf.key.display(),
            ca.cert_path().display()
        )
    }

    /// Where it listens, for the configuration.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it (again) on the same port and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.launch().await, "nats-server does not start again: {}", self.log());
    }

    /// SIGSTOP: connections stay open, but nothing answers.
    pub fn pause(&mut self) {
        self.running().signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.running().signal(Signal::CONT);
    }

    /// A client of it, as nobody.
    pub async fn client(&self) -> Client {
        self.client_with(ConnectOptions::new()).await
    }

    /// A client of it.
    pub async fn client_with(&self, options: ConnectOptions) -> Client {
        let options = options.connection_timeout(DEADLINE).request_timeout(Some(DEADLINE));
        options.connect(self.url()).await.expect("a client")
    }

    /// JetStream, by a client of its own.
    pub async fn jetstream(&self) -> jetstream::Context {
        let mut context = jetstream::new(self.client().await);
        context.set_timeout(DEADLINE);
        context
    }

    /// Makes a stream of these subjects.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) -> stream::Stream {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            ..Default::default()
        };
        self.jetstream().await.create_stream(config).await.expect("a stream")
    }

    /// Waits until so many clients named `ssegate` are subscribed to `subject`.
    pub async fn until_subscribed(&self, subject: &str, count: usize) {
        eventually(&format!("{count} subscribers of {subject}"), async || {
            let now = self.subscribers(subject).await;
            if now >= count { Ok(()) } else { Err(format!("{now} so far")) }
        })
        .await;
    }

    /// How many clients named `ssegate` are subscribed to `subject`.
    pub async fn subscribers(&self, subject: &str) -> usize {
        let of_it = |list: &&serde_json::Value| {
            list["name"] == "ssegate"
                && list["subscriptions_list"]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|one| one == subject))
        };
        self.connections().await.iter().filter(of_it).count()
    }

    /// What it tells of its connections.
    pub async fn connections(&self) -> Vec<serde_json::Value> {
        let told =
            http::get(&format!("http://127.0.0.1:{}/connz?subs=1&limit=1024", self.monitor)).await.json();
        told["connections"].as_array().cloned().unwrap_or_default()
    }

    /// How many consumers streams have.
    pub async fn consumers(&self) -> u64 {
        let told = http::get(&format!("http://127.0.0.1:{}/jsz", self.monitor)).await.json();
        told["consumers"].as_u64().expect("a number")
    }

    async fn launch(&mut self) -> bool {
        let file = self.dir.path().join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nlog_file: \"{}\"\n{}\n",
            self.port,
            self.monitor,
            self.log_file().display(),
            self.config
        );
        fs::write(&file, text).expect("a configuration");
        let mut command = child::command("nats-server");
        command.arg("-c").arg(file).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let health = format!("http://127.0.0.1:{}/healthz", self.monitor);
        let is_well = async || {
            let link = tokio::net::TcpStream::connect(("127.0.0.1", self.monitor)).await;
            link.map_err(|error| error.to_string())?;
            let answer = http::get(&health).await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        };
        self.server = Child::spawn(command).once_up("nats-server", is_well).await;
        self.server.is_some()
    }

    fn running(&mut self) -> &mut Child {
        self.server.as_mut().expect("nats-server was killed")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("nats.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_else(|e| format!("no log: {e}"))
    }
}

/// Publishes, and waits until the server has handed over what came before.
pub async fn publish(
    client: &Client,
    messages: impl IntoIterator<Item = (impl Into<String>, impl Into<Vec<u8>>)>,
) {
    let echo = client.new_inbox();
    let mut echoed = client.subscribe(echo.clone()).await.expect("a subscription");
    for (subject, payload) in messages {
        client.publish(subject.into(), payload.into().into()).await.expect("to publish");
    }
    client.publish(echo, "".into()).await.expect("to publish");
    within("what was published to be heard", echoed.next()).await.expect("an echo");
}

/// Publishes to a stream, and waits until it is stored. Returns the number of the last.
pub async fn store(
    context: &jetstream::Context,
    messages: impl IntoIterator<Item = (impl Into<String>, impl Into<Vec<u8>>)>,
) -> u64 {
    let mut stored = Vec::new();
    for (subject, payload) in messages {
        stored.push(context.publish(subject.into(), payload.into().into()).await.expect("to publish"));
    }
    let mut last = 0;
    for ack in stored {
        last = within("what was published to be stored", ack.into_future()).await.expect("an ack").sequence;
    }
    last
}

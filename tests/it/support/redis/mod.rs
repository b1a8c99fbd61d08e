//! A real redis-server of the test's own, to publish to, kill, pause and bring back.
//!
//! A handle belongs to the runtime of one test. The server keeps nothing on disk, unless it is to be durable: after a
//! restart it is empty, as a pub/sub server is. [`cluster`] and [`sentinel`] put several together.

pub mod cluster;
pub mod sentinel;

use std::fs;
use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult, Value, pipe};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::child::{self, Child};
use super::tls::{Leaf, TestCa};
use super::wait::{DEADLINE, eventually};
use super::{ports, scratch};

/// A command of words that are parted by blanks.
fn command(words: &str) -> redis::Cmd {
    let words: Vec<&str> = words.split(' ').collect();
    redis::cmd(words[0]).arg(&words[1..]).take()
}

/// A running (or killed) redis-server.
pub struct Redis {
    server: Option<Child>,
    port: u16,
    password: Option<String>,
    /// Further arguments of redis-server.
    args: Vec<String>,
    dir: TempDir,
    /// The rig's own connection, opened at first use and after each restart.
    link: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// Starts a server on a free port and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(None, &[]).await
    }

    /// One that has after a restart all that it acknowledged before.
    pub async fn start_durable() -> Self {
        Self::start_args(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// The same, asking for `password` (of the default user).
    pub async fn start_secured(password: &str) -> Self {
        Self::start_with(Some(password.into()), &[]).await
    }

    /// The same as [`Self::start`], with further arguments.
    pub async fn start_args(args: &[&str]) -> Self {
        Self::start_with(None, args).await
    }

    /// One that also listens with TLS, on the port returned, shows `leaf`, and wants certificates of `ca`.
    pub async fn start_tls(ca: &TestCa, leaf: &Leaf) -> (Self, u16) {
        let (port, path) = (ports::free(), |path: &PathBuf| path.display().to_string());
        let (port_arg, ca, cert, key) =
            (port.to_string(), path(&ca.cert_path()), path(&leaf.cert), path(&leaf.key));
        let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &cert, "--tls-key-file", &key];
        let args = ["--tls-port", &port_arg, "--tls-auth-clients", "yes"];
        (Self::start_args(&[&args[..], &files[..]].concat()).await, port)
    }

    async fn start_with(password: Option<String>, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let dir = scratch::dir("redis");
        let mut redis = Self { server: None, port: 0, password, args, dir, link: Mutex::new(None) };
        for _ in 0..3 {
            redis.port = ports::free();
            if redis.launch().await {
                return redis;
            }
        }
        panic!("redis-server does not start: {}", redis.log());
    }

    /// Where it listens, for the configuration: `redis://[:password@]127.0.0.1:port/0`.
    pub fn url(&self) -> String {
        let password =
            self.password.as_ref().map(|p| format!(":{}@", utf8_percent_encode(p, NON_ALPHANUMERIC)));
        let password = password.unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}/0", self.port)
    }

    /// Its port on 127.0.0.1, for a [`super::proxy::Proxy`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it has not been killed.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// SIGKILL: every connection ends, the port refuses.
    pub fn kill(&mut self) {
        self.server = None;
        *self.link.get_mut() = None;
    }

    /// Starts it (again) on the same port and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.launch().await, "redis-server does not start again: {}", self.log());
    }

    /// SIGSTOP: connections stay open and new ones are accepted by the kernel, but nothing answers.
    pub fn pause(&mut self) {
        self.running().signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.running().signal(Signal::CONT);
    }

    /// Publishes and returns how many subscriptions received it.
    pub async fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) -> u64 {
        self.command(redis::cmd("PUBLISH").arg(channel).arg(payload.as_ref())).await
    }

    /// Publishes many in order, in one round trip; returns the receivers of each.
    pub async fn publish_all(
        &self,
        channel: &str,
        payloads: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Vec<u64> {
        let mut batch = pipe();
        for payload in payloads {
            batch.cmd("PUBLISH").arg(channel).arg(payload.as_ref());
        }
        batch.query_async(&mut self.connection().await).await.expect("redis answers")
    }

    /// Publishes many in order, each on a channel of its own, in one round trip.
    pub async fn publish_each(&self, messages: &[(String, String)]) {
        let mut batch = pipe();
        for (channel, payload) in messages {
            batch.cmd("PUBLISH").arg(channel).arg(payload);
        }
        let _: Vec<u64> = batch.query_async(&mut self.connection().await).await.expect("redis answers");
    }

    /// Adds an entry and returns its id.
    pub async fn xadd(&self, stream: &str, id: &str, fields: &[(&str, &str)]) -> String {
        self.command(redis::cmd("XADD").arg(stream).arg(id).arg(fields)).await
    }

    /// Adds entries with the field `n`, in round trips of a thousand; returns their ids.
    pub async fn xadd_numbers(&self, stream: &str, numbers: impl IntoIterator<Item = i32>) -> Vec<String> {
        let mut ids = Vec::new();
        let numbers: Vec<_> = numbers.into_iter().collect();
        for numbers in numbers.chunks(1_000) {
            let mut batch = pipe();
            for n in numbers {
                batch.cmd("XADD").arg(stream).arg("*").arg("n").arg(n);
            }
            let added: Vec<String> =
                batch.query_async(&mut self.connection().await).await.expect("redis answers");
            ids.extend(added);
        }
        ids
    }

    /// How many connections there are beside the rig's own.
    pub async fn connections(&self) -> usize {
        let list: String = self.command(redis::cmd("CLIENT").arg("LIST")).await;
        list.lines().filter(|line| !line.contains("cmd=client|list")).count()
    }

    /// How many clients are subscribed to `channel` itself (patterns not counted).
    pub async fn subscribers(&self, channel: &str) -> u64 {
        let (_, count): (String, u64) = self.command(redis::cmd("PUBSUB").arg("NUMSUB").arg(channel)).await;
        count
    }

    /// How many patterns clients are subscribed to.
    pub async fn patterns(&self) -> u64 {
        self.command(redis::cmd("PUBSUB").arg("NUMPAT")).await
    }

    /// How many connections are in pub/sub mode.
    pub async fn pubsub_connections(&self) -> usize {
        let list: String = self.command(redis::cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub")).await;
        list.lines().count()
    }

    /// Waits until `channel` has at least `count` subscribers.
    pub async fn until_subscribed(&self, channel: &str, count: u64) {
        eventually(&format!("{count} subscribers of {channel}"), async || {
            let now = self.subscribers(channel).await;
            if now >= count { Ok(()) } else { Err(format!("{now} so far")) }
        })
        .await;
    }

    /// Cuts every connection in pub/sub mode, and returns how many there were.
    pub async fn client_kill_pubsub(&self) -> u64 {
        self.command(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await
    }

    /// Any command, which the server may refuse.
    pub async fn try_command<T: FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection().await).await
    }

    /// The same of a node of a cluster that is about to take the slot over.
    pub async fn try_asking<T: FromRedisValue>(&self, command: &redis::Cmd) -> RedisResult<T> {
        let mut both = pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        let (answer,) = both.query_async(&mut self.connection().await).await?;
        Ok(answer)
    }

    /// Waits until `count` replicas have all that was written on this connection.
    pub async fn until_replicated(&self, count: u64) {
        eventually("the replicas to have all", async || {
            let replicas: u64 = self.say(&format!("WAIT {count} 1000")).await;
            if replicas >= count { Ok(()) } else { Err(format!("{replicas} have")) }
        })
        .await;
    }

    /// How many connections have read a stream as their last command, or wait for it.
    pub async fn stream_readers(&self) -> usize {
        let list: String = self.say("CLIENT LIST").await;
        list.lines().filter(|line| line.contains("cmd=xread ")).count()
    }

    /// Any command, its words parted by blanks.
    pub async fn say<T: FromRedisValue>(&self, words: &str) -> T {
        self.command(&command(words)).await
    }

    /// Any command.
    pub async fn command<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        command.query_async(&mut self.connection().await).await.expect("redis answers")
    }

    async fn connection(&self) -> MultiplexedConnection {
        let mut link = self.link.lock().await;
        if link.is_none() {
            *link = Some(self.connect().await.expect("a connection to redis"));
        }
        link.clone().expect("just opened")
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        // The crate's own default, half a second, is too short on a loaded machine.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// False where the server ended at once, as it does when the port is taken.
    async fn launch(&mut self) -> bool {
        let server = Child::spawn(self.server_command());
        self.server = server.once_up("redis-server", async || self.ping().await).await;
        self.server.is_some()
    }

    async fn ping(&self) -> RedisResult<()> {
        let reply: Value = redis::cmd("PING").query_async(&mut self.connect().await?).await?;
        assert_eq!(reply, Value::SimpleString("PONG".into()));
        Ok(())
    }

    fn server_command(&self) -> std::process::Command {
        let mut command = child::command("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--dir").arg(self.dir.path()).arg("--logfile").arg(self.log_file());
        command.args(&self.args);
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        command
    }

    fn running(&mut self) -> &mut Child {
        self.server.as_mut().expect("redis-server was killed")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("redis.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_else(|e| format!("no log: {e}"))
    }
}

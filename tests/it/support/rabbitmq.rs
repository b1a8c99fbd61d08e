//! A real RabbitMQ of the test's own, to publish to, kill, pause and bring back; with an epmd of its own, so that none is left
//! behind. It takes seconds to start, so that tests that do it no harm share one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::child::{self, Child};
use super::tls::{Leaf, TestCa};
use super::wait::{eventually, within};
use super::{ports, scratch};

/// A running (or killed) broker.
pub struct RabbitMq {
    broker: Option<Child>,
    _names: Child,
    ports: Ports,
    dir: TempDir,
}

struct Ports {
    amqp: u16,
    amqps: Option<u16>,
    names: u16,
    nodes: u16,
}

/// A connection of the test's own, with a channel on which the broker confirms.
pub struct Publisher {
    _connection: Connection,
    channel: Channel,
}

impl RabbitMq {
    /// The one that tests share. What they publish to has names of their own: [`unique`].
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts one on free ports and waits until it answers.
    pub async fn start() -> Self {
        Self::start_in(scratch::dir("rabbitmq"), None).await
    }

    /// One that also listens with TLS, shows `leaf`, and wants certificates of `ca`.
    pub async fn start_tls(ca: &TestCa, leaf: &Leaf) -> Self {
        let dir = scratch::dir("rabbitmq");
        let port = ports::free();
        let lines = [
            format!("listeners.ssl.1 = 127.0.0.1:{port}"),
            format!("ssl_options.cacertfile = {}", ca.cert_path().display()),
            format!("ssl_options.certfile = {}", leaf.cert.display()),
            format!("ssl_options.keyfile = {}", leaf.key.display()),
            "ssl_options.verify = verify_peer".to_owned(),
            "ssl_options.fail_if_no_peer_cert = true".to_owned(),
        ];
        fs::write(dir.path().join("rabbitmq.conf"), lines.join("\n") + "\n").expect("write");
        Self::start_in(dir, Some(port)).await
    }

    async fn start_in(dir: TempDir, amqps: Option<u16>) -> Self {
        let ports = Ports { amqp: ports::free(), amqps, names: ports::free(), nodes: ports::free() };
        let mut names = child::command("epmd");
        names.args(["-port", &ports.names.to_string(), "-address", "127.0.0.1"]);
        let mut rabbitmq = Self { broker: None, _names: Child::spawn(names), ports, dir };
        rabbitmq.launch().await;
        rabbitmq
    }

    /// For the configuration: the default virtual host, as its owner.
    pub fn url(&self) -> String {
        self.url_at(self.ports.amqp)
    }

    /// The same at the port of a [`super::proxy::Proxy`].
    pub fn url_at(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// That for TLS, where it has one.
    pub fn tls_port(&self) -> u16 {
        self.ports.amqps.expect("it speaks TLS")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.broker = None;
    }

    /// Starts it (again) on the same port and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// SIGSTOP: connections stay open and new ones are accepted by the kernel, but nothing answers.
    pub fn pause(&mut self) {
        self.broker.as_mut().expect("it was killed").signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.broker.as_mut().expect("it was killed").signal(Signal::CONT);
    }

    /// A connection to publish on.
    pub async fn publisher(&self) -> Publisher {
        within("a connection to RabbitMQ", self.try_publisher()).await.expect("a connection")
    }

    /// The same where the broker may be down.
    pub async fn try_publisher(&self) -> lapin::Result<Publisher> {
        Publisher::enter(&self.url()).await
    }

    /// Waits until so many consumers read.
    pub async fn until_consumed(&self, count: usize) {
        eventually(&format!("{count} consumers"), async || {
            let mut command = self.program("rabbitmqctl");
            command.args(["--quiet", "--no-table-headers", "--node", NODE, "list_consumers"]);
            let told = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
            let told = told.map_err(|error| error.to_string())?;
            let now = String::from_utf8_lossy(&told.stdout).lines().count();
            let said = || format!("{now} so far {}", String::from_utf8_lossy(&told.stderr));
            if now >= count { Ok(()) } else { Err(said()) }
        })
        .await;
    }

    async fn launch(&mut self) {
        let mut broker = Child::spawn(self.command());
        eventually("RabbitMQ to answer", async || {
            assert!(broker.try_wait().is_none(), "RabbitMQ does not start: {}", self.log());
            // While it starts, some connections are taken and never answered.
            match timeout(PATIENCE, self.try_publisher()).await {
                Ok(answered) => answered.map(drop).map_err(|error| error.to_string()),
                Err(_) => Err("it took a connection and said nothing".to_owned()),
            }
        })
        .await;
        self.broker = Some(broker);
    }

    fn command(&self) -> Command {
        let mut command = self.program("rabbitmq-server");
        let out = fs::File::create(self.dir.path().join("out.log")).expect("a log");
        command.stdout(out.try_clone().expect("a log")).stderr(out);
        command
    }

    /// One of RabbitMQ's programs, in the surroundings of this broker.
    fn program(&self, program: &str) -> Command {
        let (dir, ports) = (self.dir.path(), &self.ports);
        let mut command = child::command(Path::new(BIN).join(program));
        let own = |name: &str| dir.join(name).display().to_string();
        fs::write(own("plugins"), "[].").expect("write");
        for (name, value) in [
            // The cookie is made there.
            ("HOME", own("")),
            ("ERL_EPMD_PORT", ports.names.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", NODE.into()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", ports.amqp.to_string()),
            ("RABBITMQ_DIST_PORT", ports.nodes.to_string()),
            ("RABBITMQ_MNESIA_BASE", own("mnesia")),
            ("RABBITMQ_LOG_BASE", own("log")),
            ("RABBITMQ_LOGS", own("rabbitmq.log")),
            ("RABBITMQ_CONFIG_FILE", own("rabbitmq")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", own("plugins")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            // The script becomes the broker, and starts no second process that could outlive it.
            ("RABBITMQ_ALLOW_INPUT", "1".into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-noinput +S 2:2".into()),
        ] {
            command.env(name, value);
        }
        command
    }

    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("out.log") + &read("rabbitmq.log")
    }
}

impl Publisher {
    /// Enters the broker of this URL.
    pub async fn enter(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { _connection: connection, channel })
    }

    /// Declares an exchange.
    pub async fn declare_exchange(&self, name: &str, kind: ExchangeKind) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name.into(), kind, durable, FieldTable::default());
        within("RabbitMQ to declare", declared).await.expect("an exchange");
    }

    /// Declares a stream, with further arguments.
    pub async fn declare_stream(&self, name: &str, arguments: &[(&str, AMQPValue)]) {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        arguments.iter().for_each(|(name, value)| _ = table.insert((*name).into(), value.clone()));
        within("RabbitMQ to declare", self.channel.queue_declare(name.into(), durable, table))
            .await
            .expect("a stream");
    }

    /// Deletes a stream.
    pub async fn delete(&self, queue: &str) {
        let deleted = self.channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        within("RabbitMQ to delete", deleted).await.expect("it is deleted");
    }

    /// Publishes many in order, and waits until the broker has them all.
    pub async fn publish_all(
        &self,
        exchange: &str,
        messages: impl IntoIterator<Item = (String, impl AsRef<[u8]>, BasicProperties)>,
    ) -> lapin::Result<()> {
        let mut confirms = Vec::new();
        for (key, payload, properties) in messages {
            let options = BasicPublishOptions::default();
            let (exchange, payload) = (exchange.into(), payload.as_ref());
            confirms.push(
                self.channel
                    .basic_publish(exchange, key.as_str().into(), options, payload, properties)
                    .await?,
            );
        }
        for confirm in confirms {
            confirm.await?;
        }
        Ok(())
    }

    /// Publishes one.
    pub async fn publish(&self, exchange: &str, key: &str, payload: &str) {
        let message = (key.to_owned(), payload.to_owned(), BasicProperties::default());
        within("RabbitMQ to confirm", self.publish_all(exchange, [message])).await.expect("it is published");
    }

    /// All that a stream holds, with its offsets. The broker answers after what it has delivered, so that what is not there
    /// when a question is answered comes later or never.
    pub async fn read_stream(&self, name: &str) -> Vec<(u64, String)> {
        let ask = || self.channel.basic_qos(1_000, BasicQosOptions::default());
        ask().await.expect("a prefetch");
        let mut first = FieldTable::default();
        first.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        let options = BasicConsumeOptions::default();
        let consumer = self.channel.basic_consume(name.into(), "".into(), options, first);
        let mut consumer = within("RabbitMQ to consume", consumer).await.expect("a consumer");
        let mut read = Vec::new();
        loop {
            let before = read.len();
            within("RabbitMQ to answer", ask()).await.expect("an answer");
            while let Some(next) = consumer.next().now_or_never() {
                let delivery = next.expect("it goes on").expect("a message");
                let headers = delivery.properties.headers().as_ref().expect("headers").inner();
                let Some(AMQPValue::LongLongInt(offset)) = headers.get("x-stream-offset") else {
                    panic!("an offset")
                };
                let payload = String::from_utf8(delivery.data.clone()).expect("text");
                read.push((u64::try_from(*offset).expect("an offset"), payload));
                delivery.ack(BasicAckOptions::default()).await.expect("it is acknowledged");
            }
            if read.len() == before {
                return read;
            }
        }
    }

    /// Publishes numbers to a stream.
    pub async fn publish_numbers(&self, stream: &str, numbers: std::ops::Range<i32>) {
        let message = |number: i32| (stream.to_owned(), number.to_string(), BasicProperties::default());
        within("RabbitMQ to confirm", self.publish_all("", numbers.map(message)))
            .await
            .expect("they are published");
    }
}

/// A name that no other test has.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// How long an answer may take, before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the broker is called, by an epmd of its own.
const NODE: &str = "rig@localhost";
/// Where Debian has the programs themselves; those in the path change the user.
const BIN: &str = "/usr/lib/rabbitmq/bin";

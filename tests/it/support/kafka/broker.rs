//! One Apache Kafka process, broker and controller in one, with its data in a temporary directory.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::security::Security;
use super::tools::Tools;
use super::{admin, local};
use crate::support::child::{self, Child};
use crate::support::{ports, scratch};

/// A running (or killed) broker.
pub struct Broker {
    server: Option<Child>,
    classpath: String,
    ports: Ports,
    security: Option<Security>,
    dir: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    /// What tests and producers use.
    client: u16,
    controller: u16,
    /// The second listener, and the port it advertises, where a proxy may listen.
    link: u16,
    link_advertised: u16,
}

/// Small and quick to start: one client is all it serves.
const JVM_FLAGS: &[&str] = &[
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
];

impl Broker {
    /// Starts one on free ports with an empty data directory, and waits until it answers.
    pub async fn start(classpath: String, security: Option<Security>) -> Self {
        let (ports, dir) = (Ports::free(), scratch::dir("kafka"));
        let mut broker = Self { server: None, classpath, ports, security, dir };
        for _ in 0..3 {
            broker.prepare();
            if broker.launch().await {
                return broker;
            }
            broker.ports = Ports::free();
            broker.security.iter_mut().for_each(Security::take_other_ports);
        }
        panic!("Kafka does not start:\n{}", broker.log());
    }

    /// Where clients connect.
    pub fn bootstrap(&self) -> String {
        local(self.ports.client).to_string()
    }

    /// What it was secured with.
    pub fn security(&self) -> Option<&Security> {
        self.security.as_ref()
    }

    /// Kafka's tools, at work on it.
    pub fn tools(&self) -> Tools {
        Tools { classpath: self.classpath.clone(), bootstrap: self.bootstrap() }
    }

    /// Where the second listener really is.
    pub fn link_target(&self) -> SocketAddr {
        local(self.ports.link)
    }

    /// Where the second listener says it is.
    pub fn link_advertised(&self) -> SocketAddr {
        local(self.ports.link_advertised)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("Kafka runs");
        server.signal(Signal::TERM);
        server.wait_exit("Kafka to shut down").await;
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.launch().await, "Kafka does not start again:\n{}", self.log());
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.server.as_mut().expect("Kafka runs").signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.server.as_mut().expect("Kafka runs").signal(Signal::CONT);
    }

    /// Writes the settings and "formats" the data directory. Kafka's own tool for that writes this one
    /// file too, and costs the start of another JVM.
    fn prepare(&self) {
        let data = self.dir.path().join("data");
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(&data).expect("create the data directory");
        let id = "c3NlZ2F0ZS1pdC1jbHVzdA"; // 16 bytes in base64url, as a cluster id has to be.
        let properties = format!("version=1\ncluster.id={id}\nnode.id=1\n");
        fs::write(data.join("meta.properties"), properties).expect("write meta.properties");
        fs::write(self.file("log4j.properties"), LOG4J).expect("write log4j.properties");
        fs::write(self.file("server.properties"), self.settings()).expect("write server.properties");
    }

    fn settings(&self) -> String {
        let Ports { client, controller, link, link_advertised } = self.ports;
        let data = self.dir.path().join("data");
        let data = data.display();
        let secured = self.security.as_ref().map(Security::listeners).into_iter().flatten();
        let (mut listeners, mut protocols) = (String::new(), String::new());
        for (name, protocol, port) in secured {
            listeners.push_str(&format!(",{name}://localhost:{port}"));
            protocols.push_str(&format!(",{name}:{protocol}"));
        }
        let security = self.security.as_ref().map(Security::settings).unwrap_or_default();
        format!(
            "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=DIRECT://127.0.0.1:{client},LINK://127.0.0.1:{link},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=DIRECT://127.0.0.1:{client},LINK://127.0.0.1:{link_advertised}{listeners}
listener.security.protocol.map=DIRECT:PLAINTEXT,LINK:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=DIRECT
log.dirs={data}
{SETTINGS}{security}"
        )
    }

    /// False where the broker ended at once, as it does when a port is taken.
    async fn launch(&mut self) -> bool {
        let (server, bootstrap) = (Child::spawn(self.command()), self.bootstrap());
        self.server = server.once_up("Kafka", async || admin::ping(&bootstrap).await).await;
        self.server.is_some()
    }

    fn command(&self) -> Command {
        let log =
            File::options().create(true).append(true).open(self.file("kafka.log")).expect("open the log");
        let mut command = child::command("java");
        command.args(JVM_FLAGS);
        command.arg(format!("-Dlog4j.configuration=file:{}", self.file("log4j.properties").display()));
        command.args(["-cp", &self.classpath, "kafka.Kafka"]).arg(self.file("server.properties"));
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("kafka.log")).unwrap_or_else(|e| format!("no log: {e}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last log lines of Kafka:");
            lines[lines.len().saturating_sub(50)..].iter().for_each(|line| eprintln!("{line:.300}"));
        }
    }
}

impl Ports {
    fn free() -> Self {
        let [client, controller, link, link_advertised] = std::array::from_fn(|_| ports::free());
        Self { client, controller, link, link_advertised }
    }
}

/// One replica of everything; internal topics with one partition, since each costs time to create. The
/// session timeout bounds how long a killed broker's restart waits for its own ghost.
const SETTINGS: &str = "\
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
controlled.shutdown.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
controller.quorum.election.timeout.ms=200
num.network.threads=1
num.io.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=0
";

const LOG4J: &str = "\
log4j.rootLogger=WARN, out
log4j.logger.org.apache.kafka.controller=INFO
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c{1} %m%n
";

//! A real mosquitto for one test, on a port of its own that it keeps, and a publisher that speaks MQTT 3.1.1 or 5 by hand
//! and knows of each message whether the broker has acknowledged it.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::child::{self, Child};
use super::ports;
use super::scratch;
use super::tls::{Leaf, TestCa};
use super::wait::eventually;

/// A running mosquitto. Dropping it kills it.
pub struct Mosquitto {
    server: Option<Child>,
    port: u16,
    /// What else its configuration says.
    config: String,
    dir: TempDir,
}

impl Mosquitto {
    /// One that lets everybody in.
    pub async fn start() -> Self {
        Self::start_with("allow_anonymous true").await
    }

    /// One that also listens with TLS, on the port returned, shows `leaf`, and wants certificates of `ca`.
    pub async fn start_tls(ca: &TestCa, leaf: &Leaf) -> (Self, u16) {
        let port = ports::free();
        let config = format!(
            "allow_anonymous true\nlistener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
            ca.cert_path().display(),
            leaf.cert.display(),
            leaf.key.display()
        );
        (Self::start_with(&config).await, port)
    }

    /// One that knows these users and lets nobody else in; each may read and write what its lines say.
    pub async fn start_with_users(users: &[(&str, &str)], acl: &str) -> Self {
        let dir = scratch::dir("mosquitto");
        let (passwords, rules) = (dir.path().join("passwords"), dir.path().join("acl"));
        for (at, (user, password)) in users.iter().enumerate() {
            let mut command = std::process::Command::new("mosquitto_passwd");
            command.arg("-b").args((at == 0).then_some("-c")).arg(&passwords).args([user, password]);
            assert!(command.status().expect("mosquitto_passwd").success());
        }
        fs::write(&rules, acl).expect("rules");
        let config = format!(
            "allow_anonymous false\npassword_file {}\nacl_file {}",
            passwords.display(),
            rules.display()
        );
        Self::start_in(dir, &config).await
    }

    /// One with this in its configuration.
    pub async fn start_with(config: &str) -> Self {
        Self::start_in(scratch::dir("mosquitto"), config).await
    }

    async fn start_in(dir: TempDir, config: &str) -> Self {
        let mut broker = Self { server: None, port: 0, config: config.to_owned(), dir };
        for _ in 0..3 {
            broker.port = ports::free();
            if broker.launch().await {
                return broker;
            }
        }
        panic!("mosquitto does not start: {}", broker.log());
    }

    /// Where it listens, for the configuration.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
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
        assert!(self.launch().await, "mosquitto does not start again: {}", self.log());
    }

    /// SIGSTOP: connections stay open, but nothing answers.
    pub fn pause(&mut self) {
        self.running().signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.running().signal(Signal::CONT);
    }

    /// Connects a publisher.
    pub async fn publisher(&self) -> Publisher {
        Publisher::connect(self.port, None).await.expect("a publisher")
    }

    /// What it has logged so far: who connects and subscribes among it.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_else(|e| format!("no log: {e}"))
    }

    /// How often its log says something.
    pub fn said(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Waits until its log says something for so many times.
    pub async fn until_said(&self, words: &str, count: usize) {
        eventually(&format!("{words:?} {count} times in mosquitto's log"), async || {
            let now = self.said(words);
            if now >= count { Ok(()) } else { Err(format!("{now} so far")) }
        })
        .await;
    }

    async fn launch(&mut self) -> bool {
        let file = self.dir.path().join("mosquitto.conf");
        let text = format!(
            "user root\nlistener {} 127.0.0.1\nlog_dest file {}\nlog_type all\nmax_queued_messages 0\n{}\n",
            self.port,
            self.log_file().display(),
            self.config
        );
        fs::write(&file, text).expect("a configuration");
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| PathBuf::from(path).exists());
        let mut command = child::command(program.unwrap_or("mosquitto"));
        command.arg("-c").arg(file).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let answers = async || TcpStream::connect(("127.0.0.1", self.port)).await.map(drop);
        self.server = Child::spawn(command).once_up("mosquitto", answers).await;
        self.server.is_some()
    }

    fn running(&mut self) -> &mut Child {
        self.server.as_mut().expect("mosquitto was killed")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("mosquitto.log")
    }
}

/// One connection that publishes.
pub struct Publisher {
    socket: TcpStream,
    next: u16,
}

impl Publisher {
    /// Connects by MQTT 5, as this user if one is given.
    pub async fn connect(port: u16, user: Option<(&str, &str)>) -> io::Result<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let flags = if user.is_some() { 0xc2 } else { 0x02 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 0, 0];
        text(&format!("rig{:016x}", rand::random::<u64>()), &mut body);
        if let Some((user, password)) = user {
            text(user, &mut body);
            text(password, &mut body);
        }
        socket.write_all(&packet(0x10, &body)).await?;
        let (kind, body) = read(&mut socket).await?;
        if kind != 0x20 || body[1] != 0 {
            return Err(io::Error::other(format!("refused: {kind:x} {body:?}")));
        }
        Ok(Self { socket, next: 1 })
    }

    /// Publishes, at least once, and waits until all are acknowledged.
    pub async fn publish(
        &mut self,
        messages: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>,
    ) -> io::Result<()> {
        self.send(messages, false, &[]).await
    }

    /// Publishes one that is to be retained.
    pub async fn retain(&mut self, topic: &str, payload: &str) -> io::Result<()> {
        self.send([(topic, payload)], true, &[]).await
    }

    /// Publishes one with user properties.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        payload: &str,
        properties: &[(&str, &str)],
    ) -> io::Result<()> {
        self.send([(topic, payload)], false, properties).await
    }

    async fn send(
        &mut self,
        messages: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>,
        retain: bool,
        properties: &[(&str, &str)],
    ) -> io::Result<()> {
        let messages: Vec<_> = messages.into_iter().collect();
        // No more at a time than brokers take unless they say more.
        for messages in messages.chunks(20) {
            let mut bytes = Vec::new();
            for (topic, payload) in messages {
                let mut body = Vec::new();
                text(topic.as_ref(), &mut body);
                body.extend(self.next.to_be_bytes());
                self.next = self.next.checked_add(1).unwrap_or(1);
                let mut own = Vec::new();
                for (name, value) in properties {
                    own.push(38);
                    text(name, &mut own);
                    text(value, &mut own);
                }
                length(own.len(), &mut body);
                body.extend(own);
                body.extend(payload.as_ref());
                bytes.extend(packet(0x32 | u8::from(retain), &body));
            }
            self.socket.write_all(&bytes).await?;
            let mut left = messages.len();
            while left > 0 {
                let (kind, _) = read(&mut self.socket).await?;
                left -= usize::from(kind == 0x40);
            }
        }
        Ok(())
    }
}

async fn read(socket: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let kind = socket.read_u8().await?;
    let (mut size, mut shift) = (0_usize, 0);
    loop {
        let byte = socket.read_u8().await?;
        size |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let mut body = vec![0; size];
    socket.read_exact(&mut body).await?;
    Ok((kind & 0xf0, body))
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    length(body.len(), &mut packet);
    packet.extend(body);
    packet
}

fn length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

//! One connection to one Redis server: TCP or TLS, the greeting, commands and their answers. What comes in unasked
//! is for the reader of [`Incoming`]. Knows nothing of feeds.
//!
//! The redis crate writes commands and parses values here, and does no more: its connections pair answers with
//! commands by counting, which a `sunsubscribe` that the server sends on its own throws off (crate version 1.8), and
//! they queue without bound. RESP3 lets one connection both receive messages and ask questions.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ServerError, Value, cmd};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::incoming::{Incoming, Pulse};
use crate::config::{self, Endpoint};
use crate::upstream::Broken;
use crate::upstream::socket::{self, Socket};

/// How the servers of one upstream are reached.
#[derive(Clone)]
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    timeout: Duration,
    user_timeout: Duration,
}

impl Dialer {
    /// Reads the system's authorities where they are needed.
    pub fn new<'e>(
        config: &config::Redis,
        mut endpoints: impl Iterator<Item = &'e Endpoint>,
    ) -> Result<Self, Broken> {
        let tls = endpoints.any(|endpoint| endpoint.tls).then(|| {
            let tls = config.tls.clone().unwrap_or_default().config().map_err(Broken)?;
            Ok(TlsConnector::from(Arc::new(tls)))
        });
        // Pings notice a peer that vanished. Should the kernel be the first to know, so much the better.
        let user_timeout = config.ping_interval + config.timeout;
        Ok(Self { tls: tls.transpose()?, timeout: config.timeout, user_timeout })
    }

    /// Connects and greets. What comes in must be read for an answer to be had, so that this happens while the
    /// caller reads: the greeting is [`Asker::greet`].
    pub async fn dial(&self, endpoint: &Endpoint) -> Result<(Asker, Incoming), Broken> {
        let address = endpoint.address();
        let socket = match timeout(self.timeout, self.connect(endpoint)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                return Err(Broken::new(&format!("connecting to Redis at {address} failed"), error));
            }
            Err(_) => {
                return Err(Broken(format!(
                    "connecting to Redis at {address} took longer than {:?}",
                    self.timeout
                )));
            }
        };
        let (reader, writer) = tokio::io::split(socket);
        let (sender, answers) = mpsc::unbounded_channel();
        let incoming = Incoming::new(reader, sender, &address);
        let pulse = incoming.pulse();
        Ok((Asker { address, timeout: self.timeout, writer, answers, pulse, fences: 0 }, incoming))
    }

    /// Asks one question on a connection of its own.
    pub async fn ask(&self, endpoint: &Endpoint, question: Cmd) -> Result<Value, Broken> {
        let (mut asker, incoming) = self.dial(endpoint).await?;
        let asking = async {
            asker.greet(endpoint).await?;
            let mut answers = asker.ask(&[question]).await?;
            match refusal(&answers) {
                Some(error) => {
                    Err(Broken(format!("Redis at {} refused a question: {error}", endpoint.address())))
                }
                None => Ok(answers.pop().unwrap_or(Value::Nil)),
            }
        };
        tokio::select! {
            broken = incoming.read(|_| {}) => Err(broken),
            answer = asking => answer,
        }
    }

    /// How long connecting, or an answer, may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A socket, with TLS if that is wanted.
    pub async fn connect(&self, endpoint: &Endpoint) -> std::io::Result<Box<dyn Socket>> {
        let socket = socket::connect(&endpoint.host, endpoint.port, self.user_timeout).await?;
        match self.tls.as_ref().filter(|_| endpoint.tls) {
            Some(tls) => socket::secure(tls, &endpoint.host, socket).await,
            None => Ok(Box::new(socket)),
        }
    }
}

/// The half of a connection that asks. Answers arrive while [`Incoming`] is read.
pub(super) struct Asker {
    address: String,
    timeout: Duration,
    writer: WriteHalf<Box<dyn Socket>>,
    answers: mpsc::UnboundedReceiver<Value>,
    pulse: Arc<Pulse>,
    fences: u64,
}

impl Asker {
    /// Introduces ssegate and asks for RESP3.
    pub async fn greet(&mut self, endpoint: &Endpoint) -> Result<(), Broken> {
        let mut hello = cmd("HELLO");
        hello.arg(3);
        if endpoint.user.is_some() || endpoint.password.is_some() {
            let password = endpoint.password.as_ref().map_or("", |password| password.expose());
            hello.arg("AUTH").arg(endpoint.user.as_deref().unwrap_or("default")).arg(password);
        }
        hello.arg("SETNAME").arg("ssegate");
        let mut commands = vec![hello];
        if endpoint.database != 0 {
            commands.push(cmd("SELECT").arg(endpoint.database).take());
        }
        let answers = self.ask(&commands).await?;
        let Some(error) = refusal(&answers) else { return Ok(()) };
        let what = if error.contains("unknown command") {
            "is older than version 6, the first that speaks RESP3".to_owned()
        } else if error.starts_with("NOAUTH") {
            "asks for a password; write it into the URL".to_owned()
        } else {
            format!("turned ssegate away: {error}")
        };
        Err(Broken(format!("Redis at {} {what}", self.address)))
    }

    /// Sends commands, and after them a ping as a fence: whatever comes before its answer answers them. So
    /// nothing has to be counted. SUBSCRIBE and its like answer only when they are refused.
    ///
    /// Without commands it is a ping alone, answered by nothing or by its refusal.
    pub async fn ask(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, Broken> {
        self.fences += 1;
        let fence = format!("ssegate-{}", self.fences);
        let mut packed: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
        packed.extend(cmd("PING").arg(&fence).get_packed_command());
        match timeout(self.timeout, self.write(&packed)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.lost(&error).await),
            Err(_) => return Err(self.silent()),
        }
        let mut answers = Vec::new();
        loop {
            let answer = self.answer().await?;
            if matches!(&answer, Value::BulkString(text) if *text == fence.as_bytes()) {
                return Ok(answers);
            }
            answers.push(answer);
            // One more than there are commands: the fence itself was refused.
            if answers.len() > commands.len() {
                return Ok(answers);
            }
        }
    }

    /// Waits for an answer for as long as anything comes in: what is slow is not gone.
    async fn answer(&mut self) -> Result<Value, Broken> {
        loop {
            let before = self.pulse.bytes();
            match timeout(self.timeout, self.answers.recv()).await {
                Ok(Some(answer)) => return Ok(answer),
                // The reader has ended, and says why.
                Ok(None) => pending().await,
                Err(_) if self.pulse.bytes() == before => return Err(self.silent()),
                Err(_) => {}
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// A write failed. The reader knows more, as soon as it has read what is left.
    async fn lost(&self, error: &std::io::Error) -> Broken {
        tokio::time::sleep(self.timeout).await;
        Broken(format!("the link to Redis at {} was lost: {error}", self.address))
    }

    fn silent(&self) -> Broken {
        Broken(format!("Redis at {} did not answer a ping within {:?}", self.address, self.timeout))
    }
}

/// The first refusal among answers, in Redis's words.
pub(super) fn refusal(answers: &[Value]) -> Option<String> {
    answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(words(error)),
        _ => None,
    })
}

/// A refusal in Redis's words: its code and what follows.
pub(super) fn words(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end().to_owned()
}

//! A NATS subject: no history, so that it is judged by times.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::proof::client::now;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View};
use crate::proof::verdict::timed::{Sent, Timed};
use crate::support::nats::Nats;
use crate::support::proxy::Proxy;

/// One subject; the first replica reads it through a proxy.
pub struct NatsSubject {
    nats: Nats,
    link: Proxy,
}

/// One connection to the server itself, which is spoken to by hand, so that nothing is tried again unnoticed; what was
/// published before a ping is known when that is answered.
pub struct NatsPen {
    port: u16,
    connection: Option<BufStream<TcpStream>>,
    sent: Timed,
}

impl Source for NatsSubject {
    const NAME: &'static str = "nats";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 3),
        (Kind::BrokerStopped, 3),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 4),
        (Kind::ReplicaKilled, 4),
    ];
    const NUMBERS: (u64, u64) = (50_000, 1_000);

    type Pen = NatsPen;

    async fn start() -> Option<Self> {
        let nats = Nats::start().await;
        let link = Proxy::start(([127, 0, 0, 1], nats.port()).into()).await;
        Some(Self { nats, link })
    }

    fn config(&self, replica: usize) -> String {
        let url = if replica == 0 { format!("nats://{}", self.link.addr()) } else { self.nats.url() };
        format!(
            r#"
upstreams: {{ up: {{ nats: {{ servers: "{url}", ping_interval: 200ms, timeout: 1s }} }} }}
defaults: {{ history: {{ events: 100000, bytes: 64MiB }} }}
routes:
  - {{ path: /all, from: {{ upstream: up, subject: {SUBJECT} }} }}
  - {{ path: /wild, from: {{ upstream: up, subject: "proof.*" }} }}
"#
        )
    }

    fn views(&self) -> Vec<View> {
        ["/all", "/wild"].into_iter().cycle().take(8).map(View::all).collect()
    }

    async fn pen(&self) -> NatsPen {
        NatsPen { port: self.nats.port(), connection: None, sent: Timed::default() }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<NatsPen>, _: &Replicas) {
        harm(&mut self.nats, &self.link, fault).await;
    }

    async fn until_settled(&self) {
        self.nats.until_subscribed(SUBJECT, 2).await;
        self.nats.until_subscribed("proof.*", 2).await;
    }

    async fn conclude(&mut self, pen: NatsPen) -> Published {
        Published::Timed(pen.sent)
    }
}

impl Pen for NatsPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let began = now();
        let done = self.try_publish(numbers.clone()).await;
        let sent = Sent { began, ended: now(), acknowledged: done.is_ok() };
        self.sent.0.extend(numbers.map(|number| (number, sent)));
        if done.is_err() {
            self.connection = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl NatsPen {
    async fn try_publish(&mut self, numbers: Range<u64>) -> io::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut fresh = BufStream::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
                fresh.write_all(b"CONNECT {\"verbose\":false}\r\n").await?;
                none.insert(fresh)
            }
        };
        for number in numbers {
            let number = number.to_string();
            connection
                .write_all(format!("PUB {SUBJECT} {}\r\n{number}\r\n", number.len()).as_bytes())
                .await?;
        }
        connection.write_all(b"PING\r\n").await?;
        connection.flush().await?;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.split_whitespace().next() {
                Some("PONG") => return Ok(()),
                Some("PING") => {
                    connection.write_all(b"PONG\r\n").await?;
                    connection.flush().await?;
                }
                Some("-ERR") => return Err(io::Error::other(line)),
                _ => {}
            }
        }
    }
}

const SUBJECT: &str = "proof.numbers";

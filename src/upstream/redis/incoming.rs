//! The half of a connection that reads. Answers go to the [`Asker`](super::connection::Asker); what Redis says
//! unasked goes to the caller, as much at a time as is there. Nothing is queued: while the caller is busy, Redis waits.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use redis::{PushKind, Value, parse_redis_value_async};
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};
use tokio::sync::mpsc;
use tokio::task::coop;

use super::output_limit::Run;
use crate::hub::Source;
use crate::shape::Record;
use crate::upstream::Broken;
use crate::upstream::socket::Socket;
use crate::upstream::turns::Turns;

/// The most that is handed over in one go.
const AT_ONCE: usize = 512;

/// Something Redis said unasked.
pub(super) enum Told {
    /// A message.
    Message(Message),
    /// A subscription stands.
    Subscribed(Source),
    /// A subscription to a shard channel has ended, whether we wanted it to or not.
    Unsubscribed(Source),
}

/// A message, and the source that it came by.
pub(super) struct Message {
    pub source: Source,
    /// The channel, where the source is a pattern.
    pub channel: Option<String>,
    pub payload: Vec<u8>,
}

impl Record for &Message {
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.payload)
    }

    fn name(&self) -> &str {
        self.channel.as_deref().unwrap_or_else(|| self.source.name())
    }
}

/// What there is to read.
pub(super) struct Incoming {
    address: String,
    reader: Counted,
    answers: mpsc::UnboundedSender<Value>,
}

impl Incoming {
    pub fn new(
        reader: ReadHalf<Box<dyn Socket>>,
        answers: mpsc::UnboundedSender<Value>,
        address: &str,
    ) -> Self {
        let pulse = Arc::default();
        let reader = Counted { reader, pulse, turns: Turns::default() };
        Self { address: address.to_owned(), reader, answers }
    }

    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.reader.pulse)
    }

    /// Reads until the link ends.
    pub async fn read(mut self, mut take: impl FnMut(Vec<Told>)) -> Broken {
        let mut decoder = Default::default();
        let mut batch = Vec::new();
        loop {
            let value = {
                let mut next = pin!(parse_redis_value_async(&mut decoder, &mut self.reader));
                match next.as_mut().now_or_never() {
                    Some(value) => value,
                    None => {
                        take(std::mem::take(&mut batch));
                        next.await
                    }
                }
            };
            match value {
                Ok(Value::Push { kind, data }) => batch.extend(told(&kind, data)),
                // Handed over first: an answer tells that everything before it has come in.
                Ok(answer) => {
                    take(std::mem::take(&mut batch));
                    let _ = self.answers.send(answer);
                }
                Err(error) => {
                    take(batch);
                    return self.broken(&error);
                }
            }
            if batch.len() >= AT_ONCE {
                take(std::mem::take(&mut batch));
            }
            self.reader.turns.pass().await;
        }
    }

    fn broken(&self, error: &redis::RedisError) -> Broken {
        let (address, pulse) = (&self.address, &self.reader.pulse);
        let what = if pulse.ended.load(Ordering::Relaxed) {
            format!("Redis at {address} closed the link")
        } else {
            format!("the link to Redis at {address} was lost: {error}")
        };
        Broken(match pulse.run.lock().backlog() {
            Some(explanation) => format!("{what}, {explanation}"),
            None => what,
        })
    }
}

fn told(kind: &PushKind, data: Vec<Value>) -> Option<Told> {
    let mut data = data.into_iter();
    let mut next = || match data.next() {
        Some(Value::BulkString(bytes)) => Some(bytes),
        Some(Value::SimpleString(text)) => Some(text.into_bytes()),
        _ => None,
    };
    let name = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let first = name(next()?);
    let message = |source, channel, payload| Told::Message(Message { source, channel, payload });
    Some(match kind {
        PushKind::Message => message(Source::Channel(first.into()), None, next()?),
        PushKind::SMessage => message(Source::ShardChannel(first.into()), None, next()?),
        PushKind::PMessage => {
            let channel = name(next()?);
            message(Source::Pattern(first.into()), Some(channel), next()?)
        }
        PushKind::Subscribe => Told::Subscribed(Source::Channel(first.into())),
        PushKind::PSubscribe => Told::Subscribed(Source::Pattern(first.into())),
        PushKind::SSubscribe => Told::Subscribed(Source::ShardChannel(first.into())),
        PushKind::SUnsubscribe => Told::Unsubscribed(Source::ShardChannel(first.into())),
        _ => return None,
    })
}

/// What has been read of a connection.
#[derive(Default)]
pub(super) struct Pulse {
    bytes: AtomicU64,
    run: Mutex<Run>,
    /// Whether the peer ended it in order.
    ended: AtomicBool,
}

impl Pulse {
    /// How many bytes have come in.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

struct Counted {
    reader: ReadHalf<Box<dyn Socket>>,
    pulse: Arc<Pulse>,
    turns: Turns,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.reader).poll_read(cx, buf);
        // Out of budget, tokio says that there is nothing to read where there may be plenty.
        if read.is_pending() && coop::has_budget_remaining() {
            this.pulse.run.lock().pause();
        }
        ready!(read)?;
        this.turns.count();
        let count = (buf.filled().len() - before) as u64;
        this.pulse.bytes.fetch_add(count, Ordering::Relaxed);
        this.pulse.run.lock().read(count);
        this.pulse.ended.store(count == 0, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Reads what `sent` holds, to its end.
    async fn read(sent: &[u8]) -> (Vec<Vec<Told>>, Vec<Value>, String) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(sent).await.unwrap();
        drop(theirs);
        let (sender, mut answers) = mpsc::unbounded_channel();
        let (reader, _writer) = tokio::io::split(Box::new(ours) as Box<dyn Socket>);
        let mut batches = Vec::new();
        let broken = Incoming::new(reader, sender, "h:1").read(|batch| batches.push(batch)).await;
        let mut answered = Vec::new();
        while let Ok(answer) = answers.try_recv() {
            answered.push(answer);
        }
        (batches, answered, broken.to_string())
    }

    fn shown(batches: &[Vec<Told>]) -> Vec<String> {
        let shown = |told: &Told| match told {
            Told::Message(m) => {
                format!("{:?} {} {}", m.source, (&m).name(), String::from_utf8_lossy(&m.payload))
            }
            Told::Subscribed(source) => format!("+ {source:?}"),
            Told::Unsubscribed(source) => format!("- {source:?}"),
        };
        batches.iter().flatten().map(shown).collect()
    }

    #[tokio::test]
    async fn what_is_said_unasked_is_told_apart_from_answers() {
        let (batches, answers, broken) = read(
            b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
              >3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n\xff\xfe\r\n\
              $9\r\nssegate-1\r\n\
              >4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\nab\r\n$1\r\nx\r\n\
              -MOVED 7 10.0.0.1:7000\r\n\
              >3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\ny\r\n\
              >3\r\n$12\r\nsunsubscribe\r\n$1\r\ns\r\n:0\r\n\
              >3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
        )
        .await;
        assert_eq!(
            shown(&batches),
            [
                "+ Channel(\"a\")",
                "Channel(\"a\") a \u{fffd}\u{fffd}",
                "Pattern(\"a*\") ab x",
                "ShardChannel(\"s\") s y",
                "- ShardChannel(\"s\")",
            ]
        );
        assert_eq!(answers[0], Value::BulkString(b"ssegate-1".to_vec()));
        assert!(
            matches!(&answers[1], Value::ServerError(error) if error.details() == Some("7 10.0.0.1:7000"))
        );
        assert_eq!(broken, "Redis at h:1 closed the link");
    }

    #[tokio::test]
    async fn what_came_before_an_answer_is_handed_over_before_it() {
        let (batches, ..) =
            read(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n+OK\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n2\r\n")
                .await;
        let sizes: Vec<usize> = batches.iter().map(Vec::len).filter(|len| *len > 0).collect();
        assert_eq!(sizes, [1, 1]);
    }

    #[tokio::test]
    async fn a_link_that_ends_behind_a_backlog_is_explained() {
        let payload = "x".repeat(100_000);
        let message = format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$100000\r\n{payload}\r\n");
        let (_, _, broken) = read(message.as_bytes()).await;
        assert!(broken.contains("client-output-buffer-limit"), "{broken}");
    }

    #[tokio::test]
    async fn nonsense_ends_the_link() {
        let (_, _, broken) = read(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(broken.starts_with("the link to Redis at h:1 was lost"), "{broken}");
    }
}

//! The line to a server: what is said on it, by whoever has something to say, and who waits for which answer. Reading it
//! is the session's, and never waits for anybody: what is asked for is bounded by who asks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::dial::{self, BUFFER, Entered};
use super::wire::{self, Message, Op};
use crate::upstream::Broken;
use crate::upstream::socket::Socket;
use crate::upstream::turns::Turns;

/// For those who ask.
pub(super) struct Line {
    address: String,
    timeout: Duration,
    /// What answers are sent to; the last token tells them apart.
    inbox: String,
    said: mpsc::Sender<Bytes>,
    waiting: Mutex<Waiting>,
    /// Bytes that have come in.
    pulse: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    pongs: VecDeque<oneshot::Sender<()>>,
    replies: HashMap<u64, mpsc::UnboundedSender<Message>>,
    numbers: u64,
    ended: bool,
}

/// For the session, which drives it.
pub(super) struct Driver {
    line: Arc<Line>,
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    read: BytesMut,
    saying: mpsc::Receiver<Bytes>,
}

/// The subscription by which answers to single questions come.
const ANSWERS: u64 = 1;
/// The first that is free for others.
pub(super) const FIRST_FREE: u64 = 2;
/// The first of those that are listened on.
const LISTENED: u64 = 1 << 32;

impl Line {
    /// Takes over a connection that has been entered.
    pub fn new(entered: Entered, timeout: Duration) -> (Arc<Self>, Driver) {
        let Entered { socket, read, address, .. } = entered;
        let (reader, writer) = tokio::io::split(socket);
        let (said, saying) = mpsc::channel(SAID);
        let inbox = format!("_INBOX.{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        let answers = wire::subscribe(&format!("{inbox}.*"), ANSWERS);
        said.try_send(answers).expect("it is empty");
        let (waiting, pulse) = (Mutex::default(), AtomicU64::new(0));
        let line = Arc::new(Self { address, timeout, inbox, said, waiting, pulse });
        let driver = Driver { line: Arc::clone(&line), reader, writer, read, saying };
        (line, driver)
    }

    /// How the server is reached.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Says something.
    pub async fn say(&self, what: Bytes) {
        // Where nobody listens, the session has ended.
        let _ = self.said.send(what).await;
    }

    /// Says something if there is room for it.
    pub fn say_if_possible(&self, what: Bytes) {
        let _ = self.said.try_send(what);
    }

    /// Everything that was said before has been heard, and what was sent before that has come in.
    pub async fn ping(&self) -> Result<(), Broken> {
        let Ok(permit) = self.said.reserve().await else { return Err(self.ended()) };
        let (pong, mut ponged) = oneshot::channel();
        {
            // In one go, so that answers find who asked by their order.
            let mut waiting = self.waiting.lock();
            waiting.pongs.push_back(pong);
            permit.send(Bytes::from_static(b"PING\r\n"));
        }
        loop {
            let before = self.pulse.load(Ordering::Relaxed);
            match timeout(self.timeout, &mut ponged).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(self.ended()),
                // What is slow is not gone.
                Err(_) if self.pulse.load(Ordering::Relaxed) == before => {
                    return Err(dial::silent(&self.address, self.timeout));
                }
                Err(_) => {}
            }
        }
    }

    /// Pings at a steady pace, and tells when a ping was sent that has been answered; ends when one is not.
    pub async fn keep_alive(&self, interval: Duration, alive: impl Fn(SystemTime)) -> Broken {
        loop {
            tokio::time::sleep(interval).await;
            let sent = SystemTime::now();
            match self.ping().await {
                Ok(()) => alive(sent),
                Err(broken) => return broken,
            }
        }
    }

    /// The only answer to a question; `None` where it takes too long.
    pub async fn answer(self: &Arc<Self>, subject: &str, question: &str) -> Result<Option<Message>, Broken> {
        let Ok(permit) = self.said.reserve().await else { return Err(self.ended()) };
        let mut replies = self.replies(0)?;
        permit.send(wire::publish(subject, &replies.inbox(), question));
        match timeout(self.timeout, replies.next()).await {
            Ok(answer) => answer.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Listens on a subject of its own until the result is dropped: what streams give comes by the subscription, and has
    /// the subject that it was published on.
    pub async fn listen(self: &Arc<Self>) -> Result<Replies, Broken> {
        let Ok(permit) = self.said.reserve().await else { return Err(self.ended()) };
        let replies = self.replies(LISTENED)?;
        permit.send(wire::subscribe(&replies.inbox(), replies.number));
        Ok(replies)
    }

    fn replies(self: &Arc<Self>, above: u64) -> Result<Replies, Broken> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return Err(self.ended());
        }
        waiting.numbers += 1;
        let number = above + waiting.numbers;
        waiting.replies.insert(number, sender);
        drop(waiting);
        Ok(Replies { line: Arc::clone(self), number, receiver })
    }

    /// Whether a message was waited for.
    fn take_reply(&self, message: Message) -> Option<Message> {
        let number = match message.sid {
            ANSWERS => message.subject.rsplit('.').next().and_then(|number| number.parse().ok()),
            sid @ LISTENED.. => Some(sid),
            _ => return Some(message),
        };
        let waiting = self.waiting.lock();
        if let Some(sender) = number.and_then(|number: u64| waiting.replies.get(&number)) {
            // Who waits no longer is about to say so.
            let _ = sender.send(message);
        }
        None
    }

    fn ended(&self) -> Broken {
        Broken(format!("the link to NATS at {} has ended", self.address))
    }

    /// Nobody waits any more.
    pub fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        waiting.pongs.clear();
        waiting.replies.clear();
    }
}

/// What comes on one subject that is waited for.
pub(super) struct Replies {
    line: Arc<Line>,
    number: u64,
    receiver: mpsc::UnboundedReceiver<Message>,
}

impl Replies {
    /// The subject.
    pub fn inbox(&self) -> String {
        match self.number {
            LISTENED.. => format!("{}l.{}", self.line.inbox, self.number),
            number => format!("{}.{number}", self.line.inbox),
        }
    }

    /// The next one. May be cancelled.
    pub async fn next(&mut self) -> Result<Message, Broken> {
        self.receiver.recv().await.ok_or_else(|| self.line.ended())
    }

    /// The next one, if it is there.
    pub fn try_next(&mut self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.line.waiting.lock().replies.remove(&self.number);
        if self.number >= LISTENED {
            self.line.say_if_possible(wire::unsubscribe(self.number));
        }
    }
}

/// For the session: what comes in that answers nothing.
pub(super) enum Told {
    /// Messages of subscriptions, in order.
    Messages(Vec<Message>),
    /// The server does not let us subscribe to this subject.
    Refused(String),
    /// It does not let us ask something, in its words. The answer then does not come.
    Forbidden(String),
}

impl Driver {
    /// Reads and writes until the link ends.
    pub async fn drive(self, tell: impl Fn(Told)) -> Broken {
        let Self { line, mut reader, mut writer, mut read, mut saying } = self;
        let address = line.address.clone();
        let lost = |error| Broken::new(&format!("the link to NATS at {address} was lost"), error);
        let writing = async {
            while let Some(first) = saying.recv().await {
                let mut bytes = BytesMut::from(&first[..]);
                while let Ok(next) = saying.try_recv() {
                    bytes.extend_from_slice(&next);
                }
                if let Err(error) = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                }
                .await
                {
                    return lost(error);
                }
            }
            line.ended()
        };
        let reading = async {
            let mut turns = Turns::default();
            loop {
                if let Err(broken) = line.take_all(&mut read, &tell) {
                    return broken;
                }
                if read.capacity() - read.len() < BUFFER / 4 {
                    read.reserve(BUFFER);
                }
                match reader.read_buf(&mut read).await {
                    Ok(0) => return Broken(format!("NATS at {address} closed the link")),
                    Ok(count) => line.pulse.fetch_add(count as u64, Ordering::Relaxed),
                    Err(error) => return lost(error),
                };
                turns.count();
                turns.pass().await;
            }
        };
        tokio::select! {
            // What has come in says more, and counts first.
            biased;
            broken = reading => broken,
            broken = writing => broken,
        }
    }
}

impl Line {
    /// Takes everything that is there in whole.
    fn take_all(&self, read: &mut BytesMut, tell: &impl Fn(Told)) -> Result<(), Broken> {
        let mut messages = Vec::new();
        let flush = |messages: &mut Vec<Message>| {
            if !messages.is_empty() {
                tell(Told::Messages(std::mem::take(messages)));
            }
        };
        let malformed = |error| Broken::new(&format!("the link to NATS at {} was lost", self.address), error);
        while let Some(op) = wire::take(read).map_err(malformed)? {
            match op {
                Op::Message(message) => messages.extend(self.take_reply(message)),
                Op::Ping => self.say_if_possible(Bytes::from_static(b"PONG\r\n")),
                Op::Pong => {
                    flush(&mut messages);
                    if let Some(pong) = self.waiting.lock().pongs.pop_front() {
                        let _ = pong.send(());
                    }
                }
                Op::Err(error) => {
                    flush(&mut messages);
                    self.take_error(&error, tell)?;
                }
                Op::Info(_) => {}
            }
        }
        flush(&mut messages);
        Ok(())
    }

    /// All errors end the link but one that says what we may not.
    fn take_error(&self, error: &str, tell: &impl Fn(Told)) -> Result<(), Broken> {
        let refused = error.get(..SUBSCRIPTION.len()).filter(|head| head.eq_ignore_ascii_case(SUBSCRIPTION));
        let subject = refused.and_then(|_| error.split('"').nth(1));
        if let Some(subject) = subject {
            tell(Told::Refused(subject.to_owned()));
        } else if error.get(..PERMISSIONS.len()).is_some_and(|head| head.eq_ignore_ascii_case(PERMISSIONS)) {
            tell(Told::Forbidden(error.to_owned()));
        } else {
            return Err(Broken(format!("NATS at {} ended the link: {error}", self.address)));
        }
        Ok(())
    }
}

const PERMISSIONS: &str = "Permissions Violation";
const SUBSCRIPTION: &str = "Permissions Violation for Subscription to";
/// The most things that wait to be said.
const SAID: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::nats::wire::Info;
    use crate::upstream::socket::testing::Firehose;

    #[tokio::test]
    async fn what_is_said_is_written_while_there_is_always_something_to_read() {
        let says = format!("MSG a 7 2000\r\n{}\r\n", "x".repeat(2_000));
        let (firehose, heard) = Firehose::new(says.into(), 200);
        let (read, info) = (BytesMut::new(), Info::default());
        let entered = Entered { socket: Box::new(firehose), read, address: "h:1".into(), info };
        let (line, driver) = Line::new(entered, Duration::from_secs(5));
        line.say_if_possible(wire::subscribe("b", 9));
        let broken = driver.drive(|_| {}).await;
        assert_eq!(broken.to_string(), "NATS at h:1 closed the link");
        let heard = String::from_utf8(heard.lock().clone()).unwrap();
        assert!(heard.ends_with("SUB b 9\r\n"), "{heard}");
    }
}

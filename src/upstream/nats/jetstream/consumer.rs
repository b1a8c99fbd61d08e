//! A consumer while it is read: asks for messages, so many and so large at a time, and gives what came. It goes with the
//! link, with its stream, or with the server that has it, and then another is made.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::time::timeout;

use super::api::{self, Made, Since, Unanswered};
use crate::shape::Record;
use crate::upstream::nats::line::{Line, Replies};
use crate::upstream::nats::wire::{self, Message};

/// A consumer that is read.
pub(super) struct Consumer {
    line: Arc<Line>,
    stream: Arc<str>,
    name: String,
    replies: Replies,
    /// How many messages it has to give, as far as it has told.
    pub pending: u64,
    asked: Option<Asked>,
    /// How many it has given.
    given: u64,
    /// Whether what is asked for may be of any size: one message was larger than all may be together.
    any_size: bool,
}

struct Asked {
    left: usize,
    came: usize,
    wait: Duration,
}

/// What came.
#[derive(Debug)]
pub(super) enum Came {
    /// Messages, in order.
    Items(Vec<Item>),
    /// None in time. That proves nothing: a server that is slow says so, too.
    Nothing,
    /// The consumer is no more, or gave something out of turn.
    Gone(String),
}

/// A message of a stream.
#[derive(Debug)]
pub(super) struct Item {
    message: Message,
    /// Its number in the stream.
    pub number: u64,
    /// How many the consumer still has to give.
    pub pending: u64,
    /// When it was published.
    pub time: SystemTime,
    /// Which of those that the consumer gives.
    turn: u64,
}

impl Consumer {
    /// Makes one.
    pub async fn make(
        line: &Arc<Line>,
        stream: &Arc<str>,
        subject: Option<&str>,
        since: Since,
        headers_only: bool,
    ) -> Result<Self, Unanswered> {
        let replies = line.listen().await.map_err(|broken| Unanswered::Busy(broken.to_string()))?;
        let Made { name, num_pending } = api::make(line, stream, subject, since, headers_only).await?;
        let (line, stream) = (Arc::clone(line), Arc::clone(stream));
        Ok(Self { line, stream, name, replies, pending: num_pending, asked: None, given: 0, any_size: false })
    }

    /// Whether nothing is asked for at present.
    pub fn is_idle(&self) -> bool {
        self.asked.is_none()
    }

    /// What comes within `wait`. May be cancelled.
    pub async fn next(&mut self, wait: Duration) -> Result<Came, Unanswered> {
        self.take_some(BATCH, wait).await
    }

    /// What it has to give already; [`Came::Nothing`] means here that it has given all of that.
    pub async fn drain(&mut self) -> Result<Came, Unanswered> {
        loop {
            if self.pending == 0 && self.is_idle() {
                return Ok(Came::Nothing);
            }
            let most = usize::try_from(self.pending).unwrap_or(BATCH).clamp(1, BATCH);
            match self.take_some(most, DRAINED).await? {
                // Taken away meanwhile, or late.
                Came::Nothing if self.has_given_all().await? => return Ok(Came::Nothing),
                Came::Nothing => {}
                came => return Ok(came),
            }
        }
    }

    /// Whether it has given everything that there was before this was asked.
    pub async fn has_given_all(&mut self) -> Result<bool, Unanswered> {
        let progress = api::progress(&self.line, &self.stream, &self.name).await?;
        self.pending = progress.num_pending;
        if progress.given() > self.given && self.is_idle() {
            // Of what is on its way to a question that has ended nobody knows whether it arrives.
            return Err(Unanswered::Busy("a consumer has given what did not come".to_owned()));
        }
        Ok(self.pending == 0 && progress.given() == self.given)
    }

    /// The number of the message that it gave last, or of the one before those that it begins with.
    pub async fn at(&self) -> Result<u64, Unanswered> {
        Ok(api::progress(&self.line, &self.stream, &self.name).await?.at())
    }

    async fn take_some(&mut self, most: usize, wait: Duration) -> Result<Came, Unanswered> {
        loop {
            if self.asked.is_none() {
                self.ask(if self.any_size { 1 } else { most }, wait).await;
            }
            let Some(asked) = &self.asked else { continue };
            let patience = asked.wait + self.line.timeout();
            let Ok(first) = timeout(patience, self.replies.next()).await else {
                self.asked = None;
                return Ok(Came::Gone("it is silent".to_owned()));
            };
            let first = first.map_err(|broken| Unanswered::Busy(broken.to_string()))?;
            let mut items = Vec::new();
            let mut ended = self.take(first, &mut items);
            while ended.is_none()
                && self.asked.is_some()
                && let Some(more) = self.replies.try_next()
            {
                ended = self.take(more, &mut items);
            }
            match ended {
                // What ends with something else is asked for again, and says so then.
                _ if !items.is_empty() => return Ok(Came::Items(items)),
                Some(ended) => return Ok(ended),
                None => {}
            }
        }
    }

    async fn ask(&mut self, most: usize, wait: Duration) {
        let mut question = json!({ "batch": most, "expires": api::nanos(wait) });
        if !self.any_size {
            question["max_bytes"] = json!(BYTES);
        }
        let subject = api::next_subject(&self.stream, &self.name);
        self.line.say(wire::publish(&subject, &self.replies.inbox(), &question.to_string())).await;
        self.asked = Some(Asked { left: most, came: 0, wait });
    }

    /// Takes one answer. Returns what it ends with, if it is none of the messages.
    fn take(&mut self, message: Message, items: &mut Vec<Item>) -> Option<Came> {
        let asked = self.asked.as_mut()?;
        // The first line of a message's headers is its publisher's.
        if let Some((code, words)) = message.status().filter(|_| !message.is_of_a_stream()) {
            let none_came = asked.came == 0;
            if code == 100 {
                return None;
            }
            self.asked = None;
            return match code {
                404 | 408 => Some(Came::Nothing),
                409 if words.to_ascii_lowercase().contains("maxbytes") => {
                    self.any_size = none_came;
                    None
                }
                _ => Some(Came::Gone(format!("{code} {words}"))),
            };
        }
        let size = message.size();
        let Some(item) = Item::of(message).filter(|item| item.turn == self.given + 1) else {
            self.asked = None;
            return Some(Came::Gone("it gave something out of turn".to_owned()));
        };
        (self.given, self.pending) = (self.given + 1, item.pending);
        items.push(item);
        (asked.left, asked.came) = (asked.left - 1, asked.came + size);
        if asked.left == 0 {
            self.asked = None;
            self.any_size = false;
        }
        None
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let subject = api::delete_subject(&self.stream, &self.name);
        self.line.say_if_possible(format!("PUB {subject} 0\r\n\r\n").into());
    }
}

impl Item {
    /// `$JS.ACK.STREAM.CONSUMER.DELIVERED.NUMBER.TURN.TIME.PENDING`; newer servers name domain and account before the
    /// stream, and something random at the end.
    fn of(message: Message) -> Option<Self> {
        let words: Vec<&str> = message.reply.as_deref()?.strip_prefix("$JS.ACK.")?.split('.').collect();
        let at = match words.len() {
            7 => 3,
            9.. => 5,
            _ => return None,
        };
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let (sequence, turn, time, pending) =
            (number(at)?, number(at + 1)?, number(at + 2)?, number(at + 3)?);
        let time = UNIX_EPOCH + Duration::from_nanos(time);
        Some(Self { number: sequence, pending, time, turn, message })
    }
}

impl Record for &Item {
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.message.payload)
    }

    fn name(&self) -> &str {
        &self.message.subject
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.message.header(name)
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        let headers = self.message.headers();
        headers.for_each(|(name, value)| each(&String::from_utf8_lossy(name), Some(value)));
    }

    fn timestamp(&self) -> Option<SystemTime> {
        Some(self.time)
    }
}

/// The most messages, and bytes, that are asked for at a time.
const BATCH: usize = 500;
const BYTES: usize = 2 << 20;
/// How long what is there may take to come.
const DRAINED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn item(reply: &str) -> Option<Item> {
        let (subject, head, payload) = ("orders.7".to_owned(), Bytes::new(), Bytes::from_static(b"x"));
        Item::of(Message { sid: 1, subject, reply: Some(reply.to_owned()), head, payload })
    }

    #[test]
    fn where_a_message_was_stands_in_what_would_acknowledge_it() {
        for reply in [
            "$JS.ACK.ORDERS.c1.1.42.3.1700000000000000000.9",
            "$JS.ACK.hub.ABC.ORDERS.c1.1.42.3.1700000000000000000.9",
            "$JS.ACK._.ABC.ORDERS.c1.1.42.3.1700000000000000000.9.rnd",
        ] {
            let item = item(reply).unwrap();
            assert_eq!((item.number, item.turn, item.pending), (42, 3, 9), "{reply}");
            assert_eq!(item.time, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
            assert_eq!(((&item).name(), (&item).payload()), ("orders.7", Some(&b"x"[..])));
        }
        for reply in ["", "_INBOX.1", "$JS.ACK.a.b.1.2", "$JS.ACK.a.b.1.x.3.4.5"] {
            assert!(item(reply).is_none(), "{reply}");
        }
    }
}

//! NATS's protocol as bytes, both ways. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;

/// What a server says.
#[derive(Debug)]
pub(super) enum Op {
    Info(Box<Info>),
    Message(Message),
    Ping,
    Pong,
    /// Something was wrong, in the server's words.
    Err(String),
}

/// What a server says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    /// To be signed by who enters with a key.
    pub nonce: String,
    pub tls_required: bool,
    /// The name of its cluster, if it is in one.
    pub cluster: Option<String>,
}

/// A message on a subject.
#[derive(Debug)]
pub(super) struct Message {
    /// Of the subscription that it came by.
    pub sid: u64,
    pub subject: String,
    pub reply: Option<String>,
    /// The lines of its headers, the first of which names their version.
    pub head: Bytes,
    pub payload: Bytes,
}

impl Message {
    /// The last of its headers of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().filter(|(own, _)| *own == name.as_bytes()).last().map(|(_, value)| value)
    }

    /// Its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(|line| {
            let (name, value) = line.split_at(memchr::memchr(b':', line)?);
            Some((name, value[1..].trim_ascii()))
        })
    }

    /// Whether JetStream gives it of a stream, which it says where an acknowledgement is to go.
    pub fn is_of_a_stream(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."))
    }

    /// The status that stands in the place of a message, such as `404 No Messages`.
    pub fn status(&self) -> Option<(u16, &str)> {
        let first = self.head.split(|byte| *byte == b'\n').next()?;
        let text = str::from_utf8(first).ok()?.strip_prefix("NATS/1.0")?.trim();
        let (code, words) = text.split_at_checked(3)?;
        Some((code.parse().ok()?, words.trim()))
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.head.len() + self.payload.len() + self.subject.len()
    }
}

/// What came is not NATS's protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came in is not the protocol of NATS")]
pub(super) struct Malformed;

/// Takes the next thing said off the buffer; `None` while it is not there in whole.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Op>, Malformed> {
    loop {
        let Some(end) = memchr::memchr(b'\n', buffer) else {
            return if buffer.len() > LONGEST_LINE { Err(Malformed) } else { Ok(None) };
        };
        let line = buffer[..end].strip_suffix(b"\r").ok_or(Malformed)?;
        let (verb, rest) =
            line.split_at(line.iter().position(|byte| b" \t".contains(byte)).unwrap_or(line.len()));
        let rest = rest.trim_ascii();
        let op = match verb {
            b"MSG" => return message(buffer, end, false),
            b"HMSG" => return message(buffer, end, true),
            b"INFO" => Op::Info(serde_json::from_slice(rest).map_err(|_| Malformed)?),
            b"PING" => Op::Ping,
            b"PONG" => Op::Pong,
            b"-ERR" => Op::Err(String::from_utf8_lossy(rest).trim_matches('\'').to_owned()),
            b"+OK" => {
                buffer.advance(end + 1);
                continue;
            }
            _ => return Err(Malformed),
        };
        buffer.advance(end + 1);
        return Ok(Some(op));
    }
}

/// `MSG SUBJECT SID [REPLY] SIZE` and the payload, or `HMSG SUBJECT SID [REPLY] HEAD SIZE`, headers and payload.
fn message(buffer: &mut BytesMut, end: usize, headed: bool) -> Result<Option<Op>, Malformed> {
    let line = str::from_utf8(&buffer[..end]).map_err(|_| Malformed)?;
    let words: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
    let sizes = if headed { 2 } else { 1 };
    let (place, sizes) =
        words.split_at_checked(words.len().checked_sub(sizes).ok_or(Malformed)?).ok_or(Malformed)?;
    let (subject, sid, reply) = match place {
        [subject, sid] => (*subject, *sid, None),
        [subject, sid, reply] => (*subject, *sid, Some((*reply).to_owned())),
        _ => return Err(Malformed),
    };
    let number = |text: &str| text.parse::<usize>().ok().filter(|size| *size <= LARGEST).ok_or(Malformed);
    let total = number(sizes[sizes.len() - 1])?;
    let head = if headed { number(sizes[0])? } else { 0 };
    if head > total {
        return Err(Malformed);
    }
    let begin = end + 1;
    if buffer.len() < begin + total + 2 {
        buffer.reserve(begin + total + 2 - buffer.len());
        return Ok(None);
    }
    let (subject, sid) = (subject.to_owned(), sid.parse().map_err(|_| Malformed)?);
    let whole = buffer.split_to(begin + total + 2).freeze();
    if !whole.ends_with(b"\r\n") {
        return Err(Malformed);
    }
    let (head, payload) = (whole.slice(begin..begin + head), whole.slice(begin + head..begin + total));
    Ok(Some(Op::Message(Message { sid, subject, reply, head, payload })))
}

/// `SUB`
pub(super) fn subscribe(subject: &str, sid: u64) -> Bytes {
    format!("SUB {subject} {sid}\r\n").into()
}

/// `UNSUB`
pub(super) fn unsubscribe(sid: u64) -> Bytes {
    format!("UNSUB {sid}\r\n").into()
}

/// `PUB`, to be answered at `reply`, if anywhere.
pub(super) fn publish(subject: &str, reply: &str, payload: &str) -> Bytes {
    format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()).into()
}

/// The longest line but for messages: what a server says of itself names all of its cluster.
const LONGEST_LINE: usize = 1 << 20;
/// More than any server lets through: 64 MiB is the largest `max_payload`, and headers count in it.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Op>, Malformed> {
        let (mut buffer, mut ops) = (BytesMut::from(text), Vec::new());
        while let Some(op) = take(&mut buffer)? {
            ops.push(op);
        }
        Ok(ops)
    }

    #[test]
    fn what_a_server_says() {
        let ops = all(
            b"INFO {\"nonce\":\"n\",\"tls_required\":true,\"cluster\":\"c\",\"x\":1}\r\nPING\r\n+OK\r\nPONG\r\n\
              -ERR 'Authorization Violation'\r\n\
              MSG a.b 7 3\r\nx\r\n\r\nMSG a.b 7 _INBOX.1 0\r\n\r\n\
              HMSG a 8 32 34\r\nNATS/1.0\r\nk: 1\r\nK: 2\r\nk:  3 \r\n\r\nhi\r\n\
              HMSG _INBOX.1 1 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n",
        )
        .unwrap();
        let [
            Op::Info(info),
            Op::Ping,
            Op::Pong,
            Op::Err(error),
            Op::Message(plain),
            Op::Message(asked),
            rest @ ..,
        ] = &ops[..]
        else {
            panic!("{ops:?}")
        };
        assert_eq!((info.nonce.as_str(), info.tls_required, info.cluster.as_deref()), ("n", true, Some("c")));
        assert_eq!(error, "Authorization Violation");
        assert_eq!((plain.subject.as_str(), plain.sid, &plain.payload[..]), ("a.b", 7, &b"x\r\n"[..]));
        assert_eq!((asked.reply.as_deref(), asked.payload.len()), (Some("_INBOX.1"), 0));
        let [Op::Message(headed), Op::Message(status)] = rest else { panic!("{rest:?}") };
        assert_eq!((headed.header("k"), headed.header("K")), (Some(&b"3"[..]), Some(&b"2"[..])));
        assert_eq!((headed.header("x"), headed.status(), &headed.payload[..]), (None, None, &b"hi"[..]));
        assert_eq!(status.status(), Some((404, "No Messages")));
    }

    #[test]
    fn what_is_not_there_in_whole_is_waited_for() {
        let text = b"MSG a 1 5\r\nhello\r\n";
        for end in 0..text.len() {
            assert!(all(&text[..end]).unwrap().is_empty(), "{end}");
        }
        assert_eq!(all(text).unwrap().len(), 1);
    }

    #[test]
    fn nonsense_is_told() {
        for text in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"PING\n",
            b"MSG a 1\r\n",
            b"MSG a x 1\r\nx\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 99999999999\r\n",
            b"MSG a 1 1\r\nxyz",
            b"HMSG a 1 5 3\r\n",
            b"INFO {\r\n",
        ] {
            assert_eq!(all(text).unwrap_err(), Malformed, "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(MSG|HMSG|INFO|-ERR) [a-z0-9 \r\n]{0,60}") {
            let _ = all(&bytes);
            let _ = all(text.as_bytes());
        }
    }
}

//! The ways that events take to a server: how one is asked for, and how it is answered.

use std::net::SocketAddr;

use anyhow::bail;
use serde_json::json;

use crate::publish::zmtp;
use crate::sse::head_end;

/// The way that events take.
#[derive(Debug, Clone)]
pub enum Road {
    /// HTTP requests, one after the other on one connection, each with the payload as its body.
    Post {
        /// Of the listener.
        addr: SocketAddr,
        /// Of the request; the channel stands in place of `{}`.
        path: String,
    },
    /// `PUBLISH` commands to a Redis.
    Redis {
        /// Of the Redis.
        addr: SocketAddr,
    },
    /// The form that a Mercure hub is posted.
    Mercure {
        /// Of the hub.
        addr: SocketAddr,
    },
    /// The HTTP API of Centrifugo.
    Centrifugo {
        /// Of the API.
        addr: SocketAddr,
    },
    /// A ZeroMQ socket to which Pushpin's items are pushed. Its HTTP server ends a connection after each request.
    Pushpin {
        /// Of the socket.
        addr: SocketAddr,
    },
}

impl Road {
    /// Where it leads.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Post { addr, .. }
            | Self::Redis { addr }
            | Self::Mercure { addr }
            | Self::Centrifugo { addr }
            | Self::Pushpin { addr } => *addr,
        }
    }

    /// Whether what is sent is answered.
    pub fn answers(&self) -> bool {
        !matches!(self, Self::Pushpin { .. })
    }

    /// The request that publishes this payload, which is JSON, to a channel.
    pub fn request(&self, channel: &str, payload: &str) -> Vec<u8> {
        match self {
            Self::Post { addr, path } => post(addr, &path.replace("{}", channel), "", payload),
            Self::Redis { .. } => format!(
                "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n",
                channel.len(),
                payload.len()
            )
            .into_bytes(),
            Self::Mercure { addr } => {
                let form = format!("topic={channel}&data={}", percent(payload));
                let headers =
                    format!("content-type: application/x-www-form-urlencoded\r\n{MERCURE_TOKEN}\r\n");
                post(addr, "/.well-known/mercure", &headers, &form)
            }
            Self::Centrifugo { addr } => {
                let body = format!(r#"{{"channel":"{channel}","data":{payload}}}"#);
                post(addr, "/api/publish", "content-type: application/json\r\n", &body)
            }
            Self::Pushpin { .. } => zmtp::message(&pushpin_item(channel, payload)),
        }
    }

    /// The length of the answer that `bytes` begin with, if it is whole.
    ///
    /// # Errors
    /// Where it says that the event was not published.
    pub fn answer(&self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        match self {
            Self::Post { .. } | Self::Mercure { .. } => http_answer(bytes),
            Self::Centrifugo { .. } => {
                let end = http_answer(bytes)?;
                let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(0)]);
                if text.contains(r#"{"error""#) {
                    bail!("an event was refused: {}", text.lines().last().unwrap_or_default());
                }
                Ok(end)
            }
            Self::Redis { .. } => {
                let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
                match bytes[..=end].strip_prefix(b":") {
                    Some(b"0\r\n") => bail!("an event was published to nobody: the server is not subscribed"),
                    Some(_) => Ok(Some(end + 1)),
                    None => bail!("Redis says {}", String::from_utf8_lossy(&bytes[..end])),
                }
            }
            Self::Pushpin { .. } => Ok(None),
        }
    }
}

/// The length of the answer to an HTTP request that `bytes` begin with, if it is whole.
///
/// # Errors
/// Where it is no success.
pub fn http_answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = head_end(bytes) else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 2") {
        bail!("an event was refused: {}", head.lines().next().unwrap_or_default());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    Ok((bytes.len() >= end + length).then_some(end + length))
}

fn post(addr: &SocketAddr, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// For a form (URL Standard, section 5.2), as far as our payloads go.
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    for byte in text.bytes() {
        match byte {
            b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An item for the channel's streams, as a tnetstring: a length, a colon, the bytes, and what they are.
fn pushpin_item(channel: &str, payload: &str) -> Vec<u8> {
    let string = |text: &str| format!("{}:{text},", text.len());
    let map = |entries: String| format!("{}:{entries}}}", entries.len());
    let content = map(string("content") + &string(&format!("data: {payload}\n\n")));
    let formats = map(string("http-stream") + &content);
    map(string("channel") + &string(channel) + &string("formats") + &formats).into_bytes()
}

/// What asks Centrifugo for a stream of this channel.
pub fn centrifugo_path(channel: &str) -> String {
    let subscriptions = json!({ "subs": { channel: {} } }).to_string();
    format!("/connection/uni_sse?cf_connect={}", percent(&subscriptions))
}

/// Lets anyone who has it publish everything; signed with the key in `tests/load/peers/mercure`.
const MERCURE_TOKEN: &str = "authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.VbNGNSO6syo0cGPOMjNP3k9pqUKkZR0YhM1jfKbF58E";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_pushpin_is_a_tnetstring() {
        let item = String::from_utf8(pushpin_item("load", "{}")).expect("it is text");
        assert_eq!(item, "74:7:channel,4:load,7:formats,43:11:http-stream,24:7:content,10:data: {}\n\n,}}}");
    }

    #[test]
    fn forms_keep_what_they_may() {
        assert_eq!(percent(r#"{"seq":7}."#), "%7B%22seq%22%3A7%7D.");
    }
}

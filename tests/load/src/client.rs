//! One connection of a client: TLS undone, HTTP undone, events handed to its subscribers. Never waits.

use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rustls::{ClientConnection, HandshakeKind};

use crate::decode::Decoder;
use crate::dial::Dial;
use crate::sse::Subscriber;
use crate::tally::Tally;
use crate::{http1, http2};

/// A connection and the streams on it.
pub struct Client {
    /// Its socket, which does not block.
    pub socket: TcpStream,
    /// Those who read its streams; one on HTTP/1.1.
    pub subscribers: Vec<Subscriber>,
    /// When it began to connect.
    pub began: Instant,
    tls: Option<Box<ClientConnection>>,
    wire: Wire,
    request: Option<Vec<u8>>,
    announces: bool,
}

enum Wire {
    Http1(http1::Response),
    Http2(http2::Connection),
}

impl Client {
    /// Connects for these subscribers, one on HTTP/1.1, and sends the first bytes.
    ///
    /// # Errors
    /// Where there is no connection to be had.
    pub fn connect(dial: &Dial, mut subscribers: Vec<Subscriber>) -> anyhow::Result<Self> {
        let began = Instant::now();
        // On loopback this ends at once, as long as the server's backlog has room.
        let socket = TcpStream::connect(dial.addr).with_context(|| format!("connecting to {}", dial.addr))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let tls = match &dial.tls {
            Some(config) => Some(Box::new(ClientConnection::new(Arc::clone(config), dial.server_name()?)?)),
            None => None,
        };
        for subscriber in &mut subscribers {
            subscriber.decoder = Decoder::new(dial.coding);
        }
        let (wire, request) = match dial.h2 {
            None => {
                let asks = subscribers.first().map(|one| dial.asks(one)).context("nobody to connect for")?;
                (Wire::Http1(http1::Response::default()), http1::request(&asks))
            }
            Some(_) => {
                let asks: Vec<_> = subscribers.iter().map(|one| dial.asks(one)).collect();
                let mut connection = http2::Connection::open(&asks);
                let request = connection.take_out();
                (Wire::Http2(connection), request)
            }
        };
        let announces = dial.announces;
        let mut client = Self { socket, subscribers, began, tls, wire, request: Some(request), announces };
        client.flush()?;
        Ok(client)
    }

    /// Reads once, which suffices as epoll tells again if there is more. `buffer` is room for it.
    ///
    /// # Errors
    /// Whatever ends the connection, its regular end included.
    pub fn ready(&mut self, buffer: &mut [u8], tally: &mut Tally) -> anyhow::Result<()> {
        let read = match self.socket.read(buffer) {
            Ok(0) => bail!("closed by the server"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        tally.bytes += read as u64;
        let (now, mut bytes) = (unix_nanos(), &buffer[..read]);
        let Some(tls) = &mut self.tls else {
            self.wire.feed(bytes, &mut self.subscribers, now, tally)?;
            return self.flush();
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets()?;
            loop {
                let mut reader = tls.reader();
                let length = match reader.fill_buf() {
                    Ok([]) => bail!("TLS closed by the server"),
                    Ok(plain) => {
                        self.wire.feed(plain, &mut self.subscribers, now, tally)?;
                        plain.len()
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                reader.consume(length);
            }
        }
        self.flush()
    }

    /// Whether every stream stands: what is published from now on has to arrive.
    pub fn joined(&self) -> bool {
        match &self.wire {
            _ if self.announces => self.subscribers.iter().all(|subscriber| subscriber.joined),
            Wire::Http1(response) => !matches!(response, http1::Response::Head(_)),
            Wire::Http2(connection) => connection.answered(),
        }
    }

    /// Whether the TLS session was resumed.
    pub fn resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// The key exchange that both sides agreed on.
    pub fn key_exchange(&self) -> String {
        let group = self.tls.as_ref().and_then(|tls| tls.negotiated_key_exchange_group());
        group.map_or("none".to_owned(), |group| format!("{:?}", group.name()))
    }

    /// Sends what there is to send. It is little, so a socket that does not take it is an error.
    fn flush(&mut self) -> anyhow::Result<()> {
        let mut out = match &mut self.wire {
            Wire::Http1(_) => Vec::new(),
            Wire::Http2(connection) => connection.take_out(),
        };
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        if !handshaking && let Some(request) = self.request.take() {
            out.splice(..0, request);
        }
        match &mut self.tls {
            None if out.is_empty() => {}
            None => self.socket.write_all(&out)?,
            Some(tls) => {
                if !out.is_empty() {
                    tls.writer().write_all(&out)?;
                }
                while tls.wants_write() {
                    tls.write_tls(&mut self.socket)?;
                }
            }
        }
        Ok(())
    }
}

impl Wire {
    fn feed(
        &mut self,
        bytes: &[u8],
        subscribers: &mut [Subscriber],
        now: u64,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        match self {
            Self::Http1(response) => {
                response.feed(bytes, |piece| subscribers[0].receive(piece, now, tally))?;
                if matches!(response, http1::Response::End) {
                    bail!("the response ended");
                }
                Ok(())
            }
            Self::Http2(connection) => {
                connection.feed(bytes, |stream, piece| subscribers[stream].receive(piece, now, tally))
            }
        }
    }
}

/// The present, in nanoseconds since the epoch: the clock that publisher and clients share.
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

//! HTTP/2 by hand, over TLS: an attacker's client, which sends whatever frames it is told to (RFC 9113).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::TestCa;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection after the preface, before any frame.
pub struct Raw {
    /// What comes in.
    pub reader: Reader,
    /// What goes out.
    pub writer: WriteHalf<TlsStream<TcpStream>>,
}

/// The frames that come in.
pub struct Reader(ReadHalf<TlsStream<TcpStream>>);

/// One frame that came in.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Raw {
    /// Connects, and sends the preface and these settings.
    pub async fn open(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::silent(addr).await;
        let settings =
            settings.iter().flat_map(|(key, value)| key.to_be_bytes().into_iter().chain(value.to_be_bytes()));
        let settings = frame(SETTINGS, 0, 0, &settings.collect::<Vec<_>>());
        raw.send(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await.unwrap();
        raw
    }

    /// Connects, and says nothing after the handshake.
    pub async fn silent(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        let connector = TlsConnector::from(Arc::clone(&TestCa::shared().client_config(&["h2"])));
        let name = ServerName::try_from("localhost").unwrap();
        let (reader, writer) = tokio::io::split(connector.connect(name, socket).await.unwrap());
        Self { reader: Reader(reader), writer }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// Sends the same bytes again and again, as fast as they are taken, and reads all that comes back. Returns how
    /// often it sent them before the connection ended; at most `times`.
    pub async fn flood(self, bytes: &[u8], times: usize) -> usize {
        self.flood_with(|_| bytes.to_vec(), times).await
    }

    /// The same with bytes that differ.
    pub async fn flood_with(self, bytes: impl Fn(usize) -> Vec<u8>, times: usize) -> usize {
        let Self { mut reader, mut writer } = self;
        let reading = tokio::spawn(async move { while reader.next().await.is_some() {} });
        let mut sent = 0;
        while sent < times && !reading.is_finished() {
            if writer.write_all(&bytes(sent)).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            sent += 1;
        }
        reading.abort();
        sent
    }
}

impl Reader {
    /// The next frame; `None` once the connection has ended in whatever way.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s & 0x7f, t, u, v]), payload })
    }

    /// The next frame of this kind and stream.
    pub async fn next_of(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if (frame.kind, frame.stream) == (kind, stream) {
                return Some(frame);
            }
        }
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of `GET path` (RFC 7541: `:method`, `:scheme`, `:path` and `:authority`, literals without indexing).
pub fn block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87];
    for (name, value) in [(0x04, path), (0x01, "localhost")] {
        assert!(value.len() < 127);
        block.extend([name, value.len() as u8]);
        block.extend(value.bytes());
    }
    block
}

/// `GET path` on a stream.
pub fn get(path: &str, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(path))
}

/// The id of a client's n-th stream.
pub fn stream_id(n: usize) -> u32 {
    2 * n as u32 + 1
}

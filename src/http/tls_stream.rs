//! TLS on a socket, by rustls's unbuffered API: what comes in is decrypted where it was read and what goes out is
//! encrypted where it is sent from, in buffers that a thread has and not a connection. A connection keeps what is left
//! over and nothing else: of the thousands that are open, hardly any has something.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket on which the handshake is done.
pub struct TlsStream {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    left: Left,
}

/// What one turn left for the next.
#[derive(Default)]
struct Left {
    /// Came in, and is the beginning of a record.
    incoming: Vec<u8>,
    /// Decrypted, and not read yet.
    plain: BytesMut,
    /// Encrypted, and not taken by the socket yet.
    outgoing: BytesMut,
    /// The client has said that it sends no more (RFC 8446 section 6.1).
    ended: bool,
    /// We have said so.
    closed: bool,
    /// What came in was no TLS that we speak. The session is not to be asked again.
    failed: bool,
}

/// The buffers of a thread.
struct Room {
    incoming: Box<[u8]>,
    plain: Vec<u8>,
    outgoing: Vec<u8>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room {
        incoming: vec![0; RECORD + OVERHEAD].into(),
        plain: Vec::new(),
        outgoing: Vec::new(),
    });
}

/// What is to be said when the session has nothing to say itself.
#[derive(Clone, Copy)]
enum Say<'d> {
    Nothing,
    /// At most [`RECORD`] bytes.
    Data(&'d [u8]),
    Goodbye,
}

impl TlsStream {
    /// Does the handshake.
    ///
    /// # Errors
    /// Where the client does not speak TLS, agrees to none of ours, or goes away.
    pub async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = Self { socket, session, left: Left::default() };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What was agreed on.
    pub fn session(&self) -> &CommonState {
        &self.session
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_take_in(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads from the socket once, and does what the bytes ask for; gives their number.
    fn poll_take_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { socket, session, left } = self;
        left.check()?;
        ROOM.with_borrow_mut(|Room { incoming, outgoing, .. }| {
            let mut read = ReadBuf::new(incoming);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
            let length = read.filled().len();
            outgoing.clear();
            let done = take_in(session, read.filled_mut(), left, outgoing);
            left.failed = done.is_err();
            // An alert goes out also where this is the end.
            send(socket, cx, outgoing, left)?;
            done.map_err(io::Error::other)?;
            Poll::Ready(Ok(length))
        })
    }

    /// Sends what waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, left, .. } = self;
        while !left.outgoing.is_empty() {
            match ready!(Pin::new(&mut *socket).poll_write(cx, &left.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => left.outgoing.advance(sent),
            }
        }
        left.outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Encrypts and sends; what the socket does not take waits in `outgoing`.
    fn say(&mut self, cx: &mut Context<'_>, say: Say<'_>, room: &mut Vec<u8>) -> io::Result<()> {
        let Self { socket, session, left } = self;
        left.check()?;
        room.clear();
        let mut incoming = std::mem::take(&mut left.incoming);
        let done = turn(session, &mut incoming, say, left, room);
        left.failed = done.is_err();
        if let Ok(used) = &done {
            incoming.drain(..used);
            // Before it is sent, which may fail: the session remembers places in it.
            left.incoming = incoming;
        }
        send(socket, cx, room, left)?;
        done.map(drop).map_err(io::Error::other)
    }
}

impl Left {
    /// An error once the session has had one.
    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

/// Gives the session what was read, and keeps what it has no use for yet.
fn take_in(
    session: &mut UnbufferedServerConnection,
    read: &mut [u8],
    left: &mut Left,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    if left.incoming.is_empty() {
        let used = turn(session, read, Say::Nothing, left, out)?;
        left.incoming = read[used..].to_vec();
    } else {
        let mut tls = std::mem::take(&mut left.incoming);
        tls.extend_from_slice(read);
        let used = turn(session, &mut tls, Say::Nothing, left, out)?;
        if used < tls.len() {
            tls.drain(..used);
            left.incoming = tls;
        }
    }
    // rustls bounds a message, but not the records that it comes in.
    let most = if session.is_handshaking() { HANDSHAKE } else { RECORD + OVERHEAD };
    if left.incoming.len() > most {
        return Err(rustls::Error::General("a message in too many pieces".to_owned()));
    }
    Ok(())
}

/// Lets the session do what it can: decrypt, answer, and then say what is to be said. Gives how many bytes of `tls`
/// it has used. After an error `out` holds the alert that tells it, and the session must not be asked again.
fn turn(
    session: &mut UnbufferedServerConnection,
    tls: &mut [u8],
    say: Say<'_>,
    left: &mut Left,
    out: &mut Vec<u8>,
) -> Result<usize, rustls::Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state, .. } = session.process_tls_records(&mut tls[used..]);
        let over = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::ReadTraffic(mut records)) => {
                while let Some(record) = records.next_record() {
                    let record = record?;
                    discard += record.discard;
                    left.plain.extend_from_slice(record.payload);
                }
                Ok(false)
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(out, 0, |room| message.encode(room))?;
                Ok(false)
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                Ok(false)
            }
            Ok(ConnectionState::PeerClosed) => {
                left.ended = true;
                Ok(false)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                match say {
                    Say::Nothing => {}
                    Say::Data(data) => {
                        encode(out, data.len() + OVERHEAD, |room| traffic.encrypt(data, room))?;
                    }
                    Say::Goodbye => encode(out, OVERHEAD, |room| traffic.queue_close_notify(room))?,
                }
                Ok(true)
            }
            // Waiting for the client, or over.
            Ok(_) if matches!(say, Say::Data(_)) => {
                Err(rustls::Error::General("nothing can be said now".to_owned()))
            }
            Ok(_) => Ok(true),
        };
        used += discard;
        match over {
            Err(error) => {
                alert(session, out)?;
                return Err(error);
            }
            Ok(true) => return Ok(used),
            Ok(false) => {}
        }
    }
}

/// What the session has to say after an error. It takes what it has to say before it looks at what came in, of which
/// there must be nothing: it remembers places in what it failed at, and would look for them.
fn alert(session: &mut UnbufferedServerConnection, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
    while session.wants_write() {
        match session.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut message)) => encode(out, 0, |room| message.encode(room))?,
            _ => break,
        }
    }
    Ok(())
}

/// Appends what `write` writes, which is asked again if the first room does not suffice.
fn encode<E: TooSmall>(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), rustls::Error> {
    let begin = out.len();
    out.resize(begin + room, 0);
    let written = match write(&mut out[begin..]) {
        Ok(written) => written,
        Err(error) => {
            out.resize(begin + error.required()?, 0);
            write(&mut out[begin..]).map_err(|_| rustls::Error::EncryptError)?
        }
    };
    out.truncate(begin + written);
    Ok(())
}

/// rustls's two errors for a buffer that is too small.
trait TooSmall {
    /// How large it must be.
    fn required(self) -> Result<usize, rustls::Error>;
}

impl TooSmall for EncodeError {
    fn required(self) -> Result<usize, rustls::Error> {
        match self {
            Self::InsufficientSize(size) => Ok(size.required_size),
            Self::AlreadyEncoded => Err(rustls::Error::EncryptError),
        }
    }
}

impl TooSmall for EncryptError {
    fn required(self) -> Result<usize, rustls::Error> {
        match self {
            Self::InsufficientSize(size) => Ok(size.required_size),
            Self::EncryptExhausted => Err(rustls::Error::EncryptError),
        }
    }
}

/// Sends as much as the socket takes, after what waits already; keeps the rest.
fn send(socket: &mut TcpStream, cx: &mut Context<'_>, mut bytes: &[u8], left: &mut Left) -> io::Result<()> {
    while left.outgoing.is_empty() && !bytes.is_empty() {
        match Pin::new(&mut *socket).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(sent) => bytes.advance(sent?),
            Poll::Pending => break,
        }
    }
    left.outgoing.extend_from_slice(bytes);
    Ok(())
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left.plain.is_empty() {
            if this.left.ended || ready!(this.poll_take_in(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let length = this.left.plain.len().min(to.remaining());
        to.put_slice(&this.left.plain.split_to(length));
        if this.left.plain.is_empty() {
            this.left.plain = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    /// Takes at most a record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        ROOM.with_borrow_mut(|Room { plain, outgoing, .. }| {
            let data = match data {
                [data] => &data[..data.len().min(RECORD)],
                pieces => {
                    gather(pieces, plain);
                    plain
                }
            };
            this.say(cx, Say::Data(data), outgoing)?;
            Poll::Ready(Ok(data.len()))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.left.closed, true) && !this.left.failed {
            ROOM.with_borrow_mut(|room| this.say(cx, Say::Goodbye, &mut room.outgoing))?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// Puts the first [`RECORD`] bytes of `pieces` into one.
fn gather(pieces: &[IoSlice<'_>], to: &mut Vec<u8>) {
    to.clear();
    for piece in pieces {
        to.extend_from_slice(&piece[..piece.len().min(RECORD - to.len())]);
    }
}

/// Bytes that a TLS record holds at most (RFC 8446 section 5.1).
pub const RECORD: usize = 16 * 1024;

/// Bytes by which a record may be larger than what it holds (RFC 8446 section 5.2: 256, and 5 for its head).
const OVERHEAD: usize = 256 + 5;

/// Bytes of a handshake that wait for the rest of a message: one of 64 KiB, which is rustls's limit, in a few records.
const HANDSHAKE: usize = 5 * RECORD;

#[cfg(test)]
mod tests;

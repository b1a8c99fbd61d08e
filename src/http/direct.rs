//! A stream that has an HTTP/1.1 connection to itself: the rest of a response whose head hyper has sent. Writes the
//! chunks (RFC 9112 section 7.1), and looks at what comes in only to see the client leave.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::body::Events;
use super::connection::Counted;
use super::socket::Socket;
use super::supervise::{Slot, Supervised};

/// A future that ends with the stream and its connection.
pub struct Direct {
    socket: Socket,
    events: Events,
    /// A client of HTTP/1.0 knows no chunks; the end of the connection is the end of the stream.
    chunked: bool,
    frame: Frame,
    ended: bool,
    slot: Arc<Slot>,
    _open: Counted,
}

impl Direct {
    /// Goes on with `events`, as the response to a request of this version. `slot` is the one they were opened with.
    pub fn new(socket: Socket, (events, version): (Events, Version), slot: Arc<Slot>, open: Counted) -> Self {
        let chunked = version >= Version::HTTP_11;
        Self { socket, events, chunked, frame: Frame::default(), ended: false, slot, _open: open }
    }

    /// The stream, as what its slot ends.
    pub fn supervised(self) -> Supervised<Self> {
        let slot = Arc::clone(&self.slot);
        Supervised::within(slot, self)
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(left) = self.poll_leave(cx) {
            return Poll::Ready(left);
        }
        loop {
            ready!(self.poll_send(cx))?;
            if self.ended {
                return Pin::new(&mut self.socket).poll_shutdown(cx);
            }
            match ready!(self.events.as_mut().poll_bytes(cx)) {
                Some(bytes) => self.frame = Frame::new(bytes, self.chunked),
                None => {
                    self.ended = true;
                    self.frame = Frame::last(self.chunked);
                }
            }
        }
    }

    /// Ready when the client has gone. What it sends is no request any more and is dropped, a little at a time so
    /// that it gets no more than its share.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 512];
        for _ in 0..READS {
            let mut read = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the client's socket has taken all of the frame.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.frame.left() > 0 {
            match ready!(self.frame.poll_write(Pin::new(&mut self.socket), cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.frame.written += written,
            }
        }
        self.frame = Frame::default();
        Pin::new(&mut self.socket).poll_flush(cx)
    }
}

impl Future for Direct {
    type Output = ();

    /// A connection that breaks ends the stream as one that is closed does.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().poll_serve(cx).map(drop)
    }
}

/// Bytes of the stream, with what HTTP puts around them.
#[derive(Default)]
struct Frame {
    head: Head,
    body: Bytes,
    tail: &'static [u8],
    written: usize,
}

/// The line before a chunk: its size.
#[derive(Default)]
struct Head {
    bytes: [u8; 10],
    length: usize,
}

impl Frame {
    fn new(body: Bytes, chunked: bool) -> Self {
        let (head, tail) = if chunked { (Head::of(body.len()), CRLF) } else { Default::default() };
        Self { head, body, tail, written: 0 }
    }

    /// What ends the response.
    fn last(chunked: bool) -> Self {
        Self { tail: if chunked { LAST } else { &[] }, ..Self::default() }
    }

    fn left(&self) -> usize {
        self.head.length + self.body.len() + self.tail.len() - self.written
    }

    fn poll_write(&self, socket: Pin<&mut Socket>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [&self.head.bytes[..self.head.length], &self.body, self.tail].map(IoSlice::new);
        let mut slices = &mut slices[..];
        IoSlice::advance_slices(&mut slices, self.written);
        socket.poll_write_vectored(cx, slices)
    }
}

impl Head {
    fn of(size: usize) -> Self {
        use std::io::Write as _;
        let mut head = Self::default();
        let mut room = &mut head.bytes[..];
        write!(room, "{size:x}\r\n").expect("room for the size of what is in memory");
        head.length = 10 - room.len();
        head
    }
}

const CRLF: &[u8] = b"\r\n";
const LAST: &[u8] = b"0\r\n\r\n";
/// How often a client that talks is listened to at a time.
const READS: usize = 16;

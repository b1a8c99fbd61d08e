//! Takes an HTTP/1.1 stream out of hyper. hyper answers the request; its body then only says that the head has been
//! written, and once that is flushed the socket is taken back: what is left is a [`Direct`] stream, which needs none
//! of what a connection of requests needs.
//!
//! [`Direct`]: super::direct::Direct

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use http::header::{CONNECTION, HeaderValue};
use http::{Response, Version};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::app::Tunnel;
use super::body::{Body, Events};

/// What hyper's two ends have to tell each other: the service that makes the response, and the transport below.
#[derive(Default)]
pub struct Handover {
    stream: Mutex<Option<(Events, Version)>>,
    tunnel: Mutex<Option<Tunnel>>,
    stage: AtomicU8,
}

/// How far the head of a stream has come.
const NONE: u8 = 0;
const WRITTEN: u8 = 1;
const FLUSHED: u8 = 2;

impl Handover {
    /// Keeps the stream of a response to itself, if it has one.
    /// Whatever it is, the connection ends after it if it is the `last`.
    pub fn keep(self: &Arc<Self>, response: Response<Body>, version: Version, last: bool) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        let Body::Events(events) = body else {
            if last {
                head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return Response::from_parts(head, body);
        };
        *self.stream.lock() = Some((events, version));
        // Else hyper would tell a client of HTTP/1.0 to keep the connection.
        head.version = version;
        // There will be no other request on this connection (RFC 9112 section 9.6).
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Response::from_parts(head, Body::Elsewhere(Arc::clone(self)))
    }

    /// The connection is a tunnel once its answer, 101, has been sent.
    pub fn tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.lock() = Some(tunnel);
    }

    /// The tunnel, if it has become one.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().take()
    }

    /// hyper asks for the body of a response: its head is written.
    pub fn head_is_written(&self) {
        let _ = self.stage.compare_exchange(NONE, WRITTEN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The stream, once its head is flushed, and the version that its request had.
    pub fn take(&self) -> Option<(Events, Version)> {
        (self.stage.load(Ordering::Relaxed) == FLUSHED).then(|| self.stream.lock().take())?
    }
}

/// A transport that tells when all has been flushed that hyper has written.
pub struct Flushes<I> {
    /// The transport.
    pub io: I,
    handover: Arc<Handover>,
}

impl<I> Flushes<I> {
    /// Tells `handover`.
    pub fn new(io: I, handover: &Arc<Handover>) -> Self {
        Self { io, handover: Arc::clone(handover) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Flushes<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, to)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Flushes<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            let stage = &this.handover.stage;
            let _ = stage.compare_exchange(WRITTEN, FLUSHED, Ordering::Relaxed, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

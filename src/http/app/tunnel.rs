//! What an HTTP/1.1 connection is after it has switched protocols (RFC 9110 section 7.8), to WebSocket for the most part:
//! bytes in both directions, between a client and an application, for as long as any move.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

use super::super::socket::Socket;
use super::exchange::Exchange;

/// The application's side of a connection that switches.
pub struct Tunnel {
    app: OnUpgrade,
    _exchange: Arc<Exchange>,
    silence: Duration,
    end: End,
}

/// What ends a tunnel from outside: that its client is no longer let in.
pub type End = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Tunnel {
    /// Of the application's answer 101, until nothing has moved in either direction for `silence`.
    pub fn new(response: Response<Incoming>, exchange: Arc<Exchange>, silence: Duration, end: End) -> Self {
        Self { app: hyper::upgrade::on(response), _exchange: exchange, silence, end }
    }

    /// Passes bytes on until both sides have ended, or the tunnel has. `early` is what the client had sent before the
    /// answer.
    pub async fn serve(self, client: Socket, early: Bytes) -> io::Result<()> {
        let mut app = TokioIo::new(self.app.await.map_err(io::Error::other)?);
        let motion = Motion::now();
        // All that moves passes here, be it read or written.
        let mut client = Watched { io: client, motion: &motion };
        let passing = async {
            app.write_all(&early).await?;
            copy_bidirectional(&mut client, &mut app).await
        };
        tokio::select! {
            passed = passing => passed.map(drop),
            () = motion.silence(self.silence) => {
                tracing::debug!(silence = ?self.silence, "a connection that has switched protocols was silent for too long");
                Ok(())
            }
            () = self.end => Ok(()),
        }
    }
}

/// When bytes moved last: a number, and not a timer that is set anew for all of them.
struct Motion {
    epoch: Instant,
    /// In nanoseconds since then.
    last: AtomicU64,
}

impl Motion {
    fn now() -> Self {
        Self { epoch: Instant::now(), last: AtomicU64::new(0) }
    }

    fn note(&self) {
        self.last.store(self.epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Ends when nothing has moved for so long.
    async fn silence(&self, longest: Duration) {
        loop {
            let end = self.epoch + Duration::from_nanos(self.last.load(Ordering::Relaxed)) + longest;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A transport of which it is known when it last moved something.
struct Watched<'m, I> {
    io: I,
    motion: &'m Motion,
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<'_, I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_read(cx, to))?;
        this.motion.note();
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<'_, I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, data))?;
        this.motion.note();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, data))?;
        this.motion.note();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex, split};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_begins_with_the_last_byte_in_either_direction() {
        let (motion, secs) = (Motion::now(), Duration::from_secs);
        let (watched, mut other) = duplex(64);
        let (mut reading, mut writing) = split(Watched { io: watched, motion: &motion });
        let moving = async {
            sleep(secs(50)).await;
            writing.write_all(b"out").await.unwrap();
            sleep(secs(50)).await;
            other.write_all(b"in").await.unwrap();
            reading.read_exact(&mut [0; 2]).await.unwrap();
            // Nobody reads any more: what waits does not move.
            while other.write_all(&[0; 64]).await.is_ok() {}
        };
        tokio::select! { () = moving => unreachable!(), () = motion.silence(secs(60)) => {} }
        assert_eq!(motion.epoch.elapsed(), secs(160));
    }
}

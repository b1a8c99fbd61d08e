//! A connector that has so many connections at most: one more is refused at once, since the request may find one that is
//! shared by the time it is tried again.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_service::Service;

/// Connects by `C`.
#[derive(Clone)]
pub struct Seats<C> {
    inner: C,
    seats: Arc<Semaphore>,
    most: usize,
    /// For a connection to be there, TLS included.
    limit: Duration,
}

impl<C> Seats<C> {
    /// So many connections at most, each made within `limit`.
    pub fn new(inner: C, most: usize, limit: Duration) -> Self {
        Self { inner, seats: Arc::new(Semaphore::new(most)), most, limit }
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl<C> Service<Uri> for Seats<C>
where
    C: Service<Uri, Error = Cause>,
    C::Response: Send + 'static,
    C::Future: Send + 'static,
{
    type Response = Seated<C::Response>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
            let text = format!("all of its {} connections are taken; allow more of them", self.most);
            return Box::pin(std::future::ready(Err(text.into())));
        };
        let connecting = timeout(self.limit, self.inner.call(to));
        Box::pin(async move {
            let connection = connecting.await.map_err(|_| Cause::from("no connection in time"))??;
            Ok::<_, Cause>(Seated { connection, _seat: seat })
        })
    }
}

/// A connection that has one of the seats.
pub struct Seated<T> {
    connection: T,
    _seat: OwnedSemaphorePermit,
}

impl<T: Connection> Connection for Seated<T> {
    fn connected(&self) -> Connected {
        self.connection.connected()
    }
}

impl<T: Read + Unpin> Read for Seated<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl<T: Write + Unpin> Write for Seated<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, slices)
    }
}

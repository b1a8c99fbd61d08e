//! The sockets that lapin is given. It has TLS of its own, with ways to trust and to show certificates that are not those of
//! the other upstreams: so they are dialled here, and lapin sees bytes, in which no message is larger than it may be.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_compat::Compat;
use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_util::Stream;
use lapin::AsyncTcpStream;
use rustls::pki_types::ServerName;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::cut::Cutter;

/// What lapin runs on: tokio, but for its sockets.
pub(super) type Runtime = async_rs::Runtime<RuntimeParts<Tokio, Net>>;

/// What lapin speaks over.
pub(super) type Spoken = AsyncTcpStream<Compat<Box<dyn Bytes>>>;

/// Any stream of bytes.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// The runtime that this is called in.
pub(super) fn runtime() -> Runtime {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Net(tokio)))
}

/// Connects. Of the body of a message `most` bytes come through. Hands the socket itself over, by which all of it can be ended.
pub(super) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&TlsConnector>,
    user_timeout: Duration,
    most: usize,
    own: impl FnOnce(Socket),
) -> io::Result<Spoken> {
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    let raw = SockRef::from(&socket);
    raw.set_tcp_user_timeout(Some(user_timeout))?;
    own(raw.try_clone()?);
    let bytes: Box<dyn Bytes> = match tls {
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            Box::new(tls.connect(name, socket).await?)
        }
        None => Box::new(socket),
    };
    let bounded: Box<dyn Bytes> = Box::new(Bounded::new(bytes, most));
    Ok(AsyncTcpStream::Plain(Compat::new(bounded)))
}

/// A link by which no more of the body of a message comes in than there may be.
struct Bounded {
    bytes: Box<dyn Bytes>,
    cutter: Cutter,
    came: Box<[u8]>,
    /// What is to be read of that, and how much of it has been.
    left: Vec<u8>,
    read: usize,
}

impl Bounded {
    fn new(bytes: Box<dyn Bytes>, most: usize) -> Self {
        let came = vec![0; AT_ONCE].into_boxed_slice();
        Self { bytes, cutter: Cutter::new(most), came, left: Vec::new(), read: 0 }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        while own.read == own.left.len() {
            let mut came = ReadBuf::new(&mut own.came);
            ready!(Pin::new(&mut own.bytes).poll_read(context, &mut came))?;
            if came.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            own.left.clear();
            own.read = 0;
            own.cutter.take(came.filled(), &mut own.left);
        }
        let next = &own.left[own.read..];
        let next = &next[..next.len().min(buffer.remaining())];
        buffer.put_slice(next);
        own.read += next.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().bytes).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_shutdown(context)
    }
}

/// Bytes that are taken from a socket at a time.
const AT_ONCE: usize = 16 * 1024;

/// Tells the time as tokio does, and opens no socket: [`dial`] does.
#[derive(Debug, Clone)]
pub(super) struct Net(Tokio);

impl Reactor for Net {
    type TcpStream = Compat<Box<dyn Bytes>>;
    type Sleep = tokio::time::Sleep;

    #[allow(refining_impl_trait, reason = "what is never returned has to have some type")]
    fn register<H: Send + 'static>(&self, _: H) -> io::Result<Self::TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    #[allow(clippy::manual_async_fn, reason = "the future outlives the borrow")]
    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

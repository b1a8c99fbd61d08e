//! Sockets to upstreams whose protocols are spoken here: TCP, and TLS over it.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Any stream of bytes.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// Connects. The kernel gives up on a peer that acknowledges nothing for `user_timeout`.
pub(super) async fn connect(host: &str, port: u16, user_timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(user_timeout))?;
    Ok(socket)
}

/// Secures a connection to `host`.
pub(super) async fn secure(tls: &TlsConnector, host: &str, socket: TcpStream) -> io::Result<Box<dyn Socket>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tls.connect(name, socket).await?))
}

#[cfg(test)]
pub(super) mod testing {
    //! A peer for those who read and write in one task.

    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use parking_lot::Mutex;
    use tokio::io::ReadBuf;

    use super::*;

    /// A peer that has always something to say: this, as often as fits, for so many reads; then it ends the link.
    pub(in crate::upstream) struct Firehose {
        says: Vec<u8>,
        left: usize,
        heard: Heard,
    }

    /// What was said to it.
    pub(in crate::upstream) type Heard = Arc<Mutex<Vec<u8>>>;

    impl Firehose {
        pub(in crate::upstream) fn new(says: Vec<u8>, left: usize) -> (Self, Heard) {
            let heard = Heard::default();
            (Self { says, left, heard: Arc::clone(&heard) }, heard)
        }
    }

    impl AsyncRead for Firehose {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.left > 0 {
                self.left -= 1;
                assert!(buf.remaining() >= self.says.len(), "there is room");
                while buf.remaining() >= self.says.len() {
                    buf.put_slice(&self.says);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Firehose {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.heard.lock().extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}

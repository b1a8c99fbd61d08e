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

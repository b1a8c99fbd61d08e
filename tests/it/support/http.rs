//! HTTP as the tests speak it: one connection at a time, its protocol and address chosen by the test.
//!
//! [`Link`] is a connection that can be shared by HTTP/2 streams and cut with a TCP reset;
//! [`request`] is a whole exchange. Neither pools, redirects nor retries.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, lookup_host};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::tls::TestCa;
use super::wait::within;

/// The version of HTTP to speak. Over TLS it is what ALPN offers, and the server has to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// How to connect.
#[derive(Clone)]
pub struct Connect {
    /// The protocol.
    pub version: Version,
    /// Where to connect instead of the URL's host and port, which still name the server.
    pub to: Option<SocketAddr>,
    /// TLS settings without ALPN, for https URLs; `None` trusts [`TestCa::shared`].
    pub tls: Option<Arc<ClientConfig>>,
    /// The socket's receive buffer (SO_RCVBUF) in bytes: small ones make a stalled client stall soon.
    pub receive_buffer: Option<u32>,
    /// HTTP/2's receive window of each stream in bytes.
    pub stream_window: Option<u32>,
    /// The address to connect from; any of 127.0.0.0/8 is another client.
    pub from: Option<IpAddr>,
    /// What is sent before TLS: the header of a proxy.
    pub prelude: Vec<u8>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            version: Version::One,
            to: None,
            tls: None,
            receive_buffer: None,
            stream_window: None,
            from: None,
            prelude: Vec::new(),
        }
    }
}

impl Connect {
    /// HTTP/1.1.
    pub fn http1() -> Self {
        Self::default()
    }

    /// HTTP/2.
    pub fn http2() -> Self {
        Self { version: Version::Two, ..Self::default() }
    }

    /// The same from another address of this machine.
    pub fn from(self, addr: &str) -> Self {
        Self { from: Some(addr.parse().expect("an address")), ..self }
    }

    /// The same after the header of a proxy.
    pub fn prelude(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { prelude: bytes.into(), ..self }
    }

    /// The same through another address.
    pub fn to(self, addr: SocketAddr) -> Self {
        Self { to: Some(addr), ..self }
    }
}

/// One connection. Dropping it closes it as a process that exits would.
pub struct Link {
    sender: Sender,
    local_addr: SocketAddr,
    /// A second handle of the socket, to set options on while hyper owns the first; gone once cut.
    socket: parking_lot::Mutex<Option<Socket>>,
    tasks: Tasks,
}

/// The tasks that hold the connection: hyper spawns HTTP/2's by itself.
#[derive(Clone, Default)]
struct Tasks(Arc<parking_lot::Mutex<Vec<AbortHandle>>>);

enum Sender {
    One(Mutex<http1::SendRequest<Full<Bytes>>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Link {
    /// Connects to the host of `url`, over TLS where its scheme is https.
    pub async fn open(url: &str, how: &Connect) -> io::Result<Self> {
        let url: Uri = url.parse().map_err(io::Error::other)?;
        let tcp = connect_tcp(&url, how).await?;
        let local_addr = tcp.local_addr()?;
        let socket = parking_lot::Mutex::new(Some(SockRef::from(&tcp).try_clone()?));
        let stream: Box<dyn Stream> = match url.scheme_str() {
            Some("https") => Box::new(connect_tls(tcp, &url, how).await?),
            _ => Box::new(tcp),
        };
        let tasks = Tasks::default();
        let sender = handshake(TokioIo::new(stream), how, &tasks).await.map_err(io::Error::other)?;
        Ok(Self { sender, local_addr, socket, tasks })
    }

    /// Sends one request and returns the response's head, with the body still to come. The URL's
    /// authority becomes `host`.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &self.sender {
            Sender::One(sender) => {
                to_origin_form(&mut request);
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// The client's address, by which a server's log may know this connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Cuts the connection at once, with a reset instead of a goodbye.
    pub fn cut(&self) {
        if let Some(socket) = self.socket.lock().take() {
            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        }
        self.tasks.abort(); // The last handle of the socket goes with them.
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output: Send + 'static> + Send + 'static) {
        self.0.lock().push(tokio::spawn(task).abort_handle());
    }

    fn abort(&self) {
        self.0.lock().drain(..).for_each(|task| task.abort());
    }
}

impl<F: Future<Output: Send + 'static> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// All header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// A header field's value, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request on a connection of its own and reads the whole answer.
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
    how: &Connect,
) -> Reply {
    let exchange = async {
        let link = Link::open(url, how).await?;
        let response = link.send(build(method, url, headers, body)).await.map_err(io::Error::other)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        io::Result::Ok(Reply { status: head.status, headers: head.headers, body })
    };
    within(url, exchange).await.unwrap_or_else(|e| panic!("{url}: {e:?}"))
}

/// `GET` without extras over HTTP/1.1.
pub async fn get(url: &str) -> Reply {
    request(Method::GET, url, &[], "", &Connect::http1()).await
}

/// A request for [`Link::send`].
pub fn build(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a well-formed request")
}

async fn connect_tcp(url: &Uri, how: &Connect) -> io::Result<tokio::net::TcpStream> {
    let addr = match how.to {
        Some(addr) => addr,
        None => resolve(url).await?,
    };
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bytes) = how.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(from) = how.from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let mut stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&how.prelude).await?;
    Ok(stream)
}

/// IPv4 first: everything of the rig listens on 127.0.0.1.
async fn resolve(url: &Uri) -> io::Result<SocketAddr> {
    let host = url.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    let mut found: Vec<SocketAddr> = lookup_host((host.trim_matches(['[', ']']), port)).await?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| io::Error::other("the host has no address"))
}

async fn connect_tls(
    tcp: tokio::net::TcpStream,
    url: &Uri,
    how: &Connect,
) -> io::Result<impl Stream + use<>> {
    let mut config = match &how.tls {
        Some(config) => ClientConfig::clone(config),
        None => ClientConfig::clone(&TestCa::shared().client_config(&[])),
    };
    let alpn = if how.version == Version::Two { "h2" } else { "http/1.1" };
    config.alpn_protocols = vec![alpn.into()];
    let name = ServerName::try_from(url.host().unwrap_or_default().to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    if how.version == Version::Two && agreed != Some(b"h2") {
        return Err(io::Error::other("the server did not agree on h2"));
    }
    Ok(stream)
}

async fn handshake(io: TokioIo<Box<dyn Stream>>, how: &Connect, tasks: &Tasks) -> hyper::Result<Sender> {
    // How a connection ends shows in the response bodies; here it is of no interest.
    match how.version {
        Version::One => {
            let (sender, connection) = http1::handshake(io).await?;
            tasks.spawn(connection);
            Ok(Sender::One(Mutex::new(sender)))
        }
        Version::Two => {
            let mut builder = http2::Builder::new(tasks.clone());
            builder.initial_stream_window_size(how.stream_window);
            let (sender, connection) = builder.handshake(io).await?;
            tasks.spawn(connection);
            Ok(Sender::Two(sender))
        }
    }
}

/// HTTP/1.1 names the server in `host` and only the path in the request line (RFC 9112 3.2.1).
fn to_origin_form(request: &mut Request<Full<Bytes>>) {
    let uri = request.uri().clone();
    if let (Some(authority), false) = (uri.authority(), request.headers().contains_key("host")) {
        let host = authority.as_str().parse().expect("an authority is a header value");
        request.headers_mut().insert("host", host);
    }
    if let Some(path) = uri.path_and_query() {
        *request.uri_mut() = path.as_str().parse().expect("a path is a URI");
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A connection opened as `how` says, and its other end.
    async fn connected(scheme: &str, how: Connect) -> (Link, Box<dyn Stream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://localhost:{}/", listener.local_addr().unwrap().port());
        let accept = async {
            let (tcp, _): (TcpStream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(TestCa::shared().server_config(&["h2", "http/1.1"]));
            match url.starts_with("https") {
                true => Box::new(acceptor.accept(tcp).await.unwrap()) as Box<dyn Stream>,
                false => Box::new(tcp),
            }
        };
        let (link, stream) = tokio::join!(Link::open(&url, &how), accept);
        (link.unwrap(), stream)
    }

    async fn end_of(mut stream: Box<dyn Stream>) -> io::Result<usize> {
        stream.read_to_end(&mut Vec::new()).await
    }

    #[tokio::test]
    async fn a_cut_resets_the_connection() {
        let all = [("http", Connect::http1()), ("https", Connect::http1()), ("https", Connect::http2())];
        for (scheme, how) in all {
            let (link, stream) = connected(scheme, how).await;
            link.cut();
            assert_eq!(end_of(stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_drop_closes_it_quietly() {
        let (link, stream) = connected("http", Connect::http1()).await;
        drop(link);
        assert_eq!(end_of(stream).await.unwrap(), 0);
    }
}

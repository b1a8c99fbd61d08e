//! The HTTP client of the commands: one request on a connection of its own, over TCP, TLS or a Unix socket. What goes
//! wrong is said so that a person can act on it.

mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub(super) use trust::Trust;

/// A request without a body to a URL.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn ask(
    method: Method,
    url: &Uri,
    headers: &HeaderMap,
    trust: &Trust,
) -> anyhow::Result<Response<Incoming>> {
    let authority = url.authority().context("the URL names no host")?;
    let tls = url.scheme_str() == Some("https");
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let socket = timeout(CONNECT, TcpStream::connect((host, port))).await;
    let socket = socket.map_err(|_| anyhow!("no answer within {} s", CONNECT.as_secs()));
    let socket =
        socket.and_then(|socket| Ok(socket?)).with_context(|| format!("cannot connect to {authority}"))?;
    notice_death(&socket);
    let request = build(method, headers);
    if !tls {
        return exchange(socket, request, url, false).await;
    }
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no host"))?;
    let connector = TlsConnector::from(Arc::new(trust.config()?));
    let socket = timeout(CONNECT, connector.connect(name, socket)).await;
    let socket = socket.map_err(|_| anyhow!("no answer within {} s", CONNECT.as_secs()));
    let socket = socket.and_then(|socket| Ok(socket?)).map_err(|error| {
        let hint = if is_of_certificate(&error) { HINT } else { "" };
        error.context(format!("TLS with {authority} failed{hint}"))
    })?;
    let h2 = socket.get_ref().1.alpn_protocol() == Some(H2);
    exchange(socket, request, url, h2).await
}

fn is_of_certificate(error: &anyhow::Error) -> bool {
    let own = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
    matches!(own, Some(rustls::Error::InvalidCertificate(_)))
}

/// The same over a Unix socket; `url` says what is asked for.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn ask_unix(
    method: Method,
    path: &Path,
    url: &Uri,
    headers: &HeaderMap,
) -> anyhow::Result<Response<Incoming>> {
    let socket = timeout(CONNECT, UnixStream::connect(path)).await;
    let socket = socket.map_err(|_| anyhow!("no answer within {} s", CONNECT.as_secs()));
    let socket = socket
        .and_then(|socket| Ok(socket?))
        .with_context(|| format!("cannot connect to {}", path.display()))?;
    exchange(socket, build(method, headers), url, false).await
}

fn build(method: Method, headers: &HeaderMap) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    request.headers_mut().clone_from(headers);
    request
}

async fn exchange<S>(
    socket: S,
    mut request: Request<Empty<Bytes>>,
    url: &Uri,
    h2: bool,
) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = TokioIo::new(socket);
    let answer = async {
        if h2 {
            *request.uri_mut() = url.clone();
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await?;
            tokio::spawn(connection);
            return sender.send_request(request).await;
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().unwrap_or_default();
        let host = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let host = host.unwrap_or(HeaderValue::from_static("localhost"));
        request.headers_mut().entry(HOST).or_insert(host);
        let (mut sender, connection) = http1::handshake(socket).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    match timeout(HEAD, answer).await {
        Ok(answer) => {
            answer.map_err(|error| anyhow!("the connection ended without an answer: {}", cause(&error)))
        }
        Err(_) => bail!("no answer within {} s", HEAD.as_secs()),
    }
}

/// The last of a chain of errors, which tells most.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.unwrap_or(error).to_string()
}

/// A peer that has gone without a word would otherwise be waited for, for good.
fn notice_death(socket: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    // Not worth failing for.
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Which protocols TLS offers; `http1` alone if so.
fn offer(config: &mut ClientConfig, http1: bool) {
    config.alpn_protocols = if http1 { vec![HTTP1.into()] } else { vec![H2.into(), HTTP1.into()] };
}

const HINT: &str =
    ", whose certificate nobody known vouches for (`-k` takes any, `--cacert FILE` an authority)";
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
const CONNECT: Duration = Duration::from_secs(10);
/// An application that is asked who may listen has up to a minute.
const HEAD: Duration = Duration::from_secs(90);

//! One connection: handshake, the choice between HTTP/1.1 and HTTP/2 by ALPN, and serving until either side
//! ends it or, on HTTP/1.1, it has become a stream.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::Service as Answers;
use super::direct::Direct;
use super::handover::Flushes;
use super::socket::Socket;
use super::supervise::{StreamExecutor, Supervised};
use super::tls_stream::TlsStream;
use super::{Body, Edge, Problem, Terminator};

/// Serves one accepted socket until it ends, or has become a stream that goes on by itself. `stop` asks it to end when
/// its streams have.
pub async fn serve(
    socket: TcpStream,
    client: SocketAddr,
    terminator: Terminator,
    edge: Arc<Edge>,
    stop: watch::Receiver<bool>,
) -> Option<Direct> {
    let socket = match terminator.config() {
        None => Socket::Plain(socket),
        Some(config) => match timeout(HANDSHAKE, handshake(socket, config)).await {
            Ok(Ok(stream)) => Socket::Tls(stream.into()),
            Ok(Err(error)) => {
                edge.metrics.handshakes_failed.inc();
                tracing::debug!(client = %client.ip(), %error, "no TLS handshake");
                return None;
            }
            Err(_) => {
                edge.metrics.handshakes_failed.inc();
                tracing::debug!(client = %client.ip(), "the TLS handshake took too long");
                return None;
            }
        },
    };
    let service = Answers::new(Arc::clone(&edge), client);
    if socket.is_h2() {
        let _open = Counted::new(&edge, "h2");
        serve_http2(socket, service, stop).await;
        None
    } else {
        serve_until_stream(socket, service, Counted::new(&edge, "http/1.1"), stop).await
    }
}

async fn handshake(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<TlsStream> {
    if speaks_plain_http(&socket).await {
        return refuse_plain_http(socket).await;
    }
    TlsStream::accept(socket, Arc::clone(config)).await
}

/// Serves HTTP/1.1 until the connection ends or a response is a stream.
async fn serve_until_stream(
    socket: Socket,
    service: Answers,
    open: Counted,
    stop: watch::Receiver<bool>,
) -> Option<Direct> {
    let (handover, slot) = (Arc::default(), Arc::default());
    let socket = TokioIo::new(Flushes::new(socket, &handover));
    let mut connection = http1_builder().serve_connection(socket, service.handing_over(&handover));
    let mut told = pin!(Some(stopped(stop)));
    let served = poll_fn(|cx| {
        if told.as_mut().as_pin_mut().is_some_and(|told| told.poll(cx).is_ready()) {
            told.set(None);
            Pin::new(&mut connection).graceful_shutdown();
        }
        let ended = connection.poll_without_shutdown(cx);
        match handover.take() {
            Some(stream) => Poll::Ready(Ok(Some(stream))),
            None => ended.map_ok(|()| None),
        }
    });
    let served = Supervised::within(Arc::clone(&slot), served).await?;
    let mut socket = connection.into_parts().io.into_inner().io;
    if let Ok(Some(stream)) = served {
        return Some(Direct::new(socket, stream, slot, open));
    }
    // The client may have gone before.
    let _ = timeout(HANDSHAKE, socket.shutdown()).await;
    None
}

/// Serves HTTP/1.1 to its end.
pub async fn serve_http1<I, S>(io: I, service: S, stop: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let mut connection = pin!(http1_builder().serve_connection(TokioIo::new(io), service));
    tokio::select! {
        _ = &mut connection => return,
        () = stopped(stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_buf_size(HTTP1_BUFFER)
        .max_header_size(HEAD);
    builder
}

async fn serve_http2<I>(io: I, service: Answers, stop: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let asked = timeout(HANDSHAKE, service.asked());
    let connection = http2::Builder::new(StreamExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HEAD as u32)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    // hyper waits for the first request for ever, even if its head has begun.
    let ended = async {
        match asked.await {
            Ok(()) => stopped(stop).await,
            Err(_) => tracing::debug!("no HTTP/2 request came"),
        }
    };
    tokio::select! {
        _ = &mut connection => return,
        () = ended => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Ends once `stop` is true.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A TLS client begins with a record of type 22 (RFC 8446 section 5.1), an HTTP/1 client with a method.
async fn speaks_plain_http(socket: &TcpStream) -> bool {
    let mut first = [0];
    matches!(socket.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Tells someone who typed http:// what is wrong, as nginx does; then there is no handshake.
async fn refuse_plain_http<T>(mut socket: TcpStream) -> io::Result<T> {
    let (status, text) = Problem::PlainHttp.text();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len(),
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await?;
    // Closing with unread input would reset the connection before the answer is read.
    tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
    Err(io::Error::other("plain HTTP on a TLS port"))
}

/// Counts a connection while it is open.
pub struct Counted(prometheus_client::metrics::gauge::Gauge);

impl Counted {
    fn new(edge: &Edge, protocol: &'static str) -> Self {
        let gauge = edge.metrics.connections(protocol);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// For the TLS handshake, and again for a request's head.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of a request's head, in either protocol; longer ones are answered with 431.
const HEAD: usize = HTTP1_BUFFER;
/// Bytes that hyper may hold of an HTTP/1.1 connection: of a head that comes in, or for a client that does not
/// read. Room for an id of 64 KiB, since an error status would end an EventSource for good.
const HTTP1_BUFFER: usize = 72 * 1024;
/// The same for each HTTP/2 stream.
const HTTP2_SEND_BUFFER: usize = 16 * 1024;
/// Streams that an HTTP/2 connection may have at a time.
const HTTP2_STREAMS: u32 = 250;
/// How often a silent HTTP/2 peer is tried, and how long it may take to answer.
const HTTP2_PING: Duration = Duration::from_secs(20);

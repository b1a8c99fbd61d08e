//! One connection: handshake, the choice between HTTP/1.1 and HTTP/2 by ALPN, and serving until either side
//! ends it or, on HTTP/1.1, it has become a stream.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{pending, poll_fn};
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
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer::Service as Answers;
use super::client::Client;
use super::direct::Direct;
use super::handover::Flushes;
use super::limits::{Activity, Excess, Policed, Seat};
use super::proxy_protocol;
use super::socket::Socket;
use super::supervise::{StreamExecutor, Supervised};
use super::tls_stream::TlsStream;
use super::{Body, Edge, Problem, Site};
use crate::auth::Certificate;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::tls::{Belief, Terminator, Terms};

/// Serves one accepted socket until it ends, or has become a stream that goes on by itself. `stop` asks it to end when
/// its streams have.
pub async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    mut seat: Seat,
    edge: Arc<Edge>,
    stop: watch::Receiver<bool>,
) -> Option<Direct> {
    let site = edge.site();
    let began = timeout(site.limits.handshake_timeout, begin(socket, peer, &mut seat, &edge, &site));
    let begun = match began.await.unwrap_or(Err(NotBegun::Slow)) {
        Ok(begun) => begun,
        Err(why) => {
            why.count(&edge.metrics);
            tracing::debug!(client = %peer.ip(), %why, "a connection ended before HTTP began");
            return None;
        }
    };
    let (service, limits) = (Answers::new(Arc::clone(&edge), &begun, seat.surplus()), site.limits);
    // What it goes by may change while it is open.
    drop(site);
    let Begun { socket, belief, .. } = begun;
    let stop = leave(stop, belief);
    if socket.is_h2() {
        let open = Counted::new(&edge, "h2", seat);
        serve_http2(socket, service, (&edge, &limits), &open.seat, stop).await;
        None
    } else {
        serve_until_stream(socket, service, &limits, Counted::new(&edge, "http/1.1", seat), stop).await
    }
}

/// A connection on which HTTP can be spoken.
pub struct Begun {
    /// Where.
    pub socket: Socket,
    /// With whom.
    pub client: Client,
    /// Whether the peer is the client itself, or a proxy that has named nobody.
    pub direct: bool,
    /// For how long the authority of the client's certificate is believed.
    belief: Option<Belief>,
}

/// What comes before HTTP: whom a proxy speaks for, whether they may have a connection, and the TLS handshake.
async fn begin(
    mut socket: TcpStream,
    peer: SocketAddr,
    seat: &mut Seat,
    edge: &Edge,
    site: &Site,
) -> Result<Begun, NotBegun> {
    let trusted = site.proxies.trusts(peer.ip());
    let named = match site.proxies.protocol.filter(|_| trusted) {
        Some(protocol) => proxy_protocol::read(&mut socket, protocol).await.map_err(NotBegun::Proxy)?,
        None => None,
    };
    let mut client = Client { addr: named.unwrap_or(peer), certificate: None };
    let address = client.addr.ip();
    // Whom a PROXY header names is a client, whatever its address: it counts, and is not believed.
    let is_proxy = trusted && named.is_none();
    // A proxy has the connections of many clients.
    if !is_proxy && let Err(why) = seat.claim(address) {
        edge.metrics.connection_shed(why.as_str());
        // Firefox's EventSource gives up for good where its first connection ends without a word.
        if !seat.tell(address) {
            return Err(NotBegun::Refused(why));
        }
    }
    let direct = named.is_none();
    let Some(terms) = site.terminator.terms() else {
        return Ok(Begun { socket: Socket::Plain(socket), client, direct, belief: None });
    };
    let stream = handshake(socket, &site.terminator, &terms).await.map_err(NotBegun::Tls)?;
    let (stream, certificate) = stream.ok_or(NotBegun::Proven)?;
    // A proxy that ends TLS and begins it anew shows its own certificate for everybody.
    client.certificate = certificate.filter(|_| !trusted || (named.is_some() && terms.passthrough));
    let belief = client.certificate.as_ref().and_then(|_| terms.belief());
    Ok(Begun { socket: Socket::Tls(stream.into()), client, direct, belief })
}

/// Ends when a connection is to end as soon as its streams have: when `stop` says so, or when those whom `belief` is about
/// are believed no more, so that what its client has shown opens no other stream. One that has just begun has a moment
/// for its request to come: it was accepted, and nobody else will answer it.
async fn leave(stop: watch::Receiver<bool>, belief: Option<Belief>) {
    let began = Instant::now();
    let disbelieved = async {
        match belief {
            // Boxed, as few connections have it.
            Some(belief) => Box::pin(belief.ended()).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = stopped(stop) => sleep_until(began + FRESH).await,
        () = disbelieved => {}
    }
}

/// Why a connection ended before HTTP began.
#[derive(Debug, thiserror::Error)]
enum NotBegun {
    #[error("no PROXY header: {0}")]
    Proxy(io::Error),
    #[error("the client may not have another connection: {0:?}")]
    Refused(Excess),
    #[error("no TLS handshake: {0}")]
    Tls(io::Error),
    #[error("it took too long")]
    Slow,
    /// No failure: an authority wanted nothing else.
    #[error("it was for the proof of a domain")]
    Proven,
}

impl NotBegun {
    fn count(&self, metrics: &Metrics) {
        match self {
            Self::Proxy(_) => metrics.connection_shed("proxy_protocol"),
            Self::Tls(_) | Self::Slow => _ = metrics.handshakes_failed.inc(),
            Self::Refused(_) | Self::Proven => {}
        }
    }
}

/// The stream, and the certificate that the client has proven to have; `None` after the handshake of an authority that
/// wanted a proof for a domain, and wants nothing else.
async fn handshake(
    socket: TcpStream,
    terminator: &Terminator,
    terms: &Terms,
) -> io::Result<Option<(TlsStream, Option<Arc<Certificate>>)>> {
    if speaks_plain_http(&socket).await {
        return refuse_plain_http(socket).await;
    }
    if let Some(config) = terminator.challenge(&socket).await {
        TlsStream::accept(socket, config).await?.shutdown().await?;
        return Ok(None);
    }
    let stream = TlsStream::accept(socket, Arc::clone(&terms.config)).await?;
    let leaf = terms.admit(stream.session()).map_err(io::Error::other)?;
    let certificate = leaf.and_then(|leaf| Certificate::of(leaf)).map(Arc::new);
    Ok(Some((stream, certificate)))
}

/// Serves HTTP/1.1 until the connection ends or a response is a stream.
async fn serve_until_stream(
    socket: Socket,
    service: Answers,
    limits: &Limits,
    open: Counted,
    stop: impl Future<Output = ()>,
) -> Option<Direct> {
    let (handover, slot) = (Arc::default(), Arc::default());
    let socket = TokioIo::new(Flushes::new(socket, &handover));
    let mut connection = http1_builder(limits.head, limits.head_timeout)
        .serve_connection(socket, service.handing_over(&handover));
    let mut told = pin!(Some(stop));
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
    let parts = connection.into_parts();
    let mut socket = parts.io.into_inner().io;
    if let Ok(Some(stream)) = served {
        return Some(Direct::new(socket, stream, slot, open));
    }
    if let (Ok(None), Some(tunnel)) = (served, handover.take_tunnel()) {
        // Either side may end it, or break it, at any time.
        let _ = tunnel.serve(socket, parts.read_buf).await;
        return None;
    }
    // A stream that has not got as far ends here.
    drop(handover);
    // The client may have gone before.
    let _ = timeout(LEAVE, socket.shutdown()).await;
    None
}

/// Serves HTTP/1.1 to its end, for those who are no clients: what is configured for clients is not for them.
pub async fn serve_http1<I, S>(io: I, service: S, stop: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let Limits { head, head_timeout, .. } = Limits::default();
    let mut connection = pin!(http1_builder(head, head_timeout).serve_connection(TokioIo::new(io), service));
    tokio::select! {
        _ = &mut connection => return,
        () = stopped(stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

fn http1_builder(head: usize, timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(head).max_header_size(head);
    builder
}

/// Serves HTTP/2 until it ends, does nothing for too long, or does too much that leads to nothing.
async fn serve_http2(
    io: Socket,
    service: Answers,
    (edge, limits): (&Edge, &Limits),
    seat: &Seat,
    stop: impl Future<Output = ()>,
) {
    let activity = Activity::default();
    let connection = http2_builder(limits, &activity).serve_connection(
        TokioIo::new(Policed::new(io, limits.streams_per_connection, edge.metrics.floods.clone())),
        service,
    );
    let mut connection = pin!(connection);
    // Of one for whom there is no room, nothing is expected after the first answer.
    let idle = if seat.surplus().is_some() { Duration::ZERO } else { limits.idle_connection };
    tokio::select! {
        ended = &mut connection => return count_flood(&ended, edge),
        () = stop => {}
        // hyper waits for the first request for ever, even if its head has begun.
        () = activity.silence(limits.head_timeout, idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    // The client may have sent a request before it knew; and if it never says that it knows, there is nothing to lose.
    tokio::select! {
        ended = connection => count_flood(&ended, edge),
        () = activity.silence(LEAVE, LEAVE) => {}
    }
}

/// Counts a connection that hyper has ended for more than a client needs: of requests that were taken back before they were
/// looked at, of streams that broke the rules, of a head's pieces. What [`Policed`] ends it counts itself.
fn count_flood(ended: &hyper::Result<()>, edge: &Edge) {
    let cause = ended.as_ref().err().and_then(|error| error.source()?.downcast_ref::<h2::Error>());
    if cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
    {
        edge.metrics.floods.inc();
    }
}

fn http2_builder(limits: &Limits, activity: &Activity) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor(activity.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.streams_per_connection).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .initial_stream_window_size(HTTP2_RECEIVE)
        .initial_connection_window_size(2 * HTTP2_RECEIVE)
        .max_pending_accept_reset_streams(HTTP2_RESETS)
        .max_local_error_reset_streams(HTTP2_ERRORS)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    builder
}

/// Ends once `stop` is true.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        pending::<()>().await;
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
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len(),
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await?;
    // Closing with unread input would reset the connection before the answer is read.
    tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
    Err(io::Error::other("plain HTTP on a TLS port"))
}

/// Counts a connection while it is open, and holds its seat.
pub struct Counted {
    gauge: Gauge,
    seat: Seat,
}

impl Counted {
    fn new(edge: &Edge, protocol: &'static str, seat: Seat) -> Self {
        let gauge = edge.metrics.connections(protocol);
        gauge.inc();
        Self { gauge, seat }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// For the first request of a connection to come.
const FRESH: Duration = Duration::from_secs(1);
/// For a connection to end once there is nothing more to say.
const LEAVE: Duration = Duration::from_secs(10);
/// Bytes that hyper may hold of each HTTP/2 stream for a client that does not read.
const HTTP2_SEND_BUFFER: usize = 16 * 1024;
/// Bytes of a request's body that a stream may send without being read, and twice that a connection.
const HTTP2_RECEIVE: u32 = 64 * 1024;
/// Requests that were taken back before they were looked at, and streams that broke the rules, after which an HTTP/2
/// connection ends.
const HTTP2_RESETS: usize = 20;
const HTTP2_ERRORS: usize = 100;
/// How often a silent HTTP/2 peer is tried, and how long it may take to answer.
const HTTP2_PING: Duration = Duration::from_secs(20);

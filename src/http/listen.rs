//! Listening: binds before anything is promised, then accepts until told to stop. Running out of file
//! descriptors pauses accepting; it does not spin, and it does not end the listener.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet, yield_now};

use super::Edge;
use super::connection::{self, stopped};
use super::direct::Direct;
use super::inherited::Inherited;
use super::limits::{Said, Seat};

/// A bound address that is not served yet.
pub struct Bound {
    listener: TcpListener,
    /// The address, with the port that was given where 0 was asked for.
    pub addr: SocketAddr,
    /// That connections cannot be accepted.
    said: Said,
}

/// Binds `addr`, unless a socket that was `inherited` listens there.
///
/// # Errors
/// The address in words that say what to do, if it is taken or not to be had.
pub fn bind(addr: SocketAddr, inherited: &mut Inherited) -> anyhow::Result<Bound> {
    let listener = match inherited.take(addr) {
        Some(listener) => take_over(listener),
        None => listen(addr),
    };
    let listener = listener.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; stop it, or choose another address",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
            _ => return anyhow::anyhow!("cannot listen on {addr}: {error}"),
        };
        anyhow::anyhow!("cannot listen on {addr}: {error}; {advice}")
    })?;
    let addr = listener.local_addr()?;
    Ok(Bound { listener, addr, said: Said::default() })
}

impl Bound {
    /// The socket once more. The address is taken for as long as it is kept.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The next connection. Where one cannot be accepted for lack of something, descriptors above all, it waits
    /// a moment and tries again.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        self.accept_or(|| {}).await
    }

    /// The same, and says so when it has to wait.
    async fn accept_or(&self, waits: impl Fn()) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                // A connection that broke before it was accepted is no reason to wait.
                Err(error) if is_broken(&error) => {}
                Err(error) => {
                    waits();
                    if let Some(unsaid) = self.said.again() {
                        tracing::error!(
                            %error,
                            unsaid,
                            "cannot accept connections; trying again in a moment (is LimitNOFILE too low?)"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// It listens already, with whatever it was made with.
fn take_over(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let socket = Socket::from(listener);
    configure_all(&socket)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // `[::]` and `0.0.0.0` may both be listed, as in nginx.
        socket.set_only_v6(true)?;
    }
    configure_all(&socket)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What every accepted socket takes over.
fn configure_all(socket: &Socket) -> io::Result<()> {
    // What a client that never reads may cost the kernel.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Of that, what is not even on its way: more of it waits in the log, where all clients share it. Where the system
    // has no such option it works without.
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
    // A peer that vanished while it waited for something is noticed.
    let _ =
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL));
    socket.set_nonblocking(true)
}

/// Accepts and serves connections until `stop` changes, then waits for those that are open. A connection that has become
/// a stream goes on as a task of its own, which is a fraction of the size. `open` goes when the address does.
pub async fn serve(
    bound: Bound,
    edge: Arc<Edge>,
    stop: watch::Receiver<bool>,
    open: oneshot::Sender<Infallible>,
) {
    let mut connections = JoinSet::new();
    let mut streams = JoinSet::new();
    let mut told = pin!(stopped(stop.clone()));
    let begin = |connections: &mut JoinSet<_>, socket: TcpStream, peer, seat| {
        edge.metrics.accepted.inc();
        configure(&socket, edge.site().limits.write_stall);
        connections.spawn(connection::serve(socket, peer, seat, Arc::clone(&edge), stop.clone()));
    };
    // Kept through what else happens, so that a pause is as long as it is meant to be.
    let mut accepted = Box::pin(next(&bound, &edge));
    loop {
        tokio::select! {
            biased;
            () = &mut told => break,
            Some(served) = connections.join_next() => go_on(&mut streams, served),
            Some(_) = streams.join_next() => {}
            (seat, socket, peer) = &mut accepted => {
                accepted.set(next(&bound, &edge));
                begin(&mut connections, socket, peer, seat);
                // Handshakes are costly: of a crowd that comes at once, one begins at a time and live events have
                // their turn between.
                yield_now().await;
            }
        }
    }
    drop(accepted);
    // Whoever is in the queue has connected, and would be reset: a balancer does not try another replica then.
    let succeeded = edge.succeeded.load(Ordering::Relaxed);
    let waiting = bound.listener.into_std().ok().filter(|_| !succeeded);
    while let Some((socket, peer)) = waiting.as_ref().and_then(accept_waiting) {
        let Some(mut seat) = edge.admission.seat_now() else { break };
        seat.take();
        begin(&mut connections, socket, peer, seat);
    }
    drop((waiting, open));
    while let Some(served) = connections.join_next().await {
        go_on(&mut streams, served);
    }
    while streams.join_next().await.is_some() {}
}

/// A connection that waits to be accepted, if there is any.
fn accept_waiting(listener: &std::net::TcpListener) -> Option<(TcpStream, SocketAddr)> {
    let (socket, peer) = loop {
        match listener.accept() {
            Ok(accepted) => break accepted,
            Err(error) if is_broken(&error) => {}
            Err(_) => return None,
        }
    };
    socket.set_nonblocking(true).ok()?;
    Some((TcpStream::from_std(socket).ok()?, peer))
}

/// The next connection, with its seat, for which it may have to wait.
async fn next(bound: &Bound, edge: &Edge) -> (Seat, TcpStream, SocketAddr) {
    let mut seat = edge.admission.seat().await;
    let (socket, peer) = bound.accept_or(|| edge.metrics.accept_paused("error")).await;
    seat.take();
    (seat, socket, peer)
}

/// Serves what has become of a connection, if it is a stream.
fn go_on(streams: &mut JoinSet<Option<()>>, served: Result<Option<Direct>, JoinError>) {
    if let Ok(Some(stream)) = served {
        streams.spawn(stream.supervised());
    }
}

fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Failures are ignored: the connection works without.
fn configure(socket: &TcpStream, write_stall: Duration) {
    let _ = socket.set_nodelay(true);
    let socket = socket2::SockRef::from(socket);
    // Longer than our own look at stalled clients, which ends them with a reason.
    let _ = socket.set_tcp_user_timeout(Some(write_stall * 2));
}

/// How long a connection is silent before its peer is tried, and how often then.
pub(super) const KEEPALIVE: Duration = Duration::from_mins(1);
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const SEND_BUFFER: usize = 64 * 1024;
const NOT_SENT: u32 = 16 * 1024;
/// As many connections not yet accepted as the system allows (net.core.somaxconn): when many come back at once, those
/// that find no room try again only after seconds.
const BACKLOG: i32 = i32::MAX;
const PAUSE: Duration = Duration::from_millis(250);

//! Listening: binds before anything is promised, then accepts until told to stop. Running out of file
//! descriptors pauses accepting; it does not spin, and it does not end the listener.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, yield_now};

use super::connection::{self, stopped};
use super::direct::Direct;
use super::{Edge, Terminator};

/// A bound address that is not served yet.
pub struct Bound {
    listener: TcpListener,
    /// The address, with the port that was given where 0 was asked for.
    pub addr: SocketAddr,
}

/// Binds `addr`.
///
/// # Errors
/// The address in words that say what to do, if it is taken or not to be had.
pub fn bind(addr: SocketAddr) -> anyhow::Result<Bound> {
    let listener = listen(addr).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; stop it, or choose another address",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
            _ => return anyhow::anyhow!("cannot listen on {addr}: {error}"),
        };
        anyhow::anyhow!("cannot listen on {addr}: {error}; {advice}")
    })?;
    let addr = listener.local_addr()?;
    Ok(Bound { listener, addr })
}

impl Bound {
    /// The next connection. Where one cannot be accepted for lack of something, descriptors above all, it waits
    /// a moment and tries again.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => pause(&error).await,
            }
        }
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // `[::]` and `0.0.0.0` may both be listed, as in nginx.
        socket.set_only_v6(true)?;
    }
    // Taken over by every accepted socket: what a client that never reads may cost the kernel.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Of that, what is not even on its way: more of it waits in the log, where all clients share it. Where the system
    // has no such option it works without.
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and serves connections until `stop` changes, then waits for those that are open. A connection that has become
/// a stream goes on as a task of its own, which is a fraction of the size.
pub async fn serve(bound: Bound, terminator: Terminator, edge: Arc<Edge>, stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut streams = JoinSet::new();
    let mut told = pin!(stopped(stop.clone()));
    // Kept through what else happens, so that a pause is as long as it is meant to be.
    let mut accepted = Box::pin(bound.accept());
    loop {
        tokio::select! {
            biased;
            () = &mut told => break,
            Some(served) = connections.join_next() => go_on(&mut streams, served),
            Some(_) = streams.join_next() => {}
            (socket, client) = &mut accepted => {
                accepted.set(bound.accept());
                edge.metrics.accepted.inc();
                configure(&socket, edge.write_stall);
                let (terminator, edge, stop) = (terminator.clone(), Arc::clone(&edge), stop.clone());
                connections.spawn(connection::serve(socket, client, terminator, edge, stop));
                // Handshakes are costly: of a crowd that comes at once, one begins at a time and live events have
                // their turn between.
                yield_now().await;
            }
        }
    }
    drop(accepted);
    drop(bound);
    while let Some(served) = connections.join_next().await {
        go_on(&mut streams, served);
    }
    while streams.join_next().await.is_some() {}
}

/// Serves what has become of a connection, if it is a stream.
fn go_on(streams: &mut JoinSet<Option<()>>, served: Result<Option<Direct>, JoinError>) {
    if let Ok(Some(stream)) = served {
        streams.spawn(stream.supervised());
    }
}

/// A connection that broke before it was accepted is no reason to wait; anything else is a lack of something.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::error!(%error, "cannot accept connections; trying again in a moment (is LimitNOFILE too low?)");
    tokio::time::sleep(PAUSE).await;
}

/// Failures are ignored: the connection works without.
fn configure(socket: &TcpStream, write_stall: Duration) {
    let _ = socket.set_nodelay(true);
    let socket = socket2::SockRef::from(socket);
    // Longer than our own look at stalled clients, which ends them with a reason.
    let _ = socket.set_tcp_user_timeout(Some(write_stall * 2));
}

const SEND_BUFFER: usize = 64 * 1024;
const NOT_SENT: u32 = 16 * 1024;
/// As many connections not yet accepted as the system allows (net.core.somaxconn): when many come back at once, those
/// that find no room try again only after seconds.
const BACKLOG: i32 = i32::MAX;
const PAUSE: Duration = Duration::from_millis(250);

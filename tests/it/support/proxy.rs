//! A TCP proxy between two parties that the test wants to trouble: it cuts, stalls, slows and refuses.
//!
//! It runs on the test's runtime: a test that blocks its only thread stalls the proxy too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::ports;

/// A listening (or refusing) proxy. Dropping it cuts everything.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

/// What all connections of one proxy look at.
struct Shared {
    /// Counts the cuts: a connection ends when it changes.
    cuts: watch::Sender<u64>,
    paused: watch::Sender<bool>,
    target: watch::Sender<SocketAddr>,
    /// Bytes per second in each direction of each connection; 0 is unlimited.
    rate: AtomicU64,
    upward: AtomicU64,
    downward: AtomicU64,
    accepted: AtomicU64,
    open: AtomicU64,
}

impl Proxy {
    /// Forwards a free port of 127.0.0.1 to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], ports::free())), target).await
    }

    /// Forwards `addr` to `target`.
    pub async fn start_on(addr: SocketAddr, target: SocketAddr) -> Self {
        let shared = Arc::new(Shared::new(target));
        let mut proxy = Self { addr, shared, listener: None };
        proxy.accept().await;
        proxy
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// New connections go to `target` from now on, as when a server came back elsewhere.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    /// Resets every open connection, on both sides.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// A black hole: connections stay open, nothing gets through.
    pub fn pause(&self) {
        self.shared.paused.send_replace(true);
    }

    /// Lets through again, beginning with what was held.
    pub fn resume(&self) {
        self.shared.paused.send_replace(false);
    }

    /// New connections are refused. Open ones go on.
    pub async fn refuse(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await; // The socket is closed once the task is gone.
        }
    }

    /// Takes new connections (again).
    pub async fn accept(&mut self) {
        if self.listener.is_none() {
            let listener = TcpListener::bind(self.addr).await.expect("the proxy's port");
            self.listener = Some(tokio::spawn(serve(listener, self.shared.clone())));
        }
    }

    /// Bounds each direction of each connection to so many bytes per second; 0 lifts it.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes forwarded from clients to the target.
    pub fn bytes_up(&self) -> u64 {
        self.shared.upward.load(Ordering::Relaxed)
    }

    /// Bytes forwarded from the target to clients.
    pub fn bytes_down(&self) -> u64 {
        self.shared.downward.load(Ordering::Relaxed)
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut_all();
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}

impl Shared {
    fn new(target: SocketAddr) -> Self {
        Self {
            cuts: watch::Sender::new(0),
            paused: watch::Sender::new(false),
            target: watch::Sender::new(target),
            rate: AtomicU64::new(0),
            upward: AtomicU64::new(0),
            downward: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                // Watched from here on, so that a cut hits everything accepted before it.
                let cuts = shared.cuts.subscribe();
                tokio::spawn(connection(client, cuts, shared.clone()));
            }
            Err(_) => sleep(Duration::from_millis(10)).await, // Out of descriptors: others may close.
        }
    }
}

async fn connection(client: TcpStream, mut cuts: watch::Receiver<u64>, shared: Arc<Shared>) {
    let _ = client.set_zero_linger();
    shared.open.fetch_add(1, Ordering::Relaxed);
    tokio::select! {
        _ = cuts.changed() => {}
        _ = forward(client, &shared) => {}
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

/// Forwards both directions until both have ended. An orderly end of one side is passed on as such;
/// an error, or being dropped, resets both sockets.
async fn forward(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let target = *shared.target.borrow();
    let socket = TcpSocket::new_v4()?;
    socket.set_zero_linger()?; // Before connecting, so that a cut at this very moment is one too.
    let mut server = socket.connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // Not `into_split`: its write half says goodbye (FIN) when dropped, before the reset.
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let up = pump(client_read, server_write, shared, &shared.upward);
    let down = pump(server_read, client_write, shared, &shared.downward);
    tokio::try_join!(up, down).map(|_| ())
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut paused = shared.paused.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        open_gate(&mut paused).await;
        let room = room(shared.rate.load(Ordering::Relaxed), buffer.len());
        let read = from.read(&mut buffer[..room]).await?;
        open_gate(&mut paused).await; // What was read just as the pause began is held, not let through.
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
        pace(shared.rate.load(Ordering::Relaxed), read).await;
    }
}

/// Waits while the proxy is paused.
async fn open_gate(paused: &mut watch::Receiver<bool>) {
    // It fails only when the proxy is gone, and then this connection is being cut anyway.
    let _ = paused.wait_for(|paused| !paused).await;
}

/// How much to take at once: a tenth of a second's worth.
fn room(rate: u64, most: usize) -> usize {
    if rate == 0 { most } else { most.min((rate / 10).max(1) as usize) }
}

/// Sleeps as long as `bytes` take at `rate`.
async fn pace(rate: u64, bytes: usize) {
    if rate > 0 {
        sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// A proxy in front of a listener, and one connection through it, seen from both ends.
    async fn connected() -> (Proxy, TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await;
        let client = TcpStream::connect(proxy.addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (proxy, listener, client, server)
    }

    #[tokio::test]
    async fn a_cut_resets_both_sides() {
        let (proxy, _listener, mut client, mut server) = connected().await;
        proxy.cut_all();
        assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn passes_an_orderly_end_on() {
        let (proxy, _listener, mut client, mut server) = connected().await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        server.write_all(b"ab").await.unwrap();
        drop(server);
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!((rest.as_str(), proxy.bytes_up(), proxy.bytes_down()), ("ab", 0, 2));
    }

    #[tokio::test]
    async fn a_pause_holds_and_loses_nothing() {
        let (proxy, _listener, mut client, mut server) = connected().await;
        proxy.pause();
        client.write_all(b"x").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), server.read_u8()).await;
        assert!(early.is_err(), "{early:?} came through");
        proxy.resume();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn refuses_and_accepts_on_the_same_port() {
        let (mut proxy, listener, mut client, mut server) = connected().await;
        proxy.refuse().await;
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        server.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x', "open connections go on");
        proxy.accept().await;
        TcpStream::connect(proxy.addr()).await.unwrap();
        listener.accept().await.unwrap();
        assert_eq!(proxy.accepted(), 2);
    }
}

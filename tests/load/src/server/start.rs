//! What starting any server takes: a free address, and waiting until somebody listens there.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::publish::road::Road;
use crate::server::child::Child;

/// A server that serves.
pub struct Started {
    /// Its processes, or the first of them; ended in this order.
    pub children: Vec<Child>,
    /// What it takes beside it, and is no part of it; ended after it.
    pub beside: Vec<Child>,
    /// Where clients connect.
    pub public: SocketAddr,
    /// What clients of a channel ask for.
    pub path: fn(&str) -> String,
    /// How events reach it.
    pub road: Road,
}

/// An address that was free a moment ago, for servers that cannot be asked to take any.
///
/// # Errors
/// Where there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until `server` listens at `addr`.
///
/// # Errors
/// Where it ends before, or takes too long.
pub fn wait_for(server: &mut Child, addr: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(addr).is_err() {
        if let Some(status) = server.ended()? {
            bail!("{} ended at once ({status})", server.name());
        }
        if Instant::now() > deadline {
            bail!("{} does not listen after {START:?}", server.name());
        }
        sleep(PAUSE);
    }
    Ok(())
}

/// The channel that events are published to, where there is one.
pub const CHANNEL: &str = "load";

/// The channel of a feed, of so many.
pub fn channel(feed: u64, feeds: u64) -> String {
    if feeds == 1 { CHANNEL.to_owned() } else { format!("room-{feed}") }
}

/// How long a server may take until it is ready.
pub const START: Duration = Duration::from_secs(15);

/// Between two looks whether it is.
pub const PAUSE: Duration = Duration::from_millis(20);

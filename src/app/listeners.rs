//! The public listeners. Each has its own task and its own word to stop, so that a reload can add and remove some. Those that
//! were accepted go on until they end: their streams are not cut, and whoever has none is sent elsewhere.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::{self, Bound, Edge, Inherited};

/// Those that are served.
#[derive(Default)]
pub(super) struct Listeners {
    open: Vec<Listener>,
    /// Also those that accept nobody any more, until their connections have ended.
    tasks: JoinSet<()>,
    closing: Vec<oneshot::Receiver<Infallible>>,
}

struct Listener {
    /// As configured; its port may be 0.
    asked: SocketAddr,
    addr: SocketAddr,
    /// To be handed on.
    socket: OwnedFd,
    stop: watch::Sender<bool>,
    /// Ends when its task listens no more.
    closed: oneshot::Receiver<Infallible>,
}

/// Addresses that are bound and not served yet.
pub(super) struct Opening(Vec<(SocketAddr, Bound, OwnedFd)>);

impl Opening {
    /// Binds what is asked for, unless an inherited socket listens there.
    pub fn bind(asked: &[SocketAddr], inherited: &mut Inherited) -> anyhow::Result<Self> {
        let bind = |&asked: &SocketAddr| {
            let bound = http::bind(asked, inherited)?;
            let socket = bound.socket()?;
            Ok((asked, bound, socket))
        };
        asked.iter().map(bind).collect::<anyhow::Result<_>>().map(Self)
    }
}

impl Listeners {
    /// Binds what is asked for and not served yet.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn bind_new(&self, asked: &[SocketAddr]) -> anyhow::Result<Opening> {
        let new: Vec<_> = asked.iter().copied().filter(|asked| !self.has(*asked)).collect();
        // What is given up only when all has worked out may stand in the way.
        for addr in &new {
            let others = self.open.iter().filter(|one| !asked.contains(&one.asked));
            if let Some(other) = others.map(|other| other.asked).find(|other| overlaps(*other, *addr)) {
                bail!(
                    "`server.listen`: {addr} cannot be had while {other} is served, which the same reload would give up; \
                     do it in two reloads with another port between, or restart"
                );
            }
        }
        Opening::bind(&new, &mut Inherited::default()).context("`server.listen`")
    }

    fn has(&self, asked: SocketAddr) -> bool {
        self.open.iter().any(|one| one.asked == asked)
    }

    /// Serves what was bound.
    pub fn serve(&mut self, Opening(opening): Opening, edge: &Arc<Edge>) {
        for (asked, bound, socket) in opening {
            tracing::info!(addr = %bound.addr, name = "server", "listening");
            let (addr, stop) = (bound.addr, watch::Sender::new(false));
            let (open, closed) = oneshot::channel();
            self.tasks.spawn(http::serve(bound, Arc::clone(edge), stop.subscribe(), open));
            self.open.push(Listener { asked, addr, socket, stop, closed });
        }
    }

    /// Accepts nobody any more where it is not asked for.
    pub fn keep_only(&mut self, asked: &[SocketAddr]) {
        let (stay, go) = mem::take(&mut self.open).into_iter().partition(|one| asked.contains(&one.asked));
        self.open = stay;
        for Listener { addr, socket, stop, closed, .. } in go {
            tracing::info!(%addr, name = "server", "no longer listening");
            // As in [`Self::stop`].
            drop(socket);
            stop.send_replace(true);
            self.closing.push(closed);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Ends once the addresses that were given up can be had by others, which takes a moment.
    pub async fn closed(&mut self) {
        let closing = mem::take(&mut self.closing);
        let _ = timeout(CLOSE, join_all(closing)).await;
    }

    /// Accepts nobody any more.
    pub fn stop(&mut self) {
        for Listener { socket, stop, .. } in self.open.drain(..) {
            // First, so that it is the task which closes the address, with nobody left in its queue.
            drop(socket);
            stop.send_replace(true);
        }
    }

    /// Ends once all connections have.
    pub async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// The addresses, with the ports that were given where 0 was asked for.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|one| one.addr).collect()
    }

    /// The listening sockets once more.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.open.iter().map(|one| one.socket.try_clone()).collect()
    }
}

/// How long a listener may take to close, which it does as soon as it has its turn.
const CLOSE: Duration = Duration::from_secs(2);

/// Whether only one of both can be bound.
fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let (some, others) = (one.ip(), other.ip());
    one.port() != 0
        && one.port() == other.port()
        && some.is_ipv4() == others.is_ipv4()
        && (some.is_unspecified() || others.is_unspecified())
}

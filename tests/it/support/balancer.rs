//! A TCP load balancer as it stands before replicas: it asks each for its readiness, hands new connections to those that
//! are ready in turn, goes to the next one where a connection is refused (`option redispatch` of HAProxy), and passes
//! bytes on without looking at them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::http::{Connect, Link, build};
use super::wait::eventually;

/// A running balancer. Dropping it cuts everything.
pub struct Balancer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    replicas: Vec<Replica>,
    turn: AtomicUsize,
    turned_away: AtomicU64,
}

struct Replica {
    addr: SocketAddr,
    /// The URL of its readiness.
    health: String,
    ready: AtomicBool,
}

impl Balancer {
    /// Stands before these, each with its public address and that of its admin listener.
    pub async fn start(replicas: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> Self {
        let replica = |(addr, admin)| Replica {
            addr,
            health: format!("http://{admin}/readyz"),
            ready: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared {
            replicas: replicas.into_iter().map(replica).collect(),
            turn: AtomicUsize::new(0),
            turned_away: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("it is bound");
        let mut tasks = JoinSet::new();
        for at in 0..shared.replicas.len() {
            tasks.spawn(watch(Arc::clone(&shared), at));
        }
        tasks.spawn(serve(listener, Arc::clone(&shared)));
        let balancer = Self { addr, shared, _tasks: tasks };
        for at in 0..balancer.shared.replicas.len() {
            balancer.until(at, true).await;
        }
        balancer
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until a replica gets connections, or gets none.
    pub async fn until(&self, replica: usize, ready: bool) {
        let found = || self.shared.replicas[replica].ready.load(Ordering::Relaxed);
        let what = format!("replica {replica} to be {}", if ready { "ready" } else { "unready" });
        eventually(&what, async || if found() == ready { Ok(()) } else { Err("not yet") }).await;
    }

    /// How many clients no replica took.
    pub fn turned_away(&self) -> u64 {
        self.shared.turned_away.load(Ordering::Relaxed)
    }
}

/// Looks again and again whether a replica is ready.
async fn watch(shared: Arc<Shared>, at: usize) {
    let replica = &shared.replicas[at];
    loop {
        let ready = timeout(PATIENCE, is_ready(&replica.health)).await.unwrap_or(false);
        replica.ready.store(ready, Ordering::Relaxed);
        sleep(PACE).await;
    }
}

async fn is_ready(url: &str) -> bool {
    let Ok(link) = Link::open(url, &Connect::http1()).await else { return false };
    let answer = link.send(build(Method::GET, url, &[], "")).await;
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                connections.spawn(pass_on(client, Arc::clone(&shared)));
            }
        }
    }
}

async fn pass_on(mut client: TcpStream, shared: Arc<Shared>) {
    let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
    let count = shared.replicas.len();
    let in_turn = (0..count).map(|at| &shared.replicas[(turn + at) % count]);
    for replica in in_turn.filter(|replica| replica.ready.load(Ordering::Relaxed)) {
        if let Ok(mut server) = TcpStream::connect(replica.addr).await {
            // However it ends, both sides are closed then.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
    shared.turned_away.fetch_add(1, Ordering::Relaxed);
}

/// Between two looks at a replica.
const PACE: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

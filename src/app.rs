//! Wires everything: from a configuration to running listeners and upstreams, and from a signal to a clean end.
//! The only module that knows all others.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::admin::{self, Admin, Asked, Door, Live, SocketFile};
use crate::auth::Auth;
use crate::config::{Config, UpstreamKind};
use crate::http::{
    self, AccessLog, Admission, Bound, Edge, Fallback, Inherited, Patience, Router, SecurityHeaders, Streams,
};
use crate::hub::{Hub, Memory};
use crate::metrics::Metrics;
use crate::tls::Terminator;
use crate::upstream::{self, Histories, Link, Push};

/// What a process begins with.
#[derive(Debug, Default)]
pub struct Start {
    /// Sockets that listen already.
    pub inherited: Inherited,
    /// Whether it takes the place of another process, which serves until this one does.
    pub is_successor: bool,
    /// Where the admin listener asks for another process to take its place, if that can be had.
    pub upgrades: Option<mpsc::Sender<Asked>>,
}

/// A running ssegate.
pub struct App {
    admin: Arc<Admin>,
    addrs: Vec<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    drain: Duration,
    stop: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    /// What listens, to be handed on.
    sockets: Vec<OwnedFd>,
    listeners: JoinSet<()>,
    admin_listener: JoinSet<()>,
    /// Upstreams and the hub's ticker: they run until the process ends, and end by being dropped.
    _background: JoinSet<()>,
    /// The admin listener's, if it has one.
    file: Option<SocketFile>,
}

impl App {
    /// Binds every address that no inherited socket listens on, then starts everything. What stands in for another process
    /// is to have its logs filled before it serves anybody. `fallback` answers requests that no route has.
    ///
    /// # Errors
    /// An address that cannot be bound, or a certificate that cannot be made. Upstreams that are down are
    /// none: they are tried for ever.
    pub async fn start(config: &Config, from: Start, fallback: Option<Fallback>) -> anyhow::Result<Self> {
        let Start { mut inherited, is_successor, upgrades } = from;
        let bound = config
            .server
            .listen
            .iter()
            .map(|&addr| http::bind(addr, &mut inherited))
            .collect::<Result<Vec<_>, _>>();
        let bound = bound.context("`server.listen`")?;
        let admin_bound =
            config.admin.listen.as_ref().map(|listen| admin::bind(listen, &mut inherited)).transpose();
        let admin_bound =
            admin_bound.context("`admin.listen`, by default 127.0.0.1:9090; `none` does without")?;
        let file =
            admin_bound.as_ref().map(admin::Bound::file).transpose().context("`admin.listen`")?.flatten();
        for place in inherited.places() {
            tracing::warn!(
                place,
                "this socket was passed, and nothing in the configuration listens there; it is closed"
            );
        }
        drop(inherited);
        let mut sockets = bound.iter().map(Bound::socket).collect::<Result<Vec<_>, _>>()?;
        sockets.extend(admin_bound.as_ref().map(admin::Bound::socket).transpose()?);

        let metrics = Metrics::new();
        let terminator = Terminator::new(&config.server.tls, &config.server.listen, &metrics)?;
        let names = config.upstreams.iter().map(|upstream| Arc::clone(&upstream.name));
        let hub = Arc::new(Hub::new(names, Memory::new(config.limits.memory)));
        let auth = Auth::new(config, &metrics);
        let wanted = config.connections_to_applications();
        let admission = Admission::new(&config.limits, descriptors(), wanted, bound.len(), &metrics);
        let edge = Arc::new(Edge {
            auth,
            router: Router::new(config, &metrics, admission.to_applications()),
            hub: Arc::clone(&hub),
            held: hub.memory().part(config.limits.memory / HELD),
            // Live events come first.
            read: hub.memory().part(config.limits.memory / READ),
            streams: Streams::new(config.limits.write_stall),
            admission,
            patience: Patience::default(),
            limits: config.limits,
            proxies: config.server.proxies.clone(),
            metrics,
            secure: SecurityHeaders::new(config.server.hsts),
            access: AccessLog::new(config),
            fallback,
            succeeded: AtomicBool::new(false),
        });
        for route in edge.router.routes() {
            if let Some(feed) = route.held_feed() {
                hub.hold(feed, &route.policy());
            }
        }

        let mut background = JoinSet::new();
        let push = Arc::new(Push::default());
        let links = start_upstreams(config, &edge, &push, &mut background);
        start_housekeeping(&edge, &mut background);
        terminator.start(&mut background);
        let admin = Arc::new(Admin {
            edge: Arc::clone(&edge),
            terminator: terminator.clone(),
            links,
            push,
            max_event: config.limits.max_event,
            ready: AtomicBool::new(false),
            live: Live::default(),
            door: Door::new(&config.admin),
            // Plain HTTP has nothing to say of HTTPS.
            secure: SecurityHeaders::new(None),
            started: SystemTime::now(),
            began: std::time::Instant::now(),
            leave: watch::Sender::new(false),
            upgrades,
        });

        let (stop, stopped) = watch::channel(false);
        let mut app = Self {
            addrs: bound.iter().map(|bound| bound.addr).collect(),
            admin_addr: admin_bound.as_ref().and_then(admin::Bound::addr),
            drain: config.server.drain,
            admin,
            stop,
            stop_admin: watch::Sender::new(false),
            sockets,
            listeners: JoinSet::new(),
            admin_listener: JoinSet::new(),
            _background: background,
            file,
        };
        if is_successor {
            app.tried().await;
        }
        app.listen(bound, admin_bound, &terminator, &edge, &stopped);
        Ok(app)
    }

    fn listen(
        &mut self,
        bound: Vec<Bound>,
        admin_bound: Option<admin::Bound>,
        terminator: &Terminator,
        edge: &Arc<Edge>,
        stopped: &watch::Receiver<bool>,
    ) {
        for bound in bound {
            tracing::info!(addr = %bound.addr, name = "server", "listening");
            self.listeners.spawn(http::serve(bound, terminator.clone(), Arc::clone(edge), stopped.clone()));
        }
        if let Some(bound) = admin_bound {
            tracing::info!(addr = %bound, name = "admin", "listening");
            // A drain does not stop it: readiness and status stay to be seen while streams end.
            let stopped = self.stop_admin.subscribe();
            self.admin_listener.spawn(admin::serve(bound, Arc::clone(&self.admin), stopped));
        }
    }

    /// The public addresses, with the ports that were given where 0 was asked for.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The admin listener's address, if it has one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The open streams.
    pub fn streams(&self) -> &Arc<Streams> {
        &self.admin.edge.streams
    }

    /// What `push` routes are fed by.
    pub fn push(&self) -> &Arc<Push> {
        &self.admin.push
    }

    /// Ends once every upstream's first subscriptions have been tried, or a few seconds have passed; from then
    /// on the process counts as ready, whatever becomes of its upstreams.
    pub async fn ready(&self) {
        self.tried().await;
        self.admin.ready.store(true, Ordering::Relaxed);
    }

    async fn tried(&self) {
        let tried = async {
            for (_, link) in &self.admin.links {
                link.tried().await;
            }
        };
        let _ = timeout(TRIED, tried).await;
    }

    /// The listening sockets once more, for another process.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(OwnedFd::try_clone).collect()
    }

    /// Takes the locks that serving takes: where one hangs, this does.
    pub fn alive(&self) -> impl Fn() + Send + 'static {
        let edge = Arc::clone(&self.admin.edge);
        move || drop((edge.streams.get(0), edge.hub.count()))
    }

    /// Another process answers clients and operators from now on.
    pub fn leave_admin(&mut self) {
        self.admin.edge.succeeded.store(true, Ordering::Relaxed);
        self.stop_admin.send_replace(true);
        self.file.take().into_iter().for_each(SocketFile::leave);
    }

    /// Ends once somebody has asked for a drain by the admin listener.
    pub async fn asked_to_leave(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.admin.leave.subscribe().wait_for(|leave| *leave).await;
    }

    /// Ends all streams at random moments within the drain window, each with a time to come back, and then the
    /// process's connections. What applications still answer has the whole window. Never waits longer than the window and
    /// a few seconds.
    pub async fn shutdown(mut self) {
        let streams = &self.admin.edge.streams;
        tracing::info!(streams = streams.count(), window = ?self.drain, "draining");
        streams.refuse_new();
        self.stop.send_replace(true);
        self.sockets.clear();
        let end = Instant::now() + self.drain;
        let cut = streams.drain(self.drain).await;
        let _ = timeout_at(end, self.admin.edge.router.applications_rest()).await;
        let ended = timeout(LEAVE, async { while self.listeners.join_next().await.is_some() {} }).await;
        // Who asked for another process has the answer before this one is gone.
        while *self.stop_admin.borrow() && self.admin_listener.join_next().await.is_some() {}
        tracing::info!(cut, connections_cut = ended.is_err(), "stopped");
    }
}

/// How many descriptors the process may have.
fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn start_upstreams(
    config: &Config,
    edge: &Edge,
    push: &Arc<Push>,
    tasks: &mut JoinSet<()>,
) -> Vec<(&'static str, Arc<Link>)> {
    let memory = Arc::clone(&edge.read);
    let histories = Histories { memory, concurrency: config.replay_concurrency };
    let start = |upstream: &crate::config::Upstream| {
        let wanted = edge.hub.wanted(&upstream.name).expect("the hub knows every upstream");
        let metrics = edge.metrics.upstream(&upstream.name);
        let link = Link::new(Arc::clone(&upstream.name), Arc::clone(wanted), metrics);
        upstream::start(upstream, &link, push, &histories, tasks);
        let kind = match upstream.kind {
            UpstreamKind::Redis(_) => "redis",
            UpstreamKind::Kafka(_) => "kafka",
            UpstreamKind::Ticker(_) => "ticker",
            UpstreamKind::Push => "push",
        };
        (kind, link)
    };
    config.upstreams.iter().map(start).collect()
}

fn start_housekeeping(edge: &Arc<Edge>, tasks: &mut JoinSet<()>) {
    let linger = Arc::clone(edge.hub.linger());
    tasks.spawn(async move { linger.run().await });
    edge.auth.run(tasks);
    tasks.spawn(http::withdraw(Arc::clone(edge)));
    let streams = Arc::clone(&edge.streams);
    tasks.spawn(async move { streams.deadlines.run().await });
    let (streams, memory) = (Arc::clone(&edge.streams), Arc::clone(edge.hub.memory()));
    tasks.spawn(async move { streams.supervise(&memory).await });
    let streams = Arc::clone(&edge.streams);
    tasks.spawn(async move { streams.turns.run().await });
    let streams = Arc::clone(&edge.streams);
    tasks.spawn(async move { streams.replay_turns.run().await });
    let hub = Arc::clone(&edge.hub);
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            hub.sweep(Instant::now());
        }
    });
}

/// Of `limits.memory`, what streams that cannot be decided on may take: an eighth.
const HELD: usize = 8;
/// And what was read of the past: a quarter.
const READ: usize = 4;

/// How long readiness waits for upstreams that do not answer.
const TRIED: Duration = Duration::from_secs(10);
/// How long connections may take to end after their streams have.
const LEAVE: Duration = Duration::from_secs(2);
/// How often old events and idle feeds are looked for.
const SWEEP: Duration = Duration::from_secs(1);

//! Wires everything: from a configuration to running `listeners` and `upstreams`, from one configuration to the next by a
//! `reload`, and from a signal to a clean end. The only module that knows all others.

mod listeners;
mod reload;
mod upstreams;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use parking_lot::RwLock;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::listeners::{Listeners, Opening};
use self::upstreams::Upstreams;
use crate::admin::{self, Admin, AskReload, AskUpgrade, Door, Live, Reloads, SocketFile};
use crate::auth::Auth;
use crate::config::Config;
use crate::http::{
    self, Admission, Edge, Fallback, Inherited, Patience, Router, SecurityHeaders, Site, Streams,
};
use crate::hub::{Hub, Memory};
use crate::metrics::Metrics;
use crate::schema::Registries;
use crate::tls::Terminator;
use crate::traces::{Exporter, Traces};
use crate::upstream::Push;

/// What a process begins with.
#[derive(Debug, Default)]
pub struct Start {
    /// Sockets that listen already.
    pub inherited: Inherited,
    /// Whether it takes the place of another process, which serves until this one does.
    pub is_successor: bool,
    /// Where the admin listener asks for another process to take its place, if that can be had.
    pub upgrades: Option<mpsc::Sender<AskUpgrade>>,
}

/// A running ssegate.
pub struct App {
    admin: Arc<Admin>,
    /// What is served.
    config: Config,
    upstreams: Upstreams,
    terminating: Terminating,
    listeners: Listeners,
    admin_addr: Option<SocketAddr>,
    /// To be handed on.
    admin_socket: Option<OwnedFd>,
    stop_admin: watch::Sender<bool>,
    admin_listener: JoinSet<()>,
    /// Who wants a reload.
    asked: Option<mpsc::Receiver<AskReload>>,
    /// The hub's ticker and its like: they run until the process ends, and end by being dropped.
    _background: JoinSet<()>,
    /// The admin listener's, if it has one.
    file: Option<SocketFile>,
    /// What sends traces, if there are any.
    exporter: Option<Exporter>,
}

/// What ends TLS, with the tasks that keep it fresh.
struct Terminating {
    terminator: Terminator,
    _tasks: JoinSet<()>,
}

impl Terminating {
    fn new(config: &Config, metrics: &Metrics, before: Option<&Terminator>) -> anyhow::Result<Self> {
        let server = &config.server;
        let terminator = Terminator::new(&server.tls, &server.listen, metrics, before)?;
        let mut tasks = JoinSet::new();
        terminator.start(&mut tasks);
        Ok(Self { terminator, _tasks: tasks })
    }
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
        let opening = Opening::bind(&config.server.listen, &mut inherited).context("`server.listen`")?;
        let admin_bound =
            config.admin.listen.as_ref().map(|listen| admin::bind(listen, &mut inherited)).transpose();
        let admin_bound =
            admin_bound.context("`admin.listen`, by default 127.0.0.1:9090; `none` does without")?;
        let file = admin_bound.as_ref().and_then(admin::Bound::file);
        for place in inherited.places() {
            tracing::warn!(
                place,
                "this socket was passed, and nothing in the configuration listens there; it is closed"
            );
        }
        drop(inherited);
        let admin_socket = admin_bound.as_ref().map(admin::Bound::socket).transpose()?;

        let metrics = Metrics::new();
        let terminating = Terminating::new(config, &metrics, None)?;
        let hub = Arc::new(Hub::new([], Memory::new(config.limits.memory)));
        let (wanted, listeners) = (config.connections_to_applications(), config.server.listen.len());
        let admission = Admission::new(&config.limits, descriptors(), wanted, listeners, &metrics);
        let registries = Arc::<Registries>::default();
        registries.follow(config);
        let router = Router::following(None, config, &metrics, admission.to_applications(), &registries);
        let auth = Auth::new(config, &metrics, None);
        let site = Site::new(config, router, auth, terminating.terminator.clone());
        let (traces, exporter) = config.traces.as_ref().map(|traces| Traces::begin(traces, &metrics)).unzip();
        let edge = Arc::new(Edge {
            site: RwLock::new(Arc::clone(&site)),
            hub: Arc::clone(&hub),
            held: hub.memory().part(config.limits.memory / HELD),
            // Live events come first.
            read: hub.memory().part(config.limits.memory / READ),
            streams: Streams::new(config.limits.write_stall),
            admission,
            patience: Patience::default(),
            metrics,
            traces,
            fallback,
            succeeded: AtomicBool::new(false),
            registries,
        });
        let push = Arc::new(Push::default());
        let most = config.limits.max_event;
        let mut upstreams = Upstreams::new(Arc::clone(&push), config.replay_concurrency, most);
        // First, so that no session begins with nothing to read, and counts as tried.
        reload::hold_feeds(&site.router, None, &hub);
        upstreams.follow(config, &edge, config.server.drain);
        let mut background = JoinSet::new();
        site.auth.run();
        start_housekeeping(&edge, &mut background);
        edge.metrics.config.begins();
        let (reloads, asked) = Reloads::new();
        let admin = Arc::new(Admin {
            edge: Arc::clone(&edge),
            links: RwLock::new(Arc::new(upstreams.links())),
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
            reloads,
            upgrades,
        });
        let mut app = Self {
            config: config.clone(),
            upstreams,
            terminating,
            admin_addr: admin_bound.as_ref().and_then(admin::Bound::addr),
            admin,
            listeners: Listeners::default(),
            admin_socket,
            stop_admin: watch::Sender::new(false),
            admin_listener: JoinSet::new(),
            asked: Some(asked),
            _background: background,
            file,
            exporter,
        };
        if is_successor {
            // Nobody is to find it less ready than the one before.
            app.ready().await;
        }
        app.listeners.serve(opening, &edge);
        if let Some(bound) = admin_bound {
            tracing::info!(addr = %bound, name = "admin", "listening");
            // A drain does not stop it: readiness and status stay to be seen while streams end.
            let stopped = app.stop_admin.subscribe();
            app.admin_listener.spawn(admin::serve(bound, Arc::clone(&app.admin), stopped));
        }
        Ok(app)
    }

    /// The public addresses, with the ports that were given where 0 was asked for.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.addrs()
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

    /// Those who ask for a reload by the admin listener; to be taken once. Without that they are told that there is none.
    pub fn reloads_asked_for(&mut self) -> mpsc::Receiver<AskReload> {
        self.asked.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Ends once every upstream's first subscriptions have been tried, or a few seconds have passed; from then
    /// on the process counts as ready, whatever becomes of its upstreams.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let (tried, admin) = (self.tried(), Arc::clone(&self.admin));
        async move {
            if !admin.ready.load(Ordering::Relaxed) {
                tried.await;
            }
            admin.ready.store(true, Ordering::Relaxed);
        }
    }

    fn tried(&self) -> impl Future<Output = ()> + use<> {
        let links = self.admin.links();
        async move {
            let tried = async {
                for (_, link) in &*links {
                    link.tried().await;
                }
            };
            let _ = timeout(TRIED, tried).await;
        }
    }

    /// The listening sockets once more, for another process.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let mut sockets = self.listeners.sockets()?;
        sockets.extend(self.admin_socket.as_ref().map(OwnedFd::try_clone).transpose()?);
        Ok(sockets)
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
    pub fn asked_to_leave(&self) -> impl Future<Output = ()> + use<> {
        let mut leave = self.admin.leave.subscribe();
        async move {
            // Where nobody can ask any more, nobody does.
            if leave.wait_for(|leave| *leave).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends all streams at random moments within the drain window, each with a time to come back, and then the
    /// process's connections. What applications still answer has the whole window. Never waits longer than the window and
    /// a few seconds. The last traces are sent.
    pub async fn shutdown(mut self) {
        let (streams, window) = (&self.admin.edge.streams, self.config.server.drain);
        tracing::info!(streams = streams.count(), ?window, "draining");
        streams.refuse_new();
        self.listeners.stop();
        self.admin_socket = None;
        let end = Instant::now() + window;
        let cut = streams.drain(window).await;
        let _ = timeout_at(end, self.admin.edge.site().router.applications_rest()).await;
        let ended = timeout(LEAVE, self.listeners.ended()).await;
        // Who asked for another process has the answer before this one is gone.
        while *self.stop_admin.borrow() && self.admin_listener.join_next().await.is_some() {}
        if let Some(exporter) = self.exporter.take() {
            exporter.flush().await;
        }
        tracing::info!(cut, connections_cut = ended.is_err(), "stopped");
    }
}

/// How many descriptors the process may have.
fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn start_housekeeping(edge: &Arc<Edge>, tasks: &mut JoinSet<()>) {
    let linger = Arc::clone(edge.hub.linger());
    tasks.spawn(async move { linger.run().await });
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

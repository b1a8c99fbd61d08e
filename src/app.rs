//! Wires everything: from a configuration to running listeners and upstreams, and from a signal to a clean end.
//! The only module that knows all others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::admin::{self, Admin};
use crate::config::{Config, UpstreamKind};
use crate::http::{self, Bound, Edge, Fallback, Router, Streams, Terminator};
use crate::hub::{Hub, Memory};
use crate::metrics::Metrics;
use crate::upstream::{self, Histories, Link, Push};

/// A running ssegate.
pub struct App {
    admin: Arc<Admin>,
    addrs: Vec<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    drain: Duration,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    /// Upstreams and the hub's ticker: they run until the process ends, and end by being dropped.
    _background: JoinSet<()>,
}

impl App {
    /// Binds every address, then starts everything. `fallback` answers requests that no route has.
    ///
    /// # Errors
    /// An address that cannot be bound, or a certificate that cannot be made. Upstreams that are down are
    /// none: they are tried for ever.
    pub async fn start(config: &Config, fallback: Option<Fallback>) -> anyhow::Result<Self> {
        let bound = config.server.listen.iter().map(|&addr| http::bind(addr)).collect::<Result<Vec<_>, _>>();
        let bound = bound.context("`server.listen`")?;
        let admin_bound = config.admin.listen.map(http::bind).transpose();
        let admin_bound =
            admin_bound.context("`admin.listen`, by default 127.0.0.1:9090; `none` does without")?;
        let terminator = Terminator::new(&config.server.tls, &config.server.listen)?;

        let metrics = Metrics::new();
        let names = config.upstreams.iter().map(|upstream| Arc::clone(&upstream.name));
        let hub = Arc::new(Hub::new(names, Memory::new(config.limits.memory)));
        let edge = Arc::new(Edge {
            router: Router::new(config, &metrics),
            hub: Arc::clone(&hub),
            streams: Streams::new(config.limits.write_stall),
            metrics,
            write_stall: config.limits.write_stall,
            fallback,
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
        let admin = Arc::new(Admin {
            edge: Arc::clone(&edge),
            links,
            push,
            max_event: config.limits.max_event,
            ready: AtomicBool::new(false),
            started: SystemTime::now(),
        });

        let (stop, stopped) = watch::channel(false);
        let mut app = Self {
            addrs: bound.iter().map(|bound| bound.addr).collect(),
            admin_addr: admin_bound.as_ref().map(|bound| bound.addr),
            drain: config.server.drain,
            admin,
            stop,
            listeners: JoinSet::new(),
            _background: background,
        };
        app.listen(bound, admin_bound, &terminator, &edge, &stopped);
        Ok(app)
    }

    fn listen(
        &mut self,
        bound: Vec<Bound>,
        admin_bound: Option<Bound>,
        terminator: &Terminator,
        edge: &Arc<Edge>,
        stopped: &watch::Receiver<bool>,
    ) {
        for bound in bound {
            tracing::info!(addr = %bound.addr, name = "server", "listening");
            self.listeners.spawn(http::serve(bound, terminator.clone(), Arc::clone(edge), stopped.clone()));
        }
        if let Some(bound) = admin_bound {
            tracing::info!(addr = %bound.addr, name = "admin", "listening");
            // Not told to stop: readiness and status stay to be seen while streams drain.
            self._background.spawn(admin::serve(bound, Arc::clone(&self.admin)));
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
        let tried = async {
            for (_, link) in &self.admin.links {
                link.tried().await;
            }
        };
        let _ = timeout(TRIED, tried).await;
        self.admin.ready.store(true, Ordering::Relaxed);
    }

    /// Ends all streams at random moments within the drain window, each with a time to come back, and then the
    /// process's connections. Never waits longer than the window and a few seconds.
    pub async fn shutdown(mut self) {
        let streams = &self.admin.edge.streams;
        tracing::info!(streams = streams.count(), window = ?self.drain, "draining");
        streams.refuse_new();
        self.stop.send_replace(true);
        let cut = streams.drain(self.drain).await;
        let ended = timeout(LEAVE, async { while self.listeners.join_next().await.is_some() {} }).await;
        tracing::info!(cut, connections_cut = ended.is_err(), "stopped");
    }
}

fn start_upstreams(
    config: &Config,
    edge: &Edge,
    push: &Arc<Push>,
    tasks: &mut JoinSet<()>,
) -> Vec<(&'static str, Arc<Link>)> {
    // Live events come first: what was read of the past takes a quarter at most.
    let memory = edge.hub.memory().part(config.limits.memory / 4);
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

/// How long readiness waits for upstreams that do not answer.
const TRIED: Duration = Duration::from_secs(10);
/// How long connections may take to end after their streams have.
const LEAVE: Duration = Duration::from_secs(2);
/// How often old events and idle feeds are looked for.
const SWEEP: Duration = Duration::from_secs(1);

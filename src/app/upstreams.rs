//! The upstreams that are served. Each has its own tasks, so that a reload can begin one, end one, or have one entered
//! anew, and no other notices.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::{Config, Follows, Upstream};
use crate::http::Edge;
use crate::upstream::{Histories, Link, Push, Running};

/// Those of the configuration, in the order of the file, and what is left of others.
pub(super) struct Upstreams {
    push: Arc<Push>,
    concurrency: usize,
    max_event: usize,
    served: Vec<Served>,
    /// Those that are served no more, until nobody reads of them.
    retired: JoinSet<()>,
}

struct Served {
    config: Upstream,
    running: Running,
}

impl Upstreams {
    /// None yet.
    pub fn new(push: Arc<Push>, concurrency: usize, max_event: usize) -> Self {
        Self { push, concurrency, max_event, served: Vec::new(), retired: JoinSet::new() }
    }

    /// Serves those of `config`, for feeds of the edge's hub. Whoever reads of one that goes has `window` to be sent away.
    pub fn follow(&mut self, config: &Config, edge: &Edge, window: Duration) {
        let mut before = std::mem::take(&mut self.served);
        let named =
            |before: &[Served], name: &Arc<str>| before.iter().position(|one| one.config.name == *name);
        for upstream in &config.upstreams {
            let known = named(&before, &upstream.name).map(|at| before.remove(at));
            let served = match known.map(|known| (upstream.follows(&known.config), known)) {
                None => self.begin(upstream, edge),
                Some((Follows::Same, known)) => known,
                Some((Follows::Anew, known)) => {
                    known.running.enter(upstream);
                    Served { config: upstream.clone(), ..known }
                }
                Some((Follows::Other, known)) => {
                    self.retire(known, edge, window);
                    self.begin(upstream, edge)
                }
            };
            self.served.push(served);
        }
        before.into_iter().for_each(|gone| self.retire(gone, edge, window));
        while self.retired.try_join_next().is_some() {}
    }

    fn begin(&self, upstream: &Upstream, edge: &Edge) -> Served {
        let wanted = edge.hub.add_upstream(&upstream.name);
        let link = Link::new(Arc::clone(&upstream.name), wanted, edge.metrics.upstream(&upstream.name));
        let histories = Histories { memory: Arc::clone(&edge.read), concurrency: self.concurrency };
        let running = Running::start(upstream, &link, &self.push, &histories, self.max_event);
        Served { config: upstream.clone(), running }
    }

    /// It goes on for those who read of it, while they are sent away.
    fn retire(&mut self, gone: Served, edge: &Edge, window: Duration) {
        edge.hub.retire(&gone.config.name);
        gone.running.link().retire();
        self.retired.spawn(async move {
            tokio::time::sleep(window + LEAVE).await;
            drop(gone);
        });
    }

    /// The links, each with the kind of its upstream.
    pub fn links(&self) -> Vec<(&'static str, Arc<Link>)> {
        let link = |one: &Served| (one.config.kind.as_str(), Arc::clone(one.running.link()));
        self.served.iter().map(link).collect()
    }
}

/// How long streams may take to end once they were told to.
const LEAVE: Duration = Duration::from_secs(5);

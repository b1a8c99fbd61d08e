//! What servers have in common that are read over HTTP path by path: a task for each path that is wanted, how it stands
//! with all of them, and when to come back.

mod pause;
mod standing;
mod web;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinSet};

pub(super) use self::pause::Pause;
pub(super) use self::standing::Standing;
pub(super) use self::web::{Refusal, Web, media_type};
use super::Broken;
use super::link::Link;
use crate::hub::{self, Feed};

/// A path that is read for some feeds. It outlives the sessions in which it is.
pub(super) trait Path: Send + Sync + 'static {
    /// Serves these feeds from now on.
    fn serve(&self, feeds: &[Arc<Feed>], link: &Link);

    /// Whoever read it does so no more.
    fn ends(&self);

    /// Reads it, and says how it stands. Ended from outside by dropping.
    fn read(self: Arc<Self>, standing: Arc<Standing>, link: Arc<Link>) -> impl Future<Output = ()> + Send;
}

/// The paths of one server, through all sessions.
pub(super) struct Paths<P> {
    known: Mutex<HashMap<Arc<str>, Arc<P>>>,
    standing: Arc<Standing>,
}

impl<P> Default for Paths<P> {
    fn default() -> Self {
        Self { known: Mutex::default(), standing: Arc::default() }
    }
}

/// The tasks of one session: one for each path.
#[derive(Default)]
struct Tasks {
    all: JoinSet<()>,
    of: HashMap<Arc<str>, AbortHandle>,
}

impl<P: Path> Paths<P> {
    /// Reads what is wanted, as long as nothing panics.
    pub(super) async fn session(&self, link: &Arc<Link>, new: impl Fn(&Arc<str>) -> Arc<P>) -> Broken {
        self.standing.renews();
        self.known.lock().values().for_each(|path| path.ends());
        let (mut tasks, mut changes) = (Tasks::default(), link.changes().and_now());
        loop {
            tokio::select! {
                changed = changes.next() => match changed {
                    Ok(()) => changes.look(|| self.follow(link, &mut tasks, &new)),
                    Err(broken) => return broken,
                },
                Some(Err(ended)) = tasks.all.join_next() => {
                    if ended.is_panic() {
                        return Broken(format!("a defect in ssegate: {ended}"));
                    }
                }
            }
        }
    }

    /// Reads what is wanted now and nothing else.
    fn follow(&self, link: &Arc<Link>, tasks: &mut Tasks, new: impl Fn(&Arc<str>) -> Arc<P>) {
        let mut wanted: HashMap<Arc<str>, Vec<Arc<Feed>>> = HashMap::new();
        for (source, feeds) in link.wanted().snapshot() {
            if let hub::Source::Path(path) = source {
                wanted.insert(path, feeds);
            }
        }
        let mut known = self.known.lock();
        known.retain(|path, _| wanted.contains_key(path));
        for (_, task) in tasks.of.extract_if(|path, _| !wanted.contains_key(path)) {
            task.abort();
        }
        self.standing.want(wanted.keys(), link);
        for (name, feeds) in wanted {
            let path = known.entry(Arc::clone(&name)).or_insert_with(|| new(&name));
            path.serve(&feeds, link);
            let reads = || Arc::clone(path).read(Arc::clone(&self.standing), Arc::clone(link));
            tasks.of.entry(name).or_insert_with(|| tasks.all.spawn(reads()));
        }
    }
}

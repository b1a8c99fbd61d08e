//! Taking over another configuration while everything is served. What can fail is done first, so that a reload which is
//! refused has changed nothing; and in one go, so that nobody meets half of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{App, Terminating};
use crate::admin::Reloaded;
use crate::auth::Auth;
use crate::config::{self, Change, Config, Problems, Tls, changes, continued};
use crate::http::{Kept, Router, Site};
use crate::hub::{FeedKey, Hub, Policy};

impl App {
    /// Serves what was read, or tells why that cannot be. It is logged, counted and shown.
    pub async fn reload(&mut self, read: Result<Config, Problems>) -> Reloaded {
        let applied = match read {
            Ok(config) => self.apply(config).map_err(|error| vec![format!("{error:#}")]),
            Err(problems) => Err(problems.lines()),
        };
        let reloads = &self.admin.reloads;
        match applied {
            Ok(changes) => {
                self.listeners.closed().await;
                for change in &changes {
                    match change.takes_restart {
                        true => tracing::warn!(%change, "reload"),
                        false => tracing::info!(%change, "reload"),
                    }
                }
                let generation = reloads.changed(&changes);
                self.admin.edge.metrics.config.reloaded(generation);
                tracing::info!(generation, changes = changes.len(), "configuration reloaded");
                Reloaded::Changed { generation, changes }
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(problem, "the configuration cannot be reloaded");
                }
                tracing::error!(problems = problems.len(), "reload refused; everything goes on as before");
                self.admin.edge.metrics.config.refused();
                reloads.refused(&problems);
                Reloaded::Refused(problems)
            }
        }
    }

    /// Takes over `read`, but for what takes a restart. Returns what has changed.
    fn apply(&mut self, read: Config) -> anyhow::Result<Vec<Change>> {
        let changes = changes(&self.config, &read);
        let now = config::applied(read, &self.config);
        let opening = self.listeners.bind_new(&now.server.listen)?;
        let edge = Arc::clone(&self.admin.edge);
        let before = edge.site();
        let is_same_tls = self.config.server.tls == now.server.tls
            && (now.server.tls != Tls::SelfSigned || self.config.server.listen == now.server.listen);
        let terminating = match is_same_tls {
            true => None,
            false => Some(Terminating::new(&now, &edge.metrics, Some(&before.terminator))?),
        };
        // From here on nothing fails.
        config::warnings(&now).iter().for_each(|warning| tracing::warn!("{warning}"));
        let (wanted, listeners) = (now.connections_to_applications(), now.server.listen.len());
        edge.admission.adapt(&now.limits, wanted, listeners);
        edge.streams.set_write_stall(now.limits.write_stall);
        self.upstreams.follow(&now, &edge, now.server.drain);
        self.admin.show_links(self.upstreams.links());

        let continued = continued(&self.config, &now);
        edge.registries.follow(&now);
        let router = Router::following(
            Some((&before.router, &continued)),
            &now,
            &edge.metrics,
            edge.admission.to_applications(),
            &edge.registries,
        );
        let auth = Auth::new(&now, &edge.metrics, Some(&before.auth));
        auth.run();
        let terminator = terminating.as_ref().map_or(&before.terminator, |made| &made.terminator).clone();
        let site = Site::new(&now, router, auth, terminator);
        hold_feeds(&site.router, Some(&before.router), &edge.hub);
        keep_feeds(&site.router, &before.router, &continued, &edge.hub);
        *edge.site.write() = Arc::clone(&site);
        if let Some(terminating) = terminating {
            self.terminating = terminating;
        }
        self.end_streams(&before.router, &continued, &now);
        if (&self.config.auth, &self.config.deny) != (&now.auth, &now.deny) {
            // Who was let in by what is gone finds it out.
            site.auth.tell();
        }
        self.listeners.serve(opening, &edge);
        self.listeners.keep_only(&now.server.listen);
        self.config = now;
        Ok(changes)
    }

    /// Ends the streams of routes that no route goes on as.
    fn end_streams(&self, before: &Router, continued: &[Option<usize>], now: &Config) {
        let is_gone = |at: &usize| !continued.contains(&Some(*at));
        let gone: Vec<&Arc<Kept>> = before
            .routes()
            .iter()
            .enumerate()
            .filter(|(at, _)| is_gone(at))
            .map(|(_, route)| &route.kept)
            .inspect(|kept| kept.ends())
            .collect();
        if gone.is_empty() {
            return;
        }
        let is_gone = |kept: &Arc<Kept>| gone.iter().any(|gone| Arc::ptr_eq(gone, kept));
        let streams = &self.admin.edge.streams;
        let ended = streams.end_within(now.server.drain, |control| is_gone(&control.route.kept));
        if ended > 0 {
            tracing::info!(streams = ended, window = ?now.server.drain, "streams of changed routes end");
        }
    }
}

/// Has those feeds held that have no parameters, by the policy of their routes.
pub(super) fn hold_feeds(router: &Router, before: Option<&Router>, hub: &Hub) {
    hub.hold_only(&held(router), &before.map(held).unwrap_or_default());
}

fn held(router: &Router) -> HashMap<FeedKey, Policy> {
    let mut held = HashMap::<FeedKey, Policy>::new();
    for route in router.routes() {
        let policy = route.policy();
        for feed in route.held_feeds() {
            held.entry(feed).and_modify(|shared| *shared = shared.max(policy)).or_insert(policy);
        }
    }
    held
}

/// Has the feeds of routes that go on kept by what their policy is now, where that is another one.
fn keep_feeds(router: &Router, before: &Router, continued: &[Option<usize>], hub: &Hub) {
    let changed = router.routes().iter().zip(continued).filter_map(|(route, from)| {
        let before = &before.routes()[(*from)?];
        (before.policy() != route.policy()).then(|| (Arc::clone(&route.kept.quota), route.policy()))
    });
    hub.keep(&changed.collect::<Vec<_>>());
}

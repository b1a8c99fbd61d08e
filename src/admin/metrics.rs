//! `GET /metrics`: what was counted, and what others know at this moment.

use std::time::Duration;

use super::Admin;
use crate::http::Route;
use crate::hub::{Hub, Memory};
use crate::metrics::{Figures, Format, Part};

/// The text in this format.
pub(super) fn text(admin: &Admin, format: Format) -> String {
    admin.edge.metrics.encode(&figures(admin), format)
}

fn figures(admin: &Admin) -> Figures {
    let edge = &admin.edge;
    let (hub, streams) = (&edge.hub, &edge.streams);
    let part = |name, memory: &Memory| Part { name, used: memory.used(), limit: Some(memory.limit()) };
    let parts = [part("history", &edge.read), part("held", &edge.held), part("snapshots", hub.tables())];
    let others: usize = parts.iter().map(|part| part.used).sum();
    let logs = Part { name: "logs", used: hub.memory().used().saturating_sub(others), limit: None };
    let (site, links) = (edge.site(), admin.links());
    let routes = site.router.routes().iter();
    let ages = routes.filter_map(|route| Some((route.name.clone(), silent_for(hub, route)?)));
    Figures {
        memory_limit: hub.memory().limit(),
        memory: parts.into_iter().chain([logs]).collect(),
        feeds: hub.count(),
        waiting: vec![("memory", streams.turns.waiting()), ("history", streams.replay_turns.waiting())],
        lags: links.iter().filter_map(|(_, link)| Some((link.name().clone(), link.lag()?.0))).collect(),
        ages: ages.collect(),
    }
}

/// For how long none of what a route reads has had an event; not known where that depends on the path.
fn silent_for(hub: &Hub, route: &Route) -> Option<Duration> {
    let held = route.held_feeds();
    let silent = held.iter().map(|feed| Some(hub.kept(feed)?.log.silent_for()));
    let silent = silent.collect::<Option<Vec<_>>>()?;
    silent.into_iter().min().filter(|_| held.len() == route.config.sources().count())
}

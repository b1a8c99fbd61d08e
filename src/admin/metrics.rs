//! `GET /metrics`: what was counted, and what others know at this moment.

use super::Admin;
use crate::hub::Memory;
use crate::metrics::{Figures, Format, Part};

/// The text in this format.
pub(super) fn text(admin: &Admin, format: Format) -> String {
    admin.edge.metrics.encode(&figures(admin), format)
}

fn figures(admin: &Admin) -> Figures {
    let edge = &admin.edge;
    let (hub, streams) = (&edge.hub, &edge.streams);
    let part = |name, memory: &Memory| Part { name, used: memory.used(), limit: Some(memory.limit()) };
    let parts = [part("history", &edge.read), part("held", &edge.held)];
    let others: usize = parts.iter().map(|part| part.used).sum();
    let logs = Part { name: "logs", used: hub.memory().used().saturating_sub(others), limit: None };
    let (site, links) = (edge.site(), admin.links());
    let ages = site.router.routes().iter().filter_map(|route| {
        let feed = hub.kept(&route.held_feed()?)?;
        Some((route.name.clone(), feed.log.silent_for()))
    });
    Figures {
        memory_limit: hub.memory().limit(),
        memory: parts.into_iter().chain([logs]).collect(),
        feeds: hub.count(),
        waiting: vec![("memory", streams.turns.waiting()), ("history", streams.replay_turns.waiting())],
        lags: links.iter().filter_map(|(_, link)| Some((link.name().clone(), link.lag()?.0))).collect(),
        ages: ages.collect(),
    }
}

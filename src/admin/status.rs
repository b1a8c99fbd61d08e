//! `GET /status`: what is served and how it is, as JSON. Nothing secret: no URL, no property, no query.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::Admin;
use crate::hub::Feed;
use crate::upstream::{Health, Link};

/// The whole document.
pub(super) fn text(admin: &Admin) -> String {
    let hub = &admin.edge.hub;
    let feeds = hub.feeds();
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": time(admin.started),
        "draining": admin.edge.streams.draining(),
        "subscribers": admin.edge.streams.count(),
        "memory": { "used": hub.memory().used(), "limit": hub.memory().limit() },
        "upstreams": admin.links.iter().map(|(kind, link)| upstream(kind, link)).collect::<Vec<_>>(),
        "routes": admin.edge.router.routes().iter().map(|route| json!({
            "route": route.name,
            "upstream": route.config.upstream,
            "subscribers": route.metrics.subscribers.get(),
            "events_out": route.metrics.events_out.get(),
            "bytes_out": route.metrics.bytes_out.get(),
        })).collect::<Vec<_>>(),
        "feeds": feeds.iter().map(|each| feed(each)).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn upstream(kind: &str, link: &Link) -> Value {
    let Health { up, since, last_error, reconnects } = link.health();
    json!({
        "name": link.name(),
        "kind": kind,
        "up": up,
        "since": time(since),
        "reconnects": reconnects,
        "last_error": last_error.map(|(error, at)| json!({ "error": error, "at": time(at) })),
    })
}

fn feed(feed: &Feed) -> Value {
    let held = feed.log.held();
    json!({
        "upstream": feed.key.upstream,
        "source": feed.key.source.name(),
        "event": feed.key.shape.event.as_ref().map(ToString::to_string),
        "subscribers": feed.log.readers(),
        "open": feed.log.position().is_some(),
        "history": { "events": held.events, "bytes": held.bytes },
    })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

//! `GET /status`: what is served and how it is, as JSON. Nothing secret: no URL, no property, no query. What there may be
//! very many of is only counted here, and listed page by page elsewhere.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Admin, feeds};
use crate::config::Limits;
use crate::http::Route;
use crate::hub::Feed;
use crate::metrics::Trouble;
use crate::tls::Report;
use crate::upstream::{Health, Link};

/// The whole document.
pub(super) fn text(admin: &Admin) -> String {
    let mut document = overview(admin);
    document["routes"] = admin.edge.site().router.routes().iter().map(route).collect();
    pretty(&document)
}

/// The document with none of the routes.
pub(super) fn overview(admin: &Admin) -> Value {
    let (hub, site, links) = (&admin.edge.hub, admin.edge.site(), admin.links());
    let (routes, kept) = (site.router.routes(), hub.feeds());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": time(admin.started),
        "uptime_seconds": admin.began.elapsed().as_millis() as f64 / 1000.0,
        "ready": admin.is_ready(),
        "draining": admin.edge.streams.draining(),
        "subscribers": admin.edge.streams.count(),
        "totals": {
            "upstreams": links.len(),
            "routes": routes.len(),
            "feeds": kept.len(),
            "events_out": routes.iter().map(|route| route.metrics.events_out.get()).sum::<u64>(),
            "bytes_out": routes.iter().map(|route| route.metrics.bytes_out.get()).sum::<u64>(),
        },
        "memory": { "used": hub.memory().used(), "limit": hub.memory().limit() },
        "config": admin.reloads.status(),
        "connections": connections(admin, &site.limits),
        "tls": site.terminator.report().iter().map(secured).collect::<Vec<_>>(),
        "auth": site.auth.status(),
        "schema_registries": admin.edge.registries.standing().iter().map(|one| one.0.clone()).collect::<Vec<_>>(),
        "upstreams": links.iter().map(|(kind, link)| upstream(kind, link)).collect::<Vec<_>>(),
        "recent": admin.edge.metrics.recent.newest().iter().map(trouble).collect::<Vec<_>>(),
        "routes": [],
        "feeds": feeds::top(&kept, TOP),
    })
}

/// As it is sent, for people to read as well.
pub(super) fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// A route, as operators see it.
pub(super) fn route(route: &Arc<Route>) -> Value {
    json!({
        "route": route.name,
        "upstream": route.upstreams,
        "auth": route.config.auth,
        "multi": route.config.multi.as_ref().map(|multi| json!({ "of": multi.of, "max": multi.max })),
        "subscribers": route.metrics.subscribers.get(),
        "events_out": route.metrics.events_out.get(),
        "bytes_out": route.metrics.bytes_out.get(),
        "limits": {
            "streams": route.config.limits.streams,
            "streams_per_client": route.config.limits.streams_per_client,
            "feeds": route.kept.quota.most(),
        },
        "feeds": route.kept.quota.kept(),
    })
}

fn connections(admin: &Admin, limits: &Limits) -> Value {
    let figures = admin.edge.admission.figures();
    let rate = limits.connection_rate_per_client;
    json!({
        "open": figures.open,
        "limit": figures.most,
        "surplus": figures.surplus,
        "limit_per_client": limits.connections_per_client,
        "rate_per_client": rate.map(|rate| json!({ "rate": rate.rate, "burst": rate.burst })),
        "clients": figures.clients,
    })
}

fn secured(report: &Report) -> Value {
    let mut shown = json!({ "name": report.name, "source": report.source });
    if let Some((names, not_after)) = &report.certificate {
        let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
        shown["names"] = json!(names);
        shown["not_after"] = json!(time(*not_after));
        shown["days_left"] = json!(left.as_secs() / 86_400);
    }
    shown["last_error"] = error(report.last_error.as_ref());
    shown
}

fn error(last: Option<&(String, SystemTime)>) -> Value {
    last.map_or(Value::Null, |(error, at)| json!({ "error": error, "at": time(*at) }))
}

fn upstream(kind: &str, link: &Link) -> Value {
    let Health { up, since, last_error, reconnects } = link.health();
    json!({
        "name": link.name(),
        "kind": kind,
        "up": up,
        "since": time(since),
        "reconnects": reconnects,
        "events_in": link.events_in(),
        "last_error": error(last_error.as_ref()),
        "lag": link.lag().map(|(lag, source)| json!({
            "records": lag.records,
            "seconds": lag.time.as_millis() as f64 / 1000.0,
            "source": source,
        })),
    })
}

/// What went wrong of late.
fn trouble(trouble: &Trouble) -> Value {
    json!({
        "kind": trouble.kind,
        "upstream": trouble.upstream,
        "route": trouble.route,
        "what": trouble.what,
        "count": trouble.count,
        "first": time(trouble.first),
        "last": time(trouble.last),
    })
}

/// A feed, as operators see it.
pub(super) fn feed(feed: &Feed) -> Value {
    let held = feed.log.held();
    json!({
        "upstream": feed.key.upstream,
        "source": feed.key.source.name(),
        "event": feed.key.shape.event.as_ref().map(ToString::to_string),
        "subscribers": feed.log.readers(),
        "open": feed.log.position().is_some(),
        "history": { "events": held.events, "bytes": held.bytes },
        "conflated": feed.log.replaced(),
        "snapshot": feed.log.tabled().map(|held| json!({
            "keys": held.keys,
            "bytes": held.bytes,
            "ready": held.is_whole,
            "full": held.lacks,
        })),
    })
}

/// A time as RFC 3339 has it.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Feeds that stand in the document: those with the most subscribers.
const TOP: usize = 20;

//! `GET /status/clients`: the open streams, page by page, and whose they are.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::Admin;
use super::query::{Query, Takes, cursor, cut};
use super::status::{pretty, time};
use crate::config::Network;
use crate::http::{Control, Problem, Seen, Streams};

static TAKES: Takes = Takes {
    names: &["route", "client", "limit", "after"],
    told: "It takes `route` (a route's name, as /status/routes has it), `client` (an address such as 10.0.0.7, or a \
           network such as 10.0.0.0/8), `limit` (1 to 1000, by default 100) and `after` (`next` of the page before).",
};

/// One page.
pub(super) async fn text(admin: &Admin, query: Option<&str>) -> Result<String, Problem> {
    let query = Query::read(query, &TAKES)?;
    let (limit, after) = (query.limit()?, query.after::<u64>()?);
    let (route, network) = (query.text("route"), query.parsed::<Network>("client")?);
    let chosen = |control: &Control| {
        route.is_none_or(|route| control.route.name == route)
            && network.is_none_or(|network| network.contains(control.client.addr.ip()))
    };
    let mut found = admin.edge.streams.page(after, limit + 1, chosen).await;
    let more = cut(&mut found, limit);
    let next = found.last().filter(|_| more).map(|last| cursor(last.id));
    let clients: Vec<_> = found.iter().map(|control| client(&admin.edge.streams, control)).collect();
    Ok(pretty(&json!({ "open": admin.edge.streams.count(), "clients": clients, "next": next })))
}

fn client(streams: &Streams, control: &Arc<Control>) -> Value {
    let (addr, open) = (control.client.addr, control.opened.elapsed());
    let Seen { feeds, behind } = streams.seen(control);
    let address: IpAddr = addr.ip().to_canonical();
    json!({
        "id": control.id,
        "client": address,
        // A proxy may have told none.
        "port": Some(addr.port()).filter(|port| *port != 0),
        "certificate": control.client.certificate.as_ref().map(|certificate| &*certificate.subject),
        "route": control.route.name,
        // Of several the first.
        "source": feeds.first().map(|feed| feed.key.source.name()),
        "feeds": feeds.len(),
        "since": time(SystemTime::now() - open),
        "seconds": open.as_millis() as f64 / 1000.0,
        "events": control.events.load(Ordering::Relaxed),
        "bytes": control.bytes.load(Ordering::Relaxed),
        "behind": behind,
        "ending": control.ending().map(|why| why.as_str()),
    })
}

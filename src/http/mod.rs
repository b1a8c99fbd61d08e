//! The public side: from an accepted socket to a stream of events.
//!
//! Reading order: `listen` accepts (on sockets of its own or `inherited` ones), `tls_stream`, `socket` and `connection` make HTTP of it (of a `client`), `answer` finds
//! the `router`'s route of the `site`, with the feed of each `source`, and makes a response (`guard`, `coding`, `cors`, `security`, `problem`), or passes the request on to
//! an application (`app`); `stream` is its body while it is open and `outgoing` what that has still to send. On HTTP/1.1
//! `handover` takes it out of hyper and `direct` serves it. `turns` lets those that catch up do so a few at a time, and
//! `streams` and `supervise` end one from outside, since nobody polls a stream whose client stops reading; `lease` tells
//! when, `access` logs each request, `traced` tells of those that are traced, and `listing` shows operators what is open.
//! `multi` answers who wants several feeds at once. `accept` says in which form a client is given events: `lines` writes a
//! stream as JSON for scripts, and `page` has what there is at the moment, and `newest` where that ends; `stall` ends those who
//! do not take theirs. `filters` binds a route's filter to what a client brings.
//! `limits` says who may come in and how much each may take, `shed` answers those for whom there is no room, and
//! `proxy_protocol`, `forwarded` and `client` find out who somebody is. `built_in` is what pages of ssegate's own share.

mod accept;
mod access;
mod answer;
mod app;
mod body;
pub mod built_in;
mod client;
mod coding;
mod connection;
mod cors;
mod direct;
mod filters;
mod forwarded;
mod guard;
mod handover;
mod inherited;
mod lease;
mod limits;
mod lines;
mod listen;
mod listing;
mod multi;
mod newest;
mod outgoing;
mod page;
mod problem;
pub mod proxy_protocol;
mod router;
mod security;
mod shed;
mod site;
mod socket;
mod source;
mod stall;
mod stream;
mod streams;
mod supervise;
#[cfg(test)]
mod testing;
mod tls_stream;
mod traced;
mod turns;

pub use access::{AccessLog, TARGET as ACCESS_LOG};
pub use body::Body;
pub use client::Client;
pub use connection::serve_http1;
pub use guard::withdraw;
pub use inherited::Inherited;
pub use limits::{Admission, Patience, Said};
pub use listen::{Bound, bind, serve};
pub use listing::Seen;
pub use problem::Problem;
pub use router::{Found, Kept, Miss, Route, Router};
pub use security::SecurityHeaders;
pub use site::Site;
pub use streams::{Control, End, Streams};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::RwLock;

use crate::hub::{Hub, Memory};
use crate::metrics::Metrics;
use crate::schema::Registries;
use crate::traces::Traces;

/// What every connection shares, through all reloads.
pub struct Edge {
    /// What requests that come now are answered by.
    pub site: RwLock<Arc<Site>>,
    /// Where events come from.
    pub hub: Arc<Hub>,
    /// The room for what is kept of requests that cannot be decided on yet, and for pages, a part of the hub's.
    pub held: Arc<Memory>,
    /// The room for what was read of history, a part of the hub's.
    pub read: Arc<Memory>,
    /// The open streams.
    pub streams: Arc<Streams>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who may have a connection.
    pub admission: Arc<Admission>,
    /// When those are to come back for whom there was no room.
    pub patience: Patience,
    /// Which requests are traced, if any.
    pub traces: Option<Arc<Traces>>,
    /// What answers requests that no route has; without it they are told so.
    pub fallback: Option<Fallback>,
    /// Whether another process listens where this one does.
    pub succeeded: AtomicBool,
    /// Who knows the schemas of payloads.
    pub registries: Arc<Registries>,
}

impl Edge {
    /// What a request that comes now is answered by, for as long as it lasts.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read())
    }
}

/// Answers a request of a client that no route has, or leaves it alone.
pub type Fallback = Box<dyn Fn(&Request<Incoming>, SocketAddr) -> Option<Response<Body>> + Send + Sync>;

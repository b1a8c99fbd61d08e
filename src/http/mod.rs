//! The public side: from an accepted socket to a stream of events.
//!
//! Reading order: `listen` accepts (on sockets of its own or `inherited` ones), `tls_stream`, `socket` and `connection` make HTTP of it (of a `client`), `answer` finds
//! the `router`'s route and makes a response (`guard`, `coding`, `cors`, `security`, `problem`), or passes the request on to
//! an application (`app`); `stream` is its body while it is open and `outgoing` what that has still to send. On HTTP/1.1
//! `handover` takes it out of hyper and `direct` serves it. `turns` lets those that catch up do so a few at a time, and
//! `streams` and `supervise` end one from outside, since nobody polls a stream whose client stops reading; `lease` tells
//! when, `access` logs each request, and `listing` shows operators what is open. `limits` says who may come in and how much
//! each may take, `shed` answers those for whom there is no room, and
//! `proxy_protocol`, `forwarded` and `client` find out who somebody is.

mod access;
mod answer;
mod app;
mod body;
mod client;
mod coding;
mod connection;
mod cors;
mod direct;
mod forwarded;
mod guard;
mod handover;
mod inherited;
mod lease;
mod limits;
mod listen;
mod listing;
mod outgoing;
mod problem;
pub mod proxy_protocol;
mod router;
mod security;
mod shed;
mod socket;
mod stream;
mod streams;
mod supervise;
mod tls_stream;
mod turns;

pub use access::{AccessLog, TARGET as ACCESS_LOG};
pub use body::Body;
pub use client::Client;
pub use connection::serve_http1;
pub use guard::withdraw;
pub use inherited::Inherited;
pub use limits::{Admission, Patience, Said};
pub use listen::{Bound, bind, serve};
pub use problem::Problem;
pub use router::{Found, Miss, Route, Router};
pub use security::SecurityHeaders;
pub use streams::{Control, Streams};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::http::{Request, Response};
use hyper::body::Incoming;

use crate::auth::Auth;
use crate::config::{Limits, Proxies};
use crate::hub::{Hub, Memory};
use crate::metrics::Metrics;

/// What every connection shares.
pub struct Edge {
    /// Where requests go.
    pub router: Router,
    /// Who may listen.
    pub auth: Arc<Auth>,
    /// Where events come from.
    pub hub: Arc<Hub>,
    /// The room for what is kept of requests that cannot be decided on yet, a part of the hub's.
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
    /// What a connection may take.
    pub limits: Limits,
    /// Who may speak for clients.
    pub proxies: Proxies,
    /// What every answer tells browsers.
    pub secure: SecurityHeaders,
    /// Where each request has a line, if that is asked for.
    pub access: Option<AccessLog>,
    /// What answers requests that no route has; without it they are told so.
    pub fallback: Option<Fallback>,
    /// Whether another process listens where this one does.
    pub succeeded: AtomicBool,
}

/// Answers a request of a client that no route has, or leaves it alone.
pub type Fallback = Box<dyn Fn(&Request<Incoming>, SocketAddr) -> Option<Response<Body>> + Send + Sync>;

//! The public side: from an accepted socket to a stream of events.
//!
//! Reading order: `listen` accepts, `tls`, `tls_stream`, `socket` and `connection` make HTTP of it, `answer` finds the
//! `router`'s route and makes a response (`coding`, `cors`, `problem`), `stream` is its body while it is open and `outgoing`
//! what that has still to send. On HTTP/1.1 `handover` takes it out of hyper and `direct` serves it. `turns` lets those
//! that catch up do so a few at a time, and `streams` and `supervise` end one from outside, since nobody polls a stream
//! whose client stops reading.

mod answer;
mod body;
mod coding;
mod connection;
mod cors;
mod direct;
mod handover;
mod listen;
mod outgoing;
mod problem;
mod router;
mod socket;
mod stream;
mod streams;
mod supervise;
mod tls;
mod tls_stream;
mod turns;

pub use body::Body;
pub use connection::serve_http1;
pub use listen::{Bound, bind, serve};
pub use problem::Problem;
pub use router::Router;
pub use streams::Streams;
pub use tls::Terminator;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;

use crate::hub::Hub;
use crate::metrics::Metrics;

/// What every connection shares.
pub struct Edge {
    /// Where requests go.
    pub router: Router,
    /// Where events come from.
    pub hub: Arc<Hub>,
    /// The open streams.
    pub streams: Arc<Streams>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long a client may take nothing.
    pub write_stall: Duration,
    /// What answers requests that no route has; without it they are told so.
    pub fallback: Option<Fallback>,
}

/// Answers a request of a client that no route has, or leaves it alone.
pub type Fallback = Box<dyn Fn(&Request<Incoming>, SocketAddr) -> Option<Response<Body>> + Send + Sync>;

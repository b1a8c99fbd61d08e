//! The answer to a stream for which there is no room. A native EventSource gives up for good on any status but 200; so by
//! default it is given a stream that ends at once and says when to come back. `shed: reject` is for clients that know better.

use std::time::Duration;

use http::Response;
use http::header::{self, HeaderValue};

use super::body::Body;
use super::problem::Problem;
use super::stream;

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// As many connections are open as there may be, of clients or to an application.
    Connections,
    /// The client has `limits.connections_per_client`, or opens them too fast.
    ClientConnections,
    /// The route has `limits.streams`.
    Streams,
    /// The client has `limits.streams_per_client` of the route.
    ClientStreams,
    /// The route has `limits.feeds`, and this would be another one.
    Feeds,
    /// Too many streams wait until it can be told whether their clients may read.
    Held,
    /// More tickets were used lately than are remembered.
    Tickets,
}

impl Why {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let room = [Self::Connections, Self::ClientConnections, Self::Streams, Self::ClientStreams];
        room.into_iter().chain([Self::Feeds, Self::Held, Self::Tickets])
    }

    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ClientConnections => "client_connections",
            Self::Streams => "streams",
            Self::ClientStreams => "client_streams",
            Self::Feeds => "feeds",
            Self::Held => "held",
            Self::Tickets => "tickets",
        }
    }

    /// The error that tells it, with the time after which to try again.
    pub fn reject(self, wait: Duration) -> Response<Body> {
        later(self.problem(), wait)
    }

    /// The same without the time.
    pub fn problem(self) -> Problem {
        match self {
            Self::ClientConnections | Self::ClientStreams => Problem::TooMany,
            Self::Connections | Self::Streams | Self::Feeds | Self::Held | Self::Tickets => {
                Problem::Overloaded
            }
        }
    }
}

/// A problem that may be over after about so long.
pub fn later(problem: Problem, wait: Duration) -> Response<Body> {
    let mut response = problem.response();
    // Whole seconds, and never none.
    let seconds = stream::jittered(wait).as_secs() + 1;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

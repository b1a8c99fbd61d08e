//! The server: how it is asked for a stream, and what of its answers is one.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;

use crate::config;
use crate::upstream::paths::{Refusal, Web, media_type};

/// The server as it is configured, and the connections to it.
pub(super) struct Server {
    pub config: config::Sse,
    live: Web,
    /// For what was before, which never takes the place of what comes.
    past: Web,
}

impl Server {
    /// One that is asked for what was before by so many at a time.
    pub(super) fn new(config: &config::Sse, at_a_time: usize) -> Self {
        let live = Web::new(&config.server, config.server.connections);
        Self { config: config.clone(), live, past: Web::new(&config.server, at_a_time) }
    }

    /// What comes at a path after an id. Many servers send the head of an answer with its first event, and not before: it
    /// may take as long as that.
    pub(super) async fn live(&self, path: &str, id: Option<&str>) -> Result<Incoming, Refusal> {
        open(&self.live, path, id, self.config.idle).await
    }

    /// What there was at a path after an id, and what comes.
    pub(super) async fn past(&self, path: &str, id: &str, limit: Duration) -> Result<Incoming, Refusal> {
        open(&self.past, path, Some(id), limit).await
    }
}

async fn open(web: &Web, path: &str, id: Option<&str>, limit: Duration) -> Result<Incoming, Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        // Bytes, since browsers too send an id in UTF-8 as it is (WHATWG HTML 9.2.3).
        let id = HeaderValue::from_bytes(id.as_bytes());
        let id = id.map_err(|_| Refusal::Other("the last event's id cannot be sent back".to_owned()))?;
        headers.insert("last-event-id", id);
    }
    let answer = web.get(path, EVENT_STREAM, headers, limit).await?;
    if answer.status() == StatusCode::NOT_MODIFIED {
        return Err(Refusal::Status(answer.status()));
    }
    match media_type(&answer) {
        kind if kind == EVENT_STREAM => Ok(answer.into_body()),
        kind => Err(Refusal::Other(format!("the server answers with {kind:?}, which is no event stream"))),
    }
}

const EVENT_STREAM: &str = "text/event-stream";

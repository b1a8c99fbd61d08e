//! One path: asked at a steady pace, or read line by line, for all of its feeds.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Server;
use super::items::Items;
use super::lines::Lines;
use crate::hub::Feed;
use crate::shape::Record;
use crate::upstream::link::Link;
use crate::upstream::paths::{Path, Pause, Refusal, Standing};

/// A path that is read.
pub(super) struct Source {
    path: Arc<str>,
    server: Arc<Mutex<Arc<Server>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    feeds: Vec<Arc<Feed>>,
    /// Whether what comes is read, so that logs can be opened.
    open: bool,
    /// When something last came.
    heard: Option<SystemTime>,
    /// What the last answer said of itself.
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
    items: Items,
}

impl Path for Source {
    fn serve(&self, feeds: &[Arc<Feed>], link: &Link) {
        let mut state = self.state.lock();
        state.feeds = feeds.to_vec();
        if state.open {
            state.feeds.iter().for_each(|feed| link.confirm(feed));
        }
    }

    /// An answer is whole, or none; of a stream, lines are lost.
    fn ends(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.open) && self.server.lock().config.stream {
            let since = state.heard.unwrap_or_else(SystemTime::now);
            state.feeds.iter().for_each(|feed| feed.lose(since));
        }
    }

    async fn read(self: Arc<Self>, standing: Arc<Standing>, link: Arc<Link>) {
        let (mut pause, server) = (Pause::default(), Arc::clone(&self.server.lock()));
        loop {
            let mut stood = None;
            let read = match server.config.stream {
                true => self.follow(&server, &standing, &link, &mut stood).await,
                false => self.ask(&server, &link).await,
            };
            let wait = match read {
                Ok(()) => {
                    standing.is_up(&self.path, &link);
                    pause = Pause::default();
                    server.config.every
                }
                Err(why) => {
                    self.ends();
                    standing.is_down(&self.path, &why.to_string(), &link);
                    link.reconnecting();
                    pause.next(stood.map(|since: Instant| since.elapsed()))
                }
            };
            sleep(wait).await;
        }
    }
}

impl Source {
    /// A path that has not been read.
    pub(super) fn new(path: &Arc<str>, server: &Arc<Mutex<Arc<Server>>>) -> Arc<Self> {
        Arc::new(Self { path: Arc::clone(path), server: Arc::clone(server), state: Mutex::default() })
    }

    /// Asks once, and takes in what has changed since the last time.
    async fn ask(&self, server: &Server, link: &Link) -> Result<(), Refusal> {
        let answer = match server.web.get(&self.path, "*/*", self.conditions(), server.config.idle).await {
            // There is nothing, now: so long polling says it.
            Err(Refusal::Over) => None,
            answer => Some(answer?).filter(|answer| answer.status() != StatusCode::NOT_MODIFIED),
        };
        let Some(answer) = answer else {
            self.take_in::<&[u8]>(&[], link);
            return Ok(());
        };
        let field = |name| answer.headers().get(name).cloned();
        let (etag, modified) = (field(ETAG), field(LAST_MODIFIED));
        let body = Limited::new(answer.into_body(), LARGEST).collect();
        let body = timeout(server.config.idle, body).await.map_err(|_| Refusal::Late)?;
        let body = body.map_err(|error| Refusal::Other(error.to_string()))?.to_bytes();
        let mut state = self.state.lock();
        let news = state.items.changes(&body, server.config.split).map_err(Refusal::Other)?;
        (state.etag, state.modified) = (etag, modified);
        drop(state);
        self.take_in(&news, link);
        Ok(())
    }

    /// What the server need not answer with (RFC 9110 section 13.1).
    fn conditions(&self) -> HeaderMap {
        let state = self.state.lock();
        let conditions = [(IF_NONE_MATCH, &state.etag), (IF_MODIFIED_SINCE, &state.modified)];
        conditions.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    /// Reads lines until the answer ends, and says why it did. Notes since when it `stood`, if it came about.
    async fn follow(
        &self,
        server: &Server,
        standing: &Standing,
        link: &Link,
        stood: &mut Option<Instant>,
    ) -> Result<(), Refusal> {
        let answer = server.web.get(&self.path, LINES, HeaderMap::new(), server.config.idle).await?;
        if answer.status() != StatusCode::OK {
            return Err(Refusal::Status(answer.status()));
        }
        *stood = Some(Instant::now());
        standing.is_up(&self.path, link);
        self.take_in::<&[u8]>(&[], link);
        Err(self.read_lines(answer, server, link).await)
    }

    async fn read_lines(&self, answer: Response<Incoming>, server: &Server, link: &Link) -> Refusal {
        let most = self.state.lock().feeds.iter().map(|feed| feed.key.shape.max_event).max();
        let (mut lines, mut body) = (Lines::new(most.unwrap_or_default()), answer.into_body());
        loop {
            let frame = match timeout(server.config.idle, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Refusal::Other(format!("the server broke off: {error}")),
                Ok(None) => return Refusal::Other("the server ended the stream".to_owned()),
                Err(_) => {
                    let idle = humantime::format_duration(server.config.idle);
                    return Refusal::Other(format!("the server has been silent for {idle}"));
                }
            };
            self.take_in(&lines.feed(&frame.into_data().unwrap_or_default()), link);
        }
    }

    /// Something has come: each of these is an event.
    fn take_in<T: AsRef<[u8]>>(&self, payloads: &[T], link: &Link) {
        let mut state = self.state.lock();
        (state.open, state.heard) = (true, Some(SystemTime::now()));
        for feed in &state.feeds {
            link.confirm(feed);
            let messages =
                payloads.iter().map(|payload| Message { path: &self.path, payload: payload.as_ref() });
            link.deliver(feed, messages.map(|message| (None, message)));
        }
    }
}

struct Message<'m> {
    path: &'m str,
    payload: &'m [u8],
}

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.payload)
    }

    fn name(&self) -> &str {
        self.path
    }
}

const LINES: &str = "application/x-ndjson, application/jsonl, application/json, */*;q=0.1";
/// Bytes of an answer.
const LARGEST: usize = 16 << 20;

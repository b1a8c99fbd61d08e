//! One path of the server, which is read on one stream for all of its feeds. What it has got to outlives the stream, and
//! the session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::ids::Takes;
use super::reader::Reader;
use super::server::Server;
use super::step::{Step, Steps, What};
use crate::hub::Feed;
use crate::upstream::link::Link;
use crate::upstream::paths::{Path, Pause, Refusal, Standing};

/// A path that is read.
pub(super) struct Source {
    path: Arc<str>,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: Vec<Reader>,
    /// Feeds whose logs wait for it to be known where the stream stands.
    waiting: Vec<Arc<Feed>>,
    stands: bool,
    /// The id to go on after.
    id: Option<Arc<str>>,
    /// Since when events are lost, where there is none.
    lost: Option<SystemTime>,
    /// When something last came.
    heard: Option<SystemTime>,
}

impl Path for Source {
    fn serve(&self, feeds: &[Arc<Feed>], _: &Link) {
        let mut state = self.state.lock();
        let is_wanted = |feed: &Arc<Feed>| feeds.iter().any(|other| Arc::ptr_eq(feed, other));
        state.readers.retain(|reader| is_wanted(&reader.feed));
        let is_read = |feed: &&Arc<Feed>| state.readers.iter().any(|reader| Arc::ptr_eq(&reader.feed, feed));
        let waiting = feeds.iter().filter(|feed| !is_read(feed)).cloned().collect();
        state.waiting = waiting;
        if state.stands {
            self.open(&mut state);
        }
    }

    fn ends(&self) {
        self.state.lock().ends();
    }

    async fn read(self: Arc<Self>, standing: Arc<Standing>, link: Arc<Link>) {
        let mut pause = Pause::default();
        loop {
            let mut stood = None;
            let why = self.once(&standing, &link, &mut pause, &mut stood).await;
            self.ends();
            standing.is_down(&self.path, &why.to_string(), &link);
            let wait = match why {
                Refusal::Over => pause.over(),
                _ => pause.next(stood.map(|since: Instant| since.elapsed())),
            };
            sleep(wait).await;
            link.reconnecting();
        }
    }
}

impl Source {
    /// A path that has not been read.
    pub(super) fn new(path: &Arc<str>, shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { path: Arc::clone(path), shared: Arc::clone(shared), state: Mutex::default() })
    }

    /// One stream, and why it ended. Notes since when it `stood`, if it came about.
    async fn once(
        &self,
        standing: &Standing,
        link: &Link,
        pause: &mut Pause,
        stood: &mut Option<Instant>,
    ) -> Refusal {
        let server = self.shared.server();
        let id = self.state.lock().id.clone();
        let body = match server.live(&self.path, id.as_deref()).await {
            Ok(body) => body,
            Err(why) => return why,
        };
        *stood = Some(Instant::now());
        standing.is_up(&self.path, link);
        let mut steps = Steps::new(id.as_ref(), self.most(), server.config.relay.clone());
        if server.config.relay.is_none() {
            self.begins(link);
        }
        // Whether the server goes on after that is seen at the first event.
        let mut asked = id.filter(|_| server.config.relay.is_none());
        let mut body = body;
        loop {
            let bytes = match next(&mut body, &server).await {
                Ok(bytes) => bytes,
                Err(why) => return why,
            };
            let heard = steps.feed(&bytes);
            heard.retry.into_iter().for_each(|retry| pause.set_retry(retry));
            heard.odd.iter().for_each(|odd| link.trouble(&format!("{} {odd}", self.path)));
            if let Some(first) = heard.steps.iter().find(|step| step.is_event())
                && let Some(asked) = asked.take()
            {
                self.look_back(&asked, first, link);
            }
            self.take_in(heard.steps, link);
            self.make_way().await;
        }
    }

    /// Bytes that an event may have at most.
    fn most(&self) -> usize {
        let state = self.state.lock();
        let feeds = state.readers.iter().map(|reader| &reader.feed).chain(&state.waiting);
        feeds.map(|feed| feed.key.shape.max_event).max().unwrap_or_default()
    }

    /// The stream stands where the one before it ended, or begins here.
    fn begins(&self, link: &Link) {
        let mut state = self.state.lock();
        if let Some(since) = state.lost.take() {
            state.readers.iter().for_each(|reader| reader.lose(since, None, link));
        }
        state.stands = true;
        self.open(&mut state);
    }

    fn open(&self, state: &mut State) {
        for feed in std::mem::take(&mut state.waiting) {
            let ids = self.shared.ids(&feed, &self.path, state.id.as_deref());
            state.readers.push(Reader::open(&feed, ids, self.shared.takes));
        }
    }

    /// A server that gives anew what it gave before has not gone on after the id that it was asked with.
    fn look_back(&self, asked: &Arc<str>, first: &Step, link: &Link) {
        let state = self.state.lock();
        let Some(id) = first.id.as_ref().filter(|id| *id != asked) else { return };
        if state.readers.iter().any(|reader| reader.ids.holds(id)) {
            let text = "goes back when it is asked to go on after an id; if it does not go by them, set `resume: false`";
            link.trouble(&format!("{} {text}", self.path));
            let since = state.heard.unwrap_or_else(SystemTime::now);
            state.readers.iter().for_each(|reader| reader.lose(since, state.id.clone(), link));
        }
    }

    fn take_in(&self, mut steps: Vec<Step>, link: &Link) {
        let mut state = self.state.lock();
        state.heard = Some(SystemTime::now());
        if self.shared.takes == Takes::None {
            steps.iter_mut().for_each(|step| step.id = None);
        }
        if !state.stands
            && let Some(first) = steps.first()
        {
            // An ssegate has told where it stands.
            if first.what == What::Moved {
                state.id.clone_from(&first.id);
            }
            state.stands = true;
            self.open(&mut state);
        }
        let mut id = state.id.clone();
        steps.retain(|step| {
            let before = std::mem::replace(&mut id, step.id.clone());
            step.what != What::Moved || before != step.id
        });
        state.id = id;
        if !steps.is_empty() {
            state.readers.iter().for_each(|reader| reader.take_in(&steps, link));
        }
    }

    /// Lets readers that are behind catch up a little, since this source can wait.
    async fn make_way(&self) {
        let until = Instant::now() + PAUSE;
        let congested = || self.state.lock().readers.iter().any(|reader| reader.feed.log.congested());
        while congested() && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl State {
    /// The stream has ended.
    fn ends(&mut self) {
        if self.id.is_none() && self.stands {
            self.stands = false;
            let heard = self.heard.unwrap_or_else(SystemTime::now);
            self.lost.get_or_insert(heard);
        }
    }
}

/// What comes next.
async fn next(body: &mut Incoming, server: &Server) -> Result<bytes::Bytes, Refusal> {
    let idle = server.config.idle;
    match timeout(idle, body.frame()).await {
        Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
        Ok(Some(Err(error))) => Err(Refusal::Other(format!("the server broke off: {error}"))),
        Ok(None) => Err(Refusal::Other("the server ended the stream".to_owned())),
        Err(_) => Err(Refusal::Other(format!(
            "the server has been silent for {}",
            humantime::format_duration(idle)
        ))),
    }
}

/// How long reading pauses at most.
const PAUSE: Duration = Duration::from_millis(50);

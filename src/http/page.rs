//! What there is of a feed at the moment, as one JSON document: for scripts, and as what to fall back to where streams do
//! not come through. It is read as a stream reads, and waits for what the upstream still holds, but for nothing that is yet
//! to come.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::accept::Form;
use super::answer::{Visit, head, in_query, query, wish, with_cookie};
use super::body::Body;
use super::filters;
use super::limits::Place;
use super::lines;
use super::outgoing::FRAME;
use super::problem::Problem;
use super::router::Route;
use super::shed::{Why, later};
use super::stall::Stall;
use super::stream::READ;
use super::streams::Streams;
use super::turns::Turn;
use crate::hub::{self, Opens, Read, Reason, Reserved, Withheld};
use crate::sse::{Decoder, Event, Item};

/// The document on its way to the client.
pub struct Page {
    rest: Bytes,
    stall: Stall,
    _room: Reserved,
    _place: Place,
}

impl Page {
    /// The next bytes to send.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        self.stall.asked(!self.rest.is_empty());
        (!self.rest.is_empty()).then(|| self.rest.split_to(self.rest.len().min(FRAME)))
    }

    /// How many bytes are still to be sent.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

impl Visit {
    /// `GET` of a page.
    pub(super) async fn page(&self, route: &Route, feed: Opens, request: &Request<()>) -> Response<Body> {
        let (mut wish, most) = match (wish(request), limit(request)) {
            (Ok(wish), Ok(most)) => (wish, most),
            (Err(problem), _) | (_, Err(problem)) => return problem.response(),
        };
        let (admitted, place) = match self.let_in(route, request).await {
            Ok(let_in) => let_in,
            Err(answer) => return *answer,
        };
        wish.filter = match filters::bind(route, &feed, query(request), admitted.grant.as_deref()) {
            Ok(filter) => filter,
            Err(problem) => return with_cookie(problem.response(), admitted),
        };
        let (hub, policy, terms) = (&self.edge.hub, route.policy(), Arc::new(route.page_terms()));
        let Some(feed) = hub.subscribe_within(&route.kept.quota, feed, &policy, wish, terms) else {
            return with_cookie(self.shed(route, Form::Page, request, Why::Feeds), admitted);
        };
        let reader = Reader::new(most, route.control_prefix());
        let withholds = |withheld: &_| route.withheld(withheld);
        let response = match reader.read(feed, &self.edge.streams, PATIENCE, withholds).await {
            None => later(Problem::Unanswered, route.config.retry),
            Some(content) => {
                content.lost.iter().for_each(|&reason| route.metrics.gap(reason));
                let (events, document) = (content.count, content.document());
                match self.edge.held.reserve(document.len()) {
                    None => self.shed(route, Form::Page, request, Why::Held),
                    Some(room) => {
                        route.metrics.page(events, document.len());
                        let stall = Stall::watch(self.site.limits.write_stall, "a page");
                        let page = Page { rest: document.into(), stall, _room: room, _place: place };
                        head(route, Form::Page, None, Body::Page(Box::new(page)))
                    }
                }
            }
        };
        with_cookie(response, admitted)
    }
}

/// How many events a page is to have at most.
fn limit(request: &Request<()>) -> Result<usize, Problem> {
    let Some(text) = in_query(request, "limit") else { return Ok(LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or(Problem::BadRequest("`limit` is a number from 1 to 1000."))
}

/// Reads up to what there is.
pub struct Reader {
    decoder: Decoder,
    content: Content,
}

/// What was read.
pub struct Content {
    /// How many events there may be; with none it is read for the place alone.
    most: usize,
    prefix: Arc<str>,
    /// Objects of JSON, with commas between them.
    events: Vec<u8>,
    count: usize,
    gaps: Vec<Value>,
    /// Why this reader misses something.
    lost: Vec<Reason>,
    /// What to go on with: where the last event stands, or the place at which it began.
    next: Option<String>,
    /// Whether that is another place than the first.
    has_moved_on: bool,
    /// Whether there was an event that is left to the next page.
    is_cut: bool,
}

impl Reader {
    /// For at most so many events of a feed whose control events have names that begin with `prefix`.
    pub fn new(most: usize, prefix: &str) -> Self {
        let content = Content {
            most,
            prefix: prefix.into(),
            events: Vec::new(),
            count: 0,
            gaps: Vec::new(),
            lost: Vec::new(),
            next: None,
            has_moved_on: false,
            is_cut: false,
        };
        Self { decoder: lines::decoder(), content }
    }

    /// What there is; `withholds` is told what the client's filter keeps back. Where the upstream has not given all of it after
    /// `patience`, what it has given; `None` where that leads nowhere, or where a source has not said yet where it begins: until
    /// all have, nothing is taken of the others. However little of what there is makes an event, the next page goes on where this
    /// one has got to.
    pub async fn read(
        mut self,
        mut feed: hub::Reader,
        streams: &Streams,
        patience: Duration,
        withholds: impl Fn(&Withheld),
    ) -> Option<Content> {
        feed.begin_together();
        let is_whole = timeout(patience, self.read_all(&mut feed, streams, withholds)).await.is_ok();
        if feed.lacks_place() {
            // With an id that says nothing of a source its client would miss what that has meanwhile.
            return None;
        }
        // What it was not given is behind it, too; but what was cut off stands before that.
        if !self.content.is_cut
            && let Some(told) = feed.moved_on()
        {
            self.take(&told);
        }
        Some(self.content).filter(|content| content.leads_on(is_whole))
    }

    async fn read_all(&mut self, feed: &mut hub::Reader, streams: &Streams, withholds: impl Fn(&Withheld)) {
        let (mut turn, mut wake) = (Turn::default(), feed.wake());
        let mut barren = 0;
        while !self.is_done(feed) && barren < BARREN {
            let ready = (feed.is_ready(false), feed.is_ready(true));
            let history = poll_fn(|cx| turn.poll(streams.turns(), ready, cx)).await;
            let read = feed.read_in(history, READ);
            if let Some(withheld) = feed.take_withheld() {
                withholds(&withheld);
                turn.count(withheld.bytes);
            }
            if feed.is_tired() {
                turn.end();
            }
            match read {
                // Of what memory holds that says nothing.
                Read::Pending | Read::Wait(_) if history && feed.is_ready(false) => turn.over(),
                Read::Pending | Read::Wait(_) if self.has_all_of(feed) => return,
                Read::Pending => {
                    turn.over();
                    match wake {
                        Some(woken) => woken.await,
                        None => poll_fn(|cx| feed.poll_wake(cx)).await,
                    }
                    wake = feed.wake();
                }
                Read::Wait(answered) => {
                    turn.over();
                    answered.await;
                }
                Read::Control { bytes, gaps } => {
                    self.content.lost.extend(gaps);
                    self.take(&turn_counted(&mut turn, bytes));
                }
                Read::LeftOut(_) => {}
                Read::Slice { bytes, .. } => self.take(&turn_counted(&mut turn, bytes)),
                // It went past entries that the client has; the others have their turn before the next ones.
                Read::Pieces { bytes, .. } if bytes.is_empty() => {
                    turn.end();
                    barren += usize::from(history);
                }
                Read::Pieces { bytes, .. } => {
                    bytes.into_iter().for_each(|bytes| self.take(&turn_counted(&mut turn, bytes)));
                }
            }
        }
    }

    /// Whether nothing is to be read any more. For the place alone that is to be known of all feeds.
    fn is_done(&self, feed: &hub::Reader) -> bool {
        self.content.is_full() && (self.content.most > 0 || !feed.is_deciding())
    }

    /// Whether what it has to wait for is yet to come: all that was there before has been read.
    fn has_all_of(&self, feed: &hub::Reader) -> bool {
        self.content.next.is_some() && !feed.replays() && !feed.is_deciding()
    }

    fn take(&mut self, bytes: &[u8]) {
        let content = &mut self.content;
        let fed = self.decoder.feed(bytes, |item| {
            if let Item::Event(event) = item {
                content.take(event);
            }
        });
        fed.expect(lines::BOUNDED);
    }
}

fn turn_counted(turn: &mut Turn, bytes: Bytes) -> Bytes {
    turn.count(bytes.len());
    bytes
}

impl Content {
    /// What to go on with.
    pub fn into_next(self) -> Option<String> {
        self.next
    }

    /// Whether a client that goes on after it comes further: it is the whole, or has an event, or stands elsewhere than where it
    /// began.
    fn leads_on(&self, is_whole: bool) -> bool {
        self.next.is_some() && (is_whole || self.count > 0 || self.has_moved_on)
    }

    fn is_full(&self) -> bool {
        self.is_cut || (self.count >= self.most && self.next.is_some())
    }

    /// Takes in what comes next, unless that is left to the next page.
    fn take(&mut self, event: Event) {
        if self.is_cut {
            return;
        }
        match event.name.as_deref().and_then(|name| name.strip_prefix(&*self.prefix)) {
            Some("position") => {}
            // As many as events at most: the page goes on after them.
            Some("gap") if self.next.is_some() && self.gaps.len() >= MOST => self.is_cut = true,
            Some("gap") => {
                let told: Map<String, Value> =
                    serde_json::from_str(&event.data).expect("gaps are objects of JSON");
                // Where it is among the events, since what follows a gap is not what came before.
                let at = [("at".to_owned(), json!(self.count))];
                return self.gaps.push(at.into_iter().chain(told).collect());
            }
            _ if self.most == 0 => {}
            _ => {
                let begun = self.events.len();
                if begun > 0 {
                    self.events.push(b',');
                }
                lines::write(&mut self.events, &event);
                if self.count > 0 && (self.count >= self.most || self.events.len() > SIZE) {
                    self.events.truncate(begun);
                    self.is_cut = true;
                    return;
                }
                self.count += 1;
            }
        }
        if !event.id.is_empty() {
            let before = self.next.replace(event.id);
            self.has_moved_on |= before.is_some() && before != self.next;
        }
    }

    fn document(self) -> Vec<u8> {
        let mut document = Vec::with_capacity(self.events.len() + 256);
        document.extend_from_slice(b"{\"events\":[");
        document.extend_from_slice(&self.events);
        let rest = json!({ "next": self.next, "gaps": self.gaps }).to_string();
        document.extend_from_slice(b"],");
        // Without the brace, which stands at the beginning.
        document.extend_from_slice(&rest.as_bytes()[1..]);
        document
    }
}

/// How many events a page has where the request does not say, and how many it may ask for.
const LIMIT: usize = 100;
const MOST: usize = 1_000;
/// Bytes of events in a page, unless a single one is larger.
const SIZE: usize = 128 * 1024;
/// Reads of history, one after the other's, that may come to nothing: filters and keys can leave nothing of very much, and
/// then there is a page without an event.
const BARREN: usize = 64;
/// How long the upstream has to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;

//! A recording client that behaves like a browser's `EventSource`, one step at a time.
//!
//! It connects, sends `Last-Event-ID` when it has one, decodes with [`super::decoder`], parses with [`super::sse_parser`], keeps all it
//! saw, can be cut at any byte, and reconnects when told to. [`super::recorder`] drives it by itself.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;

use super::decoder::Decoder;
use super::http::{Connect, Link, build};
pub use super::sse_parser::Event;
use super::sse_parser::{Item, Parser};
use super::wait::{DEADLINE, within};

/// How to open a stream.
#[derive(Clone, Default)]
pub struct Options {
    /// How to connect.
    pub connect: Connect,
    /// Further request header fields.
    pub headers: Vec<(String, String)>,
    /// The id to resume from on the first request.
    pub last_event_id: String,
    /// To the letter of WHATWG HTML 9.2.6, a resumed stream starts with an empty last event ID buffer;
    /// every browser keeps the id instead, and so does this client unless told otherwise.
    pub literal_id_buffer: bool,
}

impl Options {
    /// HTTP/1.1.
    pub fn http1() -> Self {
        Self::default()
    }

    /// HTTP/2.
    pub fn http2() -> Self {
        Self { connect: Connect::http2(), ..Self::default() }
    }

    /// Resumes from `id`.
    pub fn resume(self, id: &str) -> Self {
        Self { last_event_id: id.into(), ..self }
    }

    /// Adds a request header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Connects as told.
    pub fn connect(self, connect: Connect) -> Self {
        Self { connect, ..self }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The response was completed.
    Complete,
    /// The connection or the HTTP/2 stream broke.
    Broken(String),
    /// [`EventSource::cut`] or [`EventSource::cut_after`].
    Cut,
}

/// One subscription, over as many connections as it takes.
pub struct EventSource {
    url: String,
    options: Options,
    parser: Parser,
    decoder: Decoder,
    open: Option<Open>,
    end: Option<End>,
    status: StatusCode,
    headers: HeaderMap,
    /// Parsed, not yet taken by `next`.
    pending: VecDeque<Event>,
    events: Vec<Event>,
    comments: Vec<String>,
    retry: Option<Duration>,
    last_event_id: String,
}

struct Open {
    link: Arc<Link>,
    body: Incoming,
    /// Bytes left until the connection is to be cut.
    cut_after: Option<u64>,
}

impl EventSource {
    /// Opens a stream, and panics unless it is one.
    pub async fn connect(url: impl Into<String>, options: Options) -> Self {
        let source = Self::request(url, options).await;
        source.assert_streaming();
        source
    }

    /// Opens a stream, and waits until its start is fixed.
    pub async fn ready(url: impl Into<String>, options: Options) -> Self {
        let mut source = Self::connect(url, options).await;
        source.next_named("stream.position").await;
        source
    }

    /// Sends the request and returns whatever the answer is; see [`Self::status`].
    pub async fn request(url: impl Into<String>, options: Options) -> Self {
        let mut source = Self::new(url, options);
        let outcome = within(&source.url.clone(), source.try_open()).await;
        outcome.unwrap_or_else(|e| panic!("{}: {e}", source.url));
        source
    }

    /// Opens a stream on a connection that exists already, such as one of HTTP/2.
    pub async fn connect_on(link: Arc<Link>, url: impl Into<String>, options: Options) -> Self {
        let mut source = Self::new(url, options);
        let outcome = within(&source.url.clone(), source.open_on(link)).await;
        outcome.unwrap_or_else(|e| panic!("{}: {e}", source.url));
        source.assert_streaming();
        source
    }

    /// A subscription that is not connected yet, for those who drive it by themselves.
    pub fn new(url: impl Into<String>, options: Options) -> Self {
        Self {
            url: url.into(),
            parser: Parser::new(),
            decoder: Decoder::Identity,
            open: None,
            end: None,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            pending: VecDeque::new(),
            events: Vec::new(),
            comments: Vec::new(),
            retry: None,
            last_event_id: options.last_event_id.clone(),
            options,
        }
    }

    /// The next event; panics when the stream ends first.
    pub async fn next(&mut self) -> Event {
        match timeout(DEADLINE, self.try_next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("the stream ended ({:?}) where an event was due\n{self}", self.end),
            Err(_) => panic!("no event within {DEADLINE:?}\n{self}"),
        }
    }

    /// The next event, or `None` once the stream has ended; see [`Self::end`].
    pub async fn try_next(&mut self) -> Option<Event> {
        while self.pending.is_empty() && self.fill().await {}
        self.pending.pop_front()
    }

    /// The next event that is not `stream.position`; panics on `stream.gap`.
    pub async fn next_message(&mut self) -> Event {
        loop {
            let event = self.next().await;
            match event.event.as_str() {
                "stream.position" => {}
                "stream.gap" => panic!("a gap where a message was due: {}\n{self}", event.data),
                _ => return event,
            }
        }
    }

    /// The data of the next `count` messages.
    pub async fn next_data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::with_capacity(count);
        while data.len() < count {
            data.push(self.next_message().await.data);
        }
        data
    }

    /// The next event of this name; others are passed over (and stay in [`Self::events`]).
    pub async fn next_named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.event == name {
                return event;
            }
        }
    }

    /// The data of the next `stream.gap`, which events may precede.
    pub async fn next_gap(&mut self) -> serde_json::Value {
        let gap = self.next_named("stream.gap").await;
        serde_json::from_str(&gap.data)
            .unwrap_or_else(|e| panic!("a gap that is not JSON ({e}): {}", gap.data))
    }

    /// Reads on until `count` comments have come in all.
    pub async fn until_comments(&mut self, count: usize) {
        let reading = async {
            while self.comments.len() < count && self.fill().await {}
            self.comments.len()
        };
        let seen = timeout(DEADLINE, reading).await.unwrap_or_default();
        assert!(seen >= count, "{count} comments were due\n{self}");
    }

    /// Reads on until the stream ends, and returns how. Events on the way are in [`Self::events`].
    pub async fn until_end(&mut self) -> End {
        if timeout(DEADLINE, async { while self.fill().await {} }).await.is_err() {
            panic!("the stream does not end\n{self}");
        }
        self.end.clone().expect("no more to read, so it ended")
    }

    /// Cuts the connection with a TCP reset. On a shared connection this cuts the others too.
    pub fn cut(&mut self) {
        if let Some(open) = self.open.take() {
            open.link.cut();
            self.end = Some(End::Cut);
        }
    }

    /// Closes the stream as a page that is left does: the connection, or on a shared one the stream.
    pub fn close(&mut self) {
        self.open = None;
        self.end = Some(End::Cut);
    }

    /// Cuts the connection after so many further bytes of the body, be it inside a line.
    pub fn cut_after(&mut self, bytes: u64) {
        if let Some(open) = &mut self.open {
            open.cut_after = Some(bytes);
        }
    }

    /// Connects anew, with `Last-Event-ID` where there is one; panics unless a stream comes of it.
    pub async fn reconnect(&mut self) {
        within(&self.url.clone(), self.try_open()).await.unwrap_or_else(|e| panic!("{}: {e}", self.url));
        self.assert_streaming();
    }

    /// The status of the latest response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header fields of the latest response.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header field of the latest response, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The last event ID string: what a reconnect sends.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The latest reconnection time that the server asked for.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// All events so far, also those that `next` has not returned yet.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// All comments so far.
    pub fn comments(&self) -> &[String] {
        &self.comments
    }

    /// How the stream ended, if it has.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether the answer is an event stream, which `EventSource` would read.
    pub fn is_streaming(&self) -> bool {
        let kind = self.header("content-type").split(';').next().unwrap_or_default().trim();
        self.status == StatusCode::OK && kind.eq_ignore_ascii_case("text/event-stream")
    }

    fn assert_streaming(&self) {
        assert!(self.is_streaming(), "{}: not a stream: {} {:?}", self.url, self.status, self.headers);
    }

    /// The next connection goes to `url`, as when a balancer chooses another replica.
    pub fn move_to(&mut self, url: impl Into<String>) {
        self.url = url.into();
    }

    /// Forgets the events and comments that were taken, for a client that keeps a record of its own.
    pub fn forget(&mut self) {
        self.events.clear();
        self.comments.clear();
    }

    /// Connects; what was pending of an earlier connection stays.
    pub async fn try_open(&mut self) -> io::Result<()> {
        self.open = None;
        let link = Link::open(&self.url, &self.options.connect).await?;
        self.open_on(Arc::new(link)).await
    }

    async fn open_on(&mut self, link: Arc<Link>) -> io::Result<()> {
        let mut headers = vec![("accept", "text/event-stream"), ("cache-control", "no-store")];
        if !self.last_event_id.is_empty() {
            headers.push(("last-event-id", &self.last_event_id));
        }
        headers.extend(self.options.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let request = build(Method::GET, &self.url, &headers, "");
        let (head, body) = link.send(request).await.map_err(io::Error::other)?.into_parts();
        (self.status, self.headers) = (head.status, head.headers);
        self.parser = match self.options.literal_id_buffer {
            true => Parser::new(),
            false => Parser::resuming(&self.last_event_id),
        };
        self.decoder = Decoder::new(self.header("content-encoding"));
        self.open = Some(Open { link, body, cut_after: None });
        self.end = None;
        Ok(())
    }

    /// Reads one piece of the body. False once there is nothing more to read.
    pub(super) async fn fill(&mut self) -> bool {
        let Some(open) = &mut self.open else { return false };
        match open.body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    self.take(&bytes);
                }
            }
            Some(Err(error)) => self.ended(End::Broken(describe(&error))),
            None => {
                assert!(self.decoder.is_whole(), "the body was completed, and its coding was not\n{self}");
                self.ended(End::Complete);
            }
        }
        true
    }

    fn take(&mut self, bytes: &Bytes) {
        let Some(open) = &mut self.open else { return };
        let budget = open.cut_after.map_or(usize::MAX, |left| left.try_into().unwrap_or(usize::MAX));
        let taken = &bytes[..bytes.len().min(budget)];
        if let Some(left) = &mut open.cut_after {
            *left -= taken.len() as u64;
        }
        for item in self.parser.feed(&self.decoder.feed(taken)) {
            self.keep(item);
        }
        if let Some(id) = self.parser.last_event_id() {
            self.last_event_id = id.into();
        }
        if bytes.len() >= budget {
            self.cut();
        }
    }

    fn keep(&mut self, item: Item) {
        match item {
            Item::Event(event) => {
                self.events.push(event.clone());
                self.pending.push_back(event);
            }
            Item::Comment(text) => self.comments.push(text),
            Item::Retry(millis) => self.retry = Some(Duration::from_millis(millis)),
        }
    }

    fn ended(&mut self, end: End) {
        self.open = None;
        self.end = Some(end);
    }
}

/// What came so far, for the message of a failing test: the last 20 events.
impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for event in self.events.iter().rev().take(20).rev() {
            writeln!(text, "  {} id={} {:.200}", event.event, event.id, event.data)?;
        }
        let (count, comments) = (self.events.len(), self.comments.len());
        writeln!(f, "{}: {} events, {comments} comments, the last events are", self.url, count)?;
        f.write_str(&text)
    }
}

/// hyper's errors keep the reason in their source.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

//! One open stream: the body that turns what a reader of one feed or several is given into the bytes of an HTTP response,
//! with keepalive comments in the silences.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep};

use super::lines::Lines;
use super::outgoing::Outgoing;
use super::streams::{End, OfFeed, Registered};
use super::turns::Turn;
use crate::compress::Encoding;
use crate::hub::{Read, Reader, Reason, Times};
use crate::sse;

/// Bytes read from the log at a time.
pub const READ: usize = 32 * 1024;

pin_project! {
    /// The events of one reader, until the client or the process has enough.
    pub struct EventStream {
        reader: Option<Reader>,
        decision: Option<Decision>,
        registered: Registered,
        outgoing: Outgoing,
        encoding: Option<Encoding>,
        ended: bool,
        // Whether its head has gone ahead.
        headed: bool,
        written: Instant,
        // When the oldest of what waits was published, if that is to be measured.
        published: Option<Instant>,
        turn: Turn,
        // What it waits for that reads one feed.
        #[pin]
        wake: Option<OwnedNotified>,
        #[pin]
        silence: Sleep,
    }
}

/// How a stream is written.
#[derive(Debug, Clone, Copy)]
pub enum Written {
    /// As Server-Sent Events, in this encoding if in any.
    Events(Option<Encoding>),
    /// As lines of JSON.
    Lines,
}

/// What a stream that is held waits for: what its client may read, with the places of the routes of several feeds, or why it
/// ends.
pub type Decision = Pin<Box<dyn Future<Output = Result<(Reader, Vec<OfFeed>), End>> + Send>>;

impl EventStream {
    /// A stream that begins with a comment and a `retry:`, before anything else is known.
    pub fn new(reader: Reader, registered: Registered, written: Written) -> Self {
        registered.reads(&reader);
        Self { wake: reader.wake(), reader: Some(reader), ..Self::held(None, registered, written) }
    }

    /// One that is open, and has nothing to read before `decision` is made.
    pub fn held(decision: Option<Decision>, registered: Registered, written: Written) -> Self {
        let route = &registered.control.route;
        let (keepalive, opening) = (route.config.keepalive, opening(route.config.retry));
        let (mut outgoing, encoding) = match written {
            Written::Events(encoding) => (Outgoing::new(encoding.map(|encoding| encoding.coding)), encoding),
            Written::Lines => (Outgoing::in_lines(Lines::new(route.control_prefix())), None),
        };
        outgoing.put(opening);
        Self {
            outgoing,
            encoding,
            ended: false,
            headed: false,
            written: Instant::now(),
            published: None,
            turn: Turn::default(),
            wake: None,
            silence: tokio::time::sleep(keepalive),
            reader: None,
            decision,
            registered,
        }
    }

    /// What tells it from all others of the process.
    pub fn id(&self) -> u64 {
        self.registered.control.id
    }

    /// The answer is made: until the stream is polled the client is slow, or gone.
    pub fn begins(&self) {
        self.registered.handed(0, 0, self.written);
    }

    /// Ready from the second time on. Many streams may begin on one connection at once, and it never gives back the room
    /// in which their frames wait: so all heads are sent before the first bytes follow.
    pub fn poll_headed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut *self.project().headed, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next bytes to send; `None` when the stream has ended.
    pub fn poll_bytes(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.outgoing.fills_a_frame() || self.ended {
                return Poll::Ready(self.take());
            }
            if self.registered.control.ending().is_some() {
                self.as_mut().finish();
                continue;
            }
            if let Some(notice) = self.registered.notice() {
                self.as_mut().project().outgoing.put(notice);
            }
            let mut this = self.as_mut().project();
            let Some(reader) = this.reader else {
                if !this.outgoing.is_empty() {
                    return Poll::Ready(self.take());
                }
                ready!(self.as_mut().poll_decision(cx));
                continue;
            };
            this.registered.replays(reader.replays());
            let turns = this.registered.streams().turns();
            let (memory, history) = (reader.is_ready(false), reader.is_ready(true));
            let Poll::Ready(history) = this.turn.poll(turns, (memory, history), cx) else {
                // Others of several feeds may come to have something meanwhile, for which that turn is not needed.
                let _ = reader.poll_wake(cx);
                if !memory && reader.is_ready(false) {
                    continue;
                }
                this.registered.control.waiting();
                if let Some(bytes) = self.as_mut().take() {
                    return Poll::Ready(Some(bytes));
                }
                // It may have many turns, and be given nothing.
                ready!(self.as_mut().poll_silence(cx));
                continue;
            };
            let read = reader.read_in(history, READ);
            this.registered.control.reading.stands(reader.stands());
            let ended = reader.take_ended();
            if !ended.is_empty() {
                this.registered.ended(&ended, reader);
            }
            if let Some(withheld) = reader.take_withheld() {
                this.registered.control.route.withheld(&withheld);
                this.turn.count(withheld.bytes);
            }
            if reader.is_tired() {
                this.turn.end();
            }
            match read {
                // What there is goes out first; after that it is asked again what to wait for.
                Read::Pending | Read::Wait(_) if !this.outgoing.is_empty() => {
                    return Poll::Ready(self.take());
                }
                Read::Pending => {
                    this.turn.over();
                    ready!(self.as_mut().poll_news(cx));
                }
                Read::Wait(wake) => {
                    this.turn.over();
                    this.wake.set(Some(wake));
                    ready!(self.as_mut().poll_news(cx));
                }
                Read::Control { bytes, gaps } => {
                    this.registered.stands(&gaps, reader);
                    let route = &this.registered.control.route;
                    gaps.iter().for_each(|&reason| route.metrics.gap(reason));
                    if gaps.contains(&Reason::Lagged) && reader.leaves() {
                        this.registered.control.end(End::Lagged);
                    } else {
                        this.outgoing.put(bytes);
                    }
                }
                Read::Slice { bytes, events, times, forms } => {
                    this.registered.stands(&[], reader);
                    this.registered.count(events, times, this.published);
                    this.turn.count(bytes.len());
                    let packed = forms.zip(*this.encoding);
                    match packed.and_then(|(forms, encoding)| forms.packed(&bytes, encoding)) {
                        Some(packed) => this.outgoing.put_packed(&bytes, packed),
                        None => this.outgoing.put(bytes),
                    }
                }
                Read::LeftOut(events) => {
                    this.registered.control.route.metrics.left_out.inc_by(events);
                    this.turn.end();
                }
                Read::Pieces { bytes, .. } if bytes.is_empty() => {
                    // It went past entries that the client has; the others have their turn before the next ones.
                    this.turn.end();
                }
                Read::Pieces { bytes, events, times } => {
                    this.registered.stands(&[], reader);
                    this.registered.count(events, times, this.published);
                    this.turn.count(bytes.iter().map(Bytes::len).sum());
                    bytes.into_iter().for_each(|bytes| this.outgoing.put(bytes));
                }
            }
        }
    }

    /// Ready when it is known what to read, or that there will be nothing, and when there is something to send.
    fn poll_decision(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        let refused = Poll::Ready(Err(End::Refused));
        let decided = this.decision.as_mut().map_or(refused, |decision| decision.as_mut().poll(cx));
        let Poll::Ready(decided) = decided else { return self.poll_silence(cx) };
        *this.decision = None;
        match decided {
            Ok((reader, of_feeds)) => {
                this.wake.set(reader.wake());
                this.registered.reads(&reader);
                this.registered.takes(of_feeds);
                *this.reader = Some(reader);
            }
            Err(why) => this.registered.control.end(why),
        }
        Poll::Ready(())
    }

    /// Ready when there may be something to read or to send.
    fn poll_news(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        let woken = match this.wake.as_mut().as_pin_mut() {
            Some(wake) => wake.poll(cx),
            None => this.reader.as_mut().map_or(Poll::Pending, |reader| reader.poll_wake(cx)),
        };
        if woken.is_ready() {
            this.wake.set(this.reader.as_ref().and_then(Reader::wake));
            return Poll::Ready(());
        }
        self.poll_silence(cx)
    }

    /// Ready when a silence has lasted too long, for which there is something to send then.
    fn poll_silence(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.silence.as_mut().poll(cx).is_ready() {
            let keepalive = this.registered.control.route.config.keepalive;
            // The timer is not set anew for each event; it looks at the last write when it rings.
            let (due, now) = (*this.written + keepalive, Instant::now());
            let is_silent = due <= now;
            let moved_on = if is_silent { Reader::moved_on } else { Reader::moved_on_beside };
            match this.reader.as_mut().and_then(moved_on) {
                Some(bytes) => this.outgoing.put(bytes),
                None if is_silent => this.outgoing.put(Bytes::from_static(KEEPALIVE)),
                None => {}
            }
            this.silence.reset(if is_silent { now + keepalive } else { due });
            return Poll::Ready(());
        }
        this.registered.control.waiting();
        Poll::Pending
    }

    /// What is sent next.
    fn take(self: Pin<&mut Self>) -> Option<Bytes> {
        let this = self.project();
        let bytes = this.outgoing.take()?;
        *this.written = Instant::now();
        this.registered.handed(bytes.len(), this.outgoing.take_plain(), *this.written);
        if let Some(published) = this.published.take() {
            this.registered.control.route.metrics.delayed(*this.written - published);
        }
        Some(bytes)
    }

    /// The last words: when to come back.
    fn finish(self: Pin<&mut Self>) {
        let this = self.project();
        *this.ended = true;
        let mut bytes = Vec::new();
        sse::retry(&mut bytes, jittered(this.registered.control.route.config.retry));
        this.outgoing.put(bytes.into());
        this.outgoing.end();
    }
}

impl Registered {
    /// Counts events that are about to be sent. Where it is to be measured how late they are, notes when they were
    /// `published`; what came in before the stream was opened is history, which is late by intent.
    fn count(&self, events: usize, times: Option<Times>, published: &mut Option<Instant>) {
        self.control.events.fetch_add(events as u64, Ordering::Relaxed);
        let measured = self.control.route.metrics.delivered(events as u64);
        if let Some(times) = times.filter(|times| measured && times.arrived >= self.control.opened) {
            published.get_or_insert(times.published);
        }
    }

    /// Some of several feeds have ended, whose ids left no room for those of others; with the last of them the stream does.
    fn ended(&mut self, labels: &[Arc<str>], reader: &Reader) {
        self.gives_back(labels);
        let route = &self.control.route;
        labels.iter().for_each(|_| route.metrics.shed(TOO_LONG));
        if let Some((feed, unsaid)) = labels.first().zip(route.kept.too_long.again()) {
            tracing::warn!(route = route.name, %feed, unsaid, "a feed of several was ended: their ids are too long together");
        }
        self.reads(reader);
        if reader.is_over() {
            self.control.end(End::Refused);
        }
    }
}

/// What every stream begins with: a comment, so that proxies and clients see that it is open, and the time
/// after which to come back, drawn for this client.
pub fn opening(retry: Duration) -> Bytes {
    let mut bytes = Vec::new();
    sse::comment(&mut bytes, "");
    sse::retry(&mut bytes, jittered(retry));
    bytes.into()
}

/// A time drawn evenly from within a quarter of `middle`, so that clients do not all come back at once.
pub fn jittered(middle: Duration) -> Duration {
    middle.mul_f64(rand::random_range(0.75..1.25))
}

const KEEPALIVE: &[u8] = b":\n\n";

/// What a feed for whose id there was no room is counted as.
const TOO_LONG: &str = "id_too_long";

#[cfg(test)]
mod tests;

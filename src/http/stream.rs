//! One open stream: the body that turns what a subscription reads into the bytes of an HTTP response, with
//! keepalive comments in the silences.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep};

use super::outgoing::Outgoing;
use super::router::Route;
use super::streams::{End, Registered};
use super::turns::Turn;
use crate::compress::Encoding;
use crate::config::OnLag;
use crate::hub::{Read, Reason, Subscription};
use crate::sse;

/// Bytes read from the log at a time.
const READ: usize = 32 * 1024;

pin_project! {
    /// The events of one subscription, until the client or the process has enough.
    pub struct EventStream {
        subscription: Subscription,
        registered: Registered,
        outgoing: Outgoing,
        encoding: Option<Encoding>,
        ended: bool,
        written: Instant,
        turn: Turn,
        #[pin]
        wake: OwnedNotified,
        #[pin]
        silence: Sleep,
    }
}

impl EventStream {
    /// A stream in this encoding that begins with a comment and a `retry:`, before anything else is known.
    pub fn new(subscription: Subscription, registered: Registered, encoding: Option<Encoding>) -> Self {
        let keepalive = registered.control.route.config.keepalive;
        let mut outgoing = Outgoing::new(encoding.map(|encoding| encoding.coding));
        outgoing.put(opening(&registered.control.route));
        Self {
            outgoing,
            encoding,
            ended: false,
            written: Instant::now(),
            turn: Turn::default(),
            wake: subscription.feed().log.wake().next(),
            silence: tokio::time::sleep(keepalive),
            subscription,
            registered,
        }
    }

    /// The answer is made: until the stream is polled the client is slow, or gone.
    pub fn begins(&self) {
        self.registered.handed(0, 0, self.written);
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
            let mut this = self.as_mut().project();
            let (streams, replays) = (this.registered.streams(), this.subscription.replays());
            let turns = if replays { &streams.replay_turns } else { &streams.turns };
            if this.turn.poll(turns, replays, cx).is_pending() {
                this.registered.control.waiting();
                return self.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(bytes)));
            }
            match this.subscription.read(READ) {
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
                    this.wake.set(wake);
                    ready!(self.as_mut().poll_news(cx));
                }
                Read::Control { bytes, gaps } => {
                    let route = &this.registered.control.route;
                    gaps.iter().for_each(|&reason| route.metrics.gap(reason));
                    if gaps.contains(&Reason::Lagged) && route.config.on_lag == OnLag::Disconnect {
                        this.registered.control.end(End::Lagged);
                    } else {
                        this.outgoing.put(bytes);
                    }
                }
                Read::Slice { bytes, events, forms } => {
                    this.registered.count(events);
                    this.turn.count(bytes.len());
                    let packed = forms.zip(*this.encoding);
                    match packed.and_then(|(forms, encoding)| forms.packed(&bytes, encoding)) {
                        Some(packed) => this.outgoing.put_packed(&bytes, packed),
                        None => this.outgoing.put(bytes),
                    }
                }
                Read::Pieces { bytes, .. } if bytes.is_empty() => {
                    // It went past entries that the client has; the others have their turn before the next ones.
                    this.turn.end();
                }
                Read::Pieces { bytes, events } => {
                    this.registered.count(events);
                    this.turn.count(bytes.iter().map(Bytes::len).sum());
                    bytes.into_iter().for_each(|bytes| this.outgoing.put(bytes));
                }
            }
        }
    }

    /// Ready when there may be something to read or to send.
    fn poll_news(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.wake.as_mut().poll(cx).is_ready() {
            this.wake.set(this.subscription.feed().log.wake().next());
            return Poll::Ready(());
        }
        if this.silence.as_mut().poll(cx).is_ready() {
            let keepalive = this.registered.control.route.config.keepalive;
            // The timer is not set anew for each event; it looks at the last write when it rings.
            let (due, now) = (*this.written + keepalive, Instant::now());
            if due <= now {
                this.outgoing.put(this.subscription.moved_on().unwrap_or(Bytes::from_static(KEEPALIVE)));
            }
            this.silence.reset(if due <= now { now + keepalive } else { due });
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
    fn count(&self, events: usize) {
        self.control.events.fetch_add(events as u64, Ordering::Relaxed);
        self.control.route.metrics.events_out.inc_by(events as u64);
    }
}

/// What every stream begins with: a comment, so that proxies and clients see that it is open, and the time
/// after which to come back, drawn for this client.
pub fn opening(route: &Arc<Route>) -> Bytes {
    let mut bytes = Vec::new();
    sse::comment(&mut bytes, "");
    sse::retry(&mut bytes, jittered(route.config.retry));
    bytes.into()
}

/// A time drawn evenly from within a quarter of `middle`, so that clients do not all come back at once.
fn jittered(middle: Duration) -> Duration {
    middle.mul_f64(rand::random_range(0.75..1.25))
}

const KEEPALIVE: &[u8] = b":\n\n";

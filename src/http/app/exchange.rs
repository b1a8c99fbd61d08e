//! A request that an application answers, while it lasts. It has one of the application's connections until both bodies
//! are over, so a client that neither takes nor sends anything is ended: what it does not take, its own task would never
//! see, for hyper asks for more of an answer only when the client has taken some.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::super::problem::Problem;
use super::super::stall::Stall;
use crate::traces::Span;

/// What both directions share.
pub struct Exchange {
    /// When something last came, from either side.
    moved: Mutex<Instant>,
    /// Whether more of the request is the client's to send.
    awaits_client: AtomicBool,
    _seat: OwnedSemaphorePermit,
    _open: watch::Receiver<()>,
}

impl Exchange {
    /// One that has this seat among the application's connections, and is seen to be open.
    pub fn new(seat: OwnedSemaphorePermit, open: watch::Receiver<()>) -> Arc<Self> {
        let (moved, awaits_client) = (Mutex::new(Instant::now()), AtomicBool::new(false));
        Arc::new(Self { moved, awaits_client, _seat: seat, _open: open })
    }

    /// The answer, if it comes within `limit` of what the client has sent last. While more is the client's to send, it is
    /// [`Upload`] that ends it.
    pub async fn within<T>(&self, limit: Duration, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        let mut until = Instant::now() + limit;
        loop {
            if let Ok(answer) = timeout_at(until, &mut answer).await {
                return Some(answer);
            }
            let awaits_client = self.awaits_client.load(Ordering::Relaxed);
            let since = if awaits_client { Instant::now() } else { *self.moved.lock() };
            if since + limit <= until {
                return None;
            }
            until = since + limit;
        }
    }

    fn moves(&self) {
        *self.moved.lock() = Instant::now();
    }
}

/// The request's body on its way to the application.
pub struct Upload {
    body: Incoming,
    exchange: Arc<Exchange>,
    /// How long nothing may come, from either side, while more is the client's to send.
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a request's body is not whole: the client's doing.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the client broke off its request")]
    Off(#[source] hyper::Error),
    #[error("the client went on with its request too slowly")]
    Slow,
}

impl Broken {
    /// What the client is told, if it is still there.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Off(_) => Problem::BadRequest("The request ended before its body did."),
            Self::Slow => Problem::RequestTimeout,
        }
    }
}

impl Upload {
    /// Of this exchange. A client that sends nothing for `stall` has it ended.
    pub fn new(body: Incoming, exchange: &Arc<Exchange>, stall: Duration) -> Self {
        Self { body, exchange: Arc::clone(exchange), stall, timer: None }
    }

    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.stall)));
        while timer.as_mut().poll(cx).is_ready() {
            let until = *self.exchange.moved.lock() + self.stall;
            if until <= Instant::now() {
                return true;
            }
            timer.as_mut().reset(until);
        }
        false
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        this.exchange.awaits_client.store(frame.is_pending(), Ordering::Relaxed);
        if frame.is_ready() {
            this.exchange.moves();
        } else if this.is_overdue(cx) {
            return Poll::Ready(Some(Err(Broken::Slow)));
        }
        frame.map_err(Broken::Off)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer's body on its way to the client.
pub struct Passed {
    body: Incoming,
    exchange: Arc<Exchange>,
    stall: Stall,
    /// Of the request, if it is traced: it lasts as long as the answer.
    span: Option<Box<Span>>,
}

impl Passed {
    /// Of this exchange. A client that takes nothing for `stall` has the task ended that this is called in.
    pub fn new(body: Incoming, exchange: Arc<Exchange>, stall: Duration) -> Self {
        let stall = Stall::watch(stall, "what an application answers");
        Self { body, exchange, stall, span: None }
    }

    /// Ends this span when it ends itself.
    pub fn ends(&mut self, span: Box<Span>) {
        self.span = Some(span);
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        this.stall.asked(frame.is_ready());
        if frame.is_ready() {
            this.exchange.moves();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_begins_with_what_the_client_sent_last() {
        let seat = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let open = watch::Sender::new(());
        let exchange = Exchange::new(seat, open.subscribe());
        let limit = 60 * SECOND;
        let began = Instant::now();
        let sending = async {
            for _ in 0..3 {
                sleep(50 * SECOND).await;
                exchange.moves();
            }
            exchange.awaits_client.store(true, Ordering::Relaxed);
            sleep(1_000 * SECOND).await;
            exchange.moves();
            exchange.awaits_client.store(false, Ordering::Relaxed);
        };
        let (answer, ()) = tokio::join!(exchange.within(limit, std::future::pending::<()>()), sending);
        assert_eq!((answer, began.elapsed()), (None, (150 + 1_000 + 60) * SECOND));
        assert_eq!(exchange.within(limit, async { 1 }).await, Some(1));
        drop(exchange);
        open.closed().await;
    }
}
